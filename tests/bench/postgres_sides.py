"""pgbench and psql, from the same wheel as the server and with the settings that the gateway gives its connections."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from pathlib import Path

from gateway.database_pool import connect_arguments
from gateway.embedded import bin_dir
from gateway.settings import Settings
from tests.bench.figures import StepFailedError
from tests.bench.processes import BENCH_DIR, pin_tree, running
from tests.bench.statements import Query, as_pgbench, as_psql

SETTINGS = ("synchronous_commit", "plan_cache_mode", "jit")
"""What of the gateway's settings changes the work that is done; its time limits are its own."""
LIMIT_SECONDS = 120
FSYNC_SECONDS = 1


DATA_DIR = BENCH_DIR / "data"


def place_server(core: set[int]) -> None:
    """Moves the PostgreSQL server, and the processes that it will start."""
    pin_tree(int((DATA_DIR / "postgres/postmaster.pid").read_text().split()[0]), core)


class Postgres:
    """Runs queries against PostgreSQL from the cores given."""

    def __init__(self, core: set[int]) -> None:
        self._core = core
        given = connect_arguments(Settings(), "")["server_settings"]
        wanted = {name: value for name, value in given.items() if name in SETTINGS}
        self._environment = {"PGOPTIONS": " ".join(f"-c {name}={value}" for name, value in wanted.items())}

    def pgbench(self, dsn: str, query: Query, seconds: int, clients: int = 1, before: str = "") -> dict[str, float]:
        """Transactions per second, and latencies in seconds from pgbench's own log."""
        script, options = as_pgbench(query, before)
        return self.pgbench_script(dsn, query.name, script, options, seconds, clients)

    def pgbench_script(
        self, dsn: str, name: str, script: str, options: list[str], seconds: int, clients: int
    ) -> dict[str, float]:
        """The same of a script as it stands."""
        with tempfile.TemporaryDirectory(dir=BENCH_DIR) as folder:
            path = Path(folder) / "script.sql"
            path.write_text(script)
            output = self._run(
                "pgbench",
                *("--no-vacuum", "--protocol=prepared", f"--time={seconds}", f"--client={clients}", f"--file={path}"),
                *(f"--jobs={min(clients, len(self._core))}", "--log", f"--log-prefix={folder}/log", *options, dsn),
            )
            latencies = [float(line.split()[2]) / 1e6 for log in Path(folder).glob("log*") for line in log.open()]
        latencies.sort()
        found = re.search(r"tps = ([\d.]+)", output)
        if found is None or not latencies or re.search(r"failed transactions: [1-9]|aborted", output):
            raise StepFailedError(f"pgbench failed on {name}: {output}")
        return {"per_second": float(found[1]), "p50": latencies[len(latencies) // 2]}

    def psql(self, dsn: str, query: Query) -> float:
        """Seconds to fetch all rows as text, without the time that psql needs to start."""
        empty = self._timed(dsn, "SELECT 1 \\g /dev/null\n")
        return self._timed(dsn, as_psql(query)) - empty

    def fsync_figures(self) -> str:
        """What pg_test_fsync finds for fdatasync, PostgreSQL's way of syncing on Linux."""
        with tempfile.TemporaryDirectory(dir=BENCH_DIR) as folder:
            output = self._run("pg_test_fsync", f"--secs-per-test={FSYNC_SECONDS}", f"--filename={folder}/file")
        found = re.search(r"fdatasync\s+([\d.]+ ops/sec\s+[\d.]+ usecs/op)", output)
        return " ".join(found[1].split()) if found else "fdatasync not measured"

    def _timed(self, dsn: str, script: str) -> float:
        with tempfile.NamedTemporaryFile("w", dir=BENCH_DIR, suffix=".sql") as file:
            file.write(script)
            file.flush()
            started = time.perf_counter()
            self._run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", file.name, dsn)
            return time.perf_counter() - started

    def _run(self, program: str, *options: str) -> str:
        command = [bin_dir() / program, *options]
        with running(command, self._core, self._environment, stderr=subprocess.STDOUT) as process:
            output, _ = process.communicate(timeout=LIMIT_SECONDS)
            if process.returncode != 0:
                raise StepFailedError(f"{program} failed: {output.decode()}")
            return output.decode()
