"""Proofs of identity: the four ways to show a token, what each does to the socket, and every way each fails."""

from __future__ import annotations

import asyncio
import contextlib
import string
import time
import uuid
from typing import Any

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed

from tests.client import EVENT, WAIT_SECONDS, Client
from tests.conftest import Running, Start
from tests.test_tokens import BAD_TOKENS, KEY, claims, token_of

PROVED = {"event": "authorization", "success": True}
REFUSED = {"event": "authorization", "success": False, "error": "INVALID_TOKEN"}
TOKEN_CHARS = frozenset(string.ascii_letters + string.digits + "-_.")
UNUSABLE_TEXT = {"non-ASCII": "t\xf6ken\U0001f600", "half a pair": "\ud83d", "NUL": "a\0b", "very long": "x" * 100_000}


@pytest.fixture
async def gateway(start: Start) -> Running:
    """A gateway with the key that the tests sign with."""
    running: Running = await start(token_secret=KEY)
    return running


async def opened(db: Any, manager_id: int = 10, *, seconds: int = 600, **changes: Any) -> dict[str, Any]:
    """The claims of a new live session."""
    good = claims(manager_id, jti=str(uuid.uuid4()), exp=int(time.time()) + seconds)
    await db.execute(
        "INSERT INTO session (id, manager_id, expires_time) VALUES ($1, $2, $3)", good["jti"], manager_id, good["exp"]
    )
    return {**good, **changes}


async def dead_tokens(db: Any) -> dict[str, str]:
    """Genuine tokens without a live session behind them, by what became of it."""
    revoked, expired = await opened(db), await opened(db)
    await db.execute("UPDATE session SET revoked_time = 1 WHERE id = $1", revoked["jti"])
    await db.execute("UPDATE session SET expires_time = 1 WHERE id = $1", expired["jti"])
    await db.execute("UPDATE manager SET disabled = true WHERE id = 12")
    return {
        "no such session": token_of(claims()),
        "session of another manager": token_of(await opened(db, 11, sub="10")),
        "manager that does not exist": token_of(claims(99)),
        "revoked session": token_of(revoked),
        "session over in its row": token_of(expired),
        "disabled manager": token_of(await opened(db, 12)),
    }


async def bad_tokens(db: Any) -> dict[str, str]:
    """Every bad token; those that are forged differ from one with a live session in that one thing."""
    good = await opened(db)
    return {name: forge(good) for name, forge in BAD_TOKENS.items()} | await dead_tokens(db)


async def manager_of(client: Client) -> Any:
    """Whose socket it is, as an event added there tells; or the error."""
    reply = await client.command("MngAddCalendarEvent", EVENT)
    return reply["data"]["event"]["created_by"] if reply["status"] == 200 else reply["error"]


async def authorize(client: Client, token: object) -> Any:
    await client.socket.send(msgspec.json.encode({"authorization": token}).decode())
    return await client.receive()


def bearer(token: str) -> dict[str, Any]:
    return {"additional_headers": {"Authorization": f"Bearer {token}"}}


async def test_proof_in_the_upgrades_header_makes_the_session(gateway: Running, connect: Any, db: Any) -> None:
    """`Authorization: Bearer` on the upgrade makes the session; the scheme's case does not matter."""
    token = token_of(await opened(db, 11))
    for scheme in ("Bearer", "bearer", "BEARER"):
        client = await connect(gateway, login=None, additional_headers={"Authorization": f"{scheme} {token}"})
        assert 11 == await manager_of(client)


async def test_proof_in_the_header_of_another_kind_is_bad(gateway: Running, connect: Any, db: Any) -> None:
    """Another scheme, no scheme, or two headers prove nothing: accepted, and closed with 4503."""
    token = token_of(await opened(db))
    two = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    for headers in (two, *([("Authorization", text)] for text in (f"Basic {token}", token, "Bearer", ""))):
        client = await connect(gateway, login=None, additional_headers=headers)
        assert (4503, headers) == (await client.closed(), headers)


