"""MngAddCalendarEvent over the wire and in the tables."""

from __future__ import annotations

import time
from typing import Any

from gateway import managers
from gateway.access import SessionType
from gateway.managers import NewManager
from tests.client import EVENT
from tests.conftest import PASSWORD

DOCUMENT = (
    '{"command":"MngAddCalendarEvent","extID":"1","data":{"brand":"default","desk":"DESK_RETENTION","owner_manager_id":10,'
    '"title":"Retention sync","type":3,"priority":1,"start_time":1710000000,"end_time":1710003600,'
    '"ast_json":{"type":"doc","content":[]},"participant_manager_ids":[10,11,12]}}'
)
Rows = list[tuple[int, int, int]]


def shown(event: dict[str, Any]) -> Rows:
    return [(row["manager_id"], row["role"], row["status"]) for row in event["participants"]]


def frame_of(members: str, ext_id: int = 1) -> str:
    return f'{{"command":"MngAddCalendarEvent","extID":{ext_id},"data":{{"title":"x","start_time":1,"end_time":2,{members}}}}}'


async def refusal(client, **changes: Any) -> tuple[int, str | None, str | None, str | None]:
    reply = await client.command("MngAddCalendarEvent", {**EVENT, **changes})
    return reply["status"], reply.get("error"), reply.get("field"), reply.get("outcome")


def forbidden(field: str | None) -> tuple[int, str, str | None, str]:
    return 403, "FORBIDDEN", field, "not_executed"


async def test_add_answers_the_documents_exchange(gateway, connect, db):
    """The document's frame gets event 1 with its three participants, and the tables hold the same."""
    client = await connect(gateway)
    reply = await client.exchange(DOCUMENT, "1")
    event = reply["data"]["event"]
    assert [200, 1, 10, 10] == [reply["status"], event["id"], event["owner_manager_id"], event["created_by"]]
    shown = [(row["event_id"], row["manager_id"], row["role"], row["status"]) for row in event["participants"]]
    assert [(1, 10, 0, 1), (1, 11, 1, 0), (1, 12, 1, 0)] == shown
    stored = await db.fetch("SELECT event_id, manager_id, role, status FROM calendar_participant ORDER BY manager_id")
    assert shown == [tuple(row) for row in stored]


async def test_add_fills_in_what_is_omitted(gateway, connect):
    """The least request gives the full event: the session's manager creates, owns and takes part; the rest is empty."""
    client = await connect(gateway)
    before = int(time.time())
    event = await client.add(ast_json=None)
    now = event["created_time"]
    assert before <= now <= time.time()
    numbers = ("type", "status", "priority", "all_day", "remind_time", "remind_before_sec", "reminder_sent_time")
    assert event == {
        **EVENT,
        **dict.fromkeys((*numbers, "customer_id", "lead_id", "login"), 0),
        **dict.fromkeys(("owner_manager_id", "created_by", "updated_by"), 10),
        **dict.fromkeys(("created_time", "updated_time"), now),
        **dict.fromkeys(("id", "version"), 1),
        "brand": "default",
        "desk": "",
        "ast_json": None,
        "participants": [{"event_id": 1, "manager_id": 10, "role": 0, "status": 1, "created_time": now, "updated_time": now}],
    }


BOTH: dict[str, Any] = {"participant_manager_ids": [12], "participants": [{"manager_id": 11}]}
PARTICIPANTS: list[tuple[dict[str, Any], Rows]] = [
    ({"owner_manager_id": 12}, [(12, 0, 1)]),
    ({"owner_manager_id": 77}, [(77, 0, 1)]),
    ({"participant_manager_ids": [12, 11, 12, 11, 10]}, [(10, 0, 1), (11, 1, 0), (12, 1, 0)]),
    ({"owner_manager_id": 12, "participant_manager_ids": [12, 10]}, [(12, 0, 1), (10, 1, 0)]),
    (BOTH, [(10, 0, 1), (11, 1, 0)]),
    ({**BOTH, "participants": []}, [(10, 0, 1)]),
    ({**BOTH, "participants": None}, [(10, 0, 1), (12, 1, 0)]),
    ({"participants": [{"manager_id": 10, "role": 2, "status": 3}]}, [(10, 0, 1)]),
    ({"participants": [{"manager_id": 11, "role": 0, "status": 2}]}, [(10, 0, 1), (11, 0, 2)]),
    ({"participants": [{"manager_id": 11, "role": None, "status": None}]}, [(10, 0, 1), (11, 1, 0)]),
    ({"participants": [{"manager_id": 99, "role": 2, "event_id": 5}, {"manager_id": 9}]}, [(10, 0, 1), (9, 1, 0), (99, 2, 0)]),
]


