"""Sessions that end elsewhere: their idle sockets are closed in every process, unasked, and nobody else's are."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import managers
from gateway.errors import CommandError, ErrorCode
from gateway.managers import NewManager
from gateway.sessions import Sessions
from gateway.tokens import Session
from tests.client import EVENT, Client
from tests.conftest import PASSWORD
from tests.process import becomes_true, gateway_process

ENDS = (
    "UPDATE session SET revoked_time = 1 WHERE manager_id = 11",
    "DELETE FROM session WHERE manager_id = 11",
    "UPDATE manager SET disabled = true WHERE id = 11",
    "DELETE FROM manager WHERE id = 11",
)


async def signed_in(connect: Any, gateway: Any, login: str) -> Client:
    """A socket that has signed in and will do nothing more."""
    client: Client = await connect(gateway, login=None)
    await client.login(login, PASSWORD)
    return client


async def test_ended_session_closes_idle_sockets_of_every_process(scratch_dir, dsn, db, connect):
    """However a session ends, its idle sockets at two processes get 4501; another manager's stay and serve on."""
    async with gateway_process(scratch_dir, database_url=dsn) as one, gateway_process(scratch_dir, database_url=dsn) as two:
        stay = [await signed_in(connect, gateway, "10") for gateway in (one, two)]
        for number, end in enumerate(ENDS, start=20):
            await managers.add(db, NewManager(id=number, login=str(number)), PASSWORD)
            await db.execute("UPDATE manager SET password_hash = other.password_hash FROM manager AS other WHERE other.id = 10")
            leave = [await signed_in(connect, gateway, str(number)) for gateway in (one, two)]
            await db.execute(end.replace("11", str(number)))
            assert (end, [4501, 4501]) == (end, [await client.closed() for client in leave])
        assert [10, 10] == [(await client.add())["created_by"] for client in stay]


async def test_logout_at_one_process_closes_the_sessions_sockets_at_another(scratch_dir, dsn, connect):
    """MngLogout leaves its own socket open; the same session's idle socket elsewhere gets 4501."""
    async with gateway_process(scratch_dir, database_url=dsn) as one, gateway_process(scratch_dir, database_url=dsn) as two:
        client = await connect(one, login=None)
        token = (await client.login("10", PASSWORD))["token"]
        other = await connect(two, login=None, additional_headers={"Authorization": f"Bearer {token}"})
        assert 200 == (await other.command("HealthCheck"))["status"]
        assert 200 == (await client.command("MngLogout"))["status"]
        assert 4501 == await other.closed()
        assert 200 == (await client.command("HealthCheck"))["status"]


async def test_changed_rights_close_nobody(start, connect, db):
    """A manager who gets other rights keeps the socket: the next command has them."""
    gateway = await start()
    client = await signed_in(connect, gateway, "11")
    await db.execute("UPDATE manager SET brands = '{other}', desk_mask = '*' WHERE id = 11")
    await gateway.gateway._session_watch.look()
    assert "other" == (await client.add())["brand"]


@pytest.mark.parametrize("seen_by", ["a command", "the watch"])
async def test_epoch_of_a_database_that_lost_some_is_taken(start, connect, db, seen_by):
    """As a standby may have, promoted: commands go on, and a manager who is disabled then is, at the epoch that was before."""
    gateway = await start()
    client = await signed_in(connect, gateway, "11")
    await db.execute("UPDATE access_epoch SET epoch = 100")
    await client.add()
    await db.execute("UPDATE access_epoch SET epoch = 99")
    if seen_by == "a command":
        assert 11 == (await client.add())["created_by"]
    else:
        await gateway.gateway._session_watch.look()
    await db.execute("UPDATE manager SET disabled = true WHERE id = 11")
    assert 100 == await db.fetchval("SELECT epoch FROM access_epoch")
    assert 401 == (await client.command("MngAddCalendarEvent", EVENT))["status"]


