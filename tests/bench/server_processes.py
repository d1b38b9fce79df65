"""The processes under test and the load clients, as the steps use them."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from tests.bench.dataset import SECRET
from tests.bench.figures import StepFailedError
from tests.bench.load_job import Job, Opened, Result
from tests.bench.processes import BENCH_DIR, load_client_program, python, running

START_SECONDS = 30
_SERVES = re.compile(r" serves ws://127\.0\.0\.1:(\d+)")


class Served:
    """A server that listens: its pid and port."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self.port = port


class LoadClient:
    """A load client's process: one job at a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin, process.stdout

    def begin(self, job: Job) -> None:
        """Starts a job; returns when its sockets are open."""
        self._input.write(job.told())
        self._input.flush()
        if error := msgspec.json.decode(self._line(), type=Opened).error:
            raise StepFailedError(f"the sockets could not be opened: {error}")

    def finish(self) -> Result:
        """Ends a job that would go on for ever, and returns its result."""
        self._input.write(b"\n")
        self._input.flush()
        return self.result()

    def run(self, job: Job) -> Result:
        """Runs a job that ends by itself."""
        self.begin(job)
        return self.result()

    def result(self) -> Result:
        """The result of a job that ends by itself."""
        result = msgspec.json.decode(self._line(), type=Result)
        if result.wrong:
            raise StepFailedError(
                f"{result.wrong} wrong or missing of {result.commands} replies; one began {result.first_wrong}"
            )
        return result

    def _line(self) -> bytes:
        line = self._output.readline()
        if not line:
            raise RuntimeError("a load client ended early: its error is above")
        return line


@contextmanager
def gateway(dsn: str, core: set[int], name: str, **settings: object) -> Iterator[Served]:
    """`gateway serve` as shipped but for the settings given, its log in a file."""
    environment = {
        "GATEWAY_PORT": "0",
        "GATEWAY_METRICS_PORT": "0",
        "GATEWAY_DATABASE_URL": dsn,
        "GATEWAY_TOKEN_SECRET": SECRET,
    }
    environment |= {f"GATEWAY_{setting.upper()}": str(value) for setting, value in settings.items()}
    with (
        (BENCH_DIR / f"{name}.log").open("wb") as log,
        running([*python("gateway"), "serve"], core, environment, stderr=log) as process,
    ):
        yield Served(process.pid, _port(process))


@contextmanager
def echo(core: set[int], sockets: str) -> Iterator[Served]:
    """The bare echo, on the sockets of the library or of the gateway."""
    with running([*python("tests.bench.echo_server"), sockets], core) as process:
        yield Served(process.pid, _port(process))


@contextmanager
def load_client(core: set[int]) -> Iterator[LoadClient]:
    """A load client."""
    with running([load_client_program()], core, stdin=subprocess.PIPE) as process:
        yield LoadClient(process)


def _port(process: subprocess.Popen[bytes]) -> int:
    """Reads what the server prints until it says where it listens; its exit ends the output."""
    assert process.stdout is not None
    deadline = time.monotonic() + START_SECONDS
    for line in process.stdout:
        if found := _SERVES.search(line.decode()):
            return int(found[1])
        if time.monotonic() > deadline:
            break
    raise RuntimeError(f"{process.args!r} did not start: see the logs in {BENCH_DIR}")
