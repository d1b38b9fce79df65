"""Strings made to break out of SQL, LIKE and JSON: through every string field and filter they are text, and nothing else."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import msgspec
import pytest

from tests.calendar_model import Calendar, Manager, covers
from tests.client import EVENT
from tests.people import Person, team, wire_name

COUNT = 5000
PIECES = [
    *(
        "'",
        "''",
        '"',
        "\\",
        "\\\\",
        "\\'",
        "`",
        ";",
        "--",
        "/*",
        "*/",
        "#",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        "$1",
        "$$",
        "$6",
        "::",
        "%s",
    ),
    *(
        "%",
        "_",
        "\\%",
        "\\_",
        "*",
        "**",
        "!",
        "!*",
        ",",
        "?",
        ".",
        "-",
        "=",
        "<>",
        "||",
        "&",
        "^",
        "~",
        "@",
        " ",
        "\t",
        "\n",
        "\r",
    ),
    *(
        "' OR '1'='1",
        "' OR 1=1 --",
        "'); DROP TABLE calendar_event; --",
        " UNION SELECT * FROM manager",
        "; DELETE FROM session",
    ),
    *(
        "pg_sleep(9)",
        "{}",
        "{0}",
        "%(x)s",
        "%n",
        "null",
        "NULL",
        "true",
        "E'\\x27'",
        "U&'\\0027'",
        "\\u0027",
        "\x1b[0m",
        "\x7f",
    ),
    *(
        "DESK",
        "DESK_EU",
        "DESK%",
        "DESK_",
        "D.SK",
        "_EU",
        "EU*",
        "*EU",
        "!DESK_EU",
        "\u2019",
        "\u02bc",
        "\uff07",
        "é",
        "😀",
        "\u2028",
    ),
]
DESKS = [
    "",
    "DESK",
    "DESK_EU",
    "DESKXEU",
    "DESK_EU_1",
    "EU",
    "_EU",
    "D.SK",
    "_",
    ".",
    "-",
    "--",
    "null",
    "NULL",
    "true",
    "DESK-EU",
]
CODE = re.compile(r"[A-Za-z0-9_.-]{0,64}")


def strings() -> list[str]:
    """Each piece alone, as a quoted one, and random runs of pieces: always the same ones."""
    rng = random.Random(5)
    found = dict.fromkeys(text for piece in PIECES for text in (piece, f"'{piece}", f"{piece}*", f"*,!{piece}"))
    while len(found) < COUNT:
        found["".join(rng.choice(PIECES) for _ in range(rng.randrange(2, 7)))] = None
    return list(found)[:COUNT]


async def in_flight(
    person: Person, name: str, requests: list[dict[str, Any]], keys: list[str] | None = None
) -> list[dict[str, Any]]:
    """The replies to many requests of one command, in their order, some hundred at a time."""
    frames = [
        {"command": wire_name(name), "extID": number, "__token": person.token, "data": data}
        for number, data in enumerate(requests)
    ]
    for frame, key in zip(frames, keys or (), strict=False):
        frame["idempotencyKey"] = key
    replies = []
    for first in range(0, len(frames), 200):
        some = frames[first : first + 200]
        for frame in some:
            await person.client.socket.send(msgspec.json.encode(frame).decode())
        replies += [await person.client.receive() for _ in some]
    return sorted(replies, key=lambda reply: reply["extID"])


@pytest.fixture
async def gateway(start: Any) -> Any:
    """A gateway that keeps thousands of commands waiting for its few database connections on a busy machine."""
    return await start(db_connections_max=2, db_acquire_seconds=50, log_level="error")


@pytest.fixture
async def person(gateway: Any, connect: Any, db: Any) -> Person:
    """An administrator, so that no desk is out of reach."""
    (person,) = await team(db, connect, gateway, Manager(21, 11))
    return person


async def test_texts_are_stored_as_they_are(person, gateway, db):
    """5,000 strings as titles and bodies of adds and updates come back from the tables as they were sent."""
    texts = strings()
    titles = [text if text.strip() else f"{text}." for text in texts]
    added = await in_flight(person, "Add", [{**EVENT, "title": t, "ast_json": {t: [t]}} for t in titles])
    assert {200} == {reply["status"] for reply in added}
    ids = [reply["data"]["event"]["id"] for reply in added]
    turned = titles[::-1]
    changes = [{"id": i, "title": title, "ast_json": title} for i, title in zip(ids, turned, strict=True)]
    changed = await in_flight(person, "Update", changes)
    assert turned == [reply["data"]["event"]["title"] for reply in changed]
    rows = await db.fetch("SELECT id, title, ast_json::text FROM calendar_event")
    stored = {row["id"]: (row["title"], json.loads(row["ast_json"])) for row in rows}
    assert {i: (title, title) for i, title in zip(ids, turned, strict=True)} == stored
    assert '"status":5' not in gateway.log_text.replace(" ", "")


async def test_desk_filters_match_literally(person, gateway):
    """5,000 strings as desk filters give the rows of a literal match: `%`, `_` and `\\` are ordinary, `*` and `!` are not."""
    calendar = Calendar()
    for desk in DESKS:
        event = await person.add(desk=desk)
        calendar.events[event["id"]] = event
    page = {"from": 0, "to": 10**11, "limit": 100, "offset": 0}
    texts = strings()
    replies = await in_flight(person, "GetCalendarEventsByFilter", [{**page, "deskFilter": text} for text in texts])
    assert {200} == {reply["status"] for reply in replies}
    for text, reply in zip(texts, replies, strict=True):
        assert [desk for desk in DESKS if covers(text, desk)] == [row["desk"] for row in reply["data"]["rows"]], text
    assert {0, 1, len(DESKS)} < {reply["data"]["count"] for reply in replies}
    assert '"status":5' not in gateway.log_text.replace(" ", "")


async def test_codes_take_no_other_characters(person, db):
    """5,000 strings as brand and desk of an add, some of an update and a filter, are refused by name, or are mere codes."""
    event = await person.add()
    texts = strings()
    page = {"from": 0, "to": 10**11, "limit": 100, "offset": 0, "deskFilter": "*"}
    add, update = dict(EVENT), {"id": event["id"], "title": "x"}
    for name, field, data, step in (
        ("Add", "desk", add, 1),
        ("Update", "brand", update, 10),
        ("GetCalendarEventsByFilter", "brand", page, 10),
        ("Add", "brand", add, 1),
        ("Update", "desk", update, 10),
    ):
        sent = texts[::step]
        replies = await in_flight(person, name, [{**data, field: text} for text in sent])
        for text, reply in zip(sent, replies, strict=True):
            found = reply["status"], reply.get("error"), reply.get("field")
            if not CODE.fullmatch(text):
                assert (400, "INVALID_DATA", field) == found, text
            elif field == "brand":
                assert (403, "FORBIDDEN", "brand") == found, text
            else:
                assert text == reply["data"]["event"]["desk"]
    codes = sum(CODE.fullmatch(text) is not None for text in texts)
    assert 1 + codes == await db.fetchval("SELECT count(*) FROM calendar_event")


async def test_masks_in_the_managers_row_match_literally(person, connect, gateway, db):
    """A mask in the manager's row, put there by whatever means, covers what a literal match covers."""
    events = [await person.add(desk=desk) for desk in DESKS]
    (reader,) = await team(db, connect, gateway, Manager(22))
    for mask in strings()[:100]:
        await db.execute("UPDATE manager SET desk_mask = $1 WHERE id = 22", mask)
        seen = [row["desk"] for row in (await reader.filter())["rows"]]
        assert [event["desk"] for event in events if covers(mask, event["desk"])] == seen, mask


