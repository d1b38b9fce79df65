"""Bytes in, bytes out: finds the command of a message, checks the session, runs the handler, and turns errors into replies.

`read` is called in the order the messages arrive; `answer` may run beside others. Neither touches a socket.
"""

from __future__ import annotations

import re
import secrets
import time
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import asyncpg
import msgspec

from gateway import faults, wire
from gateway.access import Access
from gateway.calendar_store.idempotency import write_key
from gateway.commands.table import COMMANDS, Command
from gateway.context import Context, Services
from gateway.errors import ERRORS, CommandError, ErrorCode, Outcome, quoted
from gateway.identity import Entering, Identity
from gateway.log import CommandLog, place_of
from gateway.sessions import StaleAccessError
from gateway.tokens import InvalidTokenError, Session
from gateway.wire import Authorization, BadFrameError, Frame, Streamed

DECISIONS_MAX = 5
"""Times a command is decided anew because managers or sessions changed meanwhile, before it is answered with 503."""
UNKNOWN, UNREADABLE = "unknown", "unreadable"
"""Counted as the command of frames whose command does not exist, and of messages that are no frame: clients make up names."""


class Refusal(NamedTuple):
    """The answer to a message that cannot become a command, as JSON. `unreadable`: it had no extID."""

    payload: bytes
    unreadable: bool


class Reply(NamedTuple):
    """The answer to a command, as JSON, whole or in pieces. `ends_session`: the socket's own session is over."""

    payload: bytes | Streamed
    ends_session: bool = False


class Pending(NamedTuple):
    """A command that was read and is yet to be answered, with the session of the moment it was read."""

    frame: Frame
    fault: CommandError | None
    session: Session | None
    started: float


