"""The statements on single events, and how several commands are handed to one of them as JSON.

Each row carries the epoch its command was decided at, and is passed over at any other. So is a write to an event that has
moved on since it was read, or that others have locked: no statement waits for an event. A write with an idempotency key is
passed over as well once its key is taken; its key is kept by the very statement that does the write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

import msgspec
from msgspec import Struct

from gateway.access import Access
from gateway.calendar_store.idempotency import WriteKey
from gateway.calendar_store.sql import EVENT_COLUMNS, VISIBLE, access_arguments, event_json
from gateway.database import Statement
from gateway.event import Event


class Write(Struct, frozen=True):
    """An event as it is to be (or to go), the epoch of the access that this was decided by, and the command's key."""

    event: Event
    epoch: int
    key: WriteKey | None


_COPIED_COLUMNS = tuple(name for name in EVENT_COLUMNS if name != "ast_json")
_columns_of = attrgetter(*_COPIED_COLUMNS)
_Row = msgspec.defstruct("_Row", (*_COPIED_COLUMNS, "ast_json", "epoch"), gc=False)
"""An event's own columns and its epoch, as they go to PostgreSQL; a struct is made and encoded in half the time of a dict."""

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
_GIVEN_VERSIONS = "json_to_recordset($1::json) AS given (id bigint, version bigint, epoch bigint)"
_EPOCH_HOLDS = "given.epoch = (SELECT epoch FROM access_epoch)"
_ACCESS_COLUMNS = ("number", "id", "manager_id", "brands", "include", "exclude", "epoch")


def _locking(given: str, version: str, strength: str, wait: str) -> str:
    """CTEs that lock those of the events given that are at `version` and that nobody else has locked; `locked` has their ids.

    How long the rest of the statement waits for its participants is set for this transaction alone.
    """
    return f"""
    patience AS MATERIALIZED (SELECT set_config('lock_timeout', {wait}, true)),
    locked AS MATERIALIZED (
        SELECT event.id FROM patience CROSS JOIN {given} JOIN calendar_event AS event ON event.id = given.id
        WHERE event.version = {version} AND {_EPOCH_HOLDS}
        FOR {strength} OF event SKIP LOCKED
    )"""  # noqa: S608 - made of fragments of our own


def _keeping(keys: str, wait: str, only: str = "true") -> str:
    """CTEs that keep the keys of the writes that pass `only`; `taken` has the ids of events whose key was taken before.

    They enter sorted, or two statements could wait for each other. How long they wait for one that another process is
    writing is set for this transaction alone.
    """
    return f"""
    keyed AS MATERIALIZED (
        SELECT given.* FROM set_config('lock_timeout', {wait}, true) CROSS JOIN json_to_recordset({keys}::json) AS given (
            event_id bigint, manager_id bigint, key text, digest bytea, reply text, epoch bigint)
        WHERE {_EPOCH_HOLDS} AND {only}
    ),
    kept AS (
        INSERT INTO idempotency_key (manager_id, key, digest, reply)
        SELECT manager_id, key, digest, reply FROM keyed ORDER BY manager_id, key
        ON CONFLICT ON CONSTRAINT idempotency_key_is_used_once DO NOTHING
        RETURNING manager_id, key
    ),
    taken AS (
        SELECT event_id FROM keyed WHERE NOT EXISTS (
            SELECT FROM kept WHERE kept.manager_id = keyed.manager_id AND kept.key = keyed.key)
    )"""  # noqa: S608 - made of fragments of our own


_PASSED = "AND given.id NOT IN (SELECT event_id FROM taken)"
_OF_LOCKED = "given.event_id IN (SELECT id FROM locked)"


