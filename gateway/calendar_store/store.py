"""Reads and writes of one event. Each write is one statement, and so one transaction of event, participants and key.

Writes that wait at the same moment share a statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import asyncpg
import msgspec
from msgspec import Raw

from gateway.access import Access
from gateway.calendar_store.attempts import Attempts, contended
from gateway.calendar_store.batches import Batches
from gateway.calendar_store.event_ids import EventIds
from gateway.calendar_store.idempotency import Idempotency, KeyTakenError, WriteKey
from gateway.calendar_store.statements import Write
from gateway.database import Database
from gateway.errors import CommandError, ErrorCode, Outcome
from gateway.event import Event
from gateway.group_commit import GroupCommit
from gateway.metrics import Metrics
from gateway.sessions import Sessions
from gateway.settings import Settings
from gateway.turns import Readers, Turns

RENEWALS_MAX = 20
"""Times an access is renewed because managers and sessions changed while an event was read."""
SEND_AGAIN_SECONDS = 1.0
"""Time to learn what became of a keyed write whose answer was lost; with the first try, below the clients' patience."""
SEND_AGAIN_PAUSE_SECONDS = 0.05
"""Between two tries to, while the database is away or the first try is still under way."""

_decode_event = msgspec.json.Decoder(Event).decode

Done = TypeVar("Done")


