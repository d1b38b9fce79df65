"""Every command that was sent and what was answered to it, to be held against the tables afterwards."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

PARTICIPANTS = (10, 11, 12)
"""Of each event that is added: fewer in the table mean that it is torn."""

_STORED = """
    SELECT title, array_agg(participants::int) AS participants FROM (
        SELECT title, (SELECT count(*) FROM calendar_participant WHERE event_id = event.id) AS participants
        FROM calendar_event AS event
    ) AS counted GROUP BY title
"""


class Entry(Struct):
    """One add. `status` is 0 while no answer came, and `closed` then is the code that its socket ended with."""

    title: str
    sent_at: float
    answered_at: float = 0.0
    status: int = 0
    error: str = ""
    outcome: str = ""
    closed: int = 0


class Truth(NamedTuple):
    """What the tables say of a ledger's commands."""

    sent: int
    acknowledged: int
    lost: int
    """acknowledged and not there"""
    doubled: int
    torn: int
    denied: int
    """`not_executed` and there all the same"""
    late: int
    """unanswered on a socket closed with 1012, and there all the same"""
    strange: int
    """there, and never sent"""
    bugs: int
    """answered with INTERNAL"""

    @property
    def holds(self) -> bool:
        """Whether no promise is broken, by a run that did something."""
        return self.acknowledged > 0 and not any(self[2:])

    def __str__(self) -> str:
        return (
            f"{self.acknowledged:,} of {self.sent:,} acknowledged; {self.lost} lost, {self.doubled} doubled, {self.torn} torn, "
            f"{self.denied + self.late} there against their answer, {self.bugs} INTERNAL"
        )


class Ledger:
    """The entries in the order sent."""

    def __init__(self, path: Path) -> None:
        self.entries: dict[str, Entry] = {}
        self.acknowledged = 0
        self._path = path
        self._numbers = itertools.count(1)

    def send(self) -> Entry:
        """A new command, sent now."""
        title = f"e{next(self._numbers):06}"
        entry = self.entries[title] = Entry(title, time.monotonic())
        return entry

    def answer(self, entry: Entry, reply: dict[str, Any]) -> None:
        """Notes the answer."""
        entry.answered_at = time.monotonic()
        entry.status, entry.error, entry.outcome = reply["status"], reply.get("error", ""), reply.get("outcome", "")
        self.acknowledged += entry.status == 200

    def keep(self) -> None:
        """Writes the raw ledger, a line an entry."""
        self._path.write_bytes(msgspec.json.Encoder().encode_lines(list(self.entries.values())))

    async def reconcile(self, db: Any) -> Truth:
        """Holds the ledger against the tables, and keeps it."""
        self.keep()
        stored = {row["title"]: row["participants"] for row in await db.fetch(_STORED)}
        entries = self.entries.values()
        there = [entry for entry in entries if entry.title in stored]
        return Truth(
            sent=len(self.entries),
            acknowledged=self.acknowledged,
            lost=sum(entry.status == 200 for entry in entries if entry.title not in stored),
            doubled=sum(len(counts) > 1 for counts in stored.values()),
            torn=sum(any(count != len(PARTICIPANTS) for count in counts) for counts in stored.values()),
            denied=sum(entry.outcome == "not_executed" for entry in there),
            late=sum(entry.status == 0 and entry.closed == 1012 for entry in there),
            strange=len(stored.keys() - self.entries.keys()),
            bugs=sum(entry.status == 500 for entry in entries),
        )


def counted(entries: list[Entry]) -> str:
    """The answers by kind."""
    found: dict[str, int] = {}
    for entry in entries:
        kind = f"{entry.status} {entry.error} {entry.outcome}".strip() if entry.status else f"closed {entry.closed}"
        found[kind] = found.get(kind, 0) + 1
    return ", ".join(f"{kind}: {count:,}" for kind, count in sorted(found.items()))
