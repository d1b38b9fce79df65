"""Sudden death of the gateway or of PostgreSQL, and the orderly end, each under load and held against the tables."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from contextlib import suppress

import asyncpg

from tests.faults.check import Finding
from tests.faults.ledger import Ledger, Truth
from tests.faults.load import Load, loaded
from tests.faults.stage import Stage, connected, sessions
from tests.process import until

SEED = 5
LOAD_MIN = 200
"""Acknowledged adds before each blow, and up to twice as many: no two blows fall at the same moment of the load."""
ROUNDS = 3
DRAIN_SECONDS = 10
_AT_REST = """
    SELECT count(*) = 0 FROM pg_stat_activity
    WHERE application_name = 'crm-gateway' AND datname = current_database() AND state <> 'idle'
"""


async def kill_gateway(stage: Stage) -> Finding:
    """SIGKILL to a gateway under load; the clients go on with the next one."""
    cycles = stage.count(20, 2)
    truth = await gateway_cycles(stage, cycles)
    return Finding(truth.holds, f"{cycles} kills: {truth}")


async def kill_postgres(stage: Stage) -> Finding:
    """SIGKILL to PostgreSQL, all of it; the gateway lives on."""
    cycles = stage.count(6, 1)
    truth = await postgres_cycles(stage, cycles)
    return Finding(truth.holds, f"{cycles} kills: {truth}")


async def terminate_gateway(stage: Stage) -> Finding:
    """SIGTERM under load: the gateway ends by itself, in time, and what it left unanswered was not done."""
    cycles, draw, codes, slowest = stage.count(20, 2), random.Random(SEED), [], 0.0
    async with stage.database() as dsn:
        ledger, (token,) = stage.ledger("terminate"), await sessions(dsn)
        async with loaded(ledger, token, "ws://127.0.0.1:1/") as load:
            for _ in range(cycles):
                async with stage.gateway(dsn, drain_seconds=DRAIN_SECONDS) as gateway:
                    load.url = gateway.url
                    await load.acknowledges(draw.randint(LOAD_MIN, 2 * LOAD_MIN))
                    began = time.monotonic()
                    gateway.signal(signal.SIGTERM)
                    codes.append(await gateway.exited())
                    slowest = max(slowest, time.monotonic() - began)
        truth = await _reconciled(dsn, ledger)
    unanswered = [entry for entry in ledger.entries.values() if entry.status == 0 and entry.closed]
    by_restart = sum(entry.closed == 1012 for entry in unanswered)
    good = truth.holds and set(codes) == {0} and slowest <= DRAIN_SECONDS
    return Finding(
        good,
        f"{cycles} stops: {truth}; {truth.late} done of {by_restart} unanswered on sockets closed with 1012; exit codes "
        f"{sorted(set(codes))}, slowest stop {slowest:.2f} s of {DRAIN_SECONDS}",
    )


async def gateway_cycles(stage: Stage, cycles: int, plant: str = "") -> Truth:
    """What is true after so many deaths of a gateway."""
    draw = random.Random(SEED)
    async with stage.database() as dsn:
        ledger, (token,) = stage.ledger("kill-gateway"), await sessions(dsn)
        async with loaded(ledger, token, "ws://127.0.0.1:1/") as load:
            for _ in range(cycles):
                async with stage.gateway(dsn, plant) as gateway:
                    load.url = gateway.url
                    await load.acknowledges(draw.randint(LOAD_MIN, 2 * LOAD_MIN))
                    await gateway.kill()
        return await _reconciled(dsn, ledger)


async def postgres_cycles(stage: Stage, cycles: int, plant: str = "") -> Truth:
    """What is true after so many deaths of PostgreSQL."""
    draw = random.Random(SEED)
    async with stage.database() as dsn:
        ledger, (token,) = stage.ledger("kill-postgres"), await sessions(dsn)
        async with stage.gateway(dsn, plant) as gateway, loaded(ledger, token, gateway.url) as load:
            for _ in range(cycles):
                await load.acknowledges(draw.randint(LOAD_MIN, 2 * LOAD_MIN))
                stage.signal_postgres(signal.SIGKILL)
                await asyncio.to_thread(stage.restart)
                await load.acknowledges(1)
        return await _reconciled(dsn, ledger)


async def answered_again(stage: Stage) -> Finding:
    """How much later than a bare loop that connects anew the gateway acknowledges again."""
    later = []
    async with stage.database() as dsn:
        ledger, (token,) = stage.ledger("answered-again"), await sessions(dsn)
        async with stage.gateway(dsn) as gateway, loaded(ledger, token, gateway.url) as load:
            for _ in range(ROUNDS):
                await load.acknowledges(LOAD_MIN)
                later.append(await _lag_after_kill(stage, dsn, load))
    return Finding(
        min(later) <= 1.0, f"{min(later) * 1000:+.0f} ms (all of {ROUNDS}: {', '.join(f'{s * 1000:+.0f}' for s in later)})"
    )


async def _lag_after_kill(stage: Stage, dsn: str, load: Load) -> float:
    stage.signal_postgres(signal.SIGKILL)
    bare = asyncio.create_task(_bare_loop(dsn))
    restarted = asyncio.create_task(asyncio.to_thread(stage.restart))
    try:
        await asyncio.sleep(0.2)  # answers from before the kill are in
        await load.acknowledges(1)
        answered = time.monotonic()
        return answered - await bare
    finally:
        bare.cancel()
        await asyncio.wait({bare})
        await restarted


async def _bare_loop(dsn: str) -> float:
    """When a client with nothing between it and PostgreSQL could work again."""
    while True:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            db = await asyncpg.connect(dsn)
            await db.execute("UPDATE schema_version SET applied_time = applied_time")
            await db.close()
            return time.monotonic()
        await asyncio.sleep(0.01)


async def _reconciled(dsn: str, ledger: Ledger) -> Truth:
    """The truth, once no statement of a dead gateway is under way."""
    async with connected(dsn) as db:
        await until(lambda: db.fetchval(_AT_REST))
        return await ledger.reconcile(db)
