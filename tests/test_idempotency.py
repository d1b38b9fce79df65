"""Sent twice, done once: keyed writes, replays, lost answers, and what a key refuses."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from gateway.calendar_store import idempotency, store
from tests.client import EVENT
from tests.conftest import started
from tests.process import becomes_true, until
from tests.proxy import proxied
from tests.test_group_commit import POISON, writers_held

ADD, UPDATE, DELETE = "MngAddCalendarEvent", "MngUpdateCalendarEvent", "MngDeleteCalendarEvent"
WRITES: dict[str, dict[str, Any]] = {
    ADD: {**EVENT, "participant_manager_ids": [11, 12]},
    UPDATE: {"id": 1, "title": "moved", "participants": [{"manager_id": 12, "status": 1}]},
    "MngCompleteCalendarEvent": {"id": 1},
    "MngArchiveCalendarEvent": {"id": 1},
    "MngSetCalendarParticipantStatus": {"id": 2, "status": 1},
    DELETE: {"id": 1},
}
COUNTS = """
    SELECT (SELECT count(*) FROM calendar_event), (SELECT sum(version) FROM calendar_event),
        (SELECT count(*) FROM idempotency_key)
"""
REFUSE_DELETES = """
    CREATE FUNCTION refuse_deletes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
    CREATE TRIGGER refuse_deletes BEFORE DELETE ON idempotency_key FOR EACH ROW EXECUTE FUNCTION refuse_deletes();
"""

STALL = """
    CREATE TABLE stalled (yes boolean);
    CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN WHILE EXISTS (SELECT FROM stalled) LOOP PERFORM pg_sleep(0.02); END LOOP; RETURN NULL; END $$;
    CREATE TRIGGER stall AFTER INSERT OR UPDATE OR DELETE ON calendar_event FOR EACH ROW EXECUTE FUNCTION stall();
"""
"""Holds writes of events up within their statement for as long as a row is in `stalled`, whatever the time limit of locks."""
SLEEPS = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"


async def two_events(client: Any, other: Any) -> None:
    """Event 1 of manager 10, and event 2 of manager 11, who invites 10."""
    await client.add(participant_manager_ids=[11])
    await other.add(participant_manager_ids=[10])


@pytest.mark.parametrize("command", WRITES)
async def test_write_sent_twice_is_done_once(gateway, connect, db, command):
    """The second answer has the first one's data and says so; the tables hold what one write leaves."""
    client = await connect(gateway)
    await two_events(client, await connect(gateway, "11"))
    first = await client.command(command, WRITES[command], idempotencyKey="k")
    held = await db.fetchrow(COUNTS)
    second = await (await connect(gateway)).command(command, WRITES[command], idempotencyKey="k")
    assert (200, None) == (first["status"], first.get("replayed"))
    assert (200, True, first["data"]) == (second["status"], second["replayed"], second["data"])
    assert held == await db.fetchrow(COUNTS)
    assert 1 == held[2]


@pytest.mark.parametrize("command", ["MngCompleteCalendarEvent", UPDATE])
async def test_write_that_changes_nothing_keeps_its_key(gateway, connect, db, command):
    """A success that left the event as it was is replayed as well, also after the event has changed."""
    client = await connect(gateway)
    await client.add(status=1)
    data = {"id": 1, "status": 1} if command == UPDATE else {"id": 1}
    first = await client.command(command, data, idempotencyKey="k")
    await client.command(UPDATE, {"id": 1, "status": 0})
    second = await client.command(command, data, idempotencyKey="k")
    assert (first["data"], True) == (second["data"], second["replayed"])
    assert 0 == await db.fetchval("SELECT status FROM calendar_event")


async def test_replay_repeats_the_first_reply_whatever_happened_since(gateway, connect, db):
    """Changed, gone, or out of the manager's reach by now: the key is looked at before all that."""
    client = await connect(gateway)
    added = await client.command(ADD, EVENT, idempotencyKey="add")
    updated = await client.command(UPDATE, {"id": 1, "title": "x", "if_version": 1}, idempotencyKey="update")
    assert updated == {**updated, "status": 200}
    assert (
        updated["data"]
        == (await client.command(UPDATE, {"if_version": 1, "title": "x", "id": 1}, idempotencyKey="update"))["data"]
    )
    deleted = await client.command(DELETE, {"id": 1}, idempotencyKey="delete")
    await db.execute("UPDATE manager SET brands = '{elsewhere}', desk_mask = '' WHERE id = 10")
    again = [
        await client.command(ADD, EVENT, idempotencyKey="add"),
        await client.command(UPDATE, {"id": 1, "title": "x", "if_version": 1}, idempotencyKey="update"),
        await client.command(DELETE, {"id": 1}, idempotencyKey="delete"),
    ]
    assert [added["data"], updated["data"], deleted["data"]] == [reply["data"] for reply in again]
    assert [True] * 3 == [reply["replayed"] for reply in again]
    assert 0 == await db.fetchval("SELECT count(*) FROM calendar_event")


