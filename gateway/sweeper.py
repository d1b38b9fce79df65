"""The clock of all sockets: one loop that pings, and ends those that are late in any way. No socket has a timer of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable

from websockets.protocol import OPEN

from gateway.connection import Connection
from gateway.errors import CloseCode
from gateway.settings import Settings

SWEEP_SECONDS = 0.5
"""How late a limit may act."""
LATE_SECONDS = 0.5
"""A sweep that is later by so much was held up with all else: what clients have sent since is yet to be read."""
UNFINISHED_WHOLE = 64
"""As many messages of the largest size may be unfinished, on all sockets together; each may have 15 seconds to come."""
SLICE = 500
"""Sockets looked at before other work gets its turn; some 1 ms."""


async def sweep_forever(connections: set[Connection], settings: Settings) -> None:
    """Looks at every connection twice a second."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + SWEEP_SECONDS
        await asyncio.sleep(SWEEP_SECONDS)
        if loop.time() - due > LATE_SECONDS:
            for connection in connections:
                connection.socket.stand_still()
        await sweep(tuple(connections), settings)


async def sweep(connections: Collection[Connection], settings: Settings) -> None:
    """Looks at every connection once."""
    for number, connection in enumerate(connections, start=1):
        if connection.socket.state is OPEN:
            _check(connection, settings)
        else:
            connection.check_closing(connection.socket.loop.time())
        if number % SLICE == 0:
            await asyncio.sleep(0)
    cut_unfinished(connections, UNFINISHED_WHOLE * settings.frame_bytes_max)


def cut_unfinished(connections: Iterable[Connection], bytes_max: int) -> None:
    """Ends those with unfinished messages until the others' are `bytes_max` together.

    First those without a proof of identity, of equals those that began first.
    """
    begun = [connection for connection in connections if connection.socket.begun_at is not None]
    over = sum(connection.socket.unfinished_bytes for connection in begun) - bytes_max
    if over > 0:
        for connection in sorted(begun, key=_worth):
            if over <= 0:
                break
            over -= connection.socket.unfinished_bytes
            connection.end(CloseCode.TOO_SLOW, "too many messages of all clients are unfinished")


def _worth(connection: Connection) -> tuple[bool, float]:
    return connection.identity.proved, connection.socket.begun_at or 0.0


def _check(connection: Connection, settings: Settings) -> None:
    socket = connection.socket
    now = socket.loop.time()
    connection.check_outbox(now)
    if connection.blocked:
        socket.stand_still()
    silent_seconds = now - socket.heard_at
    if _unproved(connection, now, settings.authentication_seconds):
        connection.end(CloseCode.NO_PROOF, "no proof of identity in time")
    elif _expired(connection):
        connection.end(CloseCode.SESSION_ENDED, "the session has expired")
    elif socket.begun_at is not None and now - socket.begun_at > settings.message_seconds:
        connection.end(CloseCode.TOO_SLOW, "a message did not arrive whole in time")
    elif silent_seconds > settings.ping_seconds + settings.pong_timeout_seconds:
        connection.end(CloseCode.NO_PONG, "no pong in time")
    elif silent_seconds > settings.ping_seconds and connection.pinged_at < socket.heard_at:
        connection.ping()


def _unproved(connection: Connection, now: float, limit_seconds: float) -> bool:
    if connection.identity.proved:
        connection.unproved_since = None
    elif connection.unproved_since is None:
        connection.unproved_since = now
    return connection.unproved_since is not None and now - connection.unproved_since > limit_seconds


def _expired(connection: Connection) -> bool:
    session = connection.identity.session
    return session is not None and session.expires_time <= time.time()
