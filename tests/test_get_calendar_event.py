"""MngGetCalendarEvent: one event, byte for byte as every command answers it."""

from __future__ import annotations

import json

from tests.calendar_model import Manager
from tests.people import Person, team

ODD_TITLES = [
    *(f"a{chr(code)}b" for code in [*range(1, 0x20), 0x7F, *range(0x80, 0xA1), 0x2028, 0x2029, 0xFEFF, 0xFFFD, 0xFFFF]),
    'quote " backslash \\ slash / \\u0041 \\n',
    "emoji 😀 👩‍👩‍👧 e\u0301 \U0010ffff",
    "<script>&amp;</script> '; --",
    "null",
    '{"a":1}',
]
ODD_BODIES = [
    "null",
    "{}",
    "[]",
    '""',
    '"\\u2028\\u0041\\/\\ud83d\\ude00"',
    '{"b":1,"a":1,"a":2}',
    "[1.0,1e5,-0,0.10,12345678901234567890,1E+2]",
    '{ "spaced" : [ 1 ,\t2 ] }',
    '"\u2028\x7f😀"',
    json.dumps("".join(map(chr, range(1, 0x80)))),
]


async def raw(person: Person, frame: str) -> bytes:
    """The bytes that answer a frame."""
    await person.client.socket.send(frame.replace("{", f'{{"__token":"{person.token}",', 1))
    return bytes(await person.client.socket.recv(decode=False))


async def test_get_equals_the_adds_reply(gateway, connect, db):
    """For odd titles and bodies the add's reply, a later get and an update without effect are equal but for the extID."""
    (person,) = await team(db, connect, gateway, Manager(21))
    pairs = [(title, "null") for title in ODD_TITLES] + [("body", body) for body in ODD_BODIES]
    for title, body in pairs:
        data = f'{{"title":{json.dumps(title)},"ast_json":{body},"start_time":1,"end_time":2,"participant_manager_ids":[30,5]}}'
        added = await raw(person, f'{{"command":"MngAddCalendarEvent","extID":1,"data":{data}}}')
        reply = json.loads(added)
        assert (200, title) == (reply["status"], reply["data"]["event"]["title"])
        assert f'"ast_json":{body},"start_time":1'.encode() in added
        event_id = reply["data"]["event"]["id"]
        got = await raw(person, f'{{"command":"MngGetCalendarEvent","extID":2,"data":{{"id":{event_id}}}}}')
        assert added.replace(b'"extID":1', b'"extID":2', 1) == got
        for change in ('"type":0', f'"title":{json.dumps(title)},"ast_json":{body}', '"participant_manager_ids":[5,30]'):
            same = await raw(person, f'{{"command":"MngUpdateCalendarEvent","extID":2,"data":{{"id":{event_id},{change}}}}}')
            assert got == same


async def test_get_equals_what_a_change_answered(gateway, connect, db):
    """The replies of an update and of a filter hold the event in the very bytes of a get, odd text included."""
    (person,) = await team(db, connect, gateway, Manager(21))
    event = await person.add()
    for title, body in zip(ODD_TITLES, ODD_BODIES * 6, strict=False):
        change = f'{{"id":{event["id"]},"title":{json.dumps(title)},"ast_json":{body},"participant_manager_ids":[30,5]}}'
        changed = await raw(person, f'{{"command":"MngUpdateCalendarEvent","extID":1,"data":{change}}}')
        got = await raw(person, f'{{"command":"MngGetCalendarEvent","extID":1,"data":{{"id":{event["id"]}}}}}')
        assert got == changed
        assert title == json.loads(got)["data"]["event"]["title"]
        page = '{"from":0,"to":9999999999,"limit":5,"offset":0,"deskFilter":"*"}'
        rows = await raw(person, f'{{"command":"MngGetCalendarEventsByFilter","extID":1,"data":{page}}}')
        assert got.replace(b'{"event":', b'{"rows":[').replace(b"}}}", b'}],"count":1,"has_more":false}}') == rows


async def test_get_shows_what_the_session_may_see(gateway, connect, db):
    """Desk mask, ownership, creation and invitation each open an event of one's own brands; nothing opens another brand's."""
    boss, *people = await team(
        db,
        connect,
        gateway,
        Manager(20, 11, ("red", "blue")),
        Manager(21, mask="", brands=("red",)),
        Manager(22, mask="D*,!D_X", brands=("red",)),
        Manager(23, 11, mask="*", brands=("green", "blue")),
    )
    events = [
        await boss.add(**data)
        for data in (
            {"desk": "D_1"},
            {"desk": "D_X"},
            {"desk": "D_X", "participant_manager_ids": [21, 22, 23]},
            {"desk": "E", "owner_manager_id": 21},
            {"desk": "E", "created_by": 22, "owner_manager_id": 20, "participants": []},
            {"brand": "blue", "desk": "", "participant_manager_ids": [21, 22]},
            {},
        )
    ]
    seen = [[(await person.command("Get", id=event["id"]))["status"] for event in events] for person in people]
    assert [
        [404, 404, 200, 200, 404, 404, 404],
        [200, 404, 200, 404, 200, 404, 404],
        [404, 404, 404, 404, 404, 200, 404],
    ] == seen


async def test_get_takes_an_id_alone(gateway, connect, db):
    """The id is required and within bounds; unknown keys are refused by name."""
    (person,) = await team(db, connect, gateway, Manager(21))
    assert (400, "FIELD_REQUIRED", "id") == await person.refusal("Get")
    for wrong in (0, -1, 2**53, 2**64, "1", 1.0, [1], True):
        assert (400, "INVALID_DATA", "id") == await person.refusal("Get", id=wrong)
    assert (400, "INVALID_DATA", "if_version") == await person.refusal("Get", id=1, if_version=1)
    assert (404, "NOT_FOUND", None) == await person.refusal("Get", id=2**53 - 1)
