"""MngUpdateCalendarEvent: what is sent changes, what is not stays, for who may. Participants: test_participants.py."""

from __future__ import annotations

from typing import Any

import pytest

from tests.calendar_model import Manager
from tests.people import Person, shown, team

DAY = 86_400
EVERY_FIELD: dict[str, Any] = {
    "title": "Renamed",
    "start_time": 1_710_000_100,
    "end_time": 1_710_000_200,
    "desk": "DESK_EU",
    "type": 3,
    "status": 2,
    "priority": 3,
    "ast_json": {"type": "doc"},
    "all_day": 1,
    "remind_time": 1_709_999_000,
    "remind_before_sec": 600,
    "customer_id": 1,
    "lead_id": 2,
    "login": 3,
}


@pytest.fixture
async def people(gateway: Any, connect: Any, db: Any) -> list[Person]:
    """An owner, two others, and one who may act for others."""
    return await team(db, connect, gateway, *(Manager(i, brands=("default", "second")) for i in (21, 22, 23)), Manager(24, 11))


async def test_update_changes_what_is_sent_alone(people, db):
    """Each field alone, then set back together: the others stay, each change is one version, the tables hold the reply."""
    owner = people[0]
    before = await owner.add(participant_manager_ids=[22], ast_json=None)
    event = before
    for name, value in EVERY_FIELD.items():
        if name == "end_time":  # still the hour that the event began with
            assert event["end_time"] == before["end_time"]
        event = {**event, name: value, "version": event["version"] + 1}
        reply = await owner.event("Update", id=event["id"], **{name: value})
        assert event == {**reply, "updated_time": event["updated_time"]}
    assert 1 + len(EVERY_FIELD) == event["version"]
    back = await owner.event("Update", id=event["id"], **{name: before[name] for name in EVERY_FIELD})
    assert {**before, "version": event["version"] + 1} == {**back, "updated_time": before["updated_time"]}
    assert back == await owner.get(event["id"])
    row = dict(await db.fetchrow("SELECT * FROM calendar_event"))
    assert {**back, "participants": None} == {**row, "participants": None}


async def test_update_says_who_made_it(people, db):
    """`updated_by` and `updated_time` are the last change's; creator and creation stay."""
    owner, _, _, admin = people
    event = await owner.add()
    await db.execute("UPDATE calendar_event SET created_time = 5, updated_time = 5")
    changed = await admin.event("Update", id=event["id"], priority=1)
    assert (21, 24, 5, 2) == (changed["created_by"], changed["updated_by"], changed["created_time"], changed["version"])
    assert changed["updated_time"] >= event["updated_time"]


async def test_update_without_effect_changes_nothing(people, db):
    """What repeats the row, gives 0 for owner and creator, or sends back the list just read adds no version and no row."""
    owner, guest, *_ = people
    event = await owner.add(participants=[{"manager_id": 22, "role": 2, "status": 3}], ast_json={"a": 1}, desk="D")
    rows = "SELECT event.xmin, own.xmin FROM calendar_event AS event JOIN calendar_participant AS own ON event_id = id"
    before = await db.fetch(rows)
    writable = {name: event[name] for name in EVERY_FIELD}
    for same in (
        writable,
        {"owner_manager_id": 0, "created_by": 0},
        {"owner_manager_id": 21, "created_by": 21, "brand": "default"},
        {"participants": event["participants"]},
        {"participants": [{"manager_id": 22}]},
        {"participant_manager_ids": [22, 21, 22]},
        {"brand": "", "title": event["title"]},
    ):
        assert event == await owner.event("Update", id=event["id"], **same)
    assert before == await db.fetch(rows)
    assert event == await guest.get(event["id"])


async def test_update_needs_a_field(people):
    """No writable field, or null for all of them, is refused; null for one among others is left as it is."""
    owner = people[0]
    event = await owner.add()
    for nothing in ({}, {"if_version": 1}, {"title": None, "participants": None, "desk": None}):
        assert (400, "FIELD_REQUIRED", None) == await owner.refusal("Update", id=event["id"], **nothing)
    assert (400, "FIELD_REQUIRED", "id") == await owner.refusal("Update", title="x")
    for read_only in ("updated_by", "reminder_sent_time", "created_time", "updated_time", "version"):
        assert (400, "INVALID_DATA", read_only) == await owner.refusal("Update", id=event["id"], title="x", **{read_only: 1})
    changed = await owner.event("Update", id=event["id"], title=None, priority=2, start_time=None)
    assert (event["title"], event["start_time"], 2) == (changed["title"], changed["start_time"], changed["priority"])


async def test_update_sets_the_body_to_null_when_told(people, db):
    """`ast_json: null` empties the body; left out, the body stays as it was sent."""
    owner = people[0]
    event = await owner.add(ast_json=["b", {"o": "d"}])
    assert ["b", {"o": "d"}] == (await owner.event("Update", id=event["id"], title="x"))["ast_json"]
    assert None is (await owner.event("Update", id=event["id"], ast_json=None))["ast_json"]
    assert await db.fetchval("SELECT ast_json IS NULL FROM calendar_event")
    assert (400, "INVALID_DATA", "ast_json") == await owner.refusal("Update", id=event["id"], ast_json=5)


