"""A websockets server connection whose socket is not left open by a handshake that is cancelled, as at a stop."""

from __future__ import annotations

import asyncio
from typing import Any

from websockets.asyncio.server import ServerConnection


class ServerSocket(ServerConnection):
    """Of the gateway's own port and of the metrics page."""

    async def handshake(self, *args: Any, **kwargs: Any) -> None:
        """As the library's, which leaves the socket open when it is cancelled."""
        try:
            await super().handshake(*args, **kwargs)
        except asyncio.CancelledError:
            self.transport.abort()
            raise
