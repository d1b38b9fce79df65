"""How database connections are opened: with their limits, with what makes commits durable, and in pools of their own kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from gateway.database import Database, Row, Statement, prepared_on
from gateway.database_errors import UNREACHABLE, unreachable
from gateway.metrics import Metrics
from gateway.settings import Settings

WARM_CONNECTIONS = 4
"""Opened at the start: what adds and reads need at once. Each takes some 10 ms, which the first commands would wait for."""


@asynccontextmanager
async def open_database(
    settings: Settings, dsn: str, metrics: Metrics, warm: Sequence[Statement] = ()
) -> AsyncIterator[Database]:
    """A pool on `dsn` with `warm` prepared on every connection. Raises StartupError when PostgreSQL cannot be reached."""

    async def prepare(db: Any) -> None:
        for statement in warm:
            await prepared_on(db, statement)
        # Preparing opens a transaction, which would keep its locks on the tables until the connection's first use.
        await db.execute("SELECT 1")

    arguments = connect_arguments(settings, dsn)
    # A stream waits for its reader between two batches, within a transaction: for all of the reader's time, if need be.
    patience = {"idle_in_transaction_session_timeout": _ms(settings.stream_seconds + settings.db_command_seconds)}
    for_streams = arguments | {"server_settings": arguments["server_settings"] | patience}
    pools: list[asyncpg.Pool[Row]] = []
    try:
        pools.append(
            await _open_pool(
                arguments, min(WARM_CONNECTIONS, settings.db_connections_max), settings.db_connections_max, prepare
            )
        )
        pools.append(await _open_pool(for_streams, 0, settings.streams_max, None))
        database = Database(pools[0], pools[1], settings, metrics, warm)
        try:
            yield database
        finally:
            await database.release_idle()
    finally:
        for pool in pools:
            try:
                await asyncio.wait_for(pool.close(), settings.db_command_seconds)
            except TimeoutError:
                pool.terminate()


async def _open_pool(arguments: dict[str, Any], min_size: int, max_size: int, init: Any) -> asyncpg.Pool[Row]:
    try:
        return await asyncpg.create_pool(
            min_size=min_size,
            max_size=max_size,
            max_inactive_connection_lifetime=0,
            max_queries=2**62,
            init=init,
            reset=_keep,
            **arguments,
        )
    except UNREACHABLE as error:
        raise unreachable(error) from error


def connect_arguments(settings: Settings, dsn: str) -> dict[str, Any]:
    """How every database connection of the gateway is opened: with its limits, and with commits that wait for the disk."""
    return {
        "dsn": dsn,
        "timeout": settings.db_connect_seconds,
        "command_timeout": settings.db_command_seconds,
        "max_cached_statement_lifetime": 0,
        "server_settings": {
            "application_name": "crm-gateway",
            "synchronous_commit": "on",
            "statement_timeout": _ms(settings.db_statement_seconds),
            "lock_timeout": _ms(settings.db_lock_seconds),
            "idle_in_transaction_session_timeout": _ms(settings.db_idle_transaction_seconds),
            # What a killed gateway left waiting (for a lock, say) is given up instead of being committed at some later time.
            "client_connection_check_interval": "100ms",
            # The plans hardly depend on the values, and planning each time costs more than running.
            "plan_cache_mode": "force_generic_plan",
            "jit": "off",
        },
    }


async def _keep(_db: object) -> None:
    """Nothing to reset on release: no statement of the gateway leaves anything behind in its database session."""


def _ms(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"
