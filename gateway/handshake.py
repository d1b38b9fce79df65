"""The upgrade request: which path and proof it names, and the plain pages on the same port (/healthz, /readyz)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import InvalidOrigin
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from gateway.errors import quoted
from gateway.log import Logger

SUBPROTOCOL = Subprotocol("crm-gateway.v1.json")
PATHS = ("/", "/ws")
_BEARER = "bearer."

Ready = Callable[[], Awaitable[str | None]]


def proof_of(headers: Headers) -> str | None:
    """The token in the Authorization header, or, for browsers, in the subprotocol `bearer.<token>`. None: there is none.

    A header that is no bearer token is a bad proof: the empty string.
    """
    values = headers.get_all("Authorization")
    if values:
        scheme, _, token = values[0].strip().partition(" ")
        return token.strip() if scheme.lower() == "bearer" and len(values) == 1 else ""
    offered = [name.strip() for value in headers.get_all("Sec-WebSocket-Protocol") for name in value.split(",")]
    return next((name.removeprefix(_BEARER) for name in offered if name.startswith(_BEARER)), None)


def hops_of(connection: ServerConnection) -> tuple[str, list[str]]:
    """The peer's address, and what X-Forwarded-For says of those before it."""
    assert connection.request is not None
    peer = connection.transport.get_extra_info("peername")
    return str(peer[0]) if peer else "", connection.request.headers.get_all("X-Forwarded-For")


def select_subprotocol(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours if it is offered; offering none, or others, is allowed."""
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


class Pages:
    """Answers requests that are no upgrade, and upgrades that cannot be.

    `ready` says what is wrong, or None when commands can be served.
    """

    def __init__(self, ready: Ready, logger: Logger) -> None:
        self._ready = ready
        self._logger = logger
        self.draining = False

    async def __call__(self, connection: ServerConnection, request: Request) -> Response | None:
        """The response for a plain page or a refused upgrade; None lets the upgrade go on."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(HTTPStatus.OK, "alive\n")
        if path == "/readyz":
            return await self._readiness(connection)
        if path not in PATHS:
            return connection.respond(HTTPStatus.NOT_FOUND, "The WebSocket is at / and /ws.\n")
        if self.draining:
            response = connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "The gateway is stopping.\n")
            response.headers["Retry-After"] = "1"
            return response
        return None

    def explain(self, connection: ServerConnection, request: Request, _response: Response) -> Response | None:
        """Tells the developer of a page whose origin is not let in, and the operator, who else would see nothing of it."""
        if not isinstance(connection.protocol.handshake_exc, InvalidOrigin):
            return None
        origin = quoted(request.headers["Origin"])
        self._logger.warning("origin refused", origin=origin)
        return connection.respond(HTTPStatus.FORBIDDEN, f"Origin {origin} is not one of GATEWAY_ORIGINS: list it there.\n")

    async def _readiness(self, connection: ServerConnection) -> Response:
        wrong = "draining" if self.draining else await self._ready()
        if wrong is None:
            return connection.respond(HTTPStatus.OK, "ready\n")
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {wrong}\n")
