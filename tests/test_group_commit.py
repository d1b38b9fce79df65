"""Commands that share a statement: each is still its own unit of failure, and nothing is acknowledged that is not there."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from gateway.errors import CommandError, ErrorCode, Outcome
from gateway.group_commit import ASIDE_MAX, WRITERS_MAX, GroupCommit
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
ARE_HELD = """
    SELECT count(*) = $1 FROM pg_locks
    WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
WAIT_FOR_ROWS = """
    SELECT count(*) = $1 FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND wait_event IN ('transactionid', 'tuple') AND datname = current_database()
"""
SHARES = (64, 1)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No statement counts as slow on a busy machine."""
    monkeypatch.setattr("gateway.group_commit.SLOW_SECONDS", 60)


def frame_of(command: str, data: dict[str, Any], ext_id: int = 1) -> str:
    return json.dumps({"command": command, "extID": ext_id, "data": data})


async def adds(client: Client, titles: list[str]) -> list[Any]:
    """Adds one event for each title, all in flight at once on one socket; their replies."""
    for number, title in enumerate(titles):
        await client.socket.send(frame_of("MngAddCalendarEvent", {**EVENT, "title": title}, number))
    return [await client.receive() for _ in titles]


def adds_of(gateway: Running) -> GroupCommit[Any, Any]:
    """What the gateway's adds share their statements by."""
    group: GroupCommit[Any, Any] = gateway.gateway._dispatch._services.calendar._adds
    return group


@asynccontextmanager
async def writers_held(connect: Any, gateway: Running, db: Any, share: int) -> AsyncIterator[None]:
    """While the block lasts both writers wait for a lock: one with a lone add, one with as many as go together."""
    lone, many = [await connect(gateway) for _ in range(WRITERS_MAX)]
    await db.execute("SELECT pg_advisory_lock(7)")
    try:
        async with asyncio.TaskGroup() as tasks:
            held = [tasks.create_task(adds(lone, ["held"]))]
            await until(lambda: db.fetchval(ARE_HELD, 1))
            held.append(tasks.create_task(adds(many, ["held"] * share)))
            await until(lambda: db.fetchval(ARE_HELD, 2))
            yield
            await db.execute("SELECT pg_advisory_unlock(7)")
    finally:
        await db.execute("SELECT pg_advisory_unlock_all()")
    assert [200] * (1 + share) == [reply["status"] for task in held for reply in task.result()]


async def together(connect: Any, gateway: Running, db: Any, titles: list[str], share: int) -> list[dict[str, Any]]:
    """Adds while both writers are held up, so that all of these wait at the same moment; their replies in order."""
    clients = [await connect(gateway) for _ in titles]
    async with asyncio.TaskGroup() as tasks, writers_held(connect, gateway, db, share):
        replies = [
            tasks.create_task(client.command("MngAddCalendarEvent", {**EVENT, "title": title}))
            for client, title in zip(clients, titles, strict=True)
        ]
        await becomes_true(lambda: len(adds_of(gateway)._waiting) == len(titles))
    return [task.result() for task in replies]


async def test_commands_that_wait_together_share_a_commit(start, connect, db):
    """Twenty adds that wait while the writers are busy are stored by fewer transactions."""
    await db.execute(POISON)
    gateway = await start(commands_per_commit_max=64)
    replies = await together(connect, gateway, db, [f"event {n}" for n in range(20)], 64)
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
    await together(connect, gateway, db, [f"event {n}" for n in range(20)], 1)
    assert 20 == await db.fetchval("SELECT count(DISTINCT xmin::text) FROM calendar_event WHERE title LIKE 'event%'")


