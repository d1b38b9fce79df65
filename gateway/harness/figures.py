"""What a run measures: latencies in HdrHistograms, errors by code, and a line for each second of it."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]
from msgspec import Struct
from msgspec.structs import replace

from gateway.harness.kinds import Job, Kinds, failure_of

MICROSECONDS_MAX = 3_600_000_000
"""The longest latency that is told from longer ones: an hour."""
DIGITS = 3
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
EXAMPLES_MAX = 5
EXAMPLE_BYTES = 300


class Latency(Struct, frozen=True):
    """Milliseconds from the intended time of sending to the reply."""

    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    mean: float


class Tick(Struct, frozen=True):
    """One second of the run, at `second` from its start."""

    second: float
    answered: int
    per_second: float
    wrong: int
    p50: float
    p99: float
    max: float


class CommandFigures(Struct, frozen=True):
    """One command: replies that were as they should be, replies that were not, and latency of all."""

    ok: int
    wrong: int
    latency: Latency


class Summary(Struct, frozen=True, kw_only=True):
    """The whole run; `--json` writes it. `version` counts changes of this Struct that take something away.

    `seconds` go from the first command to the last reply, or to the end of sending where that is later, and so do the `ticks`.
    `unsent` counts what was still to be sent when the run was `interrupted`, or else the gateway fell silent. `client_cpu_us`
    is for each reply, `client_cpu_share` of one core: near 1 the client was what limited the rate. `max_p99` is the limit that
    was given, in milliseconds. `failed` says in sentences why the exit code is 1.
    """

    version: int = 1
    title: str
    url: str
    paced: bool
    connections: int
    in_flight: int
    started: float
    seconds: float
    answered: int
    wrong: int
    missing: int
    unsent: int
    interrupted: bool
    retried: int
    skipped: dict[str, int]
    reconnects: int
    per_second: float
    client_cpu_us: float
    client_cpu_share: float
    latency: Latency
    commands: dict[str, CommandFigures]
    errors: dict[str, int]
    closes: dict[str, int]
    examples: list[str]
    ticks: list[Tick]
    curve: list[tuple[float, float]]
    histogram: str
    max_p99: float | None = None
    failed: list[str] = []


class Figures:
    """Counts while the run goes on. Every reply is counted once: ok, wrong, or to be sent again.

    `moved` is when something was last sent or answered (perf_counter), as the connections say. There the run's clock stops:
    what is waited for in vain since is no time of the run.
    """

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self.errors: Counter[str] = Counter()
        self.closes: Counter[str] = Counter()
        self.examples: list[str] = []
        self.ticks: list[Tick] = []
        self.wrong = self.missing = self.unsent = self.retried = self.reconnects = 0
        self.interrupted = False
        self._wrong_of: Counter[str] = Counter()
        self._sums: dict[str, float] = defaultdict(float)
        self._histograms: dict[str, Any] = defaultdict(_histogram)
        self._began = self._ended = self.moved = self._looked = time.perf_counter()
        self._edges = [self._began]
        self._cpu_began = self._cpu = time.process_time()
        self._wrong_before = 0
        self.started = time.time()

    def begin(self) -> None:
        """The first command is about to be sent."""
        self._began = self.moved = time.perf_counter()
        self._edges = [self._began]
        self._cpu_began = time.process_time()
        self.started = time.time()

    def count_wrong(self, job: Job | None, code: str, message: bytes) -> None:
        """A reply that was not what it should be; without a job nothing had asked for it."""
        self.wrong += 1
        self.errors[code] += 1
        if job is not None:
            self._wrong_of[job.kind.name] += 1
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(_asked(job, message) + message[:EXAMPLE_BYTES].decode(errors="replace"))

    def tick(self) -> Tick:
        """Ends a second: moves its latencies into the histograms."""
        self._edges.append(time.perf_counter())
        second: list[float] = []
        for kind in self._kinds.values():
            if kind.latencies:
                taken, kind.latencies = kind.latencies, []
                self._sums[kind.name] += sum(taken)
                _record(self._histograms[kind.name], taken)
                second += taken
        second.sort()
        tick = Tick(
            second=self._second(),
            answered=len(second),
            per_second=self._per_second(len(second)),
            wrong=self.wrong - self._wrong_before,
            p50=_at(second, 0.50),
            p99=_at(second, 0.99),
            max=_at(second, 1.0),
        )
        self._wrong_before = self.wrong
        self.ticks.append(tick)
        return tick

    def look(self) -> None:
        """Reads the CPU, where something moved since the last look: what the client takes while it only waits is left out."""
        if self._looked != self.moved:
            self._looked, self._cpu = self.moved, time.process_time()

    def end(self) -> None:
        """The last reply is there, or will not come. The last tick ends with the clock; those behind it are empty, and none."""
        self.look()
        self.tick()
        self._ended = self.moved
        while len(self.ticks) > 1 and self._edges[-2] >= self._ended:
            self.ticks.pop()
            self._edges.pop()
        self._edges[-1] = self._ended
        last = self.ticks[-1]
        self.ticks[-1] = replace(last, second=self._second(), per_second=self._per_second(last.answered))

    def summary(self, *, skipped: dict[str, int], **given: Any) -> Summary:
        """All of it, once the run has ended."""
        whole = _histogram()
        for histogram in self._histograms.values():
            whole.add(histogram)
        answered = whole.get_total_count()
        seconds, cpu_seconds = self._ended - self._began, self._cpu - self._cpu_began
        commands = {
            name: CommandFigures(
                histogram.get_total_count() - self._wrong_of[name], self._wrong_of[name], _latency(histogram, self._sums[name])
            )
            for name, histogram in sorted(self._histograms.items(), key=lambda item: -item[1].get_total_count())
        }
        return Summary(
            started=self.started,
            seconds=round(seconds, 3),
            answered=answered,
            wrong=self.wrong,
            missing=self.missing,
            unsent=self.unsent,
            interrupted=self.interrupted,
            retried=self.retried,
            skipped=skipped,
            reconnects=self.reconnects,
            per_second=round(answered / seconds, 1) if seconds else 0.0,
            client_cpu_us=round(cpu_seconds / answered * 1e6, 1) if answered else 0.0,
            client_cpu_share=round(cpu_seconds / seconds, 3) if seconds else 0.0,
            latency=_latency(whole, sum(self._sums.values())),
            commands=commands,
            errors=dict(self.errors.most_common()),
            closes=dict(self.closes),
            examples=self.examples,
            ticks=self.ticks,
            curve=_curve(whole),
            histogram=whole.encode().decode(),
            **given,
        )

    def _second(self) -> float:
        """When the last tick ended, from the start."""
        return round(self._edges[-1] - self._began, 3)

    def _per_second(self, answered: int) -> float:
        """In the last tick."""
        return round(answered / max(self._edges[-1] - self._edges[-2], 1e-9), 1)


def _asked(job: Job | None, message: bytes) -> str:
    """What an example of a reply begins with: its command, or of a replay where that is recorded and with which status."""
    if job is None or job.recorded is None:
        return f"{job.kind.name}: " if job else ""
    status = failure_of(message).status
    return f"{job.recorded.words()}, got " + (f"{status} " if status else "")


def _histogram() -> Any:
    return HdrHistogram(1, MICROSECONDS_MAX, DIGITS)


def _record(histogram: Any, latencies: Iterable[float]) -> None:
    """Equal ones are counted first: recording costs some 2 us."""
    for microseconds, count in Counter([int(latency * 1e6) for latency in latencies]).items():
        histogram.record_value(min(max(microseconds, 1), MICROSECONDS_MAX), count)


def _at(ordered: Sequence[float], share: float) -> float:
    """Milliseconds that this share of the latencies (sorted) do not exceed."""
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000, 3) if ordered else 0.0


def _latency(histogram: Any, total_seconds: float) -> Latency:
    """The mean is summed beside the histogram, which would need a second for it."""
    if not histogram.get_total_count():
        return Latency(0, 0, 0, 0, 0, 0)
    at = histogram.get_percentile_to_value_dict(PERCENTILES)
    longest = histogram.get_max_value()
    p50, p90, p99, p999 = (min(at[percentile], longest) / 1000 for percentile in PERCENTILES)
    return Latency(p50, p90, p99, p999, longest / 1000, round(total_seconds * 1000 / histogram.get_total_count(), 3))


def _curve(histogram: Any) -> list[tuple[float, float]]:
    """Percentile and milliseconds, denser towards 100, for the report's plot."""
    if not histogram.get_total_count():
        return []
    points = sorted({100 - 100 / 10 ** (step / 10) for step in range(51)} | set(PERCENTILES))
    total = histogram.get_total_count()
    points = [point for point in points if (100 - point) / 100 * total >= 1] + [100.0]
    at = histogram.get_percentile_to_value_dict(points)
    return [(round(point, 5), at[point] / 1000) for point in sorted(at)]
