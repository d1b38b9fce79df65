"""Events that are added, changed and deleted under a load, and what the answers say that their rows may be in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from tests.faults.ledger import PARTICIPANTS, Truth

GONE = 0
"""The revision of an event without a row."""

_STORED = """
    SELECT customer_id AS mark, title, (SELECT count(*) FROM calendar_participant WHERE event_id = event.id) AS participants
    FROM calendar_event AS event WHERE created_by = $1
"""


class Life(Struct):
    """One event. `mark` is the `customer_id` by which its rows are known; each change writes a title of its own, a revision.

    `may_be` are the revisions that its row may have after the answers so far; `done` those that were acknowledged.
    """

    mark: int
    id: int = 0
    last: int = GONE
    may_be: set[int] = field(default_factory=lambda: {GONE})
    done: set[int] = field(default_factory=set)
    told: list[str] = field(default_factory=list)

    @property
    def lives(self) -> bool:
        """Whether it is certain to have a row, and which."""
        return len(self.may_be) == 1 and GONE not in self.may_be

    def revise(self) -> int:
        """The revision that its next change writes."""
        self.last += 1
        return self.last

    def broken(self, titles: list[str]) -> str:
        """Which promise rows with these titles break, if any."""
        revisions = {int(title.rpartition(" r")[2]) for title in titles} or {GONE}
        if revisions <= self.may_be:
            return ""
        return "lost" if revisions <= self.done | {GONE} else "denied"


def title_of(life: Life, revision: int) -> str:
    """What a row of that revision is called."""
    return f"e{life.mark} r{revision}"


class Lives:
    """All events in the order in which they were begun: the ledger of a mixed load."""

    def __init__(self, path: Path, manager_id: int) -> None:
        self.begun: list[Life] = []
        self.sent = self.acknowledged = self.unanswered = 0
        self._path = path
        self._manager_id = manager_id

    def begin(self) -> Life:
        """An event that is not there yet."""
        life = Life(len(self.begun) + 1)
        self.begun.append(life)
        return life

    def answer(self, life: Life, revision: int, reply: dict[str, Any] | None) -> None:
        """Notes the answer to what was to make this revision of the event; None is silence."""
        self.sent += 1
        self.unanswered += reply is None
        status, outcome = (reply["status"], reply.get("outcome", "")) if reply else (0, "unknown")
        life.told.append(f"r{revision} {status} {outcome}".strip())
        if status == 200:
            self.acknowledged += 1
            life.may_be = {revision}
            life.done.add(revision)
        elif outcome == "unknown":
            life.may_be.add(revision)

    async def reconcile(self, db: Any, bugs: int) -> Truth:
        """Holds what was told against the tables, and keeps it; `bugs` were answered with INTERNAL."""
        self._path.write_bytes(msgspec.json.Encoder().encode_lines(self.begun))
        rows: dict[int, list[Any]] = {}
        for row in await db.fetch(_STORED, self._manager_id):
            rows.setdefault(row["mark"], []).append(row)
        stored = [rows.pop(life.mark, []) for life in self.begun]
        broken = [life.broken([row["title"] for row in found]) for life, found in zip(self.begun, stored, strict=True)]
        return Truth(
            sent=self.sent,
            acknowledged=self.acknowledged,
            lost=broken.count("lost"),
            doubled=sum(len(found) > 1 for found in stored),
            torn=sum(any(row["participants"] != len(PARTICIPANTS) for row in found) for found in stored),
            denied=broken.count("denied"),
            late=0,
            strange=sum(map(len, rows.values())),
            bugs=bugs,
        )
