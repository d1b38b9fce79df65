"""Reads and writes of one event. Each write is one statement, and so one transaction of event and participants.

Writes that wait at the same moment share a statement; every row of it carries the epoch its command was decided at.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any
from weakref import WeakValueDictionary

import msgspec
from msgspec import Raw, structs

from gateway.access import Access
from gateway.calendar_store.sql import EVENT_COLUMNS, VISIBLE, access_arguments, event_json
from gateway.database import Database, Statement
from gateway.errors import CommandError, ErrorCode
from gateway.event import Event
from gateway.group_commit import GroupCommit
from gateway.sessions import Sessions
from gateway.settings import Settings

ID_BLOCK = 100
"""Event ids taken from the sequence at once, so that an add needs one round trip; a restart leaves a gap of at most these."""
RENEWALS_MAX = 20
"""Times an access is renewed because managers and sessions changed while an event was read."""

_COLUMN_TYPES = {
    "brand": "text",
    "desk": "text",
    "title": "text",
    "ast_json": "text",
    "type": "smallint",
    "status": "smallint",
    "priority": "smallint",
    "all_day": "smallint",
    "remind_before_sec": "integer",
}
_COLUMNS = ", ".join(EVENT_COLUMNS)
_VALUES = ", ".join("nullif(given.ast_json, 'null')::json" if c == "ast_json" else f"given.{c}" for c in EVENT_COLUMNS)
_TYPED_COLUMNS = ", ".join(f"{name} {_COLUMN_TYPES.get(name, 'bigint')}" for name in EVENT_COLUMNS)
_GIVEN_EVENTS = f"json_to_recordset($1::json) AS given ({_TYPED_COLUMNS}, epoch bigint)"
_GIVEN_PARTICIPANTS = """json_to_recordset($2::json) AS given (
    event_id bigint, manager_id bigint, role smallint, status smallint, created_time bigint, updated_time bigint)"""
_EPOCH_HOLDS = "given.epoch = (SELECT epoch FROM access_epoch)"

_ACCESS_COLUMNS = ("number", "id", "manager_id", "brands", "include", "exclude", "epoch")

_TAKE_IDS = Statement("SELECT nextval('calendar_event_id') AS id FROM generate_series(1, $1)", writes=False)

_ADD_EVENTS = Statement(
    f"""
    WITH added AS (
        INSERT INTO calendar_event ({_COLUMNS}) SELECT {_VALUES} FROM {_GIVEN_EVENTS} WHERE {_EPOCH_HOLDS}
        RETURNING id, start_time, end_time
    ),
    invited AS (
        INSERT INTO calendar_participant (
            event_id, manager_id, role, status, created_time, updated_time, start_time, end_time)
        SELECT event_id, manager_id, role, status, created_time, updated_time, start_time, end_time
        FROM {_GIVEN_PARTICIPANTS} JOIN added ON added.id = given.event_id
    )
    SELECT id FROM added
    """,  # noqa: S608 - made of column names of our own
    writes=True,
)

_GET_EVENTS = Statement(
    f"""
    SELECT access.number, {event_json()} AS event
    FROM json_to_recordset($1::json) AS access (
        number integer, id bigint, manager_id bigint, brands text[], include text[], exclude text[], epoch bigint)
    JOIN calendar_event AS event ON event.id = access.id
    WHERE {VISIBLE}
    """,  # noqa: S608 - made of fragments of our own
    writes=False,
)

_CHANGE_EVENTS = Statement(
    f"""
    WITH changed AS (
        UPDATE calendar_event AS event SET ({_COLUMNS}) = ROW ({_VALUES}) FROM {_GIVEN_EVENTS}
        WHERE event.id = given.id AND event.version = given.version - 1 AND {_EPOCH_HOLDS}
        RETURNING event.*
    ),
    given AS (SELECT * FROM {_GIVEN_PARTICIPANTS}),
    removed AS (
        DELETE FROM calendar_participant AS participant USING changed
        WHERE participant.event_id = changed.id AND NOT EXISTS (
            SELECT FROM given
            WHERE given.event_id = participant.event_id AND given.manager_id = participant.manager_id)
    ),
    written AS (
        INSERT INTO calendar_participant AS participant (
            event_id, manager_id, role, status, created_time, updated_time, start_time, end_time)
        SELECT given.event_id, given.manager_id, given.role, given.status, given.created_time, given.updated_time,
            changed.start_time, changed.end_time
        FROM given JOIN changed ON changed.id = given.event_id
        ON CONFLICT ON CONSTRAINT participant_once_per_event DO UPDATE
        SET (role, status, created_time, updated_time, start_time, end_time) = (
            excluded.role, excluded.status, excluded.created_time, excluded.updated_time,
            excluded.start_time, excluded.end_time)
        WHERE (participant.role, participant.status, participant.created_time, participant.updated_time,
            participant.start_time, participant.end_time) IS DISTINCT FROM (
            excluded.role, excluded.status, excluded.created_time, excluded.updated_time,
            excluded.start_time, excluded.end_time)
    )
    SELECT id, {event_json("given")} AS event FROM changed AS event
    """,  # noqa: S608 - made of column names of our own
    writes=True,
)

_DELETE_EVENTS = Statement(
    f"""
    DELETE FROM calendar_event AS event USING json_to_recordset($1::json) AS given (id bigint, version bigint, epoch bigint)
    WHERE event.id = given.id AND event.version = given.version AND {_EPOCH_HOLDS}
    RETURNING event.id
    """,  # noqa: S608 - made of column names of our own
    writes=True,
)

STATEMENTS = (_TAKE_IDS, _ADD_EVENTS, _GET_EVENTS, _CHANGE_EVENTS, _DELETE_EVENTS)

_decode_event = msgspec.json.Decoder(Event).decode

Written = tuple[Event, int]
"""An event as it is to be, and the epoch of the access that this was decided by."""


class CalendarStore:
    """One event at a time. What takes an access raises StaleAccessError, having done nothing, when it no longer holds."""

    def __init__(self, db: Database, sessions: Sessions, settings: Settings) -> None:
        self._db = db
        self._sessions = sessions
        self._turn_seconds = settings.db_acquire_seconds
        self._tries_seconds = settings.db_command_seconds
        self._ids: deque[int] = deque()
        self._turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        shared = settings.commands_per_commit_max, settings.db_command_seconds
        self._gets: GroupCommit[tuple[Access, int], Raw | None] = GroupCommit(self._get_events, *shared)
        self._adds: GroupCommit[Written, bool] = GroupCommit(self._add_events, *shared)
        self._changes: GroupCommit[Written, Raw | None] = GroupCommit(self._change_events, *shared)
        self._deletes: GroupCommit[Written, bool] = GroupCommit(self._delete_events, *shared)

    def writers(self) -> list[Coroutine[Any, Any, None]]:
        """The loops that read and write; whoever owns the store runs them."""
        return [*self._gets.writers(), *self._adds.writers(), *self._changes.writers(), *self._deletes.writers()]

    async def take_id(self) -> int:
        """An event id that nobody else has."""
        while not self._ids:
            self._ids.extend(row["id"] for row in await self._db.fetch(_TAKE_IDS, ID_BLOCK))
        return self._ids.popleft()

    async def add_event(self, access: Access, event: Event) -> None:
        """Stores the event with its participants; returns once both are committed."""
        if not await self._adds.submit((event, access.epoch)):
            await self._sessions.confirm(access)
            raise RuntimeError("an add wrote nothing although its access holds")

    async def get_event(self, access: Access, event_id: int) -> Raw:
        """The event as JSON, behind the changes of it that wait. Raises CommandError NOT_FOUND for one absent or hidden."""
        if event_id in self._turns:
            async with self._turn(event_id):
                return (await self._read(access, event_id))[1]
        return (await self._read(access, event_id))[1]

    async def change_event(self, access: Access, event_id: int, change: Callable[[Access, Event], Event]) -> Raw:
        """The event as JSON after `change`, which is applied to the row as it is then, with the access as it is then.

        Changes of one event are made one after the other: in the order called within this process, and across
        processes by its version, which a change advances by one. A change that leaves the event equal writes nothing.
        Raises what `change` raises.
        """
        async with self._turn(event_id):
            for _ in self._tries():
                access, stored = await self._read(access, event_id)
                event = _decode_event(stored)
                changed = change(access, event)
                if changed == event:
                    return stored
                written = await self._changes.submit((changed, access.epoch))
                if written is not None:
                    return written
        raise _contended(event_id)

    async def delete_event(self, access: Access, event_id: int, check: Callable[[Access, Event], None]) -> None:
        """Removes the event and its participants, if `check` lets it. Raises what `check` raises."""
        async with self._turn(event_id):
            for _ in self._tries():
                access, stored = await self._read(access, event_id)
                event = _decode_event(stored)
                check(access, event)
                if await self._deletes.submit((event, access.epoch)):
                    return
        raise _contended(event_id)

    async def _read(self, access: Access, event_id: int) -> tuple[Access, Raw]:
        """The event, and the access it was read with: an access that no longer holds is renewed here, within the turn."""
        for _ in range(RENEWALS_MAX):
            event = await self._gets.submit((access, event_id))
            if event is not None:
                return access, event
            renewed = await self._sessions.renewed(access)
            if renewed == access:
                raise CommandError(ErrorCode.NOT_FOUND, f"no event {event_id}")
            renewed.require_calendar()
            access = renewed
        raise _contended(event_id)

    async def _get_events(self, batch: Sequence[tuple[Access, int]]) -> list[Raw | None]:
        wanted = [
            dict(zip(_ACCESS_COLUMNS, (number, event_id, *access_arguments(access)), strict=True))
            for number, (access, event_id) in enumerate(batch)
        ]
        found = {row["number"]: Raw(row["event"].encode()) for row in await self._db.fetch(_GET_EVENTS, _json(wanted))}
        return [found.get(number) for number in range(len(batch))]

    async def _add_events(self, batch: Sequence[Written]) -> list[bool]:
        rows = await self._db.fetch(_ADD_EVENTS, _rows(batch), _participants(batch))
        added = {row["id"] for row in rows}
        return [event.id in added for event, _ in batch]

    async def _change_events(self, batch: Sequence[Written]) -> list[Raw | None]:
        rows = await self._db.fetch(_CHANGE_EVENTS, _rows(batch), _participants(batch))
        changed = {row["id"]: Raw(row["event"].encode()) for row in rows}
        return [changed.get(event.id) for event, _ in batch]

    async def _delete_events(self, batch: Sequence[Written]) -> list[bool]:
        given = [{"id": event.id, "version": event.version, "epoch": epoch} for event, epoch in batch]
        deleted = {row["id"] for row in await self._db.fetch(_DELETE_EVENTS, _json(given))}
        return [event.id in deleted for event, _ in batch]

    def _tries(self) -> Iterator[None]:
        """Tries to change an event while other processes change it first.

        A time bounds them, not a number: whoever loses is as likely to lose the next one, and a try takes milliseconds.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._tries_seconds
        while loop.time() < deadline:
            yield

    def _turn(self, event_id: int) -> _Turn:
        lock = self._turns.get(event_id)
        if lock is None:
            lock = self._turns[event_id] = asyncio.Lock()
        return _Turn(lock, self._turn_seconds)


class _Turn:
    """Waits for the changes of the same event before it, within a limit."""

    def __init__(self, lock: asyncio.Lock, seconds: float) -> None:
        self._lock = lock
        self._seconds = seconds

    async def __aenter__(self) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._lock.acquire()
        except TimeoutError:
            raise CommandError(ErrorCode.TIMEOUT, "too many changes of this event wait") from None

    async def __aexit__(self, *_error: object) -> None:
        self._lock.release()


def _contended(event_id: int) -> CommandError:
    return CommandError(ErrorCode.NO_SERVICE, f"event {event_id} is changed too often by others: try again", retry_after_ms=200)


def _rows(batch: Sequence[Written]) -> str:
    """The events' own columns. `ast_json` goes as text: PostgreSQL rewrites a JSON string that it takes out of JSON."""
    rows = []
    for event, epoch in batch:
        row = structs.asdict(event)
        del row["participants"]
        row["ast_json"] = bytes(event.ast_json).decode()
        row["epoch"] = epoch
        rows.append(row)
    return _json(rows)


def _participants(batch: Sequence[Written]) -> str:
    return _json([participant for event, _ in batch for participant in event.participants])


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
