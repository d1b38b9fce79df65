"""The clock of all sockets: pings, silence, proofs of identity in time, and clients that do not read."""

from __future__ import annotations

import signal
import time
from functools import partial

import pytest
from msgspec.json import encode
from websockets.frames import PING, TEXT, Frame

from gateway.connection import Connection
from tests.client import Client
from tests.conftest import PASSWORD, Running
from tests.held import HELD, PATIENT, held_adds
from tests.process import becomes_true, gateway_process

NO_PATIENCE = {"ping_seconds": 0.2, "pong_timeout_seconds": 0.3, "outbox_stall_seconds": 0.2}
QUICK = {"ping_seconds": 0.1, "pong_timeout_seconds": 1.5, "outbox_stall_seconds": 0.5}


@pytest.fixture(autouse=True)
def quick_sweeps(monkeypatch):
    """The sweeper looks often, and closings are short, so that a limit acts soon."""
    monkeypatch.setattr("gateway.sweeper.SWEEP_SECONDS", 0.02)
    monkeypatch.setattr("gateway.connection.CLOSE_SECONDS", 0.2)
    monkeypatch.setattr("gateway.connection.CUT_SECONDS", 0.2)


async def token_of(gateway: Running) -> str:
    """A session of manager 10, signed in where there is time for it."""
    async with Client.connected(gateway.url) as client:
        return str((await client.login("10", PASSWORD))["token"])


def only_connection(gateway: Running) -> Connection:
    connection: Connection
    (connection,) = gateway.gateway._connections
    return connection


async def pinged(gateway: Running, times: int) -> None:
    """Returns when the gateway's one client has been pinged so often."""
    seen: set[float] = set()

    def enough() -> bool:
        seen.add(only_connection(gateway).pinged_at)
        return len(seen) > times

    await becomes_true(enough)


async def test_mute_client_is_closed_with_1011(start, connect):
    """A client that answers no ping is given up, while one that answers stays."""
    gateway = await start(**QUICK)
    mute, alive = await connect(gateway, login=None), await connect(gateway)
    mute.socket.transport.pause_reading()
    await becomes_true(lambda: 1 == len(gateway.gateway._connections))
    mute.socket.transport.resume_reading()
    assert 1011 == await mute.closed()
    assert 200 == (await alive.command("HealthCheck"))["status"]


async def test_silent_client_that_answers_pings_stays(start, connect):
    """Pongs are enough: many silences later the socket still works."""
    gateway = await start(**QUICK)
    client = await connect(gateway)
    await pinged(gateway, 8)
    assert 200 == (await client.command("HealthCheck"))["status"]


async def test_timers_stand_still_while_the_gateway_does_not_read(start, connect, dsn):
    """A client held up at its limit of commands, with half a message on the way, is not blamed for its silence."""
    gateway = await start(in_flight_max=1, message_seconds=0.2, **QUICK, **PATIENT)
    async with held_adds(dsn) as hold:
        client, mute = await connect(gateway), await connect(gateway, login=None)
        connection = next(c for c in gateway.gateway._connections if c.identity.session)
        for ext_id in (1, 2):
            await client.socket.send(encode({"command": "MngAddCalendarEvent", "extID": ext_id, "data": HELD}).decode())
        await hold.begun()
        await becomes_true(lambda: connection.blocked)
        third = Frame(TEXT, b'{"command":"HealthCheck","extID":3}').serialize(mask=True)
        client.socket.transport.write(third[:20])
        for silent in (client, mute):
            silent.socket.transport.pause_reading()
        await becomes_true(lambda: 1 == len(gateway.gateway._connections))
        assert {connection} == gateway.gateway._connections
        mute.socket.transport.abort()
        client.socket.transport.resume_reading()
        client.socket.transport.write(third[20:])
        await hold.release()
        assert [(1, 200), (2, 200), (3, 200)] == [await answer(client) for _ in range(3)]


async def answer(client: Client) -> tuple[int, int]:
    reply = await client.receive()
    return reply["extID"], reply["status"]


async def test_client_without_proof_is_closed_with_4500(start, connect):
    """No ping, bare or real, no HealthCheck and no bad proof stops the timer."""
    gateway = await start(authentication_seconds=0.3)
    client = await connect(gateway, login=None)
    await client.bare_ping()
    await client.socket.ping()
    await client.command("HealthCheck")
    assert 401 == (await client.command("MngAddCalendarEvent", HELD, __token="not a token"))["status"]
    await client.socket.send('{"authorization":"not a token"}')
    assert 4500 == await client.closed()


