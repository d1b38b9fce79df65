"""The rate of commands per manager: refused with a time to wait, over all sockets, in its place among the checks."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import sessions
from gateway.database import Database
from tests.client import EVENT
from tests.conftest import Start

SLOW = {"manager_commands_per_second_max": 0.001, "manager_commands_burst_max": 3}


async def errors(client: Any, count: int, **data: Any) -> list[Any]:
    """The errors of so many adds, None for one that is done."""
    return [(await client.command("MngAddCalendarEvent", {**EVENT, **data})).get("error") for _ in range(count)]


async def test_commands_past_the_rate_are_too_frequent(start: Start, connect: Any, db: Any) -> None:
    """After the burst a command is 429 with the time to wait, on every socket of the manager; another manager's is not."""
    gateway = await start(**SLOW)
    first, second, other = await connect(gateway), await connect(gateway), await connect(gateway, login="11")
    assert [None, None] == await errors(first, 2)
    assert [None, "TOO_FREQUENT"] == await errors(second, 2)
    refused = await first.command("MngAddCalendarEvent", EVENT)
    assert (429, "TOO_FREQUENT", "not_executed") == (refused["status"], refused["error"], refused["outcome"])
    assert 990_000 < refused["retry_after_ms"] <= 1_000_000
    assert [None, None] == await errors(other, 2)
    assert 5 == await db.fetchval("SELECT count(*) FROM calendar_event")


async def test_commands_within_the_rate_pass_again_in_time(start: Start, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is not counted: after the time that was told, the next one passes."""
    now = 1000.0
    monkeypatch.setattr("gateway.command_rate.monotonic", lambda: now)
    client = await connect(await start(manager_commands_per_second_max=2, manager_commands_burst_max=1))
    assert [None, "TOO_FREQUENT", "TOO_FREQUENT"] == await errors(client, 3)
    now += 0.5
    assert [None, "TOO_FREQUENT"] == await errors(client, 2)


async def test_rate_is_checked_after_the_session_type_and_before_the_data(start: Start, connect: Any, db: Any) -> None:
    """Over the rate bad data is 429, while no session is 401, an unknown command 404 and a wrong session type 403."""
    gateway = await start(**SLOW)
    client = await connect(gateway)
    assert ["INVALID_DATA"] * 3 + ["TOO_FREQUENT"] == await errors(client, 4, title=5)
    assert 404 == (await client.command("MngNoSuch"))["status"]
    assert 401 == (await client.command("MngAddCalendarEvent", EVENT, __token="x"))["status"]
    await db.execute("UPDATE manager SET type = 9 WHERE id = 10")
    await gateway.gateway._session_watch.look()
    assert 403 == (await client.command("MngAddCalendarEvent", EVENT))["status"]


async def test_command_that_is_decided_anew_is_counted_once(start: Start, connect: Any, db: Any) -> None:
    """A change of rights under way takes nothing from a manager's rate."""
    client = await connect(await start(**SLOW))
    for _ in range(3):
        await db.execute("UPDATE manager SET desk_mask = desk_mask")
        assert [None] == await errors(client, 1)


async def test_refusal_by_the_rate_asks_the_database_nothing(
    start: Start, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood that is refused costs no statement."""
    client = await connect(await start(**SLOW))
    await errors(client, 3)
    asked: list[object] = []
    fetch = Database.fetch

    async def counted(self: Database, statement: Any, *args: object) -> Any:
        asked.append(statement)
        return await fetch(self, statement, *args)

    monkeypatch.setattr(Database, "fetch", counted)
    assert ["TOO_FREQUENT"] * 5 == await errors(client, 5)
    assert [] == asked
    await errors(await connect(await start(), login="11"), 1)
    assert sessions._FIND_MANAGER in asked


async def test_no_rate_is_in_force_by_default(gateway: Any, connect: Any) -> None:
    """Out of the box a load test is refused nothing."""
    client = await connect(gateway)
    assert [400] * 300 == [(await client.command("MngAddCalendarEvent", {}))["status"] for _ in range(300)]
