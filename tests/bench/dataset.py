"""The data: a million events made in SQL from a seed, kept between runs, and ten thousand with the same month in them.

Everything about an event follows from its id and the seed, so the small database holds rows of the large one.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from msgspec import Struct

from gateway import schema
from gateway.access import Access, SessionType
from gateway.settings import Settings
from gateway.tokens import Session, Tokens

SEED = 20_240_310
SMALL_EVENTS = 10_000
BRANDS = 4
MANAGERS_PER_BRAND = 150
DESKS_PER_BRAND = 12
PARTICIPANTS = 3
BASE_TIME = 1_700_000_000
SPAN_SECONDS_PER_MILLION = 63_072_000
"""Two years: a manager then has some 200 rows in a month, and a desk in a week."""
DAY = 86_400
MANAGER_ID = 150
BRAND, DESK = "BRAND_1", "DESK_1_01"
MASK = "DESK_*,!DESK_TEST*"
SECRET = "a secret of the benchmark, long enough to be one"

_PERSON = f"1 + brand_no + {BRANDS} * ((slot + {{}}) % {MANAGERS_PER_BRAND})"
_OTHERS = (0, "1 + h3 % 74", "75 + h4 % 74")
"""The owner and two others of the brand, all different."""

_EVENTS = f"""
    SELECT id, 'BRAND_' || brand_no AS brand,
        'DESK_' || brand_no || '_' || lpad((slot % {DESKS_PER_BRAND})::text, 2, '0') AS desk,
        {_PERSON.format(0)} AS owner_manager_id,
        CASE WHEN h3 % 10 = 0 THEN {_PERSON.format(_OTHERS[1])} ELSE {_PERSON.format(0)} END AS created_by,
        {_PERSON.format(0)} AS updated_by,
        h1 % 7 AS type, h2 % 4 AS status, h3 % 4 AS priority, 'Call about the account ' || h4 AS title,
        json_build_object('type', 'doc', 'content', json_build_array(json_build_object('type', 'text', 'text',
            repeat(md5(id::text) || ' ', 4))))::text::json AS ast_json,
        start_time, start_time + CASE WHEN h4 % 200 = 0 THEN {10 * DAY} ELSE 900 * (1 + h4 % 8) END AS end_time,
        0 AS all_day, start_time - 900 AS remind_time, 900 AS remind_before_sec, 0 AS reminder_sent_time,
        CASE WHEN h1 % 2 = 0 THEN 1 + h1 % 100000 ELSE 0 END AS customer_id,
        CASE WHEN h1 % 2 = 1 THEN 1 + h1 % 100000 ELSE 0 END AS lead_id,
        0 AS login, created_time, created_time AS updated_time, 1 AS version,
        {", ".join(f"{_PERSON.format(other)} AS manager_{number}" for number, other in enumerate(_OTHERS))}
    FROM (
        SELECT *, (created_time + h2 % {30 * DAY}) / 900 * 900 AS start_time, h1 % {MANAGERS_PER_BRAND} AS slot
        FROM (
            SELECT id, id % {BRANDS} AS brand_no, {BASE_TIME} + id * {{span}} / {{events}} AS created_time,
                {", ".join(f"hashint8extended(id, {SEED + n}) & 2147483647 AS h{n}" for n in range(1, 5))}
            FROM generate_series(1, {{events}}::bigint) AS id
        ) AS hashed
    ) AS placed
"""
_INVOLVED = f"{MANAGER_ID} IN (created_by, manager_0, manager_1, manager_2)"
_SMALL = f"""
    WHERE ({_INVOLVED} AND start_time < {{to}} AND end_time > {{from_}})
       OR (NOT {_INVOLVED} AND id % greatest(1, {{events}} / {SMALL_EVENTS}) = 0)
"""
_PARTICIPANTS = """
    INSERT INTO calendar_participant (event_id, manager_id, role, status, created_time, updated_time, start_time, end_time)
    SELECT id, manager, CASE WHEN manager = owner_manager_id THEN 0 ELSE 1 END, 1, created_time, updated_time,
        start_time, end_time
    FROM generated CROSS JOIN LATERAL (VALUES (manager_0), (manager_1), (manager_2)) AS invited (manager)
"""
_MANAGERS = f"""
    INSERT INTO manager (id, login, password_hash, type, brands, desk_mask)
    SELECT id, 'manager' || id, 'none', {int(SessionType.CRM_MANAGER)}, ARRAY['BRAND_' || (id - 1) % {BRANDS}], '{MASK}'
    FROM generate_series(1, {BRANDS * MANAGERS_PER_BRAND}) AS id
"""


class Dataset(Struct, frozen=True):
    """The two databases, and the times that the reads ask for."""

    events: int
    dsn: str
    small_dsn: str

    @property
    def span(self) -> int:
        return SPAN_SECONDS_PER_MILLION * self.events // 1_000_000

    @property
    def end(self) -> int:
        return BASE_TIME + self.span

    @property
    def middle(self) -> int:
        return BASE_TIME + self.span // 2

    @property
    def month(self) -> tuple[int, int]:
        return self.middle, self.middle + 30 * DAY

    @property
    def week(self) -> tuple[int, int]:
        return self.middle, self.middle + 7 * DAY

    @property
    def long_range(self) -> tuple[int, int]:
        """Three quarters of everything, for the pages and the large reply."""
        return BASE_TIME + self.span // 4, BASE_TIME + self.span + 60 * DAY


def with_database(dsn: str, name: str) -> str:
    """The same server's other database."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


