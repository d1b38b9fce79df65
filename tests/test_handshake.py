"""The upgrade request: origins, paths, and the plain pages on the same port."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from websockets.exceptions import InvalidStatus

from tests.client import EVENT, WAIT_SECONDS, Client
from tests.conftest import Running, Start

ALLOWED = "https://crm.example.com"
HOSTILE_ORIGINS = [
    "http://crm.example.com",
    "https://crm.example.com.evil.example",
    "https://evil-crm.example.com",
    "https://evilcrm.example.com",
    "https://sub.crm.example.com",
    "https://example.com",
    "https://crm.example.co",
    "https://crm.example.comm",
    "https://crm-example.com",
    "https://crmxexample.com",
    "https://crm.example.com:443",
    "https://crm.example.com:8443",
    "https://crm.example.com/",
    "https://crm.example.com/path",
    "https://crm.example.com@evil.example",
    "https://evil.example#https://crm.example.com",
    "https://evil.example/https://crm.example.com",
    "https://CRM.example.com",
    "HTTPS://crm.example.com",
    "https://crm.example.com.",
    "https://crm.example.com,https://evil.example",
    "https://crm.example.com https://evil.example",
    "https://crm.example.com\xe9",
    "crm.example.com",
    "//crm.example.com",
    "file://",
    "null",
    "*",
    "",
]


async def status_of(url: str, *origins: str) -> int:
    """The HTTP status of an upgrade; 101 when it is let in."""
    headers = [("Origin", origin) for origin in origins]
    try:
        async with Client.connected(url, additional_headers=headers) as client:
            assert 200 == (await client.command("HealthCheck"))["status"]
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def get(running: Running, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and body of a plain HTTP request."""
    async with asyncio.timeout(WAIT_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


async def ready_when(running: Running, wanted: int) -> str:
    """The body of /readyz once its status is the wanted one."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            status, body = await get(running, "/readyz")
            if status == wanted:
                return body


async def test_origin_is_compared_exactly(start: Start) -> None:
    """The allowed origins and clients without one pass; every other origin is refused with 403."""
    gateway = await start(origins=(ALLOWED, "https://other.example:8443"))
    passing = [await status_of(gateway.url), await status_of(gateway.url, ALLOWED)]
    assert [101, 101, 101] == [*passing, await status_of(gateway.url, "https://other.example:8443")]
    refused = {origin: await status_of(gateway.url, origin) for origin in HOSTILE_ORIGINS}
    assert dict.fromkeys(HOSTILE_ORIGINS, 403) == refused
    assert 400 == await status_of(gateway.url, ALLOWED, "https://evil.example")


async def test_no_origin_is_let_in_unless_it_is_listed(gateway: Running) -> None:
    """Without a list no browser comes in, from whatever page; a proof in the upgrade changes nothing about it."""
    for origin in (f"http://127.0.0.1:{gateway.port}", "http://gateway", "null"):
        assert (origin, 403) == (origin, await status_of(gateway.url, origin))
    assert 403 == await status_of(f"{gateway.url}ws", "null")


async def test_refused_origin_is_told_to_page_and_operator(gateway: Running) -> None:
    """The answer names the origin and the setting, cut where it is long; a line in the log says it, too."""
    for origin in ("http://localhost:3000", "https://" + "x" * 5000):
        with pytest.raises(InvalidStatus) as refused:
            await Client.connected(gateway.url, additional_headers={"Origin": origin}).__aenter__()
        told = f"`{origin}`" if len(origin) < 64 else f"`{origin[:64]}...`"
        assert f"Origin {told} is not one of GATEWAY_ORIGINS: list it there.\n".encode() == refused.value.response.body
        assert told == [line["origin"] for line in gateway.log_lines if line["event"] == "origin refused"][-1]


async def test_path_is_root_or_ws(gateway: Running) -> None:
    """The WebSocket is at / and /ws, with or without a query; any other path is 404."""
    base = f"ws://127.0.0.1:{gateway.port}"
    for path in ("", "/", "/ws", "/?a=b", "/ws?a=b"):
        assert (path, 101) == (path, await status_of(base + path))
    for path in ("/ws/", "//", "/WS", "/wss", "/api", "/ws/x", "/%77s", "/..", "/index.html", "/healthz/"):
        assert (path, 404) == (path, await status_of(base + path))


async def test_plain_requests_are_no_upgrade(gateway: Running) -> None:
    """A browser that opens the address is told that an upgrade is required; other paths are 404."""
    assert [426, 426, 404] == [(await get(gateway, path))[0] for path in ("/", "/ws", "/nothing")]


async def test_ready_needs_the_schemas_version(gateway: Running, db: asyncpg.Connection[asyncpg.Record]) -> None:
    """/readyz is 503 at an older version than this gateway's, or at none, and 200 again."""
    assert (200, "ready\n") == await get(gateway, "/readyz")
    for older in ("version = (SELECT max(version) FROM schema_version)", "true"):
        await db.execute(f"CREATE TABLE kept AS SELECT * FROM schema_version WHERE {older}")
        await db.execute(f"DELETE FROM schema_version WHERE {older}")
        assert "not ready: the database schema is older than this gateway's\n" == await ready_when(gateway, 503)
        await db.execute("INSERT INTO schema_version SELECT * FROM kept; DROP TABLE kept")
        assert "ready\n" == await ready_when(gateway, 200)


async def test_ready_and_serving_at_a_newer_schema(
    start: Start, connect: Any, db: asyncpg.Connection[asyncpg.Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between `gateway schema apply` and the next version's start the running gateway goes on, and is sent clients."""
    monkeypatch.setattr("gateway.readiness.READY_CACHE_SECONDS", 0)
    gateway = await start()
    await db.execute("INSERT INTO schema_version (version) VALUES (99)")
    assert (200, "ready\n") == await get(gateway, "/readyz")
    client = await connect(gateway)
    assert 200 == (await client.command("MngAddCalendarEvent", EVENT))["status"]


async def test_ready_needs_the_database_and_alive_does_not(gateway: Running, dsn: str, template_dsn: str) -> None:
    """/readyz is 503 while the database lets nobody in, and 200 again when it does; /healthz is 200 all the time."""
    name = urlsplit(dsn).path.removeprefix("/")
    admin = await asyncpg.connect(template_dsn)
    try:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        assert (await ready_when(gateway, 503)).startswith("not ready: the ")
        assert (200, "alive\n") == await get(gateway, "/healthz")
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert "ready\n" == await ready_when(gateway, 200)
    finally:
        await admin.close()


async def test_pages_tell_nothing_about_the_gateway(gateway: Running) -> None:
    """No page names the software or its version."""
    async with asyncio.timeout(WAIT_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    assert b"server:" not in head.lower()
