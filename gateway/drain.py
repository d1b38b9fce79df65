"""The end of all sockets when the gateway stops: what is in flight is answered first, and closing is spread over time.

That nothing new comes in meanwhile is up to server.py.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from gateway import wire
from gateway.connection import Connection
from gateway.errors import CloseCode, spread_ms
from gateway.log import Logger
from gateway.settings import Settings

CLOSING_SHARE = 0.2
"""Of the drain time, what is kept for closing the sockets, spread out so that clients do not come back at once."""
RETURNS_PER_SECOND = 500
"""Clients told to come back within the same second: each is an upgrade, a look at its session and a burst of commands."""
CLOSED_AT_ONCE = 100
"""Sockets closed in one go; some 10 ms of work."""


async def drain_connections(connections: set[Connection], empty: asyncio.Event, settings: Settings, logger: Logger) -> None:
    """Every client is told, commands in flight are answered, then sockets close with 1012, one after the other.

    Returns within the drain time. `empty` is set while no connection is open.
    """
    logger.info("draining", connections=len(connections))
    closing_seconds = settings.drain_seconds * CLOSING_SHARE
    deadline = asyncio.get_running_loop().time() + settings.drain_seconds - closing_seconds
    returning_seconds = min(settings.drain_seconds, 1 + len(connections) / RETURNS_PER_SECOND)
    for connection in tuple(connections):
        connection.tell(wire.drain_notice(spread_ms(1000, 1000 + int(1000 * returning_seconds))))
    try:
        async with asyncio.timeout_at(deadline):
            for connection in tuple(connections):
                await connection.settled()
    except TimeoutError:
        logger.warning("drain time is over with commands in flight")
    await _close_spread(connections, empty, closing_seconds)


async def _close_spread(connections: set[Connection], empty: asyncio.Event, closing_seconds: float) -> None:
    """Closes the sockets one after the other over half the time; the other half is for the closing handshakes."""
    ending = tuple(connections)
    with suppress(TimeoutError):
        async with asyncio.timeout(closing_seconds):
            for number, connection in enumerate(ending, start=1):
                connection.end(CloseCode.SERVICE_RESTART, "the gateway restarts: come back")
                if number % CLOSED_AT_ONCE == 0:
                    await asyncio.sleep(closing_seconds / 2 * CLOSED_AT_ONCE / len(ending))
            await empty.wait()
