"""The command line as operators run it: real processes on a PostgreSQL of the tests' own."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
import pytest
from websockets.exceptions import ConnectionClosed

from gateway.capture import Header
from gateway.environment import right
from gateway.errors import CloseCode
from tests.client import EVENT, WAIT_SECONDS, Client
from tests.conftest import PASSWORD, SECRET, Running
from tests.run_log import heard

EVENT_TEXT = msgspec.json.encode(EVENT).decode()


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Coroutine[Any, Any, Ended]]


async def run(*arguments: str, stdin: str = "", **settings: str) -> Ended:
    """Runs `gateway ...` to its end with these settings alone, and no terminal to ask anybody at."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment |= {f"GATEWAY_{name.upper()}": value for name, value in settings.items()}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *arguments),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env=environment,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            out, err = await process.communicate(stdin.encode("utf-8", "surrogateescape"))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    heard(err.decode())
    return Ended(process.returncode, out.decode(), err.decode())


def assert_refused(ended: dict[tuple[tuple[str, ...], str], Ended]) -> None:
    """Each command ended with code 2, nothing on standard output, and the message; with no traceback."""
    for (arguments, told), (code, out, err) in ended.items():
        assert (arguments, 2, "") == (arguments, code, out)
        assert told in err
        assert "Traceback" not in err


@pytest.fixture
def cli(dsn: str) -> Run:
    """Runs a command on the test's database, with the secret of the tests' gateways."""

    async def run_here(*arguments: str, stdin: str = "", **settings: str) -> Ended:
        return await run(*arguments, stdin=stdin, **{"database_url": dsn, "token_secret": SECRET, **settings})

    return run_here


@pytest.fixture
async def empty_dsn(dsn: str, template_dsn: str) -> Any:
    """A database with nothing in it."""
    admin = await asyncpg.connect(template_dsn)
    await admin.execute("CREATE DATABASE test_empty TEMPLATE template0")
    yield urlunsplit(urlsplit(dsn)._replace(path="/test_empty"))
    await admin.execute("DROP DATABASE test_empty WITH (FORCE)")
    await admin.close()


async def test_help_is_worth_reading() -> None:
    """`--help` of every command tells what it does, in whole sentences, and the first steps; an unknown command is 2."""
    names = ("", "serve", "send", "manager", "token", "schema", "schema check")
    helps = dict(zip(names, await asyncio.gather(*[run(*name.split(), "--help") for name in names]), strict=True))
    assert dict.fromkeys(helps, (0, "")) == {name: (ended.code, ended.err) for name, ended in helps.items()}
    for word in ("gateway serve", "gateway schema apply", "GATEWAY_DATABASE_URL", "manager", "token", "settings"):
        assert word in helps[""].out
    assert {"add", "change", "list", "disable", "enable", "passwd"} <= set(helps["manager"].out.split())
    assert "Exit code 0" in helps["send"].out
    cut = [line for ended in helps.values() for line in ended.out.splitlines() if line.startswith("  ") and line[-3:] == "..."]
    assert [] == cut
    assert 2 == (await run("nonsense")).code


