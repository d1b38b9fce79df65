"""Who takes part in an event after an update: lists replace, the owner stays organizer, a former owner is a guest."""

from __future__ import annotations

from typing import Any

import pytest

from tests.calendar_model import Manager
from tests.people import Person, shown, team


@pytest.fixture
async def owner(gateway: Any, connect: Any, db: Any) -> Person:
    """The manager who owns the events here."""
    (owner,) = await team(db, connect, gateway, Manager(21))
    return owner


LISTS: list[tuple[dict[str, Any], list[tuple[int, int, int]]]] = [
    ({"title": "neither"}, [(21, 0, 1), (22, 2, 3), (23, 1, 0)]),
    ({"participant_manager_ids": [22]}, [(21, 0, 1), (22, 2, 3)]),
    ({"participant_manager_ids": [22, 77]}, [(21, 0, 1), (22, 2, 3), (77, 1, 0)]),
    ({"participant_manager_ids": []}, [(21, 0, 1)]),
    ({"participants": []}, [(21, 0, 1)]),
    ({"participants": [{"manager_id": 22, "status": 1}]}, [(21, 0, 1), (22, 2, 1)]),
    ({"participants": [{"manager_id": 22, "role": 1}, {"manager_id": 9}]}, [(21, 0, 1), (9, 1, 0), (22, 1, 3)]),
    ({"participants": [{"manager_id": 21, "role": 2, "status": 2}]}, [(21, 0, 1)]),
    ({"participants": [{"manager_id": 22, "role": 0}], "participant_manager_ids": [23]}, [(21, 0, 1), (22, 0, 3)]),
]


async def test_update_replaces_participants(owner, db):
    """A list replaces all; who stays keeps role, status and creation unless told; the owner stays; the tables agree."""
    rows = [{"manager_id": 22, "role": 2, "status": 3, "created_time": 7}, {"manager_id": 23}]
    columns = "event_id, manager_id, role, status, created_time, updated_time"
    for change, expected in LISTS:
        event = await owner.add(participants=rows)
        changed = await owner.event("Update", id=event["id"], **change)
        assert (expected, 2) == (shown(changed), changed["version"])
        assert {22: 7}.items() >= {
            r["manager_id"]: r["created_time"] for r in changed["participants"] if r["manager_id"] == 22
        }.items()
        stored = await db.fetch(f"SELECT {columns} FROM calendar_participant WHERE event_id = $1", event["id"])
        assert sorted(changed["participants"], key=str) == sorted((dict(row) for row in stored), key=str)


OWNERS: list[tuple[dict[str, Any], list[tuple[int, int, int]]]] = [
    ({"owner_manager_id": 22}, [(22, 0, 1), (21, 1, 1), (23, 1, 0)]),
    ({"owner_manager_id": 77}, [(77, 0, 1), (21, 1, 1), (22, 2, 3), (23, 1, 0)]),
    ({"owner_manager_id": 22, "participant_manager_ids": [23]}, [(22, 0, 1), (23, 1, 0)]),
    ({"owner_manager_id": 22, "participant_manager_ids": [21]}, [(22, 0, 1), (21, 1, 1)]),
    ({"owner_manager_id": 22, "participants": [{"manager_id": 21, "role": 2}]}, [(22, 0, 1), (21, 2, 1)]),
    ({"owner_manager_id": 22, "participants": [{"manager_id": 22, "role": 1, "status": 2}]}, [(22, 0, 1)]),
]


async def test_update_hands_the_event_over(owner, db):
    """The new owner is organizer and accepted; the former one, who stays, is a participant who accepted, as of now."""
    for change, expected in OWNERS:
        event = await owner.add(participants=[{"manager_id": 22, "role": 2, "status": 3}, {"manager_id": 23}])
        await db.execute("UPDATE calendar_participant SET created_time = 5, updated_time = 6")
        changed = await owner.event("Update", id=event["id"], **change)
        assert (expected, expected[0][0]) == (shown(changed), changed["owner_manager_id"])
        for row, (manager_id, role, status) in zip(changed["participants"], expected, strict=True):
            stays_as_it_was = (manager_id, role, status) in {(22, 2, 3), (23, 1, 0)}
            assert (6 if stays_as_it_was else changed["updated_time"]) == row["updated_time"]
            assert (changed["updated_time"] if manager_id == 77 else 5) == row["created_time"]


async def test_update_refuses_participants_that_add_refuses(owner):
    """Wrong ids, enums, repeats and times are refused by name, and nothing changes."""
    event = await owner.add()
    for rows, field in (
        ([{"manager_id": 22}, {"manager_id": 22}], "participants[1].manager_id"),
        ([{"manager_id": 0}], "participants[0].manager_id"),
        ([{"manager_id": 22, "role": 3}], "participants[0].role"),
        ([{"manager_id": 22, "status": 4}], "participants[0].status"),
        ([{"manager_id": 22, "created_time": 10**13}], "participants[0].created_time"),
    ):
        assert (400, "INVALID_DATA", field) == await owner.refusal("Update", id=event["id"], participants=rows)
    assert (400, "FIELD_REQUIRED", "participants[0].manager_id") == await owner.refusal(
        "Update", id=event["id"], participants=[{"role": 1}]
    )
    assert event == await owner.get(event["id"])
