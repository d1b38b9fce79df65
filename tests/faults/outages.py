"""PostgreSQL that is there and does not answer: stopped, behind a black hole, all its connections taken, its disk full."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from tests.client import EVENT, Client
from tests.faults.check import Finding
from tests.faults.ledger import Entry, Ledger, counted
from tests.faults.load import Load, loaded
from tests.faults.prober import Prober, prober
from tests.faults.stage import Stage, connected, sessions
from tests.process import GatewayProcess, until
from tests.proxy import proxied

ROUNDS = 3
CONTROL_SECONDS = 3
AWAY_SECONDS = 10
ANSWERED_SECONDS = 6
STALL_SECONDS = 0.05
BACK_SECONDS = 1.0
POOL = 10
PAGE = {"from": 1, "to": 2, "limit": 10, "offset": 0, "deskFilter": "*"}
_OPEN = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'crm-gateway' AND datname = current_database()"
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


class Round:
    """One outage: how long the loop stalled with and without it, the slowest answer, and the first success behind it."""

    def __init__(self, more_stall: float, slowest: float, back: float, unanswered: int) -> None:
        self.more_stall = more_stall
        self.slowest = slowest
        self.back = back
        self.unanswered = unanswered

    @property
    def good(self) -> bool:
        return (
            self.more_stall <= STALL_SECONDS
            and self.slowest <= ANSWERED_SECONDS
            and self.back <= BACK_SECONDS
            and not self.unanswered
        )

    def __str__(self) -> str:
        return (
            f"slowest answer {self.slowest:.2f} s, stall {self.more_stall * 1000:+.0f} ms over the control, first success "
            f"after {self.back * 1000:.0f} ms, {self.unanswered} unanswered"
        )


async def stopped_postgres(stage: Stage) -> Finding:
    """SIGSTOP to every process of PostgreSQL."""
    async with stage.database() as dsn:
        away, back = partial(stage.signal_postgres, signal.SIGSTOP), partial(stage.signal_postgres, signal.SIGCONT)
        return await _outages(stage, dsn, dsn, away, back)


async def black_hole(stage: Stage) -> Finding:
    """A link that takes every byte and passes none on."""
    async with stage.database() as dsn, proxied(dsn) as (proxy, through):
        return await _outages(stage, dsn, through, proxy.hold, proxy.release)


async def _outages(stage: Stage, dsn: str, through: str, away: Callable[[], None], back: Callable[[], None]) -> Finding:
    rounds = []
    ledger, (token,) = stage.ledger("outage"), await sessions(dsn)
    async with prober() as probe, stage.gateway(through) as gateway, loaded(ledger, token, gateway.url) as load:
        for _ in range(ROUNDS):
            await load.acknowledges(1)
            rounds.append(await _outage(probe, gateway, ledger, load, away, back))
    async with connected(dsn) as db:
        truth = await ledger.reconcile(db)
    best = min(rounds, key=lambda one: (not one.good, one.more_stall))
    return Finding(best.good and truth.holds, f"best of {ROUNDS}: {best}; {truth}")


async def _outage(
    probe: Prober, gateway: GatewayProcess, ledger: Ledger, load: Load, away: Callable[[], None], back: Callable[[], None]
) -> Round:
    control = await probe.stall(gateway.port, CONTROL_SECONDS)
    already = len(ledger.entries)
    async with asyncio.TaskGroup() as tasks:
        probing = tasks.create_task(probe.stall(gateway.port, AWAY_SECONDS + 1))
        await asyncio.sleep(0.5)
        away()
        try:
            await asyncio.sleep(AWAY_SECONDS)
        finally:
            returned = time.monotonic()
            back()
    stalled = probing.result()
    first = await until(lambda: _first_success(ledger, returned))
    during = list(ledger.entries.values())[max(0, already - 50) :]
    now = time.monotonic()
    slowest = max((entry.answered_at or now) - entry.sent_at for entry in during)
    return Round(stalled - control, slowest, first - returned, sum(entry.closed != 0 for entry in during))


async def _first_success(ledger: Ledger, after: float) -> float:
    return min((e.answered_at for e in ledger.entries.values() if e.status == 200 and e.answered_at > after), default=0.0)


async def exhausted_pool(stage: Stage) -> Finding:
    """All connections taken by commands that wait for a lock: others are refused soon, and then none is missing."""
    rounds, answers = stage.count(5, 1), []
    taken: set[int] = set()
    async with stage.database() as dsn, connected(dsn) as db:
        (token,) = await sessions(dsn)
        async with stage.gateway(dsn, db_acquire_seconds=0.5, db_connections_max=POOL) as gateway:
            proof = {"Authorization": f"Bearer {token}"}
            async with Client.connected(gateway.url, additional_headers=proof) as client:
                while await db.fetchval(_OPEN) < POOL:
                    await _ask(client, 4 * POOL, adds=False)
                for _ in range(rounds):
                    answers += await _exhaust(db, client, taken)
                await client.add(title="afterwards")
        stored = await db.fetchval("SELECT count(*) FROM calendar_event")
    kinds = counted(answers)
    refused = sum(entry.error == "NO_SERVICE" and entry.outcome == "not_executed" for entry in answers)
    untrue = sum(entry.outcome != "not_executed" for entry in answers)
    good = refused > 0 and untrue == 0 and taken == {POOL} and stored == 1
    return Finding(
        good, f"{rounds} times: {kinds}; {sorted(taken)} of {POOL} connections in use each time; {stored - 1} written"
    )


async def _exhaust(db: Any, client: Client, taken: set[int]) -> list[Entry]:
    """Answers to more commands than there are connections, while every table access waits."""
    async with db.transaction(), asyncio.TaskGroup() as tasks:
        await db.execute("LOCK TABLE calendar_event IN ACCESS EXCLUSIVE MODE")
        answers = tasks.create_task(_ask(client, 4 * POOL, adds=True))
        taken.add(await until(lambda: db.fetchval(_WAITING), lambda count: count >= POOL))
    return answers.result()


async def _ask(client: Client, count: int, *, adds: bool) -> list[Entry]:
    """The answers to so many pages, every other one an add where `adds` says so."""
    frames: list[tuple[str, dict[str, Any]]] = [("MngGetCalendarEventsByFilter", PAGE)] * count
    if adds:
        frames[::2] = [("MngAddCalendarEvent", EVENT)] * (count // 2)
    await asyncio.gather(*(client.socket.send(_frame(number, *frame)) for number, frame in enumerate(frames)))
    replies = [await client.receive() for _ in frames]
    return [
        Entry(str(reply["extID"]), 0, 1, reply["status"], reply.get("error", ""), reply.get("outcome", "")) for reply in replies
    ]


def _frame(number: int, command: str, data: dict[str, Any]) -> str:
    return msgspec.json.encode({"command": command, "extID": number, "data": data}).decode()
