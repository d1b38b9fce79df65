"""Runs one command: lets it in, decides what its session may do, decodes its request, and calls the handler.

Decides anew where managers or sessions changed meanwhile. Whatever refuses the command is raised: dispatch.py answers, logs
and counts it.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec
from msgspec import Struct

from gateway import faults, wire
from gateway.access import Access
from gateway.calendar_store.idempotency import write_key
from gateway.commands.table import Command
from gateway.context import Context, Services
from gateway.errors import CommandError, ErrorCode
from gateway.identity import Entering, Identity
from gateway.sessions import DECISIONS_MAX, StaleAccessError, changing
from gateway.tokens import InvalidTokenError, Session
from gateway.wire import Frame, Streamed


class Pending(Struct, frozen=True):
    """A command that was read and is yet to be answered, with the session of the moment it was read, and its size."""

    frame: Frame
    fault: CommandError | None
    session: Session | None
    started: float
    size: int


class Execution:
    """Runs commands, each in its turn."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def run_without_session(self, command: Command, pending: Pending, identity: Identity) -> bytes | Streamed:
        """The reply's data of a command that needs none."""
        await self._note_proof(pending.frame, identity)
        return await self._handle(command, pending, Context(self._services, identity, None))

    async def run(self, command: Command, pending: Pending, session: Session, identity: Identity) -> bytes | Streamed:
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
            raise changing()
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
            if error.status < 500 and not error.confirmed and error.code is not ErrorCode.TOO_FREQUENT:
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
            return wire.encode(await command.handler(msgspec.structs.replace(context, key=key), request))

        data, before = await self._services.idempotency.once(key, handle)
        if not before:
            return data
        await self._services.sessions.confirm(access)
        return wire.replayed(data)


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