async def test_proof_in_the_subprotocol_pair_makes_the_session(gateway: Running, connect: Any, db: Any) -> None:
    """Browsers offer the token as a second subprotocol; only the first is echoed, in whichever order they come."""
    token = token_of(await opened(db, 11))
    pair = ["crm-gateway.v1.json", f"bearer.{token}"]
    for offered in (pair, pair[::-1], ["chat", *pair]):
        client = await connect(gateway, login=None, subprotocols=offered)
        assert ("crm-gateway.v1.json", 11) == (client.socket.subprotocol, await manager_of(client))


async def test_subprotocols_alone_prove_nothing(gateway: Running, connect: Any) -> None:
    """None offered, ours or others: the socket is open, and nobody's."""
    for offered, echoed in (
        (None, None),
        (["crm-gateway.v1.json"], "crm-gateway.v1.json"),
        (["chat", "crm-gateway.v2.json"], None),
    ):
        client = await connect(gateway, login=None, subprotocols=offered)
        assert (echoed, "UNAUTHORIZED") == (client.socket.subprotocol, await manager_of(client))


async def test_proof_in_a_message_makes_the_session(gateway: Running, connect: Any, db: Any) -> None:
    """`{"authorization": ...}` makes the session, also behind another manager's `__token`."""
    client = await connect(gateway, login=None)
    assert PROVED == await authorize(client, token_of(await opened(db, 11)))
    assert 11 == await manager_of(client)


async def test_proof_in_a_message_renews_for_the_same_manager_alone(gateway: Running, connect: Any, db: Any) -> None:
    """A renewal takes the first session's place; another manager's is refused and changes nothing."""
    client, first, second = await connect(gateway, login=None), await opened(db), await opened(db)
    assert PROVED == await authorize(client, token_of(first))
    assert REFUSED == await authorize(client, token_of(await opened(db, 11)))
    assert 10 == await manager_of(client)
    assert PROVED == await authorize(client, token_of(second))
    await db.execute("UPDATE session SET revoked_time = 1 WHERE id = $1", first["jti"])
    assert 10 == await manager_of(client)


async def test_proof_in_a_message_outlives_the_session_it_renews(gateway: Running, connect: Any, db: Any) -> None:
    """A socket whose session was renewed stays when the first one ends; one beside it is closed with 4501."""
    short, long = await opened(db, seconds=2), await opened(db)
    renewed, left = [await connect(gateway, login=None, **bearer(token_of(short))) for _ in range(2)]
    assert PROVED == await authorize(renewed, token_of(long))
    assert 4501 == await left.closed()
    assert 10 == await manager_of(renewed)


async def test_proof_in_a_message_of_the_wrong_type_is_refused(gateway: Running, connect: Any) -> None:
    """What is no string is a bad proof; the session stays."""
    client = await connect(gateway)
    wrongs: list[object] = [None, 5, True, [], {}, ["token"]]
    for wrong in wrongs:
        assert REFUSED == await authorize(client, wrong)
    assert 10 == await manager_of(client)


async def test_proof_in_a_frame_is_for_that_frame(gateway: Running, connect: Any, db: Any) -> None:
    """`__token` overrides the socket's session, and is not the session of the next frame."""
    token, anonymous, signed_in = token_of(await opened(db, 11)), await connect(gateway, login=None), await connect(gateway)
    for client, own in ((anonymous, "UNAUTHORIZED"), (signed_in, 10)):
        reply = await client.command("MngAddCalendarEvent", EVENT, __token=token)
        assert (11, own) == (reply["data"]["event"]["created_by"], await manager_of(client))
    reply = await signed_in.command("MngAddCalendarEvent", EVENT, __token=None)
    assert 10 == reply["data"]["event"]["created_by"]


