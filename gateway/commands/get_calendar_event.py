"""MngGetCalendarEvent: reads one event."""

from __future__ import annotations

from gateway.context import Context
from gateway.event import EventReply
from gateway.fields import Id, Request


class GetCalendarEvent(Request, frozen=True, kw_only=True):
    """`data` of MngGetCalendarEvent."""

    id: Id


async def get_calendar_event(context: Context, request: GetCalendarEvent) -> EventReply:
    """An event that is hidden from the session answers as one that is absent."""
    return EventReply(await context.services.calendar.get_event(context.require_access(), request.id))
