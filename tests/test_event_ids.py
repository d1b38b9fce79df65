"""Event ids in blocks: each is given once, whoever asks, and one that is there is never waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg
import pytest

from gateway import turns as gateway_turns
from gateway.calendar_store.event_ids import BLOCK, LOW, EventIds
from gateway.database import Database, Statement
from gateway.errors import CommandError, ErrorCode
from tests.client import EVENT
from tests.conftest import Start

AWAY = CommandError(ErrorCode.NO_SERVICE, "the database is away")
TURNS = 5
"""Turns of the event loop that are enough for a block to arrive."""


class Sequence:
    """Stands for the database: gives blocks of a sequence, once it may; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.failures: list[Exception] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._last = 0

    async def fetch(self, _statement: Statement, count: int) -> list[dict[str, int]]:
        self.asked += 1
        await self.may_answer.wait()
        if self.failures:
            raise self.failures.pop()
        first = self._last + 1
        self._last += count
        return [{"id": number} for number in range(first, self._last + 1)]


@asynccontextmanager
async def refilled(sequence: Sequence) -> AsyncIterator[EventIds]:
    """Ids from the sequence, with the loop that asks for more running."""
    ids = EventIds(cast(Database, sequence))
    async with asyncio.TaskGroup() as tasks:
        refill = tasks.create_task(ids.refill_forever())
        yield ids
        refill.cancel()


async def turns() -> None:
    """Lets the event loop turn."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def test_all_that_need_an_id_ask_for_one_block() -> None:
    """As many as a block holds wait for the same one when none is left; each gets another id."""
    sequence = Sequence()
    ids = EventIds(cast(Database, sequence))
    sequence.may_answer.clear()
    takers = [asyncio.ensure_future(ids.take()) for _ in range(BLOCK)]
    await turns()
    assert 1 == sequence.asked
    sequence.may_answer.set()
    assert list(range(1, BLOCK + 1)) == await asyncio.gather(*takers)
    assert 1 == sequence.asked


async def test_more_takers_than_a_block_holds_all_get_an_id() -> None:
    """Those who find none left after a block has come ask for the next."""
    sequence = Sequence()
    ids = EventIds(cast(Database, sequence))
    given = await asyncio.gather(*(ids.take() for _ in range(2 * BLOCK + 1)))
    assert list(range(1, 2 * BLOCK + 2)) == sorted(given)
    assert 3 == sequence.asked


async def test_next_block_is_asked_for_before_the_last_id_is_used() -> None:
    """Half a block before the end, and once; until it comes the rest is given without waiting."""
    sequence = Sequence()
    async with refilled(sequence) as ids:
        for expected in range(1, BLOCK - LOW + 1):
            assert expected == await ids.take()
        await turns()
        assert 1 == sequence.asked
        sequence.may_answer.clear()
        assert BLOCK - LOW + 1 == await ids.take()
        await turns()
        assert 2 == sequence.asked
        for expected in range(BLOCK - LOW + 2, BLOCK + 1):
            assert expected == await ids.take()
        sequence.may_answer.set()
        await turns()
        assert BLOCK + 1 == await ids.take()
        await turns()
        assert 2 == sequence.asked


async def test_taker_and_refill_ask_for_one_block() -> None:
    """Whoever finds none left while a block is asked for already waits for that one."""
    sequence = Sequence()
    sequence.may_answer.clear()
    async with refilled(sequence) as ids:
        takers = [asyncio.ensure_future(ids.take()) for _ in range(3)]
        await turns()
        sequence.may_answer.set()
        assert [1, 2, 3] == await asyncio.gather(*takers)
        await turns()
        assert 1 == sequence.asked


@pytest.mark.parametrize("failure", [AWAY, asyncpg.InsufficientPrivilegeError("permission denied")], ids=["away", "refused"])
async def test_failed_refill_is_tried_again_while_ids_are_left(failure: Exception) -> None:
    """Nobody is told as long as there is an id for everybody; the next one to take one has it asked for again."""
    sequence = Sequence()
    async with refilled(sequence) as ids:
        for _ in range(BLOCK - LOW):
            await ids.take()
        sequence.failures.append(failure)
        assert BLOCK - LOW + 1 == await ids.take()
        await turns()
        assert (2, []) == (sequence.asked, sequence.failures)
        assert BLOCK - LOW + 2 == await ids.take()
        await turns()
        assert 3 == sequence.asked
        assert list(range(BLOCK - LOW + 3, 2 * BLOCK + 1)) == [await ids.take() for _ in range(BLOCK + LOW - 2)]


async def test_failure_is_told_to_whoever_needs_an_id() -> None:
    """Each that finds none left asks and is told; the next one after the database is back gets an id."""
    sequence = Sequence()
    ids = EventIds(cast(Database, sequence))
    sequence.failures += [AWAY, AWAY]
    assert [AWAY, AWAY, 1] == await asyncio.gather(*(ids.take() for _ in range(3)), return_exceptions=True)
    assert 2 == await ids.take()


async def test_failure_that_took_long_is_told_to_all_who_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """One asks for all of them, also where the database never answers: asking in turn, the last would wait minutes."""
    monkeypatch.setattr(gateway_turns, "LONG_SECONDS", 0)
    sequence = Sequence()
    ids = EventIds(cast(Database, sequence))
    sequence.may_answer.clear()
    sequence.failures += [AWAY]
    takers = [asyncio.ensure_future(ids.take()) for _ in range(20)]
    await turns()
    sequence.may_answer.set()
    failures: list[Any] = await asyncio.gather(*takers, return_exceptions=True)
    assert {(AWAY.code, AWAY.message)} == {(failure.code, failure.message) for failure in failures}
    assert (20, 1) == (len({id(failure) for failure in failures}), sequence.asked)
    assert 1 == await ids.take()


async def test_taker_that_is_cancelled_harms_no_other() -> None:
    """Those behind one that gives up while it asks get their ids all the same."""
    sequence = Sequence()
    ids = EventIds(cast(Database, sequence))
    sequence.may_answer.clear()
    takers = [asyncio.ensure_future(ids.take()) for _ in range(3)]
    await turns()
    takers[0].cancel()
    sequence.may_answer.set()
    assert [1, 2] == await asyncio.gather(*takers[1:])
    assert takers[0].cancelled()


async def test_ids_of_two_gateways_are_never_the_same(start: Start) -> None:
    """Two stores on one database give three blocks' ids at once, no id twice."""
    stores: list[Any] = [(await start()).gateway._dispatch._services.calendar for _ in range(2)]
    given = await asyncio.gather(*(store.ids.take() for _ in range(3 * BLOCK // 2) for store in stores))
    assert 3 * BLOCK == len(set(given))


async def test_gateway_outlives_a_sequence_that_gives_none(start: Start, connect: Any, db: Any) -> None:
    """Adds that need an id fail, everything else goes on, and adds as well once the sequence is mended."""
    gateway = await start()
    client = await connect(gateway)
    await db.execute("ALTER SEQUENCE calendar_event_id MAXVALUE 2")
    reply = await client.command("MngAddCalendarEvent", EVENT)
    assert ("INTERNAL", "not_executed") == (reply["error"], reply["outcome"])
    assert 404 == (await client.command("MngGetCalendarEvent", {"id": 1}))["status"]
    await db.execute("ALTER SEQUENCE calendar_event_id NO MAXVALUE")
    assert (await client.add())["id"]
