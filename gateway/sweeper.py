"""The clock of all sockets: one loop that pings, and ends those that are late in any way. No socket has a timer of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from websockets.protocol import OPEN

from gateway.connection import Connection
from gateway.errors import CloseCode
from gateway.settings import Settings

SWEEP_SECONDS = 0.5
"""How late a limit may act."""
SLICE = 500
"""Sockets looked at before other work gets its turn; some 1 ms."""


async def sweep_forever(connections: set[Connection], settings: Settings) -> None:
    """Looks at every connection twice a second."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        await sweep(tuple(connections), settings)


async def sweep(connections: Iterable[Connection], settings: Settings) -> None:
    """Looks at every connection once."""
    for number, connection in enumerate(connections, start=1):
        if connection.socket.state is OPEN:
            _check(connection, settings)
        else:
            connection.check_closing(connection.socket.loop.time())
        if number % SLICE == 0:
            await asyncio.sleep(0)


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
