"""How many commands a second each manager may send to this process, over all its sockets. Off by default."""

from __future__ import annotations

import math
from time import monotonic

from gateway.errors import CommandError, ErrorCode
from gateway.rate import Rate
from gateway.settings import Settings


class CommandRate:
    """Counts the commands of managers; those over the rate are refused, and not counted."""

    def __init__(self, settings: Settings) -> None:
        per_second = settings.manager_commands_per_second_max
        self._rate: Rate[int] | None = Rate(settings.manager_commands_burst_max, 1 / per_second) if per_second else None

    def require(self, manager_id: int) -> None:
        """Raises CommandError TOO_FREQUENT, with the time until the next one is taken."""
        if self._rate is None:
            return
        wait = self._rate.take(manager_id, monotonic())
        if wait > 0:
            raise CommandError(ErrorCode.TOO_FREQUENT, "too many commands a second", retry_after_ms=math.ceil(wait * 1000))
