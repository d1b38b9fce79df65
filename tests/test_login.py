"""MngLogin: who gets a session, what the reply tells, and what every refusal has in common."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable
from typing import Any

import jwt
import pytest

from gateway import managers, passwords
from gateway.access import SessionType
from gateway.errors import CommandError, ErrorCode
from gateway.managers import NewManager
from gateway.passwords import hash_password
from tests.client import EVENT, WAIT_SECONDS, Client
from tests.conftest import PASSWORD, SECRET, Running, Start, settings_for_tests


class Hasher:
    """Stands for the argon2 hasher: counts what is verified, and may hold it up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, held: bool = False) -> None:
        self.verified: list[str] = []
        self.go_on = threading.Event()
        if not held:
            self.go_on.set()
        self._real = passwords._hasher
        monkeypatch.setattr(passwords, "_hasher", self)

    def hash(self, password: str) -> str:
        return self._real.hash(password)

    def verify(self, stored: str, password: str) -> bool:
        self.verified.append(stored)
        assert self.go_on.wait(WAIT_SECONDS)
        return self._real.verify(stored, password)


async def attempt(client: Client, login: object, password: str = PASSWORD) -> dict[str, Any]:
    return await client.command("MngLogin", {"login": login, "password": password})


async def test_login_answers_the_session(gateway: Running, connect: Any, db: Any) -> None:
    """The reply tells token, end, manager, type and brands; the token is a genuine one of the stored session."""
    await db.execute("UPDATE manager SET brands = '{b,a}', type = 3 WHERE id = 10")
    client, before = await connect(gateway, login=None), int(time.time())
    data = (await attempt(client, "10"))["data"]
    told = jwt.decode(data["token"], SECRET, algorithms=["HS256"], audience="crm-gateway", issuer="crm-gateway")
    row = await db.fetchrow("SELECT * FROM session WHERE id = $1", told["jti"])
    assert ["token", "expires_time", "manager_id", "type", "brands"] == list(data)
    assert (10, SessionType.ADMIN, ["b", "a"]) == (data["manager_id"], data["type"], data["brands"])
    assert ("10", data["expires_time"]) == (told["sub"], told["exp"])
    assert (10, data["expires_time"], 0) == (row["manager_id"], row["expires_time"], row["revoked_time"])
    assert before + 43_200 <= data["expires_time"] <= int(time.time()) + 43_200


async def test_login_makes_the_session_the_sockets(gateway: Running, connect: Any) -> None:
    """Later commands of the socket are the manager's, until another login takes its place; other sockets have none."""
    client, other = await connect(gateway, login=None), await connect(gateway, login=None)
    for login in ("10", "11"):
        assert 200 == (await attempt(client, login))["status"]
        assert int(login) == (await client.add())["created_by"]
    assert 401 == (await other.command("MngAddCalendarEvent", EVENT))["status"]


async def test_login_token_works_on_other_sockets_and_gateways(start: Start, connect: Any) -> None:
    """The token proves the session elsewhere, also at another gateway on the same database and after the first socket."""
    client = await connect(await start(), login=None)
    token = (await attempt(client, "11"))["data"]["token"]
    await client.socket.close()
    other = await connect(await start(), login=None, additional_headers={"Authorization": f"Bearer {token}"})
    assert 11 == (await other.add())["created_by"]


async def test_login_may_be_text_or_a_number(gateway: Running, connect: Any, db: Any) -> None:
    """A login that is a number may be sent as one; other names are text, compared exactly."""
    await managers.add(db, NewManager(id=20, login="Änna O'Neil"), PASSWORD)
    client = await connect(gateway, login=None)
    logins = (10, "10", "Änna O'Neil", "änna o'neil", "010", "10 ", "%")
    assert [200] * 3 + [401] * 4 == [(await attempt(client, login))["status"] for login in logins]


