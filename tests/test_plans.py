"""The plans of the calendar's reads on a filled table: each comes out of an index that was made for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from gateway.access import Access
from gateway.calendar_store import statements
from gateway.calendar_store.event_filter import EventFilter, statement_of
from gateway.database import connect_arguments
from gateway.tokens import Session
from tests.conftest import settings_for_tests

EVENTS, MONTH, WEEK = 30_000, 30 * 86_400, 7 * 86_400
FROM = 1_710_000_000
ACCESS = Access(Session("s", 1005, 1), 1005, 10, ("red", "blue"), "DESK_1*,!DESK_11", 1)
ONE_BRAND = Access(Session("s", 1005, 1), 1005, 10, ("red",), "*", 1)

FILL = f"""
    INSERT INTO calendar_event
    SELECT id, (ARRAY['red', 'blue', 'green'])[1 + id % 3], 'DESK_' || id % 40, 1000 + id % 300, 1000 + id % 301, 1,
        0, id % 4, 0, 'title', NULL, start_time, start_time + CASE WHEN id % 100 = 0 THEN 15000000 ELSE 3600 END,
        0, 0, 0, 0, CASE id % 10 WHEN 0 THEN id ELSE 0 END, CASE id % 10 WHEN 1 THEN id ELSE 0 END,
        CASE id % 10 WHEN 2 THEN id ELSE 0 END, 1, 1, 1
    FROM generate_series(1, {EVENTS}) AS id, LATERAL (SELECT {FROM} + id * 997 % {3 * 365 * 86_400} AS start_time) AS at
"""
"""Events over three years; most last an hour, some half a year; some belong to a customer, a lead or a login."""
REST = """
    INSERT INTO calendar_participant
    SELECT id, owner_manager_id, 0, 1, 1, 1, start_time, end_time FROM calendar_event
    UNION ALL SELECT id, 2000 + id % 307, 1, 0, 1, 1, start_time, end_time FROM calendar_event
    UNION ALL SELECT id, 3000 + id % 311, 1, 0, 1, 1, start_time, end_time FROM calendar_event;
    ANALYZE calendar_event; ANALYZE calendar_participant;
"""


@pytest.fixture
async def filled(dsn: str) -> Any:
    """A connection as the gateway opens it, on a database with many events."""
    db = await asyncpg.connect(**{**connect_arguments(settings_for_tests(), dsn), "command_timeout": 60})
    await db.execute("SET statement_timeout = '60s'")
    await db.execute(FILL)
    await db.execute(REST)
    yield db
    await db.close()


def literal(value: object) -> str:
    """An argument as SQL."""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple):
        return f"ARRAY[{', '.join(map(literal, value))}]::text[]"
    return "'" + str(value).replace("'", "''") + "'"


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


async def scans(db: Any, sql: str, *arguments: object) -> set[str]:
    """What the statement's generic plan reads the calendar's tables by: names of indexes, and other scans."""
    await db.execute(f"PREPARE asked AS {sql}")
    try:
        plan = await db.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE asked ({', '.join(map(literal, arguments))})")
    finally:
        await db.execute("DEALLOCATE asked")
    found = set()
    for node in nodes(json.loads(plan)[0]["Plan"]):
        if node.get("Relation Name", "").startswith("calendar_") or "Index Name" in node:
            found.add(node.get("Index Name") or f"{node['Node Type']} of {node['Relation Name']}")
    return found


def wanted(**changes: Any) -> EventFilter:
    return EventFilter(**{"from_time": FROM + 10 * MONTH, "to_time": FROM + 10 * MONTH + WEEK, "limit": 200, **changes})


AFTER = (FROM + 10 * MONTH + 3600, 77)
READS: list[tuple[str, Access, EventFilter, set[str]]] = [
    (
        "a manager's month",
        ACCESS,
        wanted(to_time=FROM + 11 * MONTH, manager_id=1005),
        {"participant_by_manager_and_start", "long_participant_by_end", "event_by_creator_and_start"},
    ),
    ("a desk's week", ACCESS, wanted(brand="red", desk_mask="DESK_3"), {"event_by_desk_and_start"}),
    ("a desk's week of one brand", ONE_BRAND, wanted(desk_mask="DESK_3"), {"event_by_desk_and_start"}),
    ("a page behind a row", ONE_BRAND, wanted(after=AFTER), {"event_by_brand_and_start"}),
    ("a page of one brand", ONE_BRAND, wanted(), {"event_by_brand_and_start", "long_event_by_end"}),
    ("a customer's events", ACCESS, wanted(customer_id=50), {"event_by_customer"}),
    ("a lead's events", ACCESS, wanted(lead_id=51), {"event_by_lead"}),
    ("a login's events", ACCESS, wanted(login=52), {"event_by_login"}),
]


async def test_filters_read_their_indexes(filled):
    """No filter that people use reads a whole table, in the generic plan that the gateway's connections are set to."""
    assert "force_generic_plan" == await filled.fetchval("SHOW plan_cache_mode")
    for name, access, filters, indexes in READS:
        statement, *arguments = statement_of(access, filters, filters.limit + 1)
        found = await scans(filled, statement.sql, *arguments)
        assert [] == [scan for scan in found if "Seq Scan" in scan], name
        assert indexes <= found, (name, found)


async def test_pages_behind_a_row_start_at_that_row(filled):
    """`after` is a condition of the index itself, so that what lies before the row is not even looked at."""
    statement, *arguments = statement_of(ONE_BRAND, wanted(after=AFTER), 201)
    await filled.execute(f"PREPARE asked AS {statement.sql}")
    plan = await filled.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE asked ({', '.join(map(literal, arguments))})")
    found = [node for node in nodes(json.loads(plan)[0]["Plan"]) if node.get("Index Name") == "event_by_brand_and_start"]
    assert found
    assert all(re.search(r"ROW\([\w.]*start_time, [\w.]*id\) > ROW\(", node["Index Cond"]) for node in found), found


async def test_statements_on_single_events_read_their_keys(filled):
    """Reads, changes and deletes by id go by the primary keys, also when many share a statement."""
    keys = {"event_id_is_unique", "participant_once_per_event"}
    writes = {f"ModifyTable of {table}" for table in ("calendar_event", "calendar_participant", "idempotency_key")}
    for statement, read in (
        (statements.GET_EVENTS, keys),
        (statements.CHANGE_EVENTS, keys),
        (statements.CHANGE_KEYED_EVENTS, keys),
        (statements.DELETE_EVENTS, {"event_id_is_unique"}),
        (statements.DELETE_KEYED_EVENTS, {"event_id_is_unique"}),
    ):
        wanted_arguments = [*["[]"] * (len(set(re.findall(r"\$\d", statement.sql))) - 1), "1s"]
        if "keyed AS" not in statement.sql:
            wanted_arguments[-1] = "[]"
        assert read == await scans(filled, statement.sql, *wanted_arguments) - writes