async def test_key_belongs_to_one_manager_command_and_data(gateway, connect, db):
    """Another manager's equal key is another key; another command or other data is a conflict, and does nothing."""
    client, other = await connect(gateway), await connect(gateway, "11")
    first = await client.command(ADD, EVENT, idempotencyKey="k")
    others = await other.command(ADD, EVENT, idempotencyKey="k")
    assert (200, None) == (others["status"], others.get("replayed"))
    for command, data in ((ADD, {**EVENT, "title": "other"}), (ADD, {**EVENT, "type": 0}), (UPDATE, {"id": 1, "title": "x"})):
        reply = await client.command(command, data, idempotencyKey="k")
        assert (409, "CONFLICT", "not_executed") == (reply["status"], reply["error"], reply["outcome"])
        assert "idempotencyKey" in reply["message"]
    assert [(1, 1), (2, 1)] == [tuple(row) for row in await db.fetch("SELECT id, version FROM calendar_event ORDER BY id")]
    assert 1 == first["data"]["event"]["id"]


async def test_same_data_is_recognised_in_another_spelling(gateway, connect, db):
    """Order of fields, spaces and escapes do not make other data; `__access`, which is dropped, does not count."""
    client = await connect(gateway)
    body, respelt = '"ast_json":{"a":[1.50,"\\u00e9"],"b":null}', '"ast_json" : {"b":null, "a" : [1.50,"é"]}'
    fields = '"title":"t","start_time":1710000000,"end_time":1710000000'
    spellings = [f"{{{fields},{body}}}", f"{{ {respelt} , {fields} }}", f'{{"__access":{{"brands":["x"]}},{fields},{body}}}']
    replies = []
    for number, data in enumerate(spellings):
        frame = f'{{"command":"{ADD}","extID":{number},"idempotencyKey":"k","data":{data}}}'
        replies.append(await client.exchange(frame, number))
    assert [None, True, True] == [reply.get("replayed") for reply in replies]
    assert 1 == await db.fetchval("SELECT count(*) FROM calendar_event")


async def test_refused_write_stores_nothing(gateway, connect, db):
    """A key whose write was refused is still new: once the reason is gone, the same frame is done."""
    client = await connect(gateway)
    refused = [
        await client.command(UPDATE, {"id": 1, "title": "x"}, idempotencyKey="k"),
        await client.command(ADD, {**EVENT, "brand": "elsewhere"}, idempotencyKey="k2"),
        await client.command(ADD, {**EVENT, "title": " "}, idempotencyKey="k3"),
    ]
    assert [404, 403, 400] == [reply["status"] for reply in refused]
    assert 0 == await db.fetchval("SELECT count(*) FROM idempotency_key")
    await client.add()
    done = await client.command(UPDATE, {"id": 1, "title": "x"}, idempotencyKey="k")
    assert (200, None) == (done["status"], done.get("replayed"))


async def test_key_is_no_way_around_the_session(gateway, connect, db):
    """A revoked session is told nothing of what its key did."""
    client = await connect(gateway)
    await client.command(ADD, EVENT, idempotencyKey="k")
    await db.execute("UPDATE session SET revoked_time = 1")
    assert 401 == (await client.command(ADD, EVENT, idempotencyKey="k"))["status"]


async def test_key_with_nul_is_refused(gateway, connect, db):
    """PostgreSQL cannot store the character, so the frame says so before anything is done."""
    reply = await (await connect(gateway)).command(ADD, EVENT, idempotencyKey="a\0b")
    assert (400, "BAD_REQUEST") == (reply["status"], reply["error"])
    assert "idempotencyKey" in reply["message"]


async def test_one_key_sent_fifty_times_at_once_is_done_once(start, connect, db):
    """Through two gateways: one of them does it, all get the same data, and one answer alone is not a replay."""
    gateways = [await start(), await start()]
    clients = [await connect(gateways[number % 2]) for number in range(10)]
    frames = [{"command": ADD, "extID": number, "idempotencyKey": "k", "data": EVENT} for number in range(5)]
    for frame in frames:
        for client in clients:
            await client.socket.send(json.dumps(frame))
    replies = [await client.receive() for client in clients for _ in frames]
    assert {200} == {reply["status"] for reply in replies}
    assert 1 == len({json.dumps(reply["data"]) for reply in replies})
    assert 1 == [reply.get("replayed") for reply in replies].count(None)
    assert 1 == await db.fetchval("SELECT count(*) FROM calendar_event")


