"""MngUpdateCalendarEvent: changes the fields that are sent; the others stay as they are."""

from __future__ import annotations

import time
from typing import Any

from msgspec import Raw

from gateway.access import Access
from gateway.commands.changes import changed, require_change
from gateway.commands.event_fields import require_participants, require_text, require_times
from gateway.commands.participants import ParticipantGiven, given_rows, participants_of, with_former_owner
from gateway.context import Context
from gateway.errors import CommandError, ErrorCode
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

NOT_SENT = Raw(b"")
_COPIED = (
    "title",
    "start_time",
    "end_time",
    "desk",
    "type",
    "status",
    "priority",
    "all_day",
    "remind_time",
    "remind_before_sec",
    "customer_id",
    "lead_id",
    "login",
)
"""Fields that are taken as they are sent."""

_DERIVED = ("owner_manager_id", "created_by", "participants", "participant_manager_ids")


class UpdateCalendarEvent(Request, frozen=True, kw_only=True):
    """`data` of MngUpdateCalendarEvent. `null` counts as omitted, except for `ast_json`; 0 keeps owner and creator."""

    id: Id
    if_version: Integer | None = None
    title: NotBlank | None = None
    start_time: StartTime | None = None
    end_time: Time | None = None
    brand: Code | None = None
    desk: Code | None = None
    owner_manager_id: Integer | None = None
    created_by: Integer | None = None
    type: EventType | None = None
    status: EventStatus | None = None
    priority: Priority | None = None
    ast_json: Raw = NOT_SENT
    all_day: Flag | None = None
    remind_time: Time | None = None
    remind_before_sec: RemindBefore | None = None
    customer_id: Integer | None = None
    lead_id: Integer | None = None
    login: Integer | None = None
    participant_manager_ids: list[Id] | None = None
    participants: list[ParticipantGiven] | None = None


async def update_calendar_event(context: Context, request: UpdateCalendarEvent) -> EventReply:
    """Answers with the event after the change, even if the caller may no longer see it."""
    _check(context, request)
    now = int(time.time())

    def change(access: Access, event: Event) -> Event:
        _require_rights(access, request, event)
        require_change(access, event, request.if_version)
        after = changed(access, event, now, **_fields(request, event, now))
        _require_times(request, after)
        return after

    return EventReply(await context.services.calendar.change_event(context.require_access(), request.id, change, context.key))


def _check(context: Context, request: UpdateCalendarEvent) -> None:
    """Raises CommandError for what is wrong whatever the event is."""
    settings = context.services.settings
    if request.ast_json == NOT_SENT and all(getattr(request, name) is None for name in (*_COPIED, *_DERIVED)):
        writable = ", ".join((*_COPIED, "ast_json", *_DERIVED))
        raise CommandError(
            ErrorCode.FIELD_REQUIRED, f"at least one field to change is required: {writable} (brand never changes)"
        )
    require_text(request.title or "", NULL if request.ast_json == NOT_SENT else request.ast_json, settings)
    require_participants(request.participants, request.participant_manager_ids, settings)
    if request.start_time is not None and request.end_time is not None:
        require_times(request.start_time, request.end_time)


def _require_times(request: UpdateCalendarEvent, after: Event) -> None:
    """Raises CommandError INVALID_DATA when the one time that was sent does not go with the other, which stands."""
    if after.end_time < after.start_time:
        stands = "end_time" if request.end_time is None else "start_time"
        message = f"end_time must be >= start_time; the event's {stands} is {getattr(after, stands)}"
        raise CommandError(ErrorCode.INVALID_DATA, message, field="end_time")


def _require_rights(access: Access, request: UpdateCalendarEvent, event: Event) -> None:
    """Raises CommandError FORBIDDEN for a brand, desk or creator that the session may not name."""
    if request.brand and access.brand_for(request.brand) != event.brand:
        raise CommandError(ErrorCode.INVALID_DATA, "brand never changes: leave it out", field="brand")
    if request.desk is not None and request.desk != event.desk:
        access.require_desk(request.desk)
    if request.created_by and request.created_by != event.created_by:
        access.require_creator(request.created_by)


def _fields(request: UpdateCalendarEvent, event: Event, now: int) -> dict[str, Any]:
    """The event's fields after the change, as far as they were sent or follow from what was sent."""
    fields = {name: value for name in _COPIED if (value := getattr(request, name)) is not None}
    if request.ast_json != NOT_SENT:
        fields["ast_json"] = request.ast_json
    owner = request.owner_manager_id or event.owner_manager_id
    return fields | {
        "created_by": request.created_by or event.created_by,
        "owner_manager_id": owner,
        "participants": _participants(request, event, owner, now),
    }


def _participants(request: UpdateCalendarEvent, event: Event, owner: int, now: int) -> list[Participant]:
    before = {row.manager_id: row for row in event.participants}
    given = given_rows(request.participants, request.participant_manager_ids)
    if given is None:
        if owner == event.owner_manager_id:
            return event.participants
        given = [ParticipantGiven(manager_id=manager_id) for manager_id in before]
    return participants_of(event.id, owner, given, with_former_owner(before, event.owner_manager_id, owner, now), now)
