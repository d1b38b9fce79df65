"""Runs statements on pooled database connections: every wait has its limit here, and every failure its outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import asyncpg

from gateway.database_errors import LOST, failure_of
from gateway.errors import Outcome, no_service
from gateway.metrics import Metrics, Observe
from gateway.settings import Settings

STREAM_ROWS = 200
"""Rows of a stream fetched at once: some 160 KB, a few milliseconds of the event loop."""

REFUSAL_SECONDS = 10.0
"""How long a write that PostgreSQL had no room for counts, when no other follows: readiness then lets clients try again."""

Row = asyncpg.Record


class Statement(NamedTuple):
    """One SQL statement that commits by itself, or changes nothing (`writes` is false)."""

    sql: str
    writes: bool


class _Lent(NamedTuple):
    """A connection of the pool, and the warm statements as asyncpg has them prepared on it: each look-up there costs 3 us."""

    db: Any
    prepared: dict[Statement, Any]


class Database:
    """Runs statements, each on a pooled connection. Raises CommandError with the outcome that the contract defines."""

    def __init__(
        self,
        pool: asyncpg.Pool[Row],
        streams: asyncpg.Pool[Row],
        settings: Settings,
        metrics: Metrics,
        warm: Sequence[Statement],
    ) -> None:
        self._pool = pool
        self._streams = streams
        self._warm = frozenset(warm)
        self._idle: list[_Lent] = []
        self._acquiring = 0
        self._acquire_seconds = settings.db_acquire_seconds
        self._refused_at: float | None = None
        self._observe_wait = metrics.db_waits.of("commands")
        self._observe_stream_wait = metrics.db_waits.of("streams")
        metrics.db_connections.set_function(pool.get_size)
        metrics.db_connections_max.set(settings.db_connections_max)

    async def fetch(self, statement: Statement, *args: object) -> list[Row]:
        """All rows of the statement.

        Once its bytes may have left for PostgreSQL, a write whose answer is lost has the outcome `unknown`. What
        PostgreSQL answered with an error, and what never left, is `not_executed`. A prepared statement leaves as one
        message, and statements are prepared when a connection opens, so nothing leaves before the statement itself.
        """
        lent = await self._lend()
        try:
            rows = await self._rows(lent, statement, args)
        except BaseException as error:
            await self._take_back(self._pool, lent.db, error)
            raise
        if self._acquiring:
            await self._take_back(self._pool, lent.db)
        else:
            self._idle.append(lent)
        if statement.writes:
            self._refused_at = None
        return rows

    async def _rows(self, lent: _Lent, statement: Statement, args: Sequence[object]) -> list[Row]:
        try:
            prepared = lent.prepared.get(statement) or await self._prepared(lent, statement)
        except (TimeoutError, asyncpg.PostgresError, *LOST) as error:
            raise failure_of(error, Outcome.NOT_EXECUTED) from error
        try:
            rows: list[Row] = await prepared.fetch(*args)
        except (TimeoutError, asyncpg.PostgresError, *LOST) as error:
            if statement.writes:
                self._note_refusal(error)
            raise failure_of(error, Outcome.UNKNOWN if statement.writes else Outcome.NOT_EXECUTED) from error
        return rows

    async def _prepared(self, lent: _Lent, statement: Statement) -> Any:
        prepared = await prepared_on(lent.db, statement)
        if statement in self._warm:
            lent.prepared[statement] = prepared
        return prepared

    def refuses_writes(self) -> bool:
        """Whether PostgreSQL had no room, or was read-only, at a write of the last seconds, and has done none since."""
        return self._refused_at is not None and time.monotonic() - self._refused_at < REFUSAL_SECONDS

    def _note_refusal(self, error: BaseException) -> None:
        if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "")[:2] in ("53", "25"):
            self._refused_at = time.monotonic()

    async def fetch_row(self, statement: Statement, *args: object) -> Row | None:
        """The first row of the statement, or None."""
        rows = await self.fetch(statement, *args)
        return rows[0] if rows else None

    async def stream(self, statement: Statement, *args: object) -> AsyncGenerator[list[Row], None]:
        """The rows of a read in batches, from one snapshot, on a connection of their own that is held until the end."""
        db = await self._acquire(self._streams, self._observe_stream_wait)
        try:
            try:
                async with db.transaction():
                    cursor = await db.cursor(statement.sql, *args)
                    while rows := await cursor.fetch(STREAM_ROWS):
                        yield rows
            except (TimeoutError, asyncpg.PostgresError, *LOST) as error:
                raise failure_of(error, Outcome.NOT_EXECUTED) from error
        except BaseException as error:
            await self._take_back(self._streams, db, error)
            raise
        await self._take_back(self._streams, db)

    async def _lend(self) -> _Lent:
        """A connection that was kept, or else the pool's, whose way costs three turns of the event loop."""
        while self._idle:
            lent = self._idle.pop()
            if not _is_gone(lent.db):
                self._observe_wait(0.0)
                return lent
            await self._take_back(self._pool, lent.db)
        return _Lent(await self._acquire(self._pool, self._observe_wait), {})

    async def _acquire(self, pool: asyncpg.Pool[Row], observe: Observe) -> Any:
        self._acquiring += pool is self._pool  # for a stream's connection nobody need give one back
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._acquire_seconds):
                return await pool.acquire()
        except TimeoutError as error:
            raise no_service("no database connection was free in time") from error
        except (asyncpg.PostgresError, *LOST) as error:
            raise no_service("the database cannot be reached") from error
        finally:
            self._acquiring -= pool is self._pool
            observe(time.perf_counter() - began)

    async def _take_back(self, pool: asyncpg.Pool[Row], db: Any, failed: BaseException | None = None) -> None:
        """Gives a connection back to the pool.

        One that cannot be given back has been terminated; the answer to the command stands as it is.
        """
        if failed is not None and _spoils(failed.__cause__):
            with suppress(asyncpg.InterfaceError):  # the pool may have noticed already that it is gone
                db.terminate()  # giving it back would wait for an answer that does not come, or keep what takes no writes
        with suppress(TimeoutError, asyncpg.PostgresError, *LOST):
            await pool.release(db, timeout=self._acquire_seconds)

    async def release_idle(self) -> None:
        """Gives the kept connections back to the pool, which can then close."""
        while self._idle:
            await self._take_back(self._pool, self._idle.pop().db)


def _spoils(cause: BaseException | None) -> bool:
    """Whether a connection is of no more use: lost, or opened while the database took no writes, as it then stays."""
    return isinstance(cause, (TimeoutError, asyncpg.ReadOnlySQLTransactionError, *LOST))


def _is_gone(db: Any) -> bool:
    """Whether the connection has ended. The pool takes back one that it saw end; what stands for it then answers nothing."""
    try:
        return bool(db.is_closed())
    except asyncpg.InterfaceError:
        return True


async def prepared_on(db: Any, statement: Statement) -> Any:
    """The statement as the connection remembers it. The public `prepare` would send it to PostgreSQL each time."""
    return await db._prepare(statement.sql, use_cache=True)
