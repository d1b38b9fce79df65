"""One client's socket: what its limits do, how it ends, and that its neighbours and its own commands do not suffer."""

from __future__ import annotations

import gc
import socket
import struct
import weakref

import pytest
from msgspec.json import encode
from websockets.frames import BINARY, TEXT, Frame

from gateway.sweeper import sweep
from tests.client import EVENT, Client
from tests.conftest import PASSWORD, Running
from tests.held import HELD, PATIENT, held_adds, row_counts
from tests.process import becomes_true, until


async def send(client: Client, ext_id: object, command: str = "MngAddCalendarEvent", data: object = None) -> None:
    frame = {"command": command, "extID": ext_id, "data": data or {}}
    await client.socket.send(encode(frame).decode())


async def pool_is_whole(gateway: Running) -> None:
    """Returns when no database connection of the gateway is in use."""
    db = gateway.database
    await becomes_true(lambda: db._pool.get_size() == db._pool.get_idle_size() + len(db._idle))


async def test_commands_of_one_socket_overtake_each_other(start, connect, dsn):
    """A command that takes long keeps no other one of the same socket waiting."""
    gateway = await start(**PATIENT)
    async with held_adds(dsn) as hold:
        client = await connect(gateway)
        await send(client, "slow", data=HELD)
        await hold.begun()
        await send(client, "quick", "HealthCheck")
        assert "quick" == (await client.receive())["extID"]
        await hold.release()
        assert "slow" == (await client.receive())["extID"]


@pytest.mark.parametrize(
    ("settings", "commands", "padding"), [({"in_flight_max": 2}, 2, 0), ({"frame_bytes_max": 65_536}, 3, 60_000)]
)
async def test_socket_is_not_read_past_its_limit_of_commands(start, connect, dsn, settings, commands, padding):
    """With so many commands under way, or so long ones, the next is not begun, and is answered once one of them is."""
    gateway = await start(**settings, **PATIENT)
    async with held_adds(dsn) as hold:
        client, other = await connect(gateway), await connect(gateway)
        for number in range(commands):
            await send(client, f"held {number}", data={**HELD, "__access": "x" * padding})
        await send(client, "behind", "HealthCheck")
        await client.socket.send("ping")
        await hold.begun()
        await becomes_true(lambda: any(connection.blocked for connection in gateway.gateway._connections))
        assert 200 == (await other.command("HealthCheck"))["status"]
        logged = {line["ext_id"] for line in gateway.log_lines if line["event"] == "command"}
        assert logged.isdisjoint({"behind", *(f"held {number}" for number in range(commands))})
        await hold.release()
        answers = [await client.socket.recv() for _ in range(commands + 2)]
        assert '"extID":"behind"' not in answers[0]
        assert "pong" != answers[0]
        assert "pong" in answers


async def test_commands_of_a_client_that_left_are_done_whole(start, connect, dsn, db):
    """What was read is carried out with all its rows, though nobody is there to be told; then nothing is left of it."""
    gateway = await start(**PATIENT)
    async with held_adds(dsn) as hold:
        client = await connect(gateway)
        for ext_id in range(3):
            await send(client, ext_id, data=HELD)
        await client.command("HealthCheck")
        await hold.begun()
        client.socket.transport.abort()
        await hold.release()
        assert (3, 6) == await until(lambda: row_counts(db), lambda counts: counts[0] == 3)
        await becomes_true(lambda: not gateway.gateway._connections)
        await pool_is_whole(gateway)


async def test_client_reset_in_the_middle_of_a_reply_harms_no_command(start, connect, dsn, db):
    """A socket that breaks while replies wait for it takes none of its other commands along, and is no error."""
    gateway = await start(**PATIENT)
    async with held_adds(dsn) as hold:
        client = await connect(gateway)
        await send(client, "held", data=HELD)
        await hold.begun()
        client.socket.transport.pause_reading()
        connection = next(iter(gateway.gateway._connections))
        body = ["x" * 200_000]
        for ext_id in range(20):
            await send(client, ext_id, data={**EVENT, "participants": [], "ast_json": body})
        await becomes_true(lambda: connection.socket.paused)
        raw = client.socket.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.socket.transport.abort()
        await becomes_true(lambda: connection.socket.state.name == "CLOSED")
        await hold.release()
        await until(lambda: db.fetch("SELECT FROM calendar_participant WHERE manager_id = 11"))
        await becomes_true(lambda: not gateway.gateway._connections)
        await pool_is_whole(gateway)
    assert [] == [line for line in gateway.log_lines if line["event"] == "library"]