def _add_events(keeping: str = "", passed: str = "") -> Statement:
    return Statement(
        f"""
    WITH {keeping and keeping + ","} added AS (
        INSERT INTO calendar_event ({_COLUMNS}) SELECT {_VALUES} FROM {_GIVEN_EVENTS} WHERE {_EPOCH_HOLDS} {passed}
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


def _change_events(wait: str, keeping: str = "", passed: str = "") -> Statement:
    return Statement(
        f"""
    WITH wanted AS MATERIALIZED (SELECT * FROM {_GIVEN_EVENTS}),
    {_locking("wanted AS given", "given.version - 1", "NO KEY UPDATE", wait)}, {keeping and keeping + ","} changed AS (
        UPDATE calendar_event AS event SET ({_COLUMNS}) = ROW ({_VALUES})
        FROM locked JOIN wanted AS given ON given.id = locked.id
        WHERE event.id = given.id {passed}
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
        WHERE NOT EXISTS (
            SELECT FROM calendar_participant AS same
            WHERE (same.event_id, same.manager_id) = (given.event_id, given.manager_id)
            AND (same.role, same.status, same.created_time, same.updated_time, same.start_time, same.end_time) = (
                given.role, given.status, given.created_time, given.updated_time, changed.start_time, changed.end_time))
        ON CONFLICT ON CONSTRAINT participant_once_per_event DO UPDATE
        SET (role, status, created_time, updated_time, start_time, end_time) = (
            excluded.role, excluded.status, excluded.created_time, excluded.updated_time,
            excluded.start_time, excluded.end_time)
    )
    SELECT id, {event_json("given")} AS event FROM changed AS event
    """,  # noqa: S608 - made of column names of our own
        writes=True,
    )


def _delete_events(wait: str, keeping: str = "", passed: str = "") -> Statement:
    return Statement(
        f"""
    WITH {_locking(_GIVEN_VERSIONS, "given.version", "UPDATE", wait)} {keeping and "," + keeping}
    DELETE FROM calendar_event AS event USING locked AS given WHERE event.id = given.id {passed}
    RETURNING event.id
    """,  # noqa: S608 - made of column names of our own
        writes=True,
    )


GET_EVENTS = Statement(
    f"""
    SELECT access.number, {event_json()} AS event
    FROM json_to_recordset($1::json) AS access (
        number integer, id bigint, manager_id bigint, brands text[], include text[], exclude text[], epoch bigint)
    JOIN calendar_event AS event ON event.id = access.id
    WHERE {VISIBLE}
    """,  # noqa: S608 - made of fragments of our own
    writes=False,
)
ADD_EVENTS = _add_events()
ADD_KEYED_EVENTS = _add_events(_keeping("$3", "$4"), _PASSED)
CHANGE_EVENTS = _change_events("$3")
CHANGE_KEYED_EVENTS = _change_events("$4", _keeping("$3", "$4", _OF_LOCKED), _PASSED)
DELETE_EVENTS = _delete_events("$2")
DELETE_KEYED_EVENTS = _delete_events("$3", _keeping("$2", "$3", _OF_LOCKED), _PASSED)
KEEP_KEYS = Statement(
    f"WITH {_keeping('$1', '$2')} SELECT manager_id, key FROM kept",  # noqa: S608 - made of fragments of our own
    writes=True,
)

STATEMENTS = (
    GET_EVENTS,
    ADD_EVENTS,
    ADD_KEYED_EVENTS,
    CHANGE_EVENTS,
    CHANGE_KEYED_EVENTS,
    DELETE_EVENTS,
    DELETE_KEYED_EVENTS,
    KEEP_KEYS,
)


def events_of(batch: Sequence[Write]) -> str:
    """The events' own columns. `ast_json` goes as text: PostgreSQL rewrites a JSON string that it takes out of JSON."""
    return _json([_Row(*_columns_of(write.event), bytes(write.event.ast_json).decode(), write.epoch) for write in batch])


def participants_of(batch: Sequence[Write]) -> str:
    """The participants of all events."""
    return _json([participant for write in batch for participant in write.event.participants])


def versions_of(batch: Sequence[Write]) -> str:
    """The events by id and version."""
    return _json([{"id": write.event.id, "version": write.event.version, "epoch": write.epoch} for write in batch])


def accesses_of(batch: Sequence[tuple[Access, int]]) -> str:
    """The events wanted, each with the access it is wanted with, numbered."""
    return _json(
        [
            dict(zip(_ACCESS_COLUMNS, (number, event_id, *access_arguments(access)), strict=True))
            for number, (access, event_id) in enumerate(batch)
        ]
    )


def keys_of(batch: Sequence[Write], reply: Callable[[Event], bytes]) -> str | None:
    """The keys among the writes, each with the reply that it will give again; None when there is no key."""
    keyed = [
        {
            "event_id": write.event.id,
            "manager_id": key.manager_id,
            "key": key.key,
            "digest": "\\x" + key.digest.hex(),
            "reply": reply(write.event).decode(),
            "epoch": write.epoch,
        }
        for write in batch
        if (key := write.key) is not None
    ]
    return _json(keyed) if keyed else None


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
