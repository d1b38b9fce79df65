"""The databases that are written to: an empty one, and a copy of the large one, so that the reads keep theirs as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import asyncpg
from msgspec import Struct

from tests.bench.dataset import PARTICIPANTS, Dataset, make_empty, value, with_database
from tests.bench.figures import StepFailedError

EMPTY, LARGE = "bench_writes", "bench_writes_large"


class Table(Struct, frozen=True):
    """A database to add to; `events` are in it from the start."""

    dsn: str
    events: int

    def prepare(self) -> None:
        """Removes what was added if it began empty, and takes the checkpoint that would fall into somebody's step.

        TRUNCATE also makes PostgreSQL forget that it saw the table empty: with that knowledge it would plan the
        foreign key's check as a scan of the whole table, for every side.
        """
        truncate = "" if self.events else "TRUNCATE calendar_event, calendar_participant, idempotency_key;"
        asyncio.run(execute(self.dsn, f"{truncate} CHECKPOINT"))

    def added(self) -> int:
        """The events that were added and are there. Raises StepFailedError when their participants are not."""
        row = asyncio.run(
            value(
                self.dsn,
                "SELECT (SELECT count(*) FROM calendar_event WHERE id > $1) AS events,"
                " (SELECT count(*) FROM calendar_participant WHERE event_id > $1) AS participants",
                self.events,
            )
        )
        if row["participants"] != PARTICIPANTS * row["events"]:
            raise StepFailedError(f"{row['events']} events were added with {row['participants']} participants")
        return int(row["events"])

    def row_bytes(self) -> float:
        """How large the events are that were added."""
        sql = "SELECT avg(pg_column_size(event.*)) AS size FROM calendar_event AS event WHERE id > $1"
        return float(asyncio.run(value(self.dsn, sql, self.events))["size"])


@contextmanager
def tables(data: Dataset) -> Iterator[tuple[Table, Table]]:
    """An empty database and a copy of the large one, for as long as the block."""
    empty, large = Table(with_database(data.dsn, EMPTY), 0), Table(with_database(data.dsn, LARGE), data.events)
    asyncio.run(_make(data, empty, large))
    try:
        yield empty, large
    finally:
        asyncio.run(_drop(data))


async def execute(dsn: str, sql: str) -> None:
    """Runs statements, each in its own transaction."""
    db = await asyncpg.connect(dsn)
    try:
        for statement in filter(None, map(str.strip, sql.split(";"))):
            await db.execute(statement)
    finally:
        await db.close()


async def _make(data: Dataset, empty: Table, large: Table) -> None:
    await _drop(data)
    await make_empty(data.small_dsn, EMPTY)
    template = urlsplit(data.dsn).path[1:]
    await execute(data.small_dsn, f"CREATE DATABASE {LARGE} TEMPLATE {template} STRATEGY file_copy")
    for table in (empty, large):  # it would come in one side's step; nothing here lives long enough to need it
        for name in ("calendar_event", "calendar_participant", "idempotency_key"):
            await execute(table.dsn, f"ALTER TABLE {name} SET (autovacuum_enabled = false)")


async def _drop(data: Dataset) -> None:
    for name in (EMPTY, LARGE):
        await execute(data.small_dsn, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
