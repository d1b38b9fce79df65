"""HealthCheck: says that the gateway answers, and the limits in force; `/readyz` is what asks the database."""

from __future__ import annotations

import time

from msgspec import Struct

from gateway import __version__
from gateway.context import Context
from gateway.fields import Request
from gateway.settings import Settings


class HealthCheck(Request, frozen=True, kw_only=True):
    """`data` of HealthCheck: nothing."""


class Limits(Struct, frozen=True):
    """The limits that a client can run into; docs/settings.md explains each."""

    frame_bytes_max: int
    title_chars_max: int
    body_bytes_max: int
    body_nesting_max: int
    participants_max: int
    manager_connections_max: int
    address_connections_max: int
    manager_commands_per_second_max: float
    manager_commands_burst_max: int
    manager_in_flight_max: int
    in_flight_max: int
    unreadable_frames_max: int
    authentication_seconds: float
    message_seconds: float
    outbox_bytes_max: int
    outbox_stall_seconds: float
    stream_seconds: float
    sign_in_failures_max: int
    sign_in_address_failures_max: int
    sign_in_forget_seconds: float


class HealthCheckReply(Struct, frozen=True):
    """`time` is the gateway's clock (time_t)."""

    status: str
    version: str
    time: int
    limits: Limits


async def health_check(context: Context, _request: HealthCheck) -> HealthCheckReply:
    """Answers from memory alone."""
    return HealthCheckReply("ok", __version__, int(time.time()), _limits(context.services.settings))


def _limits(settings: Settings) -> Limits:
    return Limits(**{name: getattr(settings, name) for name in Limits.__struct_fields__})
