"""Guessing passwords: failures are counted by login and address, and by address; nobody can bar another's sign-in."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.client import Client
from tests.conftest import PASSWORD, Running, Start
from tests.test_cli import Run, cli

__all__ = ["cli"]

PROXY = {"trusted_proxies": ("127.0.0.1",)}


class Clock:
    """Stands for the throttle's clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("gateway.sign_in_throttle.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def client_at(connect: Any, gateway: Running, address: str) -> Client:
    """A client that comes from this address, by way of a proxy."""
    client: Client = await connect(gateway, login=None, additional_headers={"X-Forwarded-For": address})
    return client


async def tried(client: Client, login: str, password: str = "wrong") -> Any:
    return await client.command("MngLogin", {"login": login, "password": password})


async def statuses(client: Client, *attempts: tuple[str, str]) -> list[int]:
    return [(await tried(client, *attempt))["status"] for attempt in attempts]


async def test_guesses_end_with_too_frequent_and_a_time_to_wait(start: Start, connect: Any, clock: Clock) -> None:
    """After three failures of a login even its right password is refused, until one failure is forgotten."""
    client = await connect(await start(sign_in_failures_max=3, sign_in_forget_seconds=300), login=None)
    assert [401] * 3 == await statuses(client, *[("10", "wrong")] * 3)
    refused = await tried(client, "10", PASSWORD)
    assert (429, "TOO_FREQUENT", "not_executed") == (refused["status"], refused["error"], refused["outcome"])
    assert 100_000 == refused["retry_after_ms"]
    clock.now += 99
    assert 429 == (await tried(client, "10", PASSWORD))["status"]
    clock.now += 2
    assert [401, 429] == await statuses(client, ("10", "wrong"), ("10", "wrong"))


@pytest.mark.usefixtures("clock")
async def test_send_says_how_long_too_many_guesses_bar_the_sign_in(start: Start, cli: Run, scratch_dir: Path) -> None:
    """One line, with the seconds to wait; a password that is merely wrong is refused without any."""
    running = await start(sign_in_failures_max=1, sign_in_forget_seconds=60.5)
    password = scratch_dir / "guessed-password"
    password.write_text("wrong")
    arguments = ("send", "HealthCheck", "--url", running.url, "--login", "10", "--password-file", str(password))
    told = [await cli(*arguments) for _ in range(2)]
    refused = "gateway: Sign-in as 10 was refused: "
    assert (2, "", refused + "login or password is wrong\n") == told[0]
    assert (2, "", refused + "too many failed sign-ins from your address; try again in 61 s\n") == told[1]


async def test_guesses_elsewhere_bar_nobody(start: Start, connect: Any) -> None:
    """An attacker who is refused does not keep the owner, or others beside the attacker, from signing in."""
    gateway = await start(sign_in_failures_max=2, **PROXY)
    attacker, owner = [await client_at(connect, gateway, address) for address in ("203.0.113.5", "198.51.100.7")]
    assert [401, 401, 429] == await statuses(attacker, *[("10", "wrong")] * 3)
    assert [401, 200] == await statuses(owner, ("10", "mistyped"), ("10", PASSWORD))
    assert [200, 429] == await statuses(attacker, ("11", PASSWORD), ("10", PASSWORD))


async def test_guesses_over_many_logins_bar_the_address_alone(start: Start, connect: Any) -> None:
    """Failures of all logins, unknown ones too, add up for their address; another address is free."""
    gateway = await start(sign_in_address_failures_max=4, **PROXY)
    attacker, other = [await client_at(connect, gateway, address) for address in ("203.0.113.5", "198.51.100.7")]
    logins = ("10", "11", "nobody", "somebody")
    assert [401] * 4 == await statuses(attacker, *[(login, "wrong") for login in logins])
    assert [429, 429] == await statuses(attacker, ("12", PASSWORD), ("10", PASSWORD))
    assert [200, 200] == await statuses(other, ("12", PASSWORD), ("10", PASSWORD))


async def test_success_forgets_the_logins_failures_and_not_the_addresss(start: Start, connect: Any) -> None:
    """A person who mistypes and then gets in starts anew; an own account buys no more guesses at others."""
    client = await connect(await start(sign_in_failures_max=2, sign_in_address_failures_max=3), login=None)
    for _ in range(2):
        assert [401, 200] == await statuses(client, ("10", "wrong"), ("10", PASSWORD))
    assert [401, 429] == await statuses(client, ("11", "wrong"), ("10", PASSWORD))


async def test_addresses_of_one_ipv6_network_count_as_one(start: Start, connect: Any) -> None:
    """Whoever has a /64 has not that many guesses."""
    gateway = await start(sign_in_failures_max=2, **PROXY)
    told = []
    for address in ("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"):
        told += await statuses(await client_at(connect, gateway, address), ("10", "wrong"))
    assert [401, 401, 429, 401] == told


async def test_forwarded_address_of_a_stranger_is_not_believed(start: Start, connect: Any) -> None:
    """Without trusted proxies an invented address gives no new guesses."""
    gateway = await start(sign_in_failures_max=1)
    told = [await statuses(await client_at(connect, gateway, f"203.0.113.{number}"), ("10", "wrong")) for number in range(3)]
    assert [[401], [429], [429]] == told


async def test_guesses_sent_at_once_are_counted_before_the_next_is_checked(start: Start, connect: Any) -> None:
    """Twenty guesses in flight at once get no further than five one after the other; nor does the right one behind them."""
    gateway = await start(sign_in_failures_max=5, password_workers=1)
    clients = [await connect(gateway, login=None) for _ in range(20)]
    replies = await asyncio.gather(*(tried(client, "10") for client in clients))
    assert [401] * 5 + [429] * 15 == sorted(reply["status"] for reply in replies)


async def test_right_passwords_at_once_are_never_too_frequent(start: Start, connect: Any) -> None:
    """Only failures count: twenty sign-ins of one person at the same moment all succeed."""
    gateway = await start(sign_in_failures_max=1, sign_in_address_failures_max=1)
    clients = [await connect(gateway, login=None) for _ in range(20)]
    replies = await asyncio.gather(*(tried(client, "10", PASSWORD) for client in clients))
    assert [200] * 20 == [reply["status"] for reply in replies]


async def test_refusals_of_a_disabled_manager_count_too(start: Start, connect: Any, db: Any) -> None:
    """With the right password as well: what is not counted would tell that it was right."""
    await db.execute("UPDATE manager SET disabled = true WHERE id = 10")
    client = await connect(await start(sign_in_failures_max=2), login=None)
    assert [401, 401, 429] == await statuses(client, *[("10", PASSWORD)] * 3)


async def test_throttle_can_be_switched_off(start: Start, connect: Any) -> None:
    """With both maxima at 0 nobody is refused for failing."""
    client = await connect(await start(sign_in_failures_max=0, sign_in_address_failures_max=0), login=None)
    assert [401] * 60 == await statuses(client, *[("10", "wrong")] * 60)
