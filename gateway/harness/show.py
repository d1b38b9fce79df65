"""What a person sees in the terminal: a line a second, and a table at the end."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click

from gateway.commands.table import COMMANDS
from gateway.harness.figures import Latency, Summary, Tick
from gateway.harness.printable import printable

NAME_CHARACTERS = max(len(name) for name in COMMANDS)


def show_tick(tick: Tick, coming_back: int, connections: int) -> None:
    """Progress: the figures of a second on one line, and how many connections are down, which explains that nothing moves."""
    down = ""
    if coming_back:
        of_all = f"{coming_back:,} of {counted(connections, 'connection', 'connections')}"
        down = f"   {of_all} {'is' if coming_back == 1 else 'are'} coming back"
    wrong = click.style(f"{tick.wrong:,} wrong", fg="red" if tick.wrong else None)
    tell(
        f"{tick.second:7.1f} s {tick.per_second:9,.0f}/s  {wrong}   "
        f"p50 {milliseconds(tick.p50)}  p99 {milliseconds(tick.p99)}  max {milliseconds(tick.max)}{down}"
    )


def warn(what: str) -> None:
    """What need not be a fault, and may explain one."""
    tell(click.style(f"Warning: {what}", fg="yellow"))


def tell(line: str) -> None:
    """One line on standard error. Who reads it may have gone (`2>&1 | head`): a line that cannot be written is left out."""
    try:
        click.echo(line, err=True)
    except OSError:  # what is left in the buffer would make Python end with 120
        with suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stderr.fileno())


def show_summary(summary: Summary) -> None:
    """The table on standard output. Names, codes and examples are as somebody else sent them."""
    latencies = " ".join(f"{name:>10}" for name in ("p50", "p90", "p99", "p99.9", "max"))
    head = f"{'command':<{NAME_CHARACTERS}} {'replies':>9} {'wrong':>7} {latencies}"
    rows = [
        _row(name, figures.ok + figures.wrong, figures.wrong, figures.latency) for name, figures in summary.commands.items()
    ]
    lines = ["", summary.title, "", head, *rows, _row("all", summary.answered, summary.wrong, summary.latency), ""]
    lines.append(
        f"{counted(summary.answered, 'reply', 'replies')} in {duration(summary.seconds)}: {summary.per_second:,.0f}/s over "
        f"{counted(summary.connections, 'connection', 'connections')}, up to {summary.in_flight:,} in flight on each"
    )
    lines.append(
        f"{summary.wrong:,} wrong, {summary.missing:,} missing, {summary.retried:,} sent again, "
        f"{counted(summary.reconnects, 'reconnect', 'reconnects')}"
    )
    lines.append(f"This client {client_cpu(summary)}")
    if not summary.paced:
        lines.append("Closed loop (no rate): each reply made room for the next command, so latency is that of a busy gateway")
    lines += [f"  {count:>9,} {code}" for code, count in summary.errors.items()]
    lines += [f"  {count:>9,} not sent: {reason}" for reason, count in summary.skipped.items()]
    lines += [f"  {counted(n, 'connection', 'connections', 9)} closed with {code}" for code, n in summary.closes.items()]
    lines += [f"  e.g. {example}" for example in summary.examples]
    click.echo("\n".join(map(printable, lines)))


def counted(count: int, one: str, many: str, width: int = 0) -> str:
    """A number and what it counts: 1 reply, 2 replies."""
    return f"{count:>{width},} {one if count == 1 else many}"


def duration(seconds: float) -> str:
    """How long a run took; a short one to the millisecond, or its rate could not be told from it."""
    return f"{seconds:,.1f} s" if seconds >= 1 else f"{seconds:.3f} s"


def client_cpu(summary: Summary) -> str:
    """What the client itself cost: whether it, and not the gateway, was what limited the rate."""
    return f"took {summary.client_cpu_us:.1f} us of CPU per command, {summary.client_cpu_share * 100:.0f} % of a core"


def milliseconds(value: float) -> str:
    """A latency with three digits that count; none is 0, so that 0 is that of no replies."""
    if not value:
        return f"{'-':>9}"
    if value >= 10_000:
        return f"{value / 1000:6.1f} s "
    return f"{value:6.{2 if value < 10 else 1 if value < 100 else 0}f} ms"


def _row(name: str, replies: int, wrong: int, latency: Latency) -> str:
    cells = " ".join(f"{milliseconds(v):>10}" for v in (latency.p50, latency.p90, latency.p99, latency.p999, latency.max))
    return f"{name:<{NAME_CHARACTERS}} {replies:>9,} {wrong:>7,} {cells}"
