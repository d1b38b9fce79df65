"""TLS on the gateway's own port: which versions, what is told of wrong files, and renewal without a restart."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from websockets.frames import CLOSE, TEXT, Frame

from gateway import tls
from gateway.errors import CloseCode, StartupError
from gateway.tls import ServerTls
from tests.certificates import Authority, Pair, serial_of
from tests.client import EVENT, WAIT_SECONDS, Client
from tests.conftest import PASSWORD, Running, Start, settings_for_tests
from tests.process import becomes_true, gateway_process, until
from tests.test_cli import EVENT_TEXT, Run, cli

__all__ = ["cli"]

REPLY, REPLIES = 200_000, 16
OUT_OF_SIGHT = 1_600_000
"""Half of all replies; twice what a client takes that reads one, with its TLS and the kernels of both sides."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def secured(running: Any) -> str:
    """The address by TLS."""
    return f"wss://127.0.0.1:{running.port}/"


async def shown_by(port: int, trusting: ssl.SSLContext) -> tuple[str | None, bytes]:
    """The version that a handshake agrees on, and the certificate that it shows."""
    async with asyncio.timeout(WAIT_SECONDS):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
    found = writer.get_extra_info("ssl_object")
    certificate = found.getpeercert(binary_form=True)
    version = found.version()
    writer.transport.abort()
    return version, certificate


async def test_tls_serves_commands(start: Start, authority: Authority) -> None:
    """A whole conversation, with an event large enough for many records; without TLS nothing is served there."""
    running = await start(**authority.write().settings)
    async with Client.connected(secured(running), ssl=authority.trusting()) as client:
        await client.login("10", PASSWORD)
        body = {"text": "x" * 200_000}
        assert body == (await client.add(ast_json=body))["ast_json"]
    with pytest.raises(Exception, match="did not receive a valid HTTP response"):
        async with Client.connected(running.url):
            pass


