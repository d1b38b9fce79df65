"""MngLogout: ends the session everywhere, and leaves the socket to whoever signs in next."""

from __future__ import annotations

from typing import Any

from tests.client import EVENT, Client
from tests.conftest import PASSWORD, Running, Start
from tests.test_proofs import bearer, opened
from tests.test_tokens import KEY, token_of


async def add_status(client: Client, **top_level: Any) -> Any:
    """The status of an add on this socket."""
    return (await client.command("MngAddCalendarEvent", EVENT, **top_level))["status"]


async def test_logout_ends_the_session_everywhere(start: Start, connect: Any, db: Any) -> None:
    """On other sockets, in `__token`, in the upgrade, and at a second gateway whose memory still knows the session."""
    first, second = await start(), await start()
    client = await connect(first, login=None)
    token = (await client.login("10", PASSWORD))["token"]
    proof = {"login": None, "additional_headers": {"Authorization": f"Bearer {token}"}}
    others = [await connect(first, **proof), await connect(second, **proof)]
    anonymous = [await connect(first, login=None), await connect(second, login=None)]
    assert [200] * 3 == [await add_status(each) for each in (client, *others)]
    assert [200] * 2 == [await add_status(each, __token=token) for each in anonymous]

    assert 200 == (await client.command("MngLogout"))["status"]
    assert [401] * 2 == [await add_status(each) for each in others]
    assert [4501] * 2 == [await each.closed() for each in others]
    assert [401] * 2 == [await add_status(each, __token=token) for each in anonymous]
    late = [await connect(gateway, **proof) for gateway in (first, second)]
    assert [4503] * 2 == [await each.closed() for each in late]
    assert 5 == await db.fetchval("SELECT count(*) FROM calendar_event")


async def test_logout_leaves_the_socket_open_for_another_login(gateway: Running, connect: Any) -> None:
    """The socket is nobody's: its commands are 401, it is not closed, and anybody may sign in on it."""
    client = await connect(gateway)
    reply = await client.command("MngLogout")
    assert (200, {}) == (reply["status"], reply["data"])
    assert [401, 401] == [await add_status(client), (await client.command("MngLogout"))["status"]]
    await client.login("11", PASSWORD)
    assert 11 == (await client.add())["created_by"]


async def test_logout_starts_the_time_to_prove_oneself_anew(start: Start, connect: Any, db: Any) -> None:
    """A socket that signed out and does nothing more is closed with 4500, as one that never signed in."""
    client = await connect(
        await start(token_secret=KEY, authentication_seconds=1), login=None, **bearer(token_of(await opened(db)))
    )
    assert 200 == (await client.command("MngLogout"))["status"]
    assert 4500 == await client.closed()


async def test_logout_ends_the_session_it_was_sent_with_alone(gateway: Running, connect: Any) -> None:
    """With `__token` it ends that session; the socket's own and the manager's other ones go on."""
    client, other = await connect(gateway), await connect(gateway, login=None)
    token = (await other.login("11", PASSWORD))["token"]
    assert 200 == (await client.command("MngLogout", __token=token))["status"]
    assert [200, 401] == [await add_status(client), await add_status(other)]


async def test_logout_twice_is_401(start: Start, connect: Any, db: Any) -> None:
    """A session that is over cannot be ended again, at whichever gateway; the time it ended at stands."""
    first, second = await start(), await start()
    client = await connect(first, login=None)
    token = (await client.login("10", PASSWORD))["token"]
    again = await connect(second, login=None)
    assert 200 == await add_status(again, __token=token)
    assert 200 == (await client.command("MngLogout"))["status"]
    await db.execute("UPDATE session SET revoked_time = 7")
    assert 401 == (await again.command("MngLogout", __token=token))["status"]
    assert 7 == await db.fetchval("SELECT revoked_time FROM session")


async def test_logout_takes_no_data(gateway: Running, connect: Any) -> None:
    """A field is refused by name and the session goes on."""
    client = await connect(gateway)
    reply = await client.command("MngLogout", {"all": True})
    assert ("INVALID_DATA", "all") == (reply["error"], reply["field"])
    assert 200 == await add_status(client)
