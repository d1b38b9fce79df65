"""Sessions by tokens of other issuers: they need no row, and end by MngLogout, `gateway revoke`, the manager, or their key."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.log import make_logger
from tests.client import EVENT, Client
from tests.conftest import SECRET, Running, Start
from tests.issuers import ISSUER, by_ed25519, by_rsa, ed25519_jwk, foreign_claims, publish, rsa_jwk
from tests.process import gateway_process, until
from tests.test_cli import Run, assert_refused, cli
from tests.test_proofs import authorize, bearer, manager_of, opened
from tests.test_tokens import token_of

__all__ = ["cli"]
OTHER = "https://other.example.com"


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    """The file of keys of two issuers."""
    path = tmp_path / "jwks.json"
    publish(path, rsa_jwk(), ed25519_jwk(iss=OTHER))
    return path


@pytest.fixture
async def two(start: Start, jwks: Path) -> list[Running]:
    """Two gateways on one database with the same keys."""
    return [await start(jwks_file=str(jwks)) for _ in range(2)]


async def created_by(client: Client, token: str) -> Any:
    """The manager that an add with this `__token` is done by, or the error."""
    reply = await client.command("MngAddCalendarEvent", EVENT, __token=token)
    return reply["data"]["event"]["created_by"] if reply["status"] == 200 else reply["error"]


async def test_foreign_token_is_a_proof_in_every_place(two: list[Running], connect: Any, db: Any) -> None:
    """In the upgrade, in a message and in a frame; no session row is made or needed."""
    token = by_rsa(foreign_claims(11))
    upgraded, told, framed = [await connect(two[0], login=None, **proof) for proof in (bearer(token), {}, {})]
    assert (await authorize(told, token))["success"]
    assert [11, 11, 11] == [await manager_of(upgraded), await manager_of(told), await created_by(framed, token)]
    assert 0 == await db.fetchval("SELECT count(*) FROM session")


async def test_foreign_token_has_the_managers_rights(two: list[Running], connect: Any, db: Any) -> None:
    """Brands and state come from the manager's row; one that is unknown or disabled may not come in."""
    client = await connect(two[0], login=None)
    claimed = foreign_claims(11, brands=["vip"], type=11)
    reply = await client.command("MngAddCalendarEvent", {**EVENT, "brand": "vip"}, __token=by_rsa(claimed))
    assert "FORBIDDEN" == reply["error"]
    assert "UNAUTHORIZED" == await created_by(client, by_rsa(foreign_claims(99)))
    assert 11 == await created_by(client, by_rsa(claimed))
    await db.execute("UPDATE manager SET disabled = true WHERE id = 11")
    assert "UNAUTHORIZED" == await created_by(client, by_rsa(claimed))


async def test_logout_revokes_a_foreign_token_everywhere(two: list[Running], connect: Any, db: Any) -> None:
    """Every socket and gateway refuses it from the next command on, the first one again too; the row tells issuer and end."""
    good = foreign_claims()
    token = by_rsa(good)
    client, other = [await connect(gateway, login=None, **bearer(token)) for gateway in two]
    third = await connect(two[1], login=None)
    assert [10, 10, 10] == [await manager_of(client), await manager_of(other), await created_by(third, token)]
    assert 200 == (await client.command("MngLogout"))["status"]
    assert ["UNAUTHORIZED"] * 3 == [await manager_of(client), await manager_of(other), await created_by(third, token)]
    assert 4501 == await other.closed()
    assert "UNAUTHORIZED" == (await client.command("MngLogout", __token=token))["error"]
    late = await connect(two[1], login=None, **bearer(token))
    assert 4503 == await late.closed()
    row = await db.fetchrow("SELECT issuer, jti, expires_time FROM revoked_token")
    assert (ISSUER, good["jti"], good["exp"]) == tuple(row)


async def test_logout_prunes_what_ended_long_ago(two: list[Running], connect: Any, db: Any) -> None:
    """A day after a token's end nobody needs to know that it was revoked."""
    now = int(time.time())
    await db.executemany(
        "INSERT INTO revoked_token (issuer, jti, expires_time) VALUES ($1, $2, $3)",
        [(ISSUER, "long ago", now - 90_000), (ISSUER, "lately", now - 10)],
    )
    good = foreign_claims()
    client = await connect(two[0], login=None, **bearer(by_rsa(good)))
    assert 200 == (await client.command("MngLogout"))["status"]
    assert {"lately", good["jti"]} == {row["jti"] for row in await db.fetch("SELECT jti FROM revoked_token")}


async def test_a_jti_is_its_issuers_alone(two: list[Running], connect: Any, db: Any) -> None:
    """The same `jti` of two issuers and of the gateway are three sessions: none ends or stands in for another."""
    own = await opened(db, 10)
    first, second = foreign_claims(10, jti=own["jti"]), foreign_claims(12, jti=own["jti"], iss=OTHER)
    client = await connect(two[0])
    shown = [token_of(own, key=SECRET), by_rsa(first), by_ed25519(second)]
    for _ in range(2):
        assert [10, 10, 12] == [await created_by(client, token) for token in shown]
    assert 200 == (await client.command("MngLogout", __token=shown[1]))["status"]
    assert [10, "UNAUTHORIZED", 12] == [await created_by(client, token) for token in shown]
    assert 200 == (await client.command("MngLogout", __token=shown[0]))["status"]
    assert ["UNAUTHORIZED", "UNAUTHORIZED", 12] == [await created_by(client, token) for token in shown]