async def test_add_settles_who_takes_part(gateway, connect, db):
    """The owner is organizer and accepted whatever is said of it; `participants` wins over the ids; the tables agree."""
    client = await connect(gateway)
    events = [await client.add(**changes) for changes, _ in PARTICIPANTS]
    assert PARTICIPANTS == [(changes, shown(event)) for (changes, _), event in zip(PARTICIPANTS, events, strict=True)]
    stored = await db.fetch(
        "SELECT event_id, manager_id, role, status, created_time, updated_time "
        "FROM calendar_participant ORDER BY event_id, manager_id"
    )
    replied = [row for event in events for row in sorted(event["participants"], key=lambda row: row["manager_id"])]
    assert replied == [dict(row) for row in stored]


async def test_add_keeps_the_times_of_participants(gateway, connect):
    """Times that a participant's row gives are kept, the owner's too; 0 and omitted are now."""
    rows = [
        {"manager_id": 10, "created_time": 5, "updated_time": 6},
        {"manager_id": 11, "created_time": 7},
        {"manager_id": 12, "created_time": 0, "updated_time": 8},
    ]
    event = await (await connect(gateway)).add(participants=rows)
    now = event["created_time"]
    assert [(5, 6), (7, now), (now, 8)] == [(row["created_time"], row["updated_time"]) for row in event["participants"]]


async def test_add_takes_back_a_list_just_read(gateway, connect):
    """The participants of one reply, sent as they are, make the same participants of another event."""
    client = await connect(gateway)
    first = await client.add(participants=[{"manager_id": 12, "role": 2, "status": 3}, {"manager_id": 11}])
    second = await client.add(participants=first["participants"])
    assert shown(first) == shown(second)
    assert {second["id"]} == {row["event_id"] for row in second["participants"]} != {first["id"]}


BODIES = [
    "null",
    "{}",
    "[]",
    '""',
    '"text"',
    '"\\u0041\\/\\n\\" \\\\u0000 \\ud83d\\ude00 é 😀"',
    "{ \"a\" :\t[ 1 , 2 ]\n, 'b':{} }".replace("'", '"'),
    '{"n":[1.0E+2,1e400,-0,0.10,1E-7,' + "9" * 5000 + "]}",
    '{"a":1,"a":{"a":2,"a":3},"a":4}',
    '{"":"","\\u0061":"\u2028\u007f"}',
    '["' + "x" * 100_000 + '"]',
    "[" * 64 + "]" * 64,
]


async def test_add_keeps_the_body_byte_for_byte(gateway, connect, db):
    """`ast_json` comes back in the reply and in the table as it was sent, also beside keys that have to be cleaned up."""
    client = await connect(gateway)
    frames = [frame_of(f'{repeat}"ast_json":{body}') for repeat in ("", '"title":5,"title":"y",') for body in BODIES]
    for body, frame in zip(BODIES * 2, frames, strict=True):
        await client.socket.send(frame)
        reply = await client.socket.recv(decode=False)
        assert b'"ast_json":' + body.encode() + b',"start_time"' in reply
    stored = await db.fetch("SELECT coalesce(ast_json::text, 'null') AS body FROM calendar_event ORDER BY id")
    assert BODIES * 2 == [row["body"] for row in stored]


