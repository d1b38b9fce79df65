"""In which order recorded commands are sent again where that matters: those on one event, and those with one key."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping

from gateway.capture import Line


class Order:
    """Commands that must keep their order. Each has a place in it, and goes when those before it are answered for good.

    So one that the gateway puts off (429, 503) is overtaken by none of them. Reads go along with reads.
    `waiting`: connections that are to be told when something changes.
    """

    __slots__ = ("_done", "_in_flight", "_places", "_reading", "_turn", "waiting")

    def __init__(self) -> None:
        self._places = 0
        self._turn = 0
        self._done: set[int] = set()
        self._in_flight = 0
        self._reading = False
        self.waiting: set[int] = set()

    def place(self) -> int:
        """The place of the next command in it."""
        self._places += 1
        return self._places - 1

    def lets_go(self, place: int, *, reads: bool) -> bool:
        """Whether the command at that place may be sent now."""
        return place == self._turn and (not self._in_flight or (reads and self._reading))

    def sent(self, place: int, *, reads: bool) -> None:
        """The command is on its way; `ended` follows."""
        self._in_flight += 1
        self._reading = reads
        self.pass_over(place)

    def ended(self) -> None:
        """A command that was sent was answered for good, or will not be."""
        self._in_flight -= 1

    def pass_over(self, place: int) -> None:
        """Nobody waits for that place any more, whether its turn has come or not."""
        self._done.add(place)
        while self._turn in self._done:
            self._done.remove(self._turn)
            self._turn += 1


class RecordedEvent(Order):
    """An event that the stream added. `new_id` is its id in this run, once an add of it was answered."""

    __slots__ = ("new_id",)

    def __init__(self) -> None:
        super().__init__()
        self.new_id = 0


class RecordedKey(Order):
    """An idempotencyKey of one manager. `name` is how it is told from others in a run."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


def in_order(lines: Mapping[int, Line]) -> Iterator[int]:
    """The numbers of the lines, those of each connection as they were read, and connections among each other by their replies.

    A file is in the order of the replies, which shows better than when a frame was read which of two was executed first.
    One answered behind others that its connection sent later counts as answered before them.
    """
    unread: dict[int, deque[int]] = defaultdict(deque)
    for number in sorted(lines, key=lambda number: lines[number].time):
        unread[lines[number].connection].append(number)
    passed: set[int] = set()
    for number, line in lines.items():
        queue = unread[line.connection]
        while number not in passed:
            passed.add(queue[0])
            yield queue.popleft()
