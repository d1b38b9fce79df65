"""MngDeleteCalendarEvent: removes an event and its participants."""

from __future__ import annotations

from gateway.commands.changes import require_change
from gateway.context import Context
from gateway.event import DeleteReply
from gateway.fields import Id, Integer, Request


class DeleteCalendarEvent(Request, frozen=True, kw_only=True):
    """`data` of MngDeleteCalendarEvent."""

    id: Id
    if_version: Integer | None = None


async def delete_calendar_event(context: Context, request: DeleteCalendarEvent) -> DeleteReply:
    """Answers once event and participants are gone."""
    await context.services.calendar.delete_event(
        context.require_access(),
        request.id,
        lambda access, event: require_change(access, event, request.if_version),
        context.key,
    )
    return DeleteReply(request.id)
