"""The embedded default as a new user meets it: what the first start makes, what it prints, and what the second one keeps."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import backend, managers
from gateway.errors import StartupError
from gateway.settings import Settings
from tests.client import Client
from tests.conftest import PASSWORD, SECRET, settings_for_tests

START_SECONDS = 60.0


class Served:
    """`gateway serve` on the embedded default, started and stopped as a person does."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        self.environment = {**kept, "GATEWAY_DATA_DIR": str(data_dir), "GATEWAY_PORT": "0", "GATEWAY_METRICS_PORT": "0"}
        self.start()

    def start(self) -> None:
        """Returns when the start-up message is complete."""
        self._log = (self.data_dir.parent / "served.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        late = threading.Timer(START_SECONDS, self._process.kill)
        late.start()
        self.lines: list[str] = []
        for line in self._process.stdout:
            self.lines.append(line.strip())
            if line.startswith("Ctrl-C"):
                break
        late.cancel()
        self.url = self.lines[0].split()[-1]

    def stop(self) -> int:
        """The exit code after Ctrl-C."""
        assert self._process.stdout is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(START_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._log.close()

    def shell(self, command: str, stdin: str = "") -> Any:
        """What a command typed into a shell prints, as JSON where it is; it must succeed."""
        done = subprocess.run(
            command,
            shell=True,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return msgspec.json.decode(done.stdout) if done.stdout.startswith("{") else done.stdout

    def files(self) -> dict[str, str]:
        """The secrets that the gateway made, which only their owner may read."""
        found = [self.data_dir / "token_secret", *sorted((self.data_dir / "passwords").iterdir())]
        assert [0o600] * len(found) == [stat.S_IMODE(file.stat().st_mode) for file in found]
        return {file.name: file.read_text().strip() for file in found}


@pytest.fixture(scope="module")
def served(scratch_dir: Path) -> Iterator[Served]:
    """A gateway on a data directory of its own; the space in its name is nobody's trouble."""
    running = Served(scratch_dir / "own data")
    yield running
    running.stop()


async def test_first_start_makes_secret_and_managers(served: Served) -> None:
    """Secret and passwords lie in private files and are long; managers 10, 11 and 12 sign in, each with its own."""
    files = served.files()
    assert ["token_secret", "10", "11", "12"] == list(files)
    assert 4 == len(set(files.values()))
    assert all(len(text) >= (32 if name == "token_secret" else 16) for name, text in files.items())
    async with Client.connected(served.url) as client:
        for login in ("10", "11", "12"):
            data = await client.login(login, files[login])
            assert (int(login), ["default"], 10) == (data["manager_id"], data["brands"], data["type"])
            assert "DESK_X" == (await client.add(desk="DESK_X"))["desk"]


async def test_start_prints_the_very_command_to_type_next(served: Served) -> None:
    """Address, login, password file, and a command that a shell runs to the document's reply."""
    text = "\n".join(served.lines)
    (command,) = [line for line in served.lines if " send MngAddCalendarEvent " in line]
    event = served.shell(command)["data"]["event"]
    assert "Sign in as login 10" in text
    assert str(served.data_dir / "passwords" / "10") in text
    assert [] == [secret for secret in served.files().values() if len(secret) > 2 and secret in text]
    shown = {"brand": "default", "desk": "DESK_RETENTION", "title": "Retention sync", "owner_manager_id": 10, "created_by": 10}
    assert shown == {name: event[name] for name in shown}
    assert [(10, 0, 1), (11, 1, 0), (12, 1, 0)] == [
        (row["manager_id"], row["role"], row["status"]) for row in event["participants"]
    ]


async def test_tools_borrow_the_database_of_the_gateway_that_runs(served: Served) -> None:
    """`manager add` and `token` work beside it; who was added signs in at once, and the gateway takes the token."""
    python = f"'{sys.executable}' -m gateway"
    served.shell(f"{python} manager add --id 20 --login anna --brand b --password-file -", stdin=PASSWORD)
    async with Client.connected(served.url) as client:
        assert 20 == (await client.login("anna", PASSWORD))["manager_id"]
    token = served.shell(f"{python} token --manager 20").strip()
    async with Client.connected(served.url, additional_headers={"Authorization": f"Bearer {token}"}) as client:
        assert "b" == (await client.add())["brand"]


async def test_second_start_keeps_data_and_passwords(served: Served) -> None:
    """After Ctrl-C, exit code 0 and another start: the same files, managers, passwords and events; old tokens still work."""
    files = served.files()
    async with Client.connected(served.url) as client:
        token = (await client.login("10", files["10"]))["token"]
        first = await client.add()
    python = f"'{sys.executable}' -m gateway"
    served.shell(f"{python} manager add --id 21 --login berta --brand b --password-file -", stdin=PASSWORD)
    assert 0 == await asyncio.to_thread(served.stop)
    await asyncio.to_thread(served.start)
    assert files == served.files()
    async with Client.connected(served.url, additional_headers={"Authorization": f"Bearer {token}"}) as client:
        assert first["id"] < (await client.add())["id"]
        await client.login("12", files["12"])
    assert "berta" in served.shell(f"{python} manager list")


async def test_a_password_that_was_changed_is_kept_no_more(served: Served) -> None:
    """Its file goes with it, and the next start does not name it."""
    told = served.shell(f"'{sys.executable}' -m gateway manager passwd 10 --password-file -", stdin=PASSWORD)
    assert told.endswith(f" in the embedded database in {served.data_dir}.\n")
    assert ["token_secret", "11", "12"] == list(served.files())
    assert 0 == await asyncio.to_thread(served.stop)
    await asyncio.to_thread(served.start)
    assert [] == [line for line in served.lines if "login 10" in line]
    async with Client.connected(served.url) as client:
        await client.login("10", PASSWORD)


@pytest.mark.parametrize("arguments", ["token --manager 10", "manager list", "schema check", "load --commands 1"])
def test_tool_makes_no_database(tmp_path: Path, arguments: str) -> None:
    """Typed in the wrong folder it says so, and leaves the folder as it was."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    command = [sys.executable, "-m", "gateway", *arguments.split()]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (2, "") == (ended.returncode, ended.stdout)
    assert f"gateway: There is no database in {tmp_path}/.data: type this in the folder" in ended.stderr
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("held", ["", "abc\n"])
async def test_a_secret_that_is_too_short_stops_the_start(dsn: str, tmp_path: Path, held: str) -> None:
    """The file is named, with what to do."""
    (tmp_path / "token_secret").write_text(held)
    with pytest.raises(
        StartupError, match="token_secret must hold the key that signs tokens, 32 characters or more: delete it"
    ):
        await backend._prepare(Settings(), dsn, tmp_path)


async def test_two_that_prepare_at_once_agree(db: Any, dsn: str, tmp_path: Path) -> None:
    """A gateway and tools that first meet the database together end with one secret and one set of managers."""
    await db.execute("TRUNCATE manager CASCADE")
    secrets = await asyncio.gather(*[backend._prepare(Settings(), dsn, tmp_path) for _ in range(3)])
    assert {(tmp_path / "token_secret").read_text().strip()} == set(secrets)
    assert [10, 11, 12] == [row["id"] for row in await managers.list_all(db)]


async def test_first_start_that_is_interrupted_is_made_good(
    db: Any, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that ends between two managers leaves none; the next one makes all three."""
    await db.execute("TRUNCATE manager CASCADE")
    real, added = managers.add, list[int]()

    async def add_one(*arguments: Any) -> None:
        if added:
            raise StartupError("interrupted")
        await real(*arguments)
        added.append(1)

    monkeypatch.setattr(managers, "add", add_one)
    with pytest.raises(StartupError, match="interrupted"):
        await backend._prepare(Settings(), dsn, tmp_path)
    monkeypatch.setattr(managers, "add", real)
    assert [] == await managers.list_all(db)
    await backend._prepare(Settings(), dsn, tmp_path)
    assert [10, 11, 12] == [row["id"] for row in await managers.list_all(db)]


async def test_database_url_gets_nothing_made(db: Any, dsn: str, scratch_dir: Path) -> None:
    """With a database of the operator's, no manager, secret or folder is made; the secret must be given."""
    await db.execute("TRUNCATE manager CASCADE")
    folder = scratch_dir / "never made"
    settings = settings_for_tests(database_url=dsn, data_dir=str(folder))
    with backend.backend(settings, serving=True) as (completed, address):
        assert (settings, dsn, SECRET) == (completed, address, completed.token_secret)
    assert (0, False) == (await db.fetchval("SELECT count(*) FROM manager"), folder.exists())
    backend.require_secret(settings)
    with pytest.raises(StartupError, match="GATEWAY_TOKEN_SECRET is not set"):
        backend.require_secret(settings_for_tests(token_secret=""))
