"""Bytes in, bytes out: finds a message's command and session, has it run, and makes its reply, its log line and its count.

`read` is called in the order the messages arrive; `answer` may run beside others. Neither touches a socket. What happens
between a command and its reply's data is in execution.py; errors become replies only here.
"""

from __future__ import annotations

import re
import secrets
import time
from functools import partial

import asyncpg
from msgspec import Struct

from gateway import wire
from gateway.commands.table import COMMANDS, Command
from gateway.context import Services
from gateway.errors import CommandError, ErrorCode, Outcome, no_service, quoted
from gateway.execution import Execution, Pending
from gateway.identity import Identity
from gateway.log import CommandLog, place_of
from gateway.tokens import InvalidTokenError, Session
from gateway.wire import Authorization, BadFrameError, Frame, Streamed

_KNOWN = "; known are " + ", ".join(COMMANDS)
UNKNOWN, UNREADABLE = "unknown", "unreadable"
"""Counted as the command of frames whose command does not exist, and of messages that are no frame: clients make up names."""


class Refusal(Struct, frozen=True):
    """The answer to a message that cannot become a command, as JSON. `unreadable`: it had no extID."""

    payload: bytes
    unreadable: bool


class Reply(Struct, frozen=True):
    """The answer to a command, as JSON, whole or in pieces. `ends_session`: the socket's own session is over."""

    payload: bytes | Streamed
    ends_session: bool = False


