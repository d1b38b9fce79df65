"""What a gateway holds when it is at rest, and whether that stays as it was."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from msgspec import Struct

from tests.bench.processes import resident_bytes
from tests.process import GatewayProcess, until
from tests.scrape import Scrape, fetch

SETTLE_SECONDS = 1.0
"""For what follows the last answer: connections that open, sockets that close."""
WARM_UP_SHARE = 0.25
"""Of the samples, those at the start that do not count: caches fill, the allocator takes what it will need."""
INTERNAL = {"name": "gateway_command_duration_seconds_count", "status": "500"}


class Sample(Struct):
    """One look, `second` seconds after the start, behind the fault `after`.

    `descriptors` are those open without those of the database pool, which grows and shrinks; `memory_mib` is resident.
    """

    second: float
    after: str
    memory_mib: float
    descriptors: int
    tasks: int
    acknowledged: int


class Trend(NamedTuple):
    """The medians of the first third and of the last, and how much more the last may be."""

    what: str
    first: float
    last: float
    more: float

    @property
    def flat(self) -> bool:
        return self.last <= self.first + self.more

    def __str__(self) -> str:
        return f"{self.what}: {self.first:g} -> {self.last:g} (at most +{self.more:g}): {'flat' if self.flat else 'GROWS'}"


class Vitals:
    """Looks at one gateway that shows its metrics on `port`."""

    def __init__(self, gateway: GatewayProcess, port: int) -> None:
        self._gateway = gateway
        self._port = port

    async def page(self) -> Scrape:
        """Its metrics."""
        return Scrape((await fetch(self._port))[2])

    async def internal_errors(self) -> int:
        """Commands answered with INTERNAL since its start, whoever sent them."""
        return int((await self.page()).value(**INTERNAL))

    async def at_rest(self, second: float, after: str, sockets: int, acknowledged: int) -> Sample:
        """A look as soon as only so many sockets are left and nothing is in flight. Raises TimeoutError if that never is."""
        await until(self.page, lambda page: _in_use(page) == (sockets, 0))
        await asyncio.sleep(SETTLE_SECONDS)
        page = await self.page()
        opened = len(os.listdir(f"/proc/{self._gateway.pid}/fd")) - int(page.value("gateway_db_connections"))
        memory = resident_bytes(self._gateway.pid) / 2**20
        return Sample(round(second, 1), after, round(memory, 1), opened, int(page.value("gateway_tasks")), acknowledged)


def _in_use(page: Scrape) -> tuple[float, float]:
    return page.value("gateway_connections"), page.value("gateway_commands_in_flight")


MEASURES: list[tuple[str, Callable[[Sample], float], Callable[[float], float]]] = [
    ("resident memory, MiB", lambda sample: sample.memory_mib, lambda first: round(max(4.0, first * 0.05), 1)),
    ("open descriptors", lambda sample: sample.descriptors, lambda _: 2.0),
    ("asyncio tasks", lambda sample: sample.tasks, lambda _: 1.0),
]
"""How much more is no growth: the allocator's unrest; the two connections that streams keep; a look in the wrong moment."""


def trends(samples: Sequence[Sample]) -> list[Trend]:
    """Of each measure the first third behind the warm-up against the last; a median does not heed one bad look."""
    counted = samples[int(len(samples) * WARM_UP_SHARE) :]
    third = max(1, len(counted) // 3)
    found = []
    for what, of, more in MEASURES:
        first, last = median(map(of, counted[:third])), median(map(of, counted[-third:]))
        found.append(Trend(what, first, last, more(first)))
    return found
