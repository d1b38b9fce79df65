"""The plans of the calendar's reads on a filled table: each comes out of an index that was made for it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from gateway.access import Access
from gateway.calendar_store import statements
from gateway.calendar_store.event_filter import EventFilter, statement_of
from gateway.database import Statement
from gateway.database_pool import connect_arguments
from gateway.tokens import Session
from tests.conftest import settings_for_tests

FEW, MANY, MONTH, WEEK = 30_000, 100_000, 30 * 86_400, 7 * 86_400
FROM = 1_710_000_000
ACCESS = Access(Session("s", 1005, 1), 1005, 10, ("red", "blue"), "DESK_1*,!DESK_11", 1)
FREE = Access(Session("s", 1005, 1), 1005, 10, ("red", "blue"), "*", 1)
ONE_BRAND = Access(Session("s", 1005, 1), 1005, 10, ("red",), "*", 1)

FILL = """
    INSERT INTO calendar_event
    SELECT id, (ARRAY['red', 'blue', 'green'])[1 + id % 3], 'DESK_' || id % 40, 1000 + id % 300, 1000 + id % 301, 1,
        0, id % 4, 0, 'title', NULL, start_time, start_time + CASE WHEN id % 100 = 0 THEN 15000000 ELSE 3600 END,
        0, 0, 0, 0, CASE id % 10 WHEN 0 THEN id ELSE 0 END, CASE id % 10 WHEN 1 THEN id ELSE 0 END,
        CASE id % 10 WHEN 2 THEN id ELSE 0 END, 1, 1, 1
    FROM generate_series(1, $1::bigint) AS id, LATERAL (SELECT 1710000000 + id * 997 % 94608000 AS start_time) AS at
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
async def empty(dsn: str) -> AsyncIterator[Any]:
    """A connection as the gateway opens it."""
    db = await asyncpg.connect(**{**connect_arguments(settings_for_tests(), dsn), "command_timeout": 60})
    await db.execute("SET statement_timeout = '60s'")
    yield db
    await db.close()


async def fill(db: Any, events: int) -> None:
    await db.execute("TRUNCATE calendar_event CASCADE")
    await db.execute(FILL.replace("$1", str(events)))
    await db.execute(REST)


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


async def plan_of(db: Any, statement: Statement, *arguments: object, explain: str = "EXPLAIN") -> list[dict[str, Any]]:
    """The nodes of the statement's generic plan; with `EXPLAIN ANALYZE` they tell what they did."""
    await db.execute(f"PREPARE asked AS {statement.sql}")
    try:
        options = "(ANALYZE, TIMING off, FORMAT JSON)" if "ANALYZE" in explain else "(FORMAT JSON)"
        plan = await db.fetchval(f"EXPLAIN {options} EXECUTE asked ({', '.join(map(literal, arguments))})")
    finally:
        await db.execute("DEALLOCATE asked")
    return list(nodes(json.loads(plan)[0]["Plan"]))


def scans(plan: list[dict[str, Any]]) -> set[str]:
    """What the plan reads the calendar's tables by: names of indexes, and other scans."""
    return {
        node.get("Index Name") or f"{node['Node Type']} of {node['Relation Name']}"
        for node in plan
        if node["Node Type"] != "Bitmap Heap Scan"
        and (node.get("Relation Name", "").startswith("calendar_") or "Index Name" in node)
    }


async def unsearched(db: Any, plan: list[dict[str, Any]]) -> list[str]:
    """The reads of the plan that go through a whole table, or through an index without a value for its first column."""
    first = dict(
        await db.fetch("SELECT relname, attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum = 1")
    )
    found = [scan for scan in scans(plan) if "Seq Scan" in scan]
    return found + [
        f"{node['Index Name']}: {node.get('Index Cond')}"
        for node in plan
        if "Index Name" in node and not re.search(rf"\b{first[node['Index Name']]} = ", node.get("Index Cond", ""))
    ]


def wanted(**changes: Any) -> EventFilter:
    return EventFilter(**{"from_time": FROM + 10 * MONTH, "to_time": FROM + 10 * MONTH + WEEK, "limit": 200, **changes})


