"""All SQL on the calendar's tables. Each write is one statement, and so one transaction of event and participants."""

from __future__ import annotations

from collections import deque

import msgspec

from gateway.access import Access
from gateway.database import Database, Statement
from gateway.event import Event
from gateway.sessions import Sessions

ID_BLOCK = 100
"""Event ids taken from the sequence at once, so that an add needs one round trip; a restart leaves a gap of at most these."""

_TAKE_IDS = Statement("SELECT nextval('calendar_event_id') AS id FROM generate_series(1, $1)", writes=False)

_ADD_EVENTS = Statement(
    """
    WITH guard AS (SELECT epoch FROM access_epoch),
    added AS (
        INSERT INTO calendar_event (
            id, brand, desk, owner_manager_id, created_by, updated_by, type, status, priority, title, ast_json,
            start_time, end_time, all_day, remind_time, remind_before_sec, reminder_sent_time,
            customer_id, lead_id, login, created_time, updated_time, version)
        SELECT
            id, brand, desk, owner_manager_id, created_by, updated_by, type, status, priority, title,
            nullif(ast_json, 'null')::json,
            start_time, end_time, all_day, remind_time, remind_before_sec, reminder_sent_time,
            customer_id, lead_id, login, created_time, updated_time, version
        FROM json_to_recordset($1::json) AS given (
            id bigint, brand text, desk text, owner_manager_id bigint, created_by bigint, updated_by bigint,
            type smallint, status smallint, priority smallint, title text, ast_json text,
            start_time bigint, end_time bigint, all_day smallint, remind_time bigint, remind_before_sec integer,
            reminder_sent_time bigint, customer_id bigint, lead_id bigint, login bigint,
            created_time bigint, updated_time bigint, version bigint)
        WHERE $3::bigint = (SELECT epoch FROM guard)
    ),
    invited AS (
        INSERT INTO calendar_participant (event_id, manager_id, role, status, created_time, updated_time)
        SELECT event_id, manager_id, role, status, created_time, updated_time
        FROM json_to_recordset($2::json) AS given (
            event_id bigint, manager_id bigint, role smallint, status smallint,
            created_time bigint, updated_time bigint)
        WHERE $3::bigint = (SELECT epoch FROM guard)
    )
    SELECT epoch FROM guard
    """,
    writes=True,
)

STATEMENTS = (_TAKE_IDS, _ADD_EVENTS)


class CalendarStore:
    """Reads and writes events. What takes an access raises StaleAccessError, having done nothing, when it no longer holds."""

    def __init__(self, db: Database, sessions: Sessions) -> None:
        self._db = db
        self._sessions = sessions
        self._ids: deque[int] = deque()

    async def take_id(self) -> int:
        """An event id that nobody else has."""
        while not self._ids:
            self._ids.extend(row["id"] for row in await self._db.fetch(_TAKE_IDS, ID_BLOCK))
        return self._ids.popleft()

    async def add_event(self, access: Access, event: Event) -> None:
        """Stores the event with its participants; returns once both are committed."""
        rows = await self._db.fetch(_ADD_EVENTS, _json([_row_of(event)]), _json(event.participants), access.epoch)
        self._sessions.check_epoch(access, rows[0]["epoch"])


class _EventRow(msgspec.Struct, frozen=True):
    """An event's own columns. `ast_json` is text, since PostgreSQL rewrites a JSON string that it takes out of JSON."""

    id: int
    brand: str
    desk: str
    owner_manager_id: int
    created_by: int
    updated_by: int
    type: int
    status: int
    priority: int
    title: str
    ast_json: str
    start_time: int
    end_time: int
    all_day: int
    remind_time: int
    remind_before_sec: int
    reminder_sent_time: int
    customer_id: int
    lead_id: int
    login: int
    created_time: int
    updated_time: int
    version: int


_COLUMNS = _EventRow.__struct_fields__


def _row_of(event: Event) -> _EventRow:
    values = {name: getattr(event, name) for name in _COLUMNS}
    values["ast_json"] = bytes(event.ast_json).decode()
    return _EventRow(**values)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
