"""Sockets that keep a gateway waiting on purpose, beside well-behaved ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import CONT, PING, TEXT, Frame

from tests.client import Client
from tests.faults.check import Finding
from tests.faults.keys import opened
from tests.faults.stage import Stage, sessions
from tests.process import GatewayProcess

LIMIT_SECONDS = 1.0
"""Each of the limits under test."""
LATE_SECONDS = 4.0
"""How late a limit may act: a sweep, and the short try at a closing handshake of a client that may not answer."""
LIMITS = {
    "handshake_seconds": LIMIT_SECONDS,
    "message_seconds": LIMIT_SECONDS,
    "authentication_seconds": 2 * LIMIT_SECONDS,
    "ping_seconds": LIMIT_SECONDS,
    "pong_timeout_seconds": LIMIT_SECONDS,
    "outbox_stall_seconds": LIMIT_SECONDS / 2,
}
GOOD = 5
_PAUSE_SECONDS = 0.05

Ended = tuple[str, int]
"""What the socket did, and the close code it got; 0 is a connection that ended without one."""


async def _slow_handshake(gateway: GatewayProcess, _token: str) -> int:
    """A byte of the upgrade request now and then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: slow\r\nX-Slow: ")
    ended = asyncio.create_task(reader.read())
    try:
        with suppress(ConnectionError):
            while not ended.done():
                writer.write(b"x")
                await asyncio.sleep(_PAUSE_SECONDS)
        writer.close()
        with suppress(ConnectionError):
            await ended
    finally:
        ended.cancel()
        await asyncio.wait({ended})
    return 0


async def _half_message(gateway: GatewayProcess, token: str) -> int:
    """A message that stops in the middle, and pongs all the while."""
    async with _raw(gateway, token) as socket:
        socket.transport.write(Frame(TEXT, b"x" * 100).serialize(mask=True)[:20])
        return await _code(socket)


async def _endless_fragments(gateway: GatewayProcess, token: str) -> int:
    """A message of ever more pieces, with pings between them."""
    async with _raw(gateway, token) as socket:
        socket.transport.write(Frame(TEXT, b"x", fin=False).serialize(mask=True))
        more = Frame(CONT, b"x", fin=False).serialize(mask=True) + Frame(PING, b"").serialize(mask=True)
        async with asyncio.TaskGroup() as tasks:
            ended = tasks.create_task(_code(socket))
            while not ended.done() and not socket.transport.is_closing():
                socket.transport.write(more)
                await asyncio.sleep(_PAUSE_SECONDS)
        return ended.result()


async def _mute(gateway: GatewayProcess, token: str) -> int:
    """A client that answers no ping, and reads what it is told only at the end."""
    async with _raw(gateway, token) as socket:
        socket.transport.pause_reading()
        await asyncio.sleep(2 * LIMIT_SECONDS + 1.5)
        socket.transport.resume_reading()
        return await _code(socket)


async def _nobody(gateway: GatewayProcess, _token: str) -> int:
    """A client that never says who it is."""
    async with connect(gateway.url, proxy=None, compression=None) as socket:
        return await _code(socket)


KINDS: dict[str, tuple[Callable[[GatewayProcess, str], Awaitable[int]], set[int]]] = {
    "slow handshakes": (_slow_handshake, {0}),
    "half messages": (_half_message, {4000}),
    "endless fragments": (_endless_fragments, {4000, 1006}),
    "mute sockets": (_mute, {1011}),
    "sockets of nobody": (_nobody, {4500}),
}
"""What each does, and the codes that its limit closes with; 1006 is what a client sees that does not read its closing."""


async def waiting_games(stage: Stage) -> Finding:
    """All kinds at once, while good clients go on."""
    each = stage.count(40, 3)
    async with stage.database() as dsn:
        (token,) = await sessions(dsn)
        async with stage.gateway(dsn, **LIMITS) as gateway, opened(gateway.url, token, GOOD) as clients:
            over = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                working = [tasks.create_task(_work(client, over)) for client in clients]
                games = [_timed(name, gateway, token) for name in KINDS for _ in range(each)]
                ended = await asyncio.gather(*games)
                over.set()
            answered = sum(task.result() for task in working)
    wrong = [f"{name} {code}" for name, code, _ in ended if code not in KINDS[name][1]]
    slowest = max(seconds for _, _, seconds in ended)
    return Finding(
        not wrong and slowest <= 2 * LIMIT_SECONDS + LATE_SECONDS,
        f"{len(ended)} sockets in {len(KINDS)} ways closed by their limits, the last after {slowest:.1f} s; otherwise: "
        f"{sorted(set(wrong)) or 'none'}; {GOOD} good clients kept their sockets and got {answered:,} answers meanwhile",
    )


async def _timed(name: str, gateway: GatewayProcess, token: str) -> tuple[str, int, float]:
    began = time.monotonic()
    code = await KINDS[name][0](gateway, token)
    return name, code, time.monotonic() - began


async def _work(client: Client, over: asyncio.Event) -> int:
    """Adds one event after the other; raises when the socket ends."""
    answered = 0
    while not over.is_set():
        await client.add(title="good")
        answered += 1
        await asyncio.sleep(_PAUSE_SECONDS)
    return answered


def _raw(gateway: GatewayProcess, token: str) -> connect:
    proof = {"Authorization": f"Bearer {token}"}
    return connect(gateway.url, proxy=None, compression=None, ping_interval=None, close_timeout=1, additional_headers=proof)


async def _code(socket: ClientConnection) -> int:
    try:
        while True:
            await socket.recv()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd is not None else 1006
