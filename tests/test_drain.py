"""SIGTERM and SIGINT to a real process: what is in flight is answered, what comes later refused, and the exit code is 0."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import msgspec
import pytest
from websockets.exceptions import InvalidStatus
from websockets.frames import TEXT, Frame

from gateway.errors import CloseCode
from tests.client import EVENT, WAIT_SECONDS, Client
from tests.conftest import PASSWORD, started
from tests.held import HELD, PATIENT, held_adds, row_counts
from tests.process import GatewayProcess, becomes_true, gateway_process, http_status

SOCKETS, COMMANDS = 5, 10
both_signals = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@asynccontextmanager
async def signed_in(gateway: GatewayProcess, count: int) -> AsyncIterator[list[Client]]:
    """Sockets with one session."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(Client.connected(gateway.url))
        proof = {"Authorization": f"Bearer {(await first.login('10', PASSWORD))['token']}"}
        opened = [Client.connected(gateway.url, additional_headers=proof) for _ in range(count - 1)]
        yield [first, *[await stack.enter_async_context(client) for client in opened]]


async def send_held(client: Client, count: int) -> None:
    """Sends adds that will be held, then makes sure that the gateway has read them."""
    for number in range(count):
        await client.socket.send(
            msgspec.json.encode({"command": "MngAddCalendarEvent", "extID": number, "data": HELD}).decode()
        )
    assert 200 == (await client.command("HealthCheck"))["status"]


async def told_to_leave(client: Client) -> int:
    """The retry_after_ms of the drain notice, which must be the next message."""
    notice = await client.receive()
    assert "server:drain" == notice["event"]
    return int(notice["data"]["retry_after_ms"])


@both_signals
async def test_drain_answers_all_that_is_in_flight(scratch_dir, dsn, db, number):
    """50 held commands: 50 replies with 200, then 1012 and exit 0; meanwhile new sockets and commands are refused.

    So few clients are asked to come back within two seconds.
    """
    async with (
        held_adds(dsn) as hold,
        gateway_process(scratch_dir, database_url=dsn, db_connections_max=60, **PATIENT) as gateway,
        signed_in(gateway, SOCKETS) as clients,
    ):
        for client in clients:
            await send_held(client, COMMANDS)
        await hold.begun()
        assert 200 == await http_status(gateway.port, "/readyz")
        gateway.signal(number)
        waits = [await told_to_leave(client) for client in clients]
        assert 1 < len(set(waits))
        assert 1000 <= min(waits) < max(waits) <= 2100
        assert [503, 200] == [await http_status(gateway.port, page) for page in ("/readyz", "/healthz")]
        with pytest.raises(InvalidStatus) as refused:
            await Client.connected(gateway.url).__aenter__()
        assert 503 == refused.value.response.status_code
        for client in clients:
            late = await client.command("MngAddCalendarEvent", HELD)
            assert [503, "NO_SERVICE", "not_executed"] == [late["status"], late["error"], late["outcome"]]
            assert 0 < late["retry_after_ms"]
            assert [] == client.others
        await hold.release()
        assert [1012] * SOCKETS == await asyncio.gather(*(client.closed() for client in clients))
        for client in clients:
            answered = {(reply["extID"], reply["status"]) for reply in client.others}
            assert {(ext_id, 200) for ext_id in range(COMMANDS)} == answered
            assert COMMANDS == len(client.others)
        assert 0 == await gateway.exited()
    assert (SOCKETS * COMMANDS, 2 * SOCKETS * COMMANDS) == await row_counts(db)


async def test_drain_without_end_breaks_no_promise(scratch_dir, dsn, db):
    """When the drain time is over, a socket with unanswered commands gets no 1012, and one without does."""
    async with (
        held_adds(dsn) as hold,
        gateway_process(scratch_dir, database_url=dsn, drain_seconds=1, **PATIENT) as gateway,
        signed_in(gateway, 2) as (busy, idle),
    ):
        await send_held(busy, 3)
        await hold.begun()
        gateway.signal(signal.SIGTERM)
        assert (1006, 1012) == (await busy.closed(), await idle.closed())
        assert ["server:drain"] == [message.get("event") for message in busy.others]
        assert 0 == await gateway.exited()
        await hold.given_up()
        assert (0, 0) == await row_counts(db)


@both_signals
async def test_second_signal_stops_at_once(scratch_dir, dsn, number):
    """A gateway that has ten minutes left to drain does not take them."""
    async with (
        held_adds(dsn) as hold,
        gateway_process(scratch_dir, database_url=dsn, drain_seconds=600, **PATIENT) as gateway,
        signed_in(gateway, 1) as (client,),
    ):
        await send_held(client, 3)
        await hold.begun()
        gateway.signal(number)
        await told_to_leave(client)
        gateway.signal(number)
        assert 1006 == await client.closed()
        assert 0 == await gateway.exited()


async def test_stop_waits_for_no_client(dsn, monkeypatch):
    """Sockets that are being ended, refused or opened when the gateway stops do not keep it from stopping."""
    monkeypatch.setattr("gateway.connection.SETTLE_SECONDS", 3600)
    monkeypatch.setattr("gateway.connection.CLOSE_SECONDS", 3600)
    async with AsyncExitStack() as clients, held_adds(dsn) as hold:
        async with (
            asyncio.timeout(WAIT_SECONDS),
            started(dsn, in_flight_max=1, connections_max=1, handshake_seconds=600, **PATIENT) as gateway,
        ):
            ending = await clients.enter_async_context(Client.connected(gateway.url))
            await ending.login("10", PASSWORD)
            for ext_id in (1, 2):
                await ending.socket.send(
                    msgspec.json.encode({"command": "MngAddCalendarEvent", "extID": ext_id, "data": HELD}).decode()
                )
            await hold.begun()
            (connection,) = gateway.gateway._connections
            connection.end(CloseCode.SESSION_ENDED, "as if its session had expired")
            refused = await clients.enter_async_context(Client.connected(gateway.url))
            refused.socket.transport.pause_reading()
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(b"GET / HTTP/1.1\r\n")
        with suppress(ConnectionResetError):
            assert b"" == await reader.read()
        writer.close()
        refused.socket.transport.resume_reading()
        assert [1006, 4002] == [await ending.closed(), await refused.closed()]


async def test_drain_denies_no_command_whose_reply_was_dropped(start, connect, db, monkeypatch):
    """A client too far behind when the drain begins is not told 1012, by which what is unanswered was not executed."""
    monkeypatch.setattr("gateway.sweeper.SWEEP_SECONDS", 600)
    gateway = await start(outbox_bytes_max=100_000)
    client = await connect(gateway, max_queue=1)
    (connection,) = gateway.gateway._connections
    client.socket.transport.pause_reading()
    frame = {"command": "MngAddCalendarEvent", "extID": 1, "data": {**EVENT, "ast_json": ["x" * 20_000]}}
    client.socket.transport.write(Frame(TEXT, msgspec.json.encode(frame)).serialize(mask=True) * 40)
    await becomes_true(lambda: connection._outbox.full and not connection.unanswered)
    drained = asyncio.ensure_future(gateway.gateway.drain())
    await becomes_true(lambda: connection.socket.closed_with is not None)
    client.socket.transport.resume_reading()
    assert await client.closed() in (4000, 1006)
    await drained
    answered = [reply for reply in client.others if "extID" in reply]
    assert len(answered) < await db.fetchval("SELECT count(*) FROM calendar_event")
