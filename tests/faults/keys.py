"""Writes with a key: sent again after every way to lose an answer, and many times at once, each is done once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple, get_args

import msgspec

from tests.client import Client
from tests.faults.check import Finding
from tests.faults.ledger import Entry, Ledger, Truth
from tests.faults.load import frame_of
from tests.faults.stage import Stage, connected, sessions
from tests.proxy import Blow, Proxy, proxied

CLIENTS = 5
TRIES_MAX = 20
PAUSE_SECONDS = 0.2
AT_ONCE = 50
QUICK = {"db_command_seconds": 0.7, "db_statement_seconds": 0.6, "db_lock_seconds": 0.5}
"""An answer that never comes is given up soon, so that a hundred of them fit into the check."""


async def lost_answers(stage: Stage, plant: str = "") -> Finding:
    """Cuts the link around the committing statement; each client then sends its key again until it is answered with 200.

    In the end, with the link whole, every key is sent once more: its reply must be the same, and say that it is replayed.
    """
    each = stage.count(100, 5)
    told: dict[str, int] = {}
    once = same = 0
    broken = []
    for where in get_args(Blow):
        async with stage.database() as dsn, proxied(dsn) as (proxy, through):
            ledger, (token,) = stage.ledger(f"cut-{where}"), await sessions(dsn)
            async with stage.gateway(through, plant, **QUICK) as gateway, opened(gateway.url, token, CLIENTS) as clients:
                await asyncio.gather(*(client.add(title="warm") for client in clients))
                turns = [_add_until_done(client, proxy, where, ledger, each // CLIENTS, told) for client in clients]
                replies = {title: reply for some in await asyncio.gather(*turns) for title, reply in some.items()}
                for title, reply in replies.items():
                    same += await _until_done(clients[0], title) == {**reply, "replayed": True}
            async with connected(dsn) as db:
                await db.execute("DELETE FROM calendar_event WHERE title = 'warm'")
                truth = await ledger.reconcile(db)
        once += truth.acknowledged - truth.lost - truth.doubled - truth.torn
        broken += [] if truth.holds and not proxy.waiting else [f"{where}: {truth}; {proxy.waiting} not cut"]
    wanted = each * len(get_args(Blow))
    answers = ", ".join(f"{kind}: {count}" for kind, count in sorted(told.items()))
    facts = f"{once} of {wanted} there exactly once after the retry, {same} replayed the same; first answers: {answers}"
    return Finding(once == same == wanted and not broken, "; ".join([facts, *broken]))


async def _add_until_done(
    client: Client, proxy: Proxy, where: Blow, ledger: Ledger, count: int, told: dict[str, int]
) -> dict[str, dict[str, Any]]:
    """The final replies by title; the first of each is counted by its kind."""
    replies = {}
    for _ in range(count):
        entry = ledger.send()
        proxy.cut(where, entry.title)
        reply = await client.exchange(_keyed(entry.title), entry.title)
        kind = f"{where} {reply['status']} {reply.get('outcome', '')}".strip()
        told[kind] = told.get(kind, 0) + 1
        if reply["status"] >= 500:
            reply = await _until_done(client, entry.title)
        ledger.answer(entry, reply)
        replies[entry.title] = {name: value for name, value in reply.items() if name != "replayed"}
    return replies


async def _until_done(client: Client, title: str) -> dict[str, Any]:
    """The reply to the keyed add; while it says that the service fails, it is sent again."""
    for _ in range(TRIES_MAX):
        reply = await client.exchange(_keyed(title), title)
        if reply["status"] < 500:
            break
        await asyncio.sleep(PAUSE_SECONDS)
    return reply


def _keyed(title: str) -> str:
    return frame_of(title, idempotencyKey=f"key-{title}")


class Replays(NamedTuple):
    """What became of keys that were sent fifty times at once."""

    keys: int
    answered: int
    """with status 200, of all sendings"""
    equal: int
    """keys whose replies all had the same data"""
    firsts: int
    """keys of whose replies exactly one was no replay"""
    truth: Truth

    @property
    def holds(self) -> bool:
        return self.truth.holds and self.equal == self.firsts == self.keys and self.answered == self.keys * AT_ONCE

    def __str__(self) -> str:
        return (
            f"{self.answered:,} of {self.keys * AT_ONCE:,} answered with 200; of {self.keys} keys {self.equal} had equal "
            f"replies, {self.firsts} exactly one that was no replay, {self.truth.doubled} more than one event"
        )


async def replays(stage: Stage) -> Finding:
    """Each key is sent fifty times at once, to two processes."""
    found = await replayed(stage, "")
    return Finding(found.holds, str(found))


async def replayed(stage: Stage, plant: str) -> Replays:
    """Sends each key fifty times at once to two processes, in which that bug may be planted."""
    keys = stage.count(20, 2)
    async with stage.database() as dsn:
        ledger, (token,) = stage.ledger("replays"), await sessions(dsn)
        async with (
            stage.gateway(dsn, plant) as one,
            stage.gateway(dsn, plant) as other,
            opened(one.url, token, 5) as ours,
            opened(other.url, token, 5) as theirs,
        ):
            answers = [await _at_once([*ours, *theirs], ledger.send()) for _ in range(keys)]
        for entry, replies in zip(ledger.entries.values(), answers, strict=True):
            ledger.answer(entry, replies[0])
        async with connected(dsn) as db:
            truth = await ledger.reconcile(db)
    return Replays(
        keys,
        answered=sum(reply["status"] == 200 for replies in answers for reply in replies),
        equal=sum(len({msgspec.json.encode(reply.get("data")) for reply in replies}) == 1 for replies in answers),
        firsts=sum(sum("replayed" not in reply for reply in replies) == 1 for replies in answers),
        truth=truth,
    )


async def _at_once(clients: list[Client], entry: Entry) -> list[dict[str, Any]]:
    """The replies to fifty sendings of one key."""
    frame = _keyed(entry.title)
    each = AT_ONCE // len(clients)
    await asyncio.gather(*(client.socket.send(frame) for client in clients for _ in range(each)))
    return [await client.receive() for client in clients for _ in range(each)]


@asynccontextmanager
async def opened(url: str, token: str, count: int) -> AsyncIterator[list[Client]]:
    """Clients with that session, whose proofs are taken."""
    async with AsyncExitStack() as stack:
        proof = {"Authorization": f"Bearer {token}"}
        sockets = [Client.connected(url, additional_headers=proof) for _ in range(count)]
        clients = [await stack.enter_async_context(socket) for socket in sockets]
        for client in clients:
            await client.bare_ping()
        yield clients
