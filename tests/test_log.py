"""Logs: one line for each command, nothing of what clients send, and no flood."""

from __future__ import annotations

import asyncio
import errno
import io
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import structlog

from gateway.composition import running_gateway
from gateway.log import REPEATS_MAX, REPEATS_SECONDS, make_logger
from tests.client import EVENT, WAIT_SECONDS, Client
from tests.conftest import PASSWORD, Running, Start, settings_for_tests

CANARY = "c4n4ry"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Full(io.StringIO):
    """A file on a disk that is full."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in stream.getvalue().splitlines()]


def commands_of(running: Running) -> list[dict[str, Any]]:
    return [line for line in running.log_lines if line["event"] == "command"]


async def test_command_is_one_line(gateway: Running, connect: Any) -> None:
    """A success tells command, ext_id, manager, outcome and duration; of sign-in too, and of the extID's own type."""
    client = await connect(gateway)
    await client.exchange(b'{"command":"MngLogout","extID":7}'.decode(), 7)
    lines = commands_of(gateway)
    told = [{name: line[name] for name in ("command", "ext_id", "manager_id", "outcome", "level")} for line in lines]
    assert [
        {"command": "MngLogin", "ext_id": "t1", "manager_id": None, "outcome": "ok", "level": "info"},
        {"command": "MngLogout", "ext_id": 7, "manager_id": 10, "outcome": "ok", "level": "info"},
    ] == told
    assert all(line["duration_ms"] > 0 and line["time"].endswith("Z") for line in lines)


async def test_command_that_failed_is_one_line_with_its_error(gateway: Running, connect: Any) -> None:
    """A failure tells error, status, field and outcome; a frame that is none has no command and no ext_id."""
    client = await connect(gateway)
    await client.command("MngAddCalendarEvent", {**EVENT, "type": 99})
    await client.command("Nonsense" * 20)
    await client.exchange("not JSON", None)
    names = ("command", "ext_id", "manager_id", "error", "status", "field", "outcome", "level")
    told = [tuple(line[name] for name in names) for line in commands_of(gateway)[1:]]
    assert [
        ("MngAddCalendarEvent", "t2", 10, "INVALID_DATA", 400, "type", "not_executed", "warning"),
        (("Nonsense" * 20)[:64], "t3", 10, "INVALID_METHOD", 404, None, "not_executed", "warning"),
        ("", None, 10, "BAD_REQUEST", 400, None, "not_executed", "warning"),
    ] == told


