"""Signing in, timed: what many sign-ins at once cost everybody else, and whether the time tells that a login exists."""

from __future__ import annotations

import asyncio
import itertools
import time
from statistics import median
from typing import NamedTuple

from gateway import managers
from gateway.managers import NewManager
from tests.client import Client
from tests.conftest import PASSWORD
from tests.faults.check import Finding
from tests.faults.keys import opened
from tests.faults.prober import Prober, prober
from tests.faults.stage import Stage, connected, sessions

ROUNDS = 3
AT_ONCE = 20
PROBE_SECONDS = 6.0
"""Of the control too. Sign-ins that take longer prove nothing: their last ones would go unprobed."""
STALL_SECONDS = 0.02
GUESSES = 30
"""Of each kind in a round, by turns."""
APART_MAX = 0.15
KNOWN = NewManager(id=20, login="known")
UNTHROTTLED = {"sign_in_failures_max": 0, "sign_in_address_failures_max": 0}
_unknown = itertools.count(1)


class Crowd(NamedTuple):
    """Many sign-ins at once."""

    more_stall: float
    """how much longer the event loop stalled than without them"""
    seconds: float
    refused: int

    @property
    def good(self) -> bool:
        return self.more_stall <= STALL_SECONDS and self.seconds <= PROBE_SECONDS and not self.refused


async def sign_in_timing(stage: Stage) -> Finding:
    """The known login's hash is one of production's cost."""
    async with stage.database() as dsn, connected(dsn) as db, prober() as probe:
        await managers.add(db, KNOWN, PASSWORD)
        (token,) = await sessions(dsn)
        async with stage.gateway(dsn, **UNTHROTTLED) as gateway, opened(gateway.url, token, AT_ONCE) as clients:
            crowds = [await _crowd(probe, gateway.port, clients) for _ in range(ROUNDS)]
            guesses = [await _guesses(clients[0]) for _ in range(ROUNDS)]
    crowd = min(crowds, key=lambda one: (not one.good, one.more_stall))
    known, unknown = min(guesses, key=_apart)
    apart = _apart((known, unknown))
    stalls = ", ".join(f"{one.more_stall * 1000:+.0f}" for one in crowds)
    aparts = ", ".join(f"{_apart(pair):.1%}" for pair in guesses)
    return Finding(
        crowd.good and apart <= APART_MAX,
        f"best of {ROUNDS}: {AT_ONCE - crowd.refused} of {AT_ONCE} signed in within {crowd.seconds:.1f} s, stall "
        f"{crowd.more_stall * 1000:+.0f} ms over the control (all: {stalls}); refused after {known * 1000:.1f} ms with a known "
        f"login, {unknown * 1000:.1f} with an unknown one, {apart:.1%} apart (all: {aparts})",
    )


async def _crowd(probe: Prober, port: int, clients: list[Client]) -> Crowd:
    """All sign in at once, soon after the prober has begun."""
    control = await probe.stall(port, PROBE_SECONDS)
    async with asyncio.TaskGroup() as tasks:
        probing = tasks.create_task(probe.stall(port, PROBE_SECONDS))
        await asyncio.sleep(PROBE_SECONDS / 10)
        began = time.monotonic()
        data = {"login": KNOWN.login, "password": PASSWORD}
        replies = await asyncio.gather(*(client.command("MngLogin", data) for client in clients))
        seconds = time.monotonic() - began
    return Crowd(probing.result() - control, seconds, sum(reply["status"] != 200 for reply in replies))


async def _guesses(client: Client) -> tuple[float, float]:
    """The medians of how long a wrong password takes: of the known login, and of logins that nobody has."""
    known, unknown = [], []
    for _ in range(GUESSES):
        known.append(await _guess(client, KNOWN.login))
        unknown.append(await _guess(client, f"nobody-{next(_unknown)}"))
    return median(known), median(unknown)


async def _guess(client: Client, login: str) -> float:
    began = time.perf_counter()
    reply = await client.command("MngLogin", {"login": login, "password": "a guess"})
    seconds = time.perf_counter() - began
    assert (reply["status"], reply["error"]) == (401, "UNAUTHORIZED"), reply
    return seconds


def _apart(medians: tuple[float, float]) -> float:
    """How much longer the longer one is."""
    return max(medians) / min(medians) - 1
