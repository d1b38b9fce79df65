"""Reads a recorded stream (gateway/capture.py) and says what of it can be sent again, in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Raw, Struct

from gateway.capture import STREAM, VERSION, Header, Line
from gateway.errors import StartupError
from gateway.harness.kinds import ADD

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
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""How a line fails to be decoded: its JSON, its encoding, or how deep it is nested."""


class RecordedEvent:
    """An event that the stream added. Commands that name it are sent in the recorded order: `turn` is whose it is.

    `new_id` is its id in this run, once the add was answered; `failed`: it was not added this time.
    """

    __slots__ = ("busy", "connection", "failed", "new_id", "turn", "waiting")

    def __init__(self) -> None:
        self.new_id = 0
        self.failed = False
        self.turn = 0
        self.busy = 0
        self.connection = -1
        self.waiting: set[int] = set()


class Step(Struct):
    """One command to send. `event` is the one that it adds or names, `turn` its place among that event's commands."""

    time: float
    connection: int
    manager: int
    command: str
    data: bytes
    status: int
    event: RecordedEvent | None = None
    turn: int = 0
    adds: bool = False


class Stream(Struct):
    """A recording, sorted by the time each frame was read. `skipped` counts by reason what is not sent."""

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
    header, lines = _lines(path)
    lines.sort(key=lambda line: line.time)
    reader = _Reader(keep_unknown=keep_unknown)
    steps = [step for line in lines if (step := reader.step(line)) is not None]
    managers = sorted({step.manager for step in steps if step.manager})
    return Stream(header, steps, managers, len(reader.connections), reader.skipped)


def _lines(path: Path) -> tuple[Header, list[Line]]:
    with path.open("rb") as file:
        try:
            header = msgspec.json.decode(file.readline().decode(), type=_Header)
        except UNREADABLE as error:
            raise StartupError(f"{path} is no recorded stream: its first line is no header ({error})") from None
        if header.stream != STREAM or header.version != VERSION:
            raise StartupError(f"{path} is a stream {header.stream} {header.version}: this gateway reads {STREAM} {VERSION}")
        return header, list(_decoded(path, file))


def _decoded(path: Path, file: IO[bytes]) -> Iterator[Line]:
    """A last line that a killed gateway left half written is ignored. All of a line must be UTF-8, read by us or not."""
    decode_line = msgspec.json.Decoder(Line).decode
    for number, text in enumerate(file, start=2):
        try:
            yield decode_line(text.decode())
        except UNREADABLE as error:
            if text.endswith(b"\n"):
                raise StartupError(f"{path}, line {number}: {error}") from None


class _Reader:
    """Turns lines into steps, in the order of time: an event is known from its add on."""

    def __init__(self, *, keep_unknown: bool) -> None:
        self._keep_unknown = keep_unknown
        self._events: dict[int, tuple[RecordedEvent, list[int]]] = {}
        self._decode_ids = msgspec.json.Decoder(_Ids).decode
        self.connections: dict[int, int] = {}
        self.skipped: Counter[str] = Counter()

    def step(self, line: Line) -> Step | None:
        """None when it is left out."""
        command = line.frame.command
        if command in SIGN_INS:
            self.skipped["sign-in or sign-out: the harness has sessions of its own"] += 1
            return None
        if not line.manager and command != "HealthCheck":
            self.skipped["without a session"] += 1
            return None
        connection = self.connections.setdefault(line.connection, len(self.connections))
        step = Step(line.time, connection, line.manager, command, bytes(line.frame.data), line.status)
        if command == ADD and line.id:
            self._events[line.id] = (RecordedEvent(), [0])
            step.adds = True
            self._place(step, line.id)
        elif command in BY_ID or command == FILTER:
            return self._naming(step)
        return step

    def _naming(self, step: Step) -> Step | None:
        recorded = self._named(step)
        if not recorded:
            return step
        if recorded in self._events:
            self._place(step, recorded)
        elif not self._keep_unknown:
            self.skipped["names an event that the stream did not add"] += 1
            return None
        return step

    def _named(self, step: Step) -> int:
        """The event id in a request, 0 for none or one that was wrong in the recording too."""
        try:
            ids = self._decode_ids(step.data)
            if step.command == FILTER:
                return self._decode_ids(ids.after).id if ids.after != b"null" else 0
        except msgspec.MsgspecError:
            return 0
        return ids.id

    def _place(self, step: Step, recorded: int) -> None:
        step.event, count = self._events[recorded]
        step.turn = count[0]
        count[0] += 1
