"""`--report`: one page of a run, with all it needs inside, for light and dark screens and for paper."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape

from gateway import __version__
from gateway.harness.chart import Line, chart, elapsed, linear, logarithmic, nines
from gateway.harness.figures import Latency, Summary, Tick
from gateway.harness.show import client_cpu, counted, duration, milliseconds

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b2330; --soft: #667085; --rule: #e4e7ec;
  --rate: #2563eb; --p50: #0d9488; --p99: #d97706; --max: #94a3b8; --bad: #dc2626; --good: #15803d; }
@media (prefers-color-scheme: dark) { :root { --page: #0e1117; --card: #171b23; --ink: #e6e9ef; --soft: #98a2b3;
  --rule: #2a303c; --rate: #6ea8fe; --p50: #2dd4bf; --p99: #fbbf24; --max: #64748b; --bad: #f87171; --good: #4ade80; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 32px 20px 48px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 980px; margin: auto; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px; } h2 { font-size: 15px; margin: 0; }
p { margin: 0; color: var(--soft); } h2 + p { font-size: 13px; margin-bottom: 12px; }
p.failed { margin-top: 12px; color: var(--bad); font-weight: 600; }
section, .tile { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; }
section { padding: 18px 20px; margin-top: 16px; overflow-x: auto; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 20px; }
.tile { padding: 14px 16px; } .tile b { display: block; font-size: 25px; line-height: 1.2; font-weight: 650; }
.tile small { color: var(--soft); font-size: 12.5px; } .tile.bad b { color: var(--bad); } .tile.good b { color: var(--good); }
svg { display: block; width: 100%; height: auto; } svg text { font-size: 11.5px; fill: var(--soft); }
.grid { stroke: var(--rule); } .line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.area { fill: currentColor; opacity: .12; } .mark { fill: currentColor; }
.dot { fill: currentColor; opacity: 0; } .dot:hover { opacity: .35; }
.rate { color: var(--rate); } .p50 { color: var(--p50); } .p99 { color: var(--p99); } .max { color: var(--max); }
.wrong { color: var(--bad); }
.legend { display: flex; gap: 18px; font-size: 13px; margin-bottom: 4px; } .legend span { color: var(--soft); }
.legend i { display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin-right: 6px; vertical-align: middle; }
.legend .p50 i { background: var(--p50); } .legend .p99 i { background: var(--p99); } .legend .max i { background: var(--max); }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; } th { color: var(--soft); font-weight: 500; }
th, td { padding: 6px 0 6px 14px; text-align: right; border-top: 1px solid var(--rule); white-space: nowrap; }
tr:first-child th { border-top: 0; } th:first-child, td:first-child { text-align: left; padding-left: 0; }
.bar { display: inline-block; height: 9px; border-radius: 3px; background: var(--bad); vertical-align: baseline; }
td.wide { width: 60%; text-align: left; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12.5px; margin: 8px 0 0; }
footer { margin-top: 20px; font-size: 13px; color: var(--soft); }
"""


def report_page(summary: Summary) -> str:
    """The whole page."""
    when = time.strftime("%d %B %Y, %H:%M UTC", time.gmtime(summary.started))
    body = (
        f"<h1>{escape(summary.title)}</h1><p>{escape(summary.url)} · {when} · "
        f"{counted(summary.connections, 'connection', 'connections')} · "
        f"up to {summary.in_flight:,} in flight on each</p>",
        *(f'<p class="failed">Failed: {escape(why)}</p>' for why in summary.failed),
        _tiles(summary),
        _section("Replies per second", "over the run", _rate_chart(summary)),
        _section("Latency over the run", f"each second; {_meaning(summary)}", _time_chart(summary)),
        _section("Latency by percentile", "how slow the slowest are, all commands together", _percentile_chart(summary)),
        _section("Commands", _meaning(summary), _commands_table(summary)),
        _section("Errors", "replies by error code; other things that went another way", _errors_table(summary)),
        f"<footer>crm-gateway {__version__}. The client {client_cpu(summary)}.</footer>",
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(summary.title)}</title><style>{STYLE}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def _tiles(summary: Summary) -> str:
    bad, limit, slow = summary.wrong + summary.missing, "", ""
    if summary.max_p99 is not None:
        limit, slow = f", --max-p99 {summary.max_p99:g} ms", "bad" if summary.latency.p99 > summary.max_p99 else "good"
    tiles = (
        ("", f"{summary.per_second:,.0f}", "replies per second"),
        ("", f"{summary.answered:,}", f"replies in {duration(summary.seconds)}"),
        ("", milliseconds(summary.latency.p50).strip(), "half are faster (p50)"),
        (slow, milliseconds(summary.latency.p99).strip(), f"99 of 100 are faster (p99){limit}"),
        ("bad" if bad else "good", f"{bad:,}" if bad else "none", "wrong or missing"),
    )
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile {style}"><b>{value}</b><small>{what}</small></div>' for style, value, what in tiles)
        + "</div>"
    )


