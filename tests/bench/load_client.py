"""The load client's process: a job is a line of JSON on standard input, its answers are lines on standard output."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import nullcontext, suppress
from itertools import count, cycle

import msgspec
import uvloop

from tests.bench.load_job import NUMBER, Job, Opened, Result
from tests.bench.load_socket import LoadSocket, framed
from tests.bench.pacer import paced

OPEN_SECONDS = 20
OPENED_AT_ONCE = 50
LAST_REPLIES_SECONDS = 20
_NUMBER = NUMBER.encode()
_EXT_ID = b'"extID":"'


class Load:
    """One job: keeps its commands in flight until the end."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._frames = cycle([framed(text.encode()) for text in job.frames])
        self._numbers = map(f"%0{len(NUMBER)}d".encode().__mod__, count())
        self._sent_at: dict[bytes, float] = {}
        self._expect = job.expect.encode()
        self._loop = asyncio.get_running_loop()
        self._sockets: list[LoadSocket] = []
        self._latencies: list[float] = []
        self._before = self._wrong = self._bytes = 0
        self._first_wrong = b""
        self._began = self._cpu_began = 0.0
        self.over = asyncio.Event()
        self._replied = asyncio.Event()
        self._settled = asyncio.Event()

    async def open(self) -> None:
        """Opens every socket; raises OSError or TimeoutError."""
        try:
            while missing := self._job.shape.sockets - len(self._sockets):
                self._sockets += await asyncio.gather(*(self._opened() for _ in range(min(missing, OPENED_AT_ONCE))))
        except OSError:
            for socket in self._sockets:
                socket.transport.abort()
            raise
        self._turns = cycle(self._sockets)

    async def run(self) -> Result:
        """Sends until the job is over; takes the last replies, so that the next job finds the server at rest."""
        rate = self._job.shape.rate
        with paced(rate, self._send_on_time) if rate else nullcontext():
            self._begin()
            self._send_first()
            if self._job.warm_seconds:
                await asyncio.sleep(self._job.warm_seconds)
                self._before = len(self._latencies)
                self._begin()
            await _set_within(self.over, self._job.seconds or None)
            if not self._latencies and self._sent_at:  # a command that takes longer than the job is still measured once
                await _set_within(self._replied, LAST_REPLIES_SECONDS)
            seconds, cpu = time.perf_counter() - self._began, time.process_time() - self._cpu_began
            commands, received = len(self._latencies), self._bytes
            self.over.set()
        if self._sent_at and not self._wrong:
            await _set_within(self._settled, LAST_REPLIES_SECONDS)
        await asyncio.gather(*(socket.close() for socket in self._sockets))
        return self._result(commands, seconds, cpu, received)

    async def _opened(self) -> LoadSocket:
        async with asyncio.timeout(OPEN_SECONDS):
            _, socket = await self._loop.create_connection(
                lambda: LoadSocket(self._job.token, self._answered, self._hung_up), "127.0.0.1", self._job.port
            )
            await socket.opened
            return socket

    def _begin(self) -> None:
        self._latencies.clear()
        self._replied.clear()
        self._bytes = 0
        self._began, self._cpu_began = time.perf_counter(), time.process_time()

    def _send_first(self) -> None:
        shape = self._job.shape
        if shape.rate:
            return
        for _ in range(shape.window):
            self._send(next(self._turns))
        if not shape.window:
            for socket in self._sockets:
                for _ in range(shape.in_flight):
                    self._send(socket)

    def _send(self, socket: LoadSocket) -> None:
        if not self.over.is_set():
            self._send_at(socket, time.perf_counter())

    def _send_on_time(self, due: float) -> None:
        self._send_at(next(self._turns), due)

    def _send_at(self, socket: LoadSocket, at: float) -> None:
        number = next(self._numbers)
        self._sent_at[number] = at
        socket.write(next(self._frames).replace(_NUMBER, number))

    def _answered(self, socket: LoadSocket, head: bytes, size: int) -> None:
        start = head.find(_EXT_ID) + len(_EXT_ID)
        sent_at = self._sent_at.pop(head[start : start + len(NUMBER)], None)
        if sent_at is None or self._expect not in head:
            self._is_wrong(head)
        if sent_at is None:
            return
        self._latencies.append(time.perf_counter() - sent_at)
        self._replied.set()
        self._bytes += size
        if self._job.count and len(self._latencies) >= self._job.count:
            self.over.set()
        if self.over.is_set():
            if not self._sent_at:
                self._settled.set()
        elif self._job.pause_seconds:
            self._loop.call_later(self._job.pause_seconds, self._send, socket)
        elif not self._job.shape.rate:
            self._send(next(self._turns) if self._job.shape.window else socket)

    def _hung_up(self) -> None:
        if not self.over.is_set():
            self._is_wrong(b"a socket was closed")
            self.over.set()

    def _is_wrong(self, what: bytes) -> None:
        self._wrong += 1
        self._first_wrong = self._first_wrong or what

    def _result(self, commands: int, seconds: float, cpu: float, received: int) -> Result:
        missing = len(self._sent_at) + (not self._latencies and not self._job.shape.idle)
        ordered = sorted(self._latencies) or [seconds]
        return Result(
            commands=commands,
            commands_in_all=len(self._latencies) + self._before,
            wrong=self._wrong + missing,
            seconds=seconds,
            cpu_seconds=cpu,
            bytes_received=received,
            p50=ordered[len(ordered) // 2],
            p99=ordered[len(ordered) * 99 // 100],
            longest=ordered[-1],
            first_wrong=self._first_wrong.decode(errors="replace"),
        )


async def _set_within(event: asyncio.Event, seconds: float | None) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def _main() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=2**26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        job = msgspec.json.decode(line, type=Job)
        load = Load(job)
        try:
            await load.open()
        except OSError as error:  # a time-out is one too
            _tell(Opened(repr(error)))
            continue
        _tell(Opened())
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(load.run())
            if not job.ends_by_itself:
                await lines.readline()
                load.over.set()
        _tell(work.result())


def _tell(answer: Opened | Result) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main())