async def test_quiet_manager_is_in_one_of_the_next_statements(start, connect, db):
    """Behind 480 adds of one manager that wait, eight statements or more, another manager's one is stored by one of the first.

    It is taken for the second; what PostgreSQL does with several at once is its own affair.
    """
    await db.execute(POISON)
    gateway = await start(commands_per_commit_max=64, **PATIENT)
    waiting = adds_of(gateway)._waiting
    flooding, quiet = [await connect(gateway) for _ in range(8)], await connect(gateway, login="11")
    async with asyncio.TaskGroup() as tasks, writers_held(connect, gateway, db, 64):
        for client in flooding:
            tasks.create_task(adds(client, ["flood"] * 60))
        await becomes_true(lambda: len(waiting) == 480)
        tasks.create_task(quiet.add(title="quiet"))
        await becomes_true(lambda: len(waiting) == 481)
    before = await db.fetchval("""
        SELECT count(DISTINCT event.xmin::text) FROM calendar_event AS event, calendar_event AS quiet
        WHERE quiet.title = 'quiet' AND event.title = 'flood' AND event.xmin::text::bigint < quiet.xmin::text::bigint
    """)
    assert before <= 3


@pytest.mark.parametrize("share", SHARES)
async def test_poisoned_command_harms_no_neighbour(start, connect, db, share):
    """In a full batch the one that PostgreSQL refuses is told that it was not executed; all others are stored once."""
    await db.execute(POISON)
    gateway = await start(commands_per_commit_max=share)
    sizes: list[float] = []
    adds_of(gateway)._observe_size = sizes.append
    titles = [f"event {n}" for n in range(32)] + ["poison"] + [f"event {n}" for n in range(32, 63)]
    replies = await together(connect, gateway, db, titles, share)
    assert [share] * len(sizes) == sizes if share == 1 else [1, share, share] == sizes
    refused = [(reply["error"], reply["outcome"]) for reply in replies if reply["status"] != 200]
    assert [("INTERNAL", "not_executed")] == refused
    assert "poison" == titles[[reply["status"] for reply in replies].index(500)]
    stored = await db.fetch("SELECT title FROM calendar_event WHERE title NOT LIKE 'held%'")
    assert sorted(set(titles) - {"poison"}) == sorted(row["title"] for row in stored)


@pytest.mark.parametrize("share", SHARES)
async def test_two_changes_of_one_event_both_take_effect(start, connect, db, share):
    """An update that comes while another one's statement is under way, of other fields, is there with it, a version on."""
    await db.execute(POISON)
    gateway = await start(commands_per_commit_max=share, **PATIENT)
    first, second = await connect(gateway), await connect(gateway)
    event_id = (await first.add())["id"]
    await db.execute("SELECT pg_advisory_lock(7)")
    async with asyncio.TaskGroup() as tasks:
        held = tasks.create_task(first.command("MngUpdateCalendarEvent", {"id": event_id, "title": "held", "priority": 3}))
        await until(lambda: db.fetchval(ARE_HELD, 1))
        behind = tasks.create_task(second.command("MngUpdateCalendarEvent", {"id": event_id, "type": 5}))
        await becomes_true(lambda: sum(connection.unanswered for connection in gateway.gateway._connections) == 2)
        await db.execute("SELECT pg_advisory_unlock(7)")
    assert [(200, 2), (200, 3)] == [
        (reply["status"], reply["data"]["event"]["version"]) for reply in (held.result(), behind.result())
    ]
    assert ("held", 3, 5, 3) == tuple(await db.fetchrow("SELECT title, priority, type, version FROM calendar_event"))


async def test_gets_that_waited_for_a_change_are_read_together(start, connect, db):
    """They wait for it, not for each other: one after the other they would hold up all that come later, for seconds."""
    await db.execute(POISON)
    gateway = await start(commands_per_commit_max=64, **PATIENT)
    client = await connect(gateway)
    event_id = (await client.add(title="held"))["id"]
    reads: list[float] = []
    calendar = gateway.gateway._dispatch._services.calendar
    await db.execute("SELECT pg_advisory_lock(7)")
    await client.socket.send(frame_of("MngUpdateCalendarEvent", {"id": event_id, "priority": 3}))
    await until(lambda: db.fetchval(ARE_HELD, 1))
    calendar._gets._observe_size = reads.append
    for number in range(30):
        await client.socket.send(frame_of("MngGetCalendarEvent", {"id": event_id}, number))
    (connection,) = gateway.gateway._connections
    await becomes_true(lambda: connection.unanswered == 31)
    await db.execute("SELECT pg_advisory_unlock(7)")
    assert {2} == {(await client.receive())["data"]["event"]["version"] for _ in range(31)}
    assert 30 == sum(reads)
    assert len(reads) < 30


