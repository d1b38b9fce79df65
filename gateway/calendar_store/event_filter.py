"""Which events to read, and the statement that reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from gateway.access import Access
from gateway.calendar_store.sql import ACCESS, VISIBLE, access_arguments, event_json, like_patterns
from gateway.database import Statement

BYTES_AT_ONCE_MAX = 4_194_304
"""What a page fetched in one go may amount to: half of what may wait for a client, which a page sent at once has to fit in."""
LONG_SECONDS = 604_800
"""Events longer than a week are found by their end, so that the others are found by a start within a week of the range."""
BRANDS_APART_MAX = 8
"""Brands that have branches of their own in a statement; a session of more has its range sorted as a whole."""


class EventFilter(Struct, frozen=True, kw_only=True):
    """Which events to read. 0, an empty string and None do not filter. Strings reach SQL as arguments alone."""

    from_time: int
    to_time: int
    limit: int
    offset: int = 0
    desk_mask: str = "*"
    manager_id: int = 0
    brand: str = ""
    customer_id: int = 0
    lead_id: int = 0
    login: int = 0
    status: int | None = None
    type: int | None = None
    after: tuple[int, int] | None = None


def statement_of(
    access: Access, wanted: EventFilter, rows_max: int, *, adds_up: bool = False
) -> tuple[Statement, *tuple[object, ...]]:
    """The statement and its arguments.

    Only which filters are present, and how many brands are asked for, shapes the text, so there are few texts, each
    prepared once. Each branch comes out of an index in order and stops at the limit: short events and long ones apart
    keep the range of starts that is searched short, and no index has the events of two brands in order.
    `adds_up`: no row follows the one that takes the page over BYTES_AT_ONCE_MAX, and of that one `over` is true.
    """
    arguments: list[object] = [*access_arguments(access), wanted.from_time, wanted.to_time, rows_max, wanted.offset]

    def argument(value: object, kind: str) -> str:
        arguments.append(value)
        return f"${len(arguments)}::{kind}"

    common = [VISIBLE, *_conditions(wanted, argument)]
    after = [argument(value, "bigint") for value in wanted.after or ()]
    limit = "LIMIT $8::bigint"
    branches = "UNION ALL".join(
        f"""
            (SELECT event.* FROM calendar_event AS event, {ACCESS}
            WHERE {_joined_by_and([*common, *at_brand, *_behind(start_time, after), length])}
            ORDER BY {start_time}, event.id {limit} + $9::bigint)
            """  # noqa: S608 - made of fragments of our own; every value is an argument
        for at_brand in _brands_apart(access, wanted, argument)
        for start_time, length in (("event.start_time", _SHORT), (_UNINDEXED_START, _LONG))
    )
    sql = f"""
    SELECT {event_json()} AS event{", event.start_time, event.id" if adds_up else ""} FROM (
        SELECT * FROM ({branches}) AS event
        ORDER BY event.start_time, event.id {limit} OFFSET $9::bigint
    ) AS event
    ORDER BY event.start_time, event.id
    """  # noqa: S608 - made of fragments of our own; every value is an argument
    return Statement(_added_up(sql) if adds_up else sql, writes=False), *arguments


def _added_up(sql: str) -> str:
    """The rows up to the one that is over. OFFSET 0 keeps PostgreSQL from building each row's JSON twice."""
    return f"""
    SELECT event, so_far > {BYTES_AT_ONCE_MAX} AS over FROM (
        SELECT *, sum(octet_length(event)) OVER (ORDER BY start_time, id ROWS UNBOUNDED PRECEDING) AS so_far
        FROM ({sql} OFFSET 0) AS page
    ) AS page
    WHERE so_far - octet_length(event) <= {BYTES_AT_ONCE_MAX}
    ORDER BY start_time, id
    """  # noqa: S608 - made of a statement and a number of our own


_SHORT = f"""event.start_time > $6::bigint - {LONG_SECONDS} AND event.start_time < $7::bigint AND event.end_time >= $6::bigint
            AND (event.end_time > $6::bigint OR event.end_time = event.start_time AND event.start_time >= $6::bigint)"""
