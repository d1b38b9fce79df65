"""The rules of an event's fields over a real socket: what breaks one is refused by name, its bounds are taken."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any, get_args

from gateway.fields import NotBlank
from tests.client import LEAST

LIMITS = {"title_chars_max": 20, "body_bytes_max": 200, "body_nesting_max": 5, "participants_max": 4}
INTEGER_MAX = 2**53 - 1
TIME_MAX = 253_402_300_799
REMIND_BEFORE_MAX = 366 * 86_400
NOT_BLANK = str(get_args(NotBlank)[1].pattern)
MISSING = object()
INVALID, REQUIRED, LARGE = (400, "INVALID_DATA"), (400, "FIELD_REQUIRED"), (413, "TOO_LARGE")
Case = tuple[dict[str, Any], tuple[int, str], str | None]

OVER_INTEGER: list[Any] = [-1, INTEGER_MAX + 1, 2**63, 2**64, 2**70, -(2**70), 1.0, 1.5, True, "1", [1], {"a": 1}]
OVER_TIME: list[Any] = [-1, TIME_MAX + 1, 1_710_000_000_000, 2**64, 1.0, False, "now", [], {}]
OVER_ENUM: list[Any] = [-1, 1.0, True, "0", [0], {}]
BAD_TITLES: list[Any] = ["", " ", "\t\n", "\u00a0\u3000", 5, ["x"], {}, True, "a\0"]
BAD_CODES: list[Any] = ["a b", "é", "a\n", "a/b", "*", "\0", "x" * 65, 5, ["a"], {}, True]
LARGE_BODIES: list[Any] = ["x" * 199, ["x" * 197], [[[[[[]]]]]], {"a": [[[[{}]]]]}]
BAD_ROWS: list[Any] = [12, None, "x", []]


def refusals() -> list[Case]:
    """Every way to break a rule of one field, with the error and the field it must name."""
    integers = ("owner_manager_id", "created_by", "customer_id", "lead_id", "login")
    bounds = {"type": 7, "status": 4, "priority": 4, "all_day": 2, "remind_before_sec": REMIND_BEFORE_MAX + 1}
    cases: list[Case] = [({name: value}, INVALID, name) for name in integers for value in OVER_INTEGER]
    cases += [({name: value}, INVALID, name) for name in bounds for value in [*OVER_ENUM, bounds[name]]]
    cases += [({name: value}, INVALID, name) for name in ("start_time", "end_time", "remind_time") for value in OVER_TIME]
    cases += [({name: None}, REQUIRED, name) for name in LEAST] + [({name: MISSING}, REQUIRED, name) for name in LEAST]
    cases += [({"start_time": 0}, INVALID, "start_time"), ({"end_time": LEAST["start_time"] - 1}, INVALID, "end_time")]
    cases += [({"end_time": 0}, INVALID, "end_time")]
    cases += [({"title": value}, INVALID, "title") for value in BAD_TITLES]
    cases += [({"title": "x" * 21}, LARGE, "title")]
    cases += [({name: value}, INVALID, name) for name in ("brand", "desk") for value in BAD_CODES]
    cases += [({"ast_json": value}, INVALID, "ast_json") for value in (5, 0, -1.5, True, False)]
    cases += [({"ast_json": value}, LARGE, "ast_json") for value in LARGE_BODIES]
    cases += [({"ast_json": {"a": ["\0"]}}, INVALID, "ast_json.a[0]"), ({"ast_json": "\0"}, INVALID, "ast_json")]
    return cases + participant_refusals() + unknown_keys()


def participant_refusals() -> list[Case]:
    """The same for both lists of participants."""
    ids, rows = "participant_manager_ids", "participants"
    cases: list[Case] = [({ids: [11, value]}, INVALID, f"{ids}[1]") for value in [0, None, *OVER_INTEGER]]
    cases += [({ids: value}, INVALID, ids) for value in (11, "11", {"11": 1}, True)]
    cases += [({rows: value}, INVALID, rows) for value in (11, "11", {"manager_id": 11}, False)]
    cases += [({rows: [{"manager_id": 11}, value]}, INVALID, f"{rows}[1]") for value in BAD_ROWS]
    cases += [({rows: [row]}, REQUIRED, f"{rows}[0].manager_id") for row in ({}, {"role": 1}, {"manager_id": None})]
    for name, values in {
        "manager_id": [0, *OVER_INTEGER],
        "role": [3, *OVER_ENUM],
        "status": [4, *OVER_ENUM],
        "created_time": OVER_TIME,
        "updated_time": OVER_TIME,
    }.items():
        cases += [({rows: [{"manager_id": 11, name: value}]}, INVALID, f"{rows}[0].{name}") for value in values]
    cases += [({rows: [{"manager_id": 11}, {"manager_id": 12}, {"manager_id": 11}]}, INVALID, f"{rows}[2].manager_id")]
    cases += [({rows: [{"manager_id": n} for n in range(1, 6)]}, LARGE, rows), ({ids: [1, 2, 3, 4, 5]}, LARGE, ids)]
    cases += [({ids: [11] * 5}, LARGE, ids), ({ids: [0], rows: []}, INVALID, f"{ids}[0]")]
    return cases


def unknown_keys() -> list[Case]:
    """Names that the contract does not have, or that only the server fills."""
    filled = ("id", "updated_by", "reminder_sent_time", "created_time", "updated_time", "version", "event_id", "access")
    cases: list[Case] = [({name: 1}, INVALID, name) for name in (*filled, "participant_ids", "Title", "title ", "é", "")]
    cases += [({"k" * 100: 1}, INVALID, "k" * 64 + "..."), ({"a\0": 1}, INVALID, None)]
    return [*cases, ({"participants": [{"manager_id": 11, "rol": 1}]}, INVALID, "participants[0].rol")]


def frame_of(data: str, number: int) -> str:
    return f'{{"command":"MngAddCalendarEvent","extID":{number},"data":{data}}}'


def data_of(changes: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in {**LEAST, **changes}.items() if value is not MISSING})


async def replies_of(client, datas: list[str]) -> list[dict[str, Any]]:
    """One reply to each command, by the order sent; anything else that arrives is a deviation."""
    found = [await client.exchange(frame_of(data, number), number) for number, data in enumerate(datas)]
    await client.command("HealthCheck")
    assert [] == client.others
    return found


def sql_errors(postgres, since: int) -> list[str]:
    """Lines of PostgreSQL's log about data or constraints, SQLSTATE 22xxx and 23xxx."""
    text = postgres.log_path.read_bytes()[since:].decode(errors="replace")
    return [line for line in text.splitlines() if re.search(r"\] 2[23][0-9A-Z]{3} ", line)]


