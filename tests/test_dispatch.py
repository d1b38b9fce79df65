"""What a client is answered, and in which order faults are found: error codes, extIDs, bugs, and a database that fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed

from gateway.commands.health_check import HealthCheckReply
from gateway.commands.table import COMMANDS
from gateway.errors import ERRORS, ErrorCode
from tests.client import EVENT, WAIT_SECONDS
from tests.conftest import PASSWORD

ADD, HEALTH = "MngAddCalendarEvent", "HealthCheck"


def told(reply: dict[str, Any]) -> tuple[str, str]:
    """The error and outcome of a failure reply, whose shape is checked here."""
    code = ErrorCode(reply["error"])
    assert ERRORS[code].status == reply["status"]
    assert {"extID", "status", "error", "message", "outcome"} <= set(reply)
    assert set(reply) <= {"extID", "status", "error", "message", "outcome", "field", "retry_after_ms"}
    assert ("retry_after_ms" in reply) == (code in (ErrorCode.NO_SERVICE, ErrorCode.TOO_FREQUENT))
    return reply["error"], reply["outcome"]


async def answers(client, frames: list[str]) -> list[str]:
    """The error of each frame's reply (extID 7), or its status; no reply looks like a push."""
    found = []
    for frame in frames:
        reply = await client.exchange(frame, 7)
        assert "event" not in reply
        found.append(told(reply)[0] if reply["status"] != 200 else "200")
    assert [] == client.others
    return found


def frame_of(command: str = ADD, data: object = EVENT, **more: object) -> str:
    return json.dumps({"command": command, "extID": 7, "data": data, **more})


CUT = {**EVENT, "title": "\ud83d"}
PRECEDENCE = {
    "frame before command": (frame_of("Nothing", []), "BAD_REQUEST"),
    "command before key": (frame_of("Nothing", idempotencyKey="k"), "INVALID_METHOD"),
    "key before session": (frame_of("MngGetCalendarEvent", idempotencyKey="k"), "BAD_REQUEST"),
    "frame before session": (frame_of(data=5, __token="x"), "BAD_REQUEST"),
    "command before session": (frame_of("Nothing", __token="x"), "INVALID_METHOD"),
    "command before data": (frame_of("Nothing", CUT), "INVALID_METHOD"),
    "session before data": (frame_of(data={}, __token="x"), "UNAUTHORIZED"),
    "session before bad text": (frame_of(data=CUT, __token="x"), "UNAUTHORIZED"),
    "session before right": (frame_of(data={**EVENT, "created_by": 99}, __token="x"), "UNAUTHORIZED"),
    "data before right": (frame_of(data={**EVENT, "title": " ", "brand": "foreign"}), "INVALID_DATA"),
    "bad text before right": (frame_of(data={**CUT, "brand": "foreign"}), "INVALID_DATA"),
    "missing before right": (frame_of(data={"brand": "foreign"}), "FIELD_REQUIRED"),
    "order before right": (frame_of(data={**EVENT, "end_time": 1, "created_by": 99}), "INVALID_DATA"),
    "size before right": (frame_of(data={**EVENT, "title": "x" * 501, "created_by": 99}), "TOO_LARGE"),
    "twice before right": (frame_of(data={**EVENT, "participants": [{"manager_id": 5}] * 2, "brand": "no"}), "INVALID_DATA"),
    "right": (frame_of(data={**EVENT, "created_by": 99}), "FORBIDDEN"),
}


async def test_answer_finds_faults_in_the_documented_order(gateway, connect, db):
    """Of two faults in a frame the one of the earlier check is told, and nothing is done."""
    client = await connect(gateway)
    found = await answers(client, [frame for frame, _ in PRECEDENCE.values()])
    assert {name: error for name, (_, error) in PRECEDENCE.items()} == dict(zip(PRECEDENCE, found, strict=True))
    await db.execute("UPDATE manager SET type = 9 WHERE id = 10")
    frames = [frame_of("Nothing", []), frame_of("Nothing"), frame_of(__token="x"), frame_of(data=CUT), frame_of(data={})]
    expected = ["BAD_REQUEST", "INVALID_METHOD", "UNAUTHORIZED", "FORBIDDEN", "FORBIDDEN"]
    assert expected == await answers(client, frames)
    assert 0 == await db.fetchval("SELECT count(*) FROM calendar_event")


async def test_answer_without_a_session_is_401_before_data(gateway, connect):
    """Commands that need a session say so whatever their data; the others are answered."""
    client = await connect(gateway, login=None)
    frames = [
        frame_of(),
        frame_of(data={}),
        frame_of(data=CUT),
        frame_of("MngLogout", {"x": 1}),
        frame_of("x"),
        frame_of(HEALTH, {}),
    ]
    assert ["UNAUTHORIZED"] * 4 + ["INVALID_METHOD", "200"] == await answers(client, frames)


