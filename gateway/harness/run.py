"""A run: opens the connections, sends in time or as fast as possible, waits for the last replies, and sums up."""

from __future__ import annotations

import asyncio
import errno
import gc
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct
from picows import WSError, WSInvalidStatusError

from gateway.errors import StartupError, no_websocket
from gateway.harness.figures import Figures, Summary, Tick
from gateway.harness.kinds import STOPPED
from gateway.harness.link import HandshakeCutError, Link
from gateway.harness.printable import printable
from gateway.harness.silence import Silence
from gateway.harness.source import RunSource
from gateway.harness.stops import STOPS

OPENED_AT_ONCE = 100
TICK_SECONDS = 1.0
POLL_SECONDS = 0.05
PACE_SECONDS = 0.001
"""How late a command may be sent after its time; its latency counts from its time all the same. When the rate is more than can
be kept to, replies, ticks and Ctrl-C have their turn as often."""
OF_ANOTHER_NAME = (62, 64)
"""How OpenSSL numbers a certificate that is good, and of another host or address (X509_V_ERR_*_MISMATCH)."""
LEAVE_SECONDS = 5.0
"""Time for the connections to close; a peer that is gone never takes what is still to be written."""


class Plan(Struct, frozen=True, kw_only=True):
    """How to run. `seconds` is when sending ends by itself, 0 for when the source is exhausted, or after `reply_seconds` of
    silence.

    `refusal` is what to say when the gateway takes none of the tokens; `trusted` is how to check its certificate.
    """

    title: str
    url: str
    tokens: Sequence[str]
    refusal: str
    connections: int
    in_flight: int
    trusted: ssl.SSLContext | None = None
    seconds: float = 0.0
    reply_seconds: float = 30.0


Times = Iterator[tuple[float, int, Callable[[float], None]]]
"""When each command is due, in seconds from the start; its connection; and what to tell the due time as perf_counter."""


Show = Callable[[Tick, int, int], None]
"""Takes the figures of a second, how many connections are coming back, and how many there are."""


