"""Runs the statements that several commands share: one for each kind of write, and one for reads of single events."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Raw

from gateway import wire
from gateway.access import Access
from gateway.calendar_store import statements
from gateway.calendar_store.statements import Write
from gateway.database import Database, Row, Statement
from gateway.event import DeleteReply, Event, EventReply
from gateway.settings import Settings

SHARED_LOCK_WAIT = "100ms"
"""How long a shared statement waits for a key or a participant that others have locked, before its commands go one by one."""


class Batches:
    """What each makes of its batch, in order: nothing (false or None) where it was passed over (see statements.py)."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._own_lock_wait = f"{round(settings.db_lock_seconds * 1000)}ms"

    async def get_events(self, batch: Sequence[tuple[Access, int]]) -> list[Raw | None]:
        rows = await self._db.fetch(statements.GET_EVENTS, statements.accesses_of(batch))
        found = {row["number"]: Raw(row["event"].encode()) for row in rows}
        return [found.get(number) for number in range(len(batch))]

    async def add_events(self, batch: Sequence[Write]) -> list[bool]:
        given = statements.events_of(batch), statements.participants_of(batch)
        rows = await self._fetch(statements.ADD_EVENTS, statements.ADD_KEYED_EVENTS, given, (), batch, _event_reply)
        added = {row["id"] for row in rows}
        return [write.event.id in added for write in batch]

    async def change_events(self, batch: Sequence[Write]) -> list[Raw | None]:
        given = statements.events_of(batch), statements.participants_of(batch)
        wait = (self._lock_wait(batch),)
        rows = await self._fetch(statements.CHANGE_EVENTS, statements.CHANGE_KEYED_EVENTS, given, wait, batch, _event_reply)
        changed = {row["id"]: Raw(row["event"].encode()) for row in rows}
        return [changed.get(write.event.id) for write in batch]

    async def delete_events(self, batch: Sequence[Write]) -> list[bool]:
        given = (statements.versions_of(batch),)
        wait = (self._lock_wait(batch),)
        rows = await self._fetch(statements.DELETE_EVENTS, statements.DELETE_KEYED_EVENTS, given, wait, batch, _delete_reply)
        deleted = {row["id"] for row in rows}
        return [write.event.id in deleted for write in batch]

    async def keep_keys(self, batch: Sequence[Write]) -> list[bool]:
        keys = statements.keys_of(batch, _event_reply)
        kept = {tuple(row) for row in await self._db.fetch(statements.KEEP_KEYS, keys, self._lock_wait(batch))}
        return [write.key is not None and write.key[:2] in kept for write in batch]

    async def _fetch(
        self,
        plain: Statement,
        keyed: Statement,
        given: Sequence[str],
        wait: Sequence[str],
        batch: Sequence[Write],
        reply: Callable[[Event], bytes],
    ) -> list[Row]:
        """Runs the form of the statement that the batch needs: keeping keys costs time, also when there is none."""
        keys = statements.keys_of(batch, reply)
        if keys is None:
            return await self._db.fetch(plain, *given, *wait)
        return await self._db.fetch(keyed, *given, keys, self._lock_wait(batch))

    def _lock_wait(self, batch: Sequence[Write]) -> str:
        return self._own_lock_wait if len(batch) == 1 else SHARED_LOCK_WAIT


def _event_reply(event: Event) -> bytes:
    return wire.encode(EventReply(event))


def _delete_reply(event: Event) -> bytes:
    return wire.encode(DeleteReply(event.id))
