"""Who may come in: hostile origins, commands before any proof, and every kind of bad token, against a real gateway."""

from __future__ import annotations

from gateway.commands.table import COMMANDS
from tests.client import Client
from tests.faults.check import Finding
from tests.faults.stage import Stage, connected
from tests.test_handshake import ALLOWED, HOSTILE_ORIGINS, status_of
from tests.test_proofs import bad_tokens, bearer, opened
from tests.test_tokens import KEY, token_of

OPEN = {"MngLogin", "HealthCheck"}
"""What needs no session."""


async def refusals(stage: Stage) -> Finding:
    """Counts what was let in, of what must not be; what must be let in shows that the gateway is no wall."""
    async with (
        stage.database() as dsn,
        connected(dsn) as db,
        stage.gateway(dsn, token_secret=KEY, origins=ALLOWED) as gateway,
    ):
        origins = {origin: await status_of(gateway.url, origin) for origin in HOSTILE_ORIGINS}
        friends = [await status_of(gateway.url), await status_of(gateway.url, ALLOWED)]
        async with Client.connected(gateway.url) as client:
            replies = {name: await client.command(name, {}) for name in COMMANDS}
            bad, good = await bad_tokens(db), token_of(await opened(db))
            shown = {name: await client.command("MngGetCalendarEvent", {"id": 1}, __token=token) for name, token in bad.items()}
            genuine = await client.command("MngGetCalendarEvent", {"id": 1}, __token=good)
        closed = []
        for token in bad.values():
            async with Client.connected(gateway.url, **bearer(token)) as client:
                closed.append(await client.closed())
    let_in = [origin for origin, status in origins.items() if status != 403]
    let_in += [name for name, reply in replies.items() if name not in OPEN and reply["error"] != "UNAUTHORIZED"]
    let_in += [name for name, reply in shown.items() if (reply["status"], reply["outcome"]) != (401, "not_executed")]
    let_in += [f"closed with {code}" for code in closed if code != 4503]
    works = friends == [101, 101] and genuine["status"] == 404
    return Finding(
        works and not let_in,
        f"refused {len(origins)} origins, {len(replies) - len(OPEN)} commands without a session, {len(bad)} bad tokens in a "
        f"frame and in the upgrade; let in: {let_in or 'none'}",
    )
