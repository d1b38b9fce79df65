"""A client as the tests need one: it sends frames, matches replies by extID, and tells how its socket ended."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import ConnectionClosed

from tests.run_log import BODY, TITLE

WAIT_SECONDS = 20.0
"""No test waits longer for anything that should come."""

LEAST: dict[str, Any] = {"title": TITLE, "start_time": 1_710_000_000, "end_time": 1_710_003_600}
EVENT: dict[str, Any] = {**LEAST, "ast_json": {"type": "doc", "content": [BODY]}}


class Client:
    """One socket. `exchange` waits for the reply to its own frame; other messages are kept in `others`."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.others: list[Any] = []
        self._ext_ids = itertools.count(1)

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str, **arguments: Any) -> AsyncIterator[Client]:
        async with websocket_connect(url, **{"proxy": None, "compression": None, "max_size": None, **arguments}) as socket:
            yield cls(socket)

    async def login(self, login: str, password: str) -> dict[str, Any]:
        reply = await self.command("MngLogin", {"login": login, "password": password})
        assert reply["status"] == 200, reply
        data: dict[str, Any] = reply["data"]
        return data

    async def command(self, command: str, data: Any = None, **top_level: Any) -> dict[str, Any]:
        """Sends a command with an extID of its own and returns its reply."""
        given = {} if data is None else {"data": data}
        frame = {"command": command, "extID": f"t{next(self._ext_ids)}", **given, **top_level}
        return await self.exchange(msgspec.json.encode(frame).decode(), frame["extID"])

    async def add(self, **changes: Any) -> dict[str, Any]:
        """Adds an event and returns it."""
        reply = await self.command("MngAddCalendarEvent", {**EVENT, **changes})
        assert reply["status"] == 200, reply
        event: dict[str, Any] = reply["data"]["event"]
        return event

    async def bare_ping(self) -> None:
        """Sends `ping` and takes the `pong`: the proof in the upgrade, which may still be looked at before, is taken then."""
        await self.socket.send("ping")
        assert "pong" == await self.socket.recv()

    async def exchange(self, message: str | bytes, ext_id: Any) -> dict[str, Any]:
        """Sends a message as it is and returns the reply with that extID."""
        await self.socket.send(message)
        while True:
            reply: dict[str, Any] = await self.receive()
            if "extID" in reply and reply["extID"] == ext_id and type(reply["extID"]) is type(ext_id):
                return reply
            self.others.append(reply)

    async def receive(self) -> Any:
        """The next message, decoded."""
        async with asyncio.timeout(WAIT_SECONDS):
            return msgspec.json.decode(await self.socket.recv())

    async def closed(self) -> int:
        """The close code, once the gateway has closed; messages before it are kept in `others`."""
        async with asyncio.timeout(WAIT_SECONDS):
            try:
                while True:
                    self.others.append(msgspec.json.decode(await self.socket.recv()))
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd is not None else 1006
