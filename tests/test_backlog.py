"""What waits for all clients together: who is cut when it becomes too much, and that nobody else notices."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import pytest
from msgspec.json import encode
from websockets.frames import TEXT, Frame

from gateway.backlog import Backlog
from gateway.connection import Connection
from gateway.settings import Settings
from tests.client import Client
from tests.conftest import Running
from tests.process import becomes_true
from tests.scrape import SHOWN, scrape

BODY = 200_000
TOTAL = 700_000
"""Room for what waits for two clients that asked twice, the kernel's share taken off."""
LIMITS = {
    "outbox_bytes_max": 600_000,
    "outbox_total_bytes_max": TOTAL,
    "outbox_stall_seconds": 600,
    "pong_timeout_seconds": 900,
}


class FakeOutbox:
    """An outbox of a client that takes only what it is told to take."""

    def __init__(self) -> None:
        self.waiting_bytes = 0
        self.taken = False

    def progressed(self) -> bool:
        taken, self.taken = self.taken, False
        return taken

    def cut(self) -> None:
        self.waiting_bytes = 0


def waits(backlog: Backlog, outbox: FakeOutbox, size: int) -> None:
    """So much more waits for the client."""
    outbox.waiting_bytes += size
    backlog.count(outbox)


def test_backlog_cuts_the_longest_without_progress_until_it_fits():
    """In the order in which they began to wait, whatever was written to them since, and no more of them than need be."""
    backlog = Backlog(Settings(outbox_total_bytes_max=100))
    first, second, third, fourth = (FakeOutbox() for _ in range(4))
    waits(backlog, first, 20)
    waits(backlog, second, 40)
    waits(backlog, third, 30)
    waits(backlog, first, 10)
    waits(backlog, fourth, 50)
    assert [0, 0, 30, 50] == [outbox.waiting_bytes for outbox in (first, second, third, fourth)]
    assert 80 == backlog.bytes


def test_backlog_spares_who_takes_something():
    """A client that took something since it was last looked at is behind all who took nothing."""
    backlog = Backlog(Settings(outbox_total_bytes_max=100))
    slow, deaf = FakeOutbox(), FakeOutbox()
    waits(backlog, slow, 40)
    waits(backlog, deaf, 40)
    slow.waiting_bytes, slow.taken = 35, True
    waits(backlog, FakeOutbox(), 60)
    assert [35, 0] == [slow.waiting_bytes, deaf.waiting_bytes]
    assert 95 == backlog.bytes


def test_backlog_cuts_even_those_who_take_something_when_it_must():
    """When everybody takes something and it is still too much, it ends with what fits."""
    backlog = Backlog(Settings(outbox_total_bytes_max=100))
    all_slow = [FakeOutbox() for _ in range(3)]
    for outbox in all_slow:
        outbox.taken = True
        waits(backlog, outbox, 30)
    for outbox in all_slow:
        outbox.taken = True
    waits(backlog, FakeOutbox(), 40)
    assert [0, 30, 30] == [outbox.waiting_bytes for outbox in all_slow]


def test_backlog_forgets_who_has_taken_everything():
    """An outbox is counted only while something waits in it."""
    backlog = Backlog(Settings(outbox_total_bytes_max=100))
    outbox = FakeOutbox()
    waits(backlog, outbox, 30)
    assert outbox in backlog
    waits(backlog, outbox, -30)
    assert outbox not in backlog
    assert 0 == backlog.bytes


def get(event_id: int) -> dict[str, object]:
    return {"command": "MngGetCalendarEvent", "extID": 1, "data": {"id": event_id}}


class Deaf(NamedTuple):
    """A client that reads nothing by itself, its raw socket, and the gateway's end of it."""

    client: Client
    raw: socket.socket
    connection: Connection

    @property
    def waiting(self) -> int:
        return self.connection.socket.transport.get_write_buffer_size()

    async def ask(self, event_id: int, times: int, size: int = BODY) -> None:
        """Asks for an event so often, all at once; returns when the gateway has written the replies, or ended the socket."""
        enough = self.connection.socket.written_bytes + size * times
        self.client.socket.transport.write(Frame(TEXT, encode(get(event_id))).serialize(mask=True) * times)
        await becomes_true(lambda: self.has_written(enough) or self.connection.socket.transport.is_closing())

    def has_written(self, size: int) -> bool:
        return self.connection.socket.written_bytes >= size

    async def sip(self) -> None:
        """Reads until the gateway has handed over some more."""
        before = self.waiting

        def taken() -> bool:
            with suppress(BlockingIOError):
                self.raw.recv(16_384)
            return self.waiting < before

        await becomes_true(taken)


@pytest.fixture
async def deaf(connect: Any) -> AsyncIterator[Callable[[Running], Awaitable[Deaf]]]:
    """Opens clients that do not read, and in whose kernel little fits."""
    opened: list[Client] = []

    async def open_one(gateway: Running) -> Deaf:
        before = set(gateway.gateway._connections)
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", gateway.port))
        client: Client = await connect(gateway, sock=raw, ping_interval=None)
        client.socket.transport.pause_reading()
        opened.append(client)
        (connection,) = gateway.gateway._connections - before
        return Deaf(client, raw, connection)

    yield open_one
    for client in opened:
        client.socket.transport.abort()


