"""The calendar's rules in memory, written from the protocol alone, for tests to compare the gateway with."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

CALENDAR_TYPES = {1, 2, 3, 10, 11}
ADMIN_TYPES = {3, 11}
INVALID, FORBIDDEN, NOT_FOUND, CONFLICT = (400, "INVALID_DATA"), (403, "FORBIDDEN"), (404, "NOT_FOUND"), (409, "CONFLICT")
EXACT = ("title", "start_time", "end_time", "desk", "type", "status", "priority", "customer_id", "lead_id", "login")
Json = dict[str, Any]


class Manager(NamedTuple):
    """A manager's row."""

    id: int
    type: int = 10
    brands: tuple[str, ...] = ("default",)
    mask: str = "*"

    def is_admin(self) -> bool:
        return self.type in ADMIN_TYPES


def covers(mask: str, desk: str) -> bool:
    """Section 2: some plain pattern matches and no `!` pattern does."""
    patterns = [pattern.strip() for pattern in mask.split(",")]
    plain = [pattern for pattern in patterns if pattern and not pattern.startswith("!")]
    excluded = [pattern[1:].strip() for pattern in patterns if pattern.startswith("!")]
    return any(_matches(p, desk) for p in plain) and not any(_matches(p, desk) for p in excluded)


def _matches(pattern: str, text: str) -> bool:
    runs = re.sub(r"\*+", "*", pattern)
    return re.fullmatch("".join(".*" if c == "*" else re.escape(c) for c in runs), text, re.DOTALL) is not None


class RefusedError(Exception):
    """The answers that the rules allow, one of them: status and error."""

    def __init__(self, *allowed: tuple[int, str]) -> None:
        super().__init__(allowed)
        self.allowed = set(allowed)


class Calendar:
    """All events by id, as replies carry them. Each command either raises RefusedError or changes `events`."""

    def __init__(self) -> None:
        self.events: dict[int, Json] = {}

    def sees(self, manager: Manager, event: Json) -> bool:
        takes_part = manager.id in {event["owner_manager_id"], event["created_by"]} | _ids(event)
        return event["brand"] in manager.brands and (takes_part or covers(manager.mask, event["desk"]))

    def get(self, manager: Manager, data: Json) -> Json:
        event = self.events.get(data["id"])
        if event is None or not self.sees(manager, event):
            raise RefusedError(NOT_FOUND)
        return event

    def add(self, manager: Manager, data: Json, event_id: int, now: int) -> Json:
        if data["end_time"] < data["start_time"] or _twice(data):
            raise RefusedError(INVALID)
        creator = data.get("created_by") or manager.id
        brand = data.get("brand") or manager.brands[0]
        if brand not in manager.brands or _bad_desk(manager, data) or (creator != manager.id and not manager.is_admin()):
            raise RefusedError(FORBIDDEN)
        owner = data.get("owner_manager_id") or creator
        blank = dict.fromkeys((*EXACT, "all_day", "remind_time", "remind_before_sec", "reminder_sent_time"), 0)
        event = blank | {"desk": "", "ast_json": None} | {k: v for k, v in data.items() if k in (*EXACT, "ast_json")}
        event |= {"id": event_id, "brand": brand, "owner_manager_id": owner, "created_by": creator, "updated_by": manager.id}
        event |= {"created_time": now, "updated_time": now, "version": 1}
        event["participants"] = _participants(event_id, owner, _given(data) or [], {}, now)
        self.events[event_id] = event
        return event

    def update(self, manager: Manager, data: Json, now: int) -> Json:
        if "start_time" in data and "end_time" in data and data["end_time"] < data["start_time"]:
            raise RefusedError(INVALID)
        if _twice(data):
            raise RefusedError(INVALID)
        event = self.get(manager, data)
        brand = data.get("brand") or event["brand"]
        after = event | {k: v for k, v in data.items() if k in (*EXACT, "ast_json")}
        after["created_by"] = data.get("created_by") or event["created_by"]
        owner = after["owner_manager_id"] = data.get("owner_manager_id") or event["owner_manager_id"]
        new_creator = after["created_by"] not in {event["created_by"], manager.id}
        self._require_change(
            manager,
            event,
            data,
            wrong=after["end_time"] < after["start_time"] or brand in set(manager.brands) - {event["brand"]},
            forbidden=brand not in manager.brands
            or (after["desk"] != event["desk"] and _bad_desk(manager, data))
            or (new_creator and not manager.is_admin()),
        )
        before, given = {row["manager_id"]: row for row in event["participants"]}, _given(data)
        if owner != event["owner_manager_id"]:
            former = event["owner_manager_id"]
            before[former] = before[former] | {"role": 1, "status": 1, "updated_time": now}
            given = [{"manager_id": i} for i in before] if given is None else given
        if given is not None:
            after["participants"] = _participants(event["id"], owner, given, before, now)
        return self._changed(manager, event, after, now)

    def set_status(self, manager: Manager, data: Json, status: int, now: int) -> Json:
        """Complete and archive."""
        event = self.get(manager, data)
        self._require_change(manager, event, data)
        return self._changed(manager, event, event | {"status": status}, now)

    def delete(self, manager: Manager, data: Json) -> None:
        event = self.get(manager, data)
        self._require_change(manager, event, data)
        del self.events[event["id"]]

    def answer(self, manager: Manager, data: Json, now: int) -> Json:
        event = self.get(manager, data)
        if manager.id not in _ids(event):
            raise RefusedError(FORBIDDEN)
        if manager.id == event["owner_manager_id"]:
            raise RefusedError(INVALID)
        answered = {"status": data["status"], "updated_time": now}
        rows = [
            row | answered if row["manager_id"] == manager.id and row["status"] != data["status"] else row
            for row in event["participants"]
        ]
        return self._changed(manager, event, event | {"participants": rows}, now)

    def filter(self, manager: Manager, data: Json) -> Json:
        if data.get("brand") and data["brand"] not in manager.brands:
            raise RefusedError(FORBIDDEN)
        found = [event for event in self.events.values() if self.sees(manager, event) and _wanted(event, data)]
        found.sort(key=_place)
        if after := data.get("after"):
            found = [event for event in found if _place(event) > (after["start_time"], after["id"])]
        rows = found[data["offset"] : data["offset"] + data["limit"]]
        return {"rows": rows, "count": len(rows), "has_more": len(found) > data["offset"] + data["limit"]}

    def _require_change(
        self, manager: Manager, event: Json, data: Json, *, wrong: bool = False, forbidden: bool = False
    ) -> None:
        """Rights, then version; what is wrong only beside the stored event may be told at any of these points."""
        late = {INVALID} if wrong else set()
        if forbidden or not (manager.is_admin() or manager.id in {event["owner_manager_id"], event["created_by"]}):
            raise RefusedError(FORBIDDEN, *late)
        if data.get("if_version") not in {None, event["version"]}:
            raise RefusedError(CONFLICT, *late)
        if late:
            raise RefusedError(*late)

    def _changed(self, manager: Manager, event: Json, after: Json, now: int) -> Json:
        if after != event:
            after = after | {"version": event["version"] + 1, "updated_by": manager.id, "updated_time": now}
            self.events[event["id"]] = after
        return after


