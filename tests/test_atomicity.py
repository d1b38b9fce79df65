"""A write that is torn apart in the middle: neither its event nor its participants are written, and the answer says so."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from websockets.exceptions import ConnectionClosedError

from gateway.database import Statement
from tests.client import EVENT
from tests.held import HELD, PATIENT, held_adds, row_counts
from tests.process import becomes_true, gateway_process, until

NOTHING = (0, 0)
both_moments = pytest.mark.parametrize("when", ["BEFORE", "AFTER"])


@both_moments
async def test_add_of_a_killed_gateway_stores_nothing(scratch_dir, dsn, db, connect, when):
    """A gateway killed with an add in the middle leaves neither row, also once the add could go on."""
    serving = gateway_process(scratch_dir, database_url=dsn, **PATIENT)
    async with held_adds(dsn, when) as hold, serving as gateway, asyncio.TaskGroup() as tasks:
        client = await connect(gateway)
        command = tasks.create_task(cut_off(client.command("MngAddCalendarEvent", HELD)))
        await hold.begun()
        await gateway.kill()
        await command
        assert NOTHING == await row_counts(db)
        await hold.given_up()
        await hold.release()
        assert NOTHING == await row_counts(db)


@both_moments
async def test_add_of_a_terminated_backend_stores_nothing(start, dsn, db, connect, when):
    """PostgreSQL said that it ended the statement: the client learns that nothing was done, and the next add works."""
    gateway = await start(**PATIENT)
    async with held_adds(dsn, when) as hold, asyncio.TaskGroup() as tasks:
        client = await connect(gateway)
        command = tasks.create_task(client.command("MngAddCalendarEvent", HELD))
        pid = await hold.begun()
        await db.execute("SELECT pg_terminate_backend($1)", pid)
        reply = await command
        assert [503, "NO_SERVICE", "not_executed"] == [reply["status"], reply["error"], reply["outcome"]]
        await hold.release()
        assert NOTHING == await row_counts(db)
        await client.add()
        assert (1, 1) == await row_counts(db)


@both_moments
async def test_add_of_a_killed_backend_stores_nothing(start, dsn, connect, when):
    """The link broke without an answer: the outcome is unknown to the gateway, and in truth nothing was stored."""
    gateway = await start(**PATIENT)
    async with held_adds(dsn, when) as hold, asyncio.TaskGroup() as tasks:
        client = await connect(gateway)
        command = tasks.create_task(client.command("MngAddCalendarEvent", HELD))
        pid = await hold.begun()
        os.kill(pid, signal.SIGKILL)
        reply = await command
    assert [503, "NO_SERVICE", "unknown"] == [reply["status"], reply["error"], reply["outcome"]]
    db = await recovered(dsn, pid)
    try:
        assert NOTHING == await row_counts(db)
        await until(lambda: client.command("MngAddCalendarEvent", HELD | {"participants": []}), lambda r: r["status"] == 200)
        assert (1, 1) == await row_counts(db)
    finally:
        await db.close()


@both_moments
async def test_update_of_a_terminated_backend_changes_nothing(start, dsn, db, connect, when):
    """An update whose new participant is held up shows nothing to others; torn apart it changed neither event nor guests."""
    gateway = await start(**PATIENT)
    async with held_adds(dsn, when) as hold, asyncio.TaskGroup() as tasks:
        client, other = await connect(gateway), await connect(gateway)
        event = await client.add(participant_manager_ids=[12])
        change = {"id": event["id"], "title": "changed", "start_time": 1_710_000_001, "participant_manager_ids": [11]}
        command = tasks.create_task(client.command("MngUpdateCalendarEvent", change))
        pid = await hold.begun()
        tables = "SELECT title, version, own.* FROM calendar_event JOIN calendar_participant AS own ON event_id = id"
        assert [(10, 1), (12, 1)] == sorted((row["manager_id"], row["version"]) for row in await db.fetch(tables))
        await db.execute("SELECT pg_terminate_backend($1)", pid)
        reply = await command
        assert [503, "NO_SERVICE", "not_executed"] == [reply["status"], reply["error"], reply["outcome"]]
        await hold.release()
    assert {"event": event} == (await other.command("MngGetCalendarEvent", {"id": event["id"]}))["data"]
    changed = (await client.command("MngUpdateCalendarEvent", change))["data"]["event"]
    assert ("changed", 2, [10, 11]) == (
        changed["title"],
        changed["version"],
        [row["manager_id"] for row in changed["participants"]],
    )


async def cut_off(answer: Awaitable[Any]) -> None:
    """The connection ends instead of an answer."""
    with pytest.raises(ConnectionClosedError, match="no close frame"):
        await answer


async def recovered(dsn: str, lost_pid: int) -> Any:
    """A connection to PostgreSQL as soon as it has recovered from the loss of a backend.

    Until it has noticed that, it lets in whom it will soon disconnect.
    """

    async def connection() -> Any:
        with suppress(ProcessLookupError):
            os.kill(lost_pid, 0)
            return None
        try:
            return await asyncpg.connect(dsn)
        except (OSError, asyncpg.PostgresError):
            return None

    return await until(connection)


async def test_statement_is_prepared_once_for_a_connection(start, dsn, db, connect):
    """An add is one message to PostgreSQL: nothing is sent before it that would have to be told apart when it is lost."""
    gateway = await start(db_connections_max=1)
    client = await connect(gateway)
    await client.add()
    named = Statement("SELECT name FROM pg_prepared_statements WHERE statement LIKE $1", writes=False)
    before = await gateway.database.fetch(named, "%INSERT INTO calendar_participant%")
    await client.add()
    assert before
    assert before == await gateway.database.fetch(named, "%INSERT INTO calendar_participant%")


async def test_statements_that_are_seldom_run_do_not_pile_up(start):
    """PostgreSQL keeps what each connection has prepared in memory: of the many texts that filters make, the last hundred."""
    gateway = await start(db_connections_max=1)
    for number in range(150):
        await gateway.database.fetch(Statement(f"SELECT {number}", writes=False))
    count = Statement("SELECT count(*) FROM pg_prepared_statements WHERE statement ~ '^SELECT [0-9]+$'", writes=False)
    row = await gateway.database.fetch_row(count)
    assert row is not None
    assert 100 >= row["count"]


async def test_kept_connection_that_ended_is_replaced(start, dsn, db, connect):
    """PostgreSQL ends connections that nothing runs on: neither the next command nor the gateway itself notices."""
    gateway = await start()
    clients = [await connect(gateway) for _ in range(4)]
    await asyncio.gather(*(client.add() for client in clients))
    ours = "FROM pg_stat_activity WHERE application_name = 'crm-gateway' AND datname = current_database()"
    before = {row["pid"] for row in await db.fetch(f"SELECT pid {ours}")}
    kept = [lent.db._con for lent in gateway.database._idle]
    await db.execute(f"SELECT pg_terminate_backend(pid) {ours}")
    await becomes_true(lambda: kept and all(connection.is_closed() for connection in kept))
    replies = await asyncio.gather(*(client.command("MngAddCalendarEvent", EVENT) for client in clients))
    assert [200] * 4 == [reply["status"] for reply in replies]
    assert before.isdisjoint({row["pid"] for row in await db.fetch(f"SELECT pid {ours}")})


async def test_connection_that_fails_as_a_statement_begins_is_lost(start, db, connect, monkeypatch):
    """asyncpg calls that an internal error of its own: the outcome is unknown, and the connection is not used again."""
    gateway = await start()
    client = await connect(gateway)
    await client.add()

    async def fail(*_arguments):
        raise asyncpg.InternalClientError("cannot switch to state 12; protocol is in the failed state")

    with monkeypatch.context() as patch:
        patch.setattr("asyncpg.prepared_stmt.PreparedStatement.fetch", fail)
        reply = await client.command("MngAddCalendarEvent", EVENT)
    assert [503, "NO_SERVICE", "unknown"] == [reply["status"], reply["error"], reply["outcome"]]
    await client.add()
    assert (2, 2) == await row_counts(db)


async def test_idle_connection_holds_no_lock(start, db):
    """A connection that was opened and not yet used is in no transaction: a step of the schema need not wait for it."""
    await start()
    assert 0 == await db.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'crm-gateway' AND datname"
        " = current_database() AND state <> 'idle'"
    )
