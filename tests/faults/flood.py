"""A manager who floods the gateway beside one who works quietly: what the quiet one feels of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from tests.bench.load_job import NUMBER, ONE_BY_ONE, Job, Shape
from tests.faults.check import Finding
from tests.faults.load import frame_of
from tests.faults.prober import Prober, prober
from tests.faults.stage import Stage, connected, sessions

ROUNDS = 3
MEASURED_SECONDS = 6
PAUSE_SECONDS = 0.02
"""Between two adds of the quiet manager; some 250 of them are measured each time."""
FLOOD = Shape(sockets=16, in_flight=64)
FLOODED_SECONDS = 1
"""How long the flood is on before the quiet one is measured, and stays on behind it."""
SLOWER_MAX = 2.0
FLOODING, QUIET = 10, 11


class Round(NamedTuple):
    """The quiet manager's p99 (seconds) without and with the flood, the flood's adds a second, and all that were answered."""

    alone: float
    beside: float
    flood_rate: float
    answered: int


async def flooding_manager(stage: Stage) -> Finding:
    """Adds of both, each load from a process of its own; the control is the quiet one alone, right before each round.

    The best round beside the flood is held against the best one alone: a control that was disturbed would let anything pass.
    """
    async with stage.database() as dsn, stage.gateway(dsn) as gateway, connected(dsn) as db:
        tokens = await sessions(dsn, (FLOODING, QUIET))
        async with prober() as quiet, prober(first=False) as flooding:
            rounds = [await _round(gateway.port, tokens, flooding, quiet) for _ in range(ROUNDS)]
        there, answered = await db.fetchval("SELECT count(*) FROM calendar_event"), sum(one.answered for one in rounds)
    alone, beside = min(one.alone for one in rounds), min(one.beside for one in rounds)
    return Finding(
        beside <= SLOWER_MAX * alone and there == answered,
        f"the quiet one's p99 {beside / alone:.1f}x: beside a flood of {max(one.flood_rate for one in rounds):,.0f}/s "
        f"{_best(one.beside for one in rounds)}, alone {_best(one.alone for one in rounds)}; "
        f"{there:,} of {answered:,} acknowledged adds are there",
    )


def _best(seconds: Iterable[float]) -> str:
    first, *others = [f"{each * 1000:.1f}" for each in sorted(seconds)]
    return f"{first} ms (also {', '.join(others)})"


async def _round(port: int, tokens: list[str], flooding: Prober, quiet: Prober) -> Round:
    much = _job(port, tokens[0], FLOOD, MEASURED_SECONDS + 2 * FLOODED_SECONDS)
    work = _job(port, tokens[1], ONE_BY_ONE, MEASURED_SECONDS, pause_seconds=PAUSE_SECONDS)
    alone = await quiet.run(work)
    async with asyncio.TaskGroup() as tasks:
        flooded = tasks.create_task(flooding.run(much))
        await asyncio.sleep(FLOODED_SECONDS)
        beside = await quiet.run(work)
    flood = flooded.result()
    answered = sum(result.commands_in_all for result in (alone, beside, flood))
    return Round(alone.p99, beside.p99, flood.commands / flood.seconds, answered)


def _job(port: int, token: str, shape: Shape, seconds: float, pause_seconds: float = 0) -> Job:
    return Job(
        port=port,
        frames=[frame_of(NUMBER)],
        expect='"status":200',
        token=token,
        shape=shape,
        seconds=seconds,
        pause_seconds=pause_seconds,
    )
