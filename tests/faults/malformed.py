"""Frames that are broken in every way: a corpus, and mutations of valid ones, each held against a slow oracle."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

from tests.client import EVENT, WAIT_SECONDS, Client
from tests.faults.check import Finding
from tests.faults.oracle import Right, right_answer
from tests.faults.stage import Stage, sessions

SEED = 20_240_310
SOCKETS = 40
VALID: list[dict[str, Any]] = [
    {
        "command": "MngAddCalendarEvent",
        "extID": "a-1",
        "data": {**EVENT, "desk": "DESK_EU", "participant_manager_ids": [10, 11]},
    },
    {"command": "MngAddCalendarEvent", "extID": 7, "data": {**EVENT, "ast_json": {"type": "doc", "content": [{"text": "x"}]}}},
    {"command": "MngAddCalendarEvent", "extID": "k", "idempotencyKey": "key", "data": {**EVENT, "priority": 2, "all_day": 1}},
    {"command": "MngUpdateCalendarEvent", "extID": "u", "data": {"id": 1, "title": "other", "if_version": 1}},
    {"command": "MngGetCalendarEvent", "extID": "g", "data": {"id": 1}},
    {"command": "MngDeleteCalendarEvent", "extID": "d", "data": {"id": 987_654_321}},
    {
        "command": "MngGetCalendarEventsByFilter",
        "extID": "f",
        "data": {"from": 1, "to": 2, "limit": 5, "offset": 0, "deskFilter": "*"},
    },
    {"command": "HealthCheck", "extID": "h"},
]
DEEP = 100_000
CORPUS = [
    *(
        "",
        " ",
        "null",
        "[]",
        "{}",
        "1",
        '"text"',
        "{",
        "}",
        "[[",
        '{"extID":1}',
        '{"command":"HealthCheck"}',
        "pong",
        "\ufeff{}",
    ),
    '{"command":"HealthCheck","extID":true}',
    '{"command":"HealthCheck","extID":1.0}',
    '{"command":"HealthCheck","extID":""}',
    '{"command":"HealthCheck","extID":"' + "x" * 129 + '"}',
    '{"command":"HealthCheck","extID":9223372036854775808}',
    '{"command":"HealthCheck","extID":-9223372036854775808}',
    '{"command":"HealthCheck","extID":"\\ud83d"}',
    '{"command":"HealthCheck","extID":"e","extID":5}',
    '{"command":"HealthCheck","extID":"e","data":NaN}',
    '{"command":"HealthCheck","extID":"e","data":[]}',
    '{"command":"HealthCheck","extID":"e","data":null,"from":"x"}',
    '{"command":5,"extID":"e"}',
    '{"command":null,"extID":"e"}',
    '{"command":"MngNothing","extID":"e"}',
    '{"command":"","extID":"e"}',
    '{"command":"HealthCheck","extID":"e","__token":5}',
    '{"command":"MngGetCalendarEvent","extID":"e","__token":"no token","data":{"id":1}}',
    '{"command":"MngGetCalendarEvent","extID":"e","idempotencyKey":"reads take none","data":{"id":1}}',
    '{"command":"MngAddCalendarEvent","extID":"e","idempotencyKey":"","data":{}}',
    '{"command":"MngAddCalendarEvent","extID":"e","data":' + "[" * DEEP + "]" * DEEP + "}",
    '{"command":"MngAddCalendarEvent","extID":"e","data":{"ast_json":' + "[" * 400 + "]" * 400 + "}}",
    '{"command":"MngAddCalendarEvent","extID":"e","data":{"title":"x","title":"y"}}',
    '{"command":"MngAddCalendarEvent","extID":"e","data":{"login":' + "9" * 5000 + "}}",
    '{"a":' * DEEP + "1" + "}" * DEEP,
]
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        3,
        7,
        2**31,
        2**53,
        2**63,
        2**64,
        1.5,
        1e300,
        "",
        " ",
        "x",
        "0",
        "\0",
        "\ud83d",
        "\U0001f600",
    ),
    *([], {}, [1], ["x"], [None], [0], {"a": 1}, {"manager_id": 10}, "x" * 600, 1_710_000_000_000, "default", "other"),
]
CHARACTERS = '{}[]",:0123456789-+.eE\\/ntrufals \t\n\0\x7fAz_\u00e9\u2028\U0001f600'


async def broken_frames(stage: Stage) -> Finding:
    """Each frame must get exactly one answer, the right one; every socket must live to the end."""
    count = stage.count(10_000, 1_000)
    sent = list(frames(random.Random(SEED), count))
    wrong: list[str] = []
    kinds: dict[int, int] = {}
    async with stage.database() as dsn:
        (token,) = await sessions(dsn)
        async with stage.gateway(dsn, unreadable_frames_max=10_000) as gateway, AsyncExitStack() as stack:
            proof = {"Authorization": f"Bearer {token}"}
            sockets = [Client.connected(gateway.url, additional_headers=proof) for _ in range(SOCKETS)]
            clients = [await stack.enter_async_context(socket) for socket in sockets]
            await clients[0].add()
            await asyncio.gather(*(_send(client, sent[number::SOCKETS], wrong, kinds) for number, client in enumerate(clients)))
    (stage.folder / "broken-frames.txt").write_text("\n".join(wrong))
    told = ", ".join(f"{status}: {number:,}" for status, number in sorted(kinds.items()))
    facts = f"{sum(kinds.values()):,} of {len(sent):,} frames answered rightly ({told}), {SOCKETS} sockets live"
    return Finding(not wrong and sum(kinds.values()) == len(sent), f"{facts}; wrong: {wrong[:3]}" if wrong else facts)


def frames(draw: random.Random, count: int) -> Iterator[str]:
    """The corpus, then mutations; what is no frame for the oracle is left out."""
    yield from CORPUS
    missing = count - len(CORPUS)
    while missing:
        frame = _mutated(draw)
        if right_answer(frame) is not None:
            missing -= 1
            yield frame


async def _send(client: Client, frames: list[str], wrong: list[str], kinds: dict[int, int]) -> None:
    """A `ping` behind each frame shows that there was one answer and no second."""
    for frame in frames:
        right = right_answer(frame)
        assert right is not None
        await client.socket.send(frame)
        async with asyncio.timeout(WAIT_SECONDS):
            answer = await client.socket.recv()
            await client.socket.send("ping")
            behind = await client.socket.recv()
        reply = json.loads(answer)
        if behind == "pong" and _is_right(reply, right):
            kinds[reply["status"]] = kinds.get(reply["status"], 0) + 1
        else:
            wrong.append(f"{frame[:300]!r} wants {right} got {str(answer)[:300]} then {str(behind)[:60]}")


def _is_right(reply: dict[str, Any], right: Right) -> bool:
    same = reply["extID"] == right.ext_id and type(reply["extID"]) is type(right.ext_id)
    told = reply["status"] == 200 or (reply["error"] != "INTERNAL" and reply["outcome"] == "not_executed")
    return same and told and reply["status"] in right.statuses


def _mutated(draw: random.Random) -> str:
    """A valid frame with one to three things wrong in its values or its text."""
    frame = json.loads(json.dumps(draw.choice(VALID)))
    if draw.random() < 0.6:
        for _ in range(draw.randint(1, 2)):
            draw.choice(STRUCTURAL)(draw, frame)
    text = json.dumps(frame, ensure_ascii=False)
    if draw.random() < 0.5 or any("\ud800" <= char < "\ue000" for char in text):  # half a pair is sent as an escape alone
        text = json.dumps(frame)
    if draw.random() < 0.5:
        for _ in range(draw.randint(1, 3)):
            text = draw.choice(TEXTUAL)(draw, text)
    return text


def _replace(draw: random.Random, frame: dict[str, Any]) -> None:
    place = _place(draw, frame)
    place[draw.choice(list(place))] = draw.choice(VALUES)


def _drop(draw: random.Random, frame: dict[str, Any]) -> None:
    place = _place(draw, frame)
    if len(place) > 1:
        del place[draw.choice(list(place))]


def _add(draw: random.Random, frame: dict[str, Any]) -> None:
    names = ["extID", "__token", "idempotencyKey", "__access", "nothing", "participants", "brand", "start_time", "status", "\0"]
    _place(draw, frame)[draw.choice(names)] = draw.choice(VALUES)


def _place(draw: random.Random, frame: dict[str, Any]) -> dict[str, Any]:
    data = frame.get("data")
    return data if isinstance(data, dict) and data and draw.random() < 0.7 else frame


def _insert(draw: random.Random, text: str) -> str:
    at = draw.randrange(len(text) + 1)
    return text[:at] + draw.choice(CHARACTERS) + text[at:]


def _delete(draw: random.Random, text: str) -> str:
    at = draw.randrange(max(1, len(text)))
    return text[:at] + text[at + draw.randint(1, 4) :]


def _repeat(draw: random.Random, text: str) -> str:
    at, size = draw.randrange(max(1, len(text))), draw.randint(1, 40)
    return text[: at + size] + text[at:]


def _cut(draw: random.Random, text: str) -> str:
    return text[: draw.randrange(len(text) + 1)]


STRUCTURAL: list[Callable[[random.Random, dict[str, Any]], None]] = [_replace, _drop, _add]
TEXTUAL: list[Callable[[random.Random, str], str]] = [_insert, _delete, _repeat, _cut]
