"""The version of the database schema, and the ordered SQL steps that lead to it. `schema.sql` shows where they end.

A step leaves the gateways of earlier versions running: it takes away or renames nothing that they use, and asks for nothing
that they do not write. So the schema is applied first, and gateways follow one by one.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import asyncpg

from gateway.database_errors import UNREACHABLE, unreachable
from gateway.errors import StartupError

_LOCK = 7_033_801_947_235
"""Advisory lock that two gateways which start at once apply the steps under; any constant of our own."""


def steps() -> list[str]:
    """The SQL of every step; step n leads from version n-1 to version n."""
    files = sorted(resources.files("gateway.schema_steps").iterdir(), key=lambda file: file.name)
    return [file.read_text() for file in files if file.name.endswith(".sql")]


def current_version() -> int:
    """The version this gateway works with."""
    return len(steps())


async def version_of(db: Any) -> int:
    """The version of the connected database; 0 is an empty one. Raises StartupError for tables of somebody else."""
    if await db.fetchval("SELECT to_regclass('schema_version') IS NOT NULL"):
        version = await db.fetchval("SELECT coalesce(max(version), 0) FROM schema_version")
        assert isinstance(version, int)
        return version
    if await db.fetchval("SELECT to_regclass('calendar_event') IS NOT NULL OR to_regclass('manager') IS NOT NULL"):
        raise StartupError(
            "The database has tables of the gateway's names but no schema_version: it was not made by "
            "`gateway schema apply`. Name an empty database in GATEWAY_DATABASE_URL."
        )
    return 0


async def apply(db: Any) -> tuple[int, int]:
    """Takes the database forward to the current version in one transaction; returns the versions before and after.

    Raises StartupError when the database is newer than this gateway, cannot hold every text, or is somebody else's.
    """
    await _require_utf8(db)
    try:
        return await _forward(db)
    except asyncpg.InsufficientPrivilegeError as error:
        raise StartupError(
            f"PostgreSQL does not let this user make the tables ({error}): it must own the database and what is in it. "
            "As its superuser: ALTER DATABASE name OWNER TO user"
        ) from None


async def _forward(db: Any) -> tuple[int, int]:
    async with db.transaction():
        await db.execute("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0")
        await db.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        before = await version_of(db)
        if before > current_version():
            raise mismatch(before)
        for number, sql in enumerate(steps()[before:], start=before + 1):
            await db.execute(sql)
            await db.execute("INSERT INTO schema_version (version) VALUES ($1)", number)
    return before, current_version()


async def check(db: Any) -> None:
    """Raises StartupError when the database is not at the current version, or cannot hold every text."""
    await _require_utf8(db)
    version = await version_of(db)
    if version != current_version():
        raise mismatch(version)


async def _require_utf8(db: Any) -> None:
    encoding = await db.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise StartupError(
            f"The database has the encoding {encoding}, which cannot hold every title: make one with "
            "createdb --encoding=UTF8 --template=template0"
        )


def mismatch(version: int) -> StartupError:
    """The message for a database of another version."""
    if version > current_version():
        return StartupError(
            f"The database schema has version {version}, newer than this gateway's {current_version()}: "
            "install the gateway that made it, or a later one."
        )
    return StartupError(
        f"The database schema has version {version}, this gateway needs {current_version()}. Run: gateway schema apply"
    )


async def connect(arguments: dict[str, Any]) -> Any:
    """A database connection outside the pool, for steps and checks. Raises StartupError when PostgreSQL cannot be reached."""
    try:
        return await asyncpg.connect(**{**arguments, "command_timeout": None})
    except UNREACHABLE as error:
        raise unreachable(error) from error
