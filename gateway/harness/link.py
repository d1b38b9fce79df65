"""One connection of the harness: keeps commands in flight, checks every reply, and comes back as a client should."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable

from picows import WSCloseCode, WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from gateway.harness.back_off import BackOff
from gateway.harness.figures import Figures
from gateway.harness.kinds import OK, UNREADABLE, Job, decode_drain, failure_of, framed
from gateway.harness.source import Source

MESSAGE_BYTES_MAX = 2**30
"""Replies of any size are read: the gateway's own limit is 50,000 events."""
HANDSHAKE_SECONDS = 10.0
TRIES_MAX = 5
"""Times a command that was not executed (429, 503, or unanswered before 1012) is sent again, as a client would."""
SAMPLE_EVERY = 128
"""Of the good replies, one in so many is decoded and its whole shape checked; some 20 us."""
COME_BACK = (1001, 1006, 1011, 1012)
RESTART = 1012
PROTOCOL_ERROR = 1002
"""What came was no WebSocket frame."""
REFUSED = 4503
"""The token in the upgrade request proves nothing: no command was read."""
BINARY = b"binary message: "
"""Before one of these: the gateway sends none, and what begins so answers no command."""
_TEXT, _BINARY, _CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION
_CLOSE, _PING = WSMsgType.CLOSE, WSMsgType.PING


class HandshakeCutError(ConnectionError):
    """The other end closed the socket instead of answering the upgrade request."""


