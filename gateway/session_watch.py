"""Closes the sockets of sessions that have ended elsewhere: revoked, removed, or of a manager who was disabled."""

from __future__ import annotations

import asyncio
from itertools import islice

import asyncpg

from gateway.connection import Connection
from gateway.errors import CloseCode, CommandError
from gateway.log import Logger, place_of
from gateway.sessions import Sessions
from gateway.tokens import Session

WATCH_SECONDS = 0.25
"""How often the database is asked whether anything has changed, by one tiny statement; a quarter of what is promised."""
ASKED_AT_ONCE = 500
"""Sessions in one statement; some 2 ms of PostgreSQL's time, and other work gets its turn between two."""

SLICE = 200
"""Sockets closed before other work gets its turn; some 10 ms."""


class SessionWatch:
    """Asks about every open session once after it became a socket's, and again whenever the access epoch has moved.

    The first makes good what ended between the proof and the socket's taking it. While the database cannot say, nobody is
    closed.
    """

    def __init__(self, connections: set[Connection], sessions: Sessions, logger: Logger) -> None:
        self._connections = connections
        self._sessions = sessions
        self._logger = logger
        self._epoch = 0
        self._live: set[Session] = set()
        self._blind = False

    async def watch_forever(self) -> None:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self.look()
            except (CommandError, asyncpg.PostgresError) as error:
                if not self._blind:
                    self._logger.warning("ended sessions cannot be looked for", **place_of(error))
                self._blind = True
            else:
                self._blind = False

    async def look(self) -> None:
        """Looks once. Raises CommandError, or PostgreSQL's own error, when the database cannot say."""
        epoch = await self._sessions.current_epoch()
        if epoch != self._epoch:
            self._live.clear()
            self._epoch = epoch
        opened = {session for c in self._connections if (session := c.identity.session)}
        self._live &= opened
        unsure = iter(opened - self._live)
        while batch := list(islice(unsure, ASKED_AT_ONCE)):
            ended = await self._sessions.ended_of(batch)
            self._live.update(session for session in batch if session not in ended)
            if ended:
                await self._close(ended)

    async def _close(self, ended: set[Session]) -> None:
        for number, connection in enumerate(tuple(self._connections), start=1):
            if connection.identity.session in ended:
                connection.end(CloseCode.SESSION_ENDED, "the session is over: sign in again")
            if number % SLICE == 0:
                await asyncio.sleep(0)