async def test_key_that_is_removed_ends_its_sessions(start: Start, connect: Any, jwks: Path) -> None:
    """On reload open sockets close with 4501 and `__token` is refused, remembered or not; other keys' go on."""
    gateway = await start(jwks_file=str(jwks))
    gone, kept = by_rsa(foreign_claims()), by_ed25519(foreign_claims(iss=OTHER))
    first, second = [await connect(gateway, login=None, **bearer(token)) for token in (gone, kept)]
    framed, own = await connect(gateway, login=None), await connect(gateway)
    assert [10, 10] == [await created_by(framed, token) for token in (gone, kept)]
    assert 10 == await manager_of(first)
    publish(jwks, ed25519_jwk(iss=OTHER))
    gateway.gateway.reload()
    assert 4501 == await first.closed()
    assert ["UNAUTHORIZED", 10] == [await created_by(framed, token) for token in (gone, kept)]
    assert [10, 10] == [await manager_of(client) for client in (second, own)]


async def test_session_of_a_removed_key_ends_at_its_next_command(start: Start, connect: Any, jwks: Path) -> None:
    """Also on a socket that was being opened while the keys were read anew, which nobody told."""
    gateway = await start(jwks_file=str(jwks))
    client = await connect(gateway, login=None, **bearer(by_rsa(foreign_claims())))
    assert 10 == await manager_of(client)
    publish(jwks)
    gateway.gateway._key_files.reload(make_logger(gateway.settings))
    assert "UNAUTHORIZED" == await manager_of(client)
    assert 4501 == await client.closed()


async def test_sighup_reads_the_keys_anew(dsn: str, connect: Any, tmp_path: Path, jwks: Path) -> None:
    """A new key proves after SIGHUP; a bad file is told in the log and changes nothing, and the gateway goes on."""
    publish(jwks, rsa_jwk("old"))
    old, new = by_rsa(foreign_claims(), "old"), by_rsa(foreign_claims(11), "new", number=2)
    async with gateway_process(tmp_path, database_url=dsn, jwks_file=jwks) as process:
        client = await connect(process, login=None)

        async def reloaded(times: int) -> list[dict[str, Any]]:
            async def read() -> list[dict[str, Any]]:
                return [line for line in process.log_lines if line.get("what") == "issuer keys"]

            process.signal(signal.SIGHUP)
            return await until(read, lambda lines: len(lines) == times)

        assert [10, "UNAUTHORIZED"] == [await created_by(client, token) for token in (old, new)]
        publish(jwks, rsa_jwk("old"), rsa_jwk("new", 2))
        await reloaded(1)
        assert [10, 11] == [await created_by(client, token) for token in (old, new)]
        publish(jwks, rsa_jwk("old", alg="none"))
        lines = await reloaded(2)
        assert ("error", "reload failed") == (lines[-1]["level"], lines[-1]["event"])
        assert "'none'" in lines[-1]["line"]
        assert str(jwks) in lines[-1]["line"]
        assert [10, 11] == [await created_by(client, token) for token in (old, new)]


async def test_revoke_command_ends_a_foreign_token(two: list[Running], connect: Any, cli: Run) -> None:
    """By issuer and jti, or from a file or standard input that holds the token; once revoked is for good."""
    named, shown = foreign_claims(), foreign_claims()
    client = await connect(two[0], login=None)
    assert [10, 10] == [await created_by(client, by_rsa(what)) for what in (named, shown)]
    by_name = ("revoke", "--issuer", ISSUER, "--jti", named["jti"])
    ended = [await cli(*by_name), await cli("revoke", "--token-file", "-", stdin=by_rsa(shown) + "\n"), await cli(*by_name)]
    assert [(0, "Revoked.\n", "")] * 3 == ended
    assert ["UNAUTHORIZED"] * 2 == [await created_by(client, by_rsa(what)) for what in (named, shown)]


async def test_revoke_command_ends_a_session(gateway: Running, connect: Any, cli: Run) -> None:
    """The gateway's own token stops at its next command; a second time there is nothing to revoke."""
    client = await connect(gateway, login=None)
    token = (await cli("token", "--manager", "11")).out.strip()
    assert 11 == await created_by(client, token)
    ended = [await cli("revoke", "--token-file", "-", stdin=token) for _ in range(2)]
    assert [(0, ""), (2, "gateway: There is no such live session; a token of another issuer needs --issuer.\n")] == [
        (each.code, each.err) for each in ended
    ]
    assert "UNAUTHORIZED" == await created_by(client, token)


async def test_revoke_command_says_what_it_needs(cli: Run) -> None:
    """Nothing named, both ways at once, a file that holds no token: code 2 and a message."""
    refused = {
        ("revoke",): "Name a token by --jti",
        ("revoke", "--jti", "x", "--token-file", "-"): "Name a token by --jti",
        ("revoke", "--issuer", "x", "--token-file", "-"): "Name a token by --jti",
        ("revoke", "--token-file", "-"): "holds no token",
        ("revoke", "--jti", "x"): "no such live session",
    }
    assert_refused({item: await cli(*item[0], stdin="nonsense") for item in refused.items()})
