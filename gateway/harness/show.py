"""What a person sees in the terminal: a line a second, and a table at the end."""

from __future__ import annotations

import click

from gateway.harness.figures import Latency, Summary, Tick


def show_tick(tick: Tick) -> None:
    """One line on standard error."""
    wrong = click.style(f"{tick.wrong} wrong", fg="red" if tick.wrong else None)
    click.echo(
        f"{tick.second:7.1f} s {tick.per_second:9,.0f}/s  {wrong}   "
        f"p50 {milliseconds(tick.p50)}  p99 {milliseconds(tick.p99)}  max {milliseconds(tick.max)}",
        err=True,
    )


def show_summary(summary: Summary) -> None:
    """The table on standard output."""
    head = f"{'command':<30} {'replies':>9} {'wrong':>7} {'p50':>10} {'p90':>10} {'p99':>10} {'p99.9':>10} {'max':>10}"
    rows = [
        _row(name, figures.ok + figures.wrong, figures.wrong, figures.latency) for name, figures in summary.commands.items()
    ]
    lines = ["", summary.title, "", head, *rows, _row("all", summary.answered, summary.wrong, summary.latency), ""]
    lines.append(
        f"{summary.answered:,} replies in {summary.seconds:,.1f} s: {summary.per_second:,.0f}/s over "
        f"{summary.connections} connections, up to {summary.in_flight} in flight on each"
    )
    lines.append(
        f"{summary.wrong} wrong, {summary.missing} missing, {summary.retried} sent again, {summary.reconnects} reconnects"
    )
    lines.append(f"This client {client_cpu(summary)}")
    if not summary.paced:
        lines.append("Closed loop (no rate): each reply made room for the next command, so latency is that of a busy gateway")
    lines += [f"  {count:>9,} {code}" for code, count in summary.errors.items()]
    lines += [f"  {count:>9,} not sent: {reason}" for reason, count in summary.skipped.items()]
    lines += [f"  {count:>9,} connections closed with {code}" for code, count in summary.closes.items()]
    lines += [f"  e.g. {example}" for example in summary.examples]
    click.echo("\n".join(lines))


def client_cpu(summary: Summary) -> str:
    """What the client itself cost: whether it, and not the gateway, was what limited the rate."""
    return f"took {summary.client_cpu_us:.1f} us of CPU per command, {summary.client_cpu_share * 100:.0f} % of a core"


def milliseconds(value: float) -> str:
    """A latency with three digits that count."""
    if value >= 10_000:
        return f"{value / 1000:6.1f} s "
    return f"{value:6.{2 if value < 10 else 1 if value < 100 else 0}f} ms"


def _row(name: str, replies: int, wrong: int, latency: Latency) -> str:
    cells = " ".join(f"{milliseconds(v):>10}" for v in (latency.p50, latency.p90, latency.p99, latency.p999, latency.max))
    return f"{name:<30} {replies:>9,} {wrong:>7,} {cells}"