async def test_client_that_does_not_read_is_cut(start, connect, db, dsn, monkeypatch):
    """No more waits for a client than the limit says, and past it the next sweep ends the socket; another is served."""
    monkeypatch.setattr("gateway.sweeper.SWEEP_SECONDS", 3600)
    limits = {"outbox_bytes_max": 100_000, "outbox_stall_seconds": 600, "pong_timeout_seconds": 900, "frame_bytes_max": 2**22}
    gateway = await start(**limits, **PATIENT)
    deaf, other = await connect(gateway), await connect(gateway)
    deaf.socket.transport.pause_reading()
    async with held_adds(dsn) as hold:
        for ext_id in range(60):
            await send(deaf, ext_id, data={**HELD, "ast_json": ["x" * 80_000]})
        await becomes_true(lambda: 60 in [connection.unanswered for connection in gateway.gateway._connections])
        await hold.release()  # once all are read: nothing more is while replies pile up
        assert (60, 120) == await until(lambda: row_counts(db), lambda counts: counts[0] == 60)
    await other.add()
    connections = tuple(gateway.gateway._connections)
    assert all(connection.socket.transport.get_write_buffer_size() <= 100_000 for connection in connections)
    await sweep(connections, gateway.settings)
    await becomes_true(lambda: 1 == len(gateway.gateway._connections))
    await other.add()
    deaf.socket.transport.resume_reading()
    assert await deaf.closed() in (4000, 1006)


async def test_run_of_unreadable_frames_is_closed_with_4001(start, connect):
    """Each one is answered, and the last one ends the socket."""
    gateway = await start(unreadable_frames_max=3)
    client = await connect(gateway)
    for message in ("{", "[]", '{"command":"HealthCheck"}'):
        await client.socket.send(message)
    assert 4001 == await client.closed()
    assert [(None, 400)] * 3 == [(reply["extID"], reply["status"]) for reply in client.others]


async def test_readable_frame_between_unreadable_ones_resets_the_count(start, connect):
    """Only a run of them counts; a frame with an extID is readable even when it is wrong."""
    gateway = await start(unreadable_frames_max=3)
    client = await connect(gateway)
    for readable in ('{"command":"HealthCheck","extID":%d}', '{"extID":%d}', '{"command":"None","extID":%d}'):
        for number in range(3):
            for _ in range(2):
                assert 400 == (await client.exchange("{", None))["status"]
            await client.exchange(readable % number, number)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (Frame(BINARY, b'{"command":"HealthCheck","extID":1}').serialize(mask=True), 1003),
        (Frame(TEXT, b'{"command":"HealthCheck","extID":"\xff"}').serialize(mask=True), 1007),
        (Frame(TEXT, b'"' + b"x" * 1024 + b'"').serialize(mask=True), 1009),
        (Frame(TEXT, b"unmasked").serialize(mask=False), 1002),
    ],
    ids=["binary", "not UTF-8", "too big", "protocol error"],
)
async def test_broken_client_is_closed_and_alone(start, connect, frame, code):
    """Each kind of broken message has its code, and costs the sockets beside it nothing."""
    gateway = await start(frame_bytes_max=1024)
    client, other = await connect(gateway), await connect(gateway)
    client.socket.transport.write(frame)
    assert code == await client.closed()
    assert [] == client.others
    await other.add()


async def test_message_of_the_largest_size_is_read(start, connect):
    """The limit itself is within the limit."""
    gateway = await start(frame_bytes_max=1024)
    client = await connect(gateway)
    message = '{"command":"HealthCheck","extID":1}'
    assert 200 == (await client.exchange(message.ljust(1024), 1))["status"]


async def test_commands_before_a_broken_message_are_answered(start, connect, dsn):
    """A binary message ends the socket once the commands before it have their replies; those behind it are not begun."""
    gateway = await start(**PATIENT)
    async with held_adds(dsn) as hold:
        client = await connect(gateway)
        await send(client, "before", data=HELD)
        await hold.begun()
        await client.socket.send(b"binary")
        await send(client, "behind", "HealthCheck")
        await becomes_true(lambda: next(iter(gateway.gateway._connections))._ending)
        await hold.release()
        assert 1003 == await client.closed()
        assert [("before", 200)] == [(reply["extID"], reply["status"]) for reply in client.others]