async def test_answer_refuses_a_key_where_none_is_taken(gateway, connect, db):
    """`idempotencyKey` is for writes: reads, signing in and out refuse it and say so; null is no key."""
    client = await connect(gateway)
    for command in (name for name, entry in COMMANDS.items() if not entry.writes):
        reply = await client.command(command, {}, idempotencyKey="k-1")
        assert ("BAD_REQUEST", "not_executed") == told(reply)
        assert "idempotencyKey" in reply["message"]
    assert 200 == (await client.command(HEALTH, idempotencyKey=None))["status"]


async def test_answer_cuts_client_text_in_messages(gateway, connect):
    """A command's name is quoted up to 64 characters, and made printable."""
    client = await connect(gateway)
    messages = [(await client.command(name))["message"] for name in ("N" * 5000, "a\n\0b", "")]
    assert [f"`{'N' * 64}...`", "`a\\n\\x00b`", "``"] == [message.split(";")[0].split(": ")[1] for message in messages]


async def test_unknown_command_is_told_those_there_are(gateway, connect):
    """Also before any proof: they are no secret, and which one was meant would cost more to find than a frame may."""
    client = await connect(gateway, login=None)
    assert f"no such command: `Quotes`; known are {', '.join(COMMANDS)}" == (await client.command("Quotes"))["message"]


async def test_answer_echoes_the_ext_id(gateway, connect):
    """Success and failure carry the extID with its JSON type and value; it may repeat."""
    client = await connect(gateway, login=None)
    for command in (HEALTH, "Nothing"):
        for ext_id in (1, "1", 0, -1, 2**63 - 1, -(2**63), "x" * 128, "\U0001f600é", "a-_$@", '"\\\n', "\0", "1"):
            reply = await client.exchange(json.dumps({"command": command, "extID": ext_id, "from": "crm", "x": [1]}), ext_id)
            assert (type(ext_id), ext_id) == (type(reply["extID"]), reply["extID"])
    assert [] == client.others


UNREADABLE = ["", "hello", "[]", "[1,2]", "\ufeff{}", "{}", "[" * 5000, '{"command":"HealthCheck","extID":1} x']
UNREADABLE += [f'{{"command":"HealthCheck","extID":{x}}}' for x in ("1.5", "true", "null", '""', '"' + "x" * 129 + '"', 2**63)]


async def test_answer_to_an_unreadable_message_has_no_ext_id(start, connect):
    """What has no readable extID gets one BAD_REQUEST with extID null, and the socket lives."""
    gateway = await start(unreadable_frames_max=100)
    client = await connect(gateway, login=None)
    for message in UNREADABLE:
        reply = await client.exchange(message, None)
        assert (("BAD_REQUEST", "not_executed"), None) == (told(reply), reply["extID"])
    assert 200 == (await client.command(HEALTH))["status"]
    assert [] == client.others


async def test_answer_survives_every_depth_of_nesting(start, connect):
    """Around the interpreter's own limit each message gets one reply, whatever else is wrong with it."""
    gateway = await start(unreadable_frames_max=10_000)
    client = await connect(gateway)
    for depth in range(930, 1000):
        for inner, title in (("1", '"x"'), ('"\\u0000"', '"x"'), ("1", '5,"title":"x"'), ('"\\ud83d"', "5")):
            nest = "[" * depth + inner + "]" * depth
            data = f'{{"title":{title},"start_time":1,"end_time":2,"ast_json":{nest}}}'
            await client.socket.send(f'{{"command":"{ADD}","extID":7,"data":{data}}}')
            error, outcome = told(reply := await client.receive())
            assert reply["extID"] in (7, None)
            assert (error, outcome) in [(e, "not_executed") for e in ("BAD_REQUEST", "INVALID_DATA", "TOO_LARGE")]
    assert 200 == (await client.command(HEALTH))["status"]


async def test_text_that_is_not_utf8_ends_the_socket(gateway, connect):
    """Invalid UTF-8 costs the connection, with 1007; its neighbour is served."""
    client, neighbour = await connect(gateway, login=None), await connect(gateway, login=None)
    await client.socket.send(b'{"command":"HealthCheck","extID":1,"from":"\xff"}', text=True)
    assert 1007 == await client.closed()
    with pytest.raises(ConnectionClosed):
        await client.socket.send("late")
    assert 200 == (await neighbour.command(HEALTH))["status"]


