"""MngSetCalendarParticipantStatus: a manager answers its own invitation."""

from __future__ import annotations

from tests.calendar_model import Manager
from tests.people import shown, team


async def test_answer_changes_the_callers_own_row(gateway, connect, db):
    """Each answer is one version by the guest, and touches the guest's status and time alone."""
    owner, guest = await team(db, connect, gateway, Manager(21), Manager(22, mask=""))
    event = await owner.add(participants=[{"manager_id": 22, "role": 2}, {"manager_id": 23, "status": 3}])
    await db.execute("UPDATE calendar_participant SET created_time = 5, updated_time = 6")
    version = 1
    for status in (1, 2, 3, 0):
        answered = await guest.answer(event["id"], status)
        version += 1
        assert [(21, 0, 1), (22, 2, status), (23, 1, 3)] == shown(answered)
        assert (version, 22) == (answered["version"], answered["updated_by"])
        times = [(row["created_time"], row["updated_time"]) for row in answered["participants"]]
        assert [(5, 6), (5, answered["updated_time"]), (5, 6)] == times
        assert answered == await owner.get(event["id"])
    stored = await db.fetch("SELECT manager_id, role, status FROM calendar_participant ORDER BY role, manager_id")
    assert [(21, 0, 1), (23, 1, 3), (22, 2, 0)] == [tuple(row) for row in stored]


async def test_answer_that_stands_changes_nothing(gateway, connect, db):
    """The same answer again is success, without a version and without a write."""
    owner, guest = await team(db, connect, gateway, Manager(21), Manager(22))
    event = await owner.add(participant_manager_ids=[22])
    answered = await guest.answer(event["id"], 2)
    written = await db.fetch("SELECT xmin::text FROM calendar_participant ORDER BY manager_id")
    assert answered == await guest.answer(event["id"], 2)
    assert written == await db.fetch("SELECT xmin::text FROM calendar_participant ORDER BY manager_id")


async def test_answer_is_for_guests_alone(gateway, connect, db):
    """The owner is refused as wrong data, who is not invited as forbidden (creator and administrator too), others as absent."""
    creator, owner, reader, admin, stranger = await team(
        db, connect, gateway, Manager(21), Manager(22), Manager(23), Manager(24, 11), Manager(25, mask="")
    )
    event = await creator.add(owner_manager_id=22, participant_manager_ids=[26])
    name = "SetCalendarParticipantStatus"
    for status in (0, 1):
        assert (400, "INVALID_DATA", "status") == await owner.refusal(name, id=event["id"], status=status)
        for person in (creator, reader, admin):
            assert (403, "FORBIDDEN", None) == await person.refusal(name, id=event["id"], status=status)
        assert (404, "NOT_FOUND", None) == await stranger.refusal(name, id=event["id"], status=status)
        assert (404, "NOT_FOUND", None) == await owner.refusal(name, id=404, status=status)
    assert event == await owner.get(event["id"])


async def test_answer_of_a_co_organizer_gives_no_right(gateway, connect, db):
    """A guest of role 0 answers like every guest and may still not change the event."""
    owner, guest = await team(db, connect, gateway, Manager(21), Manager(22))
    event = await owner.add(participants=[{"manager_id": 22, "role": 0}])
    assert [(21, 0, 1), (22, 0, 2)] == shown(await guest.answer(event["id"], 2))
    assert (403, "FORBIDDEN", None) == await guest.refusal("Complete", id=event["id"])


async def test_answer_takes_an_id_and_a_status(gateway, connect, db):
    """Both are required and within bounds; nothing else is taken, another's manager id least of all."""
    owner, guest = await team(db, connect, gateway, Manager(21), Manager(22))
    event, name = await owner.add(participant_manager_ids=[22]), "SetCalendarParticipantStatus"
    assert (400, "FIELD_REQUIRED", "status") == await guest.refusal(name, id=event["id"])
    assert (400, "FIELD_REQUIRED", "id") == await guest.refusal(name, status=1)
    for wrong in (-1, 4, "1", 1.0, True):
        assert (400, "INVALID_DATA", "status") == await guest.refusal(name, id=event["id"], status=wrong)
    for extra in ("manager_id", "if_version", "role"):
        assert (400, "INVALID_DATA", extra) == await guest.refusal(name, id=event["id"], status=1, **{extra: 1})
    assert event == await owner.get(event["id"])
