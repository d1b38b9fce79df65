"""A gateway in a process of its own, as operators run it: started, signalled, killed and read from outside."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tests.client import WAIT_SECONDS
from tests.run_log import SECRET

T = TypeVar("T")

ROOT = Path(__file__).parent.parent
POLL_SECONDS = 0.01
PROGRAM: tuple[str, ...] = ("gateway",)
"""The module that is run, and what it is told before `serve`. tests/faults runs gateways with a bug planted."""
EVERYWHERE: dict[str, object] = {}
"""Settings that a run of the tests gives to every gateway: `make test ARGS="--sharing 1"`."""
_number = itertools.count(1)


async def until(read: Callable[[], Awaitable[T]], holds: Callable[[T], object] = bool) -> T:
    """What `read` returns, as soon as it holds; fails when that takes too long."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            value = await read()
            if holds(value):
                return value
            await asyncio.sleep(POLL_SECONDS)


async def becomes_true(condition: Callable[[], object]) -> None:
    """Returns as soon as the condition holds."""

    async def read() -> object:
        return condition()

    await until(read)


def children_of(pid: int) -> list[int]:
    """The pids of the processes that any of its threads has started and that have not been waited for."""
    children: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # the thread has ended meanwhile
            children += map(int, (thread / "children").read_text().split())
    return children


class GatewayProcess:
    """A running `gateway serve`; `url` is where its sockets are."""

    def __init__(self, program: Sequence[str], environment: dict[str, str], output: Path, log: Path) -> None:
        command = [sys.executable, "-m", *program, "serve"]
        with output.open("wb") as out, log.open("wb") as err:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=err)
        self._output = output
        self._log = log
        self.port = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    @property
    def log_lines(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in self._log.read_text().splitlines()]

    async def started(self) -> None:
        """Returns when it has said where it listens."""
        await becomes_true(lambda: self._listening() or self._process.poll() is not None)
        found = self._listening()
        assert found, self._log.read_text()
        self.port = int(found[1])

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def runs(self, program: str) -> bool:
        """Whether the program is a child of this process at this moment."""
        with suppress(OSError):
            return any(program in Path(f"/proc/{child}/cmdline").read_text() for child in children_of(self._process.pid))
        return False

    async def exited(self) -> int:
        """The exit code, once it has ended; negative is the signal that killed it."""
        await becomes_true(lambda: self._process.poll() is not None)
        return self._process.wait()

    async def kill(self) -> None:
        """Ends it as a crash would, if it has not ended yet."""
        self.signal(signal.SIGKILL)
        await self.exited()

    def _listening(self) -> re.Match[str] | None:
        return re.search(r" serves wss?://127\.0\.0\.1:(\d+)", self._output.read_text())


@asynccontextmanager
async def gateway_process(
    folder: Path, program: Sequence[str] | None = None, /, **settings: object
) -> AsyncIterator[GatewayProcess]:
    """A gateway with these settings beside the tests' own; its output goes to files in the folder."""
    name = f"gateway-{next(_number)}"
    given = {"port": 0, "metrics_host": "off", "log_level": "debug", "log_success_ratio": 1, "token_secret": SECRET}
    given |= EVERYWHERE | settings
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment |= {f"GATEWAY_{name.upper()}": str(value) for name, value in given.items()}
    gateway = GatewayProcess(program or PROGRAM, environment, folder / f"{name}.out", folder / f"{name}.log")
    try:
        await gateway.started()
        yield gateway
    finally:
        await gateway.kill()


async def http_status(port: int, path: str) -> int:
    """The status of a plain request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: tests\r\n\r\n".encode())
        async with asyncio.timeout(WAIT_SECONDS):
            return int((await reader.readline()).split()[1])
    finally:
        writer.close()
        await writer.wait_closed()
