"""Reads of many events: the rows of a filter, at once or as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, aclosing

from gateway.access import Access
from gateway.calendar_store.event_filter import BYTES_AT_ONCE_MAX, EventFilter, statement_of
from gateway.database import Database, Row
from gateway.errors import CommandError, no_service
from gateway.fair_share import FairShare
from gateway.identity import Identity
from gateway.sessions import Sessions
from gateway.settings import Settings
from gateway.turns import Turns
from gateway.wire import Streamed

ROWS_AT_ONCE_MAX = 500
"""Rows that are fetched in one go, some 400 KB; more are streamed, on a connection of their own."""
ROOM_SECONDS = 3.0
"""How long a page waits for those before it on its socket, and then until so much of them is taken that it has room."""
TURN_SECONDS = 4.0
"""How long a stream waits for those before it on its socket, and again for its manager's.

A page that becomes a stream may have all four waits and the database's: clients give up after 30 seconds.
"""
PIECE_CHARS = 262_144
"""Of a stream, handed over at once: as many rows as make that; those of one batch could be 50 MB, more than may wait."""

PARTICIPANT_BYTES, OTHER_BYTES = 160, 1024
"""Of a participant, and of an event's other fields, as JSON at most, with every number at its longest."""


class EventReader:
    """Reads events that overlap a time, in the order of start and id."""

    def __init__(self, db: Database, sessions: Sessions, fair_share: FairShare, settings: Settings) -> None:
        self._db = db
        self._sessions = sessions
        self._fair_share = fair_share
        self._few_rows = BYTES_AT_ONCE_MAX // row_bytes_max(settings)
        self._pages: Turns[Identity, None] = Turns(ROOM_SECONDS, _too_many_pages)
        self._turns: Turns[Identity | int, None] = Turns(TURN_SECONDS, _too_many_streams)

    async def page(self, access: Access, wanted: EventFilter, reader: Identity) -> list[str] | None:
        """The rows as JSON, one more than the limit if there are more; None when they are too many to hold at once.

        Pages that may be large are read one at a time for each reader, once there is room for the largest.
        Raises StaleAccessError.
        """
        rows_max = min(wanted.limit, ROWS_AT_ONCE_MAX) + 1
        if rows_max <= self._few_rows:  # they are never too many, and adding them up would take a twentieth of their time
            return await self._page(access, wanted, rows_max, adds_up=False)
        async with AsyncExitStack() as held:
            with self._fair_share.aside(access.manager_id):
                await held.enter_async_context(self._pages.of(reader))
                try:
                    async with asyncio.timeout(ROOM_SECONDS):
                        await reader.room(BYTES_AT_ONCE_MAX)
                except TimeoutError:
                    raise _too_many_streams() from None
            _require_client(reader)
            return await self._page(access, wanted, rows_max, adds_up=True)

    async def _page(self, access: Access, wanted: EventFilter, rows_max: int, *, adds_up: bool) -> list[str] | None:
        rows = await self._db.fetch(*statement_of(access, wanted, rows_max, adds_up=adds_up))
        if not rows:
            await self._sessions.confirm(access)
        if len(rows) > ROWS_AT_ONCE_MAX and wanted.limit > ROWS_AT_ONCE_MAX:
            return None
        if adds_up and rows and rows[-1]["over"]:
            return None
        return [row["event"] for row in rows]

    async def stream(self, access: Access, wanted: EventFilter, reader: Identity) -> Streamed:
        """The same page as pieces of JSON, from one snapshot. Raises StaleAccessError.

        A reader has one stream at a time, as what could not be written yet holds no database connection; and so has a
        manager, whose readers would take every place.
        """
        batches = self._batches(access, wanted, reader)
        try:
            with self._fair_share.aside(access.manager_id):
                first: list[Row] = await anext(batches, [])
                if not first:
                    await self._sessions.confirm(access)
        except BaseException:
            await batches.aclose()
            raise
        return Streamed(b'{"rows":[', _rest(first, batches, wanted.limit), batches)

    async def _batches(self, access: Access, wanted: EventFilter, reader: Identity) -> AsyncGenerator[list[Row], None]:
        """The rows, from the reader's turn and the manager's on, which end with the generator.

        The reader's comes first: a manager's turn must not wait for what another manager asked for on the same socket.
        """
        async with self._turns.of(reader), self._turns.of(access.manager_id):
            _require_client(reader)
            async with aclosing(self._db.stream(*statement_of(access, wanted, wanted.limit + 1))) as batches:
                async for batch in batches:
                    yield batch


def row_bytes_max(settings: Settings) -> int:
    """The largest event as JSON: of a title each character may be an escape."""
    return settings.body_bytes_max + settings.participants_max * PARTICIPANT_BYTES + 6 * settings.title_chars_max + OTHER_BYTES


async def _rest(batch: list[Row], batches: AsyncGenerator[list[Row], None], limit: int) -> AsyncGenerator[bytes, None]:
    """The rows of the first batch and of those behind it, and the end of the page."""
    sent, comma = 0, b""
    while batch:
        for piece in _pieces(batch[: max(0, limit - sent)]):
            yield comma + piece
            comma = b","
        sent += len(batch)
        batch = await anext(batches, [])
    yield b'],"count":%d,"has_more":%s}' % (min(sent, limit), b"true" if sent > limit else b"false")


def _require_client(reader: Identity) -> None:
    """Raises CommandError when nobody would read what is about to be fetched."""
    if reader.gone:
        raise no_service("the client has left")


def _too_many_pages() -> CommandError:
    return no_service("too many large pages were asked for before this one on its socket")


def _too_many_streams() -> CommandError:
    return no_service("large replies before this one, on its socket or of its manager, are not read yet")


def _pieces(rows: list[Row]) -> Iterator[bytes]:
    """The rows, joined as far as they make a piece."""
    piece: list[str] = []
    chars = 0
    for row in rows:
        piece.append(row["event"])
        chars += len(row["event"])
        if chars >= PIECE_CHARS:
            yield ",".join(piece).encode()
            piece, chars = [], 0
    if piece:
        yield ",".join(piece).encode()