async def stored_rows(db) -> tuple[int, int]:
    return tuple(await db.fetchrow("SELECT (SELECT count(*) FROM calendar_event), (SELECT count(*) FROM calendar_participant)"))


async def test_fields_refuse_what_breaks_a_rule(start, connect, db, postgres):
    """Each broken rule gets one reply that names the field; nothing is stored, and PostgreSQL never saw it."""
    since = postgres.log_path.stat().st_size
    gateway = await start(**LIMITS)
    client = await connect(gateway)
    cases = refusals()
    replies = await replies_of(client, [data_of(changes) for changes, _, _ in cases])
    deviations = [
        (changes, expected, field, reply)
        for (changes, expected, field), reply in zip(cases, replies, strict=True)
        if (*expected, field, "not_executed") != (reply["status"], reply.get("error"), reply.get("field"), reply.get("outcome"))
        or not reply["message"].startswith(("data" if field is None else field).split("[")[0].split(".")[0])
    ]
    assert [] == deviations
    assert (0, 0) == await stored_rows(db)
    assert [] == sql_errors(postgres, since)
    failures = [line for line in gateway.log_lines if line.get("status")]
    assert len(cases) == len(failures)
    assert ({"command"}, False) == ({line["event"] for line in failures}, "Traceback" in gateway.log_text)


