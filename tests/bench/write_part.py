"""The write part: events added through the gateway and by pgbench, alone, together, on time, over many sockets, into much."""

from __future__ import annotations

import time
from functools import partial

from tests.bench.figures import Figure, Round, Sample
from tests.bench.load_job import Job, Shape
from tests.bench.processes import resident_bytes
from tests.bench.stage import Step
from tests.bench.write_stage import WriteStage, staged

__all__ = ["FIGURES", "PLACES", "check_sides", "staged", "steps"]

PLACES = "gateway and echo on {}, PostgreSQL on {}, the load client on either; both for pgbench with PostgreSQL"
CLIENTS = (1, 4, 8, 16, 32)
MANY_SOCKETS, IDLE_SOCKETS = 5_000, 10_000
BUSY = Shape(sockets=64, in_flight=4)
LONE = Shape()
SETTLE_SECONDS = 1
ROW_BYTES_RATIO_MAX = 1.02
"""Titles differ by a digit or two."""
MIB = 1024 * 1024


def _best_of_pgbench(round_: Round) -> float:
    return max(round_[_pgbench(clients)]["per_second"] for clients in CLIENTS)


def _pgbench(clients: int) -> str:
    return f"pgbench: {clients} client{'s' * (clients > 1)}"


FIGURES = [
    Figure(
        "adds at 64 x 4 / pgbench's best",
        lambda r: r["64 x 4: gateway"]["per_second"] / _best_of_pgbench(r),
        target=1.3,
        aim=2.5,
        at_least=True,
    ),
    Figure(
        "adds at 64 x 4 / sharing 1",
        lambda r: r["64 x 4: gateway"]["per_second"] / r["64 x 4: sharing 1"]["per_second"],
        target=2.5,
        aim=4,
        at_least=True,
    ),
    Figure(
        "server CPU per add at 64 x 4 / echo",
        lambda r: r["64 x 4: gateway"]["server_cpu"] / r["64 x 4: echo"]["server_cpu"],
        target=2.5,
        aim=1.5,
    ),
    Figure(
        "lone add, p50 / (echo + pgbench)",
        lambda r: r["lone: gateway"]["p50"] / (r["lone: echo"]["p50"] + r[_pgbench(1)]["p50"]),
        target=1.5,
        aim=1.2,
    ),
    Figure(
        "p99 at half the saturated rate / lone p50",
        lambda r: r["half rate: gateway"]["p99"] / r["lone: gateway"]["p50"],
        target=10,
        aim=5,
    ),
    Figure(
        "adds with 5,000 sockets / 64 sockets",
        lambda r: r["5,000 sockets: gateway"]["per_second"] / r["64 x 4: gateway"]["per_second"],
        target=0.85,
        aim=0.95,
        at_least=True,
    ),
    Figure(
        "adds into the large table / the empty one",
        lambda r: r["64 x 4: large table"]["per_second"] / r["64 x 4: gateway"]["per_second"],
        target=0.8,
        aim=0.95,
        at_least=True,
    ),
    Figure(
        "adds with a key at 64 x 4 / without",
        lambda r: r["64 x 4: keyed"]["per_second"] / r["64 x 4: gateway"]["per_second"],
        target=0.6,
        at_least=True,
    ),
    Figure(
        "10,000 idle sockets: resident memory",
        lambda r: r["10,000 idle: gateway"]["resident"] / MIB,
        target=260,
        aim=180,
        unit="MiB",
    ),
]


def steps(stage: WriteStage) -> dict[str, Step]:
    """Each side of each figure by its name, those that a figure compares as near each other as may be."""
    return {
        "10,000 idle: gateway": partial(_idle, stage),
        "pgbench: 8 clients, pipelined": partial(stage.add_by_pgbench, 8, pipelined=True),
        "half rate: gateway": partial(_at_half_rate, stage),
        "lone: gateway": partial(stage.add, LONE),
        "lone: echo": partial(stage.ask, stage.echo, stage.frames, shape=LONE),
        **{_pgbench(clients): partial(stage.add_by_pgbench, clients) for clients in CLIENTS},
        "64 x 4: echo on the gateway's socket": partial(stage.ask, stage.echo_on_gateway_socket, stage.frames, shape=BUSY),
        "64 x 4: echo": partial(stage.ask, stage.echo, stage.frames, shape=BUSY),
        "64 x 4: gateway": partial(stage.add, BUSY),
        "64 x 4: sharing 1": partial(stage.add, BUSY, stage.unshared_gateway),
        "64 x 4: keyed": partial(stage.add, BUSY, keyed=True),
        "64 x 4: large table": partial(stage.add, BUSY, stage.large_gateway),
        "5,000 sockets: gateway": partial(_over_many_sockets, stage),
    }


def check_sides(round_: Round) -> None:
    """Raises when two sides did not write the same rows."""
    sizes = {name: sample["row_bytes"] for name, sample in round_.items() if "row_bytes" in sample}
    if sizes and max(sizes.values()) > ROW_BYTES_RATIO_MAX * min(sizes.values()):
        raise RuntimeError(f"the sides' events differ in size: {sizes}")


def _at_half_rate(stage: WriteStage) -> Sample:
    """Open loop, at half of what the gateway took a moment before; the echo's p99 at that rate tells the machine's part."""
    rate = stage.add(BUSY)["per_second"] / 2
    shape = Shape(sockets=BUSY.sockets, rate=rate)
    sample = stage.add(shape)
    echo = stage.ask(stage.echo, stage.frames, shape=shape)
    return {**sample, "wanted_per_second": rate, "echo_p99": echo["p99"]}


def _over_many_sockets(stage: WriteStage) -> Sample:
    """As many in flight as over few sockets.

    In a gateway of its own: what it does about the closed sockets would come in a later step's time. Its processor
    time is left out, because closing them is in it.
    """
    with stage.fresh_gateway() as gateway:
        sample = stage.add(Shape(sockets=MANY_SOCKETS, window=BUSY.sockets * BUSY.in_flight), gateway)
    return {key: value for key, value in sample.items() if key != "server_cpu"}


def _idle(stage: WriteStage) -> Sample:
    """A gateway that has done nothing else, with its sockets open and proved."""
    shape = Shape(sockets=IDLE_SOCKETS, in_flight=0)
    with stage.fresh_gateway() as gateway:
        alone = resident_bytes(gateway.pid)
        stage.client.begin(Job(port=gateway.port, frames=[], expect="", token=stage.token, shape=shape))
        try:
            time.sleep(SETTLE_SECONDS)
            resident = resident_bytes(gateway.pid)
        finally:
            stage.client.finish()
    return {"resident": float(resident), "resident_alone": float(alone)}
