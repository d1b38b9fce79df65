"""A database role that does not own the tables: what it needs, and what is said where it lacks something."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from gateway import grants
from gateway.composition import STATEMENTS
from gateway.errors import StartupError
from gateway.grants import SERVING, TOOLS
from tests.conftest import PASSWORD, SECRET, started
from tests.test_cli import assert_refused, run
from tests.test_docs import README

BLOCKS = re.findall(r"(?:^ +GRANT .*;\n)+", README.read_text(), re.MULTILINE)
"""The statements of the README: for serving, and for the tools as well."""


def granted(statements: str) -> set[tuple[str, str]]:
    """Every object and privilege in them."""
    found = re.findall(r"GRANT (.+) ON (.+) TO server;", statements)
    each = [(names.split(", "), privileges.split(", ")) for privileges, names in found]
    return {pair for names, privileges in each for pair in itertools.product(names, privileges)}


def needed(what: dict[str, tuple[str, ...]]) -> set[tuple[str, str]]:
    return {(name, privilege) for name, privileges in what.items() for privilege in privileges}


@pytest.fixture
async def server_dsn(db: Any, dsn: str) -> AsyncIterator[str]:
    """The address for a role `server`, without any rights as yet."""
    await db.execute("CREATE ROLE server")
    yield f"{dsn}&role=server"
    await db.execute("DROP OWNED BY server; DROP ROLE server")


def test_readme_lists_what_is_looked_for() -> None:
    """Neither more nor less."""
    assert [needed(SERVING), needed(TOOLS)] == [granted(BLOCKS[0]), granted("".join(BLOCKS))]


async def test_role_with_the_grants_of_the_readme_serves(db: Any, server_dsn: str, connect: Any) -> None:
    """Everything: every statement passes, and so do the triggers and the sequence behind them."""
    await db.execute(BLOCKS[0])
    server = await asyncpg.connect(server_dsn)
    for statement in STATEMENTS:
        await server.execute(f"EXPLAIN (GENERIC_PLAN) {statement.sql}")
    await server.close()
    async with started(server_dsn) as gateway:
        client = await connect(gateway)
        event = await client.add()
        page = {"from": 0, "to": 10**11, "limit": 1, "offset": 0, "deskFilter": "*"}
        for name, data in (
            ("MngUpdateCalendarEvent", {"id": event["id"], "title": "Another", "participants": []}),
            ("MngGetCalendarEventsByFilter", page),
            ("MngDeleteCalendarEvent", {"id": event["id"]}),
            ("MngLogout", None),
        ):
            assert (name, 200) == (name, (await client.command(name, data))["status"])


async def test_each_missing_right_stops_the_start(db: Any, server_dsn: str) -> None:
    """With the statement that grants it, for this very role; nothing is missing twice."""
    await db.execute(BLOCKS[0])
    server = await asyncpg.connect(server_dsn)
    await grants.require(server)
    for name, privilege in sorted(needed(SERVING)):
        await db.execute(f"REVOKE {privilege} ON {name} FROM server")
        with pytest.raises(StartupError, match=f"of the tables: GRANT {privilege} ON {name} TO server$"):
            await grants.require(server)
        await db.execute(f"GRANT {privilege} ON {name} TO server")
    await server.close()


async def test_role_without_rights_is_told_what_to_grant(db: Any, server_dsn: str) -> None:
    """One line and exit code 2: a tool names what it was not let at, `serve` all that is missing; granted, they work."""
    here = {"database_url": server_dsn, "token_secret": SECRET, "connections_max": "100"}
    version = "permission denied for table schema_version). As the owner of the tables: GRANT SELECT ON schema_version TO user"
    add = ("manager", "add", "--id", "20", "--login", "anna", "--brand", "b", "--password-file", "-")
    refused = {
        ("schema", "check"): version,
        ("manager", "list"): version,
        ("token", "--manager", "10"): version,
        ("load", "--commands", "1"): version,
        ("serve", "--port", "0"): "GRANT SELECT ON schema_version TO server; GRANT SELECT, UPDATE ON access_epoch TO server; ",
    }
    ended = await asyncio.gather(*[run(*each, **here) for each in refused])
    assert_refused(dict(zip(refused.items(), ended, strict=True)))
    assert [1] * len(refused) == [len(each.err.splitlines()) for each in ended]
    await db.execute(BLOCKS[0])
    told = (await run(*add, stdin=PASSWORD, **here)).err
    assert "table manager). As the owner of the tables: GRANT SELECT, INSERT, UPDATE ON manager TO user" in told
    await db.execute(BLOCKS[1])
    await db.execute("INSERT INTO session (id, manager_id, expires_time) VALUES ('a', 10, 9e9)")
    for work in (add, ("manager", "disable", "12"), ("revoke", "--jti", "a"), ("revoke", "--jti", "b", "--issuer", "c")):
        assert (work, 0, "") == (work, (done := await run(*work, stdin=PASSWORD, **here)).code, done.err)
