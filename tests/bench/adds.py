"""Adding an event with three participants: the frames for the gateway, and the same rows as a transaction for pgbench."""

from __future__ import annotations

import random
import time
import uuid

import msgspec

from tests.bench.dataset import BRAND, BRANDS, DAY, MANAGER_ID, MANAGERS_PER_BRAND, SEED, Dataset
from tests.bench.load_job import NUMBER

FRAMES = 10_000
DESKS = 10
TEXT = "Asked for the papers of the second account and wants to hear about the spread on metals before Friday. " * 2
BODY = {"type": "doc", "content": [{"type": "paragraph", "content": [{"type": "text", "text": TEXT}]}]}
OTHER_SLOTS = MANAGERS_PER_BRAND // 2 - 1
"""The two who are invited come from one half of the brand each, counted from the owner."""
_FIRST_MANAGER = (MANAGER_ID - 1) % BRANDS + 1

_EVENT = {
    "brand": ":brand",
    "desk": "'DESK_1_0' || :desk",
    "owner_manager_id": ":owner",
    "created_by": ":creator",
    "updated_by": ":creator",
    "type": ":type",
    "status": "0",
    "priority": ":priority",
    "title": "'Call about the account ' || :account",
    "ast_json": ":body",
    "start_time": ":start",
    "end_time": ":end",
    "all_day": "0",
    "remind_time": ":remind",
    "remind_before_sec": "900",
    "reminder_sent_time": "0",
    "customer_id": ":customer",
    "lead_id": ":lead",
    "login": "0",
    "created_time": ":now",
    "updated_time": ":now",
    "version": "1",
}


def frames(dataset: Dataset, *, keyed: bool = False) -> list[str]:
    """Adds drawn from the seed: owners of the whole brand, times in the month behind the data.

    With keys these are new in every list, and with its number new in every frame sent.
    """
    draw = random.Random(SEED)
    key = {"idempotencyKey": f"{uuid.uuid4()}-{NUMBER}"} if keyed else {}
    return [msgspec.json.encode(_frame(_data(dataset, draw)) | key).decode() for _ in range(FRAMES)]


def transaction(dataset: Dataset, *, pipelined: bool = False) -> tuple[str, list[str]]:
    """A script for pgbench and its options: the rows of such a frame, drawn alike, in one transaction.

    BEGIN, an insert that returns the id, an insert of all participants and COMMIT are four round trips, as a
    program on a driver has them. Pipelined they are one; the id then comes from the sequence within the session.
    """
    draws = {
        "slot": f"random(0, {MANAGERS_PER_BRAND - 1})",
        "desk": f":slot % {DESKS}",
        "owner": _manager(":slot"),
        "second": _manager(f":slot + random(1, {OTHER_SLOTS})"),
        "third": _manager(f":slot + random({OTHER_SLOTS + 1}, {2 * OTHER_SLOTS})"),
        "account": "random(1, 100000)",
        "customer": ":account * (:account % 2)",
        "lead": ":account * (1 - :account % 2)",
        "type": "random(0, 5)",
        "priority": "random(0, 3)",
        "start": f"{dataset.end} + 900 * random(0, {30 * DAY // 900})",
        "end": ":start + 900 * random(1, 8)",
        "remind": ":start - 900",
    }
    given = {"brand": BRAND, "creator": MANAGER_ID, "now": int(time.time()), "body": msgspec.json.encode(BODY).decode()}
    event_id = "currval('calendar_event_id')" if pipelined else ":id"
    rows = ", ".join(
        f"({event_id}, :{manager}, {role}, {status}, :now, :now, :start, :end)"
        for manager, role, status in (("owner", 0, 1), ("second", 1, 0), ("third", 1, 0))
    )
    script = (
        *(f"\\set {name} {value}" for name, value in draws.items()),
        *(("\\startpipeline",) if pipelined else ()),
        "BEGIN;",
        f"INSERT INTO calendar_event ({', '.join(_EVENT)}) VALUES ({', '.join(_EVENT.values())})"
        + (";" if pipelined else " RETURNING id \\gset"),
        "INSERT INTO calendar_participant (event_id, manager_id, role, status, created_time, updated_time, start_time,"
        f" end_time) VALUES {rows};",
        "COMMIT;",
        *(("\\endpipeline",) if pipelined else ()),
    )
    return "\n".join(script) + "\n", [f"--define={name}={value}" for name, value in given.items()]


def _data(dataset: Dataset, draw: random.Random) -> dict[str, object]:
    slot, account = draw.randrange(MANAGERS_PER_BRAND), draw.randint(1, 100_000)
    start = dataset.end + 900 * draw.randint(0, 30 * DAY // 900)
    others = (draw.randint(1, OTHER_SLOTS), draw.randint(OTHER_SLOTS + 1, 2 * OTHER_SLOTS))
    return {
        "brand": BRAND,
        "desk": f"DESK_1_0{slot % DESKS}",
        "owner_manager_id": _manager_at(slot),
        "title": f"Call about the account {account}",
        "type": draw.randint(0, 5),
        "priority": draw.randint(0, 3),
        "start_time": start,
        "end_time": start + 900 * draw.randint(1, 8),
        "remind_time": start - 900,
        "remind_before_sec": 900,
        "customer_id" if account % 2 else "lead_id": account,
        "ast_json": BODY,
        "participant_manager_ids": [_manager_at(slot), *(_manager_at(slot + other) for other in others)],
    }


def _frame(data: dict[str, object]) -> dict[str, object]:
    return {"command": "MngAddCalendarEvent", "extID": NUMBER, "data": data}


def _manager(slot: str) -> str:
    return f"{_FIRST_MANAGER} + {BRANDS} * (({slot}) % {MANAGERS_PER_BRAND})"


def _manager_at(slot: int) -> int:
    return _FIRST_MANAGER + BRANDS * (slot % MANAGERS_PER_BRAND)
