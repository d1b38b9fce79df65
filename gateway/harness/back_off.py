"""How a connection of the harness comes back: with which waits between its tries, and for how long."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from picows import WSError

BACK_OFF_SECONDS, BACK_OFF_SECONDS_MAX = 0.25, 5.0
GIVE_UP_SECONDS = 60.0
"""Time without a connection after which one is given up; more than a restart of the gateway takes."""


class BackOff:
    """One of these lasts until a reply comes: to be let in alone is no success.

    A gateway that has no room (4002) lets every connection in, to close it.
    """

    def __init__(self) -> None:
        self._wait = BACK_OFF_SECONDS
        self._left = GIVE_UP_SECONDS

    async def connected(self, connect: Callable[[], Awaitable[None]], least: float, leaving: Callable[[], bool]) -> bool:
        """Tries until it is connected, the first time after `least` seconds; False when all of it took too long."""
        began, wait = time.perf_counter(), min(max(self._wait, least), GIVE_UP_SECONDS)
        try:
            while time.perf_counter() - began < self._left and not leaving():
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
                wait = self._wait = min(self._wait * 2, BACK_OFF_SECONDS_MAX)
                try:
                    await connect()
                except (OSError, WSError, TimeoutError):
                    continue
                return True
            return False
        finally:
            self._left -= time.perf_counter() - began