async def test_failure_of_nobody_tells_the_address(start: Start, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a trusted proxy the client's: of refused sign-ins and proofs, no frames, bugs. Of a manager the id says enough."""
    gateway = await start(trusted_proxies=("127.0.0.1",))
    client = await connect(gateway, login=None, additional_headers={"X-Forwarded-For": "203.0.113.5"})
    wrong = {"login": CANARY, "password": CANARY}
    await client.command("MngLogin", wrong)
    await client.command("MngGetCalendarEvent", {"id": 1})
    await client.exchange("not JSON", None)
    with monkeypatch.context() as broken:
        broken.setattr("gateway.commands.login.partial", None)
        assert 500 == (await client.command("MngLogin", wrong))["status"]
    await client.login("10", PASSWORD)
    await client.command("MngGetCalendarEvent", {"id": 1}, __token=CANARY)
    await client.command("MngGetCalendarEvent", {"id": 1})
    told = [(line["status"], line["manager_id"], line.get("address")) for line in commands_of(gateway) if "error" in line]
    nobody = [(status, None, "203.0.113.5") for status in (401, 401, 400, 500, 401)]
    assert [*nobody, (404, 10, None)] == told
    assert CANARY not in gateway.log_text


@pytest.mark.parametrize("ext_id", ["1", 1, "null", 'a"b'])
async def test_ext_id_is_told_as_it_was_sent(gateway: Running, connect: Any, ext_id: str | int) -> None:
    """Of a command, of a frame that is none, and of one with too many values to look at."""
    client = await connect(gateway, login=None)
    many = {"x": [0] * 200_000}
    for frame in ({"command": "Nonsense"}, {"command": 5}, {"command": 5, **many}):
        await client.exchange(msgspec.json.encode({"extID": ext_id, **frame}).decode(), ext_id)
    assert [ext_id] * 3 == [line["ext_id"] for line in commands_of(gateway)]


async def test_successes_are_sampled_and_failures_always_logged(start: Start, connect: Any) -> None:
    """With a success ratio of 0 only failures are logged, every one of them however often."""
    gateway = await start(log_success_ratio=0)
    client = await connect(gateway)
    for _ in range(3 * REPEATS_MAX):
        assert 200 == (await client.command("HealthCheck"))["status"]
        assert 404 == (await client.command("Nonsense"))["status"]
    assert ["Nonsense"] * 3 * REPEATS_MAX == [line["command"] for line in commands_of(gateway)]


async def test_failures_of_nobody_are_limited(gateway: Running, connect: Any) -> None:
    """Who has not signed in cannot fill the disk: some of each kind are logged, of managers all."""
    client = await connect(gateway, login=None)
    for _ in range(3 * REPEATS_MAX):
        assert 404 == (await client.command("Nonsense"))["status"]
        assert 401 == (await client.command("MngGetCalendarEvent", {"id": 1}))["status"]
        assert 400 == (await client.exchange("[]", None))["status"]
    told = [(line["error"], line["manager_id"]) for line in commands_of(gateway)]
    assert {(error, None): REPEATS_MAX for error in ("INVALID_METHOD", "UNAUTHORIZED", "BAD_REQUEST")} == Counter(told)


async def test_nothing_that_a_client_sends_is_logged(start: Start, connect: Any, db: Any) -> None:
    """At debug, through the libraries' own loggers too: no token, password, title or body, good or bad."""
    gateway = await start(log_level="debug")
    client = await connect(gateway, login=None)
    token = (await client.login("10", PASSWORD))["token"]
    await db.execute("ALTER TABLE calendar_event ADD CONSTRAINT refused CHECK (customer_id <> 13)")
    secret = {**EVENT, "title": CANARY, "ast_json": {"text": CANARY}}
    await client.command("MngLogin", {"login": CANARY, "password": CANARY})
    await client.command("MngAddCalendarEvent", secret, __token=token)
    await client.command("MngAddCalendarEvent", secret, __token=CANARY)
    for wrong in ({"customer_id": 13}, {"type": CANARY}, {"brand": CANARY}, {"desk": CANARY * 20}):
        assert 200 != (await client.command("MngAddCalendarEvent", {**secret, **wrong}))["status"]
    await client.exchange(f'{{"extID":"x","data":"{CANARY}"', None)
    await client.socket.send(f'{{"authorization":"{CANARY}"}}')
    await client.receive()
    for proof in (token, CANARY):
        shown = {"additional_headers": {"Authorization": f"Bearer {proof}"}, "subprotocols": [f"bearer.{proof}"]}
        await connect(gateway, login=None, **shown)
    async with Client.connected(f"{gateway.url}?token={CANARY}") as other:
        await other.socket.send(CANARY.encode())
        assert 1003 == await other.closed()
    assert "refused" in gateway.log_text
    assert [] == [
        line for line in gateway.log_lines if any(text in str(line) for text in (CANARY, token, PASSWORD, token[-20:]))
    ]


@pytest.fixture
def libraries_at_debug() -> Iterator[None]:
    """Somebody turns every library's logger up, as a developer in search of a fault does."""
    names = ("", "websockets", "websockets.server", "asyncpg", "asyncio", "concurrent.futures")
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


async def test_libraries_at_debug_tell_nothing(start: Start, connect: Any, libraries_at_debug: None) -> None:
    """Whole frames go through the library's logger then, and none of them into the log."""
    gateway, seen = await start(), io.StringIO()
    for name in ("", "websockets", "websockets.server", "asyncpg", "asyncio", "concurrent.futures"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    control = logging.StreamHandler(seen)
    logging.getLogger("websockets.server").addHandler(control)
    try:
        client = await connect(gateway)
        await client.socket.send(['{"authorization":', f'"{CANARY}"', "}"])  # a whole frame would not meet the library
        await client.receive()
    finally:
        logging.getLogger("websockets.server").removeHandler(control)
    assert CANARY in seen.getvalue()
    assert {"command"} == {line["event"] for line in gateway.log_lines}
    assert CANARY not in gateway.log_text


async def test_libraries_are_heard_without_what_they_quote(caplog: pytest.LogCaptureFixture) -> None:
    """A library's warning is one line: its first, without arguments, values of errors or what asyncio adds."""
    stream = io.StringIO()
    make_logger(settings_for_tests(log_level="debug"), stream)
    for name in ("websockets.server", "asyncpg.pool", "asyncio", "prometheus_client"):
        library = logging.getLogger(name)
        library.debug("< %s", CANARY)
        library.info("open %s", CANARY)
        library.warning("< TEXT %s", CANARY)
        library.error("handler failed", exc_info=ValueError(CANARY))
    asyncio.get_running_loop().call_exception_handler(
        {"message": "Task exception was never retrieved", "exception": ValueError(CANARY), "future": CANARY}
    )
    lines = lines_of(stream)
    assert CANARY not in stream.getvalue()
    assert ["< TEXT %s", "handler failed"] * 4 + ["Task exception was never retrieved"] == [line["line"] for line in lines]
    assert {"websockets.server", "asyncpg.pool", "asyncio", "prometheus_client"} == {line["library"] for line in lines}
    assert [None, "ValueError"] * 4 + ["ValueError"] == [line.get("exception") for line in lines]
    assert [] == caplog.records


async def test_bug_is_logged_with_the_id_that_the_client_is_told(
    gateway: Running, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error nobody foresaw is logged by class and place, with the id in the reply, and without its text."""

    def broken(*_: object) -> None:
        raise ValueError(CANARY)

    client = await connect(gateway)
    monkeypatch.setattr("gateway.commands.add_calendar_event.time", broken)
    reply = await client.command("MngAddCalendarEvent", EVENT)
    line = commands_of(gateway)[-1]
    assert ("INTERNAL", 500) == (reply["error"], reply["status"])
    assert line["error_id"] in reply["message"]
    assert CANARY not in gateway.log_text + str(reply)
    assert "add_calendar_event.py" in str(line["at"])


def test_repeated_warnings_are_limited_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few lines of one kind pass in a window; the first of the next window counts those left out; others are not held up."""
    stream, now = io.StringIO(), [1000.0]
    monkeypatch.setattr("gateway.log.time.monotonic", lambda: now[0])
    logger = make_logger(settings_for_tests(), stream)
    for _ in range(REPEATS_MAX + 30):
        logger.warning("database away", exception="OSError")
    logger.warning("database away", exception="TimeoutError")
    logger.info("serving")
    assert REPEATS_MAX + 2 == len(lines_of(stream))
    now[0] += REPEATS_SECONDS
    for _ in range(2):
        logger.warning("database away", exception="OSError")
    assert [30, None] == [line.get("left_out") for line in lines_of(stream)[REPEATS_MAX + 2 :]]


@pytest.mark.parametrize(("log_format", "terminal", "is_json"), [
    ("auto", False, True), ("auto", True, False), ("json", True, True), ("console", False, False),
])  # fmt: skip
def test_log_is_json_when_not_on_a_terminal(log_format: str, terminal: bool, is_json: bool) -> None:
    """`auto` decides by the stream; the other two do not care."""
    stream = Terminal() if terminal else io.StringIO()
    make_logger(settings_for_tests(log_format=log_format), stream).info("serving", port=1)
    assert is_json is stream.getvalue().startswith('{"')
    assert "serving" in stream.getvalue()


@pytest.mark.parametrize(("said", "shown"), [
    ("\x1b[1A\x1b[2Kfaked", r"\x1b[1A\x1b[2Kfaked"), ("\x9b1A", r"\x9b1A"), ("a\u202eb", r"a\u202eb"),
    ("half\ud83d", r"half\ud83d"), ("a\nb", r"a\nb"), ("\x1b[1A by", r"'\\x1b[1A by'"), ("Tschüß", "Tschüß"),
])  # fmt: skip
def test_console_shows_what_a_terminal_would_obey(said: str, shown: str) -> None:
    """A client's text moves no cursor, sets no colour and begins no line; what people write stays as it is."""
    stream = io.StringIO()
    make_logger(settings_for_tests(log_format="console"), stream).warning("command", ext_id=said)
    (line,) = stream.getvalue().splitlines()
    assert shown in line
    assert said.isprintable() or said not in line


@pytest.mark.parametrize(("level", "heard"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_log_level_is_the_least_severe_that_is_heard(level: Any, heard: int) -> None:
    """Each level lets itself and what is more severe through."""
    stream = io.StringIO()
    logger: structlog.typing.FilteringBoundLogger = make_logger(settings_for_tests(log_level=level), stream)
    for method in ("debug", "info", "warning", "error"):
        getattr(logger, method)(method)
    assert ["debug", "info", "warning", "error"][-heard:] == [line["event"] for line in lines_of(stream)]


async def test_log_that_cannot_be_written_costs_no_command(dsn: str) -> None:
    """Neither the failures that are logged, nor those that come after."""
    settings = settings_for_tests()
    async with (
        running_gateway(settings, dsn, make_logger(settings, Full())) as gateway,
        Client.connected(f"ws://127.0.0.1:{gateway.port}/") as client,
    ):
        assert [404] * 3 == [(await client.command("MngNothing"))["status"] for _ in range(3)]


async def test_log_takes_any_ext_id(gateway: Running, connect: Any) -> None:
    """Half a surrogate pair in an extID, and a line break, leave each line one JSON object."""
    client = await connect(gateway, login=None)
    await client.socket.send('{"command":"Nonsense","extID":"\\ud83d"}')
    await client.socket.send('{"command":"Nonsense","extID":"a\\nb"}')
    async with asyncio.timeout(WAIT_SECONDS):
        assert '{"extID":"\\ud83d",' == str(await client.socket.recv())[:18]
        assert '{"extID":"a\\nb",' == str(await client.socket.recv())[:16]
    told = [(line["event"], line["ext_id"], line["status"]) for line in gateway.log_lines]
    assert [("command", r"\ud83d", 400), ("command", "a\nb", 404)] == told
