"""MngLogin: opens a session for a person, which becomes the socket's."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from msgspec import Meta, Struct

from gateway.context import Context
from gateway.errors import CommandError, ErrorCode
from gateway.fields import INTEGER_MAX, Request
from gateway.passwords import PASSWORD_CHARS_MAX

LOGIN_CHARS_MAX = 128


class Login(Request, frozen=True, kw_only=True):
    """`data` of MngLogin. A login that is a number may be sent as one."""

    login: Annotated[str, Meta(min_length=1, max_length=LOGIN_CHARS_MAX)] | Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
    password: Annotated[str, Meta(max_length=PASSWORD_CHARS_MAX)]


class LoginReply(Struct, frozen=True):
    """The session that was opened; `token` proves it on other sockets until `expires_time` (time_t)."""

    token: str
    expires_time: int
    manager_id: int
    type: int
    brands: list[str]


async def login(context: Context, request: Login) -> LoginReply:
    """An unknown login, a wrong password and a disabled manager get the same answer at the same cost."""
    services = context.services
    attempt = str(request.login), context.identity.address
    services.sign_ins.require(*attempt)
    manager = await services.sessions.find_manager(attempt[0])
    stored = manager.password_hash if manager else None
    matches = await services.passwords.matches(request.password, stored, attempt, partial(services.sign_ins.require, *attempt))
    session = await services.sessions.open(manager.id) if manager and matches and not manager.disabled else None
    if manager is None or session is None:
        services.sign_ins.failed(*attempt)
        services.metrics.sign_in_failures.labels("password").inc()
        raise CommandError(ErrorCode.UNAUTHORIZED, "login or password is wrong")
    services.sign_ins.succeeded(*attempt)
    context.identity.open(session)
    return LoginReply(
        token=services.tokens.sign(session),
        expires_time=session.expires_time,
        manager_id=manager.id,
        type=manager.type,
        brands=manager.brands,
    )
