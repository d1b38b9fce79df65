"""Event ids that nobody else has, taken from the sequence in blocks: an add then needs one round trip."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

import asyncpg

from gateway.database import Database, Statement
from gateway.errors import CommandError
from gateway.turns import Question

BLOCK = 500
"""Ids taken at once; a restart leaves a gap of at most these."""
LOW = BLOCK // 2
"""Left when the next block is taken: at twenty thousand adds a second they last longer than that takes."""

_TAKE_IDS = Statement("SELECT nextval('calendar_event_id') AS id FROM generate_series(1, $1)", writes=False)

STATEMENTS = (_TAKE_IDS,)


class EventIds:
    """Takes the next block before the last id is used; only one block is asked for at a time, however many wait for it."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._ids: deque[int] = deque()
        self._asked = Question()
        self._low = asyncio.Event()

    async def take(self) -> int:
        """An id that was never given before. Raises CommandError when the database gives none."""
        if len(self._ids) <= LOW:
            self._low.set()
        while not self._ids:
            await self._ask(1)
        return self._ids.popleft()

    async def refill_forever(self) -> None:
        """Asks for a block whenever few are left; where that fails, whoever needs an id asks again and is told."""
        while True:
            await self._low.wait()
            self._low.clear()
            with suppress(CommandError, asyncpg.PostgresError):
                await self._ask(LOW)

    async def _ask(self, enough: int) -> None:
        """Asks for a block unless somebody else has, and so many are there."""
        async with self._asked:
            if len(self._ids) < enough:
                self._ids.extend(row["id"] for row in await self._db.fetch(_TAKE_IDS, BLOCK))
