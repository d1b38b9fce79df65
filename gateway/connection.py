"""One client's socket: reads messages, runs their commands up to a limit, writes replies, and ends with a close code."""

from __future__ import annotations

import asyncio

from websockets.protocol import OPEN

from gateway import wire
from gateway.backlog import Backlog
from gateway.capture import Record
from gateway.dispatch import Dispatch
from gateway.errors import CloseCode, CommandError, ErrorCode
from gateway.execution import Pending
from gateway.handshake import proof_of
from gateway.identity import Identity
from gateway.outbox import Outbox
from gateway.settings import Settings
from gateway.watched_socket import Message, WatchedSocket
from gateway.wire import Authorization, Streamed
from gateway.workers import Workers

CLOSE_SECONDS = 5.0
"""Time for the closing handshake before the transport is aborted: a few round trips of a bad link."""
CUT_SECONDS = 1.0
"""The same for a client that does not read: a short try."""
FRAMES_WHOLE = 2
"""As many frames of the largest size may be commands that wait; what waits keeps all of its message."""
SETTLE_SECONDS = 10.0
"""Time for commands in flight before a socket is closed all the same. 1012 would deny them: that socket is aborted instead."""


async def close(socket: WatchedSocket, code: CloseCode, reason: str) -> None:
    """Closes; a client that does not take part in time is cut off."""
    socket.drop_messages()
    if socket.state is OPEN:
        socket.closed_with = code
    try:
        async with asyncio.timeout(CUT_SECONDS if code is CloseCode.TOO_SLOW else CLOSE_SECONDS):
            await socket.close(code, reason)
    except TimeoutError:
        pass
    finally:
        socket.transport.abort()


