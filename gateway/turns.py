"""Lets what concerns the same thing run one after the other, in the order it came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from gateway.errors import CommandError

LONG_SECONDS = 1.0
"""A failure that took less is worth another try: a connection that broke, not a database that is away."""

Name = TypeVar("Name", bound=Hashable)
Result = TypeVar("Result")


class Turn(Generic[Result]):
    """Shared by all that wait for the same name. `result` is theirs to use, and gone with the last of them."""

    def __init__(self, seconds: float, late: Callable[[], CommandError]) -> None:
        self.result: Result | None = None
        self._lock = asyncio.Lock()
        self._users = 0
        self._seconds = seconds
        self._late = late

    async def __aenter__(self) -> Turn[Result]:
        self._users += 1
        try:
            if self._users == 1:  # nobody to wait for: a time-out would cost more than all else here
                await self._lock.acquire()
            else:
                async with asyncio.timeout(self._seconds):
                    await self._lock.acquire()
        except BaseException as error:
            self._users -= 1
            if isinstance(error, TimeoutError):
                raise self._late() from None
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._lock.release()
        self._users -= 1


class Readers(Generic[Name]):
    """Who reads something beside others; whoever has the turn to change it waits until those that began before have ended."""

    def __init__(self) -> None:
        self._counts: dict[Name, int] = {}
        self._ends: dict[Name, asyncio.Event] = {}

    def begin(self, name: Name) -> None:
        """Counts one that begins to read."""
        self._counts[name] = self._counts.get(name, 0) + 1

    def end(self, name: Name) -> None:
        """Counts it off."""
        left = self._counts.pop(name) - 1
        if left:
            self._counts[name] = left
        elif name in self._ends:
            self._ends.pop(name).set()

    async def ended(self, name: Name) -> None:
        """Returns once nobody reads it. Meanwhile nobody else may begin to: they wait for the turn."""
        if name in self._counts:
            await self._ends.setdefault(name, asyncio.Event()).wait()


class Question:
    """What several callers want to learn from elsewhere: they ask one after the other, as the answer to one may do for all.

    A failure of what is asked that took long is everybody's who has waited for it: asking in turn, the last would wait that
    long many times. A refusal is the asker's own.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._failure: CommandError | None = None
        self._failed_at = 0.0

    async def __aenter__(self) -> None:
        began = time.monotonic()
        await self._lock.acquire()
        if self._failure is not None and self._failed_at - began > LONG_SECONDS:
            self._lock.release()
            raise self._failure.for_another()

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._failure = None
        if isinstance(error, CommandError) and error.status >= 500:
            self._failure, self._failed_at = error.for_another(), time.monotonic()
        self._lock.release()


class Turns(Generic[Name, Result]):
    """Turns by name, waited for at most `seconds`, then `late` is raised. A name that nobody uses costs nothing."""

    def __init__(self, seconds: float, late: Callable[[], CommandError]) -> None:
        self._seconds = seconds
        self._late = late
        self._turns: WeakValueDictionary[Name, Turn[Result]] = WeakValueDictionary()

    def __contains__(self, name: Name) -> bool:
        return name in self._turns

    def of(self, name: Name) -> Turn[Result]:
        """The turn of that name, to be waited for with `async with`."""
        turn = self._turns.get(name)
        if turn is None:
            turn = self._turns[name] = Turn(self._seconds, self._late)
        return turn
