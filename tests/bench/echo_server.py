"""A bare websockets echo with the gateway's arguments on the library's own connections: what the library alone costs.

Prints its port.
"""

from __future__ import annotations

import asyncio

import uvloop
from websockets.asyncio.server import ServerConnection, serve

from gateway.server import socket_arguments
from gateway.settings import Settings


async def _echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


async def _main() -> None:
    arguments = {**socket_arguments(Settings()), "create_connection": ServerConnection}
    async with serve(_echo, "127.0.0.1", 0, **arguments) as server:
        print(f"echo serves ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)  # noqa: T201
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main())