async def test_valid_token_in_a_frame_stops_the_timer(start, connect):
    """A client that sends its proof in frames alone is as good as one that signed in."""
    token = await token_of(await start())
    gateway = await start(authentication_seconds=1)
    proving, mute = await connect(gateway, login=None), await connect(gateway, login=None)
    assert 200 == (await proving.command("MngAddCalendarEvent", {**HELD, "participants": []}, __token=token))["status"]
    assert 4500 == await mute.closed()
    assert 200 == (await proving.command("HealthCheck"))["status"]


async def test_timer_runs_again_after_logout(start, connect):
    """A socket that has signed out must prove itself anew in time."""
    proof = {"Authorization": f"Bearer {await token_of(await start())}"}
    gateway = await start(authentication_seconds=1)
    client = await connect(gateway, login=None, additional_headers=proof)
    mute = await connect(gateway, login=None)
    assert 4500 == await mute.closed()
    assert 200 == (await client.command("MngLogout"))["status"]
    assert 4500 == await client.closed()


async def test_expired_session_is_closed_with_4501(start, connect):
    """The socket of a session ends with it."""
    gateway = await start(session_seconds=1)
    client = await connect(gateway)
    assert 4501 == await client.closed()


async def test_client_that_takes_nothing_is_cut(start, connect):
    """A client whose replies stay with the gateway loses its socket; pings it sends are no sign of reading."""
    gateway = await start(**QUICK)
    deaf, other = await connect(gateway, login=None), await connect(gateway)
    deaf.socket.transport.pause_reading()
    ping = Frame(PING, b"x" * 125).serialize(mask=True)
    connection = next(c for c in gateway.gateway._connections if c.identity.session is None)

    def cut():
        waiting = connection.socket.transport.get_write_buffer_size()
        deaf.socket.transport.write(ping * (1 if waiting else 500))
        return connection not in gateway.gateway._connections

    await becomes_true(cut)
    assert 200 == (await other.command("HealthCheck"))["status"]
    deaf.socket.transport.resume_reading()
    assert await deaf.closed() in (4000, 1006)


async def test_flood_of_pings_fills_no_memory(start, connect):
    """Pongs count against the limit of bytes that wait for a client."""
    gateway = await start(outbox_bytes_max=100_000, outbox_stall_seconds=600, pong_timeout_seconds=900)
    deaf = await connect(gateway, login=None)
    deaf.socket.transport.pause_reading()
    ping = Frame(PING, b"x" * 125).serialize(mask=True)

    def cut():
        if not deaf.socket.transport.get_write_buffer_size():
            deaf.socket.transport.write(ping * 1000)
        return not gateway.gateway._connections

    await becomes_true(cut)
    deaf.socket.transport.resume_reading()
    assert await deaf.closed() in (4000, 1006)


def have_begun(gateway: Running, messages: int) -> bool:
    return messages <= sum(connection.socket.begun_at is not None for connection in gateway.gateway._connections)


async def test_unfinished_messages_of_all_have_a_limit(start, connect, monkeypatch):
    """Of those that are over it together, first go those without a session, and of these those that began first."""
    monkeypatch.setattr("gateway.sweeper.UNFINISHED_WHOLE", 3)
    gateway = await start(frame_bytes_max=10_000)
    known = await connect(gateway)
    strangers = [await connect(gateway, login=None) for _ in range(4)]
    message = Frame(TEXT, b"x" * 9_000).serialize(mask=True)
    for number, client in enumerate((known, *strangers), start=1):
        client.socket.transport.write(message[:-1])
        await becomes_true(partial(have_begun, gateway, min(number, 3)))
    assert [4000, 4000] == [await client.closed() for client in strangers[:2]]
    for client in (known, *strangers[2:]):
        client.socket.transport.write(message[-1:])
        assert "BAD_REQUEST" == (await client.receive())["error"]


def has_passed(moment: float) -> bool:
    return time.monotonic() > moment


async def test_gateway_that_was_held_up_blames_no_client(dsn, scratch_dir):
    """What came while it stood still is yet to be read when it looks for silence."""
    async with (
        gateway_process(scratch_dir, database_url=dsn, **NO_PATIENCE) as gateway,
        Client.connected(gateway.url) as client,
    ):
        await client.login("10", PASSWORD)
        for _ in range(3):
            gateway.signal(signal.SIGSTOP)
            await client.socket.send("ping")
            await becomes_true(partial(has_passed, time.monotonic() + 1.2))
            gateway.signal(signal.SIGCONT)
            assert "pong" == await client.socket.recv()
        assert 200 == (await client.command("HealthCheck"))["status"]
