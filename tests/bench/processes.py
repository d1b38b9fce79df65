"""Processes of the benchmark: started on a core, watched through /proc, and ended by their own pid whatever happens."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent.parent
BENCH_DIR = ROOT / ".bench"
LOAD_CLIENT = [Path(__file__).parent / name for name in ("load_client.c", "load_job.c", "load_socket.c")]
STOP_SECONDS = 10
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def cores() -> tuple[set[int], set[int]]:
    """The core of the server under test, and the one of PostgreSQL; the same where there is only one."""
    usable = sorted(os.sched_getaffinity(os.getpid()))
    return ({usable[0]}, {usable[1]}) if len(usable) > 1 else ({usable[0]}, {usable[0]})


@contextmanager
def running(
    command: Sequence[object],
    core: set[int],
    environment: Mapping[str, str] | None = None,
    stdin: int | IO[Any] = subprocess.DEVNULL,
    stdout: int | IO[Any] = subprocess.PIPE,
    stderr: int | IO[Any] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended when the block is left, and when the benchmark itself is killed."""
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env={**clean_environment(), **(environment or {})},
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        preexec_fn=lambda: _settle(core),  # noqa: PLW1509 - the benchmark has one thread
    )
    try:
        yield process
    finally:
        _end(process)


def may_open_most() -> None:
    """Lets this process, and those it starts, open as many files as it is allowed: a load client has a socket each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def python(module: str) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", module]


def load_client_program() -> Path:
    """The load client, compiled anew. Raises CalledProcessError, the compiler's words on standard error."""
    BENCH_DIR.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BENCH_DIR) as folder:
        made = Path(folder) / "load_client"
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-Wall", "-Wextra", "-o", made, *LOAD_CLIENT], check=True)
        return made.replace(BENCH_DIR / made.name)


def clean_environment() -> dict[str, str]:
    """The environment without what would change the sides' settings."""
    return {name: text for name, text in os.environ.items() if not name.startswith(("GATEWAY_", "PG"))}


def pin_tree(pid: int, core: set[int]) -> None:
    """Pins a process and its children; those that it starts later inherit it."""
    for process in (pid, *_children(pid)):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(process, core)


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads that live."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def resident_bytes(pid: int, *, peak: bool = False) -> int:
    """Resident memory now, or at most since `forget_peak`."""
    field = "VmHWM:" if peak else "VmRSS:"
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def forget_peak(pid: int) -> None:
    """Lets the peak of resident memory begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _settle(core: set[int]) -> None:
    os.sched_setaffinity(0, core)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
