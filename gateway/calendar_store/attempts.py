"""How long and how often a change of one event is tried again while others change that event, or have it locked."""

from __future__ import annotations

import asyncio
import random

from gateway.errors import CommandError, ErrorCode, no_service
from gateway.settings import Settings

PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.005, 0.2
"""Between two tries at an event that is locked: the first pause, and where doubling it ends. Nothing is held meanwhile."""


class Attempts:
    """The tries of one change. Times bound them, not a number: a try takes milliseconds, and whoever loses may lose again."""

    def __init__(self, event_id: int, settings: Settings) -> None:
        self._event_id = event_id
        self._lock_seconds = settings.db_lock_seconds
        self._seconds = settings.db_command_seconds
        self._version: int | None = None
        self._began = self._unmoved_since = self._pause = 0.0

    async def again(self, version: int) -> None:
        """Returns when it is time for the next try: the last one, at this version, was passed over.

        At once while the version moves, which is a change by others. One that stays is locked by others, or was until now.
        Raises CommandError TIMEOUT when it stays so for `db_lock_seconds`, NO_SERVICE after `db_command_seconds` in all.
        """
        now = asyncio.get_running_loop().time()
        if version != self._version:
            self._began = self._began or now
            self._version, self._unmoved_since, self._pause = version, now, PAUSE_SECONDS
        elif now - self._unmoved_since >= self._lock_seconds:
            raise CommandError(ErrorCode.TIMEOUT, f"event {self._event_id} is locked by others: try again")
        else:
            await asyncio.sleep(random.uniform(0.5, 1.0) * self._pause)  # noqa: S311 - keeps gateways apart, no secret
            self._pause = min(2 * self._pause, PAUSE_SECONDS_MAX)
        if now - self._began >= self._seconds:
            raise contended(self._event_id)


def contended(event_id: int) -> CommandError:
    """The answer when others were first each time."""
    return no_service(f"event {event_id} is changed too often by others: try again", retry_after_ms=(100, 300))