def _place(event: Json) -> tuple[int, int]:
    return event["start_time"], event["id"]


def _ids(event: Json) -> set[int]:
    return {row["manager_id"] for row in event["participants"]}


def _wanted(event: Json, data: Json) -> bool:
    start, end = event["start_time"], event["end_time"]
    overlaps = start < data["to"] and (end > data["from"] or start == end >= data["from"])
    concerned = {event["owner_manager_id"], event["created_by"]} | _ids(event)
    return (
        overlaps
        and covers(data["deskFilter"], event["desk"])
        and data.get("manager_id", 0) in concerned | {0}
        and (data.get("brand") or event["brand"]) == event["brand"]
        and all((data.get(name) or event[name]) == event[name] for name in ("customer_id", "lead_id", "login"))
        and all(data.get(name) in {None, event[name]} for name in ("status", "type"))
    )


def _bad_desk(manager: Manager, data: Json) -> bool:
    return bool(data.get("desk")) and not covers(manager.mask, data["desk"])


def _given(data: Json) -> list[Json] | None:
    if "participants" in data:
        rows: list[Json] = data["participants"]
        return rows
    if "participant_manager_ids" in data:
        return [{"manager_id": i} for i in dict.fromkeys(data["participant_manager_ids"])]
    return None


def _twice(data: Json) -> bool:
    ids = [row["manager_id"] for row in data.get("participants", ())]
    return len(ids) != len(set(ids))


def _participants(event_id: int, owner: int, given: list[Json], before: dict[int, Json], now: int) -> list[Json]:
    rows = {row["manager_id"]: row for row in given}
    rows.setdefault(owner, {"manager_id": owner})
    found = []
    for manager_id, row in rows.items():
        old = before.get(manager_id, {"role": 1, "status": 0, "created_time": now})
        new = {name: row.get(name, old[name]) for name in ("role", "status")}
        new |= {"role": 0, "status": 1} if manager_id == owner else {}
        same = manager_id in before and all(new[name] == old[name] for name in ("role", "status"))
        new["created_time"] = row.get("created_time") or old["created_time"]
        new["updated_time"] = row.get("updated_time") or (old["updated_time"] if same else now)
        found.append({"event_id": event_id, "manager_id": manager_id, **new})
    return sorted(found, key=lambda row: (row["manager_id"] != owner, row["manager_id"]))
