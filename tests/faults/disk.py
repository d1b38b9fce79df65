"""A data disk that is full: a small tmpfs under a tablespace. Only root may mount one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from gateway.server_user import give_to_server
from tests.client import EVENT, Client
from tests.faults.check import Finding, not_run
from tests.faults.ledger import counted
from tests.faults.load import loaded
from tests.faults.stage import TEMPLATE, Stage, connected, sessions, with_database
from tests.process import http_status, until

SMALL, LARGE = "16m", "64m"
ENOUGH = 20
"""Commands refused for want of room, before the disk counts as full."""
RED_SECONDS = 2.0
"""For readiness to tell the truth: its answer is cached for half a second."""


async def full_disk(stage: Stage) -> Finding:
    """Adds until the disk is full, looks around, makes room, and adds again."""
    if os.geteuid() != 0:
        return not_run("mounting a small disk needs root")
    try:
        with _small_disk() as folder:
            return await _fill(stage, folder)
    except subprocess.CalledProcessError as error:
        return not_run(f"mounting a small disk failed: {error.stderr.decode().strip()}")


async def _fill(stage: Stage, folder: Path) -> Finding:
    async with _database(stage, folder) as dsn, stage.gateway(dsn) as gateway:
        ledger, (token,) = stage.ledger("disk-full"), await sessions(dsn)
        proof = {"Authorization": f"Bearer {token}"}
        async with Client.connected(gateway.url, additional_headers=proof) as client:
            async with loaded(ledger, token, gateway.url, body_bytes=20_000):

                async def refused() -> int:
                    return sum(entry.status not in (0, 200) for entry in ledger.entries.values())

                await until(refused, lambda count: count >= ENOUGH)
                alive = await http_status(gateway.port, "/healthz"), (await client.command("HealthCheck"))["status"]
                ready = await _readiness(gateway.port, 503)
            _mount("-o", f"remount,size={LARGE}", folder)
            again = await until(
                lambda: client.command("MngAddCalendarEvent", {**EVENT, "title": "with room"}), lambda r: r["status"] == 200
            )
            green = await _readiness(gateway.port, 200)
            await client.command("MngDeleteCalendarEvent", {"id": again["data"]["event"]["id"]})
        async with connected(dsn) as db:
            truth = await ledger.reconcile(db)
    failures = [entry for entry in ledger.entries.values() if entry.status != 200]
    clean = all((entry.error, entry.outcome) == ("NO_SERVICE", "not_executed") for entry in failures)
    good = clean and truth.holds and alive == (200, 200) and (ready, green) == (503, 200)
    return Finding(
        good,
        f"{truth}; {counted(failures)}; alive {alive}, /readyz {ready} while full, {green} with room again",
    )


async def _readiness(port: int, wanted: int) -> int:
    """The status of /readyz, which has some time to become the wanted one."""
    try:
        async with asyncio.timeout(RED_SECONDS):
            return await until(lambda: http_status(port, "/readyz"), lambda status: status == wanted)
    except TimeoutError:
        return await http_status(port, "/readyz")


@contextmanager
def _small_disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gateway-disk-") as name:
        Path(name).chmod(0o711)
        folder = Path(name) / "disk"
        folder.mkdir()
        _mount("-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", folder)
        try:
            give_to_server(folder)
            folder.chmod(0o700)
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True, capture_output=True)


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@asynccontextmanager
async def _database(stage: Stage, folder: Path) -> AsyncIterator[str]:
    """A database on the small disk."""
    async with stage.database():  # makes the template
        pass
    await stage.execute(f"CREATE TABLESPACE small_disk LOCATION '{folder}'")
    await stage.execute(f"CREATE DATABASE on_small_disk TEMPLATE {TEMPLATE} TABLESPACE small_disk")
    try:
        yield with_database(stage.server.dsn, "on_small_disk")
    finally:
        await stage.execute("DROP DATABASE on_small_disk WITH (FORCE); DROP TABLESPACE small_disk")
