"""What the right answer to a message is, told slowly: the standard library's parser and the contract's rules, one by one.

Nothing of the gateway's own decoding is used, so that the two can only agree by both being right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

INTEGER_MAX = 2**53 - 1
TIME_MAX = 253_402_300_799
KEY_CHARS_MAX = 128
WRITES = {
    "MngAddCalendarEvent",
    "MngUpdateCalendarEvent",
    "MngCompleteCalendarEvent",
    "MngArchiveCalendarEvent",
    "MngDeleteCalendarEvent",
    "MngSetCalendarParticipantStatus",
}
READS = {"MngGetCalendarEvent", "MngGetCalendarEventsByFilter", "HealthCheck"}
_CODE = re.compile(r"[A-Za-z0-9_.-]{0,64}")

Rule = Callable[[Any], bool]


class Right(NamedTuple):
    """The extID that the reply must echo (None: `null`), and the statuses that are right."""

    ext_id: str | int | None
    statuses: frozenset[int]


def _integer(low: int, high: int) -> Rule:
    return lambda value: type(value) is int and low <= value <= high


def _whole(value: str) -> bool:
    """Whether no half of a surrogate pair is in the text."""
    return not any("\ud800" <= char < "\ue000" for char in value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value and _whole(value)


def _title(value: Any) -> bool:
    return _text(value) and bool(value.strip()) and len(value) <= 500


def _code(value: Any) -> bool:
    return isinstance(value, str) and _CODE.fullmatch(value) is not None


def _ids(value: Any) -> bool:
    return isinstance(value, list) and all(_integer(1, INTEGER_MAX)(item) for item in value)


def _brand(value: Any) -> bool:
    return value in ("", "default")


def _body(value: Any) -> bool:
    return isinstance(value, dict | list | str) and _clean(value)


def _clean(value: Any, rule: Rule = _text) -> bool:
    """Whether every text at any depth keeps the rule: no NUL and no half of a surrogate pair."""
    if isinstance(value, dict):
        return all(rule(key) and _clean(item, rule) for key, item in value.items())
    if isinstance(value, list):
        return all(_clean(item, rule) for item in value)
    return not isinstance(value, str) or rule(value)


_number, _time, _flag = _integer(0, INTEGER_MAX), _integer(0, TIME_MAX), _integer(0, 1)
ADD: dict[str, Rule] = {
    "title": _title,
    "start_time": _integer(1, TIME_MAX),
    "end_time": _time,
    "brand": _brand,
    "desk": _code,
    "owner_manager_id": _number,
    "created_by": _number,
    "type": _integer(0, 6),
    "status": _integer(0, 3),
    "priority": _integer(0, 3),
    "ast_json": _body,
    "all_day": _flag,
    "remind_time": _time,
    "remind_before_sec": _integer(0, 366 * 86_400),
    "customer_id": _number,
    "lead_id": _number,
    "login": _number,
    "participant_manager_ids": _ids,
}
REQUIRED = ("title", "start_time", "end_time")
DONE, REFUSED = frozenset({200}), frozenset({400, 403, 413})


def right_answer(message: str) -> Right | None:
    """The right answer; None for what is no frame but a `ping` or a proof of identity."""
    if message == "ping":
        return None
    strict = True

    def not_json(_name: str) -> None:
        nonlocal strict
        strict = False  # NaN and Infinity are Python's own

    try:
        value = json.loads(message, parse_constant=not_json, parse_int=_integer_of)
    except (ValueError, RecursionError):
        return Right(None, frozenset({400}))
    if not isinstance(value, dict):
        return Right(None, frozenset({400}))
    if "authorization" in value and value.keys().isdisjoint(("command", "extID")):
        return None
    ext_id = value.get("extID")
    if not _ext_id(ext_id):
        return Right(None, frozenset({400}))
    return Right(ext_id, _statuses(value) if strict else frozenset({400}))


def _integer_of(digits: str) -> int:
    """Python refuses to read integers of thousands of digits; a gateway may do better."""
    return int(digits[:100])


def _ext_id(value: Any) -> bool:
    if isinstance(value, str):
        return 1 <= len(value) <= 128
    return type(value) is int and -(2**63) <= value < 2**63


def _statuses(frame: dict[str, Any]) -> frozenset[int]:
    """Of a frame with a readable extID, sent by a manager who may do everything in the brand `default`."""
    command, token, key = frame.get("command"), frame.get("__token"), frame.get("idempotencyKey")
    texts = isinstance(command, str) and isinstance(token, str | None) and isinstance(key, str | None)
    if not texts or not isinstance(frame.get("data"), dict | None) or (key is not None and not 1 <= len(key) <= KEY_CHARS_MAX):
        return frozenset({400})
    if not _clean({name: item for name, item in frame.items() if name != "data"}, _whole):
        return frozenset({400})
    if command not in WRITES | READS:
        return frozenset({404, 401, 400}) if key is not None else frozenset({404})
    if command == "HealthCheck":
        return frozenset({400}) if key is not None or set(frame.get("data") or {}) - {"__access"} else DONE
    return frozenset({401}) if token is not None else _of_calendar(str(command), frame.get("data") or {}, keyed=key is not None)


def _of_calendar(command: str, data: dict[str, Any], *, keyed: bool) -> frozenset[int]:
    if command in READS and keyed:
        return frozenset({400})
    if command == "MngAddCalendarEvent":
        return _of_add(data, keyed=keyed)
    return frozenset({200, 400, 403, 404, 409, 413})


def _of_add(data: dict[str, Any], *, keyed: bool) -> frozenset[int]:
    given = {name: value for name, value in data.items() if name != "__access"}
    if "participants" in given or not _clean(data.get("__access")):
        return frozenset({200, 400, 413, 409})
    present = {name: value for name, value in given.items() if value is not None}
    good = (
        present.keys() >= set(REQUIRED)
        and given.keys() <= ADD.keys()
        and all(ADD[name](value) for name, value in present.items())
        and present["end_time"] >= present["start_time"]
    )
    conflict = frozenset({409}) if keyed else frozenset()
    return (DONE if good else REFUSED) | conflict  # of several faults any one may be told