async def test_add_takes_the_last_of_equal_keys(gateway, connect):
    """The last of equal keys counts in data and in a participant's row, also behind one of a wrong type or value."""
    client = await connect(gateway)
    members = (
        '"title":5,"title":"last","desk":"A","desk":"B","participants":[{"manager_id":"x","role":9,"manager_id":11,"role":2}]'
    )
    for given in (members, '"type":1,"type":6,"title":null,' + members, '"login":' + "9" * 5000 + ',"login":3,' + members):
        reply = await client.exchange(frame_of(given), 1)
        event = reply["data"]["event"]
        assert ("last", "B", [(10, 0, 1), (11, 2, 0)]) == (event["title"], event["desk"], shown(event))


async def test_add_drops_a_claim_of_access_unread(gateway, connect):
    """A client's `__access` of any kind changes nothing and gives no right."""
    client = await connect(gateway)
    for claim in ('{"manager_id":99,"type":3}', "5", "null", '"x"', "[[[]]]", "9" * 5000):
        taken = await client.exchange(frame_of(f'"__access":{claim}'), 1)
        assert (200, 10, 10) == (taken["status"], taken["data"]["event"]["created_by"], taken["data"]["event"]["updated_by"])
        refused = await client.exchange(frame_of(f'"__access":{claim},"created_by":99', 2), 2)
        assert (403, "FORBIDDEN", "created_by") == (refused["status"], refused["error"], refused["field"])


async def test_add_needs_rights(gateway, connect, db):
    """Foreign brands and desks, and another creator, are 403 with the field; nothing is stored."""
    mask = "DESK_EU*,!DESK_EU_TEST, *_SHARED"
    await managers.add(db, NewManager(id=20, login="20", brands=("red", "blue"), desk_mask=mask), PASSWORD)
    client = await connect(gateway, login="20")
    refused: dict[str, list[Any]] = {
        "brand": ["default", "Red", "green", "redblue"],
        "desk": ["DESK_US", "DESK_EU_TEST", "desk_eu", "XDESK_EU", "D", "SHARED"],
        "created_by": [21, 10, 9007199254740991],
    }
    for field, values in refused.items():
        assert [forbidden(field)] * len(values) == [await refusal(client, **{field: value}) for value in values]
    assert 0 == await db.fetchval("SELECT count(*) FROM calendar_event")
    for desk in ("DESK_EU", "DESK_EU_TESTS", "A_SHARED", "", None):
        assert (desk or "", "red") == ((event := await client.add(desk=desk))["desk"], event["brand"])
    assert "blue" == (await client.add(brand="blue", created_by=20, owner_manager_id=21))["brand"]


async def test_add_with_a_blank_mask_takes_no_desk(gateway, connect, db):
    """A blank mask, and one of exclusions alone, cover nothing; an event without a desk can still be added."""
    client = await connect(gateway)
    for mask in ("", "!DESK_A", " , "):
        await db.execute("UPDATE manager SET desk_mask = $1 WHERE id = 10", mask)
        assert forbidden("desk") == await refusal(client, desk="DESK_B")
        assert "" == (await client.add())["desk"]


async def test_add_depends_on_the_session_type(gateway, connect, db):
    """Five session types have the calendar; administrators alone may name another creator, who owns the event then."""
    client = await connect(gateway)
    outcomes = {}
    for kind in SessionType:
        await db.execute("UPDATE manager SET type = $1 WHERE id = 10", int(kind))
        reply = await client.command("MngAddCalendarEvent", {**EVENT, "created_by": 11})
        own = await client.command("MngAddCalendarEvent", EVENT)
        outcomes[kind.name] = (own["status"], reply["status"])
        if reply["status"] == 200:
            event = reply["data"]["event"]
            assert (11, 11, 10) == (event["created_by"], event["owner_manager_id"], event["updated_by"])
    no_calendar, manager, admin = (403, 403), (200, 403), (200, 200)
    assert {
        **dict.fromkeys(("USER", "SYSTEM", "FIX", "CUSTOMER"), no_calendar),
        **dict.fromkeys(("MANAGER", "DEALER", "CRM_MANAGER"), manager),
        **dict.fromkeys(("ADMIN", "CRM_ADMIN"), admin),
    } == outcomes
