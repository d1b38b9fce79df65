"""What can go wrong, in the two vocabularies of the wire: errors answer a frame, close codes end a socket.

A handler raises `CommandError`; dispatch alone turns it into a reply. `StartupError` stops the process before it serves.
"""

from __future__ import annotations

import random
from enum import IntEnum, StrEnum
from typing import NamedTuple
from urllib.parse import urlsplit

RETRY_AFTER_MS = 500, 2000
"""When a client is to come back that nothing else is known of: a restarted PostgreSQL takes some one second to serve again."""
QUOTED_CHARS_MAX = 64
"""Client text quoted in a message is cut here: enough to recognise it, too little to carry a body into a log."""


class Outcome(StrEnum):
    """What a client may conclude about a command that was not answered with 200."""

    NOT_EXECUTED = "not_executed"
    UNKNOWN = "unknown"


class ErrorSpec(NamedTuple):
    """One line of the error table: its HTTP-like status, when the gateway answers it, whether the same frame may do later."""

    status: int
    when: str
    try_again: bool


class ErrorCode(StrEnum):
    """The `error` of a failure reply; `ERRORS` says what each one means."""

    BAD_REQUEST = "BAD_REQUEST"
    FIELD_REQUIRED = "FIELD_REQUIRED"
    INVALID_DATA = "INVALID_DATA"
    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    INVALID_METHOD = "INVALID_METHOD"
    CONFLICT = "CONFLICT"
    TOO_LARGE = "TOO_LARGE"
    TOO_FREQUENT = "TOO_FREQUENT"
    INTERNAL = "INTERNAL"
    NO_SERVICE = "NO_SERVICE"
    TIMEOUT = "TIMEOUT"


ERRORS: dict[ErrorCode, ErrorSpec] = {
    ErrorCode.BAD_REQUEST: ErrorSpec(
        400,
        "not JSON, not an object, no `command`, bad `extID`, wrong JSON types at the top level, a key where none is taken",
        try_again=False,
    ),
    ErrorCode.FIELD_REQUIRED: ErrorSpec(400, "a required field is missing; `field` names it", try_again=False),
    ErrorCode.INVALID_DATA: ErrorSpec(
        400, "a field is present and wrong; `field` names it, the message says what would be right", try_again=False
    ),
    ErrorCode.UNAUTHORIZED: ErrorSpec(401, "no session, or it is expired or revoked", try_again=False),
    ErrorCode.FORBIDDEN: ErrorSpec(
        403, "the session lacks the right that the message names; nothing about hidden data", try_again=False
    ),
    ErrorCode.NOT_FOUND: ErrorSpec(
        404, "no such event, or one this session may not see: the two are indistinguishable", try_again=False
    ),
    ErrorCode.INVALID_METHOD: ErrorSpec(404, "no such command", try_again=False),
    ErrorCode.CONFLICT: ErrorSpec(409, "`idempotencyKey` reused with other data, or a stale `if_version`", try_again=False),
    ErrorCode.TOO_LARGE: ErrorSpec(
        413, "over a documented count or size inside an accepted frame; `field` names it", try_again=False
    ),
    ErrorCode.TOO_FREQUENT: ErrorSpec(429, "over a rate; wait `retry_after_ms`", try_again=True),
    ErrorCode.INTERNAL: ErrorSpec(500, "a bug; the message carries an id that is also in the log", try_again=False),
    ErrorCode.NO_SERVICE: ErrorSpec(503, "draining, database away or queue full; wait `retry_after_ms`", try_again=True),
    ErrorCode.TIMEOUT: ErrorSpec(504, "the deadline of the command passed", try_again=True),
}