async def test_login_takes_a_password_shorter_than_a_new_one_may_be(gateway: Running, connect: Any, db: Any) -> None:
    """Whose password was set before there was a limit signs in as before."""
    await db.execute("UPDATE manager SET password_hash = $1 WHERE id = 10", hash_password("short"))
    assert 200 == (await attempt(await connect(gateway, login=None), "10", "short"))["status"]


async def test_login_refuses_each_wrong_field(gateway: Running, connect: Any) -> None:
    """Missing and wrong fields are named; nothing is hashed for them."""
    client, good = await connect(gateway, login=None), {"login": "10", "password": PASSWORD}
    for change, error, field in (
        ({"login": None}, "FIELD_REQUIRED", "login"),
        ({"password": None}, "FIELD_REQUIRED", "password"),
        ({"login": ""}, "INVALID_DATA", "login"),
        ({"login": "x" * 129}, "TOO_LARGE", "login"),
        ({"login": -1}, "INVALID_DATA", "login"),
        ({"login": 1.5}, "INVALID_DATA", "login"),
        ({"login": True}, "INVALID_DATA", "login"),
        ({"login": ["10"]}, "INVALID_DATA", "login"),
        ({"login": "a\0b"}, "INVALID_DATA", "login"),
        ({"password": 5}, "INVALID_DATA", "password"),
        ({"password": "x" * 1025}, "TOO_LARGE", "password"),
        ({"pasword": "x"}, "INVALID_DATA", "pasword"),
    ):
        reply = await client.command("MngLogin", {**good, **change})
        assert (change, error, field) == (change, reply["error"], reply.get("field"))


async def test_login_refusals_are_equal_to_the_byte(gateway: Running, connect: Any, db: Any) -> None:
    """An unknown login, a wrong password and a disabled manager cannot be told apart, and open no session."""
    await db.execute("UPDATE manager SET disabled = true WHERE id = 12")
    client = await connect(gateway, login=None)
    answers = []
    for login, password in (("nobody", PASSWORD), ("10", "wrong"), ("12", PASSWORD), ("12", "wrong"), ("10", ""), (99, "")):
        frame = '{"command":"MngLogin","extID":"x","data":{"login":"%s","password":"%s"}}'
        await client.socket.send(frame.replace("%s", str(login), 1).replace("%s", password, 1))
        async with asyncio.timeout(WAIT_SECONDS):
            answers.append(await client.socket.recv())
    told = '"error":"UNAUTHORIZED","message":"login or password is wrong","outcome":"not_executed"}'
    assert {'{"extID":"x","status":401,' + told} == set(answers)
    assert 0 == await db.fetchval("SELECT count(*) FROM session")


async def test_login_refused_leaves_the_session_that_was(gateway: Running, connect: Any) -> None:
    """A failed login on a socket with a session changes nothing about it and does not close it."""
    client = await connect(gateway, login="11")
    assert 401 == (await attempt(client, "10", "wrong"))["status"]
    assert 11 == (await client.add())["created_by"]


