"""The fragments that the store's statements share: who may read a row, and a row as the reply's JSON.

A row `access` is what a session may do; its desk mask is two lists of LIKE patterns.
"""

from __future__ import annotations

import re
from functools import lru_cache

from gateway.access import Access, split_mask
from gateway.event import Event, Participant

EVENT_COLUMNS = tuple(name for name in Event.__struct_fields__ if name != "participants")
PARTICIPANT_COLUMNS = Participant.__struct_fields__

VISIBLE = """
    event.brand = ANY (access.brands)
    AND (
        (event.desk LIKE ANY (access.include) AND NOT event.desk LIKE ANY (access.exclude))
        OR event.owner_manager_id = access.manager_id
        OR event.created_by = access.manager_id
        OR EXISTS (
            SELECT FROM calendar_participant AS own WHERE own.event_id = event.id AND own.manager_id = access.manager_id
        )
    )
    AND access.epoch = (SELECT epoch FROM access_epoch)
"""
"""The one place that decides what a session sees of `event`, given a row `access`. False once the access no longer holds."""

ACCESS = """(
    SELECT $1::bigint AS manager_id, $2::text[] AS brands, $3::text[] AS include, $4::text[] AS exclude, $5::bigint AS epoch
) AS access"""
"""The row `access` from a statement's first arguments, in the order of `access_arguments`."""


def event_json(participants: str = "calendar_participant") -> str:
    """The full event of the row `event` as compact JSON, the owner first among the participants, then by manager id."""
    return f"""
    row_to_json((SELECT reply FROM (SELECT {", ".join(f"event.{name}" for name in EVENT_COLUMNS)}, (
        SELECT '[' || string_agg(row_to_json(participant)::text, ',') || ']'
        FROM (
            SELECT {", ".join(PARTICIPANT_COLUMNS)} FROM {participants} WHERE event_id = event.id
            ORDER BY manager_id <> event.owner_manager_id, manager_id
        ) AS participant
    )::json AS participants) AS reply))::text
    """  # noqa: S608 - made of column names of our own


def access_arguments(access: Access) -> tuple[object, ...]:
    """The arguments that ACCESS takes."""
    include, exclude = like_patterns(access.desk_mask)
    return access.manager_id, access.brands, include, exclude, access.epoch


@lru_cache(maxsize=4096)
def like_patterns(mask: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A desk mask as LIKE patterns: those that cover, and those that exclude. `%` and `_` are ordinary in a mask."""
    include, exclude = split_mask(mask)
    return tuple(map(_like, include)), tuple(map(_like, exclude))


def _like(pattern: str) -> str:
    return re.sub(r"\*+", "%", re.sub(r"([\\%_])", r"\\\1", pattern))