@pytest.mark.parametrize("where", ["before", "within", "after"])
@pytest.mark.parametrize("command", [ADD, UPDATE, DELETE, "MngCompleteCalendarEvent"])
async def test_lost_answer_of_a_keyed_write_is_resolved(dsn, connect, db, command, where):
    """The link is cut around the committing statement: the client gets the one true answer, and the write is done once."""
    async with proxied(dsn) as (proxy, through), started(through) as gateway:
        client = await connect(gateway)
        await two_events(client, await connect(gateway, "11"))
        held = await db.fetchrow(COUNTS)
        proxy.cut(where, "the key")
        reply = await client.command(command, WRITES[command], idempotencyKey="the key")
        assert proxy.cuts == 1
        again = await client.command(command, WRITES[command], idempotencyKey="the key")
    assert (200, None) == (reply["status"], reply.get("replayed"))
    assert (reply["data"], True) == (again["data"], again["replayed"])
    changes = {ADD: (1, 1), DELETE: (-1, -1)}.get(command, (0, 1))
    assert (held[0] + changes[0], held[1] + changes[1], 1) == tuple(await db.fetchrow(COUNTS))


async def test_lost_answer_without_a_key_is_not_sent_again(dsn, connect, db):
    """Nobody could tell two events from one sent twice: the client is told that the outcome is unknown."""
    async with proxied(dsn) as (proxy, through), started(through) as gateway:
        client = await connect(gateway)
        await client.add(title="warm")
        proxy.cut("before", "unkeyed")
        reply = await client.command(ADD, {**EVENT, "title": "unkeyed"})
    assert (503, "unknown") == (reply["status"], reply["outcome"])
    assert 1 == await db.fetchval("SELECT count(*) FROM calendar_event")


async def test_lost_answer_stays_unknown_while_nobody_can_tell(dsn, connect, db, monkeypatch):
    """A first try that hangs on in PostgreSQL holds its key: the answer is `unknown`, and a later retry has the truth."""
    monkeypatch.setattr(store, "SEND_AGAIN_SECONDS", 0.3)
    await db.execute(POISON)
    async with proxied(dsn) as (proxy, through), started(through) as gateway:
        client = await connect(gateway)
        await client.add(title="warm")
        await db.execute("SELECT pg_advisory_lock(7)")
        proxy.cut("after", "the key")
        data = {**EVENT, "title": "held"}
        reply = await client.command(ADD, data, idempotencyKey="the key")
        assert ("unknown", 1) == (reply["outcome"], proxy.cuts)
        await db.execute("SELECT pg_advisory_unlock(7)")
        again = await client.command(ADD, data, idempotencyKey="the key")
    assert 200 == again["status"]
    assert 1 == await db.fetchval("SELECT count(*) FROM calendar_event WHERE title = 'held'")


@pytest.mark.parametrize("command", [ADD, UPDATE, DELETE])
async def test_lost_answer_stays_unknown_when_the_access_changes_meanwhile(dsn, connect, db, monkeypatch, command):
    """A second try that is passed over, as managers have changed, waits for no key: the first may still commit, and does."""
    monkeypatch.setattr(store, "SEND_AGAIN_SECONDS", 0.5)
    await db.execute(STALL)
    async with proxied(dsn) as (proxy, through), started(through, db_lock_seconds=0.2, db_statement_seconds=20) as gateway:
        client = await connect(gateway)
        await client.add(title="stalled")
        await db.execute("INSERT INTO stalled VALUES (true)")
        proxy.cut("abandoned", "the key")
        data = {**WRITES[command], "title": "stalled"} if command == ADD else WRITES[command]
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(client.command(command, data, idempotencyKey="the key"))
            await until(lambda: db.fetch(SLEEPS))
            proxy.abandon.set()
            await db.execute("UPDATE manager SET desk_mask = desk_mask WHERE id = 12")
        reply = first.result()
        assert ("unknown", 1) == (reply["outcome"], proxy.cuts)
        await db.execute("DELETE FROM stalled")
        again = await until(lambda: client.command(command, data, idempotencyKey="the key"), lambda r: r["status"] == 200)
    assert again["replayed"]
    assert {ADD: 2, UPDATE: 1, DELETE: 0}[command] == await db.fetchval("SELECT count(*) FROM calendar_event")