async def test_keys_are_told_apart_literally(person, db):
    """5,000 strings as idempotency keys are 5,000 keys, stored as they are: each answers with its own event again."""
    texts = strings()
    first, again = [await in_flight(person, "Add", [EVENT] * COUNT, keys=texts) for _ in range(2)]
    assert {200} == {reply["status"] for reply in first}
    assert [{**reply, "replayed": True} for reply in first] == again
    assert sorted(texts) == sorted(row["key"] for row in await db.fetch("SELECT key FROM idempotency_key"))
    assert COUNT == await db.fetchval("SELECT count(*) FROM calendar_event")


async def test_strings_of_the_frame_are_text_too(gateway, connect):
    """5,000 strings as command, token and extID are refused or echoed, and never an error inside."""
    client = await connect(gateway, None)
    texts = strings()
    for first in range(0, len(texts), 100):
        some = texts[first : first + 100]
        for text in some:
            frames = ({"command": text, "extID": 1}, {"command": "MngLogout", "extID": 2, "__token": text})
            for frame in (*frames, {"command": "HealthCheck", "extID": text}):
                await client.socket.send(json.dumps(frame))
        replies = [await client.receive() for _ in range(3 * len(some))]
        assert {(1, 404), (2, 401)} == {(r["extID"], r["status"]) for r in replies if isinstance(r["extID"], int)}
        assert set(some) == {reply["extID"] for reply in replies if reply["status"] == 200}
    assert '"status":5' not in gateway.log_text.replace(" ", "")


async def test_sign_ins_are_text_too(gateway, connect):
    """Injection-shaped logins and passwords, of which each costs a hash, are refused, and never an error inside."""
    client = await connect(gateway, None)
    for text in strings()[:: COUNT // 5]:
        reply = await client.command("MngLogin", {"login": text, "password": text})
        assert (401, "UNAUTHORIZED") == (reply["status"], reply["error"])
    assert '"status":5' not in gateway.log_text.replace(" ", "")