@pytest.fixture
def quick_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweeper looks often."""
    monkeypatch.setattr("gateway.sweeper.SWEEP_SECONDS", 0.02)


@pytest.fixture
def no_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut is not cut by the sweeper."""
    monkeypatch.setattr("gateway.sweeper.SWEEP_SECONDS", 3600)


@pytest.mark.usefixtures("no_sweeps")
async def test_client_longest_without_reading_is_cut_for_another(start, connect, deaf):
    """Replies that wait for several clients have one limit; who is cut for it is counted as 4000, and others are served."""
    gateway = await start(**LIMITS, **SHOWN)
    other = await connect(gateway)
    event_id = (await other.add(ast_json="x" * BODY))["id"]
    first, second, third = [await deaf(gateway) for _ in range(3)]
    await first.ask(event_id, 2)
    await second.ask(event_id, 2)
    assert {first.connection, second.connection} <= gateway.gateway._connections
    assert first.waiting + second.waiting == gateway.gateway._backlog.bytes
    await third.ask(event_id, 2)
    await becomes_true(lambda: first.connection not in gateway.gateway._connections)
    assert {second.connection, third.connection} <= gateway.gateway._connections
    assert second.waiting + third.waiting == gateway.gateway._backlog.bytes <= TOTAL
    for _ in range(20):
        assert 200 == (await other.command("MngGetCalendarEvent", {"id": event_id}))["status"]
    assert {second.connection, third.connection} <= gateway.gateway._connections
    found = await scrape(gateway)
    assert {("4000", "gateway"): 1} == found.values("gateway_closes_total", "code", "by")


@pytest.mark.usefixtures("no_sweeps")
async def test_slow_client_is_spared_for_one_that_takes_nothing(start, connect, deaf):
    """Who reads a little is behind who reads nothing, although it has waited for longer."""
    gateway = await start(**LIMITS)
    other = await connect(gateway)
    event_id = (await other.add(ast_json="x" * BODY))["id"]
    slow, stalled, third = [await deaf(gateway) for _ in range(3)]
    await slow.ask(event_id, 2)
    await stalled.ask(event_id, 2)
    await slow.sip()
    await third.ask(event_id, 2)
    await becomes_true(lambda: stalled.connection not in gateway.gateway._connections)
    assert {slow.connection, third.connection} <= gateway.gateway._connections


@pytest.mark.usefixtures("quick_sweeps")
async def test_backlog_is_empty_once_all_is_read_or_lost(start, connect, deaf):
    """What a client has read, and what waited for one that is gone, is counted no more."""
    gateway = await start(**LIMITS)
    other = await connect(gateway)
    event_id = (await other.add(ast_json="x" * BODY))["id"]
    reader, lost = await deaf(gateway), await deaf(gateway)
    await reader.ask(event_id, 2)
    await lost.ask(event_id, 2)
    lost.client.socket.transport.abort()
    await becomes_true(lambda: reader.waiting == gateway.gateway._backlog.bytes)
    reader.client.socket.transport.resume_reading()
    assert [200, 200] == [(await reader.client.receive())["status"] for _ in range(2)]
    await becomes_true(lambda: gateway.gateway._backlog.bytes == 0)


@pytest.mark.usefixtures("quick_sweeps")
async def test_replies_behind_one_in_pieces_are_counted(start, connect):
    """They wait in the gateway, not in the transport, and are counted no more once they are written."""
    gateway = await start(**LIMITS)
    client = await connect(gateway)
    event_id = (await client.add(ast_json="x" * BODY))["id"]
    (connection,) = gateway.gateway._connections
    outbox = connection._outbox
    async with outbox._streaming:
        await client.socket.send(encode(get(event_id)).decode())
        await becomes_true(lambda: BODY < gateway.gateway._backlog.bytes)
    outbox._write_behind()
    assert 200 == (await client.receive())["status"]
    await becomes_true(lambda: gateway.gateway._backlog.bytes == 0)


async def test_client_is_cut_for_what_waits_behind_pieces(start, connect):
    """Also when nobody is to blame, because the pieces are what everything waits for."""
    gateway = await start(**LIMITS)
    first = await connect(gateway)
    event_id = (await first.add(ast_json="x" * BODY))["id"]
    (one,) = gateway.gateway._connections
    second = await connect(gateway)
    (other,) = gateway.gateway._connections - {one}
    async with one._outbox._streaming, other._outbox._streaming:
        for client, connection in ((first, one), (second, other)):
            for times in (1, 2):
                await client.socket.send(encode(get(event_id)).decode())
                await becomes_true(partial(waits_behind, connection, times))
        await becomes_true(lambda: one not in gateway.gateway._connections)
        assert 2 * BODY < gateway.gateway._backlog.bytes < 3 * BODY
    other._outbox._write_behind()
    assert [200, 200] == [(await second.receive())["status"] for _ in range(2)]


def waits_behind(connection: Connection, times: int) -> bool:
    return times == len(connection._outbox._behind)


@pytest.mark.usefixtures("quick_sweeps")
async def test_small_backlogs_are_counted_too(start, connect, deaf):
    """A client that has too little waiting to be held up is counted by the next sweep."""
    gateway = await start(**LIMITS)
    other = await connect(gateway)
    event_id = (await other.add(ast_json="x" * 8_000))["id"]
    one = await deaf(gateway)
    while not one.waiting:
        await one.ask(event_id, 1, 8_000)
    assert not one.connection.socket.paused
    await becomes_true(lambda: gateway.gateway._backlog.bytes == one.waiting)
