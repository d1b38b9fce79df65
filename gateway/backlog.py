"""What waits in all outboxes together, and whose clients are cut when it becomes too much.

An outbox with nothing to wait is no part of it, so that a client that reads at once costs nothing here.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from gateway.settings import Settings


class Waiting(Protocol):
    """What is asked of an outbox, which imports this file and so cannot be named here."""

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait for the client; none once its socket is ending."""
        ...

    def progressed(self) -> bool:
        """Whether the client has taken something since this was last asked, or had nothing to take."""
        ...

    def cut(self) -> None:
        """Ends the socket at once."""
        ...


class Backlog:
    """Counts outboxes in the order of their clients' last known progress: the one that took something last is the last."""

    def __init__(self, settings: Settings) -> None:
        self._bytes_max = settings.outbox_total_bytes_max
        self._counted: OrderedDict[Waiting, int] = OrderedDict()
        self.bytes = 0

    def __contains__(self, outbox: Waiting) -> bool:
        return outbox in self._counted

    def count(self, outbox: Waiting) -> None:
        """Counts an outbox anew; where that is too much for all together, cuts clients until it fits."""
        fresh = outbox.progressed() or outbox not in self._counted
        self._recount(outbox, progressed=fresh)
        chances = len(self._counted)
        while self.bytes > self._bytes_max:
            self._look_at_oldest(spare=chances > 0)
            chances -= 1
            if fresh and outbox in self._counted:
                self._counted.move_to_end(outbox)

    def _look_at_oldest(self, *, spare: bool) -> None:
        """Cuts the client without progress for longest, unless it has made some meanwhile and may be spared."""
        outbox = next(iter(self._counted))
        if outbox.progressed() and spare:
            self._recount(outbox, progressed=True)
        else:
            self.bytes -= self._counted.pop(outbox)
            outbox.cut()

    def _recount(self, outbox: Waiting, *, progressed: bool) -> None:
        waiting = outbox.waiting_bytes
        self.bytes += waiting - self._counted.get(outbox, 0)
        self._counted[outbox] = waiting
        if not waiting:
            del self._counted[outbox]
        elif progressed:
            self._counted.move_to_end(outbox)
