"""MngArchiveCalendarEvent: status 3, once, for who may change the event."""

from __future__ import annotations

from tests.calendar_model import Manager
from tests.people import team


async def test_archive_sets_the_status_alone(gateway, connect, db):
    """From any status the event becomes archived: one version on, by the caller, nothing else changed; the tables agree."""
    creator, owner = await team(db, connect, gateway, Manager(21), Manager(22))
    for status in (0, 1, 2):
        event = await creator.add(status=status, owner_manager_id=22, ast_json=["x"], participant_manager_ids=[23])
        archived = await owner.event("Archive", id=event["id"])
        expected = {**event, "status": 3, "version": 2, "updated_by": 22, "updated_time": archived["updated_time"]}
        assert expected == archived
        assert archived == await creator.get(event["id"])
        assert (3, 2) == tuple(await db.fetchrow("SELECT status, version FROM calendar_event WHERE id = $1", event["id"]))


async def test_archive_of_an_archived_event_changes_nothing(gateway, connect, db):
    """A second archive answers with the same event and writes no row; a stale version is a conflict all the same."""
    (owner,) = await team(db, connect, gateway, Manager(21))
    event = await owner.add()
    archived = await owner.event("Archive", id=event["id"], if_version=1)
    written = await db.fetchval("SELECT xmin::text FROM calendar_event")
    assert archived == await owner.event("Archive", id=event["id"])
    assert archived == await owner.event("Archive", id=event["id"], if_version=2)
    assert written == await db.fetchval("SELECT xmin::text FROM calendar_event")
    reply = await owner.command("Archive", id=event["id"], if_version=1)
    assert (409, "CONFLICT", {"event": archived}) == (reply["status"], reply["error"], reply["data"])
    assert "event" not in reply


async def test_archive_needs_the_right_to_change(gateway, connect, db):
    """A guest may read and not archive (403, before the version); hidden is absent (404); administrators may."""
    owner, guest, stranger, admin = await team(
        db, connect, gateway, Manager(21), Manager(22, mask=""), Manager(23, mask="!D,E"), Manager(24, 3)
    )
    event = await owner.add(desk="D", participant_manager_ids=[22])
    assert (403, "FORBIDDEN", None) == await guest.refusal("Archive", id=event["id"], if_version=7)
    assert (404, "NOT_FOUND", None) == await stranger.refusal("Archive", id=event["id"], if_version=7)
    assert (404, "NOT_FOUND", None) == await admin.refusal("Archive", id=404)
    assert event == await guest.get(event["id"])
    assert 3 == (await admin.event("Archive", id=event["id"]))["status"]


async def test_archive_takes_an_id_and_a_version_alone(gateway, connect, db):
    """A missing or wrong id, a wrong version and unknown keys are refused by name."""
    (owner,) = await team(db, connect, gateway, Manager(21))
    event = await owner.add()
    assert (400, "FIELD_REQUIRED", "id") == await owner.refusal("Archive")
    assert (400, "FIELD_REQUIRED", "id") == await owner.refusal("Archive", id=None)
    for wrong in (0, -1, "1", 1.5, 2**53, True):
        assert (400, "INVALID_DATA", "id") == await owner.refusal("Archive", id=wrong)
    assert (400, "INVALID_DATA", "if_version") == await owner.refusal("Archive", id=event["id"], if_version="1")
    assert (400, "INVALID_DATA", "status") == await owner.refusal("Archive", id=event["id"], status=1)
    assert event == await owner.event("Get", id=event["id"])