class CalendarStore:
    """One event at a time. What takes an access raises StaleAccessError, having done nothing, when it no longer holds.

    A write with a key whose write is committed already raises KeyTakenError, having done nothing.
    """

    def __init__(
        self, db: Database, sessions: Sessions, idempotency: Idempotency, settings: Settings, metrics: Metrics
    ) -> None:
        self._sessions = sessions
        self._idempotency = idempotency
        self._settings = settings
        self.ids = EventIds(db)
        self._turns: Turns[int, None] = Turns(settings.db_acquire_seconds, _too_many_changes)
        self._readers: Readers[int] = Readers()
        batches = Batches(db, settings)
        shared, sizes = (settings.commands_per_commit_max, settings.db_command_seconds), metrics.batch_sizes
        self._gets: GroupCommit[tuple[Access, int], Raw | None] = GroupCommit(batches.get_events, *shared, sizes.of("get"))
        self._adds: GroupCommit[Write, bool] = GroupCommit(batches.add_events, *shared, sizes.of("add"))
        self._changes: GroupCommit[Write, Raw | None] = GroupCommit(batches.change_events, *shared, sizes.of("change"))
        self._deletes: GroupCommit[Write, bool] = GroupCommit(batches.delete_events, *shared, sizes.of("delete"))
        self._keeps: GroupCommit[Write, bool] = GroupCommit(batches.keep_keys, *shared, sizes.of("keep_key"))

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """The loops that read, write and take ids; whoever owns the store runs them."""
        groups: tuple[GroupCommit[Any, Any], ...] = (self._gets, self._adds, self._changes, self._deletes, self._keeps)
        return [self.ids.refill_forever(), *(writer for group in groups for writer in group.writers())]

    async def add_event(self, access: Access, event: Event, key: WriteKey | None) -> None:
        """Stores the event with its participants; returns once both are committed."""
        if not await self._write(self._adds, Write(event, access.epoch, key), access.manager_id):
            await self._sessions.confirm(access)
            raise RuntimeError("an add wrote nothing although its access holds")

    async def get_event(self, access: Access, event_id: int) -> Raw:
        """The event as JSON, behind the changes of it that wait, before those that come. Raises CommandError NOT_FOUND for
        one absent or hidden.
        """
        if event_id in self._turns:
            async with self._turns.of(event_id):  # to know one's place, not to read: the others that wait read beside it
                self._readers.begin(event_id)
        else:
            self._readers.begin(event_id)
        try:
            return (await self._read(access, event_id))[1]
        finally:
            self._readers.end(event_id)

    async def change_event(
        self, access: Access, event_id: int, change: Callable[[Access, Event], Event], key: WriteKey | None
    ) -> Raw:
        """The event as JSON after `change`, which is applied to the row as it is then, with the access as it is then.

        Changes of one event are made one after the other: in the order called within this process, and across
        processes by its version, which a change advances by one. A change that leaves the event equal writes nothing
        but the key. Raises what `change` raises, and CommandError TIMEOUT when others have the event locked for too long.
        """
        async with self._turns.of(event_id):
            await self._readers.ended(event_id)
            attempts = Attempts(event_id, self._settings)
            while True:
                access, stored = await self._read(access, event_id)
                event = _decode_event(stored)
                changed = _decided(change, access, event)
                if changed == event:
                    if key is None or await self._write(self._keeps, Write(event, access.epoch, key), access.manager_id):
                        return stored
                else:
                    written = await self._write(self._changes, Write(changed, access.epoch, key), access.manager_id)
                    if written is not None:
                        return written
                await attempts.again(event.version)

    async def delete_event(
        self, access: Access, event_id: int, check: Callable[[Access, Event], None], key: WriteKey | None
    ) -> None:
        """Removes the event and its participants, if `check` lets it. Raises what `check` raises, and as a change does."""
        async with self._turns.of(event_id):
            await self._readers.ended(event_id)
            attempts = Attempts(event_id, self._settings)
            while True:
                access, stored = await self._read(access, event_id)
                event = _decode_event(stored)
                _decided(check, access, event)
                if await self._write(self._deletes, Write(event, access.epoch, key), access.manager_id):
                    return
                await attempts.again(event.version)

    async def _write(self, group: GroupCommit[Write, Done], write: Write, manager_id: int) -> Done:
        """What the group made of the write: nothing (false or None) when it was passed over."""
        try:
            done = await group.submit(write, manager_id)
        except CommandError as error:
            if write.key is None or error.outcome is not Outcome.UNKNOWN:
                raise
            return await self._sent_again(group, write, write.key, manager_id, error)
        if not done and write.key is not None and await self._idempotency.taken(write.key):
            raise KeyTakenError
        return done

    async def _sent_again(
        self, group: GroupCommit[Write, Done], write: Write, key: WriteKey, manager_id: int, lost: CommandError
    ) -> Done:
        """The same write once more, until it is done or its key is taken; raises `lost` when neither is told in time.

        Passed over with a key that is free, the first try may still be under way: it may have the event locked itself.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(SEND_AGAIN_SECONDS):
                while True:
                    with suppress(CommandError, asyncpg.PostgresError):
                        if done := await group.queue(write, manager_id):
                            return done
                        if await self._idempotency.taken(key):
                            raise KeyTakenError(lost)
                    await asyncio.sleep(SEND_AGAIN_PAUSE_SECONDS)
        raise lost

    async def _read(self, access: Access, event_id: int) -> tuple[Access, Raw]:
        """The event, and the access it was read with: an access that no longer holds is renewed here, within the turn."""
        for _ in range(RENEWALS_MAX):
            event = await self._gets.submit((access, event_id), access.manager_id)
            if event is not None:
                return access, event
            renewed = await self._sessions.look_up(access.session)
            if renewed == access:
                raise _confirmed(CommandError(ErrorCode.NOT_FOUND, f"no event {event_id}"))
            _decided(Access.require_calendar, renewed)
            access = renewed
        raise contended(event_id)


def _decided(decide: Callable[..., Done], *given: object) -> Done:
    """What `decide` makes of what was just read."""
    try:
        return decide(*given)
    except CommandError as error:
        _confirmed(error)
        raise


def _confirmed(error: CommandError) -> CommandError:
    """Marks a refusal that was just read: decided anew, it would come behind the commands that were sent after it."""
    error.confirmed = True
    return error


def _too_many_changes() -> CommandError:
    return CommandError(ErrorCode.TIMEOUT, "too many changes of this event wait")
