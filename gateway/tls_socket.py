"""A socket by TLS, which hands over what is written to it piece by piece, so that what waits stays in sight.

The TLS of asyncio and of uvloop passes all that it holds to the TCP transport beneath it as soon as that takes anything, and
counts it no more: of megabytes that a client does not read it says that none wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

from gateway.watched_socket import WatchedSocket

PIECE_BYTES = 65_536
"""As much as the TCP transport takes before it has enough; of a client that does not read some three are out of sight."""


class InPieces:
    """A transport that is given a piece only while it takes them, and holds the rest here. All else is that transport's own."""

    def __init__(self, transport: Any) -> None:
        self.paused = False
        self._transport = transport
        self._held: deque[memoryview] = deque()
        self._held_bytes = 0
        self._closing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Hands over as much as is taken now."""
        self._held.append(memoryview(data))
        self._held_bytes += len(data)
        self.go_on()

    def get_write_buffer_size(self) -> int:
        """What waits here and in the transport; what the transport has passed on is in nobody's sight."""
        return self._held_bytes + int(self._transport.get_write_buffer_size())

    def is_closing(self) -> bool:
        """Whether it is to end, if only behind what is held."""
        return self._closing or bool(self._transport.is_closing())

    def close(self) -> None:
        """Ends it once all is handed over."""
        self._closing = True
        self.go_on()

    def abort(self) -> None:
        """Ends it now."""
        self.drop()
        self._transport.abort()

    def drop(self) -> None:
        """Forgets what is held: nobody will take it."""
        self._held.clear()
        self._held_bytes = 0

    def hand_over(self) -> None:
        """Hands over all that is held, however much the transport has: it will soon take nothing more."""
        while self._held:
            held = self._held.popleft()
            self._held_bytes -= len(held)
            self._transport.write(held)

    def go_on(self) -> None:
        """Hands over piece by piece until the transport has enough.

        One that ends takes nothing more, and must not be closed twice: that of asyncio then fails at all it is asked.
        """
        if self._transport.is_closing():
            self.drop()
            return
        while self._held and not self.paused:
            data = self._held.popleft()
            if len(data) > PIECE_BYTES:
                self._held.appendleft(data[PIECE_BYTES:])
                data = data[:PIECE_BYTES]
            self._held_bytes -= len(data)
            self._transport.write(data)
        if self._closing and not self._held:
            self._transport.close()


class TlsSocket(WatchedSocket):
    """As any other, but for how it writes. Its user may write again only when nothing is held."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Puts the pieces between the library and the transport."""
        self._in_pieces = InPieces(transport)
        super().connection_made(cast(asyncio.Transport, self._in_pieces))

    def pause_writing(self) -> None:
        """The transport has enough; whoever waits for it already need not be told again."""
        self._in_pieces.paused = True
        if not self.paused:
            super().pause_writing()

    def resume_writing(self) -> None:
        """The transport takes more, first of what is held."""
        self._in_pieces.paused = False
        self._in_pieces.go_on()
        if self._in_pieces.paused:
            self.backlog_changed()
        else:
            super().resume_writing()

    def eof_received(self) -> None:
        """A client that ends its own side, and no more, still gets what is held; TLS ends the other side behind this."""
        self._in_pieces.hand_over()
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is held for a client that is gone."""
        self._in_pieces.drop()
        super().connection_lost(exc)
