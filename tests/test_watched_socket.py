"""What the library leaves to us: messages that never end, handshakes that never end, and closings that never end."""

from __future__ import annotations

import asyncio

import pytest
from websockets.frames import CONT, PING, TEXT, Frame

from tests.client import WAIT_SECONDS, Client
from tests.process import POLL_SECONDS, becomes_true


@pytest.fixture(autouse=True)
def quick_sweeps(monkeypatch):
    """The sweeper looks often, so that a limit acts soon."""
    monkeypatch.setattr("gateway.sweeper.SWEEP_SECONDS", 0.02)
    monkeypatch.setattr("gateway.connection.CUT_SECONDS", 0.2)


async def repeat_until_closed(client: Client, payload: bytes) -> int:
    """Writes the same bytes again and again: the close code."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not client.socket.transport.is_closing() and client.socket.state.name == "OPEN":
            client.socket.transport.write(payload)
            await asyncio.sleep(POLL_SECONDS)
    return await client.closed()


@pytest.mark.parametrize("length", [1, 2, 7, 20])
async def test_half_a_message_is_not_waited_for(start, connect, length):
    """A message that stops in its header or in its text is ended; another client is not disturbed."""
    gateway = await start(message_seconds=0.1)
    client, other = await connect(gateway, login=None), await connect(gateway)
    client.socket.transport.write(Frame(TEXT, b"x" * 100).serialize(mask=True)[:length])
    assert await client.closed() in (4000, 1006)
    assert 200 == (await other.command("HealthCheck"))["status"]


async def test_half_a_message_behind_a_whole_one_is_not_waited_for(start, connect):
    """What comes in one piece with a complete frame is watched as well."""
    gateway = await start(message_seconds=0.1)
    client = await connect(gateway, login=None)
    whole, half = Frame(TEXT, b"ping").serialize(mask=True), Frame(TEXT, b"x" * 100).serialize(mask=True)[:20]
    client.socket.transport.write(whole + half)
    assert await client.socket.recv() == "pong"
    assert await client.closed() in (4000, 1006)


async def test_endless_fragments_are_ended(start, connect):
    """Fragments that keep coming, with pings between them, make no message in time."""
    gateway = await start(message_seconds=0.2)
    client = await connect(gateway, login=None)
    client.socket.transport.write(Frame(TEXT, b"x", fin=False).serialize(mask=True))
    more = Frame(CONT, b"x", fin=False).serialize(mask=True) + Frame(PING, b"").serialize(mask=True)
    assert await repeat_until_closed(client, more) in (4000, 1006)


async def test_fragmented_message_is_one_message(gateway, connect):
    """A command in fragments with a ping between them is answered as any other."""
    client = await connect(gateway)
    text = b'{"command":"HealthCheck","extID":"in pieces"}'
    pieces = [Frame(CONT, bytes([letter]), fin=False) for letter in text[1:]]
    frames = [Frame(TEXT, text[:1], fin=False), Frame(PING, b""), *pieces, Frame(CONT, b"", fin=True)]
    client.socket.transport.write(b"".join(frame.serialize(mask=True) for frame in frames))
    assert "in pieces" == (await client.receive())["extID"]


async def test_busy_client_is_not_taken_for_a_slow_one(start, connect):
    """Messages that arrive in pieces all the time, each whole in time, go on for longer than one message may take."""
    gateway = await start(message_seconds=0.4)
    client = await connect(gateway, login=None)
    frame = Frame(TEXT, b"ping").serialize(mask=True)
    client.socket.transport.write(frame[:5])
    end = client.socket.loop.time() + 1
    while client.socket.loop.time() < end:
        client.socket.transport.write(frame[5:] + frame[:5])
        assert "pong" == await client.socket.recv()
    client.socket.transport.write(frame[5:])
    assert "pong" == await client.socket.recv()


async def test_slow_handshake_is_closed(start):
    """A client that does not finish its upgrade request is hung up on."""
    gateway = await start(handshake_seconds=0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: tests\r\n")
    async with asyncio.timeout(WAIT_SECONDS):
        assert b"" == await reader.read()
    writer.close()


@pytest.mark.parametrize(
    "last_words",
    [
        Frame(TEXT, b"\xff").serialize(mask=True),
        Frame(TEXT, b"x" * 2000).serialize(mask=True),
        Frame(TEXT, b"unmasked").serialize(mask=False),
        b"\x88\x80\x00\x00\x00\x00",
    ],
    ids=["not UTF-8", "too big", "protocol error", "close"],
)
async def test_unfinished_closing_is_cut_off(start, connect, monkeypatch, last_words):
    """Whatever begins the closing, a client that does not end it loses its socket all the same."""
    monkeypatch.setattr("gateway.connection.CLOSE_SECONDS", 0.1)
    gateway = await start(frame_bytes_max=1024)
    client = await connect(gateway, login=None)
    client.socket.transport.pause_reading()
    client.socket.transport.write(last_words)
    await becomes_true(lambda: not gateway.gateway._connections)
    client.socket.transport.abort()


async def test_refused_client_that_stays_is_cut_off(start, connect, monkeypatch):
    """So does one over the connection limit, which was never let in."""
    monkeypatch.setattr("gateway.connection.CLOSE_SECONDS", 0.1)
    gateway = await start(connections_max=1)
    await connect(gateway, login=None)
    refused = await connect(gateway, login=None)
    refused.socket.transport.pause_reading()
    await becomes_true(lambda: 1 == len(gateway.gateway._server.handler_tasks))
    refused.socket.transport.abort()
