"""A websockets server connection that hands messages over as they arrive, and remembers when it last heard from its client.

The frames that nearly all clients send, a whole text in one frame, are taken apart here, in a tenth of the library's time; any
other byte goes through the library's parser.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from websockets.datastructures import Headers
from websockets.frames import BINARY, DATA_OPCODES, Frame
from websockets.frames import CloseCode as LibraryCode
from websockets.protocol import OPEN, SEND_EOF
from websockets.speedups import apply_mask

from gateway.errors import CloseCode
from gateway.frames import MASKED, MEDIUM, MEDIUM_MAX, SHORT_HEAD, SHORT_MAX, WHOLE_TEXT
from gateway.server_socket import ServerSocket

KERNEL_SEND_BYTES = 65_536
"""Replies that the kernel takes over for a client that does not read; left to itself it takes megabytes."""
FRAMES_AT_ONCE = 64
"""Frames of a socket that are taken before all others have their turn; some 1 ms of the smallest, and answers to them."""
PARSED_AT_ONCE = 2048
"""Bytes that the library's parser is given at once: by what comes of them it is seen whether they are small frames."""
FRAGMENTS_MAX = 4096
"""Pieces of one message, which may be empty: as many as the library takes."""
_NO_HEADERS = Headers()

Message = str | bytes
"""Text, or bytes where the client sent them as binary."""
Take = Callable[[Message], None]
MayTake = Callable[[], bool]
BacklogChanged = Callable[[], None]