class Dispatch:
    """Answers messages. `draining` makes every further command fail with NO_SERVICE."""

    def __init__(self, services: Services, log: CommandLog) -> None:
        self._services = services
        self._log = log
        self._execution = Execution(services)
        self._metrics = services.metrics
        self._count_success = {name: services.metrics.commands.of(name, "200") for name in COMMANDS}
        self.draining = False

    def read(self, message: str, identity: Identity) -> Pending | Authorization | Refusal:
        """Decodes a message; what cannot become a command is answered here."""
        started = time.perf_counter()
        try:
            found = wire.read(message)
        except BadFrameError as bad:
            self._log_failure("", bad.ext_id, _manager_of(identity.session), identity, started, bad.error)
            self._count_failure(UNREADABLE, started, bad.error)
            return Refusal(wire.failure(wire.encode_ext_id(bad.ext_id), bad.error), unreadable=bad.ext_id is None)
        if isinstance(found, Authorization):
            return found
        return Pending(*found, identity.session, started, len(message))

    async def answer(self, pending: Pending, identity: Identity) -> Reply:
        """Runs the command and builds its one reply; every error that a handler raises ends here."""
        frame = pending.frame
        ext_id = wire.encode_ext_id(frame.ext_id)
        manager_id: int | None = None
        session: Session | None = None
        error: CommandError
        try:
            command = self._command_of(frame)
            if command.needs == "nothing":
                data = await self._execution.run_without_session(command, pending, identity)
            else:
                session = self._session_of(pending)
                manager_id = session.manager_id
                data = await self._execution.run(command, pending, session, identity)
        except CommandError as raised:
            error = raised
            if session is None and frame.token is None:
                manager_id = _manager_of(pending.session)
            self._log_failure(frame.command, frame.ext_id, manager_id, identity, pending.started, error)
        except Exception as raised:  # the one place where a bug becomes a reply
            error = self._internal(frame, manager_id, identity, pending.started, raised)
        else:
            if isinstance(data, Streamed):
                return Reply(data.answering(ext_id, partial(self._end_success, frame, manager_id, pending.started)))
            self._end_success(frame, manager_id, pending.started, None)
            return Reply(wire.success(ext_id, data))
        self._count_failure(frame.command if frame.command in COMMANDS else UNKNOWN, pending.started, error)
        ends = error.code is ErrorCode.UNAUTHORIZED and session is not None and session is identity.session
        return Reply(wire.failure(ext_id, error), ends_session=ends)

    async def authorize(self, token: str, identity: Identity) -> bool:
        """Takes a proof for the socket; a renewal must be of the same manager. False when the proof is refused.

        Raises CommandError when the database cannot say whether the session is live.
        """
        session = await self._proved(token, identity)
        if session is None:
            self._metrics.sign_in_failures.labels("token").inc()
            return False
        identity.open(session)
        return True

    async def _proved(self, token: str, identity: Identity) -> Session | None:
        """The session that a proof is of, if it is live and of the socket's manager."""
        try:
            session = self._services.tokens.session_of(token)
        except InvalidTokenError:
            return None
        if identity.session is not None and identity.session.manager_id != session.manager_id:
            return None
        try:
            await self._services.sessions.look_up(session)
        except CommandError as error:
            if error.code is ErrorCode.UNAUTHORIZED:
                return None
            raise
        return session

    def _command_of(self, frame: Frame) -> Command:
        if self.draining:
            raise no_service("the gateway is stopping", retry_after_ms=(500, 3000))
        command = COMMANDS.get(frame.command)
        if command is None:
            raise CommandError(ErrorCode.INVALID_METHOD, f"no such command: {quoted(frame.command)}{_KNOWN}")
        if frame.idempotency_key is not None:
            _check_key(command, frame)
        return command

    def _session_of(self, pending: Pending) -> Session:
        token = pending.frame.token
        if token is None:
            if pending.session is None:
                raise CommandError(ErrorCode.UNAUTHORIZED, "no session: sign in first")
            return pending.session
        try:
            return self._services.tokens.session_of(token)
        except InvalidTokenError:
            raise CommandError(ErrorCode.UNAUTHORIZED, "__token is not valid: it is wrong or expired") from None

    def _end_success(self, frame: Frame, manager_id: int | None, started: float, cut_off_by: Exception | None) -> None:
        """A reply in pieces may fail after its first: the client then sees its connection end."""
        self._count_success[frame.command](time.perf_counter() - started)
        if cut_off_by is None:
            self._log.success(frame.command, frame.ext_id, manager_id, started)
        else:
            self._metrics.cut_off.inc()
            self._log.failure(
                frame.command, frame.ext_id, manager_id, started, error="CUT_OFF", status=200, **place_of(cut_off_by)
            )

    def _log_failure(
        self,
        command: str,
        ext_id: str | int | None,
        manager_id: int | None,
        identity: Identity,
        started: float,
        error: CommandError,
    ) -> None:
        cause = {"cause": type(error.__cause__).__qualname__} if error.__cause__ is not None else {}
        self._log.failure(
            command,
            ext_id,
            manager_id,
            started,
            error=error.code,
            status=error.status,
            field=_known_field(command, error.field),
            outcome=error.outcome,
            **cause,
            **_origin_of(manager_id, identity),
        )

    def _count_failure(self, command: str, started: float, error: CommandError) -> None:
        self._metrics.commands.of(command, str(error.status))(time.perf_counter() - started)

    def _internal(
        self, frame: Frame, manager_id: int | None, identity: Identity, started: float, raised: Exception
    ) -> CommandError:
        """What PostgreSQL refused was not executed; of any other bug nobody knows how far it came."""
        error_id = secrets.token_hex(6)
        outcome = Outcome.NOT_EXECUTED if isinstance(raised, asyncpg.PostgresError) else Outcome.UNKNOWN
        error = CommandError(ErrorCode.INTERNAL, f"internal error {error_id}: tell the operator", outcome=outcome)
        self._log.failure(
            frame.command,
            frame.ext_id,
            manager_id,
            started,
            error=error.code,
            status=500,
            outcome=outcome,
            error_id=error_id,
            **place_of(raised),
            **_origin_of(manager_id, identity),
        )
        return error


def _manager_of(session: Session | None) -> int | None:
    return None if session is None else session.manager_id


def _origin_of(manager_id: int | None, identity: Identity) -> dict[str, str]:
    """The client's address for a log line that names no manager: nobody has signed in, or the frame's own proof is wrong."""
    return {"address": identity.address} if manager_id is None else {}


def _known_field(command: str, path: str | None) -> str | None:
    """The field of the request that a path begins with, for the log: keys that a client made up are its data."""
    name = re.split(r"[.\[]", path or "", maxsplit=1)[0]
    known = COMMANDS[command].request.__struct_encode_fields__ if command in COMMANDS else ()
    return name if name in known else None


def _check_key(command: Command, frame: Frame) -> None:
    """Raises CommandError for a key where none is taken, and for one that PostgreSQL cannot store."""
    if not command.writes:
        raise CommandError(ErrorCode.BAD_REQUEST, f"{frame.command} takes no idempotencyKey: leave it out")
    if "\0" in (frame.idempotency_key or ""):
        raise CommandError(ErrorCode.BAD_REQUEST, "idempotencyKey must not contain a NUL character")