async def test_a_bug_is_answered_with_an_id_and_without_its_text(gateway, connect, monkeypatch):
    """INTERNAL carries an id that is in the log too; what the exception says is in neither, nor is it the client's fault."""

    async def broken(_context: object, _request: object) -> HealthCheckReply:
        raise KeyError("a secret of manager 4711")

    monkeypatch.setitem(COMMANDS, HEALTH, msgspec.structs.replace(COMMANDS[HEALTH], handler=broken))
    client = await connect(gateway)
    reply = await client.command(HEALTH)
    assert ("INTERNAL", "unknown") == told(reply)
    line = next(line for line in gateway.log_lines if line.get("error") == "INTERNAL")
    assert line["error_id"] in reply["message"]
    assert "KeyError" == line["exception"]
    assert [] == [text for text in ("secret", "4711", "Traceback") if text in gateway.log_text + json.dumps(reply)]
    assert "FORBIDDEN" == (await client.command(ADD, {**EVENT, "brand": "no"}))["error"]


@asynccontextmanager
async def adds_held_up(db) -> AsyncIterator[None]:
    """Within the block, whoever inserts an event waits for a lock inside the statement."""
    await db.execute(
        """
        CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END';
        CREATE TRIGGER held_up BEFORE INSERT ON calendar_event FOR EACH ROW EXECUTE FUNCTION hold_up();
        SELECT pg_advisory_lock(1)
        """
    )
    yield
    await db.execute("SELECT pg_advisory_unlock(1)")


async def waiting_backend(db) -> int:
    """The database process that waits for a lock in this database, once there is one."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            pid = await db.fetchval(
                "SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database "
                "WHERE NOT granted AND datname = current_database()"
            )
            if pid is not None:
                return int(pid)
            await asyncio.sleep(0.005)


SLOW: list[tuple[dict[str, float], str]] = [
    ({"db_lock_seconds": 0.4}, "not_executed"),
    ({"db_statement_seconds": 0.4, "db_lock_seconds": 5}, "not_executed"),
    ({"db_command_seconds": 0.8, "db_statement_seconds": 5, "db_lock_seconds": 5}, "unknown"),
]


async def test_a_slow_database_is_a_timeout(start, connect, db):
    """What PostgreSQL gave up is not executed; what it has not answered in time has an unknown outcome."""
    clients = [await connect(await start(**limits)) for limits, _ in SLOW]
    async with adds_held_up(db):
        replies = await asyncio.gather(*(client.command(ADD, {**EVENT, "title": "held"}) for client in clients))
    assert [("TIMEOUT", outcome) for _, outcome in SLOW] == [told(reply) for reply in replies]
    for client in clients:
        await client.add()
    assert await db.fetchval("SELECT count(*) FROM calendar_event WHERE title = 'held'") in (0, 1)


async def test_a_terminated_statement_is_not_executed(gateway, connect, db):
    """PostgreSQL says that it ends the statement: NO_SERVICE, nothing is stored, and the next command is served."""
    client = await connect(gateway)
    async with adds_held_up(db), asyncio.TaskGroup() as tasks:
        adding = tasks.create_task(client.command(ADD, EVENT))
        await db.execute("SELECT pg_terminate_backend($1)", await waiting_backend(db))
        assert ("NO_SERVICE", "not_executed") == told(await adding)
    assert 0 == await db.fetchval("SELECT count(*) FROM calendar_event")
    assert EVENT["title"] == (await client.add())["title"]


async def test_no_free_connection_is_no_service(start, connect, db):
    """A command that finds every database connection taken is refused in time; the one that has it is answered."""
    gateway = await start(db_connections_max=1, db_acquire_seconds=0.2)
    first, second = await connect(gateway, login=None), await connect(gateway, login=None)
    data = {"login": "10", "password": PASSWORD}
    async with asyncio.TaskGroup() as tasks, db.transaction():
        await db.execute("LOCK TABLE manager IN ACCESS EXCLUSIVE MODE")
        held = tasks.create_task(first.command("MngLogin", data))
        await waiting_backend(db)
        assert ("NO_SERVICE", "not_executed") == told(await second.command("MngLogin", data))
    assert 200 == (await held)["status"]


async def test_clients_told_to_come_back_are_not_told_the_same_time(start, connect, db):
    """Those who find the database away at one moment are spread over some time, about as long as it takes to restart."""
    gateway = await start(db_connections_max=1, db_acquire_seconds=0.2)
    clients = [await connect(gateway, login=None) for _ in range(11)]
    data = {"login": "10", "password": PASSWORD}
    async with asyncio.TaskGroup() as tasks, db.transaction():
        await db.execute("LOCK TABLE manager IN ACCESS EXCLUSIVE MODE")
        held = tasks.create_task(clients[0].command("MngLogin", data))
        await waiting_backend(db)
        replies = await asyncio.gather(*(client.command("MngLogin", data) for client in clients[1:]))
    assert 200 == (await held)["status"]
    waits = {reply["retry_after_ms"] for reply in replies}
    assert 1 < len(waits)
    assert 500 <= min(waits) <= max(waits) <= 2000
