"""Tasks that are used again: work begins in the order given, and what goes wrong with one piece harms no other."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway import workers as workers_module
from gateway.workers import Workers
from tests.client import WAIT_SECONDS

TURNS = 3
"""Turns of the event loop that are enough for a piece of work to go on."""


class Work:
    """Pieces of work: what began, what was cancelled, and which task did it; each goes on until it is let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.tasks: dict[str, asyncio.Task[Any] | None] = {}
        self.go_on = asyncio.Event()

    async def quick(self, name: str) -> None:
        """Ends at once."""
        self.begun.append(name)
        self.tasks[name] = asyncio.current_task()

    async def slow(self, name: str) -> None:
        """Ends when all may go on."""
        await self.quick(name)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise

    async def failing(self, name: str) -> None:
        """Raises at once."""
        await self.quick(name)
        raise ValueError(name)


@asynccontextmanager
async def running() -> AsyncIterator[Workers]:
    """Workers that are ended when the test is done with them."""
    async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as tasks:
        workers = Workers(tasks)
        yield workers
        workers.cancel()


async def turns() -> None:
    """Lets the event loop turn."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def test_work_begins_in_the_order_given() -> None:
    """At the event loop's next turn, in new tasks and in those that are used again."""
    work = Work()
    names = [str(number) for number in range(10)]
    async with running() as workers:
        for _ in range(2):
            for name in names:
                workers.start(work.quick, name)
            await asyncio.sleep(0)
            assert names == work.begun
            work.begun.clear()


async def test_order_holds_where_new_and_used_tasks_mix() -> None:
    """What is given to a task that is free begins neither before nor after its time."""
    work = Work()
    names = [str(number) for number in range(9)]
    async with running() as workers:
        for free in (3, 5):
            for name in names[:free]:
                workers.start(work.quick, name)
            await turns()
            work.begun.clear()
            for name in names:
                workers.start(work.slow, name)
            await asyncio.sleep(0)
            assert (free, names) == (free, work.begun)
            work.begun.clear()
            work.go_on.set()
            await turns()
            work.go_on.clear()
            workers.cancel()
            await turns()


async def test_task_is_used_again() -> None:
    """A thousand pieces of work one after the other are done by one task; two at once by two."""
    work = Work()
    async with running() as workers:
        for number in range(1000):
            workers.start(work.quick, str(number))
            await asyncio.sleep(0)
        assert 1 == len(set(work.tasks.values()))
        workers.start(work.quick, "a")
        workers.start(work.quick, "b")
        await turns()
        assert work.tasks["a"] is work.tasks["0"]
        assert work.tasks["b"] is not work.tasks["0"]


async def test_no_more_tasks_stay_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that is more at once is done as well; the tasks made for it end with it."""
    monkeypatch.setattr(workers_module, "IDLE_MAX", 2)
    work = Work()
    async with running() as workers:
        for name in "abcde":
            workers.start(work.slow, name)
        await turns()
        work.go_on.set()
        await turns()
        assert list("abcde") == work.begun
        assert [False, False, True, True, True] == [task is not None and task.done() for task in work.tasks.values()]


async def test_failure_is_reported_and_harms_no_other() -> None:
    """What a piece of work raises goes to the event loop's handler; its task and the others go on."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
    work = Work()
    async with running() as workers:
        workers.start(work.slow, "before")
        workers.start(work.failing, "failing")
        workers.start(work.slow, "after")
        await turns()
        assert [("a task failed", "failing")] == [(context["message"], str(context["exception"])) for context in reported]
        workers.start(work.quick, "next")
        await turns()
        assert ["before", "failing", "after", "next"] == work.begun
        assert work.tasks["failing"] is work.tasks["next"]
        work.go_on.set()
        await turns()
    assert [] == work.cancelled
    assert 1 == len(reported)


async def test_cancel_ends_all_in_the_middle() -> None:
    """What is under way is cancelled, what was given and has not begun never begins, and no task is left."""
    work = Work()
    async with running() as workers:
        workers.start(work.quick, "idle")
        workers.start(work.slow, "a")
        workers.start(work.slow, "b")
        await turns()
        workers.start(work.slow, "given to a free task")
        workers.start(work.slow, "given to a new task")
        workers.cancel()
        await turns()
        assert ["idle", "a", "b"] == work.begun
        assert {"a", "b"} == set(work.cancelled)
        assert set() == workers._all


class Held:
    """Something that work is given, which may be gone afterwards."""


async def take(_held: Held) -> None:
    """Ends at once."""


async def take_and_fail(_held: Held) -> None:
    """Raises at once."""
    raise ValueError


@pytest.mark.parametrize("work", [take, take_and_fail])
@pytest.mark.parametrize("used", [False, True])
async def test_free_task_keeps_nothing_of_its_last_work(
    work: Callable[[Held], Coroutine[Any, Any, None]], *, used: bool
) -> None:
    """Arguments are gone as soon as the work is done, of a task's first work and of a later one, without a collection."""
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    gc.disable()
    try:
        async with running() as workers:
            if used:
                workers.start(take, Held())
                await turns()
            held = Held()
            kept = weakref.ref(held)
            workers.start(work, held)
            del held
            await turns()
            assert kept() is None
    finally:
        gc.enable()
