"""The composition root: builds everything, owns the order of start and stop, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve

from gateway import schema, sessions, wire
from gateway.addresses import Addresses
from gateway.backlog import Backlog
from gateway.calendar_store import event_ids, idempotency, statements
from gateway.calendar_store.event_filter import EventReader
from gateway.calendar_store.idempotency import Idempotency
from gateway.calendar_store.store import CalendarStore
from gateway.capture import Capture, capturing
from gateway.command_rate import CommandRate
from gateway.connection import CLOSE_SECONDS, Connection, close
from gateway.context import Services
from gateway.database import Database, Statement, connect_arguments, open_database
from gateway.dispatch import Dispatch
from gateway.errors import CloseCode, CommandError, StartupError
from gateway.fair_share import FairShare
from gateway.handshake import Pages, hops_of, select_subprotocol
from gateway.identity import Identity
from gateway.issuer_keys import IssuerKeys
from gateway.log import CommandLog, Logger
from gateway.metrics import Metrics
from gateway.metrics_page import exposed
from gateway.passwords import Passwords
from gateway.seats import Seats
from gateway.session_watch import SessionWatch
from gateway.sessions import Sessions
from gateway.settings import Settings
from gateway.sign_in_throttle import SignInThrottle
from gateway.sweeper import sweep_forever
from gateway.tls import ServerTls
from gateway.tokens import Tokens
from gateway.watched_socket import WatchedSocket
from gateway.workers import Workers

STATEMENTS = (*sessions.STATEMENTS, *event_ids.STATEMENTS, *statements.STATEMENTS, *idempotency.STATEMENTS)
CLOSING_SHARE = 0.2
"""Of the drain time, what is kept for closing the sockets, spread out so that clients do not come back at once."""
CLOSED_AT_ONCE = 100
"""Sockets closed in one go; some 10 ms of work."""
READY_CACHE_SECONDS = 0.5
"""How old the answer of `/readyz` may be: whoever asks often costs the database nothing."""
_VERSION = Statement("SELECT max(version) AS version FROM schema_version", writes=False)


class KeyFiles:
    """What is read from files that an operator may renew while the gateway runs. Raises StartupError when one is wrong."""

    def __init__(self, settings: Settings) -> None:
        self.issuer_keys = IssuerKeys(settings)
        self.tls = ServerTls(settings) if settings.tls_cert else None

    def reload(self, logger: Logger) -> None:
        """Reads each anew; where one is wrong, says so and leaves in force what was read before."""
        for what, file in (("issuer keys", self.issuer_keys), ("certificate", self.tls)):
            if file is not None:
                try:
                    file.reload()
                except StartupError as error:
                    logger.error("reload failed", what=what, line=str(error))  # noqa: TRY400 - the message says it all
                else:
                    logger.info("reloaded", what=what)


class Gateway:
    """A running gateway. `port` is the one in use."""

    def __init__(
        self,
        settings: Settings,
        services: Services,
        db: Database,
        logger: Logger,
        key_files: KeyFiles,
        capture: Capture | None = None,
    ) -> None:
        self._settings = settings
        self._key_files = key_files
        self._logger = logger
        self._metrics = services.metrics
        self._db = db
        self._capture = capture
        self._dispatch = Dispatch(services, CommandLog(logger, settings))
        self._pages = Pages(self._ready)
        self._addresses = Addresses(settings.trusted_proxies)
        self._seats = Seats(settings)
        self._backlog = Backlog(settings)
        self._connections: set[Connection] = set()
        self._session_watch = SessionWatch(self._connections, services.sessions, logger)
        self._empty = asyncio.Event()
        self._empty.set()
        self._readiness: tuple[float, str | None] = (-READY_CACHE_SECONDS, None)
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
                _cancel(clocks)
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
                _cancel(clocks)

    def reload(self) -> None:
        """Reads the files of keys anew, and ends sockets whose session was proved by a key that is gone."""
        self._key_files.reload(self._logger)
        for connection in tuple(self._connections):
            session = connection.identity.session
            if session is not None and session.key is not None and not self._key_files.issuer_keys.holds(session.key):
                connection.end(CloseCode.SESSION_ENDED, "the session is over: sign in again")

    async def drain(self) -> None:
        """Stops as section 6.5 of the contract says, within the drain time.

        Readiness goes red and new sockets are refused; every client is told; commands in flight are answered, later
        ones refused; then sockets close with 1012, one after the other.
        """
        self._logger.info("draining", connections=len(self._connections))
        self._pages.draining = self._dispatch.draining = True
        closing_seconds = self._settings.drain_seconds * CLOSING_SHARE
        deadline = asyncio.get_running_loop().time() + self._settings.drain_seconds - closing_seconds
        for connection in tuple(self._connections):
            connection.tell(wire.drain_notice(wire.spread_ms(1000, 1000 + int(self._settings.drain_seconds * 1000))))
        try:
            async with asyncio.timeout_at(deadline):
                for connection in tuple(self._connections):
                    await connection.settled()
        except TimeoutError:
            self._logger.warning("drain time is over with commands in flight")
        await self._close_spread(closing_seconds)

    async def _close_spread(self, closing_seconds: float) -> None:
        """Closes the sockets one after the other over half the time; the other half is for the closing handshakes."""
        connections = tuple(self._connections)
        with suppress(TimeoutError):
            async with asyncio.timeout(closing_seconds):
                for number, connection in enumerate(connections, start=1):
                    connection.end(CloseCode.SERVICE_RESTART, "the gateway restarts: come back")
                    if number % CLOSED_AT_ONCE == 0:
                        await asyncio.sleep(closing_seconds / 2 * CLOSED_AT_ONCE / len(connections))
                await self._empty.wait()

    async def _serve(self, socket: ServerConnection) -> None:
        assert isinstance(socket, WatchedSocket)
        try:
            await self._serve_within_limits(socket)
        finally:
            self._metrics.closes.labels(*socket.ending()).inc()

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
            identity.forget_changed()
            self._connections.discard(connection)
            if not self._connections:
                self._empty.set()

    def _describe_load(self) -> None:
        """Commands in flight and tasks are added up at a scrape: counting them would cost each command."""
        self._metrics.connections.set_function(lambda: len(self._connections))
        self._metrics.connections_max.set(self._settings.connections_max)
        self._metrics.in_flight.set_function(lambda: sum(connection.unanswered for connection in self._connections))
        self._metrics.tasks.set_function(lambda: len(asyncio.all_tasks()))

    async def _ready(self) -> str | None:
        """What keeps the gateway from serving commands, or None."""
        asked_at, wrong = self._readiness
        if time.monotonic() - asked_at >= READY_CACHE_SECONDS:
            wrong = await self._find_wrong()
            self._readiness = (time.monotonic(), wrong)
        return wrong

    async def _find_wrong(self) -> str | None:
        try:
            row = await self._db.fetch_row(_VERSION)
        except CommandError as error:
            return error.message
        if row is None or row["version"] != schema.current_version():
            return "the database schema has another version"
        if self._db.refuses_writes():
            return "the database takes no writes"
        return None

    def _arguments(self) -> dict[str, Any]:
        # The handshake's time is the library's open_timeout; its shutdown would wait 30 s for a client that is gone.
        tls = {"ssl": self._key_files.tls.context, "ssl_shutdown_timeout": CLOSE_SECONDS} if self._key_files.tls else {}
        return socket_arguments(self._settings) | tls | {"process_request": self._pages}


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


def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()


@asynccontextmanager
async def owned(loops: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Runs the loops as long as the block; one that fails ends the block."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            _cancel(running)


@asynccontextmanager
async def running_gateway(settings: Settings, dsn: str, logger: Logger) -> AsyncIterator[Gateway]:
    """A gateway that serves. Raises StartupError when a file of keys is wrong, or the database away or of another version."""
    key_files = KeyFiles(settings)
    db_connection = await schema.connect(connect_arguments(settings, dsn))
    try:
        await schema.check(db_connection)
    finally:
        await db_connection.close()
    passwords, metrics = Passwords(settings), Metrics()
    try:
        async with open_database(settings, dsn, metrics, STATEMENTS) as db, exposed(metrics, settings, logger):
            session_store = Sessions(db, settings.session_seconds, key_files.issuer_keys)
            tokens = Tokens(settings, key_files.issuer_keys)
            keys = Idempotency(db, settings)
            calendar = CalendarStore(db, session_store, keys, settings, metrics)
            services = Services(
                settings,
                tokens,
                session_store,
                passwords,
                SignInThrottle(settings),
                CommandRate(settings),
                FairShare(settings),
                calendar,
                EventReader(db, session_store),
                keys,
                metrics,
            )
            with capturing(settings, tokens, logger, metrics) as capture:
                gateway = Gateway(settings, services, db, logger, key_files, capture)
                loops = (*calendar.loops(), keys.prune_forever(), metrics.watch_loop())
                async with owned(loops), gateway.serving():
                    yield gateway
    finally:
        passwords.close()


async def serve_until(
    settings: Settings,
    dsn: str,
    logger: Logger,
    stop: asyncio.Event,
    stop_now: asyncio.Event,
    ready: Callable[[Gateway], None],
) -> None:
    """Serves until `stop`, then drains; `stop_now` ends it at once. `ready` is called once it serves."""
    async with running_gateway(settings, dsn, logger) as gateway:
        ready(gateway)
        await stop.wait()
        async with asyncio.TaskGroup() as tasks:
            steps = tasks.create_task(gateway.drain()), tasks.create_task(stop_now.wait())
            await asyncio.wait(steps, return_when=asyncio.FIRST_COMPLETED)
            _cancel(steps)