CHANGES: list[tuple[str, dict[str, Any]]] = [("MngUpdateCalendarEvent", {"priority": 3}), ("MngDeleteCalendarEvent", {})]


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize(("command", "fields"), CHANGES)
async def test_events_that_others_have_locked_hold_up_no_other(start, connect, db, dsn, command, fields, keyed, share):
    """More of them than connections: others' changes, in the same statements as theirs, are done and none waits in PostgreSQL.

    They are done once the events are let go.
    """
    gateway = await start(commands_per_commit_max=share, db_connections_max=4, **PATIENT)
    client, other = await connect(gateway), await connect(gateway, login="11")
    locked = [(await client.add())["id"] for _ in range(20)]
    ids = [(await other.add())["id"] for _ in range(20)]

    async def send(client: Client, event_id: int) -> None:
        frame = {"command": command, "extID": event_id, "data": {"id": event_id, **fields}}
        await client.socket.send(json.dumps(frame | ({"idempotencyKey": f"key {event_id}"} if keyed else {})))

    locker = await asyncpg.connect(dsn)
    async with locker.transaction():
        await locker.execute("SELECT FROM calendar_event WHERE id = ANY ($1) FOR UPDATE", locked)
        for event_id, free in zip(locked, ids, strict=True):
            await send(client, event_id)
            await send(other, free)
        assert {200} == {(await other.receive())["status"] for _ in ids}
        assert 200 == (await other.command("MngGetCalendarEvent", {"id": (await other.add())["id"]}))["status"]
        assert await db.fetchval(WAIT_FOR_ROWS, 0)
        assert 0 == await db.fetchval("SELECT count(*) FROM calendar_event WHERE id = ANY ($1) AND version > 1", locked)
    await locker.close()
    assert sorted((event_id, 200) for event_id in locked) == sorted(
        [((reply := await client.receive())["extID"], reply["status"]) for _ in locked]
    )
    done = "count(*) FILTER (WHERE version = 2) = 40" if fields else "count(*) = 1"
    assert await db.fetchval(f"SELECT {done} FROM calendar_event")


@pytest.mark.parametrize(("command", "fields"), CHANGES)
async def test_event_that_stays_locked_is_told_in_time(start, connect, dsn, command, fields):
    """Nothing of the change is done, now or when the event is let go; the same command works then."""
    gateway = await start(db_lock_seconds=0.2)
    client = await connect(gateway)
    event_id = (await client.add())["id"]
    locker = await asyncpg.connect(dsn)
    async with locker.transaction():
        await locker.execute("SELECT FROM calendar_event FOR UPDATE")
        reply = await client.command(command, {"id": event_id, **fields})
        assert (504, "TIMEOUT", "not_executed") == (reply["status"], reply["error"], reply["outcome"])
        assert f"event {event_id} is locked by others: try again" == reply["message"]
    await locker.close()
    assert 1 == (await client.command("MngGetCalendarEvent", {"id": event_id}))["data"]["event"]["version"]
    assert 200 == (await client.command(command, {"id": event_id, **fields}))["status"]


async def test_change_waits_for_no_participant_that_it_leaves_as_it_is(start, connect, db, dsn, monkeypatch):
    """A job that has all participants locked holds up those that write one of them, and no other."""
    monkeypatch.setattr("gateway.group_commit.SLOW_SECONDS", 0.02)
    gateway = await start(commands_per_commit_max=64, **PATIENT)
    client, guest = await connect(gateway), await connect(gateway, login="11")
    answered, *ids = [(await client.add(participant_manager_ids=[10, 11, 12]))["id"] for _ in range(8)]
    locker = await asyncpg.connect(dsn)
    async with locker.transaction():
        await locker.execute("SELECT FROM calendar_participant FOR UPDATE")
        await guest.socket.send(frame_of("MngSetCalendarParticipantStatus", {"id": answered, "status": 2}))
        await until(lambda: db.fetchval(WAIT_FOR_ROWS, 1))
        for event_id in ids:
            await client.socket.send(frame_of("MngUpdateCalendarEvent", {"id": event_id, "title": "moved"}))
        assert {200} == {(await client.receive())["status"] for _ in ids}
    await locker.close()
    assert 200 == (await guest.receive())["status"]
    assert 8 == await db.fetchval("SELECT count(*) FROM calendar_event WHERE version = 2")
    assert [(answered, 2)] == [
        tuple(row) for row in await db.fetch("SELECT event_id, status FROM calendar_participant WHERE status = 2")
    ]


