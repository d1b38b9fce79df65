"""`python -m tests.bench`: makes the data, starts every side, measures in rounds, prints the table, and ends everything."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from gateway.embedded import EmbeddedPostgres
from tests.bench import dataset, machine, read_part, report, rounds, wal, write_part
from tests.bench.figures import find
from tests.bench.postgres_sides import DATA_DIR, place_server
from tests.bench.processes import BENCH_DIR, cores, may_open_most

LIMIT_SECONDS = 840
"""A run that is not over by then is ended: all parts have 15 minutes."""
PARTS: dict[str, Any] = {"read": read_part, "write": write_part}


@click.command()
@click.option("--events", type=click.IntRange(60_000), default=1_000_000, show_default=True, help="Events in the large table.")
@click.option("--rounds", "count", type=click.IntRange(1), default=5, show_default=True, help="Rounds; five for a result.")
@click.option("--seconds", type=click.IntRange(1), default=2, show_default=True, help="How long each side runs in a round.")
@click.option("--only", type=click.Choice(list(PARTS)), help="One part alone.")
@click.option("--quick", is_flag=True, help="A smoke run: 100,000 events, one round of short steps.")
def main(events: int, count: int, seconds: int, only: str | None, *, quick: bool) -> None:
    """Measure the gateway beside pgbench, psql and a bare echo; exit with 1 when a figure is not reached or a step failed."""
    if quick:
        events, count, seconds = min(events, 100_000), 1, 1
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, _stop)
    signal.alarm(LIMIT_SECONDS)
    may_open_most()
    BENCH_DIR.mkdir(exist_ok=True)
    server = EmbeddedPostgres(DATA_DIR)
    with _started(server) as dsn:
        asyncio.run(wal.keep_files(dsn))
        data = asyncio.run(dataset.prepare(dsn, events))
        passed = [_measure(data, part, count, seconds) for part in ([only] if only else PARTS)]
    sys.exit(0 if all(passed) else 1)


def _measure(data: dataset.Dataset, name: str, count: int, seconds: int) -> bool:
    """One part, from its first step to its table; whether every figure was reached and no step failed."""
    started, part = time.monotonic(), PARTS[name]
    with part.staged(data, seconds) as stage:
        version = asyncio.run(dataset.value(data.dsn, "SHOW server_version"))[0]
        facts = machine.describe(stage.postgres, version, part.PLACES)
        results, failures = rounds.run(part.steps(stage), count, part.check_sides, _tell)
    findings = find(part.FIGURES, results)
    _tell("")
    click.echo("\n".join(f"{fact:14}{text}" for fact, text in facts.items()))
    click.echo(
        f"{'data':14}{data.events:,} events with {data.events * dataset.PARTICIPANTS:,} participants, seed {dataset.SEED}"
    )
    click.echo(f"{'run':14}{count} rounds, {seconds} s a side, {time.monotonic() - started:.0f} s in all\n")
    click.echo(f"{report.sides(results)}\n\n{report.table(findings)}\n")
    if failures:
        click.echo(f"{report.failed(failures)}\n")
    for path in report.keep(BENCH_DIR, facts, findings, results, failures, name):
        click.echo(path)
    return report.passed(findings, failures)


@contextmanager
def _started(server: EmbeddedPostgres) -> Iterator[str]:
    """PostgreSQL on its core. A plain one, with the settings of `gateway serve`."""
    try:
        server.start()
        place_server(cores()[1])
        yield server.dsn
    finally:
        server.stop()


def _tell(line: str) -> None:
    """Progress on standard error, over itself on a terminal."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{line}", err=True, nl=False)
    elif line:
        click.echo(line, err=True)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(f"stopped by {signal.Signals(number).name}")


if __name__ == "__main__":
    main()
