"""How many sockets a manager and an address may have: the one too many gets 4002, and a seat is free again when one leaves."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.client import Client
from tests.conftest import PASSWORD, Running, Start
from tests.process import becomes_true


async def token_of(gateway: Running, login: str) -> str:
    async with Client.connected(gateway.url) as client:
        return str((await client.login(login, PASSWORD))["token"])


def bearer(token: str) -> dict[str, Any]:
    return {"login": None, "additional_headers": {"Authorization": f"Bearer {token}"}}


async def healthy(client: Client) -> bool:
    return bool((await client.command("HealthCheck"))["status"] == 200)


async def test_socket_past_the_managers_limit_is_closed_with_4002(start: Start, connect: Any) -> None:
    """However it proves itself; other managers have seats of their own, and sockets that leave give theirs back."""
    gateway = await start(manager_connections_max=2)
    token = await token_of(gateway, "10")
    await becomes_true(lambda: not gateway.gateway._connections)
    first, second = [await connect(gateway, **bearer(token)) for _ in range(2)]
    assert [True, True] == [await healthy(client) for client in (first, second)]
    by_upgrade = await connect(gateway, **bearer(token))
    assert 4002 == await by_upgrade.closed()
    by_message = await connect(gateway, login=None)
    await by_message.socket.send(msgspec.json.encode({"authorization": token}).decode())
    assert 4002 == await by_message.closed()
    assert [{"event": "authorization", "success": True}] == by_message.others
    by_login = await connect(gateway, login=None)
    assert 200 == (await by_login.command("MngLogin", {"login": "10", "password": PASSWORD}))["status"]
    assert 4002 == await by_login.closed()
    assert await healthy(await connect(gateway, login="11"))
    await first.socket.close()
    await becomes_true(lambda: 2 == len(gateway.gateway._connections))
    assert await healthy(await connect(gateway, **bearer(token)))
    assert await healthy(second)


async def test_signing_out_gives_the_managers_seat_back(start: Start, connect: Any) -> None:
    """A socket that is nobody's, or another's, counts no more; signing in again on the same socket takes no second seat."""
    gateway = await start(manager_connections_max=1)
    client = await connect(gateway, login="10")
    await client.login("10", PASSWORD)
    assert 200 == (await client.command("MngLogout"))["status"]
    other = await connect(gateway, login="10")
    await client.login("11", PASSWORD)
    await client.command("MngLogin", {"login": "10", "password": PASSWORD})
    assert 4002 == await client.closed()
    assert await healthy(other)


async def test_socket_past_the_addresss_limit_is_closed_with_4002(start: Start, connect: Any) -> None:
    """Before it proves anything; addresses told by a trusted proxy have seats of their own, IPv6 ones by their /64."""
    gateway = await start(address_connections_max=1, trusted_proxies=("127.0.0.1",))

    async def connected_from(address: str) -> Client:
        client: Client = await connect(gateway, login=None, additional_headers={"X-Forwarded-For": address})
        return client

    first, other = await connected_from("2001:db8::1"), await connected_from("203.0.113.5")
    assert 4002 == await (await connected_from("2001:db8::2")).closed()
    assert [True, True] == [await healthy(client) for client in (first, other)]
    await first.socket.close()
    await becomes_true(lambda: 1 == len(gateway.gateway._connections))
    assert await healthy(await connected_from("2001:db8::3"))


async def test_limits_of_sockets_can_be_switched_off(start: Start, connect: Any) -> None:
    """With 0 a manager and an address may have any number."""
    gateway = await start(manager_connections_max=0, address_connections_max=0)
    assert [True] * 5 == [await healthy(await connect(gateway)) for _ in range(5)]


async def test_seats_are_forgotten_with_the_last_socket(start: Start, connect: Any) -> None:
    """Nothing is kept of managers and addresses that are gone, also of sockets that were refused."""
    gateway = await start(manager_connections_max=1)
    clients = [await connect(gateway, login=login) for login in ("10", "11")]
    refused = await connect(gateway, login=None)
    await refused.command("MngLogin", {"login": "10", "password": PASSWORD})
    assert 4002 == await refused.closed()
    for client in clients:
        await client.socket.close()
    await becomes_true(lambda: not gateway.gateway._connections)
    seats = gateway.gateway._seats
    assert ({}, {}, {}) == (seats._of_address._counts, seats._of_manager._counts, seats._manager_of)
