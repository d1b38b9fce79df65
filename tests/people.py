"""Managers for tests: many of them, of every kind, who prove who they are in each frame instead of signing in."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from typing import Any

from gateway.tokens import Session, Tokens
from tests.calendar_model import Json, Manager
from tests.client import EVENT, Client
from tests.conftest import settings_for_tests

LONG_NAMES = {"SetCalendarParticipantStatus", "GetCalendarEventsByFilter"}


def wire_name(name: str) -> str:
    """`Add` is MngAddCalendarEvent; names that say Calendar already get the prefix alone."""
    return f"Mng{name}" if name in LONG_NAMES else f"Mng{name}CalendarEvent"


async def add_managers(db: Any, managers: Iterable[Manager]) -> list[str]:
    """Stores managers without a password, each with a live session: their tokens."""
    tokens, expires = [], int(time.time()) + 3600
    for manager in managers:
        session = Session(str(uuid.uuid4()), manager.id, expires)
        await db.execute(
            """
            INSERT INTO manager (id, login, password_hash, type, brands, desk_mask) VALUES ($1, $2, '', $3, $4, $5)
            ON CONFLICT (id) DO UPDATE SET type = $3, brands = $4, desk_mask = $5
            """,
            manager.id,
            str(manager.id),
            *manager[1:],
        )
        await db.execute(
            "INSERT INTO session (id, manager_id, expires_time) VALUES ($1, $2, $3)", session.id, manager.id, expires
        )
        tokens.append(Tokens(settings_for_tests()).sign(session))
    return tokens


class Person:
    """A manager on a socket."""

    def __init__(self, client: Client, manager: Manager, token: str) -> None:
        self.client = client
        self.id = manager.id
        self.token = token

    async def command(self, name: str, **data: Any) -> Json:
        """The whole reply to a calendar command: `command("Update", id=1)`."""
        return await self.client.command(wire_name(name), data, __token=self.token)

    async def event(self, name: str, **data: Any) -> Json:
        """The event that a command answers with."""
        reply = await self.command(name, **data)
        assert reply["status"] == 200, reply
        event: Json = reply["data"]["event"]
        return event

    async def refusal(self, name: str, **data: Any) -> tuple[int, str, str | None]:
        """How a command is refused: status, error and field. It says that nothing was done."""
        reply = await self.command(name, **data)
        assert reply["status"] != 200, reply
        assert reply["outcome"] == "not_executed"
        return reply["status"], reply["error"], reply.get("field")

    async def add(self, **data: Any) -> Json:
        return await self.event("Add", **{**EVENT, **data})

    async def get(self, event_id: int) -> Json:
        return await self.event("Get", id=event_id)

    async def filter(self, **data: Any) -> Json:
        """The page of a filter; what is not given takes everything in."""
        page = {"from": 0, "to": 10**11, "limit": 50_000, "offset": 0, "deskFilter": "*"}
        reply = await self.command("GetCalendarEventsByFilter", **{**page, **data})
        assert reply["status"] == 200, reply
        found: Json = reply["data"]
        return found

    async def answer(self, event_id: int, status: int) -> Json:
        return await self.event("SetCalendarParticipantStatus", id=event_id, status=status)


async def team(db: Any, connect: Any, gateway: Any, *managers: Manager) -> list[Person]:
    """Managers with a session each, all on one socket: each frame carries its own proof."""
    client = await connect(gateway, None)
    tokens = await add_managers(db, managers)
    return [Person(client, manager, token) for manager, token in zip(managers, tokens, strict=True)]


def shown(event: Json) -> list[tuple[int, int, int]]:
    """The participants as manager, role and status."""
    return [(row["manager_id"], row["role"], row["status"]) for row in event["participants"]]
