"""How long a run has stood still: nothing was answered, and what was to be sent could not be."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateway.harness.figures import Figures
from gateway.harness.link import Link


class Silence:
    """Looked at again and again; `skipped` is how many commands the source left out so far.

    A connection that tries to come back, or has a command to send again later, is no silence: both end by themselves.
    """

    def __init__(self, links: Sequence[Link], figures: Figures) -> None:
        self._links = links
        self._figures = figures
        self._seen: tuple[int, ...] = ()
        self._told = 0
        self._since = time.perf_counter()

    def seconds(self, skipped: int, told: int, *, pacing: bool) -> float:
        """Since when nothing moves. While commands come due (`pacing`; `told`: so many did), since one could not be sent."""
        now = time.perf_counter()
        links = self._links
        seen = (sum(link.sent for link in links), sum(len(link.pending) for link in links), skipped, self._figures.missing)
        if seen != self._seen or any(link.waiting or link.coming_back for link in links):
            self._seen, self._told, self._since = seen, told, now
        elif pacing and told == self._told:
            self._since = now
        return now - self._since
