"""Beside others a manager has so many commands under way, the rest wait in the order they came; alone there is no limit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway import fair_share
from gateway.errors import CommandError, ErrorCode, Outcome
from gateway.fair_share import FairShare
from tests.client import EVENT, Client
from tests.conftest import Start, settings_for_tests
from tests.held import HELD, PATIENT, held_adds
from tests.process import becomes_true

A, B = 10, 11
TURNS = 5
"""Turns of the event loop that are enough for whatever has been woken to go on."""


class Commands:
    """Commands that stay under way until they are ended; `begun` names those that had their turn, in that order."""

    def __init__(self, most: int, tasks: asyncio.TaskGroup) -> None:
        self.share = FairShare(settings_for_tests(manager_in_flight_max=most))
        self.begun: list[str] = []
        self.failed: dict[str, CommandError] = {}
        self._tasks = tasks
        self._running: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = {}

    def give(self, manager: int, *names: str) -> None:
        """Starts commands, which begin at the next turn of the event loop."""
        for name in names:
            end = asyncio.Event()
            self._running[name] = (self._tasks.create_task(self._run(manager, name, end)), end)

    def end(self, *names: str) -> None:
        """Lets commands that are under way end at the next turn of the event loop."""
        for name in names:
            self._running[name][1].set()

    def cancel(self, *names: str) -> None:
        """Cancels commands, wherever they are."""
        for name in names:
            self._running[name][0].cancel()

    async def beside(self, *names: str) -> None:
        """Has a command of manager B done, and then these of manager A given."""
        self.give(B, "other")
        self.end("other")
        await turns()
        self.begun.clear()
        self.give(A, *names)
        await turns()

    async def end_all(self) -> None:
        """Ends every command, those that wait as well; nothing may be kept of anybody then."""
        self.end(*self._running)
        await turns()
        assert {} == self.share._managers

    async def _run(self, manager: int, name: str, end: asyncio.Event) -> None:
        try:
            if not self.share.try_enter(manager):
                await self.share.wait(manager)
        except CommandError as error:
            self.failed[name] = error
            return
        self.begun.append(name)
        try:
            await end.wait()
        finally:
            self.share.leave(manager)


async def turns(count: int = TURNS) -> None:
    """Lets the event loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the event loop's time on by so many seconds when it is called."""
    loop = asyncio.get_running_loop()
    real, ahead = loop.time, 0.0

    def move(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    monkeypatch.setattr(loop, "time", lambda: real() + ahead)
    return move


def names(count: int) -> list[str]:
    """Names of so many commands of manager A."""
    return [f"a{number}" for number in range(count)]


async def test_manager_alone_has_no_limit() -> None:
    """With nobody else there a hundred are under way, past a most of two."""
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(2, tasks)
        commands.give(A, *names(100))
        await turns()
        assert names(100) == commands.begun
        await commands.end_all()


async def test_flood_beside_others_goes_on_in_the_order_it_came() -> None:
    """So many are under way and no more; each that leaves lets the next one go, whichever it is."""
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(2, tasks)
        await commands.beside(*names(6))
        assert names(2) == commands.begun
        for ended, begun in (("a1", 3), ("a0", 4), ("a3", 5), ("a2", 6)):
            commands.end(ended)
            await turns()
            assert (ended, names(begun)) == (ended, commands.begun)
        await commands.end_all()


async def test_limit_is_of_each_manager_alone() -> None:
    """Behind a flood that waits another manager's commands go at once, up to the same limit."""
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(2, tasks)
        await commands.beside(*names(6))
        commands.give(B, "b0", "b1", "b2")
        await turns()
        assert [*names(2), "b0", "b1"] == commands.begun
        commands.end("b0")
        await turns()
        assert [*names(2), "b0", "b1", "b2"] == commands.begun
        await commands.end_all()


async def test_flood_from_before_counts_once_others_come() -> None:
    """What a manager began alone goes on; its next one waits until fewer than the most are under way."""
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(2, tasks)
        commands.give(A, *names(5))
        commands.give(B, "b")
        commands.give(A, "a5")
        await turns()
        assert [*names(5), "b"] == commands.begun
        commands.end("a0", "a1", "a2")
        await turns()
        assert [*names(5), "b"] == commands.begun
        commands.end("a3")
        await turns()
        assert [*names(5), "b", "a5"] == commands.begun
        await commands.end_all()


async def test_woken_command_is_not_overtaken() -> None:
    """One that comes between the moment another is woken and the moment that goes on is behind it, though there is room."""
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(2, tasks)
        await commands.beside("a0", "a1", "woken")
        commands.end("a0", "a1")
        commands.give(A, "late")  # after the two have left, before "woken" goes on
        await turns()
        assert ["a0", "a1", "woken", "late"] == commands.begun
        await commands.end_all()


async def test_command_behind_a_woken_one_does_not_wait_for_its_end() -> None:
    """Where there is room for both, the second goes on as soon as the first has."""
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(3, tasks)
        await commands.beside(*names(4))
        commands.end("a0", "a1", "a2")
        commands.give(A, "a4", "a5", "a6")
        await turns()
        assert names(6) == commands.begun
        await commands.end_all()


async def test_limit_is_gone_once_the_others_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """After BESIDE_SECONDS without another manager's command what comes goes at once, and the next to leave frees all."""
    move = clock(monkeypatch)
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(2, tasks)
        await commands.beside(*names(2))
        move(fair_share.BESIDE_SECONDS - 1)
        commands.give(A, "a2", "a3", "a4")
        await turns()
        assert names(2) == commands.begun
        move(1)
        commands.end("a0")
        await turns()
        assert names(5) == commands.begun
        commands.give(A, "a5")
        await turns()
        assert names(6) == commands.begun
        await commands.end_all()


async def test_each_that_goes_on_costs_the_same_however_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand that go at once look at the time a few times each, and not at all the others as well."""
    monkeypatch.setattr(fair_share, "TURN_SECONDS", 2 * fair_share.BESIDE_SECONDS)
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(2, tasks)
        await commands.beside(*names(1000))
        looks = 0
        now = asyncio.get_running_loop().time() + fair_share.BESIDE_SECONDS

        def look() -> float:
            nonlocal looks
            looks += 1
            return now

        monkeypatch.setattr(asyncio.get_running_loop(), "time", look)
        commands.end("a0")
        await turns()
        assert names(1000) == commands.begun
        assert looks < 10 * 1000
        await commands.end_all()


async def test_each_command_of_another_manager_renews_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time counts from the last command of another manager."""
    move = clock(monkeypatch)
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(2, tasks)
        await commands.beside(*names(2))
        move(fair_share.BESIDE_SECONDS - 1)
        commands.give(B, "b")
        await turns()
        move(fair_share.BESIDE_SECONDS - 1)
        commands.give(A, "a2")
        await turns()
        assert [*names(2), "b"] == commands.begun
        await commands.end_all()


async def test_command_whose_turn_does_not_come_is_not_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails with NO_SERVICE and the time to wait; it takes no turn from those behind it."""
    monkeypatch.setattr(fair_share, "TURN_SECONDS", 0)
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(1, tasks)
        await commands.beside("a0", "late")
        error = commands.failed["late"]
        assert (ErrorCode.NO_SERVICE, Outcome.NOT_EXECUTED) == (error.code, error.outcome)
        assert error.retry_after_ms is not None
        assert 500 <= error.retry_after_ms <= 2000
        monkeypatch.undo()
        commands.give(A, "a1", "a2")
        await turns()
        assert ["a0"] == commands.begun
        commands.end("a0")
        await turns()
        assert ["a0", "a1"] == commands.begun
        await commands.end_all()


async def test_time_out_of_the_last_one_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was under way ends in the same turn of the event loop in which the time of the one that waits is up."""
    monkeypatch.setattr(fair_share, "TURN_SECONDS", 0)
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(1, tasks)
        await commands.beside("a0")
        commands.give(A, "late")
        commands.end("a0")
        await commands.end_all()


async def test_cancelled_waiting_command_leaves_its_place() -> None:
    """Those behind it go on in their order, as if it had never come."""
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(1, tasks)
        await commands.beside(*names(4))
        commands.cancel("a1")
        await turns()
        assert names(1) == commands.begun
        for ended in ("a0", "a2"):
            commands.end(ended)
            await turns()
        assert ["a0", "a2", "a3"] == commands.begun
        await commands.end_all()


async def test_command_cancelled_as_another_leaves_is_passed_over() -> None:
    """The one that leaves ends well, and the turn goes to the next that is still there."""
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(2, tasks)
        await commands.beside(*names(6))
        commands.end("a0", "a1")
        commands.cancel("a2", "a4")
        await turns()
        assert [*names(2), "a3", "a5"] == commands.begun
        await commands.end_all()


async def test_command_behind_a_cancelled_one_goes_on() -> None:
    """It came when nothing was under way any more, and the cancelled one had not left its place yet."""
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(1, tasks)
        await commands.beside(*names(2))
        commands.end("a0")
        commands.give(A, "late")
        commands.cancel("a1")
        await turns()
        assert ["a0", "late"] == commands.begun
        await commands.end_all()


async def test_cancelled_woken_command_gives_its_turn_on() -> None:
    """It had its turn and does not take it: the next one does."""
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(1, tasks)
        await commands.beside(*names(3))
        commands.end("a0")
        await turns(1)
        commands.cancel("a1")
        await turns()
        assert ["a0", "a2"] == commands.begun
        await commands.end_all()


@pytest.mark.parametrize("turns_later", [0, 1], ids=["waiting", "woken"])
async def test_cancelled_last_command_leaves_nothing(turns_later: int) -> None:
    """Cancelled as the last one under way leaves, or once that has woken it, it keeps nothing of its manager."""
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(1, tasks)
        await commands.beside(*names(2))
        commands.end("a0")
        await turns(turns_later)
        commands.cancel("a1")
        await commands.end_all()
        assert names(1) == commands.begun


async def test_most_of_zero_is_no_limit() -> None:
    """With the setting at 0 a flood beside others goes at once."""
    async with asyncio.TaskGroup() as tasks:
        commands = Commands(0, tasks)
        await commands.beside(*names(100))
        assert names(100) == commands.begun
        await commands.end_all()


async def test_nothing_is_kept_of_managers_with_nothing_under_way() -> None:
    """After a thousand managers came and went nothing is left of them."""
    share = FairShare(settings_for_tests())
    for manager in range(1, 1001):
        assert share.try_enter(manager)
        share.leave(manager)
    assert {} == share._managers


async def send(client: Client, ext_id: str, command: str, data: Any) -> None:
    """Sends a command and does not wait for its reply."""
    await client.socket.send(json.dumps({"command": command, "extID": ext_id, "data": data}))


async def test_flood_does_not_keep_another_manager_waiting(
    start: Start, connect: Any, dsn: str, db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While two adds of one manager are held what else it sends is not begun, and another manager's command is answered."""
    monkeypatch.setattr(fair_share, "TURN_SECONDS", PATIENT["db_command_seconds"])
    gateway = await start(**PATIENT, manager_in_flight_max=2)
    managers = gateway.gateway._dispatch._services.fair_share._managers
    flood, other = await connect(gateway), await connect(gateway, login="11")
    event = await other.add()
    async with held_adds(dsn) as hold:
        for ext_id in ("held 0", "held 1"):
            await send(flood, ext_id, "MngAddCalendarEvent", HELD)
        await hold.begun()
        await send(flood, "third", "MngAddCalendarEvent", EVENT)
        await send(flood, "read", "MngGetCalendarEvent", {"id": event["id"]})
        await becomes_true(lambda: (2, 2) == (managers[A].under_way, len(managers[A].waiting)))
        assert 200 == (await other.command("MngGetCalendarEvent", {"id": event["id"]}))["status"]
        assert (2, 2) == (managers[A].under_way, len(managers[A].waiting))
        assert 1 == await db.fetchval("SELECT count(*) FROM calendar_event")
        await hold.release()
        replies = [await flood.receive() for _ in range(4)]
    assert [200] * 4 == [reply["status"] for reply in replies]
    assert {} == managers


async def test_order_of_one_connection_is_kept_through_the_gate(start: Start, connect: Any, db: Any) -> None:
    """Changes of one event that wait for their turn take effect in the order sent."""
    gateway = await start(manager_in_flight_max=2)
    flood, other = await connect(gateway), await connect(gateway, login="11")
    event = await flood.add()
    await other.add()
    for number in range(30):
        await send(flood, f"{number}", "MngUpdateCalendarEvent", {"id": event["id"], "title": f"title {number}"})
    replies = [await flood.receive() for _ in range(30)]
    replies.sort(key=lambda reply: int(reply["extID"]))
    changed = [(reply["data"]["event"]["version"], reply["data"]["event"]["title"]) for reply in replies]
    assert [(number + 2, f"title {number}") for number in range(30)] == changed
    assert "title 29" == await db.fetchval("SELECT title FROM calendar_event WHERE id = $1", event["id"])