async def test_update_judges_the_final_times(people, db):
    """Whichever time is sent, the event may not end before it starts; participants' copies of the times follow."""
    owner = people[0]
    event = await owner.add(start_time=1000, end_time=2000, participant_manager_ids=[22])
    for wrong in (
        {"start_time": 2001},
        {"end_time": 999},
        {"start_time": 9, "end_time": 8},
        {"start_time": 2001, "title": "x"},
    ):
        assert (400, "INVALID_DATA", "end_time") == await owner.refusal("Update", id=event["id"], **wrong)
    assert (400, "INVALID_DATA", "start_time") == await owner.refusal("Update", id=event["id"], start_time=0)
    for wrong, standing in (({"start_time": 2001}, "end_time is 2000"), ({"end_time": 999}, "start_time is 1000")):
        message = (await owner.command("Update", id=event["id"], **wrong))["message"]
        assert f"end_time must be >= start_time; the event's {standing}" == message
    assert event == await owner.get(event["id"])
    for right in (
        {"start_time": 2000},
        {"end_time": 3000},
        {"start_time": 5000, "end_time": 5000},
        {"end_time": 5000 + 30 * DAY},
    ):
        changed = await owner.event("Update", id=event["id"], **right)
        copies = await db.fetch("SELECT DISTINCT start_time, end_time FROM calendar_participant")
        assert [(changed["start_time"], changed["end_time"])] == [tuple(row) for row in copies]


async def test_update_needs_the_right_to_change(people):
    """Owner and creator may, an administrator may, a guest may not; a guest's stale version is no matter: 403 comes first."""
    creator, owner, guest, admin = people
    event = await creator.add(owner_manager_id=22, participant_manager_ids=[23])
    for person in (creator, owner, admin):
        event = await person.event("Update", id=event["id"], title=f"by {person.id}")
    assert (403, "FORBIDDEN", None) == await guest.refusal("Update", id=event["id"], title="x")
    assert (403, "FORBIDDEN", None) == await guest.refusal("Update", id=event["id"], title="x", if_version=1)
    assert event == await guest.get(event["id"])


async def test_update_keeps_the_brand(people):
    """A foreign brand is 403, another of one's own is refused too, and the event's own may be repeated."""
    owner = people[0]
    event = await owner.add(brand="second")
    assert (403, "FORBIDDEN", "brand") == await owner.refusal("Update", id=event["id"], title="x", brand="foreign")
    assert (400, "INVALID_DATA", "brand") == await owner.refusal("Update", id=event["id"], title="x", brand="default")
    assert "second" == (await owner.event("Update", id=event["id"], title="x", brand="second"))["brand"]


async def test_update_moves_to_a_covered_desk_alone(gateway, connect, db):
    """A desk must be empty, covered, or the one it has; excluded and foreign ones are 403."""
    boss, owner = await team(db, connect, gateway, Manager(20), Manager(21, mask="DESK_EU*,!DESK_EU_TEST"))
    event = await boss.add(owner_manager_id=21, desk="DESK_US")
    for desk in ("DESK_EU_TEST", "DESK_ASIA", "desk_eu"):
        assert (403, "FORBIDDEN", "desk") == await owner.refusal("Update", id=event["id"], title="x", desk=desk)
    for desk in ("DESK_US", "DESK_EU_1", ""):
        assert desk == (await owner.event("Update", id=event["id"], desk=desk))["desk"]
    assert (403, "FORBIDDEN", "desk") == await owner.refusal("Update", id=event["id"], desk="DESK_US")


async def test_update_names_another_creator_by_administrators_alone(people):
    """Naming another is 403 but for administrators; naming oneself or the one who stands is free."""
    creator, owner, _, admin = people
    event = await creator.add(owner_manager_id=22)
    assert (403, "FORBIDDEN", "created_by") == await owner.refusal("Update", id=event["id"], created_by=23)
    assert event == await owner.event("Update", id=event["id"], created_by=21)
    assert 23 == (await admin.event("Update", id=event["id"], created_by=23))["created_by"]
    assert 22 == (await owner.event("Update", id=event["id"], created_by=22))["created_by"]


async def test_update_of_a_stale_version_is_a_conflict(people):
    """409 carries the event as it is now under data.event and never a top-level `event`; the right version is taken."""
    owner = people[0]
    event = await owner.add(participant_manager_ids=[22])
    event = await owner.event("Update", id=event["id"], title="later", if_version=1)
    for stale in (1, 3):
        reply = await owner.command("Update", id=event["id"], title="x", if_version=stale)
        assert (409, "CONFLICT", "if_version") == (reply["status"], reply["error"], reply["field"])
        assert ({"event": event}, "not_executed") == (reply["data"], reply["outcome"])
        assert "event" not in reply
    assert 3 == (await owner.event("Update", id=event["id"], title="x", if_version=2))["version"]


async def test_update_that_hides_the_event_answers_with_it(gateway, connect, db):
    """Who gives an event away altogether is answered with it as it is now, and sees it no more."""
    giver, taker = await team(db, connect, gateway, Manager(21, 3, mask=""), Manager(22))
    event = await giver.add()
    change = {"owner_manager_id": 22, "created_by": 22, "participant_manager_ids": [22]}
    changed = await giver.event("Update", id=event["id"], **change)
    assert [(22, 0, 1)] == shown(changed)
    assert (404, "NOT_FOUND", None) == await giver.refusal("Get", id=event["id"])
    assert changed == await taker.get(event["id"])


async def test_update_checks_in_the_documented_order(people):
    """Data before the event, the event before the right, the right before the version."""
    owner, _, other, _ = people
    event = await owner.add(participant_manager_ids=[23])
    assert (400, "INVALID_DATA", "type") == await other.refusal("Update", id=404, type=9)
    assert (404, "NOT_FOUND", None) == await other.refusal("Update", id=404, title="x", brand="foreign", if_version=9)
    assert (403, "FORBIDDEN", None) == await other.refusal("Update", id=event["id"], title="x", if_version=9)
    assert (409, "CONFLICT", "if_version") == await owner.refusal("Update", id=event["id"], title="x", if_version=9)
