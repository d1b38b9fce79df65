"""Turns what the decoder says of a bad request into an error that names the field and the fix.

The texts are msgspec's own, whose version is pinned; tests/test_faults.py holds each of them.
"""

from __future__ import annotations

import difflib
import re
from array import array
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from typing import Annotated, Any, get_args, get_origin

import msgspec

from gateway.errors import CommandError, ErrorCode, quoted
from gateway.event import Event
from gateway.fields import TIME_MAX

_MISSING = re.compile(r"^Object missing required field `(?P<name>.*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$", re.DOTALL)
_WRONG_TYPE = re.compile(r"^Expected `(?P<right>[^`]*)`, got `(?P<given>[^`]*)`$")
_BOUND = re.compile(r"^Expected `(?P<kind>\w+)` (?P<bound>[<>]=? -?\d+)$")
_LENGTH = re.compile(r"^Expected `(?P<kind>\w+)` of length (?P<bound>[<>]=) (?P<length>\d+)$")
_PATTERN = re.compile(r"^Expected `str` matching regex (?P<regex>.*)$", re.DOTALL)

_WORDS = {
    "int": "an integer",
    "str": "a string",
    "bool": "a boolean",
    "float": "a number with a fraction",
    "null": "null",
    "array": "an array",
    "object": "an object",
}
_COUNTED = {"str": "characters", "array": "entries"}
_PATTERNS = {r"'\\S'": "must not be blank"}
_CODE = "must be up to 64 of the characters A-Z a-z 0-9 _ . -"
_OF_EVENT = Event.__struct_encode_fields__
_INDEX = re.compile(r"\[[^]]*\]")
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""Into and out of a bracket, as signed bytes."""
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
SEARCHED_VALUES_MAX = 10_000
"""Of data that is wrong, values that are looked at to say where: some 10 ms of the event loop, for whoever sends it."""
STEPS_MAX = 16
"""A path into a body is told so far; it may be nested as deep as the parser allows."""

Place = tuple[Any, str | int] | None
"""Where a value is: the place of its parent, and its key or index. Made a path only once there is a fault to tell."""


def fault_of(error: msgspec.ValidationError, request: type[msgspec.Struct]) -> CommandError:
    """The answer to a request that the decoder refused."""
    text, _, place = str(error).rpartition(" - at `$")
    what, path = (text, _cut(place[:-1].lstrip("."))) if text else (place, "")
    if missing := _MISSING.match(what):
        return _required(_joined(path, missing["name"]))
    if unknown := _UNKNOWN.match(what):
        return _unknown(path, unknown["name"], request)
    if (wrong := _WRONG_TYPE.match(what)) and wrong["given"] == "null" and not path.endswith("]"):
        return _required(path)
    if (length := _LENGTH.match(what)) and length["bound"] == "<=":
        counted = _COUNTED.get(length["kind"], length["kind"])
        return CommandError(ErrorCode.TOO_LARGE, f"{path} is longer than {length['length']} {counted}", field=path)
    return CommandError(ErrorCode.INVALID_DATA, f"{path} {_right(what, _meaning(path, request))}", field=path)


def text_fault(data: Any) -> CommandError | None:
    """What is wrong with the text anywhere in `data`: a NUL, which PostgreSQL cannot store, or half of a surrogate pair."""
    found = _bad_text(data)
    if found is None:
        return None
    path, what = _path_of(found[0]), found[1]
    return CommandError(ErrorCode.INVALID_DATA, f"{path or 'data'} contains {what}; leave it out", field=path or None)


def has_many_values(text: str) -> bool:
    """Whether looking at each value takes too long: of the largest message it would be some 0.4 s of the event loop."""
    return sum(map(text.count, ",[{")) > SEARCHED_VALUES_MAX


def nesting_fault(field: str, text: bytes, nesting_max: int) -> CommandError | None:
    """Refuses JSON text that is nested deeper than `nesting_max`. Counting brackets answers for nearly all text."""
    if text.count(b"[") + text.count(b"{") <= nesting_max or depth_of(text) <= nesting_max:
        return None
    return CommandError(ErrorCode.TOO_LARGE, f"{field} is nested deeper than {nesting_max}", field=field)


def depth_of(text: bytes) -> int:
    """How deep valid JSON text is nested. All loops are C's: a look at each bracket takes 50 ms for the largest body."""
    unescaped = text.replace(rb"\\", b"").replace(rb"\"", b"")
    brackets = b"".join(unescaped.split(b'"')[::2]).translate(_STEPS, _NO_BRACKETS)
    return max(accumulate(array("b", brackets)), default=0)


