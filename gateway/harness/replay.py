"""The source of `gateway replay`: sends a recording again, with the new ids of the events it adds."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from gateway.harness.kinds import Job, Kinds, expected_status, new_event_id
from gateway.harness.stream import FILTER, RecordedEvent, Step, Stream

NOT_ADDED = "its event was not added this time"
STOPPED = "stopped before it was sent"
NO_MANAGER = "its manager is not known here"


class Replay:
    """Each connection's commands go in the recorded order.

    One that names an event waits until the commands before it that name the same event were sent, and, unless they are
    on the same connection, answered: so the recorded outcome is what must come again. That never locks: the earliest
    command unsent waits for replies alone. `wake`, set by whoever runs it, is told which connection may go
    on; it must not send at once.
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
        self._queues: list[deque[tuple[Step, float]]] = [deque() for _ in range(connections)]
        self._skipped = Counter(stream.skipped)
        self._unsent = len(stream.steps)

    def fill(self) -> None:
        """Everything is to be sent as fast as replies come."""
        for step in self._steps:
            self._queues[step.connection % self._connections].append((step, 0.0))

    def times(self, scale: Callable[[int, Step], float]) -> Iterator[tuple[float, int, Callable[[float], None]]]:
        """When each command is due, as the run wants it; `scale` gives the seconds from a command's number and step."""
        for number, step in enumerate(self._steps):
            at = step.connection % self._connections
            queue = self._queues[at]
            yield scale(number, step), at, lambda due, step=step, queue=queue: queue.append((step, due))  # type: ignore[misc]

    def stop(self) -> int:
        for queue in self._queues:
            queue.clear()
        unsent, self._unsent = self._unsent, 0
        if unsent:
            self._skipped[STOPPED] += unsent
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
        for step, _ in unsent:
            if step.event is not None:
                step.event.failed = step.event.failed or step.adds
                self._pass_turn(step.event)
        return len(unsent)

    def take(self, number: int) -> Job | None:
        queue = self._queues[number]
        while queue:
            step, due = queue[0]
            event = step.event
            if event is not None and not self._may_go(step, event, number):
                event.waiting.add(number)
                return None
            queue.popleft()
            self._unsent -= 1
            if step.manager and step.manager not in self._tokens:
                self._leave_out(step, NO_MANAGER)
            elif event is not None and event.failed:
                self._leave_out(step, NOT_ADDED)
            else:
                return self._job(step, due or time.perf_counter(), number)
        return None

    def answered(self, job: Job, message: bytes, *, ok: bool) -> None:
        if job.ref is None:
            return
        step, event = job.ref
        if step.adds:
            event.new_id = new_event_id(message) if ok else 0
            event.failed = not event.new_id
        event.busy -= 1
        self._wake(event)

    def lost(self, job: Job) -> None:
        if job.ref is not None:
            step, event = job.ref
            event.failed = event.failed or step.adds
            event.busy -= 1
            self._wake(event)

    def _may_go(self, step: Step, event: RecordedEvent, number: int) -> bool:
        if event.turn != step.turn:
            return False
        if not step.adds and not event.new_id and not event.failed:
            return False
        return event.busy == 0 or event.connection == number

    def _leave_out(self, step: Step, reason: str) -> None:
        self._skipped[reason] += 1
        if step.event is not None:
            step.event.failed = step.event.failed or step.adds
            self._pass_turn(step.event)

    def _job(self, step: Step, due: float, number: int) -> Job:
        event = step.event
        tail = b',"data":' + (step.data if event is None or step.adds else _renamed(step, event.new_id))
        if step.manager and step.manager != self._manager_of(number):
            tail += b',"__token":"' + self._tokens[step.manager].encode() + b'"'
        job = Job(self._kinds[step.command], tail + b"}", due, expected_status(step.status))
        if event is not None:
            job.ref = (step, event)
            event.busy += 1
            event.connection = number
            self._pass_turn(event)
        return job

    def _pass_turn(self, event: RecordedEvent) -> None:
        event.turn += 1
        self._wake(event)

    def _wake(self, event: RecordedEvent) -> None:
        waiting, event.waiting = event.waiting, set()
        for number in waiting:
            self.wake(number)


def _renamed(step: Step, new_id: int) -> bytes:
    """The request with the event's new id."""
    data: dict[str, Any] = msgspec.json.decode(step.data, type=dict[str, Raw])
    if step.command == FILTER:
        data["after"] = {**msgspec.json.decode(data["after"]), "id": new_id}
    else:
        data["id"] = new_id
    return msgspec.json.encode(data)
