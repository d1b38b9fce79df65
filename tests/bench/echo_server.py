"""A bare websockets echo with the gateway's arguments, on the connections that it is told: what these alone cost.

The library's own are what the figures are held against. The gateway's take the place of the library's reading and writing of
messages, and are faster. Prints its port.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import uvloop
from websockets.asyncio.server import Server, ServerConnection, serve

from gateway.frames import text_frame
from gateway.server import socket_arguments
from gateway.settings import Settings
from gateway.watched_socket import Message, WatchedSocket


async def _echo_on_librarys(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


async def _echo_on_gateways(socket: ServerConnection) -> None:
    assert isinstance(socket, WatchedSocket)
    socket.read(partial(_give_back, socket), lambda: True)
    await socket.wait_closed()


def _give_back(socket: WatchedSocket, message: Message) -> None:
    assert isinstance(message, str)
    socket.protocol.writes.append(text_frame(message.encode()))
    socket.send_data()


SOCKETS: dict[str, tuple[type[ServerConnection], Any]] = {
    "library": (ServerConnection, _echo_on_librarys),
    "gateway": (WatchedSocket, _echo_on_gateways),
}


def echo(sockets: str) -> AbstractAsyncContextManager[Server]:
    """Listens, on the sockets of the library or of the gateway, for as long as the block."""
    create, handler = SOCKETS[sockets]
    return serve(handler, "127.0.0.1", 0, **{**socket_arguments(Settings()), "create_connection": create})


async def _main(sockets: str) -> None:
    async with echo(sockets) as server:
        print(f"echo serves ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)  # noqa: T201
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(sys.argv[1]))