DIGITS = "9" * 5000
DEEP = "[" * 900 + "]" * 900
BAD_FRAME = (400, "BAD_REQUEST")
RAW_CASES: list[tuple[str, tuple[int, str], str | None]] = [
    ('"end_time":' + DIGITS, INVALID, "end_time"),
    ('"start_time":-' + DIGITS, INVALID, "start_time"),
    ('"start_time":1e999', INVALID, "start_time"),
    ('"end_time":1e20', INVALID, "end_time"),
    ('"participants":[{"manager_id":' + DIGITS + "}]", INVALID, "participants[0].manager_id"),
    ('"title":"cut \\ud83d"', INVALID, "title"),
    ('"desk":"\\udc00"', INVALID, "desk"),
    ('"ast_json":{"a":["\\ud83d"]}', INVALID, "ast_json.a[0]"),
    ('"ast_json":{"\\ud83d":1}', INVALID, "ast_json"),
    ('"participants":[{"manager_id":11,"event_id":"\\u0000"}]', INVALID, "participants[0].event_id"),
    ('"ast_json":[NaN]', BAD_FRAME, None),
    ('"login":Infinity', BAD_FRAME, None),
    ('"ast_json":' + DEEP, LARGE, "ast_json"),
    ('"unknown":' + DEEP, INVALID, "unknown"),
    ('"title":"x","title":5', INVALID, "title"),
    ('"title":null', REQUIRED, "title"),
    ('"title":5,"title":"x","end_time":1e999', INVALID, "end_time"),
    ('"participants":[{"manager_id":11,"manager_id":"x"}]', INVALID, "participants[0].manager_id"),
]


async def test_fields_refuse_what_only_raw_json_can_say(start, connect, db, postgres):
    """Huge integers, half surrogate pairs, NaN, deep nesting and repeated keys are refused like any other fault."""
    since = postgres.log_path.stat().st_size
    gateway = await start(**LIMITS)
    client = await connect(gateway)
    replies = await replies_of(client, [f"{data_of({})[:-1]},{members}}}" for members, _, _ in RAW_CASES])
    expected = [(members[:60], *error, field) for members, error, field in RAW_CASES]
    found = [(reply["status"], reply.get("error"), reply.get("field")) for reply in replies]
    assert expected == [(expected[number][0], *what) for number, what in enumerate(found)]
    assert {"not_executed"} == {reply["outcome"] for reply in replies}
    assert (0, 0) == await stored_rows(db)
    assert [] == sql_errors(postgres, since)


async def test_fields_messages_say_what_would_be_right(start, connect):
    """Milliseconds are recognised, a misspelt key gets a hint, and a list of the known names stands in for one."""
    client = await connect(await start(**LIMITS))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"start_time": 1_710_000_000_000}, "milliseconds"),
        ({"remind_time": 1_710_000_000_000}, "milliseconds"),
        ({"participants": [{"manager_id": 1, "created_time": 1_710_000_000_000}]}, "milliseconds"),
        ({"end_time": 1}, "end_time must be >= start_time"),
        ({"titel": "x"}, "did you mean title?"),
        ({"participant_manager_id": [1]}, "did you mean participant_manager_ids?"),
        ({"zzz": 1}, "known are title, start_time"),
        ({"version": 3}, "version is set by the gateway: leave it out"),
        ({"title": "x" * 21}, "20"),
        ({"priority": 4}, "<= 3"),
    ]
    replies = await replies_of(client, [data_of(changes) for changes, _ in cases])
    assert [] == [
        (hint, reply["message"]) for (_, hint), reply in zip(cases, replies, strict=True) if hint not in reply["message"]
    ]


