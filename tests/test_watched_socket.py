"""What the library leaves to us: messages that never end, handshakes that never end, and closings that never end."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from websockets.frames import CONT, PING, TEXT, Frame

from gateway.watched_socket import FRAGMENTS_MAX, FRAMES_AT_ONCE, PARSED_AT_ONCE, WatchedSocket
from tests.client import WAIT_SECONDS, Client
from tests.held import HELD, PATIENT, held_adds
from tests.process import POLL_SECONDS, becomes_true

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: tests\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


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


@pytest.mark.parametrize("at_once", [(FRAMES_AT_ONCE, PARSED_AT_ONCE), (3, 64)])
@pytest.mark.parametrize("seed", range(8))
async def test_messages_are_read_whatever_pieces_they_come_in(start, connect, monkeypatch, seed, at_once):
    """Texts of every length, pings, fragments and empty messages, cut anywhere: each command once, in the order sent.

    However many are taken in a turn of the event loop.
    """
    monkeypatch.setattr("gateway.watched_socket.FRAMES_AT_ONCE", at_once[0])
    monkeypatch.setattr("gateway.watched_socket.PARSED_AT_ONCE", at_once[1])
    gateway = await start(in_flight_max=3)
    client = await connect(gateway)
    (connection,) = gateway.gateway._connections
    draw = random.Random(seed)
    stream = b"".join(_frames_of(draw, number) for number in range(150))
    read: list[str] = []
    take = connection.socket._take

    def note(message):
        read.append(message)
        take(message)

    connection.socket.read(note, connection._may_take)
    while stream:
        size = draw.choice((1, 2, 3, 7, 40, 300, 5000, 100_000))
        connection.socket.data_received(stream[:size])
        stream = stream[size:]
        if draw.random() < 0.5:
            await asyncio.sleep(0)
    replies = [(await client.receive())["extID"] for _ in range(150)]
    assert list(range(150)) == sorted(replies)
    assert list(range(150)) == [json.loads(message)["extID"] for message in read if message]
    assert connection.socket.begun_at is None
    assert 200 == (await client.command("HealthCheck"))["status"]


def _frames_of(draw: random.Random, number: int) -> bytes:
    """A command in one of the ways that it may be sent."""
    filler = "\u00e9" * draw.choice((0, 5, 60, 3000, 40_000))
    text = json.dumps({"command": "HealthCheck", "extID": number, "from": filler}, ensure_ascii=False).encode()
    way = draw.randrange(6)
    whole = [Frame(TEXT, text)]
    cut = draw.randrange(1, len(text))
    pieces = [Frame(TEXT, text[:cut], fin=False), Frame(PING, b"x"), Frame(CONT, b"", fin=False), Frame(CONT, text[cut:])]
    frames = pieces if way == 0 else [Frame(PING, b""), *whole] if way == 1 else whole
    return b"".join(frame.serialize(mask=True) for frame in frames)


@pytest.mark.parametrize(
    ("frame", "answer_bytes"), [(Frame(TEXT, b"ping"), 6), (Frame(PING, b""), 2)], ids=["text", "control frame"]
)
async def test_many_small_frames_leave_others_their_turn(gateway, connect, frame, answer_bytes):
    """However many come at once, a turn of the event loop takes few of them; all are answered in the end."""
    client = await connect(gateway)
    (connection,) = gateway.gateway._connections
    other = await connect(gateway)
    frames, before = 20_000, connection.socket.written_bytes
    client.socket.transport.write(frame.serialize(mask=True) * frames)
    most = await most_in_a_turn(connection, before + frames * answer_bytes)
    assert most <= (FRAMES_AT_ONCE + PARSED_AT_ONCE / 6) * answer_bytes
    assert 200 == (await other.command("HealthCheck"))["status"]
    client.socket.transport.abort()  # with thousands of answers that nobody reads


async def most_in_a_turn(connection: Any, end_bytes: int) -> int:
    """Bytes that the gateway writes to a socket in one turn of the event loop at most, until it has written so many in all."""
    before, most = connection.socket.written_bytes, 0
    async with asyncio.timeout(WAIT_SECONDS):
        while connection.socket.written_bytes < end_bytes:
            await asyncio.sleep(0)
            most = max(most, connection.socket.written_bytes - before)
            before = connection.socket.written_bytes
    return most


async def test_frames_behind_the_upgrade_request_leave_others_their_turn(gateway, monkeypatch):
    """A request and thousands of small frames in one piece: the parser is given little at once all the same."""
    given: list[int] = []
    parse = WatchedSocket._parse

    def note(socket, data):
        given.append(len(data))
        parse(socket, data)

    monkeypatch.setattr(WatchedSocket, "_parse", note)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(UPGRADE + Frame(PING, b"").serialize(mask=True) * 10_000)
    async with asyncio.timeout(WAIT_SECONDS):
        answer = b""
        while answer.count(b"\x8a\0") < 10_000:
            answer += await reader.read(65_536)
    assert max(given) <= PARSED_AT_ONCE
    writer.close()


async def test_frames_that_waited_leave_others_their_turn(start, connect, db, dsn):
    """Behind a full house of commands they wait by the hundred; few are taken at once when one of these ends."""
    gateway = await start(in_flight_max=1, unreadable_frames_max=100_000, **PATIENT)
    client = await connect(gateway)
    (connection,) = gateway.gateway._connections
    wrong = Frame(TEXT, b'{"extID":1}').serialize(mask=True)
    client.socket.transport.write(wrong)
    before = connection.socket.written_bytes
    await client.receive()
    reply_bytes, frames = connection.socket.written_bytes - before, 300
    async with held_adds(dsn) as hold:
        await client.socket.send(json.dumps({"command": "MngAddCalendarEvent", "extID": 2, "data": HELD}))
        await hold.begun()
        client.socket.transport.write(wrong * frames)
        await becomes_true(lambda: len(connection.socket._unread) == frames)
        async with asyncio.TaskGroup() as tasks:
            most = tasks.create_task(most_in_a_turn(connection, connection.socket.written_bytes + frames * reply_bytes))
            await hold.release()
    assert most.result() <= (FRAMES_AT_ONCE + 1) * reply_bytes + 2_000  # with the answer to the add
    for _ in range(frames + 1):
        await client.receive()


async def test_client_that_ends_its_side_is_answered_all_that_it_sent(gateway):
    """The end comes behind many small frames that are yet to be taken."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(UPGRADE)
    async with asyncio.timeout(WAIT_SECONDS):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(Frame(TEXT, b"ping").serialize(mask=True) * 1000)
        writer.write_eof()
        answer = await reader.read()
    assert 1000 == answer.count(b"pong")
    writer.close()


async def test_messages_behind_the_upgrade_request_wait_for_the_answer_to_it(gateway):
    """A client in a hurry sends its first command in the same piece as the request; half of the next comes later."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    first, second = (Frame(TEXT, b'{"command":"HealthCheck","extID":%d}' % n).serialize(mask=True) for n in (1, 2))
    writer.write(UPGRADE + first + second[:3])
    async with asyncio.timeout(WAIT_SECONDS):
        await reader.readuntil(b'"extID":1')
        writer.write(second[3:] + second[:1])
        writer.write(second[1:])
        for _ in range(2):
            await reader.readuntil(b'"extID":2')
    writer.close()


async def test_too_many_fragments_are_too_big(gateway, connect):
    """Empty pieces make no message of any size, but there is a limit to them."""
    client = await connect(gateway)
    piece = Frame(CONT, b"", fin=False).serialize(mask=True)
    client.socket.transport.write(Frame(TEXT, b"x", fin=False).serialize(mask=True) + piece * FRAGMENTS_MAX)
    assert 1009 == await client.closed()


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