async def test_tls_client_that_does_not_read_is_cut_while_more_is_written(
    start: Start, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What TLS adds to each write is not taken for something that the client took."""
    monkeypatch.setattr("gateway.sweeper.SWEEP_SECONDS", 0.02)
    running = await start(**authority.write().settings, outbox_stall_seconds=0.5)
    async with Client.connected(secured(running), ssl=authority.trusting(), max_queue=1) as client:
        await client.login("10", PASSWORD)
        (connection,) = running.gateway._connections
        event = await client.add(ast_json=["x" * 60_000])
        client.socket.transport.pause_reading()
        frame = {"command": "MngGetCalendarEvent", "extID": 1, "data": {"id": event["id"]}}

        async def pile_up() -> bool:
            await client.socket.send(msgspec.json.encode(frame).decode())
            return bool(connection.socket.paused)

        async def told_again() -> bool:
            connection.tell(b"{}")
            return connection.socket.closed_with is CloseCode.TOO_SLOW

        await until(pile_up)
        async with asyncio.timeout(5):
            await until(told_again)
        client.socket.transport.abort()


async def test_tls_replies_that_are_not_read_stay_counted(
    start: Start, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also once the transport has passed on the first of them; all arrive, and then nothing is counted."""
    monkeypatch.setattr("gateway.sweeper.SWEEP_SECONDS", 0.02)
    running = await start(**authority.write().settings)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", running.port))
    trusting = {"ssl": authority.trusting()}
    async with (
        Client.connected(secured(running), sock=raw, ping_interval=None, max_queue=1, **trusting) as client,
        Client.connected(secured(running), **trusting) as other,
    ):
        await client.login("10", PASSWORD)
        connection = next(each for each in running.gateway._connections if each.identity.session)
        event = await client.add(ast_json=["x" * REPLY])
        before, backlog = connection.socket.written_bytes, running.gateway._backlog
        frame = {"command": "MngGetCalendarEvent", "extID": 1, "data": {"id": event["id"]}}
        client.socket.transport.write(Frame(TEXT, msgspec.json.encode(frame)).serialize(mask=True) * REPLIES)
        await becomes_true(lambda: connection.socket.written_bytes - before > REPLIES * REPLY)
        replies = [await client.receive()]  # whole, so that TCP has taken all that it was first given
        for _ in range(20):
            assert 200 == (await other.command("HealthCheck"))["status"]
        assert connection.socket.written_bytes - before - backlog.bytes < OUT_OF_SIGHT
        replies += [await client.receive() for _ in range(REPLIES - 1)]
        assert [event["id"]] * REPLIES == [reply["data"]["event"]["id"] for reply in replies]
        await becomes_true(lambda: backlog.bytes == 0)


async def test_tls_ends_behind_what_is_not_read_yet(start: Start, authority: Authority) -> None:
    """A client that closes with replies still waiting gets them whole, and then the answer to its close."""
    running = await start(**authority.write().settings)
    async with Client.connected(secured(running), ssl=authority.trusting(), ping_interval=None) as client:
        await client.login("10", PASSWORD)
        (connection,) = running.gateway._connections
        event = await client.add(ast_json=["x" * REPLY])
        frame = {"command": "MngGetCalendarEvent", "extID": 1, "data": {"id": event["id"]}}
        client.socket.transport.pause_reading()
        client.socket.transport.write(Frame(TEXT, msgspec.json.encode(frame)).serialize(mask=True) * REPLIES)
        await becomes_true(lambda: connection.socket.paused and not connection.unanswered)
        client.socket.transport.write(Frame(CLOSE, (1000).to_bytes(2)).serialize(mask=True))
        await becomes_true(connection.socket.transport.is_closing)
        client.socket.transport.resume_reading()
        assert 1000 == await client.closed()
        assert [event["id"]] * REPLIES == [reply["data"]["event"]["id"] for reply in client.others]


async def test_tls_client_that_ends_its_side_gets_what_it_has_not_read(start: Start, authority: Authority) -> None:
    """The replies that wait arrive whole, then the socket ends, and nothing stays counted.

    One more than is looked for is sent: the TLS of this very client loses the end of what comes with the gateway's.
    """
    running = await start(**authority.write().settings)
    trusting = {"ssl": authority.trusting()}
    async with Client.connected(secured(running), ping_interval=None, max_queue=None, **trusting) as client:
        await client.login("10", PASSWORD)
        (connection,) = running.gateway._connections
        event = await client.add(ast_json=["x" * REPLY])
        frame = {"command": "MngGetCalendarEvent", "extID": 1, "data": {"id": event["id"]}}
        below: Any = client.socket.transport._ssl_protocol  # type: ignore[attr-defined] # asyncio ends both sides at once
        below._transport.pause_reading()
        client.socket.transport.write(Frame(TEXT, msgspec.json.encode(frame)).serialize(mask=True) * (REPLIES + 1))
        await becomes_true(lambda: connection.socket.paused and not connection.unanswered)
        with pytest.raises(ssl.SSLWantReadError):
            client.socket.transport.get_extra_info("ssl_object").unwrap()
        below._process_outgoing()
        await becomes_true(connection.socket.transport.is_closing)
        below._transport.resume_reading()
        assert 1006 == await client.closed()
        assert [event["id"]] * REPLIES == [reply["data"]["event"]["id"] for reply in client.others[:REPLIES]]
        await becomes_true(lambda: not running.gateway._connections)
        assert 0 == running.gateway._backlog.bytes
    assert not connection.socket.paused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_takes_1_2_and_1_3(start: Start, authority: Authority, version: ssl.TLSVersion) -> None:
    """Each of the two, and a command through it."""
    running = await start(**authority.write().settings)
    async with Client.connected(secured(running), ssl=authority.trusting(version)) as client:
        assert 200 == (await client.command("HealthCheck"))["status"]
        assert version.name == client.socket.transport.get_extra_info("ssl_object").version().replace(".", "_")


def _old(context: ssl.SSLContext) -> ssl.SSLContext:
    """OpenSSL's own rules let nothing below 1.2 through, unless it is told to."""
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_tls_refuses_older_versions(
    start: Start, authority: Authority, version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway refuses also where OpenSSL would not; a server that allows the version shows that the client has it."""
    pair, new_context = authority.write(), tls._new_context
    monkeypatch.setattr(tls, "_new_context", lambda: _old(new_context()))
    running = await start(**pair.settings)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        client = _old(authority.trusting(version))
        allowing = _old(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        allowing.minimum_version = ssl.TLSVersion.TLSv1
    allowing.load_cert_chain(pair.cert, pair.key)
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=allowing) as control:
        told = (await shown_by(control.sockets[0].getsockname()[1], client))[0]
        assert version.name == str(told).replace(".", "_")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await shown_by(running.port, client)
    assert "TLSv1.3" == (await shown_by(running.port, authority.trusting()))[0]


async def test_tls_handshake_has_a_limit(start: Start, authority: Authority) -> None:
    """Who connects and says nothing is closed by the time for the upgrade."""
    running = await start(**authority.write().settings, handshake_seconds=0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    async with asyncio.timeout(WAIT_SECONDS):
        assert b"" == await reader.read()
    writer.close()


async def test_tls_reload_serves_the_new_certificate(start: Start, authority: Authority) -> None:
    """New connections see it, open ones go on; a bad pair is told in the log and changes nothing."""
    first = authority.write()
    before = serial_of(first)
    running: Running = await start(**first.settings)
    async with Client.connected(secured(running), ssl=authority.trusting()) as client:
        await client.login("10", PASSWORD)
        after = serial_of(authority.write())
        assert before == (await shown_by(running.port, authority.trusting()))[1]
        running.gateway.reload()
        assert [after, after] == [
            (await shown_by(running.port, authority.trusting(version)))[1]
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
        ]
        assert before != after
        first.key.write_bytes(authority.write("other").key.read_bytes())
        running.gateway.reload()
        assert after == (await shown_by(running.port, authority.trusting()))[1]
        assert 200 == (await client.command("MngAddCalendarEvent", EVENT))["status"]
    (line,) = [line for line in running.log_lines if line["event"] == "reload failed"]
    assert ("error", "certificate") == (line["level"], line["what"])
    assert str(first.key) in line["line"]


async def test_tls_certificate_that_ends_is_told(start: Start, authority: Authority, tmp_path: Path) -> None:
    """At the start and when it is read anew, with its time; one that has weeks left is not mentioned."""
    now = datetime.now(UTC).replace(microsecond=0)
    running: Running = await start(**authority.write(not_after=now - timedelta(days=1)).settings)
    for left in (timedelta(days=13), timedelta(days=15)):
        authority.write(not_after=now + left)
        running.gateway.reload()
    (tmp_path / "gateway.crt").unlink()
    running.gateway.reload()  # nothing is read, and the one in force has weeks left
    told = [(line["event"], line["level"], line["not_after"]) for line in running.log_lines if "not_after" in line]
    assert [
        ("certificate has expired", "warning", (now - timedelta(days=1)).isoformat()),
        ("certificate ends soon", "warning", (now + timedelta(days=13)).isoformat()),
    ] == told


async def test_tls_sighup_and_the_command_line(dsn: str, cli: Run, authority: Authority, tmp_path: Path) -> None:
    """A real process: `gateway send` talks wss to it once it trusts the authority, and SIGHUP renews the certificate."""
    first = authority.write()
    before, password = serial_of(first), tmp_path / "password"
    password.write_text(PASSWORD)
    async with gateway_process(tmp_path, database_url=dsn, **first.settings) as process:
        arguments = ("--url", secured(process), "--login", "10", "--password-file", str(password), "--data", EVENT_TEXT)
        sent = ("send", "MngAddCalendarEvent", *arguments)
        ended = [
            await cli(*sent, "--ca-file", str(authority.file)),
            await cli(*sent, ca_file=str(authority.file)),
            await cli(*sent),
        ]
        assert [0, 0, 2] == [each.code for each in ended]
        assert "CERTIFICATE_VERIFY_FAILED" in ended[2].err
        assert "--ca-file" in ended[2].err
        after = serial_of(authority.write())
        process.signal(signal.SIGHUP)

        async def read() -> bytes:
            return (await shown_by(process.port, authority.trusting()))[1]

        assert after == await until(read, lambda shown: shown != before)
        process.signal(signal.SIGTERM)
        assert 0 == await process.exited()


def _missing(pair: Pair) -> None:
    pair.cert.unlink()


def _no_pem(pair: Pair) -> None:
    pair.cert.write_text("not PEM")


def _other_key(pair: Pair) -> None:
    pair.key.write_bytes(Authority(pair.key.parent).write("other").key.read_bytes())


def _with_password(pair: Pair) -> None:
    key = load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))


def _key_missing(pair: Pair) -> None:
    pair.key.unlink()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_missing, "GATEWAY_TLS_CERT: cannot read {cert} (No such file or directory)"),
        (_key_missing, "GATEWAY_TLS_KEY: cannot read {key} (No such file or directory)"),
        (_no_pem, "{cert} and {key} are no pair"),
        (_other_key, "KEY_VALUES_MISMATCH"),
        (_with_password, "private key without a password"),
    ],
)
def test_tls_files_that_are_wrong_are_named(authority: Authority, spoil: Callable[[Pair], None], told: str) -> None:
    """Variable, file and fault; nobody is asked for a password."""
    pair = authority.write()
    spoil(pair)
    with pytest.raises(StartupError) as caught:
        ServerTls(settings_for_tests(**pair.settings))
    assert told.format(cert=pair.cert, key=pair.key) in str(caught.value)
