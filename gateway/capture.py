"""Recorded streams: the format (`Header`, `Line`; docs/harness.md), and the writer behind `--capture`.

The event loop only appends to a bounded buffer; a thread encodes, redacts (redaction.py) and writes.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import msgspec
from msgspec import Raw, Struct, field

from gateway import wire
from gateway.errors import StartupError
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
SLICE_LINES = 50
"""Lines encoded between two writes, some 0.3 ms: a write lets the event loop run."""
ENTRY_BYTES = 400
"""What an entry takes beside its data and reply."""
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
    frame: Frame
    reply: bytes
    size: int


Record = Callable[[Frame, Session | None, float, "bytes | Streamed"], None]
_decode_added = msgspec.json.Decoder(_Added).decode


class Capture:
    """Takes frames with their replies from the event loop and writes them in a thread; what does not fit is dropped."""

    def __init__(
        self,
        settings: Settings,
        tokens: Tokens,
        requests: Mapping[str, type[Struct]],
        file: IO[bytes],
        logger: Logger,
        metrics: Metrics,
    ) -> None:
        self.lines = self.dropped = 0
        self._file = file
        self._logger = logger
        self._dropped_total = metrics.capture_dropped
        self._tokens = tokens
        self._buffer_bytes_max = settings.capture_buffer_bytes_max
        self._file_bytes_max = settings.capture_file_bytes_max
        self._redact_text = settings.capture_text == "redact"
        self._redaction = Redaction(requests, text=self._redact_text)
        self._entries: deque[_Entry] = deque()
        self._taken_bytes = 0  # written by the event loop alone
        self._passed_bytes = 0  # written by the thread alone
        self._connections = 0
        self._started = time.perf_counter()
        self._writes = True
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture")

    def start(self) -> None:
        """Writes the header and starts the thread."""
        self._file.write(msgspec.json.encode(Header(started=time.time(), text_redacted=self._redact_text)) + b"\n")
        self._thread.start()

    def stop(self) -> None:
        """Writes what is buffered, and says how much was recorded."""
        self._stopping.set()
        self._thread.join()
        self._logger.info("capture ended", lines=self.lines, dropped=self.dropped)

    def of_connection(self) -> Record:
        """What records the frames of one more connection; it never waits."""
        self._connections += 1
        number = self._connections

        def record(frame: Frame, session: Session | None, started: float, payload: bytes | Streamed) -> None:
            reply = b"" if isinstance(payload, Streamed) else payload if frame.command == ADD else payload[:HEAD_BYTES]
            size = memoryview(frame.data).nbytes + len(reply) + ENTRY_BYTES
            if self._taken_bytes - self._passed_bytes + size > self._buffer_bytes_max or not self._writes:
                self._drop()
                return
            self._taken_bytes += size
            self._entries.append(_Entry(started - self._started, number, self._manager_of(frame, session), frame, reply, size))

        return record

    def _manager_of(self, frame: Frame, session: Session | None) -> int:
        if frame.token is not None:
            try:
                session = self._tokens.session_of(frame.token)
            except InvalidTokenError:
                return 0
        return session.manager_id if session else 0

    def _drop(self) -> None:
        if self.dropped == 0:
            self._logger.warning("capture drops frames", reason="behind" if self._writes else "file full or failed")
        self._count_dropped(1)

    def _count_dropped(self, frames: int) -> None:
        self.dropped += frames
        self._dropped_total.inc(frames)

    def _run(self) -> None:
        while not self._stopping.wait(IDLE_SECONDS):
            self._write_all()
        self._write_all()

    def _write_all(self) -> None:
        while self._entries:
            entries = [self._entries.popleft() for _ in range(min(SLICE_LINES, len(self._entries)))]
            try:
                self._write(b"".join(self._encoded(entry) for entry in entries), len(entries))
            except Exception as error:  # the disk, or a frame that cannot be written: neither may end a gateway
                self._count_dropped(len(entries))
                self._writes = not isinstance(error, OSError)
                self._logger.warning("capture failed", cause=type(error).__name__)
            self._passed_bytes += sum(entry.size for entry in entries)

    def _write(self, text: bytes, lines: int) -> None:
        if not self._writes or self._file.tell() + len(text) > self._file_bytes_max:
            self._writes = False
            self._count_dropped(lines)
            return
        self._file.write(text)
        self._file.flush()
        self.lines += lines

    def _encoded(self, entry: _Entry) -> bytes:
        frame = entry.frame
        data = self._redaction.redacted(frame.command, bytes(frame.data))
        recorded = RecordedFrame(frame.command, Raw(wire.encode_ext_id(frame.ext_id)), data, frame.idempotency_key)
        found = _STATUS.search(entry.reply[:HEAD_BYTES]) if entry.reply else None
        status = int(found[1]) if found else 200  # a reply in pieces has status 200
        added = _decode_added(entry.reply).data.event.id if frame.command == ADD and status == 200 else 0
        line = Line(round(entry.time, 6), entry.connection, entry.manager, recorded, status, added)
        return msgspec.json.encode(line) + b"\n"


@contextmanager
def capturing(
    settings: Settings, tokens: Tokens, requests: Mapping[str, type[Struct]], logger: Logger, metrics: Metrics
) -> Iterator[Capture | None]:
    """Records into a new file of GATEWAY_CAPTURE_DIR until left; None when that is not set. Raises StartupError."""
    if not settings.capture_dir:
        yield None
        return
    path = Path(settings.capture_dir) / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}.ndjson"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except OSError as error:
        raise StartupError(
            f"Cannot record into {path} ({error.strerror}): set GATEWAY_CAPTURE_DIR to another folder."
        ) from None
    with file:
        capture = Capture(settings, tokens, requests, file, logger, metrics)
        capture.start()
        logger.info("capture", file=str(path))
        try:
            yield capture
        finally:
            capture.stop()
