"""The page of `--report`: it stands alone, and shows what went wrong."""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ET

import msgspec
import pytest

from gateway.commands.table import COMMANDS
from gateway.harness.figures import Figures, Summary
from gateway.harness.kinds import Job, Kinds
from gateway.harness.report import report_page
from gateway.harness.show import show_summary, show_tick


def summary_of(*latencies: float, wrong: int = 0) -> Summary:
    """The figures of a run with these latencies, one a second."""
    kinds = Kinds()
    figures = Figures(kinds)
    figures.begin()
    for latency in latencies:
        kinds["HealthCheck"].latencies.append(latency)
        figures.tick()
    for _ in range(wrong):
        kinds["HealthCheck"].latencies.append(0.1)
        figures.count_wrong(Job(kinds["HealthCheck"], b"", 0.0), "<b>INTERNAL</b>", b"<script>alert(1)</script>")
    figures.moved = time.perf_counter()
    figures.end()
    return figures.summary(
        title="a <title>", url="ws://127.0.0.1:1", paced=True, connections=2, in_flight=1, skipped={"why <not>": 3}
    )


def test_report_is_self_contained():
    """No other file, no script, and drawings that are whole; both for light and dark screens."""
    page = report_page(summary_of(0.001, 0.02, 0.3))
    assert [] == re.findall(r"https?://|<script|<link|<img|@import|url\(", page)
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert 3 == len(drawings)
    assert all(ET.fromstring(drawing) is not None for drawing in drawings)
    assert "prefers-color-scheme: dark" in page


def test_report_shows_errors_as_text():
    """What a gateway answered is shown and never run."""
    page = report_page(summary_of(0.01, wrong=4))
    assert "&lt;b&gt;INTERNAL&lt;/b&gt;" in page
    assert "&lt;script&gt;" in page
    assert "not sent: why &lt;not&gt;" in page
    assert [] == re.findall(r"<script|<b>INTERNAL|a <title>", page)


def test_report_begins_with_why_the_run_failed():
    """A sentence for each reason, as the terminal has it; none where all is well."""
    summary = msgspec.structs.replace(summary_of(0.01), failed=["p99 is <b>", "1 command not sent"])
    page = report_page(summary)
    told = re.findall(r'<p class="failed">(.*?)</p>(?=.*class="tiles")', page)
    assert ["Failed: p99 is &lt;b&gt;", "Failed: 1 command not sent"] == told
    assert 'class="failed"' not in report_page(summary_of(0.01))


def test_report_of_a_run_without_replies_is_a_page_too():
    """Nothing to draw is no reason to fail."""
    assert "No replies." in report_page(summary_of())


def test_summary_shows_the_share_of_a_core_that_the_client_took(capsys):
    """Beside the time for each command, at the terminal and on the page: that time is long where the client idles."""
    summary = msgspec.structs.replace(summary_of(0.01), client_cpu_us=33.2, client_cpu_share=0.108)
    show_summary(summary)
    told = "client took 33.2 us of CPU per command, 11 % of a core"
    assert [True, True] == [told in text for text in (capsys.readouterr().out, report_page(summary))]


def test_summary_shows_what_a_terminal_would_obey(capsys):
    """Each character of that kind, in names, codes and examples, is another one; letters of any script stay."""
    summary = summary_of(0.01)
    evil = "\x1b[2J\x1b]0;\a\r\x9b\u202eété"
    commands, told = {evil: summary.commands["HealthCheck"]}, {evil: 1}
    show_summary(msgspec.structs.replace(summary, title=evil, commands=commands, errors=told, skipped=told, examples=[evil]))
    out = capsys.readouterr().out
    assert 5 == out.count("\ufffd[2J\ufffd]0;\ufffd\ufffd\ufffd\ufffdété")
    assert all(line.isprintable() for line in out.split("\n"))


def test_summary_is_a_table_of_straight_columns_and_whole_words(capsys):
    """The longest name of a command fits; one of a thing is not called many."""
    summary = summary_of(0.01)
    one = {"connections": 1, "reconnects": 1, "closes": {"1006": 1}}
    commands = {max(COMMANDS, key=len): summary.commands["HealthCheck"], **summary.commands}
    show_summary(msgspec.structs.replace(summary, commands=commands, **one))
    out = capsys.readouterr().out
    _, _, _, head, *rows, _ = out[: out.index("1 reply in ")].split("\n")
    assert {len(head)} == {len(row) for row in rows if row}
    assert 3 == len([row for row in rows if row])
    assert "over 1 connection, up to" in out
    assert "1 reconnect\n" in out
    assert "        1 connection closed with 1006" in out


def test_counts_are_spelled_alike(capsys):
    """With commas, in the table, the progress and on the page."""
    summary = summary_of(0.01)
    many = dict.fromkeys(("answered", "wrong", "missing", "retried", "reconnects", "connections", "in_flight"), 47_147)
    summary = msgspec.structs.replace(summary, **many, errors={"FORBIDDEN": 47_147}, skipped={"why": 47_147})
    show_summary(summary)
    show_tick(msgspec.structs.replace(summary.ticks[0], wrong=47_147), 0, 1)
    told = capsys.readouterr()
    page = report_page(summary)
    assert [0, 0, 0] == [text.count("47147") for text in (told.out, told.err, page)]
    for words in ("47,147 wrong, 47,147 missing, 47,147 sent again", "up to 47,147 in flight"):
        assert words in told.out
    assert "47,147 wrong   p50" in told.err
    assert "up to 47,147 in flight" in page


@pytest.mark.parametrize(("limit", "style"), [(50, "good"), (5, "bad")])
def test_report_shows_the_limit_of_p99(limit, style):
    """Whether it was kept or not; without one there is none."""
    summary = summary_of(0.01)
    page = report_page(msgspec.structs.replace(summary, max_p99=limit))
    told = rf'<div class="tile {style}"><b>10.0 ms</b><small>99 of 100 are faster \(p99\), --max-p99 {limit} ms</small>'
    assert 1 == len(re.findall(told, page))
    assert "--max-p99" not in report_page(summary)


def test_figures_are_those_of_the_latencies():
    """Percentiles within the histogram's three digits, the mean exact, in milliseconds."""
    latency = summary_of(*[n / 1000 for n in range(1, 1001)]).latency
    assert abs(latency.p50 - 500) <= 1
    assert abs(latency.p99 - 990) <= 1
    assert abs(latency.max - 1000) <= 1
    assert 500.5 == latency.mean