async def test_connection_limit_is_4002(start, connect):
    """One socket too many is told to come back later; when another has left there is room."""
    gateway = await start(connections_max=2)
    first, _ = await connect(gateway), await connect(gateway)
    refused = await connect(gateway, login=None)
    assert 4002 == await refused.closed()
    await first.socket.close()
    await becomes_true(lambda: 1 == len(gateway.gateway._connections))
    await connect(gateway)


async def test_bare_ping_is_answered_with_bare_pong(gateway, connect):
    """A browser's sign of life, before and after signing in."""
    client = await connect(gateway, login=None)
    await client.bare_ping()


async def test_nothing_is_left_of_clients_that_went(gateway, connect, db):
    """However sockets end, the gateway forgets them, and every database connection is free again."""
    for end in ("close", "abort", "half"):
        async with Client.connected(gateway.url) as client:
            await client.login("10", PASSWORD)
            for ext_id in range(10):
                await send(client, ext_id, data=EVENT)
            if end == "abort":
                client.socket.transport.abort()
            elif end == "half":
                client.socket.transport.write_eof()
    await becomes_true(lambda: not gateway.gateway._connections)
    await becomes_true(lambda: not gateway.gateway._server.handler_tasks)
    await pool_is_whole(gateway)
    events, participants = await row_counts(db)
    assert events == participants
    assert [] == [line for line in gateway.log_lines if line["event"] != "command"]


@pytest.mark.parametrize("end", ["close", "abort", "broken"])
async def test_socket_that_ended_is_free_without_the_garbage_collector(gateway, connect, end):
    """Nothing of it refers to itself in a circle: the collector looks so rarely that churning clients would fill the memory."""
    gc.collect()
    gc.disable()
    try:
        client = await connect(gateway)
        await client.add()
        (connection,) = gateway.gateway._connections
        left = [weakref.ref(part) for part in (connection, connection.socket, connection.socket.protocol)]
        del connection
        if end == "close":
            await client.socket.close()
        elif end == "abort":
            client.socket.transport.abort()
        else:
            client.socket.transport.write(Frame(TEXT, b"unmasked").serialize(mask=False))
        await becomes_true(lambda: not gateway.gateway._server.handler_tasks)
        await becomes_true(lambda: all(part() is None for part in left))
    finally:
        gc.enable()


async def test_many_frames_in_one_piece_are_each_answered(gateway, connect):
    """Frames that arrive together are read one by one, past the limit of commands too, and none is lost."""
    client = await connect(gateway)
    frames = [Frame(TEXT, b'{"command":"HealthCheck","extID":%d}' % number).serialize(mask=True) for number in range(500)]
    client.socket.transport.write(b"".join(frames))
    assert list(range(500)) == sorted([(await client.receive())["extID"] for _ in range(500)])


async def bug(*_args: object) -> None:
    raise RuntimeError("a bug")


async def test_bug_in_taking_a_proof_is_told_and_the_socket_goes_on(gateway, connect, monkeypatch):
    """Whatever goes wrong with an `authorization`, it is answered, and so are the commands behind it."""
    client = await connect(gateway)
    with monkeypatch.context() as patched:
        patched.setattr(gateway.gateway._dispatch, "authorize", bug)
        await client.socket.send('{"authorization":"x"}')
        assert {"event": "authorization", "success": False, "error": "INTERNAL"} == await client.receive()
    assert 200 == (await client.command("HealthCheck"))["status"]


async def test_bug_in_answering_leaves_the_socket_to_the_commands_behind(start, connect, monkeypatch):
    """At the limit of its commands a socket is read again also when one of them ends without an answer."""
    gateway = await start(in_flight_max=1)
    client = await connect(gateway)
    answer = gateway.gateway._dispatch.answer
    broken = iter([bug])

    async def answer_but_the_first(*args: object) -> object:
        return await next(broken, answer)(*args)

    monkeypatch.setattr(gateway.gateway._dispatch, "answer", answer_but_the_first)
    await send(client, "lost", "HealthCheck")
    await send(client, "behind", "HealthCheck")
    assert "behind" == (await client.receive())["extID"]