class Link(WSListener):
    """Connection `number` of the run. `open`: commands may be sent. `ended`: it will not come back.

    `waiting` counts commands that the gateway refused for now and that are sent again later; each keeps its place in flight.
    """

    def __init__(
        self,
        number: int,
        url: str,
        trusted: ssl.SSLContext | None,
        token: str,
        in_flight: int,
        reply_seconds: float,
        source: Source,
        figures: Figures,
    ) -> None:
        self.number = number
        self.open = self.ended = False
        self.pending: dict[int, Job] = {}
        self.again: deque[Job] = deque()
        self._url = url
        self._trusted = trusted
        self._headers = [("Authorization", f"Bearer {token}")]
        self._in_flight = in_flight
        self._reply_seconds = reply_seconds
        self._source = source
        self._figures = figures
        self._transport: WSTransport
        self._write: Callable[[bytes], None]
        self._ext_id = 0
        self._good = number
        self._pieces: list[bytes] = []
        self._code = 1006
        self._told_to_wait = 0.0
        self._back_off = BackOff()
        self._heard = False
        self.waiting = 0
        self._leaving = False

    async def connect(self) -> None:
        """Opens it. Raises OSError, WSError, ValueError or TimeoutError."""
        self._code = 1006
        transport, _ = await ws_connect(
            lambda: self,
            self._url,
            ssl_context=self._trusted,
            extra_headers=self._headers,
            max_frame_size=MESSAGE_BYTES_MAX,
            websocket_handshake_timeout=HANDSHAKE_SECONDS,
            enable_auto_pong=False,  # it would keep a ping from `on_ws_frame`, and with it the last frame in the buffer
        )
        if transport.response is None:  # picows returns all the same
            raise HandshakeCutError("closed within the handshake")
        self._transport = transport
        self._write = transport.underlying_transport.write
        self.open = True

    async def stay(self) -> None:
        """Comes back whenever the close code allows it; returns when it will not, or after `leave`."""
        try:
            while True:
                try:
                    await self._transport.wait_disconnected()
                except WSError:
                    self._code = PROTOCOL_ERROR
                self.open = False
                self._settle()
                if self._leaving:
                    break
                self._figures.closes[str(self._code)] += 1
                may_return = self._code in COME_BACK or 4000 <= self._code <= 4499
                if not may_return or not await self._come_back() or self._leaving:
                    break
                self._figures.reconnects += 1
                self.pump()
        finally:
            self.open, self.ended = False, True
            self._settle()
            while self.again:
                self._lose(self.again.popleft())
            self._figures.missing += self._source.abandon(self.number)
            self._transport.disconnect(graceful=False)

    def leave(self) -> None:
        """Ends it; what is unanswered is missing."""
        self._leaving = True
        if self.open:
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect()

    @property
    def coming_back(self) -> bool:
        """Whether it is closed, and tries to be open again."""
        return not (self.open or self.ended)

    @property
    def refused(self) -> bool:
        """Whether the gateway did not take its token when it last came."""
        return self._code == REFUSED

    @property
    def sent(self) -> int:
        """Commands sent so far, again or for the first time."""
        return self._ext_id

    def busy(self) -> bool:
        """Whether a reply is still to come, or a command is to be sent again."""
        return bool(self.pending or self.again or self.waiting)

    def pump(self) -> None:
        """Sends what may be sent now, in one write: a system call costs more than all else about a command."""
        pending, take, number, frames = self.pending, self._source.take, self.number, []
        room = self._in_flight - self.waiting
        while self.open and len(pending) < room:
            job = self.again.popleft() if self.again else take(number)
            if job is None:
                break
            self._ext_id = ext_id = self._ext_id + 1
            pending[ext_id] = job
            frames.append(framed(b"%b%d%b" % (job.kind.head, ext_id, job.tail)))
        if frames:
            self._figures.moved = time.perf_counter()
            self._write(frames[0] if len(frames) == 1 else b"".join(frames))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Takes a reply, whole or in pieces. What became free is filled after the last frame that was read, of any kind."""
        kind = frame.msg_type
        if kind in (_TEXT, _BINARY):
            message = frame.get_payload_as_bytes()
            if kind == _BINARY:
                message = BINARY + message
            if frame.fin:
                self._take(message)
            else:
                self._pieces = [message]
        elif kind == _CONTINUATION:
            self._pieces.append(frame.get_payload_as_bytes())
            if frame.fin:
                self._take(b"".join(self._pieces))
                self._pieces = []
        elif kind == _PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind == _CLOSE:
            payload = frame.get_payload_as_bytes()
            self._code = int.from_bytes(payload[:2]) if len(payload) >= 2 else 1005
            self.open = False
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        if frame.last_in_buffer:
            self.pump()

    def on_ws_disconnected(self, _transport: WSTransport) -> None:
        """Nothing can be sent from here on; `stay` does the rest."""
        self.open = False

    def _take(self, message: bytes) -> None:
        self._figures.moved = now = time.perf_counter()
        comma = message.find(b",", 9, 32)
        try:
            job = self.pending.pop(int(message[9:comma]))
        except (ValueError, KeyError):
            self._unasked(message)
            return
        self._heard = True
        if message.startswith(b'{"extID":') and message.startswith(job.expected or b',"status":', comma):
            if job.expected is OK:
                self._good += 1
                if self._good % SAMPLE_EVERY == 0 and not self._sampled(job, message):
                    self._wrong(job, now, "BAD_SHAPE", message)
                    return
            job.kind.latencies.append(now - job.due)
            self._source.answered(job, message, ok=True)
        else:
            self._failed(job, now, message)

    def _sampled(self, job: Job, message: bytes) -> bool:
        try:
            job.kind.decode(message)
        except UNREADABLE:
            return False
        return True

    def _failed(self, job: Job, now: float, message: bytes) -> None:
        """Not what was expected: sent again when the gateway says that it may, else wrong."""
        failure = failure_of(message)
        if failure.status in (429, 503) and failure.outcome == "not_executed" and job.tries < TRIES_MAX:
            job.tries += 1
            self._figures.retried += 1
            self._figures.errors[f"{failure.error} (sent again)"] += 1
            self.waiting += 1
            wait = min((failure.retry_after_ms or 1000) / 1000, self._reply_seconds)
            asyncio.get_running_loop().call_later(wait, self._retry, job)
            return
        as_expected = job.expected.startswith(b',"status":%d,' % failure.status)
        self._wrong(job, now, failure.error or ("BAD_SHAPE" if as_expected else f"STATUS_{failure.status}"), message)

    def _wrong(self, job: Job, now: float, code: str, message: bytes) -> None:
        job.kind.latencies.append(now - job.due)
        self._figures.count_wrong(job, code, message)
        self._source.answered(job, message, ok=False)

    def _retry(self, job: Job) -> None:
        self.waiting -= 1
        if self.ended:
            self._lose(job)
            return
        self.again.append(job)
        self.pump()

    def _unasked(self, message: bytes) -> None:
        """A push is nobody's reply; anything else is one too many."""
        if message.startswith(b'{"event":"server:drain"'):
            try:
                self._told_to_wait = decode_drain(message).data.retry_after_ms / 1000
            except UNREADABLE:
                self._figures.count_wrong(None, "BAD_SHAPE", message)
        elif not message.startswith(b'{"event":'):
            self._figures.count_wrong(None, "UNASKED_REPLY", message)

    def _settle(self) -> None:
        """What was unanswered: after 1012 it was not executed and is sent again, else nobody knows and it is missing."""
        jobs = list(self.pending.values())
        self.pending.clear()
        if self._code == RESTART and not self._leaving:
            again, jobs = [job for job in jobs if job.tries < TRIES_MAX], [job for job in jobs if job.tries >= TRIES_MAX]
            for job in again:
                job.tries += 1
            self._figures.retried += len(again)
            self.again.extendleft(reversed(again))
        for job in jobs:
            self._lose(job)

    def _lose(self, job: Job) -> None:
        self._figures.missing += 1
        self._source.lost(job)

    async def _come_back(self) -> bool:
        """Tries until it is connected; False when that takes too long."""
        if self._heard:
            self._heard, self._back_off = False, BackOff()
        told, self._told_to_wait = self._told_to_wait, 0.0
        return await self._back_off.connected(self.connect, told, lambda: self._leaving)
