"""The composition root: builds all that a gateway is made of, and owns the order of start and stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from gateway import grants, schema, sessions
from gateway.calendar_store import event_ids, idempotency, statements
from gateway.calendar_store.event_reader import EventReader
from gateway.calendar_store.idempotency import Idempotency
from gateway.calendar_store.store import CalendarStore
from gateway.capture import capturing
from gateway.command_rate import CommandRate
from gateway.commands.table import COMMANDS
from gateway.context import Services
from gateway.database_pool import connect_arguments, open_database
from gateway.errors import StartupError
from gateway.fair_share import FairShare
from gateway.key_files import KeyFiles
from gateway.log import Logger
from gateway.metrics import Metrics
from gateway.metrics_page import exposed
from gateway.passwords import Passwords
from gateway.readiness import Readiness
from gateway.server import Gateway, cancel_all
from gateway.sessions import Sessions
from gateway.settings import Settings
from gateway.sign_in_throttle import SignInThrottle
from gateway.tokens import Tokens

STATEMENTS = (*sessions.STATEMENTS, *event_ids.STATEMENTS, *statements.STATEMENTS, *idempotency.STATEMENTS)


@asynccontextmanager
async def owned(loops: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Runs the loops as long as the block; one that fails ends the block."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            cancel_all(running)


@contextmanager
def unwrapped_startup_error() -> Iterator[None]:
    """Takes a StartupError out of the groups that the task groups it passed have wrapped it in."""
    try:
        yield
    except ExceptionGroup as group:
        found: Exception = group
        while isinstance(found, ExceptionGroup) and len(found.exceptions) == 1:
            found = found.exceptions[0]
        if isinstance(found, StartupError):
            raise found from None
        raise


@asynccontextmanager
async def running_gateway(settings: Settings, dsn: str, logger: Logger) -> AsyncIterator[Gateway]:
    """A gateway that serves.

    Raises StartupError when a file of keys is wrong, the database away, of another version or closed to this user, or the
    port taken.
    """
    key_files = KeyFiles(settings)
    key_files.warn(logger)
    db_connection = await schema.connect(connect_arguments(settings, dsn))
    try:
        await grants.require(db_connection)
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
            fair_share = FairShare(settings)
            services = Services(
                settings,
                tokens,
                session_store,
                passwords,
                SignInThrottle(settings),
                CommandRate(settings),
                fair_share,
                calendar,
                EventReader(db, session_store, fair_share, settings),
                keys,
                metrics,
            )
            requests = {name: command.request for name, command in COMMANDS.items()}
            with capturing(settings, tokens, requests, logger, metrics) as capture:
                gateway = Gateway(settings, services, Readiness(db), logger, key_files, capture)
                loops = (*calendar.loops(), keys.prune_forever(), metrics.watch_loop())
                with unwrapped_startup_error():
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
            cancel_all(steps)