async def test_shared_statement_waits_a_moment_for_a_locked_participant(start, connect, db, dsn):
    """Then its commands go one by one, and all but the one that waits are done meanwhile."""
    await db.execute(POISON)
    gateway = await start(commands_per_commit_max=64, **PATIENT)
    client, other = await connect(gateway), await connect(gateway)
    held, locked, *ids = [(await client.add(title="held" if n == 0 else "x"))["id"] for n in range(12)]
    locker = await asyncpg.connect(dsn)
    await db.execute("SELECT pg_advisory_lock(7)")
    async with locker.transaction():
        await locker.execute("SELECT FROM calendar_participant WHERE event_id = $1 FOR UPDATE", locked)
        await other.socket.send(frame_of("MngUpdateCalendarEvent", {"id": held, "priority": 3}))
        await until(lambda: db.fetchval(ARE_HELD, 1))
        for event_id in (locked, *ids):
            data = {"id": event_id, "start_time": EVENT["start_time"] - 60}
            await client.socket.send(frame_of("MngUpdateCalendarEvent", data, event_id))
        waiting = gateway.gateway._dispatch._services.calendar._changes._waiting
        await becomes_true(lambda: len(waiting) == 1 + len(ids))
        await db.execute("SELECT pg_advisory_unlock(7)")
        assert sorted(ids) == sorted([(await client.receive())["extID"] for _ in ids])
    await locker.close()
    assert (locked, 200) == ((reply := await client.receive())["extID"], reply["status"])


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("where", ["before", "within", "after"])
async def test_lost_connection_acknowledges_nothing_that_is_not_there(dsn, connect, db, share, where):
    """Adds whose full statement is cut are unknown, stored whole or not at all; what is acknowledged is there, once.

    Each is told a time of its own to come back at.
    """
    await db.execute(POISON)
    async with proxied(dsn) as (proxy, through), started(through, commands_per_commit_max=share, **PATIENT) as gateway:
        clients = [await connect(gateway) for _ in range(4)]
        async with asyncio.TaskGroup() as tasks, writers_held(connect, gateway, db, share):
            proxy.cut(where, "event 2a")
            waiting = [
                tasks.create_task(adds(client, [f"event {n}{letter}" for n in range(16)]))
                for client, letter in zip(clients, "abcd", strict=True)
            ]
            await becomes_true(lambda: len(adds_of(gateway)._waiting) == 64)
        replies = [task.result() for task in waiting]
        assert proxy.cuts == 1
        await clients[0].add(title="after the cut")
    assert share == sum(reply["status"] != 200 for some in replies for reply in some)
    acknowledged = [reply["data"]["event"]["title"] for some in replies for reply in some if reply["status"] == 200]
    others = {(reply["error"], reply["outcome"]) for some in replies for reply in some if reply["status"] != 200}
    stored = [row["title"] for row in await db.fetch("SELECT title FROM calendar_event WHERE title LIKE 'event%'")]
    assert {("NO_SERVICE", "unknown")} == others
    assert len({reply["retry_after_ms"] for some in replies for reply in some if reply["status"] != 200}) > share // 2
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


