"""Frames and replies as bytes: what a message says, and how an answer is written. Knows no socket, session or command."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct, field

from gateway.errors import CommandError, ErrorCode
from gateway.faults import has_many_values, members_of, text_fault

EXT_ID_CHARS_MAX = 128
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

ExtId = Annotated[str, Meta(min_length=1, max_length=EXT_ID_CHARS_MAX)] | Annotated[int, Meta(ge=INT64_MIN, le=INT64_MAX)]
Key = Annotated[str, Meta(min_length=1, max_length=128)]
EMPTY = Raw(b"{}")
OBJECT, NOTHING = b"{n"
"""What JSON of an object begins with, and `null`."""

_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_HALF_PAIR = re.compile(rf"\\u[dD](?:[89abAB][0-9a-fA-F]{{2}}(?!{_LOW})|(?<!{_HIGH}\\u[dD])[c-fC-F][0-9a-fA-F]{{2}})")
"""An escape for half of a surrogate pair without its other half, where no backslash is escaped by another."""


class Frame(Struct, frozen=True, gc=False):
    """One inbound message. `data` is still undecoded: only the command knows its type."""

    command: str
    ext_id: ExtId = field(name="extID")
    data: Raw = EMPTY
    token: str | None = field(name="__token", default=None)
    idempotency_key: Key | None = field(name="idempotencyKey", default=None)


class Streamed:
    """The `data` of a reply too large to hold: JSON in pieces. The first piece is there; `aclose` frees what feeds the rest."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None], source: AsyncGenerator[Any, None]) -> None:
        self._first = first
        self._rest = rest
        self._source = source
        self._ext_id = b"null"
        self._ended: Callable[[Exception | None], None] = _told

    def answering(self, ext_id: bytes, ended: Callable[[Exception | None], None]) -> Streamed:
        """Makes this the reply to the frame with that extID (JSON); `ended` is told how it went."""
        self._ext_id = ext_id
        self._ended = ended
        return self

    async def pieces(self) -> AsyncIterator[bytes]:
        """The whole reply, with status 200."""
        yield _success_head(self._ext_id) + self._first
        try:
            async for piece in self._rest:
                yield piece
        except Exception as error:
            self._end(error)
            raise
        yield b"}"
        self._end(None)

    async def aclose(self) -> None:
        """Ends what feeds the reply, finished or not, begun or not."""
        self._end(ReaderGoneError())
        await self._rest.aclose()
        await self._source.aclose()

    def _end(self, cut_off_by: Exception | None) -> None:
        """Tells how it went, once."""
        ended, self._ended = self._ended, _told
        ended(cut_off_by)


class ReaderGoneError(Exception):
    """Whoever should take a reply in pieces took only some of them."""


class Authorization(Struct, frozen=True):
    """A message that is no command: a proof of identity for the socket."""

    token: str


