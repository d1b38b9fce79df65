"""MngGetCalendarEventsByFilter: reads the events that overlap a time, as far as the session may see them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw, Struct, field

from gateway.calendar_store.event_filter import EventFilter
from gateway.context import Context
from gateway.errors import CommandError, ErrorCode
from gateway.event import Event
from gateway.fields import Code, EventStatus, EventType, Integer, Request, Time
from gateway.wire import Streamed

ROWS_MAX = 50_000
MASK_CHARS_MAX = 1024


class After(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The row behind which to go on: the last one of the page before."""

    start_time: Time
    id: Integer


class GetCalendarEventsByFilter(Request, frozen=True, kw_only=True):
    """`data` of MngGetCalendarEventsByFilter. 0 does not filter, but for `status` and `type`."""

    from_time: Time = field(name="from")
    to_time: Time = field(name="to")
    limit: Annotated[int, Meta(ge=1, le=ROWS_MAX)]
    offset: Integer
    desk_filter: Annotated[str, Meta(max_length=MASK_CHARS_MAX, description="a desk mask")] = field(name="deskFilter")
    manager_id: Integer | None = None
    brand: Code | None = None
    customer_id: Integer | None = None
    lead_id: Integer | None = None
    login: Integer | None = None
    status: EventStatus | None = None
    type: EventType | None = None
    after: After | None = None


class RowsReply(Struct, frozen=True):
    """A page; `count` is the number of `rows`, `has_more` tells whether there are others behind it."""

    rows: list[Event] | list[Raw]
    count: int
    has_more: bool


async def get_calendar_events_by_filter(context: Context, request: GetCalendarEventsByFilter) -> RowsReply | Streamed:
    """A page too large to hold at once is streamed, from one snapshot."""
    if request.from_time >= request.to_time:
        raise CommandError(ErrorCode.INVALID_DATA, "to must be > from", field="to")
    access = context.require_access()
    wanted = EventFilter(
        from_time=request.from_time,
        to_time=request.to_time,
        limit=request.limit,
        offset=request.offset,
        desk_mask=request.desk_filter,
        manager_id=request.manager_id or 0,
        brand=access.brand_for(request.brand) if request.brand else "",
        customer_id=request.customer_id or 0,
        lead_id=request.lead_id or 0,
        login=request.login or 0,
        status=request.status,
        type=request.type,
        after=(request.after.start_time, request.after.id) if request.after else None,
    )
    rows = await context.services.event_reader.page(access, wanted, context.identity)
    if rows is None:
        return await context.services.event_reader.stream(access, wanted, context.identity)
    page = [Raw(row.encode()) for row in rows[: request.limit]]
    return RowsReply(page, len(page), has_more=len(rows) > request.limit)