class Statements:
    """A group whose statements go on until they are ended; `begun` holds what each one took, in that order."""

    def __init__(self, share_max: int, tasks: asyncio.TaskGroup) -> None:
        self.group: GroupCommit[int, int] = GroupCommit(self._run, share_max, 60, lambda _size: None)
        self.begun: list[list[int]] = []
        self._tasks = tasks
        self._ends: dict[int, asyncio.Event] = {}
        self._answers: list[asyncio.Task[int]] = []
        self._writers = [tasks.create_task(writer) for writer in self.group.writers()]

    @classmethod
    @asynccontextmanager
    async def held(cls, share_max: int) -> AsyncIterator[Statements]:
        """With writers that wait for something to do; behind the block all that was submitted is done."""
        async with asyncio.TaskGroup() as tasks:
            statements = cls(share_max, tasks)
            await turns()
            yield statements
            await statements._end_all()

    async def _run(self, items: Sequence[int]) -> Sequence[int]:
        end = self._ends[items[0]] = asyncio.Event()
        self.begun.append(list(items))
        await end.wait()
        return items

    async def submit(self, *items: int) -> None:
        """Submits these at the same moment, and lets what can begin begin."""
        self._answers += [self._tasks.create_task(self._answer(item)) for item in items]
        await turns()

    async def end(self, first: int) -> None:
        """Ends the statement that began with this item, and lets what can begin begin."""
        self._ends.pop(first).set()
        await turns()

    async def _end_all(self) -> None:
        """Ends every statement, oldest first; each item was answered with its own result, and nothing is left waiting."""
        while self._ends:
            await self.end(next(iter(self._ends)))
        assert [True] * len(self._answers) == [answer.done() for answer in self._answers]
        assert sorted(item for items in self.begun for item in items) == [answer.result() for answer in self._answers]
        for writer in self._writers:
            writer.cancel()

    @property
    def under_way(self) -> int:
        """How many statements have begun and not ended."""
        return len(self._ends)

    async def _answer(self, item: int) -> int:
        return await self.group.submit(item, "owner")


async def turns() -> None:
    """Lets the event loop turn until what was submitted or ended has had its effect."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_waits_goes_when_those_under_way_are_done() -> None:
    """Fewer than are under way do not wait for more once these are done."""
    async with Statements.held(64) as statements:
        await statements.submit(0)
        await statements.submit(1, 2, 3, 4)
        await statements.end(0)
        await statements.submit(5)
        assert [[0], [1, 2, 3, 4]] == statements.begun
        await statements.end(1)
        assert [[0], [1, 2, 3, 4], [5]] == statements.begun


async def test_full_share_goes_beside_a_full_share() -> None:
    """As many as one statement takes at most do not wait, and fewer do."""
    async with Statements.held(2) as statements:
        await statements.submit(0)
        await statements.submit(1)
        assert [[0]] == statements.begun
        await statements.submit(2, 3, 4, 5, 6)
        await statements.end(0)
        await statements.end(1)
        assert [[0], [1, 2], [3, 4], [5, 6]] == statements.begun
        await statements.end(3)
        await statements.submit(7)
        assert [[0], [1, 2], [3, 4], [5, 6]] == statements.begun
        await statements.submit(8)
        assert [[0], [1, 2], [3, 4], [5, 6], [7, 8]] == statements.begun


async def test_lone_item_goes_at_once_and_the_few_behind_it_together() -> None:
    """Three are not worth a statement beside another where four go together; the fourth makes them one."""
    async with Statements.held(4) as statements:
        for item in range(4):
            await statements.submit(item)
        assert [[0]] == statements.begun
        await statements.end(0)
        assert [[0], [1, 2, 3]] == statements.begun
        for item in range(4, 8):
            await statements.submit(item)
        assert [[0], [1, 2, 3], [4, 5, 6, 7]] == statements.begun


async def test_nothing_waits_for_a_statement_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind one that waits for a lock, say, the next goes at once, however few they are."""
    monkeypatch.setattr("gateway.group_commit.SLOW_SECONDS", -1)
    async with Statements.held(64) as statements:
        await statements.submit(0)
        await statements.submit(1)
        assert [[0], [1]] == statements.begun
        await statements.end(1)
        await statements.submit(2)
        assert [[0], [1], [2]] == statements.begun


