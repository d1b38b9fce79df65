"""MngAddCalendarEvent: stores a new event with its participants."""

from __future__ import annotations

import time

from msgspec import Raw

from gateway.access import Access
from gateway.commands.event_fields import require_participants, require_text, require_times
from gateway.commands.participants import ParticipantGiven, invited, participants_of
from gateway.context import Context
from gateway.event import Event, EventReply, Participant
from gateway.fields import (
    NULL,
    Code,
    EventStatus,
    EventType,
    Flag,
    Id,
    Integer,
    NotBlank,
    Priority,
    RemindBefore,
    Request,
    StartTime,
    Time,
)


class AddCalendarEvent(Request, frozen=True, kw_only=True):
    """`data` of MngAddCalendarEvent. `null` and 0 count as omitted, except for `ast_json`, where null is a value."""

    title: NotBlank
    start_time: StartTime
    end_time: Time
    brand: Code | None = None
    desk: Code | None = None
    owner_manager_id: Integer | None = None
    created_by: Integer | None = None
    type: EventType | None = None
    status: EventStatus | None = None
    priority: Priority | None = None
    ast_json: Raw = NULL
    all_day: Flag | None = None
    remind_time: Time | None = None
    remind_before_sec: RemindBefore | None = None
    customer_id: Integer | None = None
    lead_id: Integer | None = None
    login: Integer | None = None
    participant_manager_ids: list[Id] | None = None
    participants: list[ParticipantGiven] | None = None


async def add_calendar_event(context: Context, request: AddCalendarEvent) -> EventReply:
    """Answers with the event as committed: built here, it equals what a later read gives."""
    require_times(request.start_time, request.end_time)
    require_text(request.title, request.ast_json, context.services.settings)
    require_participants(request.participants, request.participant_manager_ids, context.services.settings)
    access = context.require_access()
    brand = access.brand_for(request.brand)
    desk = request.desk or ""
    access.require_desk(desk)
    created_by = request.created_by or access.manager_id
    access.require_creator(created_by)
    calendar = context.services.calendar
    event = _event(await calendar.ids.take(), request, access, brand, created_by)
    await calendar.add_event(access, event, context.key)
    return EventReply(event)


def _event(event_id: int, request: AddCalendarEvent, access: Access, brand: str, created_by: int) -> Event:
    now = int(time.time())
    owner = request.owner_manager_id or created_by
    return Event(
        id=event_id,
        brand=brand,
        desk=request.desk or "",
        owner_manager_id=owner,
        created_by=created_by,
        updated_by=access.manager_id,
        type=request.type or 0,
        status=request.status or 0,
        priority=request.priority or 0,
        title=request.title,
        ast_json=request.ast_json,
        start_time=request.start_time,
        end_time=request.end_time,
        all_day=request.all_day or 0,
        remind_time=request.remind_time or 0,
        remind_before_sec=request.remind_before_sec or 0,
        reminder_sent_time=0,
        customer_id=request.customer_id or 0,
        lead_id=request.lead_id or 0,
        login=request.login or 0,
        created_time=now,
        updated_time=now,
        version=1,
        participants=_participants(event_id, owner, request, now),
    )


def _participants(event_id: int, owner: int, request: AddCalendarEvent, now: int) -> list[Participant]:
    if request.participants is None:
        return invited(event_id, owner, request.participant_manager_ids or (), now)
    return participants_of(event_id, owner, request.participants, {}, now)
