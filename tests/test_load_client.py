"""The benchmark's load client: what it sends, and what of the replies it counts, takes for wrong or misses."""

from __future__ import annotations

import asyncio
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec import structs
from websockets.asyncio.server import ServerConnection, serve

from tests.bench.load_job import NUMBER, Job, Opened, Result, Shape
from tests.bench.processes import load_client_program

UNDER_WAY_MAX = 1 << 20
"""As load_client.c has it: commands whose numbers differ by this share a place in its table."""
FRAME = f'{{"command":"X","extID":"{NUMBER}","data":{{"key":"{NUMBER}"}}}}'
LONG_FRAME, SHORT = f'{{"command":"X","extID":"{NUMBER}","data":"{"x" * 5_000}"}}', 100
"""A frame of which the kernel takes over a few for a server that does not read, and what of it is enough for a reply."""
STALL_SECONDS = 0.5


@pytest.fixture(scope="module")
def program():
    return load_client_program()


@asynccontextmanager
async def server(handler):
    """Its port."""
    async with serve(handler, "127.0.0.1", 0) as serving:
        yield serving.sockets[0].getsockname()[1]


def narrow_listener() -> socket.socket:
    """Small segments, too, keep the kernel's buffers small; they would hold megabytes."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
    return listener


async def results(program: Path, *jobs: Job) -> list[Result]:
    """What one process answers to the jobs, one after the other."""
    process = await asyncio.create_subprocess_exec(program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate(b"".join(job.told() for job in jobs))
    assert process.returncode == 0
    opened, *rest = output.splitlines()
    assert msgspec.json.decode(opened, type=Opened) == Opened()
    return [msgspec.json.decode(line, type=Result) for line in rest if not line.startswith(b'{"error"')]


def good(frame: str) -> str:
    """What answers it."""
    return frame.replace('"data"', '"status":200,"data"')


@pytest.mark.parametrize(
    "shape",
    [Shape(sockets=3, in_flight=2), Shape(sockets=3, window=3), Shape(sockets=3, rate=5000.0)],
    ids=["in flight", "window", "rate"],
)
async def test_each_command_has_a_number_of_its_own_and_is_counted_once(program, shape):
    """Over all sockets; the next job begins anew."""
    numbers: Counter[str] = Counter()
    sockets = set()

    async def answer(socket):
        async for frame in socket:
            sockets.add(socket)
            numbers.update(re.findall(r"\d{8}", frame))
            await socket.send(good(frame))

    async with server(answer) as port:
        job = Job(port=port, frames=[FRAME], expect='"status":200', shape=shape, count=30)
        first, second = await results(program, job, job)
    assert [first.wrong, second.wrong] == [0, 0]
    assert first.commands_in_all + second.commands_in_all >= 60
    assert sum(numbers.values()) == 2 * (first.commands_in_all + second.commands_in_all)
    assert set(numbers.values()) <= {2, 4}  # the extID and the key of both runs
    assert len(sockets) == 6
    assert 0 < first.p50 <= first.p99 <= first.longest < first.seconds


async def test_latency_at_a_rate_counts_from_the_time_a_frame_was_due(program):
    """Of a server that stops to read most frames leave late; those due meanwhile waited for it from then on.

    It stops for as long as 100 frames take, so that on any machine half of those that are answered waited for a third of it.
    """

    async def stall(connection):
        first = await connection.recv()
        await asyncio.sleep(STALL_SECONDS)
        await connection.send(good(first[:SHORT]))
        async for frame in connection:
            await connection.send(good(frame[:SHORT]))

    job = Job(port=0, frames=[LONG_FRAME], expect='"status":200', shape=Shape(rate=100 / STALL_SECONDS), count=100)
    with narrow_listener() as listener:
        async with serve(stall, sock=listener, max_queue=1):
            (result,) = await results(program, structs.replace(job, port=listener.getsockname()[1]))
    assert result.wrong == 0
    assert result.p50 > STALL_SECONDS / 4


async def test_large_reply_in_pieces_is_one_reply(program):
    """Of 100,000 bytes and more, with a ping between its fragments."""

    async def answer(socket):
        async for frame in socket:
            await socket.send(pieces(socket, good(frame)))

    async def pieces(socket: ServerConnection, text: str) -> AsyncIterator[str]:
        yield text
        await socket.ping()
        await socket.pong()
        for _ in range(10):
            yield "x" * 10_000

    async with server(answer) as port:
        (result,) = await results(program, Job(port=port, frames=[FRAME], expect='"status":200', count=5))
    assert (result.commands, result.wrong) == (5, 0)
    assert result.bytes_received == 5 * (100_000 + len(good(FRAME)))


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (lambda frame: frame, '{"command":"X","extID":"00000000"'),
        (lambda frame: frame.replace('"key"', '"status":200,"key"'), '{"command":"X","extID":"00000000"'),
        (lambda frame: good(frame).encode(), "a message that is not text"),
    ],
    ids=["not what was expected", "expected deeper inside", "binary"],
)
async def test_wrong_reply_is_counted_and_shown(program, reply, told):
    """Its first words stand in the result."""

    async def answer(socket):
        async for frame in socket:
            await socket.send(reply(frame))

    async with server(answer) as port:
        (result,) = await results(program, Job(port=port, frames=[FRAME], expect='"status":200', seconds=0.1))
    assert result.wrong >= 1
    assert result.first_wrong.startswith(told)


@pytest.mark.parametrize(
    ("number", "told", "answered"),
    [
        (lambda own: f"{own + 9:08}", "00000009", 0),
        (lambda own: f"{0:08}", "00000000", 1),
        (lambda own: f"{own + UNDER_WAY_MAX:08}", "01048576", 0),
        (lambda own: f"{own:08}0", "000000000", 0),
        (lambda own: f"{own:07}x", "0000000x", 0),
    ],
    ids=["of another command", "of one answered before", "of one with the same place", "a digit more", "a letter among them"],
)
async def test_reply_with_another_number_answers_nothing(program, number, told, answered):
    """It is wrong, and the command is missing."""

    async def answer(socket):
        async for frame in socket:
            await socket.send(re.sub(r"\d{8}", lambda found: number(int(found[0])), good(frame), count=1))

    async with server(answer) as port:
        (result,) = await results(program, Job(port=port, frames=[FRAME], expect='"status":200', seconds=0.1))
    assert result.commands_in_all == answered
    assert result.wrong >= 2
    assert result.first_wrong.startswith(f'{{"command":"X","extID":"{told}"')


async def test_ping_is_answered_with_its_payload(program):
    """As it came, the largest there may be too; between the fragments of a reply as well."""

    async def answer(socket):
        async for frame in socket:
            await socket.send(pieces(socket, good(frame)))

    async def pieces(socket: ServerConnection, text: str) -> AsyncIterator[str]:
        yield text[:20]
        for payload in (b"", b"x", bytes(range(125))):
            await (await socket.ping(payload))
        yield text[20:]

    async with server(answer) as port:
        (result,) = await results(program, Job(port=port, frames=[FRAME], expect='"status":200', seconds=0.1))
    assert result.commands_in_all > 0
    assert result.wrong == 0


async def test_reply_on_another_socket_is_wrong(program):
    """Each of two sockets gets what answers the other's command."""
    waiting: list[tuple[ServerConnection, str]] = []

    async def answer(socket):
        async for frame in socket:
            waiting.append((socket, frame))
            if len(waiting) == 2:
                (one, its), (other, others) = waiting
                waiting.clear()
                await one.send(good(others))
                await other.send(good(its))

    async with server(answer) as port:
        job = Job(port=port, frames=[FRAME], expect='"status":200', shape=Shape(sockets=2), seconds=0.1)
        (result,) = await results(program, job)
    assert (result.commands, result.first_wrong[:26]) == (0, '{"command":"X","extID":"00')
    assert result.wrong >= 2


