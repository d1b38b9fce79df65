"""What waits to be read by one client: writes messages whole or in pieces, in bounds, and tells when nothing is taken."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

from websockets.exceptions import ConnectionClosed
from websockets.protocol import OPEN

from gateway.backlog import Backlog
from gateway.errors import CloseCode, CommandError
from gateway.frames import text_frame
from gateway.settings import Settings
from gateway.watched_socket import WatchedSocket
from gateway.wire import Streamed

ROOM_SHARE = 4
"""Of what a large message leaves free, one part in so many may wait before it: the rest is for replies that come meanwhile."""


class Outbox:
    """Writes to a socket. Once the client falls too far behind, nothing more is written and `overdue` is true.
    `full` says that a message was dropped.

    A message in pieces cannot be interrupted, so that messages behind it wait for its end.
    """

    def __init__(self, socket: WatchedSocket, settings: Settings, backlog: Backlog) -> None:
        self._socket = socket
        self._backlog = backlog
        socket.backlog_changed = self._count
        self._bytes_max = settings.outbox_bytes_max
        self._stall_seconds = settings.outbox_stall_seconds
        self._stream_seconds = settings.stream_seconds
        self.full = False
        self._unflushed_bytes = 0
        self._streaming = asyncio.Lock()
        self._behind: list[bytes] = []
        self._behind_bytes = 0
        self._taken_bytes = 0
        self._progress_at = self._streaming_since = socket.loop.time()

    def write(self, payload: bytes, *, last: bool = False) -> None:
        """Writes a message now, or behind the one in pieces; drops it when the client is too far behind.

        Messages written in one turn of the event loop leave together at its end; `last` says that no other will follow.
        """
        socket = self._socket
        if socket.protocol.state is not OPEN:
            return
        if self._all_waiting() + len(payload) > self._bytes_max:
            self.full = True
        elif self._streaming.locked():
            self._behind.append(payload)
            self._behind_bytes += len(payload)
            self._count()
        else:
            socket.protocol.writes.append(text_frame(payload))
            if last and not self._unflushed_bytes:
                socket.send_data()
                return
            if not self._unflushed_bytes:
                socket.loop.call_soon(self._flush)
            self._unflushed_bytes += len(payload)

    async def stream(self, streamed: Streamed) -> None:
        """Writes a message in pieces, each once the client has taken enough of those before; frees what feeds it.

        When the pieces end early the library closes the socket with 1011: half a message cannot be taken back.
        """
        async with aclosing(streamed), self._streaming:
            self._streaming_since = self._socket.loop.time()
            with suppress(ConnectionClosed, OSError, CommandError):
                await self._socket.send(streamed.pieces(), text=True)
        self._write_behind()

    async def room(self, size: int) -> None:
        """Returns once so large a message may be written, and others beside it, or little waits, or the client is gone."""
        most = max(0, self._bytes_max - size) // ROOM_SHARE
        while self._all_waiting() > most and not self._socket.transport.is_closing():
            if self._behind and self._streaming.locked():
                async with self._streaming:
                    pass
            elif self._unflushed_bytes:
                await asyncio.sleep(0)  # it is handed over at the end of this turn of the event loop
            elif self._socket.paused:
                with suppress(OSError):
                    await self._socket.drain()
            else:
                return

    def piles_up(self) -> bool:
        """Whether more waits for the client than it takes; behind a message in pieces that is only to be expected."""
        return self._socket.paused and not self._streaming.locked()

    def overdue(self, now: float) -> bool:
        """Whether the client is too far behind, has taken nothing of what waits for it for too long, or takes a message in
        pieces for too long.
        """
        waiting = self._socket.transport.get_write_buffer_size()
        if waiting or self in self._backlog:
            self._count()
        else:
            self._progress_at = now
        if self._streaming.locked() and now - self._streaming_since > self._stream_seconds:
            return True
        # Pongs are written unasked, so that a flood of pings is what fills an outbox past its limit.
        return self.full or waiting > self._bytes_max or now - self._progress_at > self._stall_seconds

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the client has yet to take; none once its socket is ending."""
        transport = self._socket.transport
        return 0 if transport.is_closing() else transport.get_write_buffer_size() + self._behind_bytes

    def progressed(self) -> bool:
        """Whether the client has taken something since this was last asked, or had nothing to take."""
        waiting = self._socket.transport.get_write_buffer_size()
        taken = self._socket.written_bytes - waiting
        if waiting and taken <= self._taken_bytes:
            self._taken_bytes = taken  # by TLS more waits than was written, so that each write makes this less
            return False
        self._taken_bytes, self._progress_at = taken, self._socket.loop.time()
        return True

    def cut(self) -> None:
        """Ends the socket without a try at a closing handshake: others need the memory now."""
        if self._socket.state is OPEN:
            self._socket.closed_with = CloseCode.TOO_SLOW
        self._socket.drop_messages()
        self._socket.transport.abort()

    def _all_waiting(self) -> int:
        return self._socket.transport.get_write_buffer_size() + self._unflushed_bytes + self._behind_bytes

    def _count(self) -> None:
        self._backlog.count(self)

    def _flush(self) -> None:
        """Hands over what was written since the event loop's last turn: replies that come together leave together."""
        self._unflushed_bytes = 0
        if not self._socket.transport.is_closing():
            self._socket.send_data()

    def _write_behind(self) -> None:
        behind, self._behind, self._behind_bytes = self._behind, [], 0
        self._count()
        for payload in behind:
            self.write(payload)
