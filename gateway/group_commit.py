"""Lets commands that wait at the same moment share one statement, and so one commit. Knows nothing of SQL or events."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from typing import Any, Generic, TypeVar

import asyncpg

from gateway.errors import CommandError, ErrorCode, Outcome
from gateway.fair_queue import FairQueue
from gateway.metrics import Observe

Item = TypeVar("Item")
Result = TypeVar("Result")

WRITERS_MAX = 2
"""Shared statements under way at once: while PostgreSQL has one, the next is made. More did not help."""
SLOW_SECONDS = 0.02
"""A statement that takes longer, some 20 times what they take, waits for a lock or the disk: nothing waits for it."""
ASIDE_SECONDS = 0.1
"""An item run by itself, or a statement, that takes longer waits for a lock: those behind it go on."""
ASIDE_MAX = 3
"""Items left aside like that, each on a database connection of its own, before those behind them wait."""


class GroupCommit(Generic[Item, Result]):
    """Runs items through `run`, which takes several and returns the result of each, in their order.

    A lone item goes at once, in the caller's task. While others are under way items wait; a writer takes all that wait, up
    to `share_max`, when the last one is done, or as soon as they are `share_max`, or when the oldest takes long: statements
    of few items beside each other would only slow each other down. No item waits for a timer; one looks whether the oldest
    takes long. When more wait than one takes, their owners take turns. What has waited for `deadline_seconds` is not sent
    any more and fails with TIMEOUT.

    When PostgreSQL refuses a shared statement, its items are run one by one in the same order, so that only the guilty
    one gets an error; those behind one that waits for a lock go on meanwhile. When the answer was lost nothing is sent
    again: every item of the statement gets that error, with its outcome. A caller that is cancelled takes no other item
    along. `observe_size` is told how many items go together; when they are then run one by one it is not told again.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        share_max: int,
        deadline_seconds: float,
        observe_size: Observe,
    ) -> None:
        self._loop = asyncio.get_running_loop()  # looked up once: each time is a system call in Python 3.11
        self._run = run
        self._share_max = share_max
        self._deadline_seconds = deadline_seconds
        self._observe_size = observe_size
        self._waiting: FairQueue[tuple[Item, asyncio.Future[Result], float]] = FairQueue()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._begun_at: list[float] = []
        self._looks_again = False

    def writers(self) -> list[Coroutine[Any, Any, None]]:
        """The loops that do the work; whoever owns this owns the tasks that run them."""
        return [self._write_forever() for _ in range(WRITERS_MAX)]

    def submit(self, item: Item, owner: Hashable) -> Awaitable[Result]:
        """The item's own result. Raises what went wrong with the item, or with the connection it was sent on."""
        if not self._idle or self._waiting or self._begun_at:
            return self.queue(item, owner)
        return self._run_alone(item)

    async def _run_alone(self, item: Item) -> Result:
        answer: asyncio.Future[Result] = self._loop.create_future()
        writer = self._idle.pop()  # it sleeps on, while the caller does its work: two turns of the event loop less
        try:
            await self._answer_together([(item, answer)])
        finally:
            self._idle.append(writer)
            self._wake()
        return answer.result()

    def queue(self, item: Item, owner: Hashable) -> asyncio.Future[Result]:
        """The same, with the work done by a writer: a caller that is cancelled leaves it to its end."""
        answer: asyncio.Future[Result] = self._loop.create_future()
        self._waiting.append(owner, (item, answer, self._loop.time() + self._deadline_seconds))
        self._wake()
        return answer

    def _are_enough(self) -> bool:
        """Whether what waits is worth a statement beside those under way."""
        waiting = len(self._waiting)
        if not waiting or not self._begun_at:
            return bool(waiting)
        return waiting >= self._share_max or self._loop.time() - self._begun_at[0] > SLOW_SECONDS

    def _wake(self) -> None:
        """Lets an idle writer take what waits, or look again: the oldest may take long by then, and nothing come or end."""
        if self._idle and self._are_enough():
            _rouse(self._idle)
        if self._idle and self._waiting and not self._looks_again:
            self._looks_again = True
            self._loop.call_later(SLOW_SECONDS, self._look)

    def _look(self) -> None:
        self._looks_again = False
        self._wake()

    async def _write_forever(self) -> None:
        while True:
            while not self._are_enough():
                wake = self._loop.create_future()
                self._idle.append(wake)
                self._wake()
                await wake
            batch = self._in_time(self._waiting.take(self._share_max), self._loop.time())
            if batch:
                await self._answer_together(batch)

    async def _answer_together(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        self._observe_size(len(batch))
        begun_at = self._loop.time()
        self._begun_at.append(begun_at)
        try:
            await self._answer(batch)
        finally:
            self._begun_at.remove(begun_at)

    def _in_time(
        self, taken: Sequence[tuple[Item, asyncio.Future[Result], float]], now: float
    ) -> list[tuple[Item, asyncio.Future[Result]]]:
        """What is still to be done of what waited: not what nobody waits for any more, nor what waited past its deadline."""
        batch = []
        for item, answer, deadline in taken:
            if now >= deadline:
                _settle(answer, CommandError(ErrorCode.TIMEOUT, "the commands before this one took too long"))
            elif not answer.done():
                batch.append((item, answer))
        return batch

    async def _answer(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._run([item for item, _ in batch])
        except Exception as error:  # goes to those whose error it is
            if len(batch) > 1 and _refused(error):
                await self._answer_one_by_one(batch)
                return
            for _, answer in batch:
                _settle(answer, error.for_another() if len(batch) > 1 and isinstance(error, CommandError) else error)
            return
        for (_, answer), result in zip(batch, results, strict=True):
            if not answer.done():
                answer.set_result(result)

    async def _answer_one_by_one(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        deadline = self._loop.time() + self._deadline_seconds
        aside: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as tasks:
            for entry in batch:
                while len(aside) >= ASIDE_MAX:
                    _, aside = await asyncio.wait(aside, return_when=asyncio.FIRST_COMPLETED)
                if self._loop.time() >= deadline:
                    _settle(entry[1], CommandError(ErrorCode.TIMEOUT, "the commands before this one took too long"))
                    continue
                task = tasks.create_task(self._answer([entry]))
                _, late = await asyncio.wait({task}, timeout=ASIDE_SECONDS)
                aside |= late


def _refused(error: Exception) -> bool:
    """Whether PostgreSQL answered with an error, so that nothing of the statement was executed, and one by one may be."""
    cause: BaseException | None = error
    if isinstance(error, CommandError):
        cause = error.__cause__ if error.outcome is Outcome.NOT_EXECUTED else None
    return isinstance(cause, asyncpg.PostgresError) and not isinstance(cause, asyncpg.ReadOnlySQLTransactionError)


def _rouse(writers: deque[asyncio.Future[None]]) -> None:
    """Wakes the one that sleeps for longest. Those that were cancelled, as at a stop, never wake."""
    while writers:
        writer = writers.popleft()
        if not writer.done():
            writer.set_result(None)
            return


def _settle(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
