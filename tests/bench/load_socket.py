"""A WebSocket client that costs next to nothing: frames prepared beforehand, replies measured but not parsed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import cast

HEAD_BYTES = 256
"""What is kept of a message, to see the status."""
_PONG = b"\x8a\x80\0\0\0\0"
_GOOD_BYE = b"\x88\x82\0\0\0\0\x03\xe8"
CLOSE_SECONDS = 2
_CONTROL = 0x8
_CLOSE, _PING = 0x8, 0x9

Answered = Callable[["LoadSocket", bytes, int], None]


def framed(text: bytes) -> bytes:
    """A text frame with the mask 0, which leaves the text as it is."""
    size = len(text)
    if size < 126:
        return bytes((0x81, 0x80 | size)) + b"\0\0\0\0" + text
    if size < 65_536:
        return b"\x81\xfe" + size.to_bytes(2) + b"\0\0\0\0" + text
    return b"\x81\xff" + size.to_bytes(8) + b"\0\0\0\0" + text


class LoadSocket(asyncio.Protocol):
    """Calls `answered` with the head and the size of each message, and `hung_up` when the connection has ended."""

    def __init__(self, token: str, answered: Answered, hung_up: Callable[[], None]) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lost = asyncio.Event()
        self.write: Callable[[bytes], object]
        self._token = token
        self._answered = answered
        self._hung_up = hung_up
        self._buffer = b""
        self._missing = 0
        self._frame_first = 0
        self._head = b""
        self._size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own class
        self.write = self.transport.write
        proof = f"Authorization: Bearer {self._token}\r\n" if self._token else ""
        self.write(
            "GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: YmVuY2htYXJrIHNvY2tldA==\r\nSec-WebSocket-Version: 13\r\n{proof}\r\n".encode()
        )

    async def close(self) -> None:
        """Says good-bye and waits for the server to hang up, for a while."""
        if not self._lost.is_set():
            self.write(_GOOD_BYE)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), CLOSE_SECONDS)
        self.transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        self._lost.set()
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("the server hung up"))
        else:
            self._hung_up()

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            data = self._upgraded(data)
        if self._missing:
            data = self._go_on(data)
        elif self._buffer:
            data = self._buffer + data
            self._buffer = b""
        while data:
            data = self._begin(data)

    def _upgraded(self, data: bytes) -> bytes:
        head, end, rest = (self._buffer + data).partition(b"\r\n\r\n")
        self._buffer = b"" if end else head
        if end and head.startswith(b"HTTP/1.1 101"):
            self.opened.set_result(None)
        elif end:
            self.opened.set_exception(ConnectionError(head.decode(errors="replace")))
        return rest if end else b""

    def _go_on(self, data: bytes) -> bytes:
        """More of the payload that the last chunk did not end."""
        took = min(self._missing, len(data))
        if len(self._head) < HEAD_BYTES:
            self._head += data[: min(took, HEAD_BYTES)]
        self._missing -= took
        if self._missing == 0:
            self._ended()
        return data[took:]

    def _begin(self, data: bytes) -> bytes:
        """Takes one frame from the start of the data, whole or in part; returns what is behind it."""
        available = len(data)
        start = 2
        size = data[1] & 0x7F if available > 1 else 0
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start])
        if available < start:
            self._buffer = data
            return b""
        self._frame_first = data[0]
        if not data[0] & _CONTROL:
            if data[0] & 0xF:
                self._head, self._size = data[start : min(start + size, start + HEAD_BYTES)], 0
            self._size += size
        end = start + size
        if end > available:
            self._missing = end - available
            return b""
        self._ended()
        return data[end:] if end < available else b""

    def _ended(self) -> None:
        opcode = self._frame_first & 0xF
        if opcode == _PING:
            self.write(_PONG)
        elif opcode == _CLOSE:
            self.transport.close()
        elif not opcode & _CONTROL and self._frame_first & 0x80:
            self._answered(self, self._head, self._size)
