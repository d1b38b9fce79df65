"""Commands that share a statement: each is still its own unit of failure, and nothing is acknowledged that is not there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from gateway.errors import CommandError, ErrorCode, Outcome
from gateway.group_commit import GroupCommit
from tests.client import EVENT, Client
from tests.conftest import Running, started
from tests.held import PATIENT
from tests.process import becomes_true, until
from tests.proxy import proxied

POISON = """
    CREATE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.title = 'poison' THEN RAISE EXCEPTION 'poisoned'; END IF;
        IF NEW.title LIKE 'held%' THEN PERFORM pg_advisory_xact_lock_shared(7); END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse_poison BEFORE INSERT OR UPDATE ON calendar_event FOR EACH ROW EXECUTE FUNCTION refuse_poison();
"""
BOTH_WAIT = """
    SELECT count(*) = 2 FROM pg_locks
    WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
SHARES = (64, 1)


async def adds(client: Client, titles: list[str]) -> list[Any]:
    """Adds one event for each title, all in flight at once on one socket; their replies."""
    for number, title in enumerate(titles):
        frame = {"command": "MngAddCalendarEvent", "extID": number, "data": {**EVENT, "title": title}}
        await client.socket.send(json.dumps(frame))
    return [await client.receive() for _ in titles]


async def together(connect: Any, gateway: Running, db: Any, titles: list[str]) -> list[dict[str, Any]]:
    """Adds while both writers are held up, so that all of these wait at the same moment; their replies in order."""
    clients = [await connect(gateway) for _ in titles]
    holders = [await connect(gateway) for _ in range(2)]
    await db.execute("SELECT pg_advisory_lock(7)")
    try:
        async with asyncio.TaskGroup() as tasks:
            held = [tasks.create_task(holder.add(title=f"held {n}")) for n, holder in enumerate(holders)]
            await until(lambda: db.fetchval(BOTH_WAIT))
            replies = [
                tasks.create_task(client.command("MngAddCalendarEvent", {**EVENT, "title": title}))
                for client, title in zip(clients, titles, strict=True)
            ]
            for bystander in [await connect(gateway) for _ in range(2)]:
                await bystander.command("HealthCheck")
            await db.execute("SELECT pg_advisory_unlock(7)")
    finally:
        await db.execute("SELECT pg_advisory_unlock_all()")
    assert all(task.result()["id"] for task in held)
    return [task.result() for task in replies]


async def test_commands_that_wait_together_share_a_commit(start, connect, db):
    """Twenty adds that wait while the writers are busy are stored by fewer transactions."""
    await db.execute(POISON)
    gateway = await start()
    replies = await together(connect, gateway, db, [f"event {n}" for n in range(20)])
    assert [200] * 20 == [reply["status"] for reply in replies]
    count, commits = await db.fetchrow(
        "SELECT count(*), count(DISTINCT xmin::text) FROM calendar_event WHERE title LIKE 'event%'"
    )
    assert count == 20
    assert commits < 20


async def test_sharing_of_one_commits_each_alone(start, connect, db):
    """With the limit at 1 every add has a transaction of its own."""
    await db.execute(POISON)
    gateway = await start(commands_per_commit_max=1)
    await together(connect, gateway, db, [f"event {n}" for n in range(20)])
    assert 20 == await db.fetchval("SELECT count(DISTINCT xmin::text) FROM calendar_event WHERE title LIKE 'event%'")


async def test_quiet_manager_is_in_the_very_next_statement(start, connect, db):
    """Behind 480 adds of one manager that wait, another manager's one is stored by one of the next two statements."""
    await db.execute(POISON)
    gateway = await start(**PATIENT)
    waiting = gateway.gateway._dispatch._services.calendar._adds._waiting
    flooding, quiet = [await connect(gateway) for _ in range(8)], await connect(gateway, login="11")
    holders = [await connect(gateway) for _ in range(2)]
    await db.execute("SELECT pg_advisory_lock(7)")
    async with asyncio.TaskGroup() as tasks:
        for holder in holders:
            tasks.create_task(holder.add(title="held"))
        await until(lambda: db.fetchval(BOTH_WAIT))
        for client in flooding:
            tasks.create_task(adds(client, ["flood"] * 60))
        await becomes_true(lambda: len(waiting) == 480)
        tasks.create_task(quiet.add(title="quiet"))
        await becomes_true(lambda: len(waiting) == 481)
        await db.execute("SELECT pg_advisory_unlock(7)")
    before = await db.fetchval("""
        SELECT count(DISTINCT event.xmin::text) FROM calendar_event AS event, calendar_event AS quiet
        WHERE quiet.title = 'quiet' AND event.title = 'flood' AND event.xmin::text::bigint < quiet.xmin::text::bigint
    """)
    assert before <= 1


