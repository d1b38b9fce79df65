"""Secrets at rest: what somebody who took the whole database away would have in hand."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from tests.client import EVENT
from tests.conftest import PASSWORD, SECRET, Start
from tests.issuers import by_rsa, foreign_claims, publish, rsa_jwk
from tests.run_log import TOKEN


async def everything(db: Any) -> str:
    """Every row of every table, as text."""
    tables = await db.fetch("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
    assert {"session", "manager", "revoked_token"} <= {row["relname"] for row in tables}
    rows = [await db.fetchval(f"SELECT json_agg(t)::text FROM {row['relname']} AS t") for row in tables]
    return "\n".join(filter(None, rows))


async def test_database_holds_no_token_no_password_and_no_key(start: Start, connect: Any, db: Any, tmp_path: Path) -> None:
    """Neither whole nor in part nor as the hash a cache would know them by, after use of every kind."""
    gateway = await start(jwks_file=publish(tmp_path / "jwks.json", rsa_jwk()))
    client, foreign = await connect(gateway, login=None), by_rsa(foreign_claims())
    tokens = [foreign, *[(await client.login("10", PASSWORD))["token"] for _ in range(2)]]
    for token in tokens:
        assert 200 == (await client.command("MngAddCalendarEvent", EVENT, __token=token))["status"]
    for token in tokens[:2]:
        assert 200 == (await client.command("MngLogout", __token=token))["status"]
    text = await everything(db)
    parts = [part for token in tokens for part in (*token.split("."), hashlib.sha256(token.encode()).hexdigest())]
    assert [] == [secret for secret in (TOKEN, PASSWORD, SECRET, *parts) if secret in text]


async def test_database_gives_nothing_to_sign_in_with(start: Start, connect: Any, db: Any) -> None:
    """Every text in it, a live session's id among them, is refused as a token and as a password."""
    gateway = await start(sign_in_failures_max=0, sign_in_address_failures_max=0)
    client = await connect(gateway)
    texts = {
        value
        for table in ("session", "manager")
        for row in msgspec.json.decode(await db.fetchval(f"SELECT json_agg(t)::text FROM {table} AS t"))
        for value in row.values()
        if isinstance(value, str)
    }
    assert len(texts) >= 5
    stranger = await connect(gateway, login=None)
    for text in texts:
        replies = [
            await stranger.command("MngAddCalendarEvent", EVENT, __token=text),
            await stranger.command("MngLogin", {"login": "10", "password": text}),
        ]
        assert [401, 401] == [reply["status"] for reply in replies]
    assert 200 == (await client.command("MngAddCalendarEvent", EVENT))["status"]