class WatchedSocket(ServerSocket):
    """Times are of the event loop's clock, in seconds.

    `heard_at`: when the last byte came. `written_bytes`: all that was handed to the transport, control frames included.
    `closed_with`: the code that the gateway chose to close with, also when the client never took it.
    `begun_at`: since when a message is incomplete, or None.
    `backlog_changed`: called when what waits grows while the client is behind, when it has caught up, and when it is lost.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heard_at = self.loop.time()
        self.begun_at: float | None = None
        self.closed_with: CloseCode | None = None
        self.written_bytes = 0
        self.backlog_changed: BacklogChanged = _nothing
        self._take: Take = _drop
        self._may_take: MayTake = _not_yet
        self._unread: deque[Message] | tuple[()] = ()
        self._pieces: list[bytes] = []
        self._binary = self._failed = False
        self._head_end = b""
        self._unparsed = 0
        self._messages = self._frames = 0
        self._held = b""

    @property
    def held_up(self) -> bool:
        """Whether messages wait to be taken, and nothing more is read until they are."""
        return bool(self._unread)

    @property
    def unfinished_bytes(self) -> int:
        """What is held of a message that has not come whole."""
        return self._unparsed + (self.protocol.current_size or 0)

    def read(self, take: Take, may_take: MayTake) -> None:
        """Hands each message to `take` as it arrives, in order; those that arrived before now, first.

        While `may_take` says no, messages wait and the socket is not read; `go_on` looks again.
        """
        self._take, self._may_take = take, may_take
        self.go_on()

    def forget_headers(self) -> None:
        """Lets go of what the two sides of the upgrade said, a token among it; some 4 KiB a socket."""
        assert self.request is not None
        assert self.response is not None
        self.request.headers = self.response.headers = _NO_HEADERS

    def drop_messages(self) -> None:
        """Reads on without taking anything: the client's half of a closing comes behind its last messages."""
        self.read(_drop, _always)

    def go_on(self) -> None:
        """Hands over what waits, as far as it may be taken, and reads again once nothing does."""
        for _ in range(FRAMES_AT_ONCE):
            if not self._unread or not self._may_take():
                break
            self._take(self._unread.popleft())
        else:
            self.loop.call_soon(self.go_on)
        if not self._unread and isinstance(self._unread, deque):
            self._unread = ()
            self._read_on()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the kernel's share of the outbox small, so that a client that does not read shows soon."""
        raw: socket.socket | None = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_SEND_BYTES)
        super().connection_made(transport)

    def send_data(self) -> None:
        """Counts what leaves, then hands it to the transport in one piece: each would cost a system call."""
        writes = self.protocol.writes
        if not writes:
            return
        if SEND_EOF in writes:
            self.written_bytes += sum(map(len, writes))
            super().send_data()
            return
        self.protocol.writes = []
        data = writes[0] if len(writes) == 1 else b"".join(writes)
        self.written_bytes += len(data)
        self.transport.write(data)
        if self.paused:
            self.backlog_changed()

    def resume_writing(self) -> None:
        """The client takes again what is written to it: what it sent meanwhile may be taken, too."""
        super().resume_writing()
        self.backlog_changed()
        self.go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing waits for a client that is gone, and all that its socket was is free at once.

        What refers to itself in a circle would stay until the garbage collector looks, which is rare: the socket and its
        users, and in the library the protocol, its parser, and the last error of that.
        """
        super().connection_lost(exc)
        self.backlog_changed()
        self._take, self._may_take, self.backlog_changed = _drop, _always, _nothing
        self._unread, self._held = (), b""
        self.protocol.parser.close()
        self.protocol.parser_exc = self.connection_exc = None
        vars(self.protocol).pop("select_subprotocol", None)

    def data_received(self, data: bytes) -> None:
        """Takes whole texts, leaves the rest to the library, and notes since when a message is incomplete.

        Of many small frames the first are taken now, those behind them at the event loop's next turns.
        """
        self.heard_at = self.loop.time()
        if self._held:  # TLS hands over what it has when it is told to pause
            self._held += data
        else:
            self._receive(data)

    def eof_received(self) -> None:
        """Nothing comes behind this, so nothing is held."""
        while self._held:
            self._receive_held()
        super().eof_received()

    def _receive(self, data: bytes) -> None:
        protocol, self._frames = self.protocol, 0
        while data and self._frames < FRAMES_AT_ONCE:
            if not self._unparsed and protocol.current_size is None and protocol.state is OPEN:
                data = self._take_whole_texts(data)
                if not data or self._frames >= FRAMES_AT_ONCE:
                    break
            self._parse(data[:PARSED_AT_ONCE])
            data = data[PARSED_AT_ONCE:]
        if data:
            self._held = data
            self._pause()
            self.loop.call_soon(self._receive_held)

    def _receive_held(self) -> None:
        held, self._held = self._held, b""
        self._receive(held)
        self._read_on()

    def _parse(self, data: bytes) -> None:
        """Gives data to the library's parser."""
        messages = self._messages
        self._unparsed = self._unparsed + len(data) if self.request is not None else self._behind_request(data)
        super().data_received(data)
        if self.protocol.state is not OPEN or not (self._unparsed or self.protocol.current_size is not None):
            self.begun_at = None
        elif self.begun_at is None or self._messages != messages:
            self.begun_at = self.heard_at

    def _pause(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def _read_on(self) -> None:
        """Reads again, unless something of what was read is yet to be taken."""
        if not self._held and not self._unread and not self.transport.is_closing():
            self.transport.resume_reading()

    def process_event(self, event: Any) -> None:
        """Puts messages together, in the place of the library's queue."""
        if not isinstance(event, Frame):
            super().process_event(event)
            return
        size = len(event.data)
        self._frames += 1
        self._unparsed -= size + (6 if size <= SHORT_MAX else 8 if size <= MEDIUM_MAX else 14)
        if event.opcode not in DATA_OPCODES:
            super().process_event(event)
        elif not self._failed:
            self._binary = self._binary or event.opcode is BINARY
            self._pieces.append(bytes(event.data))
            if event.fin:
                self._end_message()
            elif len(self._pieces) > FRAGMENTS_MAX:
                self._fail(LibraryCode.MESSAGE_TOO_BIG, "too many fragments")

    def _take_whole_texts(self, data: bytes) -> bytes:
        """Takes the messages at the start of the data that are one frame of text each; returns what is behind them."""
        start, end, max_size = 0, len(data), self.protocol.max_message_size or 0
        while end - start > SHORT_HEAD and data[start] == WHOLE_TEXT and self._frames < FRAMES_AT_ONCE:
            text_at = start + SHORT_HEAD
            size = data[start + 1] - MASKED
            if size == MEDIUM:
                text_at += 2
                size = data[start + 2] << 8 | data[start + 3]
            elif not 0 <= size <= SHORT_MAX:
                break
            text_end = text_at + size
            if text_end > end or size > max_size:
                break
            start = text_end
            self._frames += 1
            self._end_text(apply_mask(data[text_at:text_end], data[text_at - 4 : text_at]))
            if self._failed:
                return b""
        return data[start:] if start else data

    def _end_message(self) -> None:
        message = b"".join(self._pieces)
        binary, self._binary = self._binary, False
        self._pieces.clear()
        self._messages += 1
        if binary:
            self._hand_over(message)
        else:
            self._end_text(message)

    def _end_text(self, payload: bytes) -> None:
        try:
            text = payload.decode()
        except UnicodeDecodeError as error:
            self._fail(LibraryCode.INVALID_DATA, f"{error.reason} at position {error.start}")
        else:
            self._hand_over(text)

    def _hand_over(self, message: Message) -> None:
        if not self._unread and self._may_take():
            self._take(message)
            return
        if isinstance(self._unread, tuple):
            self._unread = deque()
            self._pause()
        self._unread.append(message)

    def _fail(self, code: LibraryCode, reason: str) -> None:
        """Ends the socket as the library does when a client breaks the protocol; what comes behind is not read."""
        self._failed = True
        self.protocol.fail(code, reason)
        self.send_data()

    def _behind_request(self, data: bytes) -> int:
        """How many bytes of the data come behind the upgrade request."""
        head = self._head_end + data
        self._head_end = head[-3:]
        end = head.find(b"\r\n\r\n")
        return len(head) - end - 4 if end >= 0 else 0

    def stand_still(self) -> None:
        """Starts the timers anew: the gateway itself did not read, so the client cannot be blamed for silence."""
        self.heard_at = self.loop.time()
        if self.begun_at is not None:
            self.begun_at = self.heard_at


def _drop(_message: Message) -> None:
    """Takes a message nowhere."""


def _nothing() -> None:
    """Counts nowhere what waits during the handshake, which is little."""


def _always() -> bool:
    return True


def _not_yet() -> bool:
    return False
