"""What the harness knows of each command: its frame up to the extID, and the shape of its reply."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from gateway.commands.table import COMMANDS
from gateway.event import Event, EventReply

ADD = "MngAddCalendarEvent"
OK = b',"status":200,'
ADDED = b'"data":{"event":{"id":'
"""What follows the status in a reply to an add, as the gateway writes it."""
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""How a line or a message fails to be decoded: its JSON, its encoding, or how deep it is nested."""
SIGN_IN = "sign-in or sign-out: the harness has sessions of its own"
"""Why a recording's are left out; no fault, however many there are."""
STOPPED = "stopped before it was sent"
"""Why a run left a command out, whatever its source is."""


class Kind:
    """A command's name as it is sent and counted. `latencies` (seconds) are taken away each second by the figures."""

    __slots__ = ("decode", "head", "latencies", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.head = b'{"command":' + msgspec.json.encode(name) + b',"extID":'
        self.latencies: list[float] = []
        self.decode = msgspec.json.Decoder(_shape(name)).decode


class Recorded(Struct, frozen=True):
    """Where in a recording a command is from: the line and the connection as the file has them, the extID as JSON."""

    line: int
    connection: int
    ext_id: str
    status: int

    def words(self) -> str:
        """Where it is, and how it was answered."""
        ext_id = f", extID {self.ext_id}" if self.ext_id != "null" else ""
        return f"line {self.line}, connection {self.connection}{ext_id}: recorded {self.status}"


class Job(Struct, eq=False, gc=False):
    """One command to send. `tail` is its frame behind the extID, `due` when it was to be sent (perf_counter).

    `expected` is what the reply must have behind its extID; empty takes any status. `ref` is the source's own, `recorded`
    where a recording has it.
    """

    kind: Kind
    tail: bytes
    due: float
    expected: bytes = OK
    ref: Any = None
    recorded: Recorded | None = None
    tries: int = 0


class Kinds(dict[str, Kind]):
    """Every kind that was asked for, made on the first time."""

    def __missing__(self, name: str) -> Kind:
        kind = self[name] = Kind(name)
        return kind


def expected_status(status: int) -> bytes:
    """What a reply with this status has behind its extID; empty for 0 and for those that depend on the moment.

    `OK` itself for 200: by that the replies are known whose shape may be checked.
    """
    if status == 200:
        return OK
    if status == 0 or status >= 500:
        return b""
    return b',"status":%d,' % status


def new_event_id(message: bytes) -> int:
    """The id in a successful reply to an add, 0 when it is not where the gateway writes it."""
    at = message.find(ADDED, 0, 1000)
    if at < 0:
        return 0
    at += len(ADDED)
    digits = message[at : message.find(b",", at)]
    return int(digits) if digits.isdigit() else 0


def _shape(name: str) -> Any:
    """A successful reply: the command's own reply Struct, with events in full."""
    command = COMMANDS.get(name)
    if command is None:
        return dict[str, Any]
    fields = msgspec.structs.fields(command.reply)
    hints = {f.name: f.type for f in fields}
    if command.reply is EventReply:
        hints = {"event": Event}
    elif "rows" in hints:
        hints["rows"] = list[Event]
    data = msgspec.defstruct("Data", [(f.encode_name, hints[f.name]) for f in fields])
    return msgspec.defstruct("Reply", [("extID", str | int), ("status", int), ("data", data)])


class Failure(Struct):
    """A reply with another status, as far as the harness needs it."""

    status: int = 0
    error: str = ""
    message: str = ""
    outcome: str = ""
    retry_after_ms: int = 0


_decode_failure = msgspec.json.Decoder(Failure).decode


def failure_of(message: bytes) -> Failure:
    """What a reply with another status says."""
    try:
        return _decode_failure(message)
    except UNREADABLE:
        return Failure(error="UNREADABLE_REPLY")


class _Drain(Struct):
    retry_after_ms: int


class _DrainPush(Struct):
    data: _Drain


decode_drain = msgspec.json.Decoder(_DrainPush).decode
"""The push `server:drain`: how long to wait before coming back."""


def framed(text: bytes) -> bytes:
    """A text message of a client, with the mask 0, which leaves the text as it is."""
    size = len(text)
    if size < 126:
        return bytes((0x81, 0x80 | size, 0, 0, 0, 0)) + text
    if size < 65_536:
        return b"\x81\xfe%b\0\0\0\0%b" % (size.to_bytes(2), text)
    return b"\x81\xff%b\0\0\0\0%b" % (size.to_bytes(8), text)
