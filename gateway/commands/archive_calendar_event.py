"""MngArchiveCalendarEvent: sets an event's status to 3 (archived); one that has it already stays as it is."""

from __future__ import annotations

import time

from gateway.access import Access
from gateway.commands.changes import changed, require_change
from gateway.context import Context
from gateway.event import Event, EventReply
from gateway.fields import Id, Integer, Request

ARCHIVED = 3


class ArchiveCalendarEvent(Request, frozen=True, kw_only=True):
    """`data` of MngArchiveCalendarEvent."""

    id: Id
    if_version: Integer | None = None


async def archive_calendar_event(context: Context, request: ArchiveCalendarEvent) -> EventReply:
    """Answers with the event after the change."""

    def change(access: Access, event: Event) -> Event:
        require_change(access, event, request.if_version)
        return changed(access, event, int(time.time()), status=ARCHIVED)

    return EventReply(await context.services.calendar.change_event(context.require_access(), request.id, change, context.key))
