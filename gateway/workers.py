"""Tasks that answer one command after the other: making a task for each would cost more than much of what is done in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

IDLE_MAX = 1_000
"""Tasks that wait for work; some 2 KiB each. More are made when more is to be done at once, and end when it is."""

Work = Callable[..., Coroutine[Any, Any, None]]


class Workers:
    """Work begins in the order it is given, at the event loop's next turn. What it raises is logged, and harms no other."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self._all: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[tuple[Work, tuple[Any, ...]]]] = []

    def start(self, work: Work, *args: Any) -> None:
        """Runs `work(*args)` in a task that is free."""
        if self._idle:
            self._idle.pop().set_result((work, args))
            return
        task = self._tasks.create_task(self._run_forever(work, args))
        self._all.add(task)
        task.add_done_callback(self._all.discard)

    def cancel(self) -> None:
        """Ends all of them, in the middle of what they do."""
        self._idle.clear()
        for task in tuple(self._all):
            task.cancel()

    async def _run_forever(self, work: Work, args: tuple[Any, ...]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await work(*args)
            except Exception as error:
                loop.call_exception_handler({"message": "a task failed", "exception": error})
            if len(self._idle) >= IDLE_MAX:
                return
            more: asyncio.Future[tuple[Work, tuple[Any, ...]]] = loop.create_future()
            self._idle.append(more)
            del work, args  # they hold a connection that may be long gone
            work, args = await more
            del more
