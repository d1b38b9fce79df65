"""The sessions that `gateway load` and `gateway replay` open: as long as the run, and gone with it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import msgspec
import pytest

from gateway.capture import Header
from gateway.errors import StartupError
from gateway.harness import credentials
from tests.client import EVENT, WAIT_SECONDS
from tests.conftest import SECRET
from tests.harness_runs import TOKEN, Ended, gateway, good, stand_in
from tests.held import PATIENT
from tests.process import becomes_true, until

FEW = ("--manager", 10, "--mix", "add=1,logout=1", "--connections", 2)


REMOVING = "SELECT count(*) FROM pg_locks WHERE relation = 'session'::regclass AND NOT granted"


async def sessions(db: Any) -> Any:
    """How many there are in the database, live or not."""
    return await db.fetchval("SELECT count(*) FROM session")


async def test_run_outlives_the_sessions_of_managers(start, dsn, db, tmp_path):
    """With GATEWAY_SESSION_SECONDS shorter than the run every reply is as it should be, and no session is left of it."""
    running = await start()
    frame = {"command": "MngAddCalendarEvent", "extID": "recorded", "data": EVENT}
    lines = [{"time": 0.7 * n, "connection": 1, "manager": 10, "frame": frame, "status": 200, "id": n} for n in (1, 2, 3)]
    (tmp_path / "adds").write_bytes(b"".join(msgspec.json.encode(item) + b"\n" for item in (Header(), *lines)))
    for command, answered in ((("load", *FEW, "--commands", 7, "--rate", 3), 7), (("replay", tmp_path / "adds"), 3)):
        ended = await gateway(*command, "--url", running.url, folder=tmp_path, dsn=dsn, session_seconds="1")
        assert (0, answered, {}) == (ended.code, ended.figures["answered"], ended.figures["closes"]), ended.err
        assert 0 == await sessions(db)


async def test_run_that_cannot_start_leaves_no_sessions(dsn, db, tmp_path):
    """Those of others stay, ended or not."""
    others = "INSERT INTO session (id, manager_id, expires_time) VALUES ('live', 10, 2000000000), ('old', 10, 1)"
    await db.execute(others)
    assert 2 == (await gateway("load", *FEW, "--url", "ws://127.0.0.1:9", folder=tmp_path, dsn=dsn)).code
    assert 2 == await sessions(db)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_run_that_is_stopped_before_it_is_connected_leaves_no_sessions(dsn, db, number):
    """Nobody answers its upgrade request; it ends at once with 1."""
    asked = asyncio.Event()

    async def never(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        writer.close()

    environment = {**os.environ, "GATEWAY_DATABASE_URL": dsn, "GATEWAY_TOKEN_SECRET": SECRET}
    async with await asyncio.start_server(never, "127.0.0.1", 0) as server, asyncio.timeout(WAIT_SECONDS):
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        command = (sys.executable, "-m", "gateway", "load", *map(str, FEW), "--url", url)
        process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
        await asked.wait()
        assert 0 < await sessions(db)
        process.send_signal(number)
        _, err = await process.communicate()
    assert (1, b"\nAborted!\n", 0) == (process.returncode, err, await sessions(db))


async def test_ctrl_c_does_not_keep_sessions_that_are_being_removed(dsn, db, tmp_path):
    """It says nothing behind the table either, and changes no exit code."""
    sent, locked, removing = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def answering(socket, number, ext_id):
        sent.set()
        await locked.wait()
        await good(socket, number, ext_id)

    async def run(url: str) -> Ended:
        settings = {name: str(value) for name, value in PATIENT.items()}
        command = ("load", "--manager", 10, "--mix", "health=1", "--connections", 1, "--commands", 1, "--url", url)
        return await gateway(*command, folder=tmp_path, dsn=dsn, interrupt=removing, **settings)

    async with stand_in(answering) as url, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(run(url))
        await sent.wait()
        async with db.transaction():
            await db.execute("LOCK TABLE session IN EXCLUSIVE MODE")
            locked.set()
            await until(lambda: db.fetchval(REMOVING))
            removing.set()
            await until(lambda: db.fetchval(REMOVING))  # meanwhile the signal is sent
    code, out, err, _ = running.result()
    assert (0, True, "", 0) == (code, "1 reply in " in out, err, await sessions(db))


async def test_ctrl_c_does_not_keep_a_run_that_is_over_from_its_files(tmp_path):
    """Of a pipe, for one, the other end may be opened later; and nothing is said of it."""
    report, written = tmp_path / "report", asyncio.Event()
    os.mkfifo(report)
    command = ("load", "--token", TOKEN, "--mix", "health=1", "--commands", 1, "--report", report)
    async with stand_in(good) as url, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(gateway(*command, "--url", url, folder=tmp_path, interrupt=written))
        await becomes_true(lambda: any(file.stat().st_size for file in tmp_path.glob("figures-*")))
        written.set()
        await asyncio.sleep(0)  # now the signal is sent
        reader = os.open(report, os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reader, 1_000_000).endswith(b"</html>\n")
    os.close(reader)
    assert (0, "") == (running.result().code, running.result().err)


async def test_sessions_are_ended_at_once_for_all_gateways(dsn, db, monkeypatch):
    """One advance of the access epoch, however many sessions: each makes every gateway look up anew who may do what."""
    monkeypatch.setenv("GATEWAY_DATABASE_URL", dsn)
    monkeypatch.setenv("GATEWAY_TOKEN_SECRET", SECRET)
    epoch = "SELECT epoch FROM access_epoch"

    def sign() -> None:
        with credentials.signed([10, 11], spare=50) as members:
            assert [51, 51] == [len(member.sessions) for member in members]

    before = await db.fetchval(epoch)
    await asyncio.to_thread(sign)
    assert (before + 1, 0) == (await db.fetchval(epoch), await sessions(db))


async def test_sessions_that_cannot_be_ended_are_told(dsn, monkeypatch, capsys):
    """And what the run found is not lost for that."""
    monkeypatch.setenv("GATEWAY_DATABASE_URL", dsn)
    monkeypatch.setenv("GATEWAY_TOKEN_SECRET", SECRET)

    async def unreachable(_arguments):
        raise StartupError("no database")

    def sign() -> None:
        with credentials.signed([10]):
            monkeypatch.setattr(credentials, "connect", unreachable)

    await asyncio.to_thread(sign)
    assert "The sessions of this run (1) were not ended: no database\n" == capsys.readouterr().err
