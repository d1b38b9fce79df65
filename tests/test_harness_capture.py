"""`--capture`: what is recorded, what never is, and that recording slows nothing."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest

from gateway import capture
from gateway.capture import Capture, Header, Line
from gateway.errors import StartupError
from tests.client import EVENT, WAIT_SECONDS, Client
from tests.conftest import PASSWORD, Running, started

TITLE, BODY = "A title of a client", {"type": "doc", "content": ["a body of a client"]}


def recorded(folder: Path) -> tuple[str, Header, list[Line]]:
    """The only recording in the folder: its text, header and lines."""
    (file,) = folder.iterdir()
    text = file.read_text()
    head, *lines = text.splitlines()
    return text, msgspec.json.decode(head, type=Header), [msgspec.json.decode(line, type=Line) for line in lines]


async def session_of_all_kinds(running: Running) -> tuple[str, str]:
    """A login, adds with every proof, and frames that hold secrets where they do not belong; returns the tokens."""
    async with Client.connected(running.url) as client:
        token = (await client.login("10", PASSWORD))["token"]
        other = (await client.login("10", PASSWORD))["token"]
        await client.exchange(msgspec.json.encode({"authorization": token, "command": "x", "extID": "a"}).decode(), "a")
        await client.add(title=TITLE, ast_json=BODY)
        await client.command("MngAddCalendarEvent", {**EVENT, "title": TITLE}, __token=other)
        await client.command("mnglogin", {"login": "10", "password": PASSWORD, "title": TITLE})
        escaped = msgspec.json.encode({"command": "MngLogin", "extID": "b", "data": {"login": "10", "password": PASSWORD}})
        await client.exchange(escaped.decode().replace("passwo", "passw\\u006f"), "b")
        await client.command("MngGetCalendarEvent", {"id": 1, "nested": [{"Token": token}]})
        return token, other


async def test_capture_holds_no_token_and_no_password(dsn, tmp_path):
    """Wherever a client put them; all else is there, with manager, status and the ids that were given."""
    async with started(dsn, capture_dir=str(tmp_path / "new")) as running:
        tokens = await session_of_all_kinds(running)
    text, header, lines = recorded(tmp_path / "new")
    assert [] == [secret for secret in (*tokens, PASSWORD) if secret in text]
    assert ("crm-gateway", 1, False) == (header.stream, header.version, header.text_redacted)
    assert TITLE in text
    assert "a body of a client" in text
    adds = [(line.id, line.manager, line.status) for line in lines if line.frame.command == "MngAddCalendarEvent"]
    assert [(1, 10, 200), (2, 10, 200)] == adds
    assert 8 == len(lines)
    assert 0o600 == next((tmp_path / "new").iterdir()).stat().st_mode & 0o777


async def test_capture_redacts_titles_and_bodies_when_asked(dsn, tmp_path):
    """Filler of the same size takes their place."""
    async with started(dsn, capture_dir=str(tmp_path), capture_text="redact") as running:
        await session_of_all_kinds(running)
    text, header, lines = recorded(tmp_path)
    assert header.text_redacted
    assert [] == [words for words in (TITLE, "a body of a client", PASSWORD) if words in text]
    added = msgspec.json.decode(next(line for line in lines if line.id == 1).frame.data)
    assert len(TITLE) == len(added["title"])
    assert abs(len(msgspec.json.encode(BODY)) - len(msgspec.json.encode(added["ast_json"]))) <= 1
    assert EVENT["start_time"] == added["start_time"]


async def test_full_capture_buffer_drops_and_counts(dsn, tmp_path, monkeypatch):
    """While nothing can be written every command is answered; what did not fit is counted."""
    may_write = threading.Event()
    write = Capture._write

    def stuck(self, text, lines):
        may_write.wait(WAIT_SECONDS)
        write(self, text, lines)

    monkeypatch.setattr(Capture, "_write", stuck)
    async with started(dsn, capture_dir=str(tmp_path), capture_buffer_bytes_max=4096) as running:
        async with Client.connected(running.url) as client, asyncio.timeout(WAIT_SECONDS / 2):
            replies = [await client.command("HealthCheck") for _ in range(60)]
        assert [200] * 60 == [reply["status"] for reply in replies]
        assert not may_write.is_set()
        may_write.set()
    (ended,) = [line for line in running.log_lines if line["event"] == "capture ended"]
    _, _, lines = recorded(tmp_path)
    assert ended["lines"] == len(lines) < 20
    assert 60 == ended["lines"] + ended["dropped"]
    assert 1 == sum(line["event"] == "capture drops frames" for line in running.log_lines)


async def test_capture_stops_at_its_file_limit_and_the_gateway_goes_on(dsn, tmp_path, monkeypatch):
    """A full disk is no reason to stop serving."""
    monkeypatch.setattr(capture, "SLICE_LINES", 1)
    limited = {"capture_dir": str(tmp_path), "capture_file_bytes_max": 65_536}
    async with started(dsn, **limited) as running, Client.connected(running.url) as client:
        await client.login("10", PASSWORD)
        for _ in range(10):
            await client.add(title="x" * 500, ast_json="y" * 20_000)
    _, _, lines = recorded(tmp_path)
    assert 3 <= len(lines) <= 5
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 65_536


async def test_capture_into_a_folder_that_cannot_be_says_so(dsn, tmp_path):
    """The gateway does not start without the recording it was asked for."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="GATEWAY_CAPTURE_DIR"):
        async with started(dsn, capture_dir=str(tmp_path / "file")):
            pass
