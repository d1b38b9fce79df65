"""The steps, the version, and schema.sql, which shows where the steps end."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from gateway import schema
from gateway.embedded import bin_dir
from gateway.errors import StartupError
from tests.conftest import started

SCHEMA_SQL = Path(__file__).parent.parent / "schema.sql"


@pytest.fixture
async def empty(dsn, db):
    """A database without anything in it."""
    await db.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return db


def dumped(dsn: str) -> list[str]:
    """The schema as pg_dump writes it, less the lines that differ on every call."""
    command = [str(bin_dir() / "pg_dump"), "--schema-only", "--no-owner", "--no-privileges", dsn]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line for line in text.splitlines() if line and not line.startswith(("--", "\\"))]


async def test_steps_add_up_to_schema_sql(dsn, empty):
    """An empty database taken through the steps equals one made by schema.sql, version included."""
    await schema.apply(empty)
    by_steps = dumped(dsn), await schema.version_of(empty)
    await empty.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await empty.execute(SCHEMA_SQL.read_text())
    assert by_steps == (dumped(dsn), await schema.version_of(empty))


async def test_apply_takes_every_earlier_version_forward(empty):
    """From each version there ever was, apply reaches the current one."""
    for version in range(schema.current_version()):
        await empty.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        for number, sql in enumerate(schema.steps()[:version], start=1):
            await empty.execute(sql)
            await empty.execute("INSERT INTO schema_version (version) VALUES ($1)", number)
        assert (version, schema.current_version()) == await schema.apply(empty)


async def test_apply_again_changes_nothing(empty):
    """A second apply finds nothing to do."""
    await schema.apply(empty)
    assert (schema.current_version(), schema.current_version()) == await schema.apply(empty)


async def test_apply_is_one_transaction(empty, monkeypatch):
    """A step that fails leaves nothing of the steps before it."""
    monkeypatch.setattr(schema, "steps", lambda: [*schema_steps, "SELECT 1/0"])
    with pytest.raises(asyncpg.DivisionByZeroError):
        await schema.apply(empty)
    assert await schema.version_of(empty) == 0


async def test_newer_version_is_refused(db):
    """A database of a later gateway is neither served nor taken anywhere."""
    await db.execute("INSERT INTO schema_version (version) VALUES (999)")
    with pytest.raises(StartupError, match="newer"):
        await schema.check(db)
    with pytest.raises(StartupError, match="newer"):
        await schema.apply(db)


def test_steps_leave_earlier_gateways_running():
    """None takes away or renames what a gateway reads, or asks for what it does not write. Nothing ran before the third."""
    breaking = r"DROP (TABLE|COLUMN)|RENAME|ALTER COLUMN|ADD COLUMN (?![^;]*DEFAULT)[^;]*NOT NULL"
    assert [] == [sql for sql in schema.steps()[2:] if re.search(breaking, sql, re.IGNORECASE)]
    assert re.search(breaking, schema.steps()[1])


async def test_earlier_version_names_the_command_to_run(empty):
    """The message for an old or empty database says what to type."""
    with pytest.raises(StartupError, match="gateway schema apply"):
        await schema.check(empty)


async def test_tables_of_somebody_else_are_left_alone(empty):
    """A database with a table of ours but no version is not touched."""
    await empty.execute("CREATE TABLE manager (id int)")
    with pytest.raises(StartupError, match="empty database"):
        await schema.apply(empty)


schema_steps = schema.steps()


async def test_apply_by_a_user_who_may_not_says_what_to_do(empty):
    """A role that does not own the database is told what its superuser has to type."""
    await empty.execute("CREATE ROLE stranger; GRANT USAGE ON SCHEMA public TO stranger; SET ROLE stranger")
    try:
        with pytest.raises(StartupError, match=r"permission denied.* ALTER DATABASE name OWNER TO user"):
            await schema.apply(empty)
    finally:
        await empty.execute("RESET ROLE; DROP OWNED BY stranger; DROP ROLE stranger")


async def test_database_that_cannot_hold_every_text_is_refused(dsn, db):
    """Neither served nor taken forward, with what to type instead."""
    await db.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    latin = await asyncpg.connect(urlunsplit(urlsplit(dsn)._replace(path="/latin")))
    try:
        for work in (schema.check, schema.apply):
            with pytest.raises(StartupError, match=r"encoding LATIN1.* createdb --encoding=UTF8"):
                await work(latin)
    finally:
        await latin.close()
        await db.execute("DROP DATABASE latin")


async def test_refused_connection_is_told_in_the_words_of_postgresql(dsn):
    """A server that answers was reached; of one that does not no text is shown, which may hold a part of the password."""
    with pytest.raises(StartupError, match=r'PostgreSQL refuses the connection \(database "nosuch" does not exist\)'):
        await schema.connect({"dsn": urlunsplit(urlsplit(dsn)._replace(path="/nosuch"))})
    with pytest.raises(StartupError, match=r"cannot be reached \(\w+\): check host and port.* percent-encoded") as caught:
        await schema.connect({"dsn": "postgresql://gateway:hid/den@127.0.0.1:1/gateway"})
    assert "hid" not in str(caught.value)


async def test_host_that_is_not_known_is_told_as_that(monkeypatch):
    """Without its name: of a password that is not encoded a part is taken for it."""

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known: den")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(StartupError, match=r"its host is not known: check its name .* percent-encoded") as caught:
        await schema.connect({"dsn": "postgresql://gateway:hid@den,nowhere.example/gateway"})
    assert "den" not in str(caught.value)


@pytest.mark.parametrize("sslmode", ["verify-full", "verify-ful"])
async def test_sslmode_that_cannot_be_used_is_named(sslmode, monkeypatch, tmp_path):
    """One without the file that it needs, and one that is misspelt: nobody looks for the fault at the host."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StartupError, match=r"address cannot be used .* sslmode .*verify-full.*/root\.crt"):
        await schema.connect({"dsn": f"postgresql://gateway:hidden@127.0.0.1:1/gateway?sslmode={sslmode}"})


async def test_start_while_the_tables_are_locked_says_so(dsn, db):
    """As by steps that are under way: the address is right, and it is tried again later."""
    async with db.transaction():
        await db.execute("LOCK TABLE calendar_event")
        with pytest.raises(StartupError, match=r"tables in time .*lock timeout.*schema apply.* Try again"):
            async with started(dsn, db_lock_seconds=0.1):
                pass
    async with started(dsn):
        pass
