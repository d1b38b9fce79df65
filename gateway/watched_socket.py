"""A websockets server connection that remembers when it last heard from its client and when a message began to arrive."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import OPEN, SEND_EOF

from gateway.errors import CloseCode

KERNEL_SEND_BYTES = 65_536
"""Replies that the kernel takes over for a client that does not read; left to itself it takes megabytes."""
NORMAL, NO_STATUS, NO_CLOSE = 1000, 1005, 1006
"""A client that is done; one that gives no code; no close from either side."""
COUNTED_CODES = frozenset((*CloseCode, NORMAL, NO_STATUS, NO_CLOSE))
"""A client may close with any of 2,000 codes, and each counted would be a series of its own."""


class WatchedSocket(ServerConnection):
    """Times are of the event loop's clock, in seconds.

    `heard_at`: when the last byte came. `written_bytes`: all that was handed to the transport, control frames included.
    `closed_with`: the code that the gateway chose to close with, also when the client never took it.
    `begun_at`: since when a message is incomplete, or None. A chunk that ends within
    the header of a frame, right behind a complete one, goes unnoticed until the next byte: the pong limit covers it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heard_at = self.loop.time()
        self.begun_at: float | None = None
        self.closed_with: CloseCode | None = None
        self.written_bytes = 0
        self._frames = 0
        self._messages = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the kernel's share of the outbox small, so that a client that does not read shows soon."""
        raw: socket.socket | None = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_SEND_BYTES)
        super().connection_made(transport)

    async def handshake(self, *args: Any, **kwargs: Any) -> None:
        """As the library's, which leaves the socket open when it is cancelled."""
        try:
            await super().handshake(*args, **kwargs)
        except asyncio.CancelledError:
            self.transport.abort()
            raise

    def send_data(self) -> None:
        """Counts what leaves, then hands it to the transport in one piece: each would cost a system call."""
        writes = self.protocol.writes
        if len(writes) > 1 and SEND_EOF not in writes:
            self.protocol.writes = writes = [b"".join(writes)]
        self.written_bytes += sum(map(len, writes))
        super().send_data()

    def data_received(self, data: bytes) -> None:
        """Feeds the protocol, then notes whether a message is left incomplete, and since when."""
        frames, messages = self._frames, self._messages
        super().data_received(data)
        self.heard_at = self.loop.time()
        protocol = self.protocol
        incomplete = protocol.current_size is not None or protocol.reader.buffer or self._frames == frames
        if not incomplete or protocol.state is not OPEN:
            self.begun_at = None
        elif self.begun_at is None or self._messages != messages:
            self.begun_at = self.heard_at

    def process_event(self, event: Any) -> None:
        """Counts frames, and the messages they end."""
        self._frames += 1
        if isinstance(event, Frame) and event.fin and event.opcode in DATA_OPCODES:
            self._messages += 1
        super().process_event(event)

    def ending(self) -> tuple[str, str]:
        """How the socket ended, for the metrics: the close code, or `other`, and by whom: `gateway`, `client`, `nobody`."""
        sent, received = self.protocol.close_sent, self.protocol.close_rcvd
        if self.closed_with is not None:
            code, by = int(self.closed_with), "gateway"
        elif received is not None and (sent is None or self.protocol.close_rcvd_then_sent):
            code, by = received.code, "client"
        elif sent is not None:  # by the library
            code, by = sent.code, "gateway"
        else:
            code, by = NO_CLOSE, "nobody"
        return (str(int(code)) if code in COUNTED_CODES else "other"), by

    def stand_still(self) -> None:
        """Starts the timers anew: the gateway itself did not read, so the client cannot be blamed for silence."""
        self.heard_at = self.loop.time()
        if self.begun_at is not None:
            self.begun_at = self.heard_at
