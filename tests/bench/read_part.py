"""The read part: single events, months, weeks, pages and the largest reply, on a million events and on ten thousand."""

from __future__ import annotations

import asyncio
import random
from functools import partial

from tests.bench import statements
from tests.bench.dataset import BRAND, BRANDS, SEED, value
from tests.bench.figures import Figure, Round, Sample
from tests.bench.load_job import Job, Shape
from tests.bench.processes import forget_peak, resident_bytes
from tests.bench.read_stage import ReadStage, staged
from tests.bench.stage import Step
from tests.bench.statements import Query

__all__ = ["FIGURES", "PLACES", "check_sides", "staged", "steps"]

FRAMES = 5_000
BUSY = Shape(sockets=64, in_flight=4)
PAGE_AT_ROW = 10_000
PROBE_SECONDS = 0.002

PLACES = "gateway, echo, pgbench and psql on {}, PostgreSQL and the prober on {}, the load client on either"
FIGURES = [
    Figure("manager's month, one client / pgbench", lambda r: r["month: gateway"]["p50"] / r["month: pgbench"]["p50"], 2),
    Figure("desk's week, one client / pgbench", lambda r: r["week: gateway"]["p50"] / r["week: pgbench"]["p50"], 2),
    Figure(
        "event by id, one client / (echo + pgbench)",
        lambda r: r["event: gateway"]["p50"] / (r["lone: echo"]["p50"] + r["event: pgbench"]["p50"]),
        1.8,
    ),
    Figure(
        "events by id at 64 x 4 / echo",
        lambda r: r["64 x 4: gateway"]["per_second"] / r["64 x 4: echo"]["per_second"],
        0.28,
        at_least=True,
    ),
    Figure("50,000 rows / psql", lambda r: r["large: gateway"]["seconds"] / r["large: psql"]["seconds"], 1.5),
    Figure(
        "  meanwhile: resident memory / reply",
        lambda r: r["large: gateway"]["resident_growth"] / r["large: gateway"]["bytes"],
        1,
        worst=True,
    ),
    Figure("  meanwhile: longest loop stall", lambda r: r["large: gateway"]["stall"] * 1000, 20, unit="ms"),
    Figure("manager's month, large table / small", lambda r: r["month: gateway"]["p50"] / r["month: small"]["p50"], 1.5),
    Figure("page at row 10,000 by after / first", lambda r: r["page: at row"]["p50"] / r["page: first"]["p50"], 1.3),
]


def steps(stage: ReadStage) -> dict[str, Step]:
    """Each side of each figure by its name."""
    dataset, access = stage.dataset, stage.access
    month, week = statements.month_of_manager(dataset, access), statements.week_of_desk(dataset, access)
    first, later = statements.page(dataset, access, None), statements.page(dataset, access, _row_before_page(stage))
    event, large = statements.one_event(access), statements.large(dataset, access)
    frames = _frames_of_events(stage)
    pick = f"\\set id {BRANDS} * random(1, {dataset.events // BRANDS - 1}) + {BRAND[-1]}\n"
    gateway = partial(stage.ask, stage.gateway, token=stage.token)
    pgbench = partial(stage.postgres.pgbench, dataset.dsn, seconds=stage.step_seconds)
    return {
        "month: pgbench": partial(pgbench, month),
        "month: gateway": partial(gateway, [month.frame]),
        "month: small": partial(stage.ask, stage.small_gateway, [month.frame], stage.small_token),
        "week: pgbench": partial(pgbench, week),
        "week: gateway": partial(gateway, [week.frame]),
        "event: pgbench": partial(pgbench, event, before=pick),
        "lone: echo": partial(stage.ask, stage.echo, frames),
        "event: gateway": partial(gateway, frames),
        "64 x 4: echo on the gateway's socket": partial(stage.ask, stage.echo_on_gateway_socket, frames, shape=BUSY),
        "64 x 4: echo": partial(stage.ask, stage.echo, frames, shape=BUSY),
        "64 x 4: gateway": partial(gateway, frames, shape=BUSY),
        "8 clients: pgbench": partial(pgbench, event, before=pick, clients=8),
        "large: psql": partial(_fetch_with_psql, stage, large),
        "large: gateway": partial(_fetch_large, stage, large),
        "large: probe at rest": partial(_probe_at_rest, stage),
        "page: first": partial(gateway, [first.frame]),
        "page: at row": partial(gateway, [later.frame]),
        "page: first, pgbench": partial(pgbench, first),
        "page: at row, pgbench": partial(pgbench, later),
    }


def check_sides(round_: Round) -> None:
    """Raises when two sides did not do the same work."""
    large, small = (round_.get(f"month: {side}", {}).get("bytes", 0) for side in ("gateway", "small"))
    if large and small and large != small:
        raise RuntimeError(f"the manager's month has {large:.0f} bytes in the large database and {small:.0f} in the small")


def _frames_of_events(stage: ReadStage) -> list[str]:
    """Events of the manager's brand, drawn from the seed."""
    draw = random.Random(SEED)
    brand = int(BRAND[-1])
    ids = (BRANDS * draw.randint(1, stage.dataset.events // BRANDS - 1) + brand for _ in range(FRAMES))
    return [statements.frame_of_event(event_id) for event_id in ids]


def _row_before_page(stage: ReadStage) -> tuple[int, int]:
    """The row behind which the later page begins."""
    from_, to = stage.dataset.long_range
    row = asyncio.run(
        value(
            stage.dataset.dsn,
            "SELECT start_time, id FROM calendar_event WHERE brand = $1 AND start_time < $3 AND end_time > $2"
            " ORDER BY start_time, id OFFSET $4 LIMIT 1",
            *(BRAND, from_, to, PAGE_AT_ROW - 1),
        )
    )
    if row is None:
        raise RuntimeError(f"--events {stage.dataset.events} is too small for a page at row {PAGE_AT_ROW}")
    return row["start_time"], row["id"]


def _fetch_with_psql(stage: ReadStage, large: Query) -> Sample:
    return {"seconds": stage.postgres.psql(stage.dataset.dsn, large)}


def _fetch_large(stage: ReadStage, large: Query) -> Sample:
    """One large reply, while a second socket keeps asking for the gateway's health."""
    pid = stage.gateway.pid
    stage.prober.begin(_probe(stage))
    before = resident_bytes(pid)
    forget_peak(pid)
    job = Job(port=stage.gateway.port, frames=[large.frame], expect='"status":200,', token=stage.token, count=1)
    try:
        result = stage.client.run(job)
        growth = resident_bytes(pid, peak=True) - before
    finally:
        stall = stage.prober.finish().longest
    return {"seconds": result.p50, "bytes": float(result.bytes_received), "resident_growth": float(growth), "stall": stall}


def _probe_at_rest(stage: ReadStage) -> Sample:
    """The prober alone: what of the longest stall is the machine's own."""
    result = stage.prober.run(_probe(stage, seconds=1))
    return {"p50": result.p50, "stall": result.longest}


def _probe(stage: ReadStage, seconds: float = 0) -> Job:
    return Job(
        port=stage.gateway.port,
        frames=[statements.frame_of_health_check()],
        expect='"status":200,',
        token=stage.token,
        seconds=seconds,
        pause_seconds=PROBE_SECONDS,
    )
