"""MngDeleteCalendarEvent: removes an event and its participants."""

from __future__ import annotations

from msgspec import Struct

from gateway.commands.changes import require_change
from gateway.context import Context
from gateway.fields import Id, Integer, Request


class DeleteCalendarEvent(Request, frozen=True, kw_only=True):
    """`data` of MngDeleteCalendarEvent."""

    id: Id
    if_version: Integer | None = None


class DeleteReply(Struct, frozen=True):
    """The id of the event that is gone."""

    id: int


async def delete_calendar_event(context: Context, request: DeleteCalendarEvent) -> DeleteReply:
    """Answers once event and participants are gone."""
    await context.services.calendar.delete_event(
        context.require_access(), request.id, lambda access, event: require_change(access, event, request.if_version)
    )
    return DeleteReply(request.id)
