"""Checks that the checks can fail: each runs one against a gateway that breaks the promise, and passes when that is seen."""

from __future__ import annotations

from tests.faults.check import Finding
from tests.faults.keys import replayed
from tests.faults.kills import gateway_cycles, postgres_cycles
from tests.faults.plants import ASYNCHRONOUS, EARLY, KEYLESS
from tests.faults.stage import Stage

CYCLES_MAX = 6
"""Of blows that may miss before a control counts as undetected."""
_SLOW_WAL = (
    "ALTER SYSTEM SET wal_writer_delay = '10s'; ALTER SYSTEM SET wal_writer_flush_after = '1GB'; SELECT pg_reload_conf()"
)
_RESET_WAL = "ALTER SYSTEM RESET wal_writer_delay; ALTER SYSTEM RESET wal_writer_flush_after; SELECT pg_reload_conf()"


async def asynchronous_commit(stage: Stage) -> Finding:
    """A gateway that does not wait for the disk loses what it acknowledged when PostgreSQL is killed."""
    await stage.execute(_SLOW_WAL)
    try:
        for cycle in range(1, CYCLES_MAX + 1):
            truth = await postgres_cycles(stage, 1, ASYNCHRONOUS)
            if truth.lost:
                return Finding(True, f"detected at kill {cycle}: {truth}")
    finally:
        await stage.execute(_RESET_WAL)
    return Finding(False, f"not detected in {CYCLES_MAX} kills")


async def early_acknowledgement(stage: Stage) -> Finding:
    """A gateway that acknowledges before the commit loses that when it is killed."""
    for cycle in range(1, CYCLES_MAX + 1):
        truth = await gateway_cycles(stage, 1, EARLY)
        if truth.lost:
            return Finding(True, f"detected at kill {cycle}: {truth}")
    return Finding(False, f"not detected in {CYCLES_MAX} kills")


async def ignored_keys(stage: Stage) -> Finding:
    """A gateway that does not look at keys does what is sent twice twice."""
    found = await replayed(stage, KEYLESS)
    return Finding(found.truth.doubled > 0, f"{found.truth.doubled} of {found.keys} keys made more than one event")
