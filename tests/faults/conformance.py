"""Autobahn's cases, by kosoku, against an echo that is served, read and written as the gateway does it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from kosoku import FailureError, run_fuzzingclient
from websockets.asyncio.server import ServerConnection, serve

from gateway.backlog import Backlog
from gateway.connection import Connection
from gateway.dispatch import Dispatch, Refusal
from gateway.identity import Identity
from gateway.server import socket_arguments
from gateway.settings import Settings
from gateway.sweeper import sweep_forever
from gateway.watched_socket import Message, WatchedSocket
from gateway.workers import Workers
from tests.faults.check import Finding
from tests.faults.stage import Stage

PERFORMANCE = ["9.*", "12.*", "13.*"]
"""Messages of up to 16 MiB, which the gateway does not take, and compression, which is off."""
DOCUMENTED = {"7.1.5"}
"""The library ends a message in fragments with a close frame inside it, and does not echo what came before."""


class _Echo:
    """Answers every text with itself, in the place of Dispatch."""

    def read(self, message: str, _identity: object) -> Refusal:
        return Refusal(message.encode(), unreadable=False)


class _EchoConnection(Connection):
    """A connection that sends binary messages back too, which the gateway refuses."""

    def _take(self, message: Message) -> None:
        if isinstance(message, bytes):
            self.socket.protocol.send_binary(message)
            self.socket.send_data()
        else:
            super()._take(message)


async def autobahn(stage: Stage) -> Finding:
    """Runs all cases but those of performance."""
    async with _echo() as url:
        try:
            results = await run_fuzzingclient(url, exclude_cases=PERFORMANCE, concurrency=2)
        except FailureError as error:
            results = error.results
    failed = {result.case_id for result in results if not result.passed}
    facts = f"{len(results) - len(failed)} of {len(results)} cases passed"
    return Finding(len(results) > 0 and failed <= DOCUMENTED, f"{facts}; not {', '.join(sorted(failed))}" if failed else facts)


@asynccontextmanager
async def _echo() -> AsyncIterator[str]:
    """An echo on connections of the gateway's own, with its sweeper: its address."""
    settings = Settings()
    backlog = Backlog(settings)
    connections: set[Connection] = set()
    async with asyncio.TaskGroup() as tasks:
        workers = Workers(tasks)

        async def handle(socket: ServerConnection) -> None:
            assert isinstance(socket, WatchedSocket)
            connection = _EchoConnection(socket, cast("Dispatch", _Echo()), settings, backlog, workers, Identity())
            connections.add(connection)
            try:
                await connection.run()
            finally:
                connections.discard(connection)

        sweeper = tasks.create_task(sweep_forever(connections, settings))
        async with serve(handle, "127.0.0.1", 0, **socket_arguments(settings)) as server:
            yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        sweeper.cancel()
        workers.cancel()