@pytest.mark.parametrize("command", [UPDATE, DELETE])
async def test_lost_answer_is_learnt_once_the_first_try_lets_the_event_go(dsn, connect, db, monkeypatch, command):
    """Second tries are passed over while the first one has the event locked; then the client has its one true answer."""
    monkeypatch.setattr(store, "SEND_AGAIN_SECONDS", 60)
    await db.execute(STALL)
    async with proxied(dsn) as (proxy, through), started(through, db_statement_seconds=20) as gateway:
        client = await connect(gateway)
        await client.add(title="stalled")
        await db.execute("INSERT INTO stalled VALUES (true)")
        calendar = gateway.gateway._dispatch._services.calendar
        tries: list[float] = []
        (calendar._changes if command == UPDATE else calendar._deletes)._observe_size = tries.append
        proxy.cut("abandoned", "the key")
        async with asyncio.TaskGroup() as tasks:
            sent = tasks.create_task(client.command(command, WRITES[command], idempotencyKey="the key"))
            await until(lambda: db.fetch(SLEEPS))
            proxy.abandon.set()
            await becomes_true(lambda: len(tries) > 3)
            await db.execute("DELETE FROM stalled")
        again = await client.command(command, WRITES[command], idempotencyKey="the key")
    assert (200, None, 1) == (sent.result()["status"], sent.result().get("replayed"), proxy.cuts)
    assert (sent.result()["data"], True) == (again["data"], again["replayed"])
    assert {UPDATE: 2, DELETE: None}[command] == await db.fetchval("SELECT version FROM calendar_event")


async def test_key_held_by_another_process_stops_no_neighbour(start, connect, db, dsn):
    """A shared statement waits a moment for a key that is being written elsewhere, then its commands go one by one."""
    await db.execute(POISON)
    gateway = await start(db_lock_seconds=0.5)
    other = await asyncpg.connect(dsn)
    clients = [await connect(gateway) for _ in range(10)]
    async with asyncio.TaskGroup() as tasks, other.transaction():
        await other.execute("INSERT INTO idempotency_key VALUES (10, 'elsewhere', sha256('x'), '{}')")
        async with writers_held(connect, gateway, db, 64):
            waiting = [
                tasks.create_task(
                    client.command(ADD, {**EVENT, "title": f"{n}"}, idempotencyKey="elsewhere" if n == 4 else f"{n}")
                )
                for n, client in enumerate(clients)
            ]
            await (await connect(gateway, login=None)).command("HealthCheck")
        replies = [await task for task in waiting]
    await other.close()
    assert [200] * 4 + [504] + [200] * 5 == [reply["status"] for reply in replies]
    assert ("TIMEOUT", "not_executed") == (replies[4]["error"], replies[4]["outcome"])
    assert 9 == await db.fetchval("SELECT count(*) FROM calendar_event WHERE title <> 'held'")


async def test_taken_key_harms_no_neighbour(start, connect, db):
    """In one shared statement new keys, a used one and no key: each command has its own outcome."""
    await db.execute(POISON)
    first, second = await start(), await start()
    await (await connect(first)).command(ADD, {**EVENT, "title": "used"}, idempotencyKey="used")
    clients = [await connect(second) for _ in range(6)]
    async with asyncio.TaskGroup() as tasks, writers_held(connect, second, db, 64):
        keys = [{"idempotencyKey": "new"}, {"idempotencyKey": "used"}, {}, {"idempotencyKey": "newer"}, {}, {}]
        replies = [
            tasks.create_task(client.command(ADD, {**EVENT, "title": "used" if "used" in key.values() else "x"}, **key))
            for client, key in zip(clients, keys, strict=True)
        ]
        await (await connect(second, login=None)).command("HealthCheck")
    assert [None, True, None, None, None, None] == [task.result().get("replayed") for task in replies]
    assert 5 == await db.fetchval("SELECT count(*) FROM calendar_event WHERE title = 'x'")
    assert 1 == await db.fetchval("SELECT count(*) FROM calendar_event WHERE title = 'used'")


async def test_prune_that_is_refused_is_left_for_the_next_time(gateway, connect, db):
    """PostgreSQL's own error ends nothing; the old keys go once it is mended."""
    await (await connect(gateway)).command(ADD, EVENT, idempotencyKey="k")
    await db.execute("UPDATE idempotency_key SET created_time = 1")
    await db.execute(REFUSE_DELETES)
    await gateway.gateway._dispatch._services.idempotency.prune()
    assert 1 == await db.fetchval("SELECT count(*) FROM idempotency_key")
    await db.execute("DROP TRIGGER refuse_deletes ON idempotency_key")
    await gateway.gateway._dispatch._services.idempotency.prune()
    assert 0 == await db.fetchval("SELECT count(*) FROM idempotency_key")


async def test_prune_removes_old_keys_alone(start, connect, db, monkeypatch):
    """Keys past their time go, in steps; the others stay."""
    monkeypatch.setattr(idempotency, "PRUNE_ROWS", 2)
    gateway = await start()
    client = await connect(gateway)
    for number in range(6):
        await client.command(ADD, EVENT, idempotencyKey=f"{number}")
    await db.execute("UPDATE idempotency_key SET created_time = created_time - 90001 WHERE key < '5'")
    await gateway.gateway._dispatch._services.idempotency.prune()
    assert ["5"] == [row["key"] for row in await db.fetch("SELECT key FROM idempotency_key")]
