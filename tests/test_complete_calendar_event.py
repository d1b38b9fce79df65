"""MngCompleteCalendarEvent: status 1, once, for who may change the event."""

from __future__ import annotations

from tests.calendar_model import Manager
from tests.people import team


async def test_complete_sets_the_status_alone(gateway, connect, db):
    """From any status the event becomes done: one version on, by the caller, nothing else changed; the tables agree."""
    creator, owner = await team(db, connect, gateway, Manager(21), Manager(22))
    for status in (0, 2, 3):
        event = await creator.add(status=status, owner_manager_id=22, ast_json=["x"], participant_manager_ids=[23])
        done = await owner.event("Complete", id=event["id"])
        expected = {**event, "status": 1, "version": 2, "updated_by": 22, "updated_time": done["updated_time"]}
        assert expected == done
        assert done == await creator.get(event["id"])
        assert (1, 2) == tuple(await db.fetchrow("SELECT status, version FROM calendar_event WHERE id = $1", event["id"]))


async def test_complete_of_a_done_event_changes_nothing(gateway, connect, db):
    """A second complete answers with the same event and writes no row; a stale version is a conflict all the same."""
    (owner,) = await team(db, connect, gateway, Manager(21))
    event = await owner.add()
    done = await owner.event("Complete", id=event["id"], if_version=1)
    written = await db.fetchval("SELECT xmin::text FROM calendar_event")
    assert done == await owner.event("Complete", id=event["id"])
    assert done == await owner.event("Complete", id=event["id"], if_version=2)
    assert written == await db.fetchval("SELECT xmin::text FROM calendar_event")
    reply = await owner.command("Complete", id=event["id"], if_version=1)
    assert (409, "CONFLICT", {"event": done}) == (reply["status"], reply["error"], reply["data"])
    assert "event" not in reply


async def test_complete_needs_the_right_to_change(gateway, connect, db):
    """A guest may read and not complete (403, before the version); hidden is absent (404); administrators may."""
    owner, guest, stranger, admin = await team(
        db, connect, gateway, Manager(21), Manager(22, mask=""), Manager(23, mask="!D,E"), Manager(24, 3)
    )
    event = await owner.add(desk="D", participant_manager_ids=[22])
    assert (403, "FORBIDDEN", None) == await guest.refusal("Complete", id=event["id"], if_version=7)
    assert (404, "NOT_FOUND", None) == await stranger.refusal("Complete", id=event["id"], if_version=7)
    assert (404, "NOT_FOUND", None) == await admin.refusal("Complete", id=404)
    assert event == await guest.get(event["id"])
    assert 1 == (await admin.event("Complete", id=event["id"]))["status"]


async def test_complete_takes_an_id_and_a_version_alone(gateway, connect, db):
    """A missing or wrong id, a wrong version and unknown keys are refused by name."""
    (owner,) = await team(db, connect, gateway, Manager(21))
    event = await owner.add()
    assert (400, "FIELD_REQUIRED", "id") == await owner.refusal("Complete")
    assert (400, "FIELD_REQUIRED", "id") == await owner.refusal("Complete", id=None)
    for wrong in (0, -1, "1", 1.5, 2**53, True):
        assert (400, "INVALID_DATA", "id") == await owner.refusal("Complete", id=wrong)
    assert (400, "INVALID_DATA", "if_version") == await owner.refusal("Complete", id=event["id"], if_version="1")
    assert (400, "INVALID_DATA", "status") == await owner.refusal("Complete", id=event["id"], status=1)
    assert event == await owner.event("Get", id=event["id"])
