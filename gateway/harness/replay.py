"""The source of `gateway replay`: sends a recording again, with the new ids of the events it adds."""

from __future__ import annotations

import secrets
import time
from bisect import insort
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw

from gateway.harness.credentials import named
from gateway.harness.kinds import ADD, ADDED, OK, Job, Kinds, expected_status, new_event_id
from gateway.harness.order import Order
from gateway.harness.stream import FILTER, Step, Stream

NOT_ADDED = "its event was not added this time"
NO_MANAGER = "its manager is not known here"
RUN_BYTES = 8
"""Of what the keys of a run begin with: none of another run's is sent, which would be answered from what that one did."""


class Replay:
    """Each connection's commands go in the recorded order.

    One that names an event waits until the commands before it that name the same event were answered: so the recorded
    outcome is what must come again. That never locks: the first command unsent, by its number, waits for replies alone, or
    for its time. `wake`, set by whoever runs it, is told which connection may go on; it must not send at once.
    """

    def __init__(
        self,
        kinds: Kinds,
        stream: Stream,
        connections: int,
        tokens: Mapping[int, str],
        manager_of: Callable[[int], int],
    ) -> None:
        self.wake: Callable[[int], None]
        self._kinds = kinds
        self._connections = connections
        self._tokens = tokens
        self._manager_of = manager_of
        self._steps = stream.steps
        self._queues: list[deque[tuple[int, float, Step]]] = [deque() for _ in range(connections)]
        self._skipped = Counter(stream.skipped)
        self._unsent = len(stream.steps)
        unknown = sorted({step.manager for step in stream.steps if step.manager} - tokens.keys())
        self._no_manager = f"{NO_MANAGER} ({named(unknown)})" if unknown else ""
        self._run = secrets.token_hex(RUN_BYTES)

    def fill(self) -> None:
        """Everything is to be sent as fast as replies come."""
        for step in self._steps:
            self._queues[step.connection % self._connections].append((step.number, 0.0, step))
        for number, queue in enumerate(self._queues):
            self._queues[number] = deque(sorted(queue))

    def times(self, scale: Callable[[int, Step], float]) -> Iterator[tuple[float, int, Callable[[float], None]]]:
        """When each command is due, as the run wants it; `scale` gives the seconds from a command's number and step."""
        for number, step in enumerate(self._steps):
            yield scale(number, step), step.connection % self._connections, partial(self._due, step)

    def _due(self, step: Step, due: float) -> None:
        """Recorded connections that share one may be due in another order than theirs."""
        insort(self._queues[step.connection % self._connections], (step.number, due, step))

    def stop(self) -> int:
        for queue in self._queues:
            queue.clear()
        unsent, self._unsent = self._unsent, 0
        return unsent

    def exhausted(self) -> bool:
        return self._unsent <= 0

    def skipped(self) -> dict[str, int]:
        """Commands left out, by reason."""
        return dict(self._skipped)

    def abandon(self, number: int) -> int:
        unsent = list(self._queues[number])
        self._queues[number].clear()
        self._unsent -= len(unsent)
        for _, _, step in unsent:
            self._pass_over(step)
        return len(unsent)

    def take(self, number: int) -> Job | None:
        queue = self._queues[number]
        while queue:
            _, due, step = queue[0]
            if not self._may_go(step, number):
                return None
            queue.popleft()
            self._unsent -= 1
            if step.manager and step.manager not in self._tokens:
                self._leave_out(step, self._no_manager)
            elif step.event is not None and not step.event.new_id and not step.adds:
                self._leave_out(step, NOT_ADDED)
            else:
                return self._job(step, due or time.perf_counter(), number)
        return None

    def answered(self, job: Job, message: bytes, *, ok: bool) -> None:
        step: Step = job.ref
        if step.event is not None and step.adds and ok:
            step.event.new_id = new_event_id(message)
        self._ended(step)

    def lost(self, job: Job) -> None:
        self._ended(job.ref)

    def _ended(self, step: Step) -> None:
        for order, _ in step.places:
            order.ended()
            self._wake(order)

    def _may_go(self, step: Step, number: int) -> bool:
        for order, place in step.places:
            if not order.lets_go(place, reads=step.reads):
                order.waiting.add(number)
                return False
        return True

    def _leave_out(self, step: Step, reason: str) -> None:
        self._skipped[reason] += 1
        self._pass_over(step)

    def _pass_over(self, step: Step) -> None:
        for order, place in step.places:
            order.pass_over(place)
            self._wake(order)

    def _job(self, step: Step, due: float, number: int) -> Job:
        event = step.event
        tail = b',"data":' + (step.data if event is None or step.adds else _renamed(step, event.new_id))
        if step.manager and step.manager != self._manager_of(number):
            tail += b',"__token":"' + self._tokens[step.manager].encode() + b'"'
        if step.key is not None:
            tail += b',"idempotencyKey":' + msgspec.json.encode(f"{self._run}-{step.key.name}")
        for order, place in step.places:
            order.sent(place, reads=step.reads)
            self._wake(order)
        return Job(self._kinds[step.command], tail + b"}", due, _expected(step), step, step.recorded)

    def _wake(self, order: Order) -> None:
        waiting, order.waiting = order.waiting, set()
        for number in waiting:
            self.wake(number)


def _expected(step: Step) -> bytes:
    """What the reply must begin with: that of an add with its event, the same one when it repeats another with its key."""
    if step.command != ADD or step.recorded.status != 200:
        return expected_status(step.recorded.status)
    return OK + ADDED + (b"%d," % step.event.new_id if step.event is not None and step.event.new_id else b"")


def _renamed(step: Step, new_id: int) -> bytes:
    """The request with the event's new id."""
    data: dict[str, Any] = msgspec.json.decode(step.data, type=dict[str, Raw])
    if step.command == FILTER:
        data["after"] = {**msgspec.json.decode(data["after"]), "id": new_id}
    else:
        data["id"] = new_id
    return msgspec.json.encode(data)