class Dispatch:
    """Answers messages. `draining` makes every further command fail with NO_SERVICE."""

    def __init__(self, services: Services, log: CommandLog) -> None:
        self._services = services
        self._log = log
        self._metrics = services.metrics
        self._count_success = {name: services.metrics.commands.of(name, "200") for name in COMMANDS}
        self.draining = False

    def read(self, message: str, identity: Identity) -> Pending | Authorization | Refusal:
        """Decodes a message; what cannot become a command is answered here."""
        started = time.perf_counter()
        try:
            found = wire.read(message)
        except BadFrameError as bad:
            ext_id = None if bad.ext_id == b"null" else bad.ext_id.decode()
            self._log_failure("", ext_id, None, started, bad.error)
            self._count_failure(UNREADABLE, started, bad.error)
            return Refusal(wire.failure(bad.ext_id, bad.error), unreadable=ext_id is None)
        if isinstance(found, Authorization):
            return found
        return Pending(*found, identity.session, started)

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
                data = await self._run_without_session(command, pending, identity)
            else:
                session = self._session_of(pending)
                manager_id = session.manager_id
                data = await self._run(command, pending, session, identity)
        except CommandError as raised:
            error = raised
            self._log_failure(frame.command, frame.ext_id, manager_id, pending.started, error)
        except Exception as raised:  # the one place where a bug becomes a reply
            error = self._internal(frame, manager_id, pending.started, raised)
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
            await self._fresh_access(session)
        except CommandError as error:
            if error.code is ErrorCode.UNAUTHORIZED:
                return None
            raise
        return session

    def _command_of(self, frame: Frame) -> Command:
        if self.draining:
            raise CommandError(ErrorCode.NO_SERVICE, "the gateway is stopping", retry_after_ms=wire.spread_ms(500, 3000))
        command = COMMANDS.get(frame.command)
        if command is None:
            raise CommandError(ErrorCode.INVALID_METHOD, f"no such command: {quoted(frame.command)}")
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

    async def _run_without_session(self, command: Command, pending: Pending, identity: Identity) -> bytes | Streamed:
        await self._note_proof(pending.frame, identity)
        return await self._handle(command, pending, Context(self._services, identity, None))

    async def _run(self, command: Command, pending: Pending, session: Session, identity: Identity) -> bytes | Streamed:
        """The reply's data, once it is the manager's turn.

        Decides anew whenever the access that the decision rests on has changed meanwhile.
        """
        sessions, share = self._services.sessions, self._services.fair_share
        known = None
        if identity.entering is None and share.try_enter(session.manager_id):
            try:
                known = sessions.known_access(session)
            finally:
                if known is None:
                    share.leave(session.manager_id)
        if known is None:
            known = await self._enter_in_order(session, identity)
        try:
            for decision in range(DECISIONS_MAX):
                access = await sessions.access_of(session) if decision else known
                identity.proved = True
                try:
                    return await self._handle_confirmed(command, pending, Context(self._services, identity, access), decision)
                except StaleAccessError:
                    continue
            raise _changing()
        finally:
            share.leave(session.manager_id)

    async def _enter_in_order(self, session: Session, identity: Identity) -> Access:
        """What the session may do. Counts a command once it is its manager's turn, behind the connection's earlier ones.

        Those of one session keep their order by themselves; where tokens change from frame to frame they would not.
        """
        share, entering = self._services.fair_share, identity.entering
        if entering is None or entering.session is not session:
            entering = identity.entering = Entering(session, entering)
        entering.count += 1
        try:
            await entering.wait_for_earlier()
            if not share.try_enter(session.manager_id):
                await share.wait(session.manager_id)
            try:
                return await self._services.sessions.access_of(session)
            except BaseException:
                share.leave(session.manager_id)
                raise
        finally:
            entering.count -= 1
            if not entering.count:
                entering.done.set()
                if identity.entering is entering:
                    identity.entering = None

    async def _note_proof(self, frame: Frame, identity: Identity) -> None:
        """A valid proof beside a command that needs none counts as one; another is ignored, or it would bar MngLogin."""
        if frame.token is not None and not identity.proved:
            with suppress(InvalidTokenError, CommandError):
                await self._services.sessions.access_of(self._services.tokens.session_of(frame.token))
                identity.proved = True

    async def _handle_confirmed(self, command: Command, pending: Pending, context: Context, decision: int) -> bytes | Streamed:
        """A refusal is given only to a session that is still live: its reason may have been found without the database.

        Except for one by its rate, which must cost next to nothing, and which counts a command at its first decision alone.
        """
        access = context.require_access()
        try:
            if command.needs == "calendar":
                access.require_calendar()
            if not decision:
                self._services.command_rate.require(access.manager_id)
            return await self._handle(command, pending, context)
        except CommandError as error:
            if ERRORS[error.code].status < 500 and error.code is not ErrorCode.TOO_FREQUENT:
                await self._services.sessions.confirm(access)
            raise

    async def _handle(self, command: Command, pending: Pending, context: Context) -> bytes | Streamed:
        frame = pending.frame
        if pending.fault is not None:
            raise pending.fault
        request = _decoded(command, frame)
        if frame.idempotency_key is not None:
            return await self._handle_once(command, frame, frame.idempotency_key, request, context)
        reply = await command.handler(context, request)
        return reply if isinstance(reply, Streamed) else wire.encode(reply)

    async def _handle_once(self, command: Command, frame: Frame, text: str, request: object, context: Context) -> bytes:
        """The reply's data; that of the first time, for a session that is still live, when the key was used before."""
        access = context.require_access()
        key = write_key(access.manager_id, text, frame.command, frame.data)

        async def handle() -> bytes:
            return wire.encode(await command.handler(context._replace(key=key), request))

        data, before = await self._services.idempotency.once(key, handle)
        if not before:
            return data
        await self._services.sessions.confirm(access)
        return wire.replayed(data)

    async def _fresh_access(self, session: Session) -> Access:
        """The access as the database has it now."""
        for _ in range(DECISIONS_MAX):
            access = await self._services.sessions.access_of(session)
            try:
                await self._services.sessions.confirm(access)
            except StaleAccessError:
                continue
            return access
        raise _changing()

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
        self, command: str, ext_id: str | int | None, manager_id: int | None, started: float, error: CommandError
    ) -> None:
        what = {"cause": type(error.__cause__).__qualname__} if error.__cause__ is not None else {}
        self._log.failure(
            command,
            ext_id,
            manager_id,
            started,
            error=error.code,
            status=ERRORS[error.code].status,
            field=_known_field(command, error.field),
            outcome=error.outcome,
            **what,
        )

    def _count_failure(self, command: str, started: float, error: CommandError) -> None:
        self._metrics.commands.of(command, str(ERRORS[error.code].status))(time.perf_counter() - started)

    def _internal(self, frame: Frame, manager_id: int | None, started: float, raised: Exception) -> CommandError:
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
        )
        return error


def _known_field(command: str, path: str | None) -> str | None:
    """The field of the request that a path begins with, for the log: keys that a client made up are its data."""
    name = re.split(r"[.\[]", path or "", maxsplit=1)[0]
    known = COMMANDS[command].request.__struct_encode_fields__ if command in COMMANDS else ()
    return name if name in known else None


def _changing() -> CommandError:
    return CommandError(ErrorCode.NO_SERVICE, "managers and sessions change too fast", retry_after_ms=wire.spread_ms(500, 1500))


def _check_key(command: Command, frame: Frame) -> None:
    """Raises CommandError for a key where none is taken, and for one that PostgreSQL cannot store."""
    if not command.writes:
        raise CommandError(ErrorCode.BAD_REQUEST, f"{frame.command} takes no idempotencyKey: leave it out")
    if "\0" in (frame.idempotency_key or ""):
        raise CommandError(ErrorCode.BAD_REQUEST, "idempotencyKey must not contain a NUL character")


def _decoded(command: Command, frame: Frame) -> object:
    """The request. Raises CommandError that names the field."""
    try:
        try:
            return command.decode(frame.data)
        except msgspec.ValidationError:
            return command.decode(faults.without_repeats(frame.data, command.request))
    except msgspec.ValidationError as error:
        raise faults.fault_of(error, command.request) from None
    except RecursionError:
        raise CommandError(ErrorCode.TOO_LARGE, "data is nested too deep") from None
