"""The page /metrics on an address of its own, served by the event loop itself.

The library's own server is a thread, which stalls the loop as long as the page takes to write (some 10 ms for 860 lines)
all the same, gives a mute client a thread for ever, and takes half a second to stop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from prometheus_client.exposition import choose_encoder
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from gateway.errors import StartupError
from gateway.log import Logger
from gateway.metrics import Metrics
from gateway.server_socket import ServerSocket
from gateway.settings import METRICS_OFF, Settings

PATH = "/metrics"


@asynccontextmanager
async def exposed(metrics: Metrics, settings: Settings, logger: Logger) -> AsyncIterator[None]:
    """Serves the page until left, unless the settings say `off`. Raises StartupError when the address is taken."""
    if settings.metrics_host == METRICS_OFF:
        yield
        return

    def page(connection: ServerConnection, request: Request) -> Response:
        return respond(metrics, connection, request)

    try:
        server = await serve(
            _nobody,
            settings.metrics_host,
            settings.metrics_port,
            create_connection=ServerSocket,
            process_request=page,
            open_timeout=settings.handshake_seconds,
            server_header=None,
        )
    except OSError as error:
        raise StartupError(
            f"Cannot serve metrics on {settings.metrics_host}:{settings.metrics_port} ({error.strerror}): set "
            f"GATEWAY_METRICS_HOST and GATEWAY_METRICS_PORT to a free address, or GATEWAY_METRICS_HOST={METRICS_OFF} for none."
        ) from None
    logger.info("metrics", host=settings.metrics_host, port=server.sockets[0].getsockname()[1])
    try:
        yield
    finally:
        for handler in tuple(server.handler_tasks):  # one that is begun and not sent would be waited for
            handler.cancel()
        server.close()
        await server.wait_closed()


def respond(metrics: Metrics, connection: ServerConnection, request: Request) -> Response:
    """The metrics in the format that the request prefers, or where to find them."""
    if request.path.partition("?")[0] != PATH:
        return connection.respond(HTTPStatus.NOT_FOUND, f"The metrics are at {PATH}.\n")
    encode, content_type = choose_encoder(", ".join(request.headers.get_all("Accept")))
    response = connection.respond(HTTPStatus.OK, encode(metrics.registry).decode())
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = content_type
    return response


async def _nobody(_connection: ServerConnection) -> None:
    """No upgrade gets this far: the page answers every request."""