async def test_epoch_that_is_missing_ends_no_gateway(start, connect, db):
    """As after a restore of some tables alone: commands get NO_SERVICE until it is there."""
    gateway = await start()
    client = await signed_in(connect, gateway, "11")
    await client.add()
    await db.execute("DELETE FROM access_epoch")
    reply = await client.command("MngAddCalendarEvent", EVENT)
    assert (503, "not_executed") == (reply["status"], reply["outcome"])
    assert "access_epoch" in reply["message"]
    with pytest.raises(CommandError):
        await gateway.gateway._session_watch.look()
    await db.execute("INSERT INTO access_epoch DEFAULT VALUES")
    assert 11 == (await client.add())["created_by"]


async def test_sessions_are_asked_about_in_batches_and_once(start, connect, db, monkeypatch):
    """Each open session is asked about once, in statements of the size set, and again only when something has changed."""
    monkeypatch.setattr("gateway.session_watch.ASKED_AT_ONCE", 2)
    asked: list[int] = []
    ask = Sessions.ended_of

    async def counted(self: Sessions, batch: list[Session]) -> set[Any]:
        asked.append(len(batch))
        return await ask(self, batch)

    monkeypatch.setattr(Sessions, "ended_of", counted)
    gateway = await start()
    clients = [await signed_in(connect, gateway, "10") for _ in range(5)]
    watch = gateway.gateway._session_watch
    await watch.look()
    assert [2, 2, 1] == asked
    await watch.look()
    assert [2, 2, 1] == asked
    await clients[0].command("MngLogout")
    await watch.look()
    assert [2, 2, 1, 2, 2] == asked


async def test_session_ended_while_its_proof_was_taken_is_found(start, connect, db):
    """A socket that takes a session which ended a moment before is closed although the epoch was seen already."""
    gateway = await start()
    client = await signed_in(connect, gateway, "10")
    (connection,) = gateway.gateway._connections
    connection.identity.session, late = None, connection.identity.session
    await db.execute("UPDATE session SET revoked_time = 1")
    await gateway.gateway._session_watch.look()
    connection.identity.session = late
    await gateway.gateway._session_watch.look()
    assert 4501 == await client.closed()


async def test_nobody_is_closed_while_the_database_cannot_say(start, connect, db, monkeypatch):
    """Locked or missing tables end no socket and are told once; afterwards ended sessions are found again."""
    monkeypatch.setattr("gateway.session_watch.WATCH_SECONDS", 0.02)
    gateway = await start(db_lock_seconds=0.05)
    client = await signed_in(connect, gateway, "10")
    looks: list[str] = []
    look = Sessions.current_epoch

    async def counted(self: Sessions) -> int:
        try:
            return await look(self)
        except Exception as error:
            looks.append(type(error).__name__)
            raise

    monkeypatch.setattr(Sessions, "current_epoch", counted)
    async with db.transaction():
        await db.execute("LOCK TABLE access_epoch IN ACCESS EXCLUSIVE MODE")
        await becomes_true(lambda: 3 <= len(looks))
    await db.execute("ALTER TABLE access_epoch RENAME TO away")
    await becomes_true(lambda: "UndefinedTableError" in looks)
    await db.execute("ALTER TABLE away RENAME TO access_epoch")
    assert 200 == (await client.command("HealthCheck"))["status"]
    told = [line for line in gateway.log_lines if "ended sessions" in line["event"]]
    assert 1 <= len(told) < len(looks)
    await db.execute("UPDATE session SET revoked_time = 1")
    assert 4501 == await client.closed()


async def test_logout_that_fails_leaves_the_session_to_the_socket(start, connect, monkeypatch):
    """When the database cannot end the session, the socket has it still."""

    async def refuse(_self: Sessions, _session_id: str) -> None:
        raise CommandError(ErrorCode.NO_SERVICE, "as if the database were away")

    client = await signed_in(connect, await start(), "10")
    monkeypatch.setattr(Sessions, "revoke", refuse)
    assert 503 == (await client.command("MngLogout"))["status"]
    assert 10 == (await client.add())["created_by"]
