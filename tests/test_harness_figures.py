"""What a run measures: its clock stops with the last reply or command, and ticks and summary tell the same."""

from __future__ import annotations

import pytest

from gateway.harness.figures import Figures, Summary
from gateway.harness.kinds import Kinds
from gateway.harness.show import show_summary, show_tick


class Clock:
    """Stands in for the module `time`: what it says is what a test says."""

    def __init__(self) -> None:
        self.wall, self.cpu = 100.0, 1.0

    def perf_counter(self) -> float:
        return self.wall

    def process_time(self) -> float:
        return self.cpu

    def time(self) -> float:
        return 0.0


class Measured:
    """A run on a clock of its own, `at` seconds from the start of which things happen; the client takes a tenth of a core."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kinds = Kinds()
        self._figures = Figures(self._kinds)
        self._figures.begin()

    def answered(self, replies: int, at: float) -> None:
        self._pass(at)
        self._figures.moved = self._clock.wall
        self._kinds["HealthCheck"].latencies += [0.01] * replies

    def looked(self, at: float) -> None:
        self._pass(at)
        self._figures.look()

    def ticked(self, at: float) -> None:
        self._pass(at)
        self._figures.tick()

    def ended(self, at: float) -> Summary:
        self._pass(at)
        self._figures.end()
        return self._figures.summary(title="", url="", paced=False, connections=1, in_flight=1, skipped={})

    def _pass(self, at: float) -> None:
        self._clock.wall, self._clock.cpu = 100.0 + at, 1.0 + at / 10


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    clock = Clock()
    monkeypatch.setattr("gateway.harness.figures.time", clock)
    return Measured(clock)


def test_clock_stops_with_the_last_reply(measured):
    """Seconds in which a missing one was waited for count for nothing, and the last tick is as long as there were replies."""
    measured.answered(10, at=0.5)
    measured.ticked(at=1.0)
    measured.answered(4, at=1.25)
    for second in (2.0, 3.0, 4.0):
        measured.ticked(at=second)
    summary = measured.ended(at=4.5)
    assert (14, 1.25, 11.2) == (summary.answered, summary.seconds, summary.per_second)
    assert [(1.0, 10, 10.0), (1.25, 4, 16.0)] == [(tick.second, tick.answered, tick.per_second) for tick in summary.ticks]


@pytest.mark.parametrize("replies", [10, 0])
def test_clock_runs_through_a_silence(measured, replies):
    """What comes behind it is of the run, be it the end of sending alone, and so is the silence."""
    measured.answered(10, at=0.5)
    for second in (1.0, 2.0, 3.0):
        measured.ticked(at=second)
    measured.answered(replies, at=4.0)
    summary = measured.ended(at=4.03125)
    assert (4.0, (10 + replies) / 4) == (summary.seconds, summary.per_second)
    assert [10.0, 0.0, 0.0, replies] == [tick.per_second for tick in summary.ticks]


def test_client_cpu_is_that_of_the_run(measured):
    """By the reply and by the second, without what waiting took."""
    measured.answered(5, at=1.0)
    for moment in (1.25, 2.0, 3.0):
        measured.looked(at=moment)
    summary = measured.ended(at=4.0)
    assert (25_000, 0.125) == (summary.client_cpu_us, summary.client_cpu_share)


def test_run_without_replies_has_a_table(measured, capsys):
    """Of nothing, in no time, and no latency."""
    summary = measured.ended(at=1.0)
    assert (0.0, 0.0, 0.0) == (summary.seconds, summary.per_second, summary.client_cpu_share)
    show_summary(summary)
    out = capsys.readouterr().out
    assert "0 replies in 0.000 s: 0/s" in out
    assert ["all", "0", "0", *"-----"] == out.splitlines()[4].split()


def test_second_without_replies_has_no_latency(measured, capsys):
    """It is as wide as one that has some."""
    measured.answered(10, at=0.5)
    measured.ticked(at=1.0)
    measured.ticked(at=2.0)
    measured.answered(1, at=2.5)
    for tick in measured.ended(at=2.5).ticks[:2]:
        show_tick(tick, 0, 17)
    some, none = capsys.readouterr().err.splitlines()
    assert (len(some), ["p50", "10.0", "ms", "p99", "10.0", "ms", "max", "10.0", "ms"]) == (len(none), some.split()[-9:])
    assert ["p50", "-", "p99", "-", "max", "-"] == none.split()[-6:]


def test_table_tells_a_short_run_to_the_millisecond(measured, capsys):
    """The rate can be told from it; a longer one is rounded."""
    measured.answered(50, at=0.008)
    show_summary(measured.ended(at=0.05))
    assert "50 replies in 0.008 s: 6,250/s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("coming_back", "connections", "told"),
    [
        (17, 17, "17 of 17 connections are coming back"),
        (1, 1_700, "1 of 1,700 connections is coming back"),
        (1, 1, "1 of 1 connection is coming back"),
    ],
)
def test_progress_says_how_many_connections_are_coming_back(measured, capsys, coming_back, connections, told):
    """A minute without replies would look as if it hung; the line is as before where none is."""
    measured.ticked(at=1.0)
    (tick,) = measured.ended(at=1.0).ticks
    show_tick(tick, 0, connections)
    show_tick(tick, coming_back, connections)
    without, with_it = capsys.readouterr().err.splitlines()
    assert f"{without}   {told}" == with_it
