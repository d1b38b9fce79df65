"""What a check is given: a PostgreSQL of its own, fresh databases, gateways as processes, and a folder for what is kept."""

from __future__ import annotations

import itertools
import os
import signal
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from gateway import managers, schema
from gateway.database_pool import connect_arguments
from gateway.embedded import EmbeddedPostgres
from gateway.managers import NewManager
from gateway.settings import Settings
from tests.calendar_model import Manager
from tests.conftest import CHEAP_HASH, PASSWORD
from tests.faults.ledger import Ledger
from tests.people import add_managers
from tests.process import GatewayProcess, gateway_process, until

TEMPLATE = f"template_faults_{zlib.crc32(''.join(schema.steps()).encode()):08x}"
"""Named after the schema in it: the data outlives a run, and then meets a gateway of another version."""
MANAGERS = (10, 11, 12)
CRM_ADMIN = 11
_number = itertools.count(1)


class Stage:
    """`short` asks for small counts. What is to be kept of the run goes into `folder`."""

    def __init__(self, server: EmbeddedPostgres, folder: Path, *, short: bool) -> None:
        self.server = server
        self.folder = folder
        self.short = short

    def count(self, full: int, short: int) -> int:
        """How often: the whole count, or the one for CI."""
        return short if self.short else full

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """A fresh database with the schema and the managers 10, 11 and 12: its address."""
        await self._make_template()
        name = f"faults_{os.getpid()}_{next(_number)}"
        await self._admin(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        try:
            yield with_database(self.server.dsn, name)
        finally:
            with suppress(OSError, asyncpg.PostgresError):
                await self._admin(f"DROP DATABASE {name} WITH (FORCE)")

    def gateway(self, dsn: str, plant: str = "", /, **settings: object) -> AbstractAsyncContextManager[GatewayProcess]:
        """A gateway in a process of its own; its log is kept. With `plant` it has that bug."""
        program = ("tests.faults.planted", plant) if plant else ("gateway",)
        return gateway_process(self.folder, program, **{"database_url": dsn, "log_success_ratio": 0, **settings})

    def ledger(self, name: str) -> Ledger:
        """A ledger that is kept."""
        return Ledger(self.folder / f"ledger-{name}-{next(_number)}.jsonl")

    def restart(self) -> None:
        """Starts PostgreSQL again after its death; blocks until it answers."""
        self.server.stop()
        self.server.start()

    async def execute(self, sql: str) -> None:
        """Runs statements as the superuser, each by itself."""
        for statement in sql.split(";"):
            await self._admin(statement)

    def postgres_pids(self) -> list[int]:
        """The postmaster, then its children."""
        folder = Path(str(self.server.log_path)).parent / "postgres"
        postmaster = int((folder / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [postmaster, *map(int, children)]

    def signal_postgres(self, number: signal.Signals) -> None:
        """Sends a signal to PostgreSQL's every process."""
        for pid in self.postgres_pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    async def _make_template(self) -> None:
        dsn = self.server.dsn
        db = await asyncpg.connect(dsn)
        try:
            if await db.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", TEMPLATE):
                return
            await db.execute(f"CREATE DATABASE {TEMPLATE}")
        finally:
            await db.close()
        db = await schema.connect(connect_arguments(Settings(), with_database(dsn, TEMPLATE)))
        try:
            await schema.apply(db)
            for manager_id in MANAGERS:
                await managers.add(db, NewManager(id=manager_id, login=str(manager_id)), PASSWORD)
            await db.execute("UPDATE manager SET password_hash = $1", CHEAP_HASH)
        finally:
            await db.close()

    async def _admin(self, sql: str) -> None:
        db = await asyncpg.connect(self.server.dsn)
        try:
            await db.execute(sql)
        finally:
            await db.close()


def with_database(dsn: str, name: str) -> str:
    """The address of another database of the same server."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    """A connection of the check's own, as soon as PostgreSQL gives one."""

    async def attempt() -> Any:
        with suppress(OSError, asyncpg.PostgresError):
            return await asyncpg.connect(dsn)
        return None

    db = await until(attempt)
    try:
        yield db
    finally:
        await db.close()


async def sessions(dsn: str, manager_ids: Sequence[int] = MANAGERS[:1]) -> list[str]:
    """A token of a new session for each of these managers, who may do everything."""
    async with connected(dsn) as db:
        return await add_managers(db, [Manager(number, CRM_ADMIN) for number in manager_ids])
