"""A mixed load on events of its own: added with and without a key, changed, deleted, read one by one and in pages."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.client import EVENT, Client
from tests.faults.ledger import PARTICIPANTS
from tests.faults.lives import GONE, Life, Lives, title_of
from tests.process import becomes_true

SOCKETS = 24
PAUSE_SECONDS = 0.04
"""Between two commands of a socket: some 500 a second in all, which leave the machine room for the faults."""
TRIES_MAX = 20
STEPS = {"add": 25, "keyed add": 25, "update": 20, "delete": 10, "get": 10, "page": 10}
"""How often each, of a hundred."""
START = 1_710_000_000
PAGE_SECONDS, PAGE_ROWS = 3600, 200
SEED = 20

Reply = dict[str, Any]


class Mixture:
    """Sends until it is stopped; `told` counts the answers, `lost_sockets` those that ended under it."""

    def __init__(self, lives: Lives, token: str, url: str) -> None:
        self.told: Counter[str] = Counter()
        self.lost_sockets = 0
        self._lives = lives
        self._url = url
        self._proof = {"Authorization": f"Bearer {token}"}
        self._going = asyncio.Event()
        self._over = asyncio.Event()
        self._busy = 0

    @property
    def acknowledged(self) -> int:
        """Writes answered with 200 so far."""
        return self._lives.acknowledged

    async def rest(self) -> None:
        """Returns when nothing is under way; nothing more is sent until `go`."""
        self._going.clear()
        await becomes_true(lambda: not self._busy)

    def go(self) -> None:
        """Sends, or goes on sending."""
        self._going.set()

    def stop(self) -> None:
        """Sends nothing more."""
        self._over.set()
        self._going.set()

    async def run_socket(self, number: int) -> None:
        """One client, for as long as the load runs; it comes back should its socket end."""
        draw, own = random.Random(SEED + number), list[Life]()
        while not self._over.is_set():
            with suppress(OSError, TimeoutError, InvalidHandshake, ConnectionClosed):
                async with Client.connected(self._url, additional_headers=self._proof, ping_interval=None) as client:
                    await self._use(client, draw, own)
                    return
            self.lost_sockets += 1
            await asyncio.sleep(PAUSE_SECONDS)

    async def _use(self, client: Client, draw: random.Random, own: list[Life]) -> None:
        while True:
            await self._going.wait()
            if self._over.is_set():
                return
            self._busy += 1
            try:
                (step,) = draw.choices(list(STEPS), list(STEPS.values()))
                await self._do(step, client, draw, own)
            finally:
                self._busy -= 1
            await asyncio.sleep(PAUSE_SECONDS)

    async def _do(self, step: str, client: Client, draw: random.Random, own: list[Life]) -> None:
        if step == "page":
            since = START + 60 * draw.randrange(len(self._lives.begun) + 1)
            page = {"from": since, "to": since + PAGE_SECONDS, "limit": PAGE_ROWS, "offset": 0, "deskFilter": "*"}
            await self._ask(client, "MngGetCalendarEventsByFilter", page)
        elif step in ("add", "keyed add") or not own:
            await self._add(client, own, keyed=step == "keyed add")
        else:
            life = own.pop(draw.randrange(len(own)))
            await self._use_event(step, client, life)
            if life.lives:  # one whose fate is unknown is left alone: what may still be under way would race with the next
                own.append(life)

    async def _add(self, client: Client, own: list[Life], *, keyed: bool) -> None:
        life = self._lives.begin()
        at = START + 60 * life.mark
        data = {**EVENT, "customer_id": life.mark, "participant_manager_ids": PARTICIPANTS, "start_time": at, "end_time": at}
        key = {"idempotencyKey": f"key-{life.mark}"} if keyed else {}
        revision = life.revise()
        reply = await self._write(client, life, revision, "MngAddCalendarEvent", data | _titled(life, revision), key)
        if reply["status"] == 200:
            life.id = reply["data"]["event"]["id"]
            own.append(life)

    async def _use_event(self, step: str, client: Client, life: Life) -> None:
        found = {"id": life.id}
        if step == "get":
            await self._ask(client, "MngGetCalendarEvent", found)
        elif step == "delete":
            await self._write(client, life, GONE, "MngDeleteCalendarEvent", found, {})
        else:
            revision = life.revise()
            await self._write(client, life, revision, "MngUpdateCalendarEvent", found | _titled(life, revision), {})

    async def _write(self, client: Client, life: Life, revision: int, command: str, data: Any, key: dict[str, str]) -> Reply:
        """The last answer; with a key the write is sent again until the answer is certain."""
        for _ in range(TRIES_MAX if key else 1):
            try:
                reply = await self._ask(client, command, data, **key)
            except BaseException:
                self._lives.answer(life, revision, None)
                raise
            self._lives.answer(life, revision, reply)
            if reply["status"] < 500:
                break
            await asyncio.sleep(PAUSE_SECONDS)
        return reply

    async def _ask(self, client: Client, command: str, data: Any, **key: str) -> Reply:
        reply = await client.command(command, data, **key)
        self.told[f"{reply['status']} {reply.get('error', '')}".strip()] += 1
        return reply


def _titled(life: Life, revision: int) -> dict[str, object]:
    return {"title": title_of(life, revision)}


@asynccontextmanager
async def mixed(lives: Lives, token: str, url: str) -> AsyncIterator[Mixture]:
    """A mixed load as long as the block."""
    load = Mixture(lives, token, url)
    async with asyncio.TaskGroup() as tasks:
        for number in range(SOCKETS):
            tasks.create_task(load.run_socket(number))
        try:
            yield load
        finally:
            load.stop()
