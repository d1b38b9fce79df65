"""Rates by key in bounded memory: so many at once, then one each so many seconds (GCRA, a leaky bucket in one number)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

KEYS_MAX = 100_000
"""Keys remembered; some 200 bytes each. Past it the one that was counted longest ago is forgotten, and begins anew."""


class Rate(Generic[Key]):
    """For each key the time at which all that was counted is forgotten again.

    `burst` may be counted at once; one of them is forgotten each `seconds`. A key that is not remembered has nothing
    counted. Times are of one clock that never goes back.
    """

    def __init__(self, burst: int, seconds: float, keys_max: int = KEYS_MAX) -> None:
        self._seconds = seconds
        self._room_seconds = (burst - 1) * seconds
        self._keys_max = keys_max
        self._forgotten_at: OrderedDict[Key, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._forgotten_at)

    def wait_seconds(self, key: Key, now: float) -> float:
        """How long until one more may be counted; 0 or less: now."""
        return self._forgotten_at.get(key, now) - now - self._room_seconds

    def count(self, key: Key, now: float) -> None:
        """Counts one, whether there is room for it or not."""
        at = self._forgotten_at
        at[key] = max(at.get(key, now), now) + self._seconds
        at.move_to_end(key)
        while at[oldest := next(iter(at))] <= now or len(at) > self._keys_max:
            del at[oldest]

    def take(self, key: Key, now: float) -> float:
        """Counts one if there is room for it; what `wait_seconds` says."""
        wait = self.wait_seconds(key, now)
        if wait <= 0:
            self.count(key, now)
        return wait

    def forget(self, key: Key) -> None:
        """Nothing is counted of this key any more."""
        self._forgotten_at.pop(key, None)
