"""MngDeleteCalendarEvent: event and participants are gone, for who may change it."""

from __future__ import annotations

from tests.calendar_model import Manager
from tests.people import team


async def test_delete_removes_event_and_participants(gateway, connect, db):
    """The reply is the id alone; nothing of the event is left, and others are untouched."""
    (owner,) = await team(db, connect, gateway, Manager(21))
    event, other = [await owner.add(participant_manager_ids=[22, 23]) for _ in range(2)]
    reply = await owner.command("Delete", id=event["id"])
    assert (200, {"id": event["id"]}) == (reply["status"], reply["data"])
    assert [other["id"]] == [row["id"] for row in await db.fetch("SELECT id FROM calendar_event")]
    assert {other["id"]} == {row["event_id"] for row in await db.fetch("SELECT event_id FROM calendar_participant")}
    assert other == await owner.get(other["id"])


async def test_deleted_event_is_absent_to_every_command(gateway, connect, db):
    """What is deleted is 404 from then on, also to a second delete; its id is not given again."""
    (owner,) = await team(db, connect, gateway, Manager(21))
    event = await owner.add()
    await owner.command("Delete", id=event["id"])
    for name in ("Get", "Complete", "Archive", "Delete"):
        assert (404, "NOT_FOUND", None) == await owner.refusal(name, id=event["id"])
    assert (404, "NOT_FOUND", None) == await owner.refusal("Update", id=event["id"], title="x")
    assert (404, "NOT_FOUND", None) == await owner.refusal("SetCalendarParticipantStatus", id=event["id"], status=1)
    assert 0 == (await owner.filter())["count"]
    assert event["id"] < (await owner.add())["id"]


async def test_delete_is_for_owner_creator_and_administrators(gateway, connect, db):
    """A guest who reads the event may not delete it; owner, creator, ADMIN and CRM_ADMIN may."""
    creator, owner, guest, *admins = await team(
        db, connect, gateway, Manager(21), Manager(22), Manager(23), Manager(24, 3), Manager(25, 11)
    )
    for person in (creator, owner, *admins):
        event = await creator.add(owner_manager_id=22, participant_manager_ids=[23])
        assert (403, "FORBIDDEN", None) == await guest.refusal("Delete", id=event["id"])
        assert event == await guest.get(event["id"])
        assert 200 == (await person.command("Delete", id=event["id"]))["status"]


async def test_delete_of_a_stale_version_is_a_conflict(gateway, connect, db):
    """409 carries the current event under data.event, and no top-level `event`; the right version deletes."""
    (owner,) = await team(db, connect, gateway, Manager(21))
    event = await owner.add()
    event = await owner.event("Update", id=event["id"], title="later")
    reply = await owner.command("Delete", id=event["id"], if_version=1)
    assert (409, "CONFLICT", "if_version", "not_executed") == tuple(reply[k] for k in ("status", "error", "field", "outcome"))
    assert {"event": event} == reply["data"]
    assert "event" not in reply
    assert 200 == (await owner.command("Delete", id=event["id"], if_version=2))["status"]
