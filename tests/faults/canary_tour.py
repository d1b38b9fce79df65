"""A tour through all that a client can say and all that can go wrong, with canaries wherever a secret or a text goes."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from contextlib import suppress
from typing import Any

import msgspec
from argon2 import PasswordHasher
from websockets.exceptions import ConnectionClosed
from websockets.frames import TEXT, Frame

from gateway.commands.table import COMMANDS
from gateway.passwords import PASSWORD_CHARS_MAX
from tests.client import Client
from tests.faults.canary import Canaries
from tests.faults.stage import Stage, connected
from tests.process import GatewayProcess, until
from tests.scrape import fetch, metrics_port

QUICK = {"db_command_seconds": 0.6, "db_statement_seconds": 0.5, "db_lock_seconds": 0.3, "db_acquire_seconds": 0.5}
"""What hangs in the database is given up soon, so that the tour is short."""
GUESSES = 6
"""One more than a login's failed sign-ins before it is throttled."""
UNREADABLE = 10
"""Frames without an extID before the socket is closed."""
HELD = 3
"""Commands under way when their database connections end."""
UNWELCOME = 4242
"""A `login` that the database refuses, and the gateway knows nothing of: the error quotes the whole row."""
PAGE = {"from": 1, "to": 4_000_000_000, "offset": 0, "deskFilter": "*"}
_HINDER = f"ALTER TABLE calendar_event ADD CONSTRAINT unwelcome CHECK (login <> {UNWELCOME})"
_HANG_UP = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name = 'crm-gateway' AND datname = current_database()
"""
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

FRAMES = (
    '{{"command":"MngAddCalendarEvent","extID":"x","data":{{"title":"{title}","ast_json":"{body}"',
    '[{{"title":"{title}","ast_json":["{body}"],"__token":"{token}"}}]',
    '{{"command":["{title}"],"extID":"x"}}',
    '{{"command":"MngAddCalendarEvent","extID":"x","data":"{title}"}}',
    '{{"command":"MngAddCalendarEvent","extID":"x","data":{{"title":"{title}\\ud83d","ast_json":"{body}\\ud83d"}}}}',
    '{{"command":"MngAddCalendarEvent","extID":"x","data":{{"title":"{title}\\u0000"}},"idempotencyKey":"{key}\\u0000"}}',
    '{{"command":"MngAddCalendarEvent","extID":"x","__token":["{token}"],"data":{{"title":"{title}"}}}}',
    '{{"command":"MngAddCalendarEvent","extID":"","__token":"{token}","data":{{"title":"{title}"}}}}',
    '{{"command":"MngLogin","extID":"x","data":{{"login":"10","password":"{password}"',
    '{{"command":"MngLogin","extID":[],"data":{{"login":"10","password":"{password}"}}}}',
    '{{"authorization":{{"token":"{token}"}}}}',
    '{{"authorization":"{token}"',
    "Bearer {token}",
    '{{"command":"MngAddCalendarEvent","extID":"x","data":{{"ast_json":' + "[" * 400 + '"{body}"' + "]" * 400 + "}}}}",
)
"""Messages that are broken in ways of their own."""


class Tour:
    """`told` counts the answers by command and status; `page` is the metrics page as it is at the end."""

    def __init__(self, stage: Stage, gateway: GatewayProcess, dsn: str, canaries: Canaries, tokens: list[str]) -> None:
        self.told: Counter[tuple[str, int]] = Counter()
        self._stage = stage
        self._gateway = gateway
        self._dsn = dsn
        self._canaries = canaries
        self._tokens = tokens
        self._client: Client
        self.page = ""

    async def run(self) -> int:
        """The whole tour; at its end the gateway is told to stop: its exit code."""
        token = self._canaries.genuine(self._tokens[0], "header")
        async with self._connected(additional_headers={"Authorization": f"Bearer {token}"}) as self._client:
            await self._show_tokens()
            await self._sign_in()
            await self._use_every_command()
            await self._be_refused()
            await self._send_broken_frames()
            await self._break_protocol()
            await self._lose_database()
            _, _, self.page = await fetch(metrics_port(self._gateway))
            return await self._stop()

    def _connected(self, **arguments: Any) -> Any:
        return Client.connected(self._gateway.url, **arguments)

    async def _ask(self, command: str, data: Any = None, client: Client | None = None, **top_level: Any) -> dict[str, Any]:
        reply = await (client or self._client).command(command, data, **top_level)
        self.told[command, reply["status"]] += 1
        return reply

    async def _show_tokens(self) -> None:
        """Bad ones and good ones, in each of the places for them, and in the address, which is none."""
        canaries, (_, by_pair, by_message, by_frame) = self._canaries, self._tokens
        for head in ("", by_frame.rpartition(".")[0] + "."):
            header = {"Authorization": f"Bearer {head}{canaries.new('token', 'header')}"}
            pair = ["crm-gateway.v1.json", f"bearer.{head}{canaries.new('token', 'subprotocol')}"]
            for proof in ({"additional_headers": header}, {"subprotocols": pair}):
                async with self._connected(**proof) as client:
                    assert 4503 == await client.closed()
            await self._authorize(self._client, head + canaries.new("token", "message"), success=False)
            for command in ("MngGetCalendarEvent", "HealthCheck", "MngLogin"):
                await self._ask(command, {}, __token=head + canaries.new("token", "frame"))
        pair = ["crm-gateway.v1.json", f"bearer.{canaries.genuine(by_pair, 'subprotocol')}"]
        async with self._connected(subprotocols=pair) as client:
            await self._authorize(client, canaries.genuine(by_message, "message"), success=True)
        await self._ask("HealthCheck", {}, __token=canaries.genuine(by_frame, "frame"))
        await self._ask("MngGetCalendarEvent", {"id": 1}, __token=by_frame)
        async with Client.connected(f"{self._gateway.url}?token={canaries.new('token', 'address')}"):
            pass

    async def _authorize(self, client: Client, token: str, *, success: bool) -> None:
        await client.socket.send(msgspec.json.encode({"authorization": token}).decode())
        assert success is (await client.receive())["success"]

    async def _sign_in(self) -> None:
        """Rightly, and wrongly until that is throttled."""
        canaries, password = self._canaries, self._canaries.new("password", "right")
        cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(password)
        async with connected(self._dsn) as db:
            await db.execute("UPDATE manager SET password_hash = $1 WHERE id = 10", cheap)
        async with self._connected() as client:
            reply = await self._ask("MngLogin", {"login": "10", "password": password}, client)
            canaries.genuine(reply["data"]["token"], "reply")
            await self._ask("MngLogout", None, client)
            await self._ask("MngLogout", None, client)
            for login in ("10", "nobody", *["11"] * GUESSES):
                await self._ask("MngLogin", {"login": login, "password": canaries.new("password", "wrong")}, client)
            long = canaries.new("password", "long") * PASSWORD_CHARS_MAX
            for wrong in (long, [canaries.new("password", "list")], {canaries.new("password", "name"): 1}):
                await self._ask("MngLogin", {"login": "10", "password": wrong}, client)

    async def _use_every_command(self) -> None:
        """Each with success, and those with a version or a key with a conflict."""
        canaries, ask = self._canaries, self._ask
        key, event = canaries.new("key", "add"), canaries.event("keyed add")
        added = await ask("MngAddCalendarEvent", event, idempotencyKey=key)
        await ask("MngAddCalendarEvent", event, idempotencyKey=key)
        await ask("MngAddCalendarEvent", canaries.event("conflict"), idempotencyKey=key)
        found = {"id": added["data"]["event"]["id"]}
        await ask("MngUpdateCalendarEvent", {**canaries.event("update"), **found}, idempotencyKey=canaries.new("key", "update"))
        await ask("MngUpdateCalendarEvent", {**canaries.event("stale update"), **found, "if_version": 1})
        await ask("MngUpdateCalendarEvent", {**found, "participant_manager_ids": [10, 11]})
        for command in ("MngCompleteCalendarEvent", "MngArchiveCalendarEvent", "MngGetCalendarEvent"):
            await ask(command, found)
        for limit in (10, 50_000):
            await ask("MngGetCalendarEventsByFilter", {**PAGE, "limit": limit})
        other = await ask(
            "MngAddCalendarEvent", canaries.event("invitation", owner_manager_id=11, participant_manager_ids=[10])
        )
        await ask("MngSetCalendarParticipantStatus", {"id": other["data"]["event"]["id"], "status": 1})
        await ask("MngDeleteCalendarEvent", {"id": other["data"]["event"]["id"]})

    async def _be_refused(self) -> None:
        """Every command of a client that gives no proof, and of one that asks for what is not there; then wrong data."""
        canaries, ask = self._canaries, self._ask
        async with self._connected() as stranger:
            for command in COMMANDS:
                await ask(command, canaries.event("stranger"), stranger, idempotencyKey=canaries.new("key", "stranger"))
        for command in COMMANDS:
            await ask(command, {"id": 987_654, canaries.new("name", "data"): 1})
        await ask("MngUpdateCalendarEvent", canaries.event("nothing there", id=987_654))
        add, new = "MngAddCalendarEvent", canaries.event
        wrong: list[dict[str, Any]] = [
            new("times", end_time=1),
            new("brand", brand="foreign"),
            new("participants", participants=[{"manager_id": 10, "status": canaries.new("name", "status")}]),
            new("many participants", participant_manager_ids=list(range(1, 2000))),
            new("NUL", desk="a\0"),
            new("list", title=[canaries.new("title", "list")]),
            new("long title", title=canaries.new("title", "long title") * 100),
            new("number", ast_json=5),
            new("large body", ast_json=canaries.new("body", "large body") * 20_000),
        ]
        for data in wrong:
            await ask(add, data)
        await ask(f"{add}s", new("no command"))
        await ask("MngGetCalendarEvent", {"id": 1}, idempotencyKey=canaries.new("key", "read"))
        await ask(add, new("long key"), idempotencyKey=canaries.new("key", "long") * 20)

    async def _send_broken_frames(self) -> None:
        """Each on a socket of its own; the last is sent until the socket is closed."""
        for number, frame in enumerate(FRAMES):
            texts = {
                kind: self._canaries.new(kind, f"frame {number}") for kind in ("title", "body", "token", "password", "key")
            }
            message = frame.format(**texts)
            for text in texts.values():
                if text not in message:
                    del self._canaries[text]
            async with self._connected() as client:
                await client.socket.send(message)
                await client.receive()
        async with self._connected() as client:
            for _ in range(UNREADABLE):
                await client.socket.send(self._canaries.new("title", "unreadable"))
            assert 4001 == await client.closed()

    async def _break_protocol(self) -> None:
        """What is no message for the gateway: binary, not UTF-8, too large, no frame, no HTTP; and a reason for closing."""
        canaries = self._canaries
        bad_text = Frame(TEXT, canaries.new("title", "not UTF-8").encode() + b"\xff").serialize(mask=True)
        for raw in (bad_text, b"\xff\xff" + canaries.new("title", "no frame").encode()):
            async with self._connected() as client:
                client.socket.transport.write(raw)
                await client.closed()
        for message in (canaries.new("title", "binary").encode(), canaries.new("title", "too large") * 100_000):
            async with self._connected() as client:
                with suppress(ConnectionClosed):
                    await client.socket.send(message)
                await client.closed()
        async with self._connected() as client:
            await client.socket.close(4321, canaries.new("token", "reason"))
        for line in ("{}", "GET /{} HTTP/1.1", "GET /healthz?{} HTTP/1.1", "GET / HTTP/1.1\r\nAuthorization: Basic {}"):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._gateway.port)
            writer.write(f"{line.format(canaries.new('token', 'no upgrade'))}\r\nHost: tests\r\n\r\n".encode())
            async with asyncio.timeout(5):
                await reader.read()
            writer.close()

    async def _lose_database(self) -> None:
        """A row that PostgreSQL refuses, statements that wait too long, and connections that end in the middle of theirs."""
        async with connected(self._dsn) as db:
            await db.execute(_HINDER)
            await self._add_together("refused row", login=UNWELCOME)
            async with db.transaction():
                await db.execute("LOCK TABLE calendar_event IN ACCESS EXCLUSIVE MODE")
                await self._add_together("locked")
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._add_together("hung up"))
                    await until(lambda: db.fetchval(_WAITING))
                    await db.execute(_HANG_UP)
        if not self._stage.short:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._add_together("killed"))
                self._stage.signal_postgres(signal.SIGKILL)
            await asyncio.to_thread(self._stage.restart)
        await until(
            lambda: self._ask("MngAddCalendarEvent", self._canaries.event("back")), lambda reply: reply["status"] == 200
        )

    async def _add_together(self, way: str, **more: object) -> None:
        """Adds with and without a key, all in flight at once."""
        for number in range(HELD):
            key = {"idempotencyKey": self._canaries.new("key", way)} if number % 2 else {}
            frame = {"command": "MngAddCalendarEvent", "extID": number, "data": self._canaries.event(way, **more), **key}
            await self._client.socket.send(msgspec.json.encode(frame).decode())
        for _ in range(HELD):
            self.told["MngAddCalendarEvent", (await self._client.receive())["status"]] += 1

    async def _stop(self) -> int:
        """SIGTERM while commands are under way."""
        async with connected(self._dsn) as db, db.transaction():
            await db.execute("LOCK TABLE calendar_event IN ACCESS EXCLUSIVE MODE")
            frame = {"command": "MngAddCalendarEvent", "extID": 1, "data": self._canaries.event("drain")}
            await self._client.socket.send(msgspec.json.encode(frame).decode())
            await until(lambda: db.fetchval(_WAITING))
            self._gateway.signal(signal.SIGTERM)
            await self._client.receive()
            late = {**frame, "data": self._canaries.event("after SIGTERM"), "extID": 2}
            with suppress(ConnectionClosed):
                await self._client.socket.send(msgspec.json.encode(late).decode())
            await self._client.closed()
        return await self._gateway.exited()
