"""The listening server: lets sockets in, serves each, tells them when to end, and aborts what is left when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve

from gateway.addresses import Addresses
from gateway.backlog import Backlog
from gateway.capture import Capture
from gateway.closes import ending_of
from gateway.connection import CLOSE_SECONDS, Connection, close
from gateway.context import Services
from gateway.dispatch import Dispatch
from gateway.drain import drain_connections
from gateway.errors import CloseCode, StartupError
from gateway.handshake import Pages, hops_of, select_subprotocol
from gateway.identity import Identity
from gateway.key_files import KeyFiles
from gateway.log import CommandLog, Logger
from gateway.readiness import Readiness
from gateway.seats import Seats
from gateway.session_watch import SessionWatch
from gateway.settings import Settings
from gateway.sweeper import sweep_forever
from gateway.tls_socket import TlsSocket
from gateway.watched_socket import WatchedSocket
from gateway.workers import Workers


class Gateway:
    """A running gateway. `port` is the one in use."""

    def __init__(
        self,
        settings: Settings,
        services: Services,
        readiness: Readiness,
        logger: Logger,
        key_files: KeyFiles,
        capture: Capture | None = None,
    ) -> None:
        self._settings = settings
        self._key_files = key_files
        self._logger = logger
        self._metrics = services.metrics
        self._capture = capture
        self._dispatch = Dispatch(services, CommandLog(logger, settings))
        self._pages = Pages(readiness.what_is_wrong, logger)
        self._addresses = Addresses(settings.trusted_proxies)
        self._seats = Seats(settings)
        self._backlog = Backlog(settings)
        self._connections: set[Connection] = set()
        self._session_watch = SessionWatch(self._connections, services.sessions, logger)
        self._empty = asyncio.Event()
        self._empty.set()
        self._describe_load()
        self._workers: Workers
        self._server: Server

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        return int(self._server.sockets[0].getsockname()[1])

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listens until left; sockets still open then are aborted. Raises StartupError when the port is taken."""
        async with asyncio.TaskGroup() as tasks:
            self._workers = Workers(tasks)
            clocks = [
                tasks.create_task(sweep_forever(self._connections, self._settings)),
                tasks.create_task(self._session_watch.watch_forever()),
            ]
            try:
                self._server = await serve(self._serve, self._settings.host, self._settings.port, **self._arguments())
            except OSError as error:
                cancel_all(clocks)
                raise StartupError(
                    f"Cannot listen on {self._settings.host}:{self._settings.port} ({error.strerror}): "
                    "set GATEWAY_HOST and GATEWAY_PORT to a free address."
                ) from None
            try:
                yield
            finally:
                for connection in tuple(self._connections):
                    connection.abort()
                for handler in tuple(self._server.handler_tasks):
                    handler.cancel()
                self._workers.cancel()
                self._server.close()
                await self._server.wait_closed()
                cancel_all(clocks)

    def reload(self) -> None:
        """Reads the files of keys anew, and ends sockets whose session was proved by a key that is gone."""
        self._key_files.reload(self._logger)
        for connection in tuple(self._connections):
            session = connection.identity.session
            if session is not None and session.key is not None and not self._key_files.issuer_keys.holds(session.key):
                connection.end(CloseCode.SESSION_ENDED, "the session is over: sign in again")

    async def drain(self) -> None:
        """Stops as section 6.5 of the contract says: readiness goes red, what is new is refused, and all sockets end."""
        self._pages.draining = self._dispatch.draining = True
        await drain_connections(self._connections, self._empty, self._settings, self._logger)

    async def _serve(self, socket: ServerConnection) -> None:
        assert isinstance(socket, WatchedSocket)
        try:
            await self._serve_within_limits(socket)
        finally:
            self._metrics.closes.labels(*ending_of(socket)).inc()

    async def _serve_within_limits(self, socket: WatchedSocket) -> None:
        identity = Identity(self._addresses.client(*hops_of(socket)))
        if len(self._connections) >= self._settings.connections_max or not self._seats.enter(identity.address):
            await close(socket, CloseCode.CONNECTION_LIMIT, "too many connections: come back later")
            return
        record = self._capture.of_connection() if self._capture else None
        connection = Connection(socket, self._dispatch, self._settings, self._backlog, self._workers, identity, record)
        identity.changed = partial(self._seats.change_manager, connection)
        self._connections.add(connection)
        self._empty.clear()
        try:
            await connection.run()
        finally:
            self._seats.leave(connection)
            identity.forget_connection()
            self._connections.discard(connection)
            if not self._connections:
                self._empty.set()

    def _describe_load(self) -> None:
        """Commands in flight and tasks are added up at a scrape: counting them would cost each command."""
        self._metrics.connections.set_function(lambda: len(self._connections))
        self._metrics.connections_max.set(self._settings.connections_max)
        self._metrics.in_flight.set_function(lambda: sum(connection.unanswered for connection in self._connections))
        self._metrics.tasks.set_function(lambda: len(asyncio.all_tasks()))

    def _arguments(self) -> dict[str, Any]:
        # The handshake's time is the library's open_timeout; its shutdown would wait 30 s for a client that is gone.
        tls: dict[str, Any] = {}
        if self._key_files.tls:
            tls = {"create_connection": TlsSocket, "ssl": self._key_files.tls.context, "ssl_shutdown_timeout": CLOSE_SECONDS}
        pages = {"process_request": self._pages, "process_response": self._pages.explain}
        return socket_arguments(self._settings) | tls | pages


def socket_arguments(settings: Settings) -> dict[str, Any]:
    """How websockets serves every socket. Compression is off: it costs 33 KiB a socket and more time than it saves."""
    return {
        "create_connection": WatchedSocket,
        "origins": [None, *settings.origins],
        "select_subprotocol": select_subprotocol,
        "compression": None,
        "server_header": None,
        "open_timeout": settings.handshake_seconds,
        "ping_interval": None,
        "ping_timeout": None,
        "close_timeout": None,
        "max_size": settings.frame_bytes_max,
    }


def cancel_all(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Asks each to end; whoever owns them waits for that."""
    for task in tasks:
        task.cancel()