def test_command_imports_no_other() -> None:
    """The server, the harness and what they need take longer to import than a reply to come."""
    program = """
        import sys, gateway.cli
        gateway.cli.cli(["send", "--help"], standalone_mode=False)
        print([name for name in ("gateway.server", "gateway.harness", "asyncpg", "jwt") if name in sys.modules])
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert "[]" == ended.stdout.splitlines()[-1]


async def test_send_tells_success_by_its_exit_code(gateway: Running, cli: Run, scratch_dir: Path) -> None:
    """0 with status 200, 1 with another, and with 401 a word on how to sign in.

    Data as text, from a file and from standard input; by login and by token.
    """
    url, password, data = ("--url", gateway.url), scratch_dir / "send-password", scratch_dir / "send-event.json"
    password.write_text(PASSWORD + "\n")
    data.write_text(EVENT_TEXT)
    by_login = ("send", "MngAddCalendarEvent", *url, "--login", "10", "--password-file", str(password))
    token = (await cli("token", "--manager", "11")).out.strip()
    by_token = ("send", "MngAddCalendarEvent", *url, "--token", token, "--ext-id", "mine")
    wrong = '{"login":"10","password":"wrong"}'
    ended = await asyncio.gather(
        cli("send", "HealthCheck", *url),
        cli(*by_login, "--data", EVENT_TEXT),
        cli(*by_token, "--data", f"@{data}"),
        cli("send", "MngAddCalendarEvent", "--data", "-", stdin=EVENT_TEXT, url=gateway.url, token=token),
        cli("send", "MngAddCalendarEvent", *url, "--data", EVENT_TEXT),
        cli(*by_token),
        cli(*by_token, "--data", "[]"),
        cli(*by_token[:-3], token[:-1], "--data", EVENT_TEXT),
        cli("send", "MngLogin", *url, "--data", wrong),
        cli(*by_token[:-4], "--data", EVENT_TEXT, token=token[:-1]),
    )
    replies = [msgspec.json.decode(each.out) for each in ended]
    assert [(0, 200)] * 4 + [(1, 401), (1, 400), (1, 400), (1, 401), (1, 401), (1, 401)] == [
        (each.code, reply["status"]) for each, reply in zip(ended, replies, strict=True)
    ]
    assert [10, 11, 11] == [reply["data"]["event"]["created_by"] for reply in replies[1:4]]
    assert ["1", "1", "mine"] == [reply["extID"] for reply in replies[:3]]
    told = [
        "nobody is signed in: give --login NAME --password-file FILE, or --token TOKEN",
        "the token of --token was refused: give --login",
        "the token of GATEWAY_TOKEN was refused: give --login",
    ]
    assert [True] * 3 == [part in each.err for part, each in zip(told, (ended[4], ended[7], ended[9]), strict=True)]
    assert {""} == {each.err for each in (*ended[:4], *ended[5:7], ended[8])}


async def test_send_takes_a_key(gateway: Running, cli: Run) -> None:
    """Sent twice with one key, an event is added once, and the second reply says so."""
    token = (await cli("token", "--manager", "11")).out.strip()
    send = ("send", "MngAddCalendarEvent", "--url", gateway.url, "--data", EVENT_TEXT, "--idempotency-key", "k-1")
    first, again = [msgspec.json.decode((await cli(*send, token=token)).out) for _ in range(2)]
    assert {**first, "replayed": True} == again


async def test_send_shows_the_proof_that_was_named(gateway: Running, cli: Run, scratch_dir: Path) -> None:
    """A login goes before a token that lies in the environment; two proofs, or half of one, are refused unsent."""
    password = scratch_dir / "own-password"
    password.write_text(PASSWORD)
    token = (await cli("token", "--manager", "11")).out.strip()
    send, by_file = (
        ("send", "MngAddCalendarEvent", "--url", gateway.url, "--data", EVENT_TEXT),
        ("--password-file", str(password)),
    )
    sent = await cli(*send, "--login", "10", *by_file, token=token)
    assert (0, 10) == (sent.code, msgspec.json.decode(sent.out)["data"]["event"]["created_by"])
    refused = {
        (*send, "--login", "10", *by_file, "--token", token): "--login and --token are two proofs",
        (*send, *by_file): "--password-file needs --login",
        (*send, "--token", ""): "--token is empty",
    }
    assert_refused(dict(zip(refused.items(), await asyncio.gather(*[cli(*each) for each in refused]), strict=True)))


async def test_send_without_a_reply_is_2_with_a_message(gateway: Running, cli: Run, scratch_dir: Path) -> None:
    """Nobody there, no address, data that is none, a refused sign-in: one message, and no traceback."""
    latin, wrong = scratch_dir / "latin-1.json", scratch_dir / "wrong-password"
    latin.write_bytes(b'{"title":"\xe9"}')
    wrong.write_text("wrong")
    refused = {
        ("--url", "ws://127.0.0.1:1"): "does a gateway run there",
        ("--url", "nonsense"): "--url nonsense must begin with ws:// or wss://",
        ("--url", "127.0.0.1:8080"): "must begin with ws://",
        ("--url", "ws://127.0.0.1:99999"): "does a gateway run there",
        ("--data", "{"): "--data is not JSON",
        ("--data", "-"): "--data is not JSON",
        ("--data", "@/no/such/file"): "No such file",
        ("--data", f"@{latin}"): "--data is not JSON",
        ("--url", gateway.url, "--login", "10", "--password-file", str(wrong)): "Sign-in as 10 was refused",
    }
    ended = await asyncio.gather(*[cli("send", "HealthCheck", *arguments) for arguments in refused])
    assert_refused(dict(zip(refused.items(), ended, strict=True)))


async def test_address_of_a_page_is_told_with_its_answer(gateway: Running, cli: Run, scratch_dir: Path) -> None:
    """Of a gateway that runs nobody asks whether one does: status, path, and what was answered."""
    recorded, token = scratch_dir / "health.ndjson", (await cli("token", "--manager", "11")).out.strip()
    step = {"time": 0.0, "connection": 1, "manager": 11, "frame": {"command": "HealthCheck", "extID": "1"}, "status": 200}
    recorded.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in (Header(), step)))
    url = gateway.url + "foo"
    told = f"gateway: {url} opened no WebSocket: its path /foo was answered with status 404 (`The WebSocket is at / and /ws.`)."
    refused = {("send", "HealthCheck"): told, ("load", "--commands", "1"): told, ("replay", str(recorded)): told}
    ended = await asyncio.gather(*[cli(*each, "--url", url, token=token) for each in refused])
    assert_refused(dict(zip(refused.items(), ended, strict=True)))
    assert [1] * 3 == [len(each.err.splitlines()) for each in ended]


async def test_token_is_printed_alone_and_works(gateway: Running, cli: Run, connect: Any, db: Any) -> None:
    """One line, the token; it is of a session of the manager, as long as asked; no token without a manager to have it."""
    before = int(time.time())
    printed = await cli("token", "--manager", "11", "--seconds", "100")
    assert (0, "") == (printed.code, printed.err)
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", printed.out)
    client = await connect(gateway, login=None, additional_headers={"Authorization": f"Bearer {printed.out.strip()}"})
    assert 11 == (await client.add())["created_by"]
    assert before + 100 <= await db.fetchval("SELECT expires_time FROM session") <= int(time.time()) + 100
    await db.execute("UPDATE manager SET disabled = true WHERE id = 12")
    for arguments, told in (("99", "There is no manager 99"), ("12", "gateway manager enable 12")):
        refused = await cli("token", "--manager", arguments)
        assert (2, "") == refused[:2]
        assert told in refused.err
    assert "GATEWAY_TOKEN_SECRET is not set" in (await cli("token", "--manager", "11", token_secret="")).err


@pytest.mark.parametrize("seconds", ["0", "31536001", "99999999999"])
async def test_token_lives_no_longer_than_a_session_may(cli: Run, db: Any, seconds: str) -> None:
    """The bounds are those of GATEWAY_SESSION_SECONDS; outside of them no session is opened."""
    refused = await cli("token", "--manager", "11", "--seconds", seconds)
    assert (2, "") == refused[:2]
    assert f"Invalid value for '--seconds': {seconds} is not in the range 1<=x<=31536000." in refused.err
    assert "a whole number from 1 to 31536000" == right("session_seconds")
    assert 0 == await db.fetchval("SELECT count(*) FROM session")


async def is_out(client: Client) -> bool:
    """Whether the session is over: told by the next command, unless the watch has closed the socket before it."""
    try:
        reply = await client.command("MngAddCalendarEvent", EVENT)
    except ConnectionClosed as closed:
        return closed.rcvd is not None and closed.rcvd.code == CloseCode.SESSION_ENDED
    return bool(reply["status"] == 401)


async def test_manager_is_kept_while_the_gateway_runs(gateway: Running, cli: Run, connect: Any) -> None:
    """One added signs in; other rights act at the next command, disabled is out, enabled is in again.

    A new password ends the session.
    """
    client = await connect(gateway, login=None)
    add = ("manager", "add", "--id", "20", "--login", "anna", "--brand", "b", "--brand", "a", "--type", "crm_admin")
    assert Ended(0, "Manager 20 added in the database of GATEWAY_DATABASE_URL.\n", "") == await cli(
        *add, "--password-file", "-", stdin=f"{PASSWORD}\n"
    )
    assert ["b", "a"] == (await client.login("anna", PASSWORD))["brands"]
    assert "b" == (await client.add(created_by=99))["brand"]
    listed = (await cli("manager", "list")).out.splitlines()
    assert ["20", "anna", "CRM_ADMIN", "enabled", "*", "b,a"] == listed[-1].split()
    assert 5 == len(listed)

    assert Ended(0, "Manager 20 changed in the database of GATEWAY_DATABASE_URL.\n", "") == await cli(
        *("manager", "change", "--id", "20", "--brand", "c", "--desk-mask", "DESK_EU*", "--type", "crm_manager")
    )
    assert "c" == (await client.add(desk="DESK_EU"))["brand"]
    assert 403 == (await client.command("MngAddCalendarEvent", {**EVENT, "desk": "DESK_X"}))["status"]
    assert ["20", "anna", "CRM_MANAGER", "enabled", "DESK_EU*", "c"] == (await cli("manager", "list")).out.splitlines()[
        -1
    ].split()

    assert 0 == (await cli("manager", "disable", "20")).code
    assert await is_out(client)
    assert "disabled" in (await cli("manager", "list")).out
    assert 0 == (await cli("manager", "enable", "20")).code
    client = await connect(gateway, login=None)
    await client.login("anna", PASSWORD)

    assert 0 == (await cli("manager", "passwd", "20", "--password-file", "-", stdin="another1")).code
    assert await is_out(client)
    client = await connect(gateway, login=None)
    answers = [await client.command("MngLogin", {"login": "anna", "password": word}) for word in (PASSWORD, "another1")]
    assert [401, 200] == [answer["status"] for answer in answers]


async def test_manager_with_something_wrong_is_2_with_a_message(cli: Run, scratch_dir: Path) -> None:
    """What is wrong is one message; neither it nor anything else repeats the password."""
    short = scratch_dir / "short-password"
    short.write_text("hidden\n")
    new = ("manager", "add", "--login", "anna", "--brand", "default", "--password-file", "-")
    refused = {
        (*new, "--id", "10"): "gateway: A manager with this id exists already",
        (*new, "--id", "20", "--type", "KING"): "Invalid value for '--type'",
        (*new[:-1], str(short), "--id", "20"): "gateway: The password must be 8 to 1024 characters long",
        ("manager", "passwd", "10", "--password-file", str(short)): "gateway: The password must be 8 to 1024 characters long",
        ("manager", "change", "--id", "10"): "gateway: There is nothing to change: give --brand, --desk-mask or --type",
        ("manager", "change", "--id", "10", "--brand", ""): "gateway: --brand '' must be up to 64",
        ("manager", "change", "--id", "99", "--type", "ADMIN"): "gateway: There is no manager 99: see gateway manager list",
        ("manager", "disable", "99"): "gateway: There is no manager 99",
        ("manager", "passwd", "99", "--password-file", "-"): "gateway: There is no manager 99",
    }
    ended = await asyncio.gather(*[cli(*arguments, stdin="hidden and long") for arguments in refused])
    assert_refused(dict(zip(refused.items(), ended, strict=True)))
    assert "hidden" not in str(ended)


async def test_password_is_asked_for_at_a_terminal_alone(gateway: Running, cli: Run, scratch_dir: Path) -> None:
    """Without one the message names --password-file, and what standard input holds is not taken for the password."""
    latin = scratch_dir / "latin-1-password"
    latin.write_bytes(b"\xe9\n")
    send, new = ("send", "HealthCheck", "--url", gateway.url, "--login", "10"), ("--login", "anna", "--brand", "default")
    refused = {
        send: "--password-file FILE",
        ("manager", "add", "--id", "20", *new): "--password-file FILE",
        ("manager", "passwd", "10"): "--password-file FILE",
        (*send, "--password-file", str(latin)): "is no UTF-8 text",
    }
    ended = await asyncio.gather(*[cli(*arguments, stdin=f"{PASSWORD}\n{PASSWORD}\n") for arguments in refused])
    assert_refused(dict(zip(refused.items(), ended, strict=True)))
    assert [1] * 4 == [len(each.err.splitlines()) for each in ended]


async def test_schema_is_checked_and_applied(empty_dsn: str, cli: Run) -> None:
    """An empty database is told with the command to run, taken forward, and left as it is; a newer one is told too."""
    here = {"database_url": empty_dsn}
    commands = (("schema", "check"), ("serve", "--port", "0"), ("manager", "list"), ("token", "--manager", "10"))
    for stopped in await asyncio.gather(*[cli(*command, **here) for command in commands]):
        assert (2, "", "Run: gateway schema apply") == (stopped.code, stopped.out, stopped.err.rstrip()[-25:])
    assert "it had 0." in (await cli("schema", "apply", **here)).out
    assert "as before" in (await cli("schema", "apply", **here)).out
    assert "as needed." in (await cli("schema", "check", **here)).out
    db = await asyncpg.connect(empty_dsn)
    assert 0 == await db.fetchval("SELECT count(*) FROM manager")
    await db.execute("INSERT INTO schema_version (version) VALUES (99)")
    await db.close()
    again = (("schema", "check"), ("schema", "apply"), ("serve", "--port", "0"))
    for stopped in await asyncio.gather(*[cli(*command, **here) for command in again]):
        assert 2 == stopped.code
        assert "has version 99, newer than this gateway's" in stopped.err


async def test_settings_are_listed_with_secrets_masked(cli: Run) -> None:
    """Value, unit, source and meaning of each; a misspelt variable is noted; a wrong one stops with a message."""
    listed = await cli("settings", database_url="postgresql://u:hidden@h/x", port="81", prot="1")
    assert 0 == listed.code
    assert "GATEWAY_PORT = 81   [environment; a whole number from 0 to 65535]" in listed.out
    assert "GATEWAY_PING_SECONDS = 20.0 seconds   [default; " in listed.out
    assert "GATEWAY_TOKEN_SECRET = ********   [environment; " in listed.out
    assert "Note: GATEWAY_PROT is no setting; did you mean GATEWAY_PORT?\n" == listed.err
    assert "hidden" not in listed.out
    assert SECRET not in listed.out
    wrong = await cli("settings", port="x", log_level="loud")
    assert (2, "", 2) == (wrong.code, wrong.out, len(wrong.err.splitlines()))


async def test_serve_on_a_port_that_is_taken_is_2_with_a_message(gateway: Running, cli: Run) -> None:
    """One message, which names address and settings, and no traceback."""
    stopped = await cli("serve", port=str(gateway.port), metrics_host="off", connections_max="100")
    assert (2, "", 1) == (stopped.code, stopped.out, len(stopped.err.splitlines()))
    assert f"gateway: Cannot listen on 127.0.0.1:{gateway.port}" in stopped.err
    assert "set GATEWAY_HOST and GATEWAY_PORT to a free address" in stopped.err


def test_serve_runs_without_standard_error() -> None:
    """Closed outputs are opened to nowhere: it gets as far as the database, which is not there."""
    there = {name: text for name, text in os.environ.items() if not name.startswith("GATEWAY_")}
    there |= {"GATEWAY_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "GATEWAY_TOKEN_SECRET": SECRET}
    shell = ["/bin/sh", "-c", '"$0" -m gateway serve 2>&-', sys.executable]
    assert 2 == subprocess.run(shell, env=there, capture_output=True, check=False).returncode


async def test_serve_needs_a_secret_with_a_database_url(cli: Run) -> None:
    """With GATEWAY_DATABASE_URL and no secret the start stops with a message that says how to make one."""
    for arguments, settings in ((("serve",), {"token_secret": ""}), (("serve", "--log-level", "loud"), {})):
        stopped = await cli(*arguments, port="0", **settings)
        assert (2, "") == stopped[:2]
        assert ("GATEWAY_TOKEN_SECRET is not set" if settings else "--log-level is 'loud'") in stopped.err
        assert "Traceback" not in stopped.err
