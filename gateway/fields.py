"""The types of the fields that clients send, with their bounds. A bound that a setting limits is checked in the command."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw, Struct, field

INTEGER_MAX = 2**53 - 1
"""The largest integer that a JavaScript client reads exactly."""
TIME_MAX = 253_402_300_799
"""The last second of the year 9999; anything later is milliseconds sent by mistake."""
REMIND_BEFORE_MAX = 366 * 86_400

Integer = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Id = Annotated[int, Meta(ge=1, le=INTEGER_MAX)]
Time = Annotated[int, Meta(ge=0, le=TIME_MAX, description="seconds since 1970")]
StartTime = Annotated[int, Meta(ge=1, le=TIME_MAX, description="seconds since 1970")]
RemindBefore = Annotated[int, Meta(ge=0, le=REMIND_BEFORE_MAX, description="seconds")]
Flag = Annotated[int, Meta(ge=0, le=1)]
Code = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{0,64}\Z", description="[A-Za-z0-9_.-], up to 64 characters")]
NotBlank = Annotated[str, Meta(pattern=r"\S", description="not blank")]
EventType = Annotated[
    int,
    Meta(ge=0, le=6, description="0 task, 1 reminder, 2 call, 3 meeting, 4 follow-up, 5 deadline, 6 system"),
]
EventStatus = Annotated[int, Meta(ge=0, le=3, description="0 open, 1 done, 2 cancelled, 3 archived")]
Priority = Annotated[int, Meta(ge=0, le=3, description="0 low, 1 normal, 2 high, 3 urgent")]
Role = Annotated[int, Meta(ge=0, le=2, description="0 organizer, 1 required, 2 optional")]
ParticipantStatus = Annotated[int, Meta(ge=0, le=3, description="0 invited, 1 accepted, 2 declined, 3 tentative")]

NULL = Raw(b"null")


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Base of every command's `data`. A client's copy of `__access` is taken and dropped unread."""

    access_claim: Raw = field(name="__access", default=NULL)
