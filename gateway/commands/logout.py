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
    """The socket stays open and may sign in again."""
    access = context.require_access()
    await context.services.sessions.revoke(access.session_id)
    if context.identity.session is not None and context.identity.session.id == access.session_id:
        context.identity.close()
    return LogoutReply()
