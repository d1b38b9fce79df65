"""A calendar event as replies carry it."""

from __future__ import annotations

from msgspec import Raw, Struct


class Participant(Struct, frozen=True, gc=False):
    """A manager who takes part in an event."""

    event_id: int
    manager_id: int
    role: int
    status: int
    created_time: int
    updated_time: int


class Event(Struct, frozen=True, kw_only=True, gc=False):
    """The full event; `participants` has the owner first, then by manager id."""

    id: int
    brand: str
    desk: str
    owner_manager_id: int
    created_by: int
    updated_by: int
    type: int
    status: int
    priority: int
    title: str
    ast_json: Raw
    start_time: int
    end_time: int
    all_day: int
    remind_time: int
    remind_before_sec: int
    reminder_sent_time: int
    customer_id: int
    lead_id: int
    login: int
    created_time: int
    updated_time: int
    version: int
    participants: list[Participant]


class EventReply(Struct, frozen=True, gc=False):
    """The answer of every command that concerns one event."""

    event: Event | Raw


class DeleteReply(Struct, frozen=True):
    """The id of the event that is gone."""

    id: int