@pytest.mark.parametrize("share", SHARES)
async def test_poisoned_command_harms_no_neighbour(start, connect, db, share):
    """The one that PostgreSQL refuses gets an error that says it was not executed; all others are stored once."""
    await db.execute(POISON)
    gateway = await start(commands_per_commit_max=share)
    titles = [f"event {n}" for n in range(10)] + ["poison"] + [f"event {n}" for n in range(10, 20)]
    replies = await together(connect, gateway, db, titles)
    refused = [(reply["error"], reply["outcome"]) for reply in replies if reply["status"] != 200]
    assert [("INTERNAL", "not_executed")] == refused
    assert "poison" == titles[[reply["status"] for reply in replies].index(500)]
    stored = await db.fetch("SELECT title FROM calendar_event WHERE title NOT LIKE 'held%'")
    assert sorted(set(titles) - {"poison"}) == sorted(row["title"] for row in stored)


@pytest.mark.parametrize("share", SHARES)
async def test_two_changes_of_one_event_both_take_effect(start, connect, db, share):
    """Two updates in flight at once, of different fields, are both there, one version after the other."""
    gateway = await start(commands_per_commit_max=share)
    first, second = await connect(gateway), await connect(gateway)
    event = await first.add()
    replies = await asyncio.gather(
        first.command("MngUpdateCalendarEvent", {"id": event["id"], "priority": 3}),
        second.command("MngUpdateCalendarEvent", {"id": event["id"], "type": 5}),
    )
    assert [200, 200] == [reply["status"] for reply in replies]
    assert (3, 5, 3) == tuple(await db.fetchrow("SELECT priority, type, version FROM calendar_event"))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("where", ["before", "within", "after"])
async def test_lost_connection_acknowledges_nothing_that_is_not_there(dsn, connect, db, share, where):
    """Adds whose statement is cut are unknown, stored whole or not at all; what is acknowledged is there, once."""
    async with proxied(dsn) as (proxy, through), started(through, commands_per_commit_max=share) as gateway:
        clients = [await connect(gateway) for _ in range(4)]
        await asyncio.gather(*(client.add(title="warm") for client in clients))
        proxy.cut(where, "event 2")
        replies = await asyncio.gather(
            *(adds(client, [f"event {n}{letter}" for n in range(5)]) for client, letter in zip(clients, "abcd", strict=True))
        )
        assert proxy.cuts == 1
        await clients[0].add(title="after the cut")
    acknowledged = [reply["data"]["event"]["title"] for some in replies for reply in some if reply["status"] == 200]
    others = {(reply["error"], reply["outcome"]) for some in replies for reply in some if reply["status"] != 200}
    stored = [row["title"] for row in await db.fetch("SELECT title FROM calendar_event WHERE title LIKE 'event%'")]
    assert {("NO_SERVICE", "unknown")} == others
    assert set() == set(acknowledged) - set(stored)
    assert len(stored) == len(set(stored))
    if where != "after":
        assert sorted(acknowledged) == sorted(stored)
    torn = "SELECT count(*) FROM calendar_event e WHERE NOT EXISTS (SELECT FROM calendar_participant WHERE event_id = e.id)"
    assert 0 == await db.fetchval(torn)


async def test_item_past_its_deadline_is_never_run():
    """What is still behind stuck writers when its time is up fails with TIMEOUT, and is not done once they are free."""
    stuck = asyncio.Event()
    ran: list[str] = []

    async def run(items: Sequence[str]) -> Sequence[str]:
        ran.extend(items)
        await stuck.wait()
        return items

    group = GroupCommit(run, 64, 0, lambda _size: None)
    async with asyncio.TaskGroup() as tasks:
        writers = [tasks.create_task(writer) for writer in group.writers()]
        await asyncio.sleep(0)
        first = [asyncio.ensure_future(group.submit(item, "owner")) for item in ("a", "b")]
        await asyncio.sleep(0)
        late = tasks.create_task(raised(group.submit("late", "owner")))
        await asyncio.sleep(0)
        stuck.set()
        error = await late
        assert ["a", "b"] == [await answer for answer in first] == ran
        for writer in writers:
            writer.cancel()
    assert (ErrorCode.TIMEOUT, Outcome.NOT_EXECUTED) == (error.code, error.outcome)


async def raised(answer: Awaitable[Any]) -> CommandError:
    with pytest.raises(CommandError) as caught:
        await answer
    return caught.value