def members_of(text: str | bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """A JSON object taken apart: the last of each repeated key, and every value byte for byte as it was sent."""
    return _MEMBERS.decode(text)


def without_repeats(data: msgspec.Raw, request: type[msgspec.Struct]) -> bytes:
    """The same object with the last of each repeated key, also in the objects that it holds and in those of a list.

    The decoder judges every repeat, the contract only the last. What the request keeps undecoded stays as it was sent, and
    so do too many values.
    """
    if has_many_values(bytes(data).decode()):
        return bytes(data)
    kept = {field.encode_name for field in _fields(request) if field.type is msgspec.Raw}
    members: dict[str, Any] = {
        name: value if name in kept else _inside_without_repeats(value) for name, value in members_of(data).items()
    }
    return msgspec.json.encode(members)


def _inside_without_repeats(value: msgspec.Raw) -> Any:
    if bytes(memoryview(value)[:1]) != b"[":
        return _object_without_repeats(value)
    return [_object_without_repeats(item) for item in _ITEMS.decode(value)]


def _object_without_repeats(value: msgspec.Raw) -> Any:
    return members_of(value) if bytes(memoryview(value)[:1]) == b"{" else value


@cache
def _fields(request: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """A request's fields, worked out once: that takes near a millisecond, and bad frames must be cheap."""
    return msgspec.structs.fields(request)


def _required(path: str) -> CommandError:
    return CommandError(ErrorCode.FIELD_REQUIRED, f"{path} is required", field=path)


def _unknown(path: str, name: str, request: type[msgspec.Struct]) -> CommandError:
    known = [field.encode_name for field in _fields(request) if not field.encode_name.startswith("__")]
    shown = _cut(name)
    what = f"is not a known field{'' if path else _hint(shown, known)}"
    if not path and "title" in known and name in _OF_EVENT:  # an event that was read is sent back
        others = ", ".join(field for field in _OF_EVENT if field not in (name, *known))
        what = f"is set by the gateway: leave it out, like {others}"
    return CommandError(ErrorCode.INVALID_DATA, f"{_joined(path, shown)} {what}", field=_joined(path, shown))


def _hint(name: str, known: list[str]) -> str:
    if near := difflib.get_close_matches(name, known, n=2, cutoff=0.7):
        return f"; did you mean {' or '.join(near)}?"
    return "; known are " + ", ".join(known) if known else ""


def _meaning(path: str, request: type[msgspec.Struct]) -> str:
    """What the numbers of a field stand for, in brackets; empty where they are just numbers."""
    meaning = _meanings(request).get(_INDEX.sub("", path))
    return f" ({meaning})" if meaning else ""


@cache
def _meanings(request: type[msgspec.Struct]) -> dict[str, str]:
    return dict(_meanings_below("", request))


def _meanings_below(path: str, hint: Any) -> Iterator[tuple[str, str]]:
    if get_origin(hint) is Annotated and get_args(hint)[0] is int:
        yield path, get_args(hint)[1].description or ""
    elif isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        for field in _fields(hint):
            yield from _meanings_below(_joined(path, field.encode_name), field.type)
    else:
        for part in get_args(hint):
            yield from _meanings_below(path, part)


def _right(what: str, meaning: str) -> str:
    if wrong := _WRONG_TYPE.match(what):
        right = [_WORDS.get(kind, kind) for kind in wrong["right"].split(" | ") if kind != "null"]
        return f"must be {' or '.join(right)}{meaning}, not {_WORDS.get(wrong['given'], wrong['given'])}"
    if bound := _BOUND.match(what):
        if bound["bound"] == f"<= {TIME_MAX}":
            return f"must be before the year 10000 (<= {TIME_MAX}): send seconds, this looks like milliseconds"
        return f"must be {_WORDS.get(bound['kind'], bound['kind'])} {bound['bound']}{meaning}"
    if length := _LENGTH.match(what):
        return f"must have {length['length']} {_COUNTED.get(length['kind'], length['kind'])} or more"
    if pattern := _PATTERN.match(what):
        return _PATTERNS.get(pattern["regex"], _CODE)
    return f"is out of range: {what}" if "out of range" in what else f"is wrong: {_cut(what)}"


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _bad_text(value: Any) -> tuple[Place, str] | None:
    """Where the first bad text is, searched without recursion: the frame may be nested as deep as the parser allows."""
    pending: list[tuple[Any, Place]] = [(value, None)]
    while pending:
        value, place = pending.pop()
        if isinstance(value, str):
            if what := _text_fault(value):
                return place, what
        elif isinstance(value, dict):
            for key, item in value.items():
                if what := _text_fault(key):
                    return place, what + " in a key"
                pending.append((item, (place, key)))
        elif isinstance(value, list):
            pending += [(item, (place, index)) for index, item in enumerate(value)]
    return None


def _cut(text: str) -> str:
    return quoted(text)[1:-1]


def _path_of(place: Place) -> str:
    steps: list[str | int] = []
    while place is not None:
        place, step = place
        steps.append(step)
    path = ""
    for step in steps[: -STEPS_MAX - 1 : -1]:
        path = f"{path}[{step}]" if isinstance(step, int) else _joined(path, _cut(step))
    return path


def _text_fault(text: str) -> str | None:
    if "\0" in text:
        return "a NUL character (\\u0000)"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "an unpaired surrogate (half of a character beyond U+FFFF)"
    return None
