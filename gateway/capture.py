"""Recorded streams: the format (`Header`, `Line`; docs/harness.md), and the writer behind `--capture`.

The event loop only appends to a bounded buffer; a thread encodes, redacts (redaction.py) and writes (capture_file.py).
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct, field

from gateway import wire
from gateway.capture_file import CaptureFile
from gateway.faults import nesting_fault
from gateway.log import Logger
from gateway.metrics import Metrics
from gateway.redaction import Redaction
from gateway.settings import Settings
from gateway.tokens import InvalidTokenError, Session, Tokens
from gateway.wire import Frame, Streamed

STREAM = "crm-gateway"
VERSION = 1
ADD = "MngAddCalendarEvent"
IDLE_SECONDS = 0.1
"""How long a frame may lie in the buffer before the thread looks."""
STOP_SECONDS = 5.0
"""How long a stop waits for the disk; with the drain it stays below the 30 at which orchestrators commonly kill."""
SLICE_LINES = 50
"""Lines encoded between two writes, some 0.7 ms: a write lets the event loop run."""
SLICE_BYTES = 1_048_576
"""No further line is taken into such a slice: encoded, it is beside the buffer."""
ENTRY_BYTES = 700
"""What an entry takes beside its data, reply, extID and key."""
COMMAND_CHARS_MAX = 64
"""Of a command's name; the longest there is has 31."""
NESTING_MAX = 800
"""Of a line: the parser's limit is 1000, and counts the functions that a reader of the stream calls it from."""
HEAD_BYTES = 1000
"""Of a reply, enough to hold the longest extID and the status."""
_STATUS = re.compile(rb'"status":(\d{3})')


class Header(Struct, frozen=True, kw_only=True):
    """The first line. `started` is the time_t that offsets count from; `text_redacted`: titles and bodies are filler."""

    stream: str = STREAM
    version: int = VERSION
    started: float = 0.0
    text_redacted: bool = False


class RecordedFrame(Struct, frozen=True, omit_defaults=True):
    """A frame without its proof of identity and without keys the gateway ignores."""

    command: str
    ext_id: Raw = field(name="extID")
    data: Raw = wire.EMPTY
    idempotency_key: str | None = field(name="idempotencyKey", default=None)


class Line(Struct, frozen=True, omit_defaults=True):
    """One frame, written once it was answered: a file is sorted by reply, and `time` (seconds) is when it was read.

    `manager` is 0 without a session; `status` is the reply's; `id` is the event's that a successful add was given.
    """

    time: float
    connection: int
    manager: int
    frame: RecordedFrame
    status: int = 0
    id: int = 0


class _AddedEvent(Struct):
    id: int


class _AddedData(Struct):
    event: _AddedEvent


class _Added(Struct):
    data: _AddedData


class _Entry(NamedTuple):
    time: float
    connection: int
    manager: int
    command: str
    ext_id: str | int
    data: bytes
    key: str | None
    reply: bytes
    size: int


Record = Callable[[Frame, Session | None, float, "bytes | Streamed"], None]
_decode_added = msgspec.json.Decoder(_Added).decode


