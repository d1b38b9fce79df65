"""`python -m tests.faults`: runs the checks one after the other, prints the scoreboard and writes docs/reliability.md."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import click
import uvloop

from gateway.embedded import EmbeddedPostgres
from tests.faults import report
from tests.faults.check import Check, Finding
from tests.faults.stage import Stage
from tests.faults.table import CHECKS

FAULTS_DIR = Path(__file__).parent.parent.parent / ".faults"
LIMIT_SECONDS = 180
"""No check takes longer; one that hangs has failed."""


@click.command()
@click.option("--only", multiple=True, type=click.Choice([check.name for check in CHECKS]), help="This check alone.")
@click.option("--short", is_flag=True, help="Small counts, as in CI, and nothing that times.")
def main(only: tuple[str, ...], *, short: bool) -> None:
    """Try to break every promise; exit with 1 when one breaks. A whole run rewrites docs/reliability.md."""
    chosen = [check for check in CHECKS if (not only or check.name in only) and (check.kind == "c" or not short)]
    folder = FAULTS_DIR / time.strftime("%Y%m%dT%H%M%S")
    folder.mkdir(parents=True)
    end_as_by_ctrl_c()
    server = EmbeddedPostgres(FAULTS_DIR / "data")
    began = time.monotonic()
    try:
        server.start()
        stage = Stage(server, folder, short=short)
        lines = [(check, *_run(check, stage)) for check in chosen]
    finally:
        server.stop()
    report.keep(folder, lines)
    click.echo(f"\n{report.scoreboard(lines)}\n\n{time.monotonic() - began:.0f} s; ledgers and logs are in {folder}")
    if not only and not short:
        report.write_page(lines)
    sys.exit(any(finding.passed is False for _, finding, _ in lines))


def end_as_by_ctrl_c() -> None:
    """Lets SIGTERM, too, end a run by its own doors: its gateways and its PostgreSQL go with it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it runs in the background ignore it
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.raise_signal(signal.SIGINT))


def _run(check: Check, stage: Stage) -> tuple[Finding, float]:
    """What the check finds, and the seconds it took."""
    began = time.monotonic()
    if not stage.server.is_running():
        stage.restart()  # what the last check left dead
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            finding = runner.run(asyncio.wait_for(check.run(stage), LIMIT_SECONDS))
        except Exception as error:  # a check that breaks has not passed, and the others go on
            finding = Finding(False, f"broke: {type(error).__name__}: {error}")
    seconds = time.monotonic() - began
    click.echo(report.line(check, finding, seconds))
    return finding, seconds


if __name__ == "__main__":
    main()
