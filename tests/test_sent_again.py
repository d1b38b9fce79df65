"""What is sent again with its key while the first try is under way, and that one fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from gateway.calendar_store import idempotency
from gateway.errors import no_service
from tests.calendar_model import Manager
from tests.client import EVENT, Client
from tests.conftest import Running
from tests.held import PATIENT
from tests.people import add_managers
from tests.process import becomes_true

ADMIN = Manager(20, 3, ("default",), "*")


def update(ext_id: str, title: str, token: str | None = None, **more: Any) -> str:
    """A change of event 1, with the key `k` unless it is `behind`."""
    frame = {"command": "MngUpdateCalendarEvent", "extID": ext_id, "data": {"id": 1, "title": title, **more}}
    key = {} if ext_id == "behind" else {"idempotencyKey": "k"}
    return json.dumps(frame | key | ({"__token": token} if token else {}))


@asynccontextmanager
async def locked(dsn: str) -> AsyncIterator[None]:
    """Event 1 is locked by somebody else."""
    db = await asyncpg.connect(dsn)
    try:
        async with db.transaction():
            await db.execute("SELECT FROM calendar_event WHERE id = 1 FOR UPDATE")
            yield
    finally:
        await db.close()


async def both_wait(gateway: Running, manager_id: int) -> None:
    """Returns once the first try and the one sent again are where the second waits for the first."""
    turns = gateway.gateway._dispatch._services.idempotency._turns
    await becomes_true(lambda: (manager_id, "k") in turns and turns.of((manager_id, "k"))._users == 2)


async def two_sessions(db: Any, client: Client) -> list[str]:
    """Tokens of two sessions of one manager, which the gateway knows from here on."""
    tokens = [*await add_managers(db, [ADMIN]), *await add_managers(db, [ADMIN])]
    for token in tokens:
        await client.command("MngGetCalendarEvent", {"id": 1}, __token=token)
    return tokens


async def hold_turn(gateway: Running, holder: Client) -> None:
    """Returns once a change of the holder's, which waits for the locked event, has the event's turn."""
    await holder.socket.send(update("behind", "held"))
    await becomes_true(lambda: 1 in gateway.gateway._dispatch._services.calendar._turns)


async def statuses(client: Client, count: int) -> dict[str, tuple[int, str | None]]:
    replies = [await client.receive() for _ in range(count)]
    return {reply["extID"]: (reply["status"], reply.get("outcome")) for reply in replies}


@pytest.mark.parametrize(("title", "status"), [("a", 504), ("another", 503)])
async def test_change_that_is_sent_again_takes_no_later_place(start, connect, db, dsn, title, status):
    """It fails with the first try, also with other data: done later it would undo what was sent behind both."""
    gateway = await start(db_lock_seconds=0.5)
    client = await connect(gateway)
    await client.add()
    async with locked(dsn):
        for frame in (update("first", "a"), update("again", title), update("behind", "b")):
            await client.socket.send(frame)
        assert {"first": (504, "not_executed"), "again": (status, "not_executed")} == await statuses(client, 2)
    assert {"behind": (200, None)} == await statuses(client, 1)
    assert "b" == await db.fetchval("SELECT title FROM calendar_event")


async def test_change_behind_one_whose_session_ended_takes_no_later_place(start, connect, db, dsn):
    """It is of another session of the manager's, and could be done, but no more in its place."""
    gateway = await start(**PATIENT)
    holder, client = await connect(gateway), await connect(gateway, None)
    await holder.add()
    tokens = await two_sessions(db, client)
    first = await db.fetchval("SELECT id FROM session WHERE manager_id = 20 ORDER BY ctid LIMIT 1")
    async with locked(dsn):
        await hold_turn(gateway, holder)
        await client.socket.send(update("first", "a", tokens[0]))
        await client.socket.send(update("again", "a", tokens[1]))
        await client.socket.send(update("behind", "b", tokens[1]))
        await both_wait(gateway, 20)
        await db.execute("UPDATE session SET revoked_time = 1 WHERE id = $1", first)
    assert {"first": (401, "not_executed"), "again": (503, "not_executed"), "behind": (200, None)} == await statuses(client, 3)
    assert "b" == await db.fetchval("SELECT title FROM calendar_event")


async def test_refusal_of_another_is_nothing_for_a_session_that_ended(start, connect, db, dsn):
    """A conflict says what the event is; whose session has ended meanwhile is told that alone."""
    gateway = await start(**PATIENT)
    holder, client = await connect(gateway), await connect(gateway, None)
    await holder.add()
    tokens = await two_sessions(db, client)
    last = await db.fetchval("SELECT id FROM session WHERE manager_id = 20 ORDER BY ctid DESC LIMIT 1")
    async with locked(dsn):
        await hold_turn(gateway, holder)
        await client.socket.send(update("first", "a", tokens[0], if_version=1))
        await client.socket.send(update("again", "a", tokens[1], if_version=1))
        await both_wait(gateway, 20)
        await db.execute("UPDATE session SET revoked_time = 1 WHERE id = $1", last)
    assert {"first": (409, "not_executed"), "again": (401, "not_executed")} == await statuses(client, 2)


async def test_refusal_by_an_access_that_has_changed_is_nobody_elses(gateway, connect, db, monkeypatch):
    """The first try is decided anew and done, so the one sent again gets its reply."""
    (token,) = await add_managers(db, [ADMIN])
    client, other = await connect(gateway, None), await connect(gateway)
    await client.command("MngAddCalendarEvent", EVENT, __token=token)
    held, go_on, fetch = asyncio.Event(), asyncio.Event(), gateway.database.fetch

    async def hold_first_look(statement, *args):
        if statement is idempotency._FIND and not held.is_set():
            held.set()
            await go_on.wait()
        return await fetch(statement, *args)

    monkeypatch.setattr(gateway.database, "fetch", hold_first_look)
    add = {"command": "MngAddCalendarEvent", "__token": token, "idempotencyKey": "k", "data": {**EVENT, "brand": "new"}}
    await client.socket.send(json.dumps(add | {"extID": "first"}))
    await held.wait()
    await db.execute("UPDATE manager SET brands = '{default,new}' WHERE id = 20")
    await other.add()  # with which the gateway learns of it
    await client.socket.send(json.dumps(add | {"extID": "again"}))
    await both_wait(gateway, 20)
    go_on.set()
    assert {"first": (200, None), "again": (200, None)} == await statuses(client, 2)
    assert 1 == await db.fetchval("SELECT count(*) FROM calendar_event WHERE brand = 'new'")


async def test_change_behind_one_whose_key_nobody_can_look_up_takes_no_later_place(start, connect, db, dsn, monkeypatch):
    """The first is refused, and whether its key is new cannot be told; the event is then as the one sent again wants it."""
    gateway = await start(**PATIENT)
    holder, client = await connect(gateway), await connect(gateway)
    await holder.add()
    fetch, failures = gateway.database.fetch, [no_service("the connection to the database was lost")]

    async def fail_first_look(statement, *args):
        if statement is idempotency._FIND and failures:
            raise failures.pop()
        return await fetch(statement, *args)

    monkeypatch.setattr(gateway.database, "fetch", fail_first_look)
    async with locked(dsn):
        await hold_turn(gateway, holder)
        await client.socket.send(update("first", "a", if_version=3))
        await client.socket.send(update("again", "a", if_version=3))
        await client.socket.send(update("behind", "b"))
        await both_wait(gateway, 10)
    assert {"first": (503, "not_executed"), "again": (503, "not_executed"), "behind": (200, None)} == await statuses(client, 3)
    assert "b" == await db.fetchval("SELECT title FROM calendar_event")
