"""The faults of a soak. Each returns once it is over, and raises when it missed or something did not come back."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_args

import msgspec

from tests.client import WAIT_SECONDS, Client
from tests.faults.keys import opened
from tests.faults.malformed import frames
from tests.faults.stage import Stage
from tests.faults.vitals import Vitals
from tests.issuers import by_rsa, foreign_claims, publish, rsa_jwk
from tests.process import GatewayProcess, becomes_true, until
from tests.proxy import Blow, Proxy

AWAY_SECONDS = 4.0
"""How long PostgreSQL stands still, or the link is a black hole: past the limit of every command."""
BURST = 150
SLOW = 4
LARGE_BYTES, READS = 100_000, 200
"""What a slow reader asks for: more than all buffers between the gateway and itself hold."""
ROWS = 600
"""More than the gateway answers in one piece."""
STALL_SECONDS = 2.0
MALFORMED, MALFORMED_SOCKETS = 400, 10
MARK = ' r1"'
"""In the title of every event that is added, and in no other statement."""
SETTINGS: dict[str, object] = {"outbox_stall_seconds": STALL_SECONDS, "unreadable_frames_max": 10_000}
_TOO_SLOW = {"name": "gateway_closes_total", "code": "4000", "by": "gateway"}
_LONG_AGO = 1_500_000_000
_ALL = {"from": _LONG_AGO, "to": _LONG_AGO + 1, "limit": 2 * ROWS, "offset": 0, "deskFilter": "*"}


class Scene(NamedTuple):
    """Where the blows fall. `token` is of a manager in another brand than the load's: nobody gets in the other's way."""

    stage: Stage
    gateway: GatewayProcess
    proxy: Proxy
    vitals: Vitals
    token: str
    key_file: Path
    large: int
    numbers: itertools.count[int]


async def prepared(url: str, token: str) -> int:
    """Adds what the blows read, the same all the time: as many rows as make a reply in pieces, and a large event: its id."""
    async with opened(url, token, 1) as (client,):
        for _ in range(ROWS):
            await client.add(start_time=_LONG_AGO, end_time=_LONG_AGO)
        return int((await client.add(ast_json="x" * LARGE_BYTES))["id"])


async def kill_postgres(scene: Scene) -> None:
    """SIGKILL to all of it."""
    scene.stage.signal_postgres(signal.SIGKILL)
    await asyncio.to_thread(scene.stage.restart)


async def stop_postgres(scene: Scene) -> None:
    """SIGSTOP to all of it, and some seconds later SIGCONT."""
    scene.stage.signal_postgres(signal.SIGSTOP)
    try:
        await asyncio.sleep(AWAY_SECONDS)
    finally:
        scene.stage.signal_postgres(signal.SIGCONT)


async def cut_link(scene: Scene) -> None:
    """In each of the ways around a committing statement, one after the other."""
    for where in get_args(Blow):
        scene.proxy.cut(where, MARK)
        await becomes_true(lambda: not scene.proxy.waiting)


async def black_hole(scene: Scene) -> None:
    """No byte passes for some seconds."""
    scene.proxy.hold()
    try:
        await asyncio.sleep(AWAY_SECONDS)
    finally:
        scene.proxy.release()


async def burst(scene: Scene) -> None:
    """Sockets that are dropped: at once, in the middle of the upgrade, in the middle of a command, and by the book."""
    proof = f"Authorization: Bearer {scene.token}"
    half = f"GET / HTTP/1.1\r\nHost: tests\r\nUpgrade: websocket\r\n{proof}\r\n".encode()

    async def raw(sent: bytes) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", scene.gateway.port)
        writer.write(sent)
        await writer.drain()
        writer.transport.abort()

    async def dropped(*, by_the_book: bool) -> None:
        async with opened(scene.gateway.url, scene.token, 1) as (client,):
            await client.socket.send(_frame(1, "MngGetCalendarEventsByFilter", _ALL))
            if not by_the_book:
                client.socket.transport.abort()

    ways = (partial(raw, b""), partial(raw, half), partial(dropped, by_the_book=False), partial(dropped, by_the_book=True))
    await asyncio.gather(*(way() for way, _ in zip(itertools.cycle(ways), range(BURST), strict=False)))


async def slow_readers(scene: Scene) -> None:
    """Clients that ask for much and read nothing, one of them for a reply in pieces, until the gateway cuts them."""
    before = (await scene.vitals.page()).value(**_TOO_SLOW)
    async with AsyncExitStack() as stack:
        for number in range(SLOW):
            client = (await stack.enter_async_context(opened(scene.gateway.url, scene.token, 1)))[0]
            stack.callback(client.socket.transport.abort)
            client.socket.transport.pause_reading()
            in_pieces, whole = ("MngGetCalendarEventsByFilter", _ALL), ("MngGetCalendarEvent", {"id": scene.large})
            for _ in range(READS):
                await client.socket.send(_frame(1, *(in_pieces if number == 0 else whole)))
        await until(scene.vitals.page, lambda page: page.value(**_TOO_SLOW) >= before + SLOW)


async def malformed_frames(scene: Scene) -> None:
    """Frames broken in every way, others each time; each gets one answer."""
    broken = list(frames(random.Random(next(scene.numbers)), MALFORMED))

    async def send(client: Client, some: list[str]) -> None:
        for frame in some:
            await client.socket.send(frame)
            await asyncio.wait_for(client.socket.recv(), WAIT_SECONDS)

    async with opened(scene.gateway.url, scene.token, MALFORMED_SOCKETS) as clients:
        await asyncio.gather(*(send(client, broken[n::MALFORMED_SOCKETS]) for n, client in enumerate(clients)))


async def hang_up(scene: Scene) -> None:
    """SIGHUP with another key in the file of issuers: over once a token signed by it is taken."""
    kid = f"key-{next(scene.numbers)}"
    publish(scene.key_file, rsa_jwk(kid))
    scene.gateway.signal(signal.SIGHUP)
    token = by_rsa(foreign_claims(), kid)
    async with Client.connected(scene.gateway.url) as client:
        await until(
            lambda: client.command("MngGetCalendarEvent", {"id": 1}, __token=token), lambda reply: reply["status"] != 401
        )


BLOWS: dict[str, Callable[[Scene], Awaitable[None]]] = {
    "slow readers": slow_readers,
    "burst of sockets": burst,
    "PostgreSQL killed": kill_postgres,
    "SIGHUP": hang_up,
    "PostgreSQL stopped": stop_postgres,
    "malformed frames": malformed_frames,
    "link cut": cut_link,
    "black hole": black_hole,
}
"""In the order in which they fall, over and over: first those that take the most memory, so that a short soak is warm too."""


def _frame(number: int, command: str, data: dict[str, object]) -> str:
    return msgspec.json.encode({"command": command, "extID": number, "data": data}).decode()
