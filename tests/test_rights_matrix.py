"""Rights as a table: every calendar command, for every session type, on events that stand in every relation to it."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from gateway.access import SessionType
from tests.calendar_model import ADMIN_TYPES, CALENDAR_TYPES, Manager
from tests.client import EVENT, Client
from tests.people import add_managers, wire_name

CALLER, OTHER, ABSENT = 1000, 20, 9_000_000
COMMANDS = (
    "Add",
    "Get",
    "GetCalendarEventsByFilter",
    "Update",
    "Complete",
    "Archive",
    "Delete",
    "SetCalendarParticipantStatus",
)

# By the columns of COMMANDS. `r`: 200 for administrators, else 403. The filter's 200 and 404 are one row and none.
# An add tries to make the event that the row describes; where that is said to be absent it names neither brand nor desk.
EXPECTED = """
owner           r   200 200 200 200 200 200 400
creator         200 200 200 200 200 200 200 403
participant     403 200 200 r   r   r   r   200
same desk       200 200 200 r   r   r   r   403
no desk         200 404 404 404 404 404 404 404
other desk      403 404 404 404 404 404 404 404
excluded desk   403 404 404 404 404 404 404 404
other brand     403 404 404 404 404 404 404 404
own other brand 403 404 404 404 404 404 404 404
absent          200 404 404 404 404 404 404 404
"""
TABLE = {line[:16].strip(): line[16:].split() for line in EXPECTED.strip().splitlines()}


SHOWS = {
    "Update": "id = ANY ($1) AND version = 2 AND title = 'changed'",
    "Complete": "id = ANY ($1) AND version = 2 AND status = 1",
    "Archive": "id = ANY ($1) AND version = 2 AND status = 3",
    "SetCalendarParticipantStatus": "id = ANY ($1) AND version = 2 AND id IN ("
    "SELECT event_id FROM calendar_participant WHERE manager_id = updated_by AND status = 2)",
}
"""How the tables show that a command was done."""


def event_of(situation: str, caller: int) -> dict[str, Any]:
    """Who and where an event in that situation is."""
    event = {"brand": "default", "desk": "DESK_EU_1", "owner_manager_id": OTHER, "created_by": OTHER, "guest": OTHER}
    match situation:
        case "owner":
            event |= {"desk": "", "owner_manager_id": caller, "guest": caller}
        case "creator":
            event |= {"desk": "", "created_by": caller}
        case "participant":
            event |= {"desk": "DESK_US", "guest": caller}
        case "no desk":
            event |= {"desk": ""}
        case "other desk":
            event |= {"desk": "DESK_US"}
        case "excluded desk":
            event |= {"desk": "DESK_EU_TEST"}
        case "other brand":
            event |= {"brand": "other"}
        case "own other brand":
            event |= {"brand": "other", "owner_manager_id": caller, "created_by": caller, "guest": caller}
    return event


def data_of(command: str, situation: str, event_id: int, event: dict[str, Any]) -> dict[str, Any]:
    """The request of one cell."""
    match command:
        case "Add":
            if situation == "absent":
                return EVENT
            # Who creates matters where the situation is about that; elsewhere it would hide what the row is about.
            creator = {"created_by": event["created_by"]} if situation == "owner" else {}
            return {**EVENT, **creator, **{name: event[name] for name in ("brand", "desk", "owner_manager_id")}}
        case "GetCalendarEventsByFilter":
            return {"from": 0, "to": 10**11, "limit": 9, "offset": 0, "deskFilter": "*", "customer_id": event_id}
        case "Update":
            return {"id": event_id, "title": "changed"}
        case "SetCalendarParticipantStatus":
            return {"id": event_id, "status": 2}
    return {"id": event_id}


def expected_of(command: str, kind: int, situation: str) -> int:
    if kind not in CALENDAR_TYPES:
        return 403
    code = TABLE[situation][COMMANDS.index(command)]
    return (200 if kind in ADMIN_TYPES else 403) if code == "r" else int(code)


async def insert(db: Any, event_id: int, event: dict[str, Any]) -> None:
    """A row and its participants as the gateway would have stored them."""
    numbers = (
        "type",
        "status",
        "priority",
        "all_day",
        "remind_time",
        "remind_before_sec",
        "reminder_sent_time",
        "lead_id",
        "login",
    )
    row = dict.fromkeys(numbers, 0) | dict.fromkeys(("version", "created_time", "updated_time"), 1) | EVENT | event
    row |= {"id": event_id, "customer_id": event_id, "updated_by": OTHER}
    await db.execute(
        "INSERT INTO calendar_event SELECT row.* FROM json_populate_record(NULL::calendar_event, $1::json) AS row",
        msgspec.json.encode(row).decode(),
    )
    await db.executemany(
        "INSERT INTO calendar_participant SELECT $1, $2, $3, $4, 1, 1, start_time, end_time FROM calendar_event WHERE id = $1",
        [(event_id, who, int(who != event["owner_manager_id"]), 1) for who in {event["owner_manager_id"], event["guest"]}],
    )


@pytest.fixture
async def caller(gateway: Any, connect: Any) -> Client:
    client: Client = await connect(gateway, None)
    return client


async def tokens_of_every_type(db: Any) -> dict[int, str]:
    """A manager of each session type with the same brands and mask: tokens by type."""
    managers = [Manager(CALLER + kind, kind, ("default",), "DESK_EU*,!DESK_EU_TEST") for kind in SessionType]
    return dict(zip(map(int, SessionType), await add_managers(db, managers), strict=True))


async def test_rights_are_those_of_the_table(caller, db):
    """Every cell is answered as the table says; what is refused leaves its event untouched, what is done shows."""
    tokens = await tokens_of_every_type(db)
    deviations, ids = [], itertools.count(1_000_001)
    untouched: list[int] = []
    done: dict[str, list[int]] = {command: [] for command in COMMANDS}
    for kind, situation, command in itertools.product(tokens, TABLE, COMMANDS):
        event_id = next(ids)
        event = event_of(situation, CALLER + kind)
        if situation != "absent" and command != "Add":
            await insert(db, event_id, event)
        data = data_of(command, situation, event_id, event)
        reply = await caller.command(wire_name(command), data, __token=tokens[kind])
        status = reply["status"]
        if status == 200 and command == "GetCalendarEventsByFilter":
            status = {1: 200, 0: 404}[reply["data"]["count"]]
        if status != expected_of(command, kind, situation):
            deviations.append((SessionType(kind).name, situation, command, reply))
        if status == 200 and not command.startswith("Get"):
            done[command].append(event_id)
        elif situation != "absent" and command != "Add":
            untouched.append(event_id)
    assert [] == deviations
    kept = "SELECT count(*) FROM calendar_event WHERE id = ANY ($1) AND version = 1 AND title = $2 AND status = 0"
    assert len(untouched) == await db.fetchval(kept, untouched, EVENT["title"])
    assert 0 == await db.fetchval(
        "SELECT count(*) FROM calendar_participant WHERE event_id = ANY ($1) AND status <> 1", untouched
    )
    for name, shows in SHOWS.items():
        assert len(done[name]) == await db.fetchval(f"SELECT count(*) FROM calendar_event WHERE {shows}", done[name]), name
    assert len(done["Add"]) == await db.fetchval("SELECT count(*) FROM calendar_event WHERE id < 1000000")
    assert 0 == await db.fetchval("SELECT count(*) FROM calendar_event WHERE id = ANY ($1)", done["Delete"])


async def test_hidden_and_absent_are_the_same_bytes(caller, db):
    """Whatever hides an event, each command answers about it in the bytes of an event that is not there."""
    tokens = await tokens_of_every_type(db)
    hidden = [name for name, codes in TABLE.items() if codes[1] == "404" and name != "absent"]
    compared = 0
    for kind, (number, situation), command in itertools.product(
        CALENDAR_TYPES, enumerate(hidden), [name for name in COMMANDS if name != "Add"]
    ):
        event_id = 2_000_000 + kind * 100 + number
        if command == COMMANDS[1]:
            await insert(db, event_id, event_of(situation, CALLER + kind))
        answers = []
        for asked in (event_id, ABSENT):
            data = data_of(command, situation, asked, {}) | ({"if_version": 9} if command in COMMANDS[3:7] else {})
            frame = {"command": wire_name(command), "extID": str(asked), "__token": tokens[kind], "data": data}
            await caller.socket.send(msgspec.json.encode(frame).decode())
            answers.append((await caller.socket.recv(decode=False)).replace(str(asked).encode(), b"ID"))
        assert answers[1] == answers[0]
        compared += 1
    assert 7 * len(hidden) * len(CALENDAR_TYPES) == compared