async def prepare(dsn: str, events: int) -> Dataset:
    """Makes the databases that are missing or of another generator or schema."""
    dataset = Dataset(events, with_database(dsn, f"bench_{events}"), with_database(dsn, f"bench_{events}_small"))
    for name, only in ((f"bench_{events}", ""), (f"bench_{events}_small", _SMALL)):
        fingerprint = _fingerprint(dataset, only)
        if await _fingerprint_of(with_database(dsn, name)) != fingerprint:
            await _make(dsn, name, dataset, only, fingerprint)
    return dataset


async def open_session(dsn: str) -> tuple[str, Access]:
    """A token of a new session of the benchmark's manager, and what the gateway will make of it."""
    session = Session(str(uuid.uuid4()), MANAGER_ID, int(time.time()) + DAY)
    db = await asyncpg.connect(dsn)
    try:
        await db.execute(
            "INSERT INTO session (id, manager_id, created_time, expires_time) VALUES ($1, $2, $3, $4)",
            session.id,
            session.manager_id,
            int(time.time()),
            session.expires_time,
        )
        epoch = await db.fetchval("SELECT epoch FROM access_epoch")
    finally:
        await db.close()
    access = Access(session, MANAGER_ID, int(SessionType.CRM_MANAGER), (BRAND,), MASK, epoch)
    return Tokens(Settings(token_secret=SECRET)).sign(session), access


async def value(dsn: str, sql: str, *arguments: object) -> Any:
    """The first row of a statement, or None."""
    db = await asyncpg.connect(dsn)
    try:
        return await db.fetchrow(sql, *arguments)
    finally:
        await db.close()


def _fingerprint(dataset: Dataset, only: str) -> str:
    return hashlib.sha256("\n".join((_sql(dataset, only), _PARTICIPANTS, _MANAGERS, *schema.steps())).encode()).hexdigest()


def _sql(dataset: Dataset, only: str) -> str:
    from_, to = dataset.month
    text = f"{_EVENTS} {only and f') AS generated {only}'}"
    return f"{'SELECT * FROM (' if only else ''}{text}".format(span=dataset.span, events=dataset.events, from_=from_, to=to)


async def _fingerprint_of(dsn: str) -> str | None:
    try:
        row = await value(dsn, "SELECT fingerprint FROM bench_data")
    except (asyncpg.InvalidCatalogNameError, asyncpg.UndefinedTableError):
        return None
    return str(row["fingerprint"]) if row else None


async def make_empty(server: str, name: str) -> None:
    """A database with the schema and the managers, and without events."""
    await _create(server, name)
    db = await asyncpg.connect(with_database(server, name))
    try:
        await schema.apply(db)
        await db.execute(_MANAGERS)
    finally:
        await db.close()


async def _make(server: str, name: str, dataset: Dataset, only: str, fingerprint: str) -> None:
    print(f"making the database {name} ...", flush=True)  # noqa: T201 - takes a minute or two
    await _create(server, name)
    db = await asyncpg.connect(with_database(server, name))
    try:
        await schema.apply(db)
        await _fill(db, _sql(dataset, only))
        await db.execute("CREATE TABLE bench_data (fingerprint text)")
        await db.execute("INSERT INTO bench_data VALUES ($1)", fingerprint)
        await db.execute("CHECKPOINT")
    finally:
        await db.close()


async def _create(server: str, name: str) -> None:
    admin = await asyncpg.connect(server)
    try:
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await admin.execute(f"CREATE DATABASE {name}")
    finally:
        await admin.close()


async def _fill(db: Any, sql: str) -> None:
    """Rows first, indexes after; foreign keys are not asked about rows that a generator made."""
    await db.execute(
        "SET synchronous_commit = off; SET session_replication_role = replica; SET maintenance_work_mem = '1GB';"
        " SET work_mem = '256MB'; SET max_parallel_maintenance_workers = 2"
    )
    indexes = await db.fetch(
        """
        SELECT indexname, indexdef FROM pg_indexes
        WHERE tablename IN ('calendar_event', 'calendar_participant')
        AND NOT EXISTS (SELECT FROM pg_constraint WHERE conname = indexname)
        """
    )
    for index in indexes:
        await db.execute(f"DROP INDEX {index['indexname']}")
    columns = await db.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'calendar_event'::regclass AND attnum > 0 ORDER BY attnum"
    )
    names = ", ".join(column["attname"] for column in columns)
    await db.execute(f"CREATE UNLOGGED TABLE generated AS {sql}")
    await db.execute(f"INSERT INTO calendar_event ({names}) SELECT {names} FROM generated")
    await db.execute(f"{_PARTICIPANTS}; {_MANAGERS}")
    await db.execute("SELECT setval('calendar_event_id', (SELECT max(id) FROM generated)); DROP TABLE generated")
    for index in indexes:
        await db.execute(index["indexdef"])
    for table in ("calendar_event", "calendar_participant", "manager"):
        await db.execute(f"VACUUM (ANALYZE, FREEZE) {table}")