async def test_login_verifies_one_hash_whoever_it_is(
    gateway: Running, connect: Any, db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every attempt costs one verification: of the manager's own hash, or of a dummy of the same parameters."""
    await db.execute("UPDATE manager SET disabled = true WHERE id = 12")
    own = {row["login"]: row["password_hash"] for row in await db.fetch("SELECT login, password_hash FROM manager")}
    client, hasher = await connect(gateway, login=None), Hasher(monkeypatch)
    for login, password in (("10", PASSWORD), ("10", "wrong"), ("12", PASSWORD), ("nobody", PASSWORD), ("nobody", "wrong")):
        hasher.verified.clear()
        await attempt(client, login, password)
        assert (login, 1) == (login, len(hasher.verified))
        assert own.get(login, hasher.verified[0]) == hasher.verified[0]
    assert hasher.verified[0] not in own.values()
    assert hash_password("any").split("$")[:4] == hasher.verified[0].split("$")[:4]


async def test_login_past_the_password_queue_is_no_service(start: Start, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past workers and queue a login is 503 with a time to come back; the waiting ones end well, and room is free again."""
    gateway = await start(password_workers=1, password_queue_max=2)
    clients = [await connect(gateway, login=None) for _ in range(4)]
    hasher = Hasher(monkeypatch, held=True)
    try:
        async with asyncio.TaskGroup() as tasks:
            logins = [tasks.create_task(attempt(client, "10")) for client in clients]
            async with asyncio.timeout(WAIT_SECONDS):
                done, waiting = await asyncio.wait(logins, return_when=asyncio.FIRST_COMPLETED)
            healthy = await (await connect(gateway, login=None)).command("HealthCheck")
            hasher.go_on.set()
    finally:
        hasher.go_on.set()
    refused = next(iter(done)).result()
    assert (503, "NO_SERVICE", "not_executed") == (refused["status"], refused["error"], refused["outcome"])
    assert refused["retry_after_ms"] > 0
    assert 200 == healthy["status"]
    assert [200] * 3 == [task.result()["status"] for task in waiting]
    assert 200 == (await attempt(clients[0], "10"))["status"]


async def test_login_sent_all_the_time_bars_nobody_else(start: Start, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one login from one address some wait for a thread; the others get NO_SERVICE, and other managers there a place."""
    gateway = await start(password_workers=1, password_queue_max=9)
    flood = [await connect(gateway, login=None) for _ in range(12)]
    other = await connect(gateway, login=None)
    hasher = Hasher(monkeypatch, held=True)
    try:
        async with asyncio.TaskGroup() as tasks:
            floods = [tasks.create_task(attempt(client, "10")) for client in flood]
            async with asyncio.timeout(WAIT_SECONDS):
                while sum(task.done() for task in floods) < 7:
                    await asyncio.wait([task for task in floods if not task.done()], return_when=asyncio.FIRST_COMPLETED)
            refused = [task.result()["status"] for task in floods if task.done()]
            late = tasks.create_task(attempt(other, "11"))
            assert 200 == (await (await connect(gateway, login=None)).command("HealthCheck"))["status"]
            hasher.go_on.set()
    finally:
        hasher.go_on.set()
    assert [503] * 7 == refused
    assert [200] * 6 == [
        late.result()["status"],
        *(task.result()["status"] for task in floods if task.result()["status"] != 503),
    ]


async def test_address_with_many_logins_bars_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many accounts somebody has, others have a quarter of the places."""
    hasher = Hasher(monkeypatch, held=True)
    pool = passwords.Passwords(settings_for_tests(password_workers=1, password_queue_max=19))
    try:
        async with asyncio.TaskGroup() as tasks:
            crowd = [(login, "there") for login in "abcd" for _ in range(5)]
            waiting = [tasks.create_task(refusal_of(pool.matches("x", None, who))) for who in crowd]
            elsewhere = tasks.create_task(refusal_of(pool.matches("x", None, ("a", "elsewhere"))))
            async with asyncio.timeout(WAIT_SECONDS):
                while sum(task.done() for task in waiting) < 5:
                    await asyncio.wait([task for task in waiting if not task.done()], return_when=asyncio.FIRST_COMPLETED)
            assert not elsewhere.done()
            hasher.go_on.set()
    finally:
        hasher.go_on.set()
        pool.close()
    assert [15, 5] == [sum(task.result() is code for task in waiting) for code in (None, ErrorCode.NO_SERVICE)]
    assert elsewhere.result() is None


async def refusal_of(check: Awaitable[bool]) -> ErrorCode | None:
    """How a check was refused; None when it was made."""
    try:
        await check
    except CommandError as error:
        return error.code
    return None


async def test_session_that_expires_closes_its_socket(start: Start, connect: Any) -> None:
    """At the end of its life a session's socket is closed with 4501, unasked; its token proves nothing afterwards."""
    gateway = await start(session_seconds=1)
    client = await connect(gateway, login=None)
    token = (await attempt(client, "10"))["data"]["token"]
    assert 4501 == await client.closed()
    late = await connect(gateway, login=None)
    assert 401 == (await late.command("MngAddCalendarEvent", EVENT, __token=token))["status"]
