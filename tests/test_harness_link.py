"""One connection of the harness: when it comes back, and what it makes of what a gateway should not send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import serve

from gateway.harness.credentials import Member
from gateway.harness.figures import Figures
from gateway.harness.kinds import Kinds
from gateway.harness.link import Link
from gateway.harness.mix import Mix
from tests.client import WAIT_SECONDS

Handler = Callable[[Any], Any]


@asynccontextmanager
async def linked(handler: Handler, in_flight: int = 1, reply_seconds: float = 30.0) -> AsyncIterator[tuple[Link, Figures]]:
    """A connection that sends health checks, so many at a time, to a server with this handler."""
    kinds = Kinds()
    source, figures = Mix(kinds, {"health": 1}, 1, [Member(10, "")], 1), Figures(kinds)
    async with serve(handler, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        link = Link(0, f"ws://127.0.0.1:{port}", None, "token", in_flight, reply_seconds, source, figures)
        await link.connect()
        async with asyncio.timeout(WAIT_SECONDS):
            yield link, figures


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits from 10 ms on, and half a second for all of them."""
    monkeypatch.setattr("gateway.harness.back_off.BACK_OFF_SECONDS", 0.01)
    monkeypatch.setattr("gateway.harness.back_off.GIVE_UP_SECONDS", 0.5)


@pytest.mark.usefixtures("hurried")
async def test_connection_that_is_let_in_and_closed_is_given_up():
    """Each wait is longer than the one before: a gateway without room is asked a few times."""

    async def no_room(socket):
        await socket.close(4002)

    async with linked(no_room) as (link, figures):
        await link.stay()
    assert link.ended
    assert 3 <= figures.closes["4002"] <= 9


@pytest.mark.usefixtures("hurried")
async def test_reply_begins_the_waits_anew():
    """However often a gateway closes that answers in between."""
    came = 0

    async def once(socket):
        nonlocal came
        came += 1
        await socket.recv()
        await socket.send(f'{{"extID":{came},"status":200,"data":{{}}}}')
        await socket.close(4002 if came < 60 else 4501)

    async with linked(once) as (link, figures):
        link.pump()
        await link.stay()
    assert {"4002": 59, "4501": 1} == figures.closes


BAD = (
    '{"event":"server:drain","data":null}',
    '{"event":"server:drain"}',
    '{"event":"server:drain","data":{"retry_after_ms":"5"}}',
    '{"event":"server:drain","data":{"retry_aft',
)


async def test_push_that_is_not_as_documented_is_counted():
    """The connection goes on."""

    async def pushing(socket):
        await socket.recv()
        for push in BAD:
            await socket.send(push)
        await socket.send(b'{"extID":1,"status":500,"error":"\xff"}', text=True)
        await socket.close(4501)

    async with linked(pushing) as (link, figures):
        link.pump()
        await link.stay()
    assert {"BAD_SHAPE": 4, "UNREADABLE_REPLY": 1} == figures.errors
    assert {"4501": 1} == figures.closes


async def test_binary_message_is_no_reply():
    """Whole or in pieces, it is one too many, and named; what it seems to answer is missing."""

    async def binary(socket):
        await socket.recv()
        await socket.send(b'{"extID":1,"status":200,"data":{}}')
        await socket.send([b'{"extID":1,', b'"status":200,"data":{}}'])
        await socket.close(4501)

    async with linked(binary) as (link, figures):
        link.pump()
        await link.stay()
    assert ({"UNASKED_REPLY": 2}, 1) == (figures.errors, figures.missing)
    assert ['binary message: {"extID":1,"status":200,"data":{}}'] * 2 == figures.examples


def put_off(ext_id: int, milliseconds: int) -> str:
    return f'{{"extID":{ext_id},"status":429,"error":"X","outcome":"not_executed","retry_after_ms":{milliseconds}}}'


async def test_command_that_is_put_off_keeps_its_place_in_flight():
    """Until it is sent again no other one is sent for it: a gateway that refuses all of them has no more to answer."""

    async def refusing(socket):
        for ext_id in (1, 2):
            await socket.recv()
            await socket.send(put_off(ext_id, 1_000_000))
        for _ in range(2):  # a pong follows what was sent for the frames before the ping
            await (await socket.ping())
        await socket.close(4501)

    async with linked(refusing, in_flight=2) as (link, figures):
        link.pump()
        await link.stay()
    assert (2, 2, 2) == (link.sent, link.waiting, figures.retried)


async def test_wait_that_a_gateway_asks_for_has_a_limit():
    """However absurd it is: nothing is put off for longer than the last replies are waited for."""

    async def absurd(socket):
        await socket.recv()
        await socket.send(put_off(1, 2**62))
        await socket.recv()
        await socket.close(4501)

    async with linked(absurd, reply_seconds=0.01) as (link, figures):
        link.pump()
        await link.stay()
    assert (2, 0, 1) == (link.sent, link.waiting, figures.retried)
