"""The harness as its users run it, and a stand-in for a gateway that answers as a test wants."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
from websockets.asyncio.server import ServerConnection, serve

from tests.client import WAIT_SECONDS
from tests.conftest import SECRET
from tests.run_log import heard

TOKEN = "e30.eyJzdWIiOiIxMCJ9.none"
"""Says that it is manager 10's; the stand-in does not look."""
Answer = Callable[[ServerConnection, int, bytes], Any]


class Ended(NamedTuple):
    """How a run ended; `figures` is what `--json` wrote."""

    code: int
    out: str
    err: str
    figures: dict[str, Any]


async def gateway(
    *arguments: object, folder: Any, dsn: str = "", interrupt: asyncio.Event | None = None, **settings: str
) -> Ended:
    """Runs `gateway load` or `gateway replay` to its end, with these settings alone; Ctrl-C when `interrupt` is set."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    if dsn:
        environment |= {"GATEWAY_DATABASE_URL": dsn, "GATEWAY_TOKEN_SECRET": SECRET}
    environment |= {f"GATEWAY_{name.upper()}": value for name, value in settings.items()}
    figures = folder / f"figures-{os.urandom(4).hex()}.json"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *map(str, arguments), "--json", figures), stdout=pipe, stderr=pipe, env=environment
    )
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            if interrupt is not None:
                await interrupt.wait()
                process.send_signal(signal.SIGINT)
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    heard(err.decode())
    found = msgspec.json.decode(figures.read_bytes()) if figures.exists() else {}
    return Ended(process.returncode, out.decode(), err.decode(), found)


@asynccontextmanager
async def stand_in(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The address of a server that hands each message's number and extID (as bytes) to `answer`."""
    counted = 0

    async def handle(socket: ServerConnection) -> None:
        nonlocal counted
        async for message in socket:
            counted += 1
            ext_id = str(msgspec.json.decode(message)["extID"]).encode()
            await answer(socket, counted, ext_id)

    async with serve(handle, "127.0.0.1", 0, compression=None, ssl=tls) as server:
        yield f"{'wss' if tls else 'ws'}://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def good(socket: ServerConnection, _number: int, ext_id: bytes) -> None:
    """The answer to a HealthCheck."""
    await socket.send(b'{"extID":%b,"status":200,"data":{}}' % ext_id, text=True)
