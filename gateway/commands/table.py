"""The table of contents: every command of the gateway on one screen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from gateway.commands.add_calendar_event import AddCalendarEvent, add_calendar_event
from gateway.commands.health_check import HealthCheck, HealthCheckReply, health_check
from gateway.commands.login import Login, LoginReply, login
from gateway.commands.logout import Logout, LogoutReply, logout
from gateway.context import Context
from gateway.event import EventReply
from gateway.fields import Request

Handler = Callable[[Context, Any], Awaitable[msgspec.Struct]]


class Command(NamedTuple):
    """How a command is decoded, answered and guarded."""

    request: type[Request]
    reply: type[msgspec.Struct]
    handler: Handler
    needs: str
    """`nothing`, a `session`, or a session whose type has the `calendar`."""
    decode: Callable[[bytes | msgspec.Raw], Any]


def _command(request: type[Request], reply: type[msgspec.Struct], handler: Handler, needs: str) -> Command:
    return Command(request, reply, handler, needs, msgspec.json.Decoder(request).decode)


COMMANDS: dict[str, Command] = {
    "HealthCheck": _command(HealthCheck, HealthCheckReply, health_check, needs="nothing"),
    "MngLogin": _command(Login, LoginReply, login, needs="nothing"),
    "MngLogout": _command(Logout, LogoutReply, logout, needs="session"),
    "MngAddCalendarEvent": _command(AddCalendarEvent, EventReply, add_calendar_event, needs="calendar"),
}