async def test_fields_accept_their_bounds(start, connect, db, postgres):
    """The least and the largest value of each field, and null and 0 for omitted, are stored as the reply shows them."""
    since = postgres.log_path.stat().st_size
    client = await connect(await start(**LIMITS))
    top = INTEGER_MAX
    kept: list[dict[str, Any]] = [
        {name: value}
        for name, values in dict[str, Any](
            {
                "owner_manager_id": (1, top),
                **dict.fromkeys(("customer_id", "lead_id", "login"), (0, top)),
                **dict.fromkeys(("type",), range(7)),
                **dict.fromkeys(("status", "priority"), range(4)),
                "all_day": (0, 1),
                "remind_time": (0, TIME_MAX),
                "remind_before_sec": (0, 31_536_000, REMIND_BEFORE_MAX),
                "end_time": (LEAST["start_time"], TIME_MAX),
                "desk": ("", "x" * 64, "A-z_0.9"),
                "title": (
                    "x" * 20,
                    "\U0001f600" * 20,
                    " x ",
                    "\\u0000",
                    "\u200b",
                    "\x7f",
                    "\ufffe\uffff",
                    "'; DROP --",
                    "%s{}",
                ),
                "ast_json": ("x" * 198, ["x" * 196], [[[[[]]]]], {}, [], "", "[[[[[[[[", "\\u0000", {"a": '"[[[[[['}),
            }
        ).items()
        for value in values
    ]
    kept += [{"start_time": 1}, {"start_time": TIME_MAX, "end_time": TIME_MAX}, {"created_by": 10}, {"brand": "default"}]
    numbers: tuple[str, ...] = ("owner_manager_id", "created_by", "type", "status", "priority", "all_day", "remind_time")
    numbers += ("remind_before_sec", "customer_id", "lead_id", "login")
    lists = ("participant_manager_ids", "participants")
    omitted: list[dict[str, Any]] = [{name: None} for name in (*numbers, *lists, "brand", "desk", "ast_json")]
    omitted += [*({name: 0} for name in numbers), *({name: []} for name in lists), {"brand": ""}, {"desk": ""}]
    replies = await replies_of(client, [data_of(changes) for changes in [*kept, *omitted, {}]])
    assert [] == [reply for reply in replies if reply["status"] != 200]
    events = [reply["data"]["event"] for reply in replies]
    assert kept == [{name: event[name] for name in changes} for changes, event in zip(kept, events, strict=False)]
    alike = [{**event, "id": 0, "created_time": 0, "updated_time": 0, "participants": 0} for event in events[len(kept) :]]
    assert [alike[-1]] * len(alike) == alike
    stored = {row["id"]: dict(row) for row in await db.fetch("SELECT * FROM calendar_event")}
    columns = set(events[0]) - {"participants", "ast_json"}
    assert [{name: event[name] for name in columns} for event in events] == [
        {name: stored[event["id"]][name] for name in columns} for event in events
    ]
    assert [] == sql_errors(postgres, since)


async def test_fields_accept_large_lists_of_participants(gateway, connect):
    """As many participants as the limit allows come back, in order."""
    client = await connect(gateway)
    most = gateway.settings.participants_max
    event = await client.add(owner_manager_id=most, participants=[{"manager_id": n} for n in range(most, 0, -1)])
    assert [most, *range(1, most)] == [row["manager_id"] for row in event["participants"]]


async def test_blank_means_the_same_to_gateway_and_table(db):
    """No title that the gateway takes is blank to the table's own rule, whatever white space it is made of."""
    blank_there = {row["n"] for row in await db.fetch("SELECT n FROM generate_series(1, 55295) n WHERE chr(n) !~ '\\S'")}
    allowed_here = {number for number in range(1, 55296) if re.search(NOT_BLANK, chr(number))}
    assert set() == {unicodedata.name(chr(number), hex(number)) for number in blank_there & allowed_here}