async def test_bad_proof_in_a_frame_is_401_on_a_socket_with_a_session(gateway: Running, connect: Any, db: Any) -> None:
    """Every bad `__token` is refused, nothing is written, and the socket's own session goes on."""
    client, bad, data = await connect(gateway), await bad_tokens(db), msgspec.json.encode(EVENT).decode()
    answers = {}
    for name, token in {**bad, **UNUSABLE_TEXT}.items():
        frame = f'{{"command":"MngAddCalendarEvent","extID":"x","data":{data},"__token":{json_string(token)}}}'
        reply = await client.exchange(frame, "x")
        answers[name] = (reply["status"], reply["outcome"])
    refused: dict[str, Any] = dict.fromkeys(answers, (401, "not_executed"))
    assert refused | {"half a pair": (400, "not_executed")} == answers
    assert 0 == await db.fetchval("SELECT count(*) FROM calendar_event")
    assert 10 == await manager_of(client)


async def test_bad_proof_in_a_message_is_refused(gateway: Running, connect: Any, db: Any) -> None:
    """Every bad token is refused on a socket without and with a session, which stays as it was."""
    bad = await bad_tokens(db)
    for client, own in ((await connect(gateway, login=None), "UNAUTHORIZED"), (await connect(gateway), 10)):
        answers = {}
        for name, token in {**bad, **UNUSABLE_TEXT}.items():
            await client.socket.send(f'{{"authorization":{json_string(token)}}}')
            answers[name] = await client.receive()
        assert dict.fromkeys(answers, REFUSED) == answers
        assert own == await manager_of(client)


async def test_bad_proof_in_the_upgrade_is_accepted_and_closed(gateway: Running, connect: Any, db: Any) -> None:
    """Every bad token in the header or the subprotocol ends with 4503, since a browser sees no HTTP status."""
    bad = await bad_tokens(db) | {"long": "x" * 7000, "non-ASCII": "t\xf6ken"}
    codes = {}
    for name, token in bad.items():
        client = await connect(gateway, login=None, **bearer(token))
        codes[name, "header"] = await client.closed()
        if set(token) <= TOKEN_CHARS:
            client = await connect(gateway, login=None, subprotocols=["crm-gateway.v1.json", f"bearer.{token}"])
            codes[name, "subprotocol"] = await client.closed()
    assert dict.fromkeys(codes, 4503) == codes


async def test_token_in_the_query_string_proves_nothing(gateway: Running, connect: Any, db: Any) -> None:
    """A query parameter would end up in logs: it is not looked at, good or bad."""
    token = token_of(await opened(db))
    for name in ("token", "access_token", "authorization", "__token", "bearer"):
        async with Client.connected(f"{gateway.url}?{name}={token}") as client:
            assert "UNAUTHORIZED" == await manager_of(client)
    assert token not in gateway.log_text


async def test_any_valid_proof_stops_the_timer(start: Start, connect: Any, db: Any) -> None:
    """Unproved sockets are closed with 4500, also those that send ping, bad proofs or HealthCheck; proved ones stay."""
    gateway = await start(token_secret=KEY, authentication_seconds=1)
    token = token_of(await opened(db))
    by_message, by_frame, by_header = (
        await connect(gateway, login=None),
        await connect(gateway, login=None),
        await connect(gateway, login=None, **bearer(token)),
    )
    assert PROVED == await authorize(by_message, token)
    assert 200 == (await by_frame.command("MngAddCalendarEvent", EVENT, __token=token))["status"]
    silent, pinging, guessing, asking = [await connect(gateway, login=None) for _ in range(4)]
    assert REFUSED == await authorize(guessing, "guess")
    assert 200 == (await asking.command("HealthCheck"))["status"]
    async with asyncio.timeout(WAIT_SECONDS):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await pinging.bare_ping()
    assert [4500] * 4 == [await client.closed() for client in (pinging, silent, guessing, asking)]
    assert [10, 10] == [await manager_of(client) for client in (by_message, by_header)]
    assert 200 == (await by_frame.command("MngAddCalendarEvent", EVENT, __token=token))["status"]


def json_string(text: str) -> str:
    """A JSON string; half a surrogate pair as an escape."""
    return '"' + "".join(f"\\u{ord(c):04x}" if c < " " or "\ud800" <= c < "\ue000" else c for c in text) + '"'
