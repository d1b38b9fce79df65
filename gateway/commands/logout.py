"""MngLogout: ends the session that the command was sent with, on every socket and in every process."""

from __future__ import annotations

from msgspec import Struct

from gateway.context import Context
from gateway.fields import Request


class Logout(Request, frozen=True, kw_only=True):
    """`data` of MngLogout: nothing."""


class LogoutReply(Struct, frozen=True):
    """Nothing to say beyond the status."""


async def logout(context: Context, _request: Logout) -> LogoutReply:
    """The socket stays open and may sign in again: it lets go of the session first, or it would be closed with it."""
    access, identity = context.require_access(), context.identity
    session = identity.session
    if session is None or session != access.session:
        await context.services.sessions.revoke(access.session)
        return LogoutReply()
    identity.close()
    try:
        await context.services.sessions.revoke(access.session)
    except BaseException:
        if identity.session is None:
            identity.open(session)
        raise
    return LogoutReply()