async def test_socket_that_is_closed_ends_the_job(program):
    """The command under way is missing."""

    async def answer(socket):
        await socket.recv()

    async with server(answer) as port:
        (result,) = await results(program, Job(port=port, frames=[FRAME], expect='"status":200', seconds=30))
    assert (result.commands, result.first_wrong) == (0, "a socket was closed")
    assert result.wrong >= 2
    assert result.seconds < 30


async def test_line_that_comes_too_late_to_end_a_job_is_no_job(program):
    """An endless job whose socket was closed has ended when it is told to; the process takes the next one."""

    async def answer(socket):
        await socket.send(good(await socket.recv()))

    async with server(answer) as port:
        job = Job(port=port, frames=[FRAME], expect='"status":200')
        process = await asyncio.create_subprocess_exec(program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(job.told())
        await process.stdout.readline()
        ended = msgspec.json.decode(await process.stdout.readline(), type=Result)
        output, _ = await process.communicate(b"\n" + structs.replace(job, count=1).told())
    assert (process.returncode, ended.first_wrong) == (0, "a socket was closed")
    assert msgspec.json.decode(output.splitlines()[1], type=Result).commands == 1


async def test_server_that_refuses_is_told(program):
    """No socket, no result."""
    async with server(lambda socket: socket.wait_closed()) as port:
        pass
    process = await asyncio.create_subprocess_exec(program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate(Job(port=port, frames=[FRAME], expect="{", count=1).told())
    assert msgspec.json.decode(output, type=Opened) == Opened("Connection refused")
