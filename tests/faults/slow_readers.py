"""Clients that ask for much and never read, beside others who work."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import TEXT, Frame

from tests.bench.load_job import NUMBER, Job, Result, Shape
from tests.bench.processes import forget_peak, resident_bytes
from tests.bench.statements import frame_of_event
from tests.faults.check import Finding
from tests.faults.keys import opened
from tests.faults.load import frame_of
from tests.faults.prober import Prober, prober
from tests.faults.stage import MANAGERS, Stage, sessions
from tests.process import GatewayProcess
from tests.scrape import SHOWN, Scrape, scrape

Data = dict[str, object]

ROUNDS = 3
READERS = 200
ROWS = 500
"""Of some 1 KB, in the largest page that is not sent in pieces."""
BODY_BYTES = 250_000
"""Of one more event, nearly the largest there may be."""
PAGE: Data = {"from": 1, "to": 10**10, "limit": ROWS, "offset": 0, "deskFilter": "*"}
WAYS: list[list[tuple[str, Data]]] = [
    [("MngGetCalendarEventsByFilter", PAGE)],
    [("MngGetCalendarEvent", {"id": ROWS + 1})] * 4,
]
"""What each asks for, by turns, before it sends pings: more than the kernel takes over."""
PINGS = 64
RECEIVE_BYTES = 4096
ASKING_SECONDS = 4.0
"""Over which they begin, one after the other."""
LIMIT_SECONDS = 10.0
CUT_SECONDS = 2.0
"""After the limit: a sweep, and the short try at a closing handshake."""
OTHERS = Shape(sockets=10, rate=200)
CONTROL_SECONDS = 5.0
MEMORY_BYTES = 64 * 1024 * 1024
P99_RATIO = 2.0


async def slow_readers(stage: Stage) -> Finding:
    """All of the gateway's limits are as an operator gets them."""
    async with stage.database() as dsn, prober() as load:
        deaf, token = await sessions(dsn, MANAGERS[:2])
        async with stage.gateway(dsn, outbox_stall_seconds=LIMIT_SECONDS, **SHOWN) as gateway:
            await _fill(gateway, token)
            await _work(load, gateway, token, CONTROL_SECONDS)
            before = resident_bytes(gateway.pid)
            forget_peak(gateway.pid)
            rounds = [await _round(load, gateway, token, deaf) for _ in range(ROUNDS)]
            grown = resident_bytes(gateway.pid, peak=True) - before
            counted = _closes(await scrape(gateway))
    cut, others = counted.pop("4000", 0), sum(counted.values())
    best = min(rounds, key=lambda one: one[1].p99 / one[0].p99)
    ratio = best[1].p99 / best[0].p99
    return Finding(
        cut == ROUNDS * READERS and not others and grown <= MEMORY_BYTES and ratio <= P99_RATIO,
        f"{cut} of {ROUNDS * READERS} counted as 4000, {others} otherwise; resident memory {grown / 2**20:+.1f} MiB at most; "
        f"the others' p99 {best[1].p99 * 1000:.1f} ms against {best[0].p99 * 1000:.1f}, {ratio:.2f}x (all of {ROUNDS}: "
        f"{', '.join(f'{with_.p99 / without.p99:.2f}x' for without, with_ in rounds)}), at {OTHERS.rate:.0f} commands a second",
    )


async def _round(load: Prober, gateway: GatewayProcess, token: str, deaf: str) -> tuple[Result, Result]:
    """How the others fared without and with those who do not read."""
    control = await _work(load, gateway, token, CONTROL_SECONDS)
    async with _readers(gateway, deaf) as sockets, asyncio.TaskGroup() as tasks:
        working = tasks.create_task(_work(load, gateway, token, ASKING_SECONDS + LIMIT_SECONDS + CUT_SECONDS))
        for number, socket_ in enumerate(sockets):
            _ask(socket_, WAYS[number % len(WAYS)])
            await asyncio.sleep(ASKING_SECONDS / READERS)
    return control, working.result()


async def _work(load: Prober, gateway: GatewayProcess, token: str, seconds: float) -> Result:
    """Reads and writes at a rate that is kept whatever is answered."""
    frames = [frame_of_event(1), frame_of(NUMBER)]
    job = Job(port=gateway.port, frames=frames, expect='"status":200', token=token, shape=OTHERS, seconds=seconds)
    return await load.run(job)


def _ask(socket_: ClientConnection, wanted: list[tuple[str, Data]]) -> None:
    frames = [msgspec.json.encode({"command": command, "extID": 1, "data": data}) for command, data in wanted]
    for text in [*frames, *[b"ping"] * PINGS]:
        socket_.transport.write(Frame(TEXT, text).serialize(mask=True))


async def _fill(gateway: GatewayProcess, token: str) -> None:
    """Stores the events that are asked for."""
    async with opened(gateway.url, token, 1) as (client,):
        for number in range(ROWS):
            await client.add(title=f"row {number}", ast_json={"text": "x" * 500}, participant_manager_ids=MANAGERS)
        assert (await client.add(ast_json={"text": "x" * BODY_BYTES}))["id"] == ROWS + 1


@asynccontextmanager
async def _readers(gateway: GatewayProcess, token: str) -> AsyncIterator[list[ClientConnection]]:
    """Sockets whose clients have stopped to read, and in whose kernel little fits."""
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(_deaf(gateway, token)) for _ in range(READERS)]
        yield sockets


@asynccontextmanager
async def _deaf(gateway: GatewayProcess, token: str) -> AsyncIterator[ClientConnection]:
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", gateway.port))
    proof = {"Authorization": f"Bearer {token}"}
    async with connect(
        gateway.url, sock=raw, proxy=None, compression=None, ping_interval=None, additional_headers=proof
    ) as socket_:
        socket_.transport.pause_reading()
        try:
            yield socket_
        finally:
            socket_.transport.abort()


def _closes(page: Scrape) -> dict[str, int]:
    """The sockets that the gateway closed, by code."""
    closed = page.values("gateway_closes_total", "code", "by")
    return {code: int(count) for (code, by), count in closed.items() if by == "gateway"}
