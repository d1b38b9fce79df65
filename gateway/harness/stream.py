"""Reads a recorded stream (gateway/capture.py) and says what of it can be sent again, in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Raw, Struct

from gateway.capture import STREAM, VERSION, Header, Line
from gateway.errors import ERRORS, ErrorCode, StartupError
from gateway.harness.kinds import ADD, SIGN_IN, UNREADABLE, Recorded
from gateway.harness.order import Order, RecordedEvent, RecordedKey, in_order
from gateway.harness.printable import printable

SIGN_INS = ("MngLogin", "MngLogout")
"""The harness signs in itself: a recording holds no password, and a session that ends would end the replay."""
BY_ID = frozenset(
    (
        "MngGetCalendarEvent",
        "MngUpdateCalendarEvent",
        "MngCompleteCalendarEvent",
        "MngArchiveCalendarEvent",
        "MngDeleteCalendarEvent",
        "MngSetCalendarParticipantStatus",
    )
)
FILTER = "MngGetCalendarEventsByFilter"
LEFT_OUT = {
    ERRORS[ErrorCode.UNAUTHORIZED].status: "refused with 401: the token that it was sent with is not recorded",
    ERRORS[ErrorCode.TOO_FREQUENT].status: "refused with 429: it was not executed",
}
"""Commands that were refused for what is not in the recording: here they might be executed."""
CUT_OFF = "cut off at the end of the file"
"""A line that a killed gateway left half written."""
READS = ("MngGetCalendarEvent", FILTER)


class Step(Struct):
    """One command to send. `number` is its place in the whole order, `places` those among commands that must keep theirs.

    `connection` is counted from 0, without those of which nothing is sent.
    `event` is the one that it adds or names, `key` the one that it was sent with.
    """

    number: int
    time: float
    connection: int
    manager: int
    command: str
    data: bytes
    recorded: Recorded
    event: RecordedEvent | None = None
    key: RecordedKey | None = None
    places: list[tuple[Order, int]] = []
    adds: bool = False

    @property
    def reads(self) -> bool:
        """Whether it leaves its event as it is."""
        return self.command in READS


class Stream(Struct):
    """A recording, its steps sorted by the time each frame was read. `skipped` counts by reason what is not sent."""

    header: Header
    steps: list[Step]
    managers: list[int]
    connections: int
    skipped: Counter[str]


class _Header(Header, frozen=True, kw_only=True):
    """A first line that leaves out which stream it is, or which version, is none."""

    stream: str
    version: int


class _Ids(Struct):
    id: int = 0
    after: Raw = Raw(b"null")


def read_stream(path: Path, *, keep_unknown: bool = False) -> Stream:
    """The recording in the file. Raises StartupError that names the line that is wrong.

    Commands that name an event which the stream did not add are left out, unless `keep_unknown`: their ids may be
    anybody's here.
    """
    reader = _Reader(keep_unknown=keep_unknown)
    header, lines = _lines(path, reader.skipped)
    steps = [step for number in in_order(lines) if (step := reader.step(number, lines[number])) is not None]
    steps.sort(key=lambda step: step.time)
    managers = sorted({step.manager for step in steps if step.manager})
    return Stream(header, steps, managers, len(reader.connections), reader.skipped)


def _lines(path: Path, skipped: Counter[str]) -> tuple[Header, dict[int, Line]]:
    """The header, and the other lines by their numbers in the file."""
    with path.open("rb") as file:
        try:
            header = msgspec.json.decode(file.readline().decode(), type=_Header)
        except UNREADABLE as error:
            raise StartupError(f"{path} is no recorded stream: its first line is no header ({error})") from None
        if header.stream != STREAM or header.version != VERSION:
            found = f"{printable(header.stream)} {header.version}"
            raise StartupError(f"{path} is a stream {found}: this gateway reads {STREAM} {VERSION}")
        return header, dict(_decoded(path, file, skipped))


def _decoded(path: Path, file: IO[bytes], skipped: Counter[str]) -> Iterator[tuple[int, Line]]:
    """Blank lines are ignored, and a last one that is cut off is counted. All of a line must be UTF-8."""
    decode_line = msgspec.json.Decoder(Line).decode
    for number, text in enumerate(file, start=2):
        if text.isspace():
            continue
        try:
            yield number, decode_line(text.decode())
        except UNREADABLE as error:
            if text.endswith(b"\n"):
                raise StartupError(f"{path}, line {number}: {error}") from None
            skipped[CUT_OFF] += 1


class _Reader:
    """Turns lines into steps, in order: an event is known from its add on."""

    def __init__(self, *, keep_unknown: bool) -> None:
        self._keep_unknown = keep_unknown
        self._events: dict[int, RecordedEvent] = {}
        self._unknown: dict[int, Order] = {}
        self._keys: dict[tuple[int, str], RecordedKey] = {}
        self._numbers = count()
        self._decode_ids = msgspec.json.Decoder(_Ids).decode
        self.connections: dict[int, int] = {}
        self.skipped: Counter[str] = Counter()

    def step(self, line_number: int, line: Line) -> Step | None:
        """None when it is left out."""
        command = line.frame.command
        if command in SIGN_INS:
            self.skipped[SIGN_IN] += 1
            return None
        if not line.manager and command != "HealthCheck":
            self.skipped["without a session"] += 1
            return None
        if line.status in LEFT_OUT:
            self.skipped[LEFT_OUT[line.status]] += 1
            return None
        connection = self.connections.setdefault(line.connection, len(self.connections))
        number, data = next(self._numbers), bytes(line.frame.data)
        recorded = Recorded(line_number, line.connection, bytes(line.frame.ext_id).decode(), line.status)
        step = Step(number, line.time, connection, line.manager, command, data, recorded)
        if command == ADD and line.id:
            step.adds = True
            step.event = self._events.setdefault(line.id, RecordedEvent())
            _place(step, step.event)
        elif not self._follows(step):
            self.skipped["names an event that the stream did not add"] += 1
            return None
        if line.frame.idempotency_key is not None:
            self._key(step, line.frame.idempotency_key)
        return step

    def _follows(self, step: Step) -> bool:
        """Gives it its place on the event that it names, if it does; False when that is none of the stream's."""
        recorded = self._named(step) if step.command in BY_ID or step.command == FILTER else 0
        step.event = self._events.get(recorded)
        if step.event is not None:
            _place(step, step.event)
        elif recorded and self._keep_unknown:
            _place(step, self._unknown.setdefault(recorded, Order()))
        return not recorded or bool(step.places)

    def _named(self, step: Step) -> int:
        """The event id in a request, 0 for none or one that was wrong in the recording too."""
        try:
            ids = self._decode_ids(step.data)
            if step.command == FILTER:
                return self._decode_ids(ids.after).id if ids.after != b"null" else 0
        except msgspec.MsgspecError:
            return 0
        return ids.id

    def _key(self, step: Step, recorded: str) -> None:
        """A key that the gateway refuses, as it holds a NUL, is to be refused again."""
        name = f"{len(self._keys)}" + ("\0" if "\0" in recorded else "")
        step.key = self._keys.setdefault((step.manager, recorded), RecordedKey(name))
        _place(step, step.key)


def _place(step: Step, order: Order) -> None:
    step.places.append((order, order.place()))
