"""The table of contents: every command of the gateway on one screen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Struct

from gateway.commands.add_calendar_event import AddCalendarEvent, add_calendar_event
from gateway.commands.archive_calendar_event import ArchiveCalendarEvent, archive_calendar_event
from gateway.commands.complete_calendar_event import CompleteCalendarEvent, complete_calendar_event
from gateway.commands.delete_calendar_event import DeleteCalendarEvent, delete_calendar_event
from gateway.commands.get_calendar_event import GetCalendarEvent, get_calendar_event
from gateway.commands.get_calendar_events_by_filter import (
    GetCalendarEventsByFilter,
    RowsReply,
    get_calendar_events_by_filter,
)
from gateway.commands.health_check import HealthCheck, HealthCheckReply, health_check
from gateway.commands.login import Login, LoginReply, login
from gateway.commands.logout import Logout, LogoutReply, logout
from gateway.commands.set_calendar_participant_status import (
    SetCalendarParticipantStatus,
    set_calendar_participant_status,
)
from gateway.commands.update_calendar_event import UpdateCalendarEvent, update_calendar_event
from gateway.context import Context
from gateway.event import DeleteReply, EventReply
from gateway.fields import Request
from gateway.wire import Streamed

Handler = Callable[[Context, Any], Awaitable[Struct | Streamed]]


class Command(Struct, frozen=True):
    """How a command is decoded, answered and guarded."""

    request: type[Request]
    reply: type[Struct]
    handler: Handler
    needs: str
    """`nothing`, a `session`, or a session whose type has the `calendar`."""
    writes: bool
    """Whether it takes an `idempotencyKey`."""
    decode: Callable[[bytes | msgspec.Raw], Any]


def _command(request: type[Request], reply: type[Struct], handler: Handler, needs: str, *, writes: bool = False) -> Command:
    return Command(request, reply, handler, needs, writes, msgspec.json.Decoder(request).decode)


COMMANDS: dict[str, Command] = {
    "HealthCheck": _command(HealthCheck, HealthCheckReply, health_check, needs="nothing"),
    "MngLogin": _command(Login, LoginReply, login, needs="nothing"),
    "MngLogout": _command(Logout, LogoutReply, logout, needs="session"),
    "MngAddCalendarEvent": _command(AddCalendarEvent, EventReply, add_calendar_event, needs="calendar", writes=True),
    "MngUpdateCalendarEvent": _command(UpdateCalendarEvent, EventReply, update_calendar_event, needs="calendar", writes=True),
    "MngCompleteCalendarEvent": _command(
        CompleteCalendarEvent, EventReply, complete_calendar_event, needs="calendar", writes=True
    ),
    "MngArchiveCalendarEvent": _command(
        ArchiveCalendarEvent, EventReply, archive_calendar_event, needs="calendar", writes=True
    ),
    "MngDeleteCalendarEvent": _command(DeleteCalendarEvent, DeleteReply, delete_calendar_event, needs="calendar", writes=True),
    "MngGetCalendarEvent": _command(GetCalendarEvent, EventReply, get_calendar_event, needs="calendar"),
    "MngGetCalendarEventsByFilter": _command(
        GetCalendarEventsByFilter, RowsReply, get_calendar_events_by_filter, needs="calendar"
    ),
    "MngSetCalendarParticipantStatus": _command(
        SetCalendarParticipantStatus, EventReply, set_calendar_participant_status, needs="calendar", writes=True
    ),
}
