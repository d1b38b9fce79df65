"""Slows the guessing of passwords down: failed sign-ins are counted by login and address, and by address alone.

Nothing is counted by login alone: who guesses somebody's password elsewhere cannot bar them from signing in.
"""

from __future__ import annotations

import math
from time import monotonic

from gateway.errors import CommandError, ErrorCode
from gateway.rate import Rate
from gateway.settings import Settings


class SignInThrottle:
    """Only failures count, of unknown logins too. Of what is remembered at most 100,000 logins and addresses are kept."""

    def __init__(self, settings: Settings) -> None:
        seconds = settings.sign_in_forget_seconds
        of_login, of_address = settings.sign_in_failures_max, settings.sign_in_address_failures_max
        self._of_login: Rate[tuple[str, str]] | None = Rate(of_login, seconds / of_login) if of_login else None
        self._of_address: Rate[str] | None = Rate(of_address, seconds / of_address) if of_address else None

    def require(self, login: str, address: str) -> None:
        """Raises CommandError TOO_FREQUENT while this login from this address, or this address, has failed too often."""
        now, wait = monotonic(), 0.0
        if self._of_login is not None:
            wait = self._of_login.wait_seconds((login, address), now)
        if self._of_address is not None:
            wait = max(wait, self._of_address.wait_seconds(address, now))
        if wait > 0:
            raise CommandError(
                ErrorCode.TOO_FREQUENT, "too many failed sign-ins from your address", retry_after_ms=math.ceil(wait * 1000)
            )

    def failed(self, login: str, address: str) -> None:
        """Counts a refusal, whatever its reason: one that did not count would tell it."""
        now = monotonic()
        if self._of_login is not None:
            self._of_login.count((login, address), now)
        if self._of_address is not None:
            self._of_address.count(address, now)

    def succeeded(self, login: str, address: str) -> None:
        """Forgets this login's failures from this address. The address's stay, or an own account would buy more guesses."""
        if self._of_login is not None:
            self._of_login.forget((login, address))
