"""The load of a ledger: several sockets with several adds in flight each, that come back whenever their gateway is gone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.client import EVENT
from tests.faults.ledger import PARTICIPANTS, Entry, Ledger
from tests.process import becomes_true

PAUSE_SECONDS = 0.02
"""What a client waits after a failure: soon enough to be there when service is back."""
SETTLE_SECONDS = 12
"""For the last answers, once nothing more is sent."""


class Load:
    """Adds until it is stopped. `url` may change: sockets that come back go there."""

    def __init__(self, ledger: Ledger, token: str, url: str, in_flight: int, body_bytes: int = 0) -> None:
        self.url = url
        self._ledger = ledger
        self._token = token
        self._in_flight = in_flight
        self._body: dict[str, object] = {"ast_json": {"text": os.urandom(body_bytes // 2).hex()}} if body_bytes else {}
        self._over = asyncio.Event()

    async def acknowledges(self, count: int) -> None:
        """Returns once so many more are acknowledged."""
        wanted = self._ledger.acknowledged + count
        await becomes_true(lambda: self._ledger.acknowledged >= wanted)

    def stop(self) -> None:
        """Sends nothing more."""
        self._over.set()

    async def run_socket(self) -> None:
        """One client, for as long as the load runs."""
        while not self._over.is_set():
            with suppress(OSError, TimeoutError, InvalidHandshake, ConnectionClosed, EOFError):
                async with connect(
                    self.url,
                    additional_headers={"Authorization": f"Bearer {self._token}"},
                    proxy=None,
                    compression=None,
                    max_size=None,
                    ping_interval=None,
                    close_timeout=1,
                ) as socket:
                    await self._use(socket)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _use(self, socket: ClientConnection) -> None:
        waiting: dict[str, tuple[Entry, asyncio.Future[Any]]] = {}
        reader = asyncio.create_task(self._read(socket, waiting))
        senders = [asyncio.create_task(self._send(socket, waiting)) for _ in range(self._in_flight)]
        sent_all = asyncio.gather(*senders, return_exceptions=True)
        try:
            await asyncio.wait((reader, sent_all), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reader, *senders):
                task.cancel()
            await asyncio.gather(reader, sent_all, return_exceptions=True)
            for entry, _ in waiting.values():
                entry.closed = socket.close_code or 1006

    async def _send(self, socket: ClientConnection, waiting: dict[str, tuple[Entry, asyncio.Future[Any]]]) -> None:
        while not self._over.is_set():
            entry = self._ledger.send()
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            waiting[entry.title] = entry, answer
            await socket.send(frame_of(entry.title, self._body))
            await answer
            if entry.status != 200:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _read(self, socket: ClientConnection, waiting: dict[str, tuple[Entry, asyncio.Future[Any]]]) -> None:
        async for message in socket:
            reply = msgspec.json.decode(message)
            found = waiting.pop(reply.get("extID"), None)
            if found is not None:  # else a push, such as the notice of a drain
                self._ledger.answer(found[0], reply)
                found[1].set_result(None)


def frame_of(title: str, more: dict[str, object] | None = None, **top_level: object) -> str:
    """An add with that title, which is its extID too, and with more data."""
    data = {**EVENT, "title": title, "participant_manager_ids": PARTICIPANTS, **(more or {})}
    return msgspec.json.encode({"command": "MngAddCalendarEvent", "extID": title, "data": data, **top_level}).decode()


@asynccontextmanager
async def loaded(
    ledger: Ledger, token: str, url: str, sockets: int = 6, in_flight: int = 6, body_bytes: int = 0
) -> AsyncIterator[Load]:
    """A load as long as the block; at its end the last answers are waited for."""
    load = Load(ledger, token, url, in_flight, body_bytes)
    clients = [asyncio.create_task(load.run_socket()) for _ in range(sockets)]
    try:
        yield load
        load.stop()
        await asyncio.wait(clients, timeout=SETTLE_SECONDS)
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        ledger.keep()