class CommandError(Exception):
    """An error that answers a frame.

    `field` is a path into `data`, such as `participants[2].role`. The outcome is `not_executed` unless whoever raises
    this cannot know whether PostgreSQL committed. `data` is JSON that the failure carries, such as the event as it is now.
    `confirmed`: decided from what was just read with the access's own epoch, so nobody need ask whether the session lives.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        field: str | None = None,
        outcome: Outcome = Outcome.NOT_EXECUTED,
        retry_after_ms: int | None = None,
        data: bytes | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.outcome = outcome
        self.retry_after_ms = retry_after_ms
        self.data = data
        self.confirmed = False

    @property
    def status(self) -> int:
        """The HTTP-like status of its reply."""
        return ERRORS[self.code].status

    def for_another(self) -> CommandError:
        """The same for another command that waited for the same; told to come back, it comes at a time of its own.

        Its own access is yet to be confirmed.
        """
        wait = self.retry_after_ms and spread_ms(self.retry_after_ms // 2, self.retry_after_ms * 3 // 2)
        error = CommandError(
            self.code, self.message, field=self.field, outcome=self.outcome, retry_after_ms=wait, data=self.data
        )
        error.__cause__ = self.__cause__
        return error


def no_service(
    message: str, *, retry_after_ms: tuple[int, int] = RETRY_AFTER_MS, outcome: Outcome = Outcome.NOT_EXECUTED
) -> CommandError:
    """The answer to a command that cannot be done now, with a time within these bounds to come back at."""
    return CommandError(ErrorCode.NO_SERVICE, message, outcome=outcome, retry_after_ms=spread_ms(*retry_after_ms))


def spread_ms(low_ms: int, high_ms: int) -> int:
    """A wait for one of many clients, so that they do not come back at once."""
    return random.randint(low_ms, high_ms)  # noqa: S311 - spreads load, guards nothing


class CloseCode(IntEnum):
    """Why the gateway ends a socket. Clients decide by range: 4000-4499 come back, 4500-4999 need a change first."""

    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_UTF8 = 1007
    GOING_AWAY = 1001
    SERVICE_RESTART = 1012
    MESSAGE_TOO_BIG = 1009
    NO_PONG = 1011
    TOO_SLOW = 4000
    UNREADABLE_FRAMES = 4001
    CONNECTION_LIMIT = 4002
    NO_PROOF = 4500
    SESSION_ENDED = 4501
    PROOF_REFUSED = 4503


CLOSE_CODES: dict[CloseCode, str] = {
    CloseCode.GOING_AWAY: "the peer is going away: come back",
    CloseCode.PROTOCOL_ERROR: "WebSocket protocol error: the client is broken",
    CloseCode.UNSUPPORTED_DATA: "a binary message: the client is broken",
    CloseCode.INVALID_UTF8: "text that is not UTF-8: the client is broken",
    CloseCode.MESSAGE_TOO_BIG: "a message over `GATEWAY_FRAME_BYTES_MAX`, or in too many fragments",
    CloseCode.NO_PONG: "no pong within `GATEWAY_PONG_TIMEOUT_SECONDS`, or a reply in pieces that could not be completed",
    CloseCode.SERVICE_RESTART: "the gateway restarts: come back; what is unanswered was not executed",
    CloseCode.TOO_SLOW: "the client does not read, takes longer than `GATEWAY_STREAM_SECONDS` for a reply in pieces, or does "
    "not finish a message it began, in time or while all clients together have begun too many; it may see 1006",
    CloseCode.UNREADABLE_FRAMES: "too many frames in a row without a readable `extID`",
    CloseCode.CONNECTION_LIMIT: "no room for another connection, of this manager or address or at all: come back later",
    CloseCode.NO_PROOF: "no proof of identity within `GATEWAY_AUTHENTICATION_SECONDS`",
    CloseCode.SESSION_ENDED: "the session is expired or revoked, or the manager is disabled",
    CloseCode.PROOF_REFUSED: "the proof of identity in the upgrade request was refused",
}


class StartupError(Exception):
    """The gateway cannot start; the message says what is wrong and what to do, for a person at a terminal."""


def no_websocket(url: str, status: int, page: bytes) -> str:
    """The message for an address that answers with a page instead of opening a WebSocket; its first line may say why."""
    line = page.decode(errors="replace").strip().partition("\n")[0]
    told = f" ({quoted(line)})" if line else ""
    return (
        f"{url} opened no WebSocket: its path {urlsplit(url).path or '/'} was answered with status {status}{told}. See --url."
    )


def quoted(text: str) -> str:
    """Client text as a message may repeat it: cut, and with anything unprintable escaped."""
    cut = text if len(text) <= QUOTED_CHARS_MAX else text[:QUOTED_CHARS_MAX] + "..."
    return "`" + cut.encode("unicode_escape").decode("ascii") + "`" if not cut.isprintable() else f"`{cut}`"
