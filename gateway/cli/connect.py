"""One database connection for a command-line tool, at the schema this gateway needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from gateway import schema
from gateway.database_pool import connect_arguments
from gateway.settings import Settings


async def connected(settings: Settings, dsn: str, work: Callable[[Any], Awaitable[Any]], *, any_version: bool = False) -> Any:
    """What `work` returns, given a connection. Raises StartupError when the schema has another version, unless any will do."""
    db = await schema.connect(connect_arguments(settings, dsn))
    try:
        if not any_version:
            await schema.check(db)
        return await work(db)
    finally:
        await db.close()
