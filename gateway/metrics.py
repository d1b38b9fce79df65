"""What the process counts: every metric on one screen, and a histogram that is cheap to count with.

A metric more is one line in `Metrics`, and docs/metrics.md is written from it. No label takes a value that clients make up.
`metrics_page.py` shows them to Prometheus.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from gateway import __version__

SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets for times: from a lone read to past every deadline."""
COMMANDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""The same for commands in a statement."""
LOOP_LAG_SECONDS = 0.1
"""How often the event loop's lateness is looked at; some 0.15 ms of processor time each."""

Observe = Callable[[float], None]


class Described(NamedTuple):
    """A metric as the documentation shows it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class Buckets:
    """Counts values under one set of labels, on the event loop alone: without the locks of the library's own histogram."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Counts a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """Each bound with how many values are at most that, and the sum of all."""
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True)), self._sum


class Histogram(Collector):
    """A histogram of `Buckets`, which the library collects at a scrape."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._name = name
        self._meaning = meaning
        self._labels = labels
        self._bounds = bounds
        self._children: dict[tuple[str, ...], Buckets] = {}

    def of(self, *labels: str) -> Observe:
        """What counts a value under these labels; keep it where it is needed often."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = Buckets(self._bounds)
        return child.observe

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What the library asks for at a scrape."""
        family = HistogramMetricFamily(self._name, self._meaning, labels=self._labels)
        for labels, child in self._children.items():
            family.add_metric(labels, *child.read())
        yield family


class Metrics:
    """The metrics of one gateway, in a registry of their own: a process may run several gateways."""

    def __init__(self) -> None:
        disable_created_metrics()  # a series more for each counter, of no use to Prometheus
        self.registry = CollectorRegistry()
        self.described: list[Described] = []
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        build = self._gauge("gateway_build_info", "always 1; the version that runs", "version")
        build.labels(__version__).set(1)

        self.commands = self._histogram(
            "gateway_command_duration_seconds",
            "time from a command's frame to its reply, by the reply's status; `unknown` are commands that do not exist, "
            "`unreadable` messages that are no command",
            SECONDS,
            "command",
            "status",
        )
        self.in_flight = self._gauge("gateway_commands_in_flight", "commands read and not yet answered")
        self.cut_off = self._counter("gateway_replies_cut_off_total", "replies in pieces that did not go out whole")
        self.batch_sizes = self._histogram(
            "gateway_batch_commands",
            "commands that shared a statement and its commit: `get`, `add`, `change`, `delete`, or `keep_key` (keyed writes "
            "that changed nothing)",
            COMMANDS,
            "statement",
        )

        self.connections = self._gauge("gateway_connections", "sockets open")
        self.connections_max = self._gauge("gateway_connections_max", "most sockets: GATEWAY_CONNECTIONS_MAX")
        self.closes = self._counter(
            "gateway_closes_total",
            "sockets that ended, by close code and by whom: `gateway`, `client`, or `nobody` (1006: the link was lost); "
            "codes that clients make up are `other`",
            "code",
            "by",
        )
        self.sign_in_failures = self._counter(
            "gateway_sign_in_failures_total",
            "proofs of identity refused: `password` in MngLogin, `token` in an upgrade or an authorization message",
            "proof",
        )

        self.db_waits = self._histogram(
            "gateway_db_connection_wait_seconds",
            "time that a statement waited for a database connection, those that had one at once included; `streams` are those "
            "of large replies, `commands` all others",
            SECONDS,
            "pool",
        )
        self.db_connections = self._gauge("gateway_db_connections", "database connections open, those of streams left out")
        self.db_connections_max = self._gauge("gateway_db_connections_max", "most of them: GATEWAY_DB_CONNECTIONS_MAX")

        self.tasks = self._gauge("gateway_tasks", "asyncio tasks that have not ended; more and more of them at rest is a leak")
        self.loop_lag = self._histogram(
            "gateway_event_loop_lag_seconds", "how late the event loop came back to a timer, ten times a second", SECONDS
        )
        self.capture_dropped = self._counter("gateway_capture_dropped_frames_total", "frames that a capture left out")

        for proof in ("password", "token"):
            self.sign_in_failures.labels(proof)  # a series that begins at 0 shows its first increase

    async def watch_loop(self) -> None:
        """Looks for ever at how late the event loop is."""
        observe = self.loop_lag.of()
        while True:
            due = time.perf_counter() + LOOP_LAG_SECONDS
            await asyncio.sleep(LOOP_LAG_SECONDS)
            observe(max(0.0, time.perf_counter() - due))

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        self.described.append(Described(name, "counter", labels, meaning))
        return Counter(name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        self.described.append(Described(name, "gauge", labels, meaning))
        return Gauge(name, meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, bounds: Sequence[float], *labels: str) -> Histogram:
        self.described.append(Described(name, "histogram", labels, meaning))
        histogram = Histogram(name, meaning, labels, bounds)
        self.registry.register(histogram)
        return histogram