class Capture:
    """Takes frames with their replies from the event loop and writes them in a thread; what does not fit is dropped."""

    def __init__(
        self, settings: Settings, tokens: Tokens, requests: Mapping[str, type[Struct]], logger: Logger, metrics: Metrics
    ) -> None:
        """Makes the file. Raises StartupError."""
        self.lines = self.dropped = 0
        self._logger = logger
        self._dropped_total = metrics.capture_dropped
        self._tokens = tokens
        self._buffer_bytes_max = settings.capture_buffer_bytes_max
        redact = settings.capture_text == "redact"
        self._redaction = Redaction(requests, text=redact)
        self._entries: deque[_Entry] = deque()
        self._taken_bytes = 0  # written by the event loop alone
        self._passed_bytes = 0  # written by the thread alone
        self._connections = 0
        self._told: set[str] = set()
        header = msgspec.json.encode(Header(started=time.time(), text_redacted=redact))
        self._started = time.perf_counter()
        self._file = CaptureFile(settings, header + b"\n", self._tell)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)  # one that hangs may not keep a process

    def start(self) -> None:
        """Starts the thread, which also closes the file."""
        self._thread.start()
        self._logger.info("capture", file=str(self._file.path))

    def stop(self) -> None:
        """Writes what is buffered, and says how much was recorded. A disk that hangs is left alone after STOP_SECONDS."""
        self._stopping.set()
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            self._logger.warning("capture left", reason=f"its disk hangs for {STOP_SECONDS} s", lines=self.lines)
            return
        self._logger.info("capture ended", lines=self.lines, dropped=self.dropped)

    def of_connection(self) -> Record:
        """What records the frames of one more connection; it never waits."""
        self._connections += 1
        number = self._connections

        def record(frame: Frame, session: Session | None, started: float, payload: bytes | Streamed) -> None:
            reply = b"" if isinstance(payload, Streamed) else payload if frame.command == ADD else payload[:HEAD_BYTES]
            size = ENTRY_BYTES + len(reply) + memoryview(frame.data).nbytes
            size += sys.getsizeof(frame.ext_id) + sys.getsizeof(frame.idempotency_key)
            if self._taken_bytes - self._passed_bytes + size > self._buffer_bytes_max or not self._file.writes:
                if self._file.writes:
                    self._tell("behind", "GATEWAY_CAPTURE_BUFFER_BYTES_MAX")
                self._count_dropped(1)
                return
            self._taken_bytes += size
            at, manager = started - self._started, self._manager_of(frame, session)
            command, data = frame.command[:COMMAND_CHARS_MAX], bytes(frame.data)  # a copy: a view keeps the whole message
            self._entries.append(_Entry(at, number, manager, command, frame.ext_id, data, frame.idempotency_key, reply, size))

        return record

    def _manager_of(self, frame: Frame, session: Session | None) -> int:
        if frame.token is not None:
            try:
                session = self._tokens.session_of(frame.token)
            except InvalidTokenError:
                return 0
        return session.manager_id if session else 0

    def _count_dropped(self, frames: int) -> None:
        self.dropped += frames
        self._dropped_total.inc(frames)

    def _tell(self, reason: str, cause: str) -> None:
        """Logs each reason once: since then frames are dropped for it."""
        if reason not in self._told:
            self._told.add(reason)
            self._logger.warning("capture drops frames", reason=reason, cause=cause)

    def _run(self) -> None:
        while not self._stopping.wait(IDLE_SECONDS):
            self._write_all()
        self._write_all()
        self._file.close()

    def _write_all(self) -> None:
        while self._entries:
            entries = self._slice()
            lines = self._file.write(b"".join(self._line(entry) for entry in entries)) if self._file.writes else 0
            self.lines += lines
            self._count_dropped(len(entries) - lines)
            self._passed_bytes += sum(entry.size for entry in entries)

    def _slice(self) -> list[_Entry]:
        entries: list[_Entry] = []
        size = 0
        while self._entries and len(entries) < SLICE_LINES and size < SLICE_BYTES:
            entries.append(self._entries.popleft())
            size += entries[-1].size
        return entries

    def _line(self, entry: _Entry) -> bytes:
        try:
            return self._encoded(entry)
        except Exception as error:  # whatever a client sends, it may not cost the lines of others
            self._tell("unwritable frame", type(error).__qualname__)
            return b""

    def _encoded(self, entry: _Entry) -> bytes:
        data = self._redaction.redacted(entry.command, entry.data)
        recorded = RecordedFrame(entry.command, Raw(wire.encode_ext_id(entry.ext_id)), data, entry.key)
        found = _STATUS.search(entry.reply[:HEAD_BYTES]) if entry.reply else None
        status = int(found[1]) if found else 200  # a reply in pieces has status 200
        added = _decode_added(entry.reply).data.event.id if entry.command == ADD and status == 200 else 0
        line = Line(round(entry.time, 6), entry.connection, entry.manager, recorded, status, added)
        text = msgspec.json.encode(line)
        if fault := nesting_fault("frame", text, NESTING_MAX):  # a reader would refuse the whole file
            raise fault
        return text + b"\n"


@contextmanager
def capturing(
    settings: Settings, tokens: Tokens, requests: Mapping[str, type[Struct]], logger: Logger, metrics: Metrics
) -> Iterator[Capture | None]:
    """Records into a new file of GATEWAY_CAPTURE_DIR until left; None when that is not set. Raises StartupError."""
    if not settings.capture_dir:
        yield None
        return
    capture = Capture(settings, tokens, requests, logger, metrics)
    capture.start()
    try:
        yield capture
    finally:
        capture.stop()
