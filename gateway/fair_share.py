"""Keeps one manager's flood from being everybody's: beside others a manager has so many commands under way, the rest wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import CommandError, no_service
from gateway.settings import Settings

BESIDE_SECONDS = 10.0
"""How long a manager counts as beside others after one of them sent a command: a person pauses between two."""
TURN_SECONDS = 2.0
"""How long a command waits for its turn; with the database's own limits, well below the clients' patience."""


class _Manager:
    """One manager's commands. Those in `waiting` that are done have their turn, or are cancelled, and have yet to go on."""

    __slots__ = ("under_way", "waiting")

    def __init__(self) -> None:
        self.under_way = 0
        self.waiting: deque[asyncio.Future[bool]] = deque()


class FairShare:
    """Counts commands under way by manager. A manager who is alone has no limit, and costs a look-up."""

    def __init__(self, settings: Settings) -> None:
        self._loop = asyncio.get_running_loop()  # looked up once: each time is a system call in Python 3.11
        self._most = settings.manager_in_flight_max
        self._managers: dict[int, _Manager] = {}
        self._last_manager = 0
        self._beside_until = 0.0

    def try_enter(self, manager_id: int) -> bool:
        """Counts a command, if it is its turn; otherwise it is to `wait`."""
        manager = self._managers.get(manager_id)
        if manager is None:
            manager = self._managers[manager_id] = _Manager()
        if manager_id != self._last_manager:
            if self._last_manager:
                self._beside_until = self._loop.time() + BESIDE_SECONDS
            self._last_manager = manager_id
        if manager.waiting or not self._has_room(manager):
            return False
        manager.under_way += 1
        return True

    async def wait(self, manager_id: int) -> None:
        """Counts a command once it is its turn; commands of a manager go on in the order they came.

        Raises CommandError NO_SERVICE when its turn does not come in time.
        """
        manager = self._managers[manager_id]
        turn: asyncio.Future[bool] = self._loop.create_future()
        manager.waiting.append(turn)
        too_late = self._loop.call_later(TURN_SECONDS, _let_pass, turn)  # a third of the time of asyncio.timeout
        goes_on = False
        try:
            goes_on = await turn
        finally:
            too_late.cancel()
            manager.waiting.remove(turn)
            if goes_on:
                self._wake(manager)  # there may be room for those that came since, which stayed behind this one
            else:
                if turn.done() and not turn.cancelled() and turn.result():  # it had its turn, and does not take it
                    manager.under_way -= 1
                self._go_on(manager_id, manager)
        if not goes_on:
            raise _too_many()

    def leave(self, manager_id: int) -> None:
        """Counts a command off; the next one that waits goes on."""
        manager = self._managers[manager_id]
        manager.under_way -= 1
        self._go_on(manager_id, manager)

    def _go_on(self, manager_id: int, manager: _Manager) -> None:
        if manager.waiting:
            self._wake(manager)
        elif not manager.under_way:
            del self._managers[manager_id]

    @contextmanager
    def aside(self, manager_id: int) -> Iterator[None]:
        """Does not count a command of the manager's while it waits for what has a limit of its own."""
        self.leave(manager_id)
        try:
            yield
        finally:
            self._managers.setdefault(manager_id, _Manager()).under_way += 1

    def _has_room(self, manager: _Manager) -> bool:
        if manager.under_way < self._most or not self._most:
            return True
        return self._loop.time() >= self._beside_until

    def _wake(self, manager: _Manager) -> None:
        if not manager.waiting or manager.waiting[-1].done():  # when that one goes on, it looks whether others wait
            return
        for turn in manager.waiting:
            if not self._has_room(manager):
                return
            if not turn.done():
                manager.under_way += 1
                turn.set_result(True)


def _let_pass(turn: asyncio.Future[bool]) -> None:
    """The turn did not come in time."""
    if not turn.done():
        turn.set_result(False)


def _too_many() -> CommandError:
    return no_service("too many commands of this manager wait")