class Run:
    """One run, once. `pace`: when commands are due; without it each reply makes room for the next command.

    What is not answered is counted once: as missing, or as left out.
    """

    def __init__(self, plan: Plan, source: RunSource, figures: Figures, show: Show, pace: Times | None = None) -> None:
        self._plan = plan
        self._source = source
        self._figures = figures
        self._show = show
        self._pace = pace
        self.links: list[Link] = []
        self._told = 0
        self._stopped = 0
        self._over = False
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()

    def wake(self, number: int) -> None:
        """A connection may go on; it does so behind what runs now."""
        asyncio.get_running_loop().call_soon(self.links[number].pump)

    async def run(self) -> Summary:
        """The figures. Raises StartupError when the gateway does not let the connections in, or takes none of their tokens."""
        plan = self._plan
        asyncio.get_running_loop().set_exception_handler(_on_loop_error)
        self.links = [self._link(number) for number in range(plan.connections)]
        await self._open()
        gc.collect()
        gc.freeze()
        self._catch_signals()
        async with asyncio.TaskGroup() as tasks:
            stays = [tasks.create_task(link.stay()) for link in self.links]
            self._figures.begin()
            ticks = tasks.create_task(self._ticks())
            pacer = tasks.create_task(self._send_in_time(self._pace or iter(())))
            for link in self.links:
                link.pump()
            await self._until_done(pacer)
            self._figures.end()
            ticks.cancel()
            self._over = True
            await self._leave(stays)
            await asyncio.wait([pacer])
            self._figures.missing += sum(link.waiting for link in self.links)
        if not self._figures.reconnects and all(link.refused for link in self.links):
            raise StartupError(plan.refusal)
        return self._figures.summary(
            title=plan.title,
            url=plan.url,
            paced=self._pace is not None,
            connections=plan.connections,
            in_flight=plan.in_flight,
            skipped=self._source.skipped() | ({STOPPED: self._stopped} if self._stopped else {}),
        )

    def _link(self, number: int) -> Link:
        plan = self._plan
        token = plan.tokens[number % len(plan.tokens)]
        limits = plan.in_flight, plan.reply_seconds
        return Link(number, plan.url, plan.trusted, token, *limits, self._source, self._figures)

    async def _open(self) -> None:
        try:
            for first in range(0, len(self.links), OPENED_AT_ONCE):
                await asyncio.gather(*(link.connect() for link in self.links[first : first + OPENED_AT_ONCE]))
        except (OSError, WSError, ValueError, TimeoutError) as error:
            raise StartupError(_no_connection(self._plan.url, error)) from None

    async def _until_done(self, pacer: asyncio.Task[None]) -> None:
        """Returns when all is answered, or what is not has had its time, or was told to stop twice."""
        silent = await self._until_sent(pacer)
        ended = all(link.ended for link in self.links)
        self._figures.interrupted = self._stop.is_set() and not silent
        if silent or ended or self._stop.is_set():
            pacer.cancel()
        unsent = self._source.stop()
        if silent:
            unsent += sum(self._source.abandon(link.number) for link in self.links)
        if ended:
            self._figures.missing += unsent
        else:
            self._stopped = unsent
        if not ended and (silent or self._stop.is_set()):
            self._figures.unsent = unsent
        if silent:
            return
        give_up_at = time.perf_counter() + self._plan.reply_seconds
        while not self._stop_now.is_set() and time.perf_counter() < give_up_at:
            sent = self._source.exhausted() and pacer.done()
            if sent and not any(link.busy() for link in self.links if not link.ended):
                break
            await self._poll()

    async def _until_sent(self, pacer: asyncio.Task[None]) -> bool:
        """Returns when nothing more is to be sent; True when that is because the other end is silent.

        With an end of its own (`seconds`) a run sits out any silence until then: to measure one is what it is for. So its
        clock does not stop before that.
        """
        plan, silence = self._plan, Silence(self.links, self._figures)
        end = time.perf_counter() + plan.seconds if plan.seconds else float("inf")
        while not self._source.exhausted() and not all(link.ended for link in self.links):
            if self._stop.is_set() or time.perf_counter() >= end:
                break
            skipped = sum(self._source.skipped().values())
            silent_seconds = silence.seconds(skipped, self._told, pacing=not pacer.done())
            if not plan.seconds and silent_seconds >= plan.reply_seconds:
                return True
            await self._poll()
        if plan.seconds and not self._source.exhausted():
            self._figures.moved = max(self._figures.moved, min(time.perf_counter(), end))
        return False

    async def _poll(self) -> None:
        await asyncio.sleep(POLL_SECONDS)
        self._figures.look()

    async def _send_in_time(self, times: Times) -> None:
        """Has each command sent when it is due; those whose turn does not come before the run is over are missing."""
        began = turned = time.perf_counter()
        for offset, number, tell in times:
            if self._plan.seconds and offset >= self._plan.seconds:
                break
            at, now = began + offset, time.perf_counter()
            if at > now or now - turned > PACE_SECONDS:
                await asyncio.sleep(max(at - now, PACE_SECONDS) if at > now else 0)
                turned = time.perf_counter()
            if self._stop.is_set():
                break
            if self._over:
                self._figures.missing += 1
                continue
            tell(at)
            self._told += 1
            if self.links[number].ended:
                self._figures.missing += self._source.abandon(number)
            self.links[number].pump()

    async def _leave(self, stays: Sequence[asyncio.Task[None]]) -> None:
        """Closes the connections, whether the other ends close theirs or not."""
        for link in self.links:
            link.leave()
        _, staying = await asyncio.wait(stays, timeout=LEAVE_SECONDS)
        for stay in staying:
            stay.cancel()
        if staying:
            await asyncio.wait(staying)

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._show(self._figures.tick(), sum(link.coming_back for link in self.links), len(self.links))

    def _catch_signals(self) -> None:
        """Ctrl-C ends sending and waits for the replies; a second one ends at once."""

        def on_signal() -> None:
            (self._stop_now if self._stop.is_set() else self._stop).set()

        loop = asyncio.get_running_loop()
        for number in STOPS:
            with suppress(NotImplementedError, ValueError, RuntimeError):  # not in the main thread
                loop.add_signal_handler(number, on_signal)


def _no_connection(url: str, error: Exception) -> str:
    """What to say when a connection could not be opened; one end with TLS and the other without is told by how it failed."""
    if isinstance(error, WSInvalidStatusError) and error.response is not None:
        return no_websocket(url, error.response.status, error.raw_body or b"")
    ask, by_tls = "does a gateway run there? See --url.", url.startswith("wss:")
    if isinstance(error, ssl.SSLCertVerificationError):
        ask = "name by --ca-file whose certificates to trust."
        if error.verify_code in OF_ANOTHER_NAME:
            ask = "its certificate is for another name: have that in --url."
    elif isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        ask = "each connection is an open file: allow more by `ulimit -n`, or give fewer --connections."
    elif isinstance(error, HandshakeCutError) and not by_tls:
        ask = "does a gateway run there, and is it wss:// that it wants? See --url."
    elif isinstance(error, (ConnectionResetError, ssl.SSLError)) and by_tls:
        ask = "does a gateway run there, and with TLS? One without it wants ws://. See --url."
    return f"No connection to {url} ({printable(str(error)) or type(error).__name__}): {ask}"


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What befalls a transport is raised or ends its connection, and need not be told twice.

    Of a failed TLS handshake aiofastnet tells the class of the exception, which the loop's own handler cannot print.
    """
    error = context.get("exception")
    if not issubclass(error if isinstance(error, type) else type(error), OSError):
        loop.default_exception_handler(context)
