"""Password hashes (argon2id), computed off the event loop in a small pool with a short queue."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import threading
from collections import Counter
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from gateway.errors import no_service
from gateway.settings import Settings

T = TypeVar("T")

PASSWORD_CHARS_MIN = 8
"""Of a new password, as NIST SP 800-63B wants of those that people choose. Who has a shorter one still signs in."""
PASSWORD_CHARS_MAX = 1024
"""A longer password is refused before it is hashed: it would cost time and add no strength."""

ADDRESS_SHARE, LOGIN_SHARE = 3 / 4, 1 / 2
"""Of all places, what an address may have, and what a login from there: with all of them it would bar everybody else."""
SHARE_MIN = 4
"""Places that they may have at least."""

HASHING_NICE = 5
"""How much nicer the threads that hash are than the event loop: they get a third of its processor time where both want it."""

_hasher = PasswordHasher()
"""RFC 9106's second recommendation: 64 MiB, 3 passes, 4 lanes."""


def hash_password(password: str) -> str:
    """The hash to store, some 50 ms of work: on the event loop only in a command-line tool."""
    return _hasher.hash(password)


class Passwords:
    """Checks passwords in worker threads. Close it with `close`."""

    def __init__(self, settings: Settings) -> None:
        self._pool = ThreadPoolExecutor(settings.password_workers, "password", _step_back)
        self._threads = asyncio.Semaphore(settings.password_workers)
        self._free = settings.password_workers + settings.password_queue_max
        self._places = self._free
        self._each: Counter[Hashable] = Counter()
        self._pool.submit(_dummy)  # ready before the first sign-in asks, without holding up the start

    async def matches(
        self,
        password: str,
        stored: str | None,
        who: tuple[str, str] = ("", ""),
        allowed: Callable[[], None] = lambda: None,
    ) -> bool:
        """Whether the password is the one that was hashed. With nothing stored it costs the same and is false.

        `allowed` is called when a thread is free, just before: what it raises ends the attempt unverified. Whoever counts
        a mismatch before awaiting anything else has counted it before the next attempt asks.
        Raises CommandError NO_SERVICE when too many already wait, of all or of `who`: login and address.
        """
        shares: dict[Hashable, float] = {who[1]: ADDRESS_SHARE, who: LOGIN_SHARE}
        if self._free == 0 or any(self._each[one] >= max(SHARE_MIN, part * self._places) for one, part in shares.items()):
            raise no_service("too many sign-ins at once")
        self._free -= 1
        self._each.update(shares.keys())
        try:
            matched = await self._run(lambda: _verified(stored or _dummy(), password), allowed)
        finally:
            self._free += 1
            self._each -= Counter(shares.keys())  # which forgets those with none
        return matched and stored is not None

    async def _run(self, work: Callable[[], T], allowed: Callable[[], None]) -> T:
        async with self._threads:
            allowed()
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Ends the threads; sign-ins still waiting are dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _step_back() -> None:
    """Lets the event loop go first: a hash has four threads, and on few cores the loop waited for its turn behind them."""
    if sys.platform == "linux":  # where a thread has a priority of its own, which those that it starts inherit
        thread = threading.get_native_id()
        with suppress(OSError):  # a sandbox that forbids it costs time alone
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + HASHING_NICE)


@cache
def _dummy() -> str:
    """The hash that an unknown login is checked against; made once, in a worker thread."""
    return hash_password(secrets.token_hex(16))


def _verified(stored: str, password: str) -> bool:
    try:
        return _hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False