class BadFrameError(Exception):
    """A message that cannot become a command. `ext_id` is None where it could not be read."""

    def __init__(self, error: CommandError, ext_id: str | int | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.ext_id = ext_id


_decoder = msgspec.json.Decoder(Frame)
_encoder = msgspec.json.Encoder()
encode = _encoder.encode


def read(message: str) -> tuple[Frame, CommandError | None] | Authorization:
    """What a message says, and what is already known to be wrong with its `data`.

    That fault is reported only once the command and the session are found to be right, as for every other fault of
    `data`. Raises BadFrameError.
    """
    try:
        frame = _decoder.decode(message)
    except (msgspec.MsgspecError, RecursionError):
        return _read_slowly(message)
    first = bytes(frame.data)[0]
    if first != OBJECT:
        if first != NOTHING:
            raise BadFrameError(_bad("data must be an object"), frame.ext_id)
        frame = msgspec.structs.replace(frame, data=EMPTY)
    return frame, _nul_fault(frame.data, message)


def success(ext_id: bytes, data: bytes) -> bytes:
    """A reply with status 200; both parts are JSON."""
    return _success_head(ext_id) + data + b"}"


def replayed(data: bytes) -> bytes:
    """The data of a reply that was given before, with the mark that goes beside it."""
    return data + b',"replayed":true'


def _success_head(ext_id: bytes) -> bytes:
    return b'{"extID":' + ext_id + b',"status":200,"data":'


def failure(ext_id: bytes, error: CommandError) -> bytes:
    """A reply with any other status."""
    reply: dict[str, Any] = {"status": error.status, "error": error.code, "message": error.message}
    for name in ("field", "retry_after_ms"):
        if (value := getattr(error, name)) is not None:
            reply[name] = value
    reply["outcome"] = error.outcome
    if error.data is not None:
        reply["data"] = Raw(error.data)
    return b'{"extID":' + ext_id + b"," + encode(reply)[1:]


def authorization_reply(error: str | None) -> bytes:
    """The answer to an `authorization` message; None is success."""
    if error is None:
        return b'{"event":"authorization","success":true}'
    return encode({"event": "authorization", "success": False, "error": error})


def drain_notice(retry_after_ms: int) -> bytes:
    """Tells a client that the gateway stops, and when to come back."""
    return encode({"event": "server:drain", "data": {"retry_after_ms": retry_after_ms}})


def _told(_cut_off_by: Exception | None) -> None:
    """Stands for who is told already, or wants to be told nothing."""


def encode_ext_id(ext_id: str | int | None) -> bytes:
    """The extID as JSON of the same type and value; half a surrogate pair stays an escape. None was not readable: `null`."""
    try:
        return encode(ext_id)
    except UnicodeEncodeError:
        return json.dumps(ext_id).encode()


def _nul_fault(data: Raw, message: str) -> CommandError | None:
    """Searches text for NUL, which JSON spells as an escape. The text `\\\\u0000` is innocent."""
    if "\\u0000" not in message or b"\\u0000" not in bytes(data).replace(b"\\\\", b"__"):
        return None
    if has_many_values(message):
        return CommandError(ErrorCode.INVALID_DATA, "data contains a NUL character (\\u0000); leave it out")
    try:
        return text_fault(json.loads(bytes(data), parse_int=str))
    except RecursionError:  # the two parsers' limits differ by a few levels
        return CommandError(ErrorCode.TOO_LARGE, "data is nested too deep")


def _read_slowly(message: str) -> tuple[Frame, CommandError | None] | Authorization:
    """Answers what the fast decoder refuses: the standard library's parser finds the extID, and the fault is named."""
    if has_many_values(message):
        raise BadFrameError(
            _bad("the message is wrong, and too long to say where: find it with fewer values"), _ext_id_of(message)
        )
    try:
        value = json.loads(message)
    except RecursionError:
        raise BadFrameError(_bad("the message is nested too deep")) from None
    except ValueError as error:
        raise BadFrameError(_bad(f"the message is not JSON: {error}")) from None
    if not isinstance(value, dict):
        raise BadFrameError(_bad("the message must be a JSON object"))
    if "authorization" in value and value.keys().isdisjoint(("command", "extID")):
        token = value["authorization"]
        return Authorization(token if isinstance(token, str) else "")
    ext_id: Any = value.get("extID")
    if fault := _ext_id_fault(ext_id):
        raise BadFrameError(_bad(fault))
    if fault := _top_level_fault(value):
        raise BadFrameError(_bad(fault), ext_id)
    frame = Frame(value["command"], ext_id, EMPTY, value.get("__token"), value.get("idempotencyKey"))
    if fault_in_data := text_fault(value.get("data")):
        return frame, fault_in_data
    return msgspec.structs.replace(frame, data=_data_of(message, ext_id)), None


def _ext_id_of(message: str) -> str | int | None:
    """The extID of a message that is refused unread; None where it cannot be found."""
    for read_over in (False, True):  # of what it refuses a half pair alone may be read over, but not in the extID
        text = _HALF_PAIR.sub(r"\\ufffd", message.replace(r"\\", r"\u005c")) if read_over else message
        with suppress(KeyError, msgspec.MsgspecError, RecursionError):
            ext_id: str | int = msgspec.json.decode(members_of(text)["extID"], type=str | int)
            unlike = read_over and "\ufffd" in str(ext_id)
            return None if unlike or _ext_id_fault(ext_id) else ext_id
    return None


def _data_of(message: str, ext_id: str | int) -> Raw:
    """`data` as it was sent, from a message whose top level has the wrong type only in repeats that do not count.

    Raises BadFrameError where the message is JSON to Python alone (NaN), or nested too deep for the fast decoder.
    """
    try:
        data = members_of(message).get("data", EMPTY)
    except RecursionError:
        raise BadFrameError(_bad("the message is nested too deep"), ext_id) from None
    except msgspec.MsgspecError as error:
        raise BadFrameError(_bad(f"the message is not JSON: {error}"), ext_id) from None
    return EMPTY if bytes(data) == b"null" else data


def _ext_id_fault(ext_id: Any) -> str | None:
    if isinstance(ext_id, str) and 1 <= len(ext_id) <= EXT_ID_CHARS_MAX:
        return None
    if type(ext_id) is int and INT64_MIN <= ext_id <= INT64_MAX:
        return None
    wrong = "is required:" if ext_id is None else "must be"
    return f"extID {wrong} a string of 1 to {EXT_ID_CHARS_MAX} characters or an integer within 64 bits"


def _top_level_fault(value: dict[str, Any]) -> str | None:
    """The first field beside `data` with the wrong type or text that no reply could repeat."""
    for name, required in (("command", True), ("__token", False), ("idempotencyKey", False)):
        text = value.get(name)
        if text is None and required:
            return f"{name} is required"
        if text is not None and not isinstance(text, str):
            return f"{name} must be a string"
    if not isinstance(value.get("data"), dict | None):
        return "data must be an object"
    key = value.get("idempotencyKey")
    if key is not None and not 1 <= len(key) <= 128:
        return "idempotencyKey must be 1 to 128 characters long"
    rest = {name: item for name, item in value.items() if name != "data"}
    fault = text_fault(rest)
    return fault.message if fault and "surrogate" in fault.message else None


def _bad(message: str) -> CommandError:
    return CommandError(ErrorCode.BAD_REQUEST, message)
