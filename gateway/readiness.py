"""Whether the database lets commands be served, which is what `/readyz` asks. The page itself is in handshake.py."""

from __future__ import annotations

import time

from gateway import schema
from gateway.database import Database, Statement
from gateway.errors import CommandError

READY_CACHE_SECONDS = 0.5
"""How old the answer of `/readyz` may be: whoever asks often costs the database nothing."""
_VERSION = Statement("SELECT coalesce(max(version), 0) AS version FROM schema_version", writes=False)


class Readiness:
    """Asks the database, and remembers for a moment what it said."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: tuple[float, str | None] = (-READY_CACHE_SECONDS, None)

    async def what_is_wrong(self) -> str | None:
        """What keeps the gateway from serving commands, or None."""
        asked_at, wrong = self._known
        if time.monotonic() - asked_at >= READY_CACHE_SECONDS:
            wrong = await self._ask()
            self._known = (time.monotonic(), wrong)
        return wrong

    async def _ask(self) -> str | None:
        # A newer schema is right: it has been applied for the next gateway, and until that serves there must be this one.
        try:
            row = await self._db.fetch_row(_VERSION)
        except CommandError as error:
            return error.message
        if row is None or row["version"] < schema.current_version():
            return "the database schema is older than this gateway's"
        if self._db.refuses_writes():
            return "the database takes no writes"
        return None