AFTER = (FROM + 10 * MONTH + 3600, 77)
STARTS = ("start_time > ($6 - 604800)", "start_time < $7")
LONG = ("brand = $", "end_time > $6")
ROW = re.compile(r"ROW\([\w.]*start_time, [\w.]*id\) > ROW\(\$\d+, \$\d+\)")
Searched = dict[str, tuple[str, ...]]
READS: list[tuple[str, Access, EventFilter, Searched]] = [
    (
        "a manager's month",
        ACCESS,
        wanted(to_time=FROM + 11 * MONTH, manager_id=1005),
        {
            "participant_by_manager_and_start": ("manager_id = $", *STARTS),
            "long_participant_by_end": ("manager_id = $", "end_time > $6"),
            "event_by_creator_and_start": ("created_by = $", *STARTS),
            "long_event_by_creator": ("created_by = $", "end_time > $6"),
            "event_id_is_unique": ("id = ",),
        },
    ),
    (
        "a desk's week",
        ACCESS,
        wanted(brand="red", desk_mask="DESK_3"),
        {"event_by_desk_and_start": ("brand = $", "desk = $", *STARTS)},
    ),
    (
        "a desk's week of one brand",
        ONE_BRAND,
        wanted(desk_mask="DESK_3"),
        {"event_by_desk_and_start": ("brand = $", "desk = $", *STARTS)},
    ),
    ("a page", ONE_BRAND, wanted(), {"event_by_brand_and_start": ("brand = $", *STARTS), "long_event_by_end": LONG}),
    ("a page of two brands", ACCESS, wanted(), {"event_by_brand_and_start": ("brand = $", *STARTS), "long_event_by_end": LONG}),
    (
        "a page behind a row",
        ONE_BRAND,
        wanted(after=AFTER),
        {"event_by_brand_and_start": ("brand = $", "start_time < $7"), "long_event_by_end": LONG},
    ),
    (
        "a page of two brands behind a row",
        ACCESS,
        wanted(after=AFTER),
        {"event_by_brand_and_start": ("brand = $", "start_time < $7"), "long_event_by_end": LONG},
    ),
    ("a customer's events", ACCESS, wanted(customer_id=50), {"event_by_customer": ("customer_id = $",)}),
    ("a lead's events", ACCESS, wanted(lead_id=51), {"event_by_lead": ("lead_id = $",)}),
    ("a login's events", ACCESS, wanted(login=52), {"event_by_login": ("login = $",)}),
]


@pytest.mark.parametrize("events", [FEW, MANY])
async def test_filters_search_their_indexes(empty, events):
    """Each filter that people use searches indexes by what it asks for, in the generic plan that connections are set to."""
    assert "force_generic_plan" == await empty.fetchval("SHOW plan_cache_mode")
    await fill(empty, events)
    for (name, access, filters, indexes), adds_up in itertools.product(READS, (False, True)):
        plan = await plan_of(empty, *statement_of(access, filters, filters.limit + 1, adds_up=adds_up))
        assert [] == await unsearched(empty, plan), name
        for index, conditions in indexes.items():
            found = [node["Index Cond"] for node in plan if node.get("Index Name") == index]
            assert found, (name, index, scans(plan))
            assert any(all(condition in one for condition in conditions) for one in found), (name, index, found)


async def test_pages_read_no_more_than_they_give(empty):
    """Any page of any brands comes out of its index in order, from the row it begins behind: nothing is read to be sorted."""
    await fill(empty, MANY)
    await empty.execute("UPDATE access_epoch SET epoch = $1", FREE.epoch)
    whole = {"from_time": FROM, "to_time": FROM + 36 * MONTH}
    for access in (ONE_BRAND, FREE):
        for after in (None, (FROM + 20 * MONTH, 1)):
            statement, *arguments = statement_of(access, wanted(**whole, after=after), 201)
            plan = await plan_of(empty, statement, *arguments, explain="EXPLAIN ANALYZE")
            ordered = [node for node in plan if node.get("Index Name") == "event_by_brand_and_start"]
            assert ["Index Scan"] * len(access.brands) == [node["Node Type"] for node in ordered]
            assert all(0 < node["Actual Rows"] + node.get("Rows Removed by Filter", 0) <= 201 for node in ordered)
            assert after is None or all(ROW.search(node["Index Cond"]) for node in ordered)


async def test_plans_of_an_empty_table_hold_until_it_is_analyzed(empty):
    """The plans that a new database starts with, which connections keep, go through no brand once it has filled."""
    await empty.execute("ALTER TABLE calendar_event SET (autovacuum_enabled = false)")
    await empty.execute("UPDATE access_epoch SET epoch = $1", ACCESS.epoch)
    asked = []
    for number, (name, access, filters, _) in enumerate(READS):
        statement, *arguments = statement_of(access, filters, filters.limit + 1)
        await empty.execute(f"PREPARE asked_{number} AS {statement.sql}")
        asked.append((name, f"EXECUTE asked_{number} ({', '.join(map(literal, arguments))})"))
        await empty.execute(asked[-1][1])
    await empty.execute(FILL.replace("$1", str(FEW)))
    for name, execute in asked:
        plan = json.loads(await empty.fetchval(f"EXPLAIN (ANALYZE, TIMING off, FORMAT JSON) {execute}"))[0]["Plan"]
        removed = sum(node.get("Rows Removed by Filter", 0) for node in nodes(plan))
        assert removed <= FEW / 15, name
        assert plan["Actual Rows"] or "page" not in name, name


async def test_statements_on_single_events_search_their_keys(empty):
    """Reads, changes and deletes by id go by the primary keys, also when many share a statement."""
    await fill(empty, FEW)
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
        plan = await plan_of(empty, statement, *wanted_arguments)
        assert read == scans(plan) - writes
        assert [] == await unsearched(empty, plan)
