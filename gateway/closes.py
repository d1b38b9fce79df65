"""How a socket ended, as the metrics count it."""

from __future__ import annotations

from gateway.errors import CloseCode
from gateway.watched_socket import WatchedSocket

NORMAL, NO_STATUS, NO_CLOSE = 1000, 1005, 1006
"""A client that is done; one that gives no code; no close from either side."""
COUNTED_CODES = frozenset((*CloseCode, NORMAL, NO_STATUS, NO_CLOSE))
"""A client may close with any of 2,000 codes, and each counted would be a series of its own."""


def ending_of(socket: WatchedSocket) -> tuple[str, str]:
    """The close code, or `other`, and by whom: `gateway`, `client`, `nobody`."""
    sent, received = socket.protocol.close_sent, socket.protocol.close_rcvd
    if socket.closed_with is not None:
        code, by = int(socket.closed_with), "gateway"
    elif received is not None and (sent is None or socket.protocol.close_rcvd_then_sent):
        code, by = received.code, "client"
    elif sent is not None:  # by the library
        code, by = sent.code, "gateway"
    else:
        code, by = NO_CLOSE, "nobody"
    return (str(int(code)) if code in COUNTED_CODES else "other"), by
