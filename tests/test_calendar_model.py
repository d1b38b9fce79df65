"""The calendar against a model in memory: random commands of several managers, compared after every step."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any, ClassVar

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.calendar_model import Calendar, Json, Manager, RefusedError
from tests.client import Client
from tests.conftest import started
from tests.people import Person, add_managers

MANAGERS = [
    Manager(21, brands=("red", "blue")),
    Manager(22, mask="EU*,!EU_TEST", brands=("red",)),
    Manager(23, mask="US", brands=("red", "blue")),
    Manager(24, 11, ("red",), "EU_TEST,US"),
    Manager(25, 0, ("red", "blue")),
]
TABLES = """
    SELECT row_to_json(event)::text AS event, (
        SELECT json_agg(row_to_json(own))::text FROM (
            SELECT event_id, manager_id, role, status, created_time, updated_time, start_time, end_time
            FROM calendar_participant WHERE event_id = event.id
            ORDER BY manager_id <> event.owner_manager_id, manager_id
        ) AS own
    ) AS participants
    FROM calendar_event AS event ORDER BY id
"""

OWNER, GUEST, NEVER, GONE = -1, -2, 404, 410
who = st.sampled_from([0, 0, 1, 2, 3, 3, 4])
anybody = st.sampled_from([OWNER, GUEST, 0, OWNER, 1, GUEST, 2, 3, OWNER, 4])
which = st.sampled_from([0, 1, 0, 2, 1, 0, 3, 2, 0, 1, NEVER, GONE])
whom = st.sampled_from([0, 21, 22, 23, 24, 77])
starts, ends = st.integers(1000, 1005), st.integers(1004, 1008)
given_row = st.fixed_dictionaries(
    {"manager_id": st.sampled_from([21, 22, 23, 24, 77])},
    optional={
        "role": st.integers(0, 2),
        "status": st.integers(0, 3),
        "created_time": st.integers(0, 5),
        "updated_time": st.integers(0, 5),
    },
)
fields: dict[str, st.SearchStrategy[Any]] = {
    "brand": st.sampled_from(["red", "", "red", "red", "", "red", "blue", "green"]),
    "desk": st.sampled_from(["", "EU", "", "EU_TEST", "", "US"]),
    "owner_manager_id": whom,
    "created_by": st.sampled_from([0, 0, 21, 0, 0, 22, 0, 23]),
    "type": st.integers(0, 1),
    "status": st.integers(0, 3),
    "priority": st.integers(0, 1),
    "customer_id": st.integers(0, 1),
    "lead_id": st.integers(0, 1),
    "login": st.integers(0, 1),
    "ast_json": st.sampled_from([None, {}, [1], "text"]),
    "participant_manager_ids": st.lists(whom.filter(bool), max_size=3),
    "participants": st.lists(given_row, max_size=3),
}
a_title = st.sampled_from(["one", "two"])
additions = st.fixed_dictionaries({"title": a_title, "start_time": starts, "end_time": ends}, optional=fields)
changes = st.fixed_dictionaries({}, optional={"title": a_title, "start_time": starts, "end_time": ends, **fields}).filter(
    lambda change: change.keys() - {"brand"}
)
ahead = st.sampled_from([None, 0, 1, None, 0])
filters = st.fixed_dictionaries(
    {
        "from": st.integers(998, 1003),
        "to": st.integers(1004, 1008),
        "limit": st.integers(1, 4),
        "offset": st.integers(0, 2),
        "deskFilter": st.sampled_from(["*", "*", "EU*", "EU_TEST,US", "*,!US", ""]),
    },
    optional={
        "manager_id": whom,
        "brand": st.sampled_from(["green", "", "red", "blue"]),
        "status": st.integers(0, 3),
        "type": st.integers(0, 1),
        "customer_id": st.integers(0, 1),
        "lead_id": st.integers(0, 1),
        "login": st.integers(0, 1),
        "after": st.fixed_dictionaries({"start_time": starts, "id": st.integers(0, 2**53 - 1)}),
    },
)


class World:
    """A gateway with its clients on a loop of its own, kept over all examples, and a clock that goes on when told."""

    def __init__(self, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._dsn = dsn
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.now = int(time.time())
        monkeypatch.setattr(time, "time", lambda: float(self.now))

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(coroutine)

    async def open(self) -> None:
        running = await self._stack.enter_async_context(started(self._dsn))
        client = await self._stack.enter_async_context(Client.connected(running.url))
        self.db: Any = await asyncpg.connect(self._dsn)
        self._stack.push_async_callback(self.db.close)
        tokens = await add_managers(self.db, MANAGERS)
        self.people = [Person(client, manager, token) for manager, token in zip(MANAGERS, tokens, strict=True)]

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    async def tables(self) -> list[Json]:
        """All events as the tables hold them; participants' copies of the event's times are checked and left out."""
        found = []
        for row in await self.db.fetch(TABLES):
            event = msgspec.json.decode(row["event"])
            event["participants"] = msgspec.json.decode(row["participants"])
            for participant in event["participants"]:
                copies = participant.pop("start_time"), participant.pop("end_time")
                assert (event["start_time"], event["end_time"]) == copies
            found.append(event)
        return found


@pytest.fixture
def world(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(dsn, monkeypatch)
    try:
        world.run(world.open())
        yield world
    finally:
        world.close()


class CalendarMachine(RuleBasedStateMachine):
    """Each rule is a command: what the wire answers is what the model answers, and then the tables are what the model is."""

    world: ClassVar[World]
    answered: ClassVar[dict[str, set[int]]]

    @initialize(first=st.lists(st.tuples(who, additions), min_size=2, max_size=3))
    def start(self, first: list[tuple[int, Json]]) -> None:
        self.calendar = Calendar()
        self.world.run(self.world.db.execute("TRUNCATE calendar_event CASCADE"))
        self.ids: list[int] = []
        for number, data in first:
            self.add(number, data)

    @rule(number=who, data=additions)
    def add(self, number: int, data: Json) -> None:
        reply = self.send(number, "Add", data)
        event_id = reply["data"]["event"]["id"] if reply["status"] == 200 else 0
        self.compare(
            reply, "Add", lambda: {"event": self.calendar.add(MANAGERS[number], data, event_id, self.world.now)}, number
        )
        self.ids += [event_id] if event_id else []

    @rule(who=anybody, pick=which, data=changes, ahead=ahead)
    def update(self, who: int, pick: int, data: Json, ahead: int | None) -> None:
        number = self.caller(who, pick)
        data = {**data, **self.chosen(pick, ahead)}
        reply = self.send(number, "Update", data)
        self.compare(reply, "Update", lambda: {"event": self.calendar.update(MANAGERS[number], data, self.world.now)}, number)

    @rule(who=anybody, pick=which, ahead=ahead, name=st.sampled_from(["Delete", "Complete", "Archive"]))
    def end(self, who: int, pick: int, ahead: int | None, name: str) -> None:
        number = self.caller(who, pick)
        data = self.chosen(pick, ahead)
        reply = self.send(number, name, data)

        def expected() -> Json:
            if name == "Delete":
                self.calendar.delete(MANAGERS[number], data)
                return {"id": data["id"]}
            status = {"Complete": 1, "Archive": 3}[name]
            return {"event": self.calendar.set_status(MANAGERS[number], data, status, self.world.now)}

        self.compare(reply, name, expected, number)

    @rule(who=anybody, pick=which, status=st.integers(0, 3))
    def answer(self, who: int, pick: int, status: int) -> None:
        number = self.caller(who, pick)
        data = {"id": self.id_of(pick), "status": status}
        reply = self.send(number, "SetCalendarParticipantStatus", data)
        self.compare(reply, "Answer", lambda: {"event": self.calendar.answer(MANAGERS[number], data, self.world.now)}, number)

    @rule(who=anybody, pick=which)
    def get(self, who: int, pick: int) -> None:
        number = self.caller(who, pick)
        data = {"id": self.id_of(pick)}
        reply = self.send(number, "Get", data)
        self.compare(reply, "Get", lambda: {"event": self.calendar.get(MANAGERS[number], data)}, number)

    @rule(number=who, data=filters)
    def filter(self, number: int, data: Json) -> None:
        reply = self.send(number, "GetCalendarEventsByFilter", data)
        self.compare(reply, "Filter", lambda: self.calendar.filter(MANAGERS[number], data), number)

    @invariant()
    def tables_agree(self) -> None:
        assert sorted(self.calendar.events.values(), key=lambda event: event["id"]) == self.world.run(self.world.tables())

    def chosen(self, pick: int, ahead: int | None) -> Json:
        """An event, and a version of it: none, the one it has, or another."""
        version = self.calendar.events.get(self.id_of(pick), {}).get("version", 1)
        return {"id": self.id_of(pick), "if_version": None if ahead is None else version + ahead}

    def id_of(self, pick: int) -> int:
        """One of the latest events that are left; one that is gone; or one that never was."""
        if pick == GONE:
            return next((event_id for event_id in reversed(self.ids) if event_id not in self.calendar.events), NEVER)
        left = list(self.calendar.events)
        return NEVER if pick == NEVER or not left else left[-1 - pick % len(left)]

    def caller(self, who: int, pick: int) -> int:
        """A manager, or one of those who take part in the event: its owner is the first of them, a guest the last."""
        ids = [row["manager_id"] for row in self.calendar.events.get(self.id_of(pick), {}).get("participants", ())]
        known = [number for manager_id in ids for number, manager in enumerate(MANAGERS) if manager.id == manager_id]
        return who if who >= 0 else (known or [0])[0 if who == OWNER else -1]

    def send(self, number: int, name: str, data: Json) -> Json:
        self.world.now += 1
        reply: Json = self.world.run(self.world.people[number].command(name, **data))
        return reply

    def compare(self, reply: Json, name: str, expected: Callable[[], Json], number: int) -> None:
        self.answered.setdefault(name, set()).add(reply["status"])
        if MANAGERS[number].type == 0:
            assert (403, "FORBIDDEN") == (reply["status"], reply["error"])
            return
        allowed: set[tuple[int, str | None]] = {(200, None)}
        data = None
        try:
            data = expected()
        except RefusedError as refused:
            allowed = {*refused.allowed}
        assert (reply["status"], reply.get("error")) in allowed
        if data is not None:
            assert data == reply["data"]
        elif reply["status"] == 409:
            assert {"event": self.calendar.events[reply["data"]["event"]["id"]]} == reply["data"]


def test_calendar_agrees_with_its_model(world):
    """Every answer and, after every step, the tables are those of the model; every command did something."""
    answered: dict[str, set[int]] = {}
    machine = type("Machine", (CalendarMachine,), {"world": world, "answered": answered})
    few = settings(
        max_examples=60,
        stateful_step_count=30,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=few)
    assert {"Add", "Update", "Complete", "Archive", "Delete", "Get", "Filter", "Answer"} == answered.keys()
    assert all(200 in statuses for statuses in answered.values())
    assert {200, 400, 403, 404, 409} == answered["Update"]
