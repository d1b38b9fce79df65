"""The load client's process: a job is a line of JSON on standard input, its result a line on standard output."""

from __future__ import annotations

import asyncio
import sys
import time
from itertools import cycle

import msgspec
import uvloop
from msgspec import Struct

from tests.bench.load_socket import LoadSocket, framed

OPEN_SECONDS = 20
LAST_REPLIES_SECONDS = 20


class Job(Struct, frozen=True, kw_only=True):
    """Frames to send, over and over. It ends after `seconds`, after `count` replies, or with the next line of input."""

    port: int
    frames: list[str]
    expect: str
    token: str = ""
    sockets: int = 1
    in_flight: int = 1
    seconds: float = 0.0
    warm_seconds: float = 0.0
    count: int = 0
    pause_seconds: float = 0.0


class Result(Struct, frozen=True, kw_only=True):
    """Latencies in seconds; with several in flight they are matched in the order sent, so that only means are exact."""

    commands: int
    commands_with_warm_up: int
    wrong: int
    seconds: float
    cpu_seconds: float
    bytes_received: int
    p50: float
    p99: float
    longest: float
    first_wrong: str = ""


class Load:
    """One job: keeps every socket's commands in flight until the end."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._frames = cycle([framed(text.encode()) for text in job.frames])
        self._expect = job.expect.encode()
        self._loop = asyncio.get_running_loop()
        self._latencies: list[float] = []
        self._before = self._wrong = self._bytes = self._unanswered = 0
        self._first_wrong = b""
        self._began = self._cpu_began = 0.0
        self.over = asyncio.Event()
        self._replied = asyncio.Event()
        self._settled = asyncio.Event()

    async def run(self) -> Result:
        sockets = [await self._opened() for _ in range(self._job.sockets)]
        self._begin()
        for socket in sockets:
            for _ in range(self._job.in_flight):
                self._send(socket)
        if self._job.warm_seconds:
            await asyncio.sleep(self._job.warm_seconds)
            self._before = len(self._latencies)
            self._begin()
        hang_ups = [asyncio.create_task(socket.lost.wait()) for socket in sockets]
        over = asyncio.create_task(self.over.wait())
        await asyncio.wait((over, *hang_ups), timeout=self._job.seconds or None, return_when=asyncio.FIRST_COMPLETED)
        if not self._latencies:  # a command that takes longer than the job is still measured once
            replied = asyncio.create_task(self._replied.wait())
            await asyncio.wait((replied, *hang_ups), timeout=LAST_REPLIES_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            replied.cancel()
        self._wrong += sum(task.done() for task in hang_ups)
        result = self._result()
        await self._end(sockets, (over, *hang_ups))
        return result

    async def _opened(self) -> LoadSocket:
        async with asyncio.timeout(OPEN_SECONDS):
            _, socket = await self._loop.create_connection(
                lambda: LoadSocket(self._job.token, self._answered), "127.0.0.1", self._job.port
            )
            await socket.opened
            return socket

    def _begin(self) -> None:
        self._latencies.clear()
        self._replied.clear()
        self._bytes = 0
        self._began, self._cpu_began = time.perf_counter(), time.process_time()

    def _send(self, socket: LoadSocket) -> None:
        if self.over.is_set():
            return
        socket.sent_at.append(time.perf_counter())
        self._unanswered += 1
        socket.write(next(self._frames))

    def _answered(self, socket: LoadSocket, head: bytes, size: int) -> None:
        self._latencies.append(time.perf_counter() - socket.sent_at.pop(0))
        self._unanswered -= 1
        self._replied.set()
        self._bytes += size
        if self._expect not in head:
            self._wrong += 1
            self._first_wrong = self._first_wrong or head
        if self._job.count and len(self._latencies) >= self._job.count:
            self.over.set()
        if self.over.is_set():
            if self._unanswered == 0:
                self._settled.set()
        elif self._job.pause_seconds:
            self._loop.call_later(self._job.pause_seconds, self._send, socket)
        else:
            self._send(socket)

    def _result(self) -> Result:
        seconds, cpu = time.perf_counter() - self._began, time.process_time() - self._cpu_began
        ordered = sorted(self._latencies) or [seconds]
        return Result(
            commands=len(self._latencies),
            commands_with_warm_up=len(self._latencies) + self._before,
            wrong=self._wrong + (not self._latencies),
            seconds=seconds,
            cpu_seconds=cpu,
            bytes_received=self._bytes,
            p50=ordered[len(ordered) // 2],
            p99=ordered[len(ordered) * 99 // 100],
            longest=ordered[-1],
            first_wrong=self._first_wrong.decode(errors="replace"),
        )

    async def _end(self, sockets: list[LoadSocket], tasks: tuple[asyncio.Task[bool], ...]) -> None:
        """Takes the replies that are still to come, so that the next job finds the server at rest."""
        self.over.set()
        for task in tasks:
            task.cancel()
        if self._unanswered and not self._wrong and not self._job.pause_seconds:
            await asyncio.wait_for(self._settled.wait(), LAST_REPLIES_SECONDS)
        await asyncio.gather(*(socket.close() for socket in sockets))


async def _main() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=2**26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        job = msgspec.json.decode(line, type=Job)
        load = Load(job)
        work = asyncio.create_task(load.run())
        if not job.seconds and not job.count:
            await lines.readline()
            load.over.set()
        sys.stdout.buffer.write(msgspec.json.encode(await work) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main())