async def test_a_statement_is_found_to_take_long_while_nothing_else_comes_or_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lone item that came right behind it goes all the same; and so does the next."""
    monkeypatch.setattr("gateway.group_commit.SLOW_SECONDS", 0.01)
    async with Statements.held(64) as statements:
        await statements.submit(0)
        await statements.submit(1)
        await becomes_true(lambda: [[0], [1]] == statements.begun)
        await statements.end(1)
        await statements.submit(2)
        await becomes_true(lambda: [[0], [1], [2]] == statements.begun)


async def test_what_came_while_both_writers_were_busy_does_not_wait_for_the_one_that_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other writer looks after it, though nothing comes or ends once it is idle."""
    monkeypatch.setattr("gateway.group_commit.SLOW_SECONDS", 0.01)
    async with Statements.held(2) as statements:
        await statements.submit(0)
        await statements.submit(1)
        monkeypatch.setattr("gateway.group_commit.SLOW_SECONDS", 0.5)
        await statements.submit(2, 3)
        await becomes_true(lambda: not statements.group._looks_again)  # while there is nobody to take anything
        await statements.end(1)
        await becomes_true(lambda: [[0], [1, 2], [3]] == statements.begun)


async def test_items_behind_one_that_waits_for_a_lock_are_done_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a refused statement some items wait for locks: the others have their results before those are let go."""
    monkeypatch.setattr("gateway.group_commit.ASIDE_SECONDS", 0.01)
    locks, ran, waiting = asyncio.Event(), list[int](), ASIDE_MAX - 1

    async def run(items: Sequence[int]) -> Sequence[int]:
        if len(items) > 1:
            raise asyncpg.LockNotAvailableError("canceling statement due to lock timeout")
        ran.extend(items)
        if items[0] < waiting:
            await locks.wait()
        return items

    group: GroupCommit[int, int] = GroupCommit(run, 64, 60, lambda _size: None)
    answers = [asyncio.ensure_future(group.submit(item, "owner")) for item in range(8)]
    async with asyncio.TaskGroup() as tasks:
        writers = [tasks.create_task(writer) for writer in group.writers()]
        assert list(range(waiting, 8)) == await asyncio.wait_for(asyncio.gather(*answers[waiting:]), 30)
        assert [False] * waiting == [answer.done() for answer in answers[:waiting]]
        locks.set()
        assert list(range(waiting)) == await asyncio.gather(*answers[:waiting])
        for writer in writers:
            writer.cancel()
    assert list(range(8)) == ran


async def test_items_that_come_before_the_writers_go_once_they_are_there() -> None:
    """Nothing is run, and nothing fails, until the loops that do the work have begun."""

    async def run(items: Sequence[int]) -> Sequence[int]:
        return items

    group: GroupCommit[int, int] = GroupCommit(run, 64, 60, lambda _size: None)
    answers = [asyncio.ensure_future(group.submit(item, "owner")) for item in (0, 1)]
    await turns()
    assert [False, False] == [answer.done() for answer in answers]
    async with asyncio.TaskGroup() as tasks:
        writers = [tasks.create_task(writer) for writer in group.writers()]
        assert [0, 1] == await asyncio.gather(*answers)
        for writer in writers:
            writer.cancel()


async def test_item_that_comes_when_the_writers_are_stopped_wakes_nobody() -> None:
    """As at the end of a drain that was cut short: it waits, and is nobody's error."""

    async def run(items: Sequence[int]) -> Sequence[int]:
        return items

    group: GroupCommit[int, int] = GroupCommit(run, 64, 60, lambda _size: None)
    async with asyncio.TaskGroup() as tasks:
        writers = [tasks.create_task(writer) for writer in group.writers()]
        await turns()
        for writer in writers:
            writer.cancel()
    assert not group.queue(0, "owner").done()


@pytest.mark.parametrize("share", [1, 2, 5, 64])
@pytest.mark.parametrize("seed", range(5))
async def test_nothing_waits_while_nothing_is_under_way(share: int, seed: int) -> None:
    """Whatever comes and ends in whatever order, all of it is done in the end, and never more statements than writers."""
    chance = random.Random(seed)
    async with Statements.held(share) as statements:
        for first in range(0, 2000, 20):
            await statements.submit(*range(first, first + chance.choice((1, 1, 1, 2, 3, 8, 20))))
            for _ in range(chance.randrange(4)):
                if statements.under_way:
                    await statements.end(
                        chance.choice([items[0] for items in statements.begun if items[0] in statements._ends])
                    )
            assert statements.under_way <= WRITERS_MAX
            assert statements.under_way or not statements.group._waiting


async def raised(answer: Awaitable[Any]) -> CommandError:
    with pytest.raises(CommandError) as caught:
        await answer
    return caught.value