def _meaning(summary: Summary) -> str:
    if summary.paced:
        return "counted from the time a command was due, whether or not it could be sent then"
    return "as fast as possible, so that each reply made room for the next command"


def _rate_chart(summary: Summary) -> str:
    ticks = _whole_ticks(summary)
    lines = [Line("replies per second", "rate", _over(ticks, "per_second"), filled=True)]
    if summary.wrong:
        lines.append(Line("wrong", "wrong", _over(ticks, "wrong")))
    x = elapsed(max(ticks[-1].second, 1.0))
    return chart("Replies per second", x, linear(max(t.per_second for t in ticks) or 1, lambda v: f"{v:,.0f}"), lines)


def _time_chart(summary: Summary) -> str:
    ticks = [tick for tick in _whole_ticks(summary) if tick.answered]
    if not ticks:
        return "<p>No replies.</p>"
    x = elapsed(max(ticks[-1].second, 1.0))
    y = logarithmic(max(min(t.p50 for t in ticks), 0.001), max(t.max for t in ticks), _label)
    lines = [
        Line("p50", "p50", _over(ticks, "p50")),
        Line("p99", "p99", _over(ticks, "p99")),
        Line("slowest", "max", _over(ticks, "max")),
    ]
    return chart("Latency over the run", x, y, lines)


def _percentile_chart(summary: Summary) -> str:
    if not summary.curve:
        return "<p>No replies.</p>"
    x = nines([percentile for percentile, _ in summary.curve])
    y = linear(max(value for _, value in summary.curve), _label)
    return chart("Latency by percentile", x, y, [Line("latency", "p99", summary.curve, filled=True)])


def _commands_table(summary: Summary) -> str:
    rows = [_latency_row(name, c.ok + c.wrong, c.wrong, c.latency) for name, c in summary.commands.items()]
    rows.append(_latency_row("all", summary.answered, summary.wrong, summary.latency))
    return _table(("command", "replies", "wrong", "p50", "p90", "p99", "p99.9", "slowest"), rows)


def _latency_row(name: str, replies: int, wrong: int, latency: Latency) -> Sequence[str]:
    values = (latency.p50, latency.p90, latency.p99, latency.p999, latency.max)
    return (escape(name), f"{replies:,}", f"{wrong:,}", *(milliseconds(value).strip() for value in values))


def _errors_table(summary: Summary) -> str:
    counted = [*summary.errors.items()]
    counted += [("no reply", summary.missing)] if summary.missing else []
    counted += [(f"connection closed with {code}", count) for code, count in summary.closes.items()]
    counted += [(f"not sent: {reason}", count) for reason, count in summary.skipped.items()]
    if not counted:
        return "<p>None: every reply came, with the right extID and the right status.</p>"
    most = max(count for _, count in counted)
    rows = [
        (escape(name), f"{count:,}", f'<span class="bar" style="width:{max(1, count * 100 // most)}%"></span>')
        for name, count in counted
    ]
    examples = escape("\n".join(summary.examples))
    return _table(("code", "count", ""), rows, wide_last=True) + (f"<pre>{examples}</pre>" if examples else "")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, wide_last: bool = False) -> str:
    def cells(row: Sequence[str]) -> str:
        return "".join(
            f'<td class="wide">{cell}</td>' if wide_last and index == len(row) - 1 else f"<td>{cell}</td>"
            for index, cell in enumerate(row)
        )

    titles = "".join(f"<th>{title}</th>" for title in head)
    return f"<table><tr>{titles}</tr>{''.join(f'<tr>{cells(row)}</tr>' for row in rows)}</table>"


def _section(title: str, words: str, content: str) -> str:
    return f"<section><h2>{title}</h2><p>{words}</p>{content}</section>"


def _whole_ticks(summary: Summary) -> Sequence[Tick]:
    """The ticks without a last one of a fraction of a second, whose rate says nothing."""
    ticks = summary.ticks
    short = len(ticks) > 1 and ticks[-1].second - ticks[-2].second < 0.5
    return ticks[:-1] if short else ticks


def _over(ticks: Sequence[Tick], field: str) -> list[tuple[float, float]]:
    """A curve from the very start: a tick speaks for the second before it."""
    points = [(tick.second, float(getattr(tick, field))) for tick in ticks]
    return [(0.0, points[0][1]), *points]


def _label(value: float) -> str:
    return f"{value / 1000:g} s" if value >= 1000 else f"{value:g} ms"
