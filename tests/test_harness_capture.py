"""`--capture`: what is recorded, what never is, and that recording slows nothing."""

from __future__ import annotations

import asyncio
import resource
import signal
import threading
import tracemalloc
from pathlib import Path

import msgspec
import pytest
import structlog

from gateway import capture, wire
from gateway.capture import Capture, Header, Line
from gateway.capture_file import CaptureFile
from gateway.errors import StartupError
from gateway.harness.stream import read_stream
from gateway.metrics import Metrics
from tests.client import EVENT, WAIT_SECONDS, Client
from tests.conftest import PASSWORD, Running, settings_for_tests, started
from tests.process import becomes_true, gateway_process

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


def hanging_disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """From now on the disk takes nothing until that is set."""
    may_write = threading.Event()
    write = CaptureFile.write

    def stuck(self: CaptureFile, text: bytes) -> int:
        may_write.wait(WAIT_SECONDS)
        return write(self, text)

    monkeypatch.setattr(CaptureFile, "write", stuck)
    return may_write


def reasons(running: Running) -> list[str]:
    """Why frames were dropped, as the log says."""
    return [line["reason"] for line in running.log_lines if line["event"] == "capture drops frames"]


async def test_full_capture_buffer_drops_and_counts(dsn, tmp_path, monkeypatch):
    """While nothing can be written every command is answered; what did not fit is counted."""
    may_write = hanging_disk(monkeypatch)
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
    assert ["behind"] == reasons(running)


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
    assert ["file full"] == reasons(running)


async def test_capture_into_a_folder_that_cannot_be_says_so(dsn, tmp_path):
    """The gateway does not start without the recording it was asked for."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="GATEWAY_CAPTURE_DIR"):
        async with started(dsn, capture_dir=str(tmp_path / "file")):
            pass


async def test_capture_begins_with_its_header_on_disk(dsn, tmp_path):
    """A gateway killed before its first command leaves a stream without lines, not an empty file."""
    async with started(dsn, capture_dir=str(tmp_path)):
        _, header, lines = recorded(tmp_path)
    assert ("crm-gateway", []) == (header.stream, lines)


TOO_DEEP = '{"command":"HealthCheck","extID":1,"data":{"a":' + "[" * 820 + "]" * 820 + "}}"
"""Answered by the gateway, and refused by a parser that is called from more functions."""
ODD = (
    '{"command":"HealthCheck","extID":1,"data":{"password":"x","n":1e400}}',
    '{"command":"HealthCheck","extID":1,"data":{"password":"x","a":' + "[" * 480 + "]" * 480 + "}}",
    '{"command":"HealthCheck","extID":1,"data":{"password":"\\ud800"}}',
    '{"command":"HealthCheck","extID":1,\n"data":{\n"a":\r\n1}}',
)


async def test_capture_loses_no_line_by_the_frame_of_another(dsn, tmp_path, monkeypatch):
    """Whatever somebody without a token sends, at most the line of that frame is missing."""
    monkeypatch.setattr(capture, "IDLE_SECONDS", WAIT_SECONDS)  # all are written together, at the stop
    async with (
        started(dsn, capture_dir=str(tmp_path)) as running,
        Client.connected(running.url) as client,
        Client.connected(running.url) as nobody,
    ):
        await client.login("10", PASSWORD)
        for message in (TOO_DEEP, *ODD):
            await client.add()
            await nobody.socket.send(message)
            await nobody.socket.recv()
        await client.add()
    (file,) = tmp_path.iterdir()
    assert 1 + len(ODD) + 1 == sum(step.adds for step in read_stream(file).steps)
    _, _, lines = recorded(tmp_path)
    assert len(ODD) == sum(line.connection == 2 for line in lines)
    assert 1 == next(line["dropped"] for line in running.log_lines if line["event"] == "capture ended")
    assert ["unwritable frame"] == reasons(running)


def test_capture_buffer_limit_bounds_all_that_is_kept(tmp_path):
    """Nothing of a message is held beyond what is counted: no ignored key, no endless name of a command."""
    settings = settings_for_tests(capture_dir=str(tmp_path), capture_buffer_bytes_max=200_000)
    buffering = Capture(settings, None, {}, structlog.get_logger(), Metrics())  # type: ignore[arg-type]
    record = buffering.of_connection()
    tracemalloc.start()
    for number in range(100):
        ignored, name = str(number) * 50_000, f"X{number}" * 50_000
        frame, _ = wire.read(f'{{"command":"{name}","extID":{number},"data":{{"a":1}},"ignored":"{ignored}"}}')  # type: ignore[misc]
        record(frame, None, 0.0, b'{"extID":1,"status":404}')
    del ignored, name, frame
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    buffering.start()
    buffering.stop()
    assert 100 == buffering.lines
    assert kept < 200_000


async def test_capture_on_a_disk_that_hangs_does_not_keep_the_gateway(dsn, tmp_path, monkeypatch):
    """The stop waits for a limited time, says so, and leaves a thread that does not keep the process either."""
    may_write = hanging_disk(monkeypatch)
    monkeypatch.setattr(capture, "STOP_SECONDS", 0.01)
    async with started(dsn, capture_dir=str(tmp_path)) as running, Client.connected(running.url) as client:
        await client.command("HealthCheck")
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "capture"]
    assert not may_write.is_set()
    assert thread.daemon
    assert 1 == sum(line["event"] == "capture left" for line in running.log_lines)
    may_write.set()
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


async def test_full_disk_is_no_reason_to_fail_at_the_stop(dsn, scratch_dir, tmp_path):
    """SIGTERM ends with 0; that the recording ended before is in the log."""
    capturing = {"database_url": dsn, "capture_dir": str(tmp_path / "capture")}
    async with gateway_process(scratch_dir, **capturing) as running, Client.connected(running.url) as client:
        await client.login("10", PASSWORD)
        _, hard = resource.prlimit(running.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (100_000, hard))
        for _ in range(10):
            await client.add(ast_json="y" * 20_000)
        await becomes_true(lambda: any(line["event"] == "capture drops frames" for line in running.log_lines))
        running.signal(signal.SIGTERM)
        assert 0 == await running.exited()
        (told,) = [line for line in running.log_lines if line["event"] == "capture drops frames"]
        assert ("disk failed", "File too large") == (told["reason"], told["cause"])
    (file,) = (tmp_path / "capture").iterdir()
    assert 0 < sum(step.adds for step in read_stream(file).steps) < 10
