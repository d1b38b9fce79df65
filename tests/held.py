"""Adds that PostgreSQL holds up in the middle, for as long as a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from tests.client import EVENT
from tests.process import until

HELD = {**EVENT, "participant_manager_ids": [11]}
"""An event whose participants' insert is held; one without manager 11 passes."""
PATIENT = {"db_acquire_seconds": 50, "db_lock_seconds": 40, "db_statement_seconds": 45, "db_command_seconds": 50}
"""Settings under which a held command runs into no limit of the database."""

_KEY = 4711
_TRIGGER = """
    CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock_shared({key}); RETURN NEW; END $$;
    CREATE TRIGGER hold {when} INSERT ON calendar_participant
    FOR EACH ROW WHEN (NEW.manager_id = 11) EXECUTE FUNCTION hold();
"""
_WAITING = """
    SELECT pid FROM pg_locks
    WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Hold:
    """The lock that a trigger on the participants' table waits for."""

    def __init__(self, db: Any) -> None:
        self._db = db

    async def begun(self) -> int:
        """Returns once an add waits: the pid of its backend."""
        return int((await until(lambda: self._db.fetch(_WAITING)))[0]["pid"])

    async def given_up(self) -> None:
        """Returns once no add waits any more."""
        await until(lambda: self._db.fetch(_WAITING), lambda rows: not rows)

    async def release(self) -> None:
        """Lets every held add go on."""
        await self._db.execute(f"SELECT pg_advisory_unlock({_KEY})")


@asynccontextmanager
async def held_adds(dsn: str, when: str = "BEFORE") -> AsyncIterator[Hold]:
    """Holds up the insert of participant 11: before its row is written, or after both tables' rows are."""
    db = await asyncpg.connect(dsn)
    try:
        await db.execute(_TRIGGER.format(key=_KEY, when=when))
        await db.execute(f"SELECT pg_advisory_lock({_KEY})")
        yield Hold(db)
    finally:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await db.close()


async def row_counts(db: Any) -> tuple[int, int]:
    """How many events and participants are committed."""
    row = await db.fetchrow("SELECT (SELECT count(*) FROM calendar_event), (SELECT count(*) FROM calendar_participant)")
    return tuple(row)