class Connection:
    """Reads in order, answers in any order. The workers outlive the socket: what was begun is done whole."""

    def __init__(
        self,
        socket: WatchedSocket,
        dispatch: Dispatch,
        settings: Settings,
        backlog: Backlog,
        workers: Workers,
        identity: Identity,
        record: Record | None = None,
    ) -> None:
        self.socket = socket
        self.identity = identity
        self.unproved_since: float | None = socket.loop.time()
        self.pinged_at = 0.0
        self._dispatch = dispatch
        self._unreadable_max = settings.unreadable_frames_max
        self._in_flight_max = settings.in_flight_max
        self._in_flight_chars_max = FRAMES_WHOLE * settings.frame_bytes_max
        self._outbox = Outbox(socket, settings, backlog)
        identity.room = self._outbox.room
        self._workers = workers
        self._record = record
        self._unanswered = self._unanswered_chars = 0
        self._all_answered: asyncio.Event | None = None
        self._unreadable_in_a_row = 0
        self._authorizing = False
        self._ending = False
        self._closing_since: float | None = None

    async def run(self) -> None:
        """Serves the socket until it closes, and returns when the last of its commands has ended."""
        if not await self._prove():
            return
        self.socket.forget_headers()
        if not self._ending:
            self.socket.read(self._take, self._may_take)
        await self.socket.wait_closed()
        self.identity.gone = True
        await self.settled()

    @property
    def blocked(self) -> bool:
        """Whether messages wait and nothing is read: at the limit of commands, or while the client does not read."""
        return self.socket.held_up

    @property
    def unanswered(self) -> int:
        """Commands read and not yet answered."""
        return self._unanswered

    def end(self, code: CloseCode, reason: str) -> None:
        """Stops reading, lets commands in flight be answered, then closes. Only the first call counts."""
        if not self._ending:
            self._ending = True
            self.socket.drop_messages()
            self._workers.start(self._end, code, reason)

    async def settled(self) -> None:
        """Returns when every command that was read is answered."""
        if self._unanswered:
            self._all_answered = self._all_answered or asyncio.Event()
            await self._all_answered.wait()

    def abort(self) -> None:
        """Ends the socket without a word: what is unanswered has an unknown outcome."""
        self._ending = True
        self.socket.drop_messages()
        self.socket.transport.abort()

    def tell(self, payload: bytes) -> None:
        """Writes a message that no command asked for."""
        self._outbox.write(payload)

    def ping(self) -> None:
        """Asks the client for a sign of life; any byte from it counts as one."""
        self.pinged_at = self.socket.loop.time()
        self.socket.protocol.send_ping(b"")
        self.socket.send_data()

    def check_outbox(self, now: float) -> None:
        """Cuts a client that does not read what waits for it."""
        if self._outbox.overdue(now):
            self.end(CloseCode.TOO_SLOW, "the client does not read")

    def check_closing(self, now: float) -> None:
        """Cuts off a client that leaves the closing of its socket unfinished, whoever began it."""
        if self._closing_since is None:
            self._closing_since = now
        elif now - self._closing_since > CLOSE_SECONDS:
            self.abort()

    async def _prove(self) -> bool:
        """Takes the proof in the upgrade request, if there is one. A bad one closes: a browser sees no HTTP status."""
        assert self.socket.request is not None
        token = proof_of(self.socket.request.headers)
        if token is None:
            return True
        try:
            if await self._dispatch.authorize(token, self.identity):
                return True
            await close(self.socket, CloseCode.PROOF_REFUSED, "the proof of identity was refused")
        except CommandError as error:
            await close(self.socket, CloseCode.SERVICE_RESTART, error.message)
        return False

    def _may_take(self) -> bool:
        """Whether the next message may be taken: there is room for its command and its reply, and it is known whose it is."""
        return (
            self._unanswered < self._in_flight_max
            and self._unanswered_chars < self._in_flight_chars_max
            and not self._authorizing
            and not self._outbox.piles_up()
        )

    def _take(self, message: Message) -> None:
        if not isinstance(message, str):
            self.end(CloseCode.UNSUPPORTED_DATA, "send text, not binary")
            return
        if message == "ping":
            self._outbox.write(b"pong")
            return
        found = self._dispatch.read(message, self.identity)
        if isinstance(found, Pending):
            self._unreadable_in_a_row = 0
            self._unanswered += 1
            self._unanswered_chars += found.size
            self._workers.start(self._answer, found)
        elif isinstance(found, Authorization):
            self._authorizing = True
            self._workers.start(self._authorize, found.token)
        else:
            self._outbox.write(found.payload)
            self._count_unreadable(unreadable=found.unreadable)

    async def _answer(self, pending: Pending) -> None:
        try:
            reply = await self._dispatch.answer(pending, self.identity)
            if self._record is not None:
                self._record(pending.frame, pending.session, pending.started, reply.payload)
            if isinstance(reply.payload, Streamed):
                await self._outbox.stream(reply.payload)
            else:
                self._outbox.write(reply.payload, last=self._unanswered == 1)
            if reply.ends_session:
                self.end(CloseCode.SESSION_ENDED, "the session is over: sign in again")
        finally:  # also after a bug: the messages behind it must not wait for ever
            self._unanswered -= 1
            self._unanswered_chars -= pending.size
            if self._unanswered == 0 and self._all_answered:
                self._all_answered.set()
                self._all_answered = None
            self.socket.go_on()

    async def _authorize(self, token: str) -> None:
        """Takes a proof for the socket; what comes behind it waits, or it would be somebody else's."""
        error: str | None = ErrorCode.INTERNAL
        try:
            error = None if await self._dispatch.authorize(token, self.identity) else "INVALID_TOKEN"
        except CommandError as refused:
            error = refused.code
        finally:
            self._outbox.write(wire.authorization_reply(error))
            self._authorizing = False
            self.socket.go_on()

    def _count_unreadable(self, *, unreadable: bool) -> None:
        self._unreadable_in_a_row = self._unreadable_in_a_row + 1 if unreadable else 0
        if self._unreadable_in_a_row >= self._unreadable_max:
            self.end(CloseCode.UNREADABLE_FRAMES, "too many frames without a readable extID")

    async def _end(self, code: CloseCode, reason: str) -> None:
        try:
            async with asyncio.timeout(0 if code is CloseCode.TOO_SLOW else SETTLE_SECONDS):
                await self.settled()
        except TimeoutError:
            if code is CloseCode.SERVICE_RESTART:  # 1012 promises that what is unanswered was not executed
                self.abort()
                return
        if code is CloseCode.SERVICE_RESTART and self._outbox.full:  # a reply was dropped: 1012 would deny its command
            code, reason = CloseCode.TOO_SLOW, "the client does not read"
        await close(self.socket, code, reason)
