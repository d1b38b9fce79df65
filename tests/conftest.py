"""A PostgreSQL for the whole run, a database of its own for each test, gateways on port 0, and clients to talk to them."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
import pytest
from argon2 import PasswordHasher

from gateway import managers, schema
from gateway.composition import running_gateway
from gateway.database_pool import connect_arguments
from gateway.embedded import EmbeddedPostgres
from gateway.log import make_logger
from gateway.managers import NewManager
from gateway.settings import Settings
from tests import process, run_log
from tests.client import Client

PASSWORD, SECRET = run_log.PASSWORD, run_log.SECRET
CHEAP_HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
"""The password's hash with parameters for tests: signing in takes no time. Hashes carry their parameters with them."""
_number = itertools.count(1)


def settings_for_tests(**changes: Any) -> Settings:
    """Settings of a gateway under test: a free port, everything logged, no metrics (tests/scrape.py shows them)."""
    given = {"port": 0, "metrics_host": "off", "token_secret": SECRET, "log_level": "debug", "log_success_ratio": 1.0}
    given["log_format"] = "json"
    return Settings(**{**given, **process.EVERYWHERE, **changes})


@pytest.fixture(scope="session", autouse=True)
def scratch_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that the database user can enter, also when the tests run as root.

    It outlives every other fixture: the last thing of a run is to search all of its logs for what must not be there.
    """
    folder = Path(tempfile.mkdtemp(prefix="gateway-tests-"))
    if os.geteuid() == 0:
        folder.chmod(0o711)
    yield folder
    leaks = run_log.leaks((folder, tmp_path_factory.getbasetemp()))
    shutil.rmtree(folder, ignore_errors=True)
    if leaks:
        pytest.fail(f"{len(leaks)} secrets, titles or bodies in the logs of this run:\n" + "\n".join(leaks[:20]), pytrace=False)


@pytest.fixture(scope="session")
def postgres(scratch_dir: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server of the test run's own."""
    server = EmbeddedPostgres(scratch_dir / "data")
    server.start()
    yield server
    server.stop()


def _with_database(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


async def _admin(dsn: str, sql: str) -> None:
    db = await asyncpg.connect(dsn)
    try:
        await db.execute(sql)
    finally:
        await db.close()


async def _make_template(dsn: str) -> None:
    # Processes are killed in tests, machines are not: without fsync a clone takes a fraction of the time.
    await _admin(dsn, "ALTER SYSTEM SET fsync = off")
    await _admin(dsn, "SELECT pg_reload_conf()")
    await _admin(dsn, "CREATE DATABASE template_gateway")
    db = await schema.connect(connect_arguments(Settings(), _with_database(dsn, "template_gateway")))
    try:
        await schema.apply(db)
        for manager_id in (10, 11, 12):
            await managers.add(db, NewManager(id=manager_id, login=str(manager_id)), PASSWORD)
        await db.execute("UPDATE manager SET password_hash = $1", CHEAP_HASH)
    finally:
        await db.close()


@pytest.fixture(scope="session")
def template_dsn(postgres: EmbeddedPostgres) -> str:
    """A database with the schema and managers 10, 11 and 12, which each test clones."""
    asyncio.run(_make_template(postgres.dsn))
    return postgres.dsn


@pytest.fixture(autouse=True)
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gateways in this process do not look for ended sessions unless a test does: it would close a socket before the next
    command of it is refused.
    """
    monkeypatch.setattr("gateway.session_watch.WATCH_SECONDS", 3600)


@pytest.fixture
async def dsn(template_dsn: str) -> AsyncIterator[str]:
    """A fresh database, so that tests commit for real."""
    name = f"test_{next(_number)}"
    await _admin(template_dsn, f"CREATE DATABASE {name} TEMPLATE template_gateway STRATEGY file_copy")
    yield _with_database(template_dsn, name)
    await _admin(template_dsn, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Any]:
    """A connection to the test's database, to see what the tables hold."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


class Running:
    """A gateway in this process: its port, and what it logged."""

    def __init__(self, gateway: Any, settings: Settings, log: io.StringIO) -> None:
        self.gateway = gateway
        self.settings = settings
        self.port: int = gateway.port
        self.url = f"ws://127.0.0.1:{gateway.port}/"
        self._log = log

    @property
    def database(self) -> Any:
        """What the gateway's commands ask."""
        return self.gateway._dispatch._services.event_reader._db

    @property
    def log_lines(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in self._log.getvalue().splitlines()]

    @property
    def log_text(self) -> str:
        return self._log.getvalue()


Start = Callable[..., Any]


@asynccontextmanager
async def started(dsn: str, **changes: Any) -> AsyncIterator[Running]:
    """A gateway on `dsn` with these settings changed."""
    settings = settings_for_tests(**changes)
    log = io.StringIO()
    try:
        async with running_gateway(settings, dsn, make_logger(settings, log)) as gateway:
            yield Running(gateway, settings, log)
    finally:
        run_log.heard(log.getvalue())


@pytest.fixture
async def start(dsn: str) -> AsyncIterator[Start]:
    """Starts gateways in the test's database: `await start(in_flight_max=2)`."""
    async with AsyncExitStack() as stack:

        async def start_one(**changes: Any) -> Running:
            return await stack.enter_async_context(started(dsn, **changes))

        yield start_one


@pytest.fixture
async def gateway(start: Start) -> Any:
    """A gateway with the settings of the tests."""
    return await start()


@pytest.fixture
async def connect(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Any]]:
    """Opens clients: `await connect(gateway)` signs in as manager 10, `login=None` does not sign in."""
    async with AsyncExitStack() as stack:

        async def connect_one(running: Running, login: str | None = "10", **arguments: Any) -> Client:
            client = await stack.enter_async_context(Client.connected(running.url, **arguments))
            if login is not None:
                await client.login(login, PASSWORD)
            return client

        yield connect_one


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make docs` writes the generated pages instead of comparing them; commands can be kept from sharing statements."""
    parser.addoption("--write-docs", action="store_true", help="write docs/*.md from this run")
    parser.addoption("--sharing", type=int, help="GATEWAY_COMMANDS_PER_COMMIT_MAX of every gateway")


def pytest_configure(config: pytest.Config) -> None:
    """Every gateway of the run gets what the run was asked for."""
    if sharing := config.getoption("--sharing"):
        process.EVERYWHERE["commands_per_commit_max"] = sharing
