"""What all changes of an event have in common: who may, at which version, and what a change leaves behind."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from gateway import wire
from gateway.access import Access
from gateway.errors import CommandError, ErrorCode
from gateway.event import Event, EventReply


def require_change(access: Access, event: Event, if_version: int | None) -> None:
    """Raises CommandError: FORBIDDEN for who may only read, then CONFLICT with the current event for a stale version."""
    if access.manager_id not in (event.owner_manager_id, event.created_by) and not access.is_admin():
        raise CommandError(ErrorCode.FORBIDDEN, "changing needs the event's owner or creator, ADMIN or CRM_ADMIN")
    if if_version is not None and if_version != event.version:
        raise CommandError(
            ErrorCode.CONFLICT,
            f"the event has version {event.version}, not {if_version}: read it anew",
            field="if_version",
            data=wire.encode(EventReply(event)),
        )


def changed(access: Access, event: Event, now: int, **fields: Any) -> Event:
    """The event with these fields, one version on; the very same event when they leave it equal."""
    after = structs.replace(event, **fields)
    if after == event:
        return event
    return structs.replace(
        after,
        version=event.version + 1,
        updated_by=access.manager_id,
        updated_time=max(now, event.created_time),
    )
