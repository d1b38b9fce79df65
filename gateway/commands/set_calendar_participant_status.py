"""MngSetCalendarParticipantStatus: answers the session's manager's own invitation."""

from __future__ import annotations

import time

from msgspec import structs

from gateway.access import Access
from gateway.commands.changes import changed
from gateway.context import Context
from gateway.errors import CommandError, ErrorCode
from gateway.event import Event, EventReply
from gateway.fields import Id, ParticipantStatus, Request


class SetCalendarParticipantStatus(Request, frozen=True, kw_only=True):
    """`data` of MngSetCalendarParticipantStatus."""

    id: Id
    status: ParticipantStatus


async def set_calendar_participant_status(context: Context, request: SetCalendarParticipantStatus) -> EventReply:
    """Any participant may answer but the owner, who has always accepted."""
    now = int(time.time())

    def change(access: Access, event: Event) -> Event:
        if access.manager_id not in [row.manager_id for row in event.participants]:
            raise CommandError(ErrorCode.FORBIDDEN, "answering needs an invitation to the event")
        if access.manager_id == event.owner_manager_id:
            raise CommandError(ErrorCode.INVALID_DATA, "the owner has always accepted", field="status")
        answered = [
            structs.replace(row, status=request.status, updated_time=now)
            if row.manager_id == access.manager_id and row.status != request.status
            else row
            for row in event.participants
        ]
        return changed(access, event, now, participants=answered)

    return EventReply(await context.services.calendar.change_event(context.require_access(), request.id, change, context.key))