"""Overlaps the range and starts within a week of it; most of these are short."""
_UNINDEXED_START = "(event.start_time + 0)"
"""A start that no index is searched by or gives in order.

Nearly all events start before any range, and PostgreSQL does not know the range. A plan that was made while the table
was small, and is kept until the table is analyzed, would go through a whole brand to have the long events in order.
"""
_LONG = f"""{_UNINDEXED_START} <= $6::bigint - {LONG_SECONDS}
            AND event.end_time > $6::bigint AND event.end_time - event.start_time > {LONG_SECONDS}"""
"""Overlaps the range and starts more than a week before it; that it starts before the range's end follows."""


def _joined_by_and(conditions: Sequence[str]) -> str:
    return "\n            AND ".join(conditions)


def _brands_apart(access: Access, wanted: EventFilter, argument: Callable[[object, str], str]) -> list[list[str]]:
    """The conditions on the brand, one list for each branch; VISIBLE holds the rows to the session's own brands as well."""
    brands = [wanted.brand] if wanted.brand else list(dict.fromkeys(access.brands))
    narrow = wanted.manager_id or wanted.customer_id or wanted.lead_id or wanted.login
    if len(brands) > (1 if narrow else BRANDS_APART_MAX):
        return [[]]
    return [[f"event.brand = {argument(brand, 'text')}"] for brand in brands]


def _behind(start_time: str, after: Sequence[str]) -> list[str]:
    return [f"({start_time}, event.id) > ({', '.join(after)})"] if after else []


def _conditions(wanted: EventFilter, argument: Callable[[object, str], str]) -> list[str]:
    """The filters that are present, as conditions on `event`, but for brand and `after`."""
    conditions = []
    include, exclude = like_patterns(wanted.desk_mask)
    if desk := _one_desk(wanted.desk_mask):
        conditions.append(f"event.desk = {argument(desk, 'text')}")
    elif (include, exclude) != (("%",), ()):
        conditions.append(f"event.desk LIKE ANY ({argument(include, 'text[]')})")
        conditions.append(f"NOT event.desk LIKE ANY ({argument(exclude, 'text[]')})")
    conditions += [
        f"event.{name} <> 0 AND event.{name} = {argument(value, 'bigint')}"
        for name in ("customer_id", "lead_id", "login")
        if (value := getattr(wanted, name))
    ]
    conditions += [
        f"event.{name} = {argument(value, 'smallint')}"
        for name in ("status", "type")
        if (value := getattr(wanted, name)) is not None
    ]
    if wanted.manager_id:
        conditions.append(f"event.id IN ({_own(argument(wanted.manager_id, 'bigint'))})")
    return conditions


def _one_desk(mask: str) -> str | None:
    """The desk of a mask that names just one, which an index finds."""
    desk = mask.strip()
    return None if not desk or any(sign in desk for sign in "*,!") else desk


def _own(manager: str) -> str:
    """The ids of the events that a manager owns, created or takes part in; the owner has a participant's row too."""
    return f"""
                SELECT event_id FROM calendar_participant AS own
                WHERE own.manager_id = {manager}
                AND own.start_time > $6::bigint - {LONG_SECONDS} AND own.start_time < $7::bigint AND own.end_time >= $6::bigint
                UNION
                SELECT event_id FROM calendar_participant AS own
                WHERE own.manager_id = {manager}
                AND own.end_time > $6::bigint AND own.end_time - own.start_time > {LONG_SECONDS}
                UNION
                SELECT own.id FROM calendar_event AS own
                WHERE own.created_by = {manager}
                AND own.start_time > $6::bigint - {LONG_SECONDS} AND own.start_time < $7::bigint AND own.end_time >= $6::bigint
                UNION
                SELECT own.id FROM calendar_event AS own
                WHERE own.created_by = {manager} AND own.created_by > 0
                AND own.end_time > $6::bigint AND own.end_time - own.start_time > {LONG_SECONDS}
    """  # noqa: S608 - made of fragments of our own
