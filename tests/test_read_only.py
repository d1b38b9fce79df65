"""A database that takes no writes for a time."""

from __future__ import annotations

from functools import partial

from tests.client import EVENT
from tests.process import until

CUT_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


async def test_connections_opened_meanwhile_are_not_kept(gateway, connect, db):
    """They would take no writes for as long as they last; a client that tries again gets through."""
    client = await connect(gateway)
    name = await db.fetchval("SELECT current_database()")
    add = partial(client.command, "MngAddCalendarEvent", EVENT)
    await db.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    await db.execute(CUT_OTHERS)
    refused = await until(add, lambda reply: reply.get("message") == "the database cannot do this now")
    assert (503, "not_executed") == (refused["status"], refused["outcome"])
    for _ in range(5):
        assert 503 == (await add())["status"]
    await db.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    assert 200 in [(await add())["status"] for _ in range(5)]
    assert 200 == (await add())["status"]
    assert not gateway.database.refuses_writes()
