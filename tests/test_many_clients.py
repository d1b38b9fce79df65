"""Many clients at once: no reply goes to another frame or socket, and no event gets another's participants."""

from __future__ import annotations

import asyncio
import io
import resource
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from gateway.cli.serve import allow_descriptors
from gateway.log import make_logger
from tests.client import EVENT, Client
from tests.conftest import PASSWORD, settings_for_tests
from tests.process import gateway_process

CLIENTS, SOCKETS = 200, 4
EXT_IDS = (1, "1", 2)
OPENED_AT_ONCE = 40


async def token_of(url: str, login: str) -> str:
    async with Client.connected(url) as client:
        data = await client.login(login, PASSWORD)
    return str(data["token"])


async def open_sockets(stack: AsyncExitStack, url: str) -> list[Client]:
    """All sockets of all clients, each signed in by its upgrade request."""
    tokens = [await token_of(url, login) for login in ("10", "11", "12")]
    few = asyncio.Semaphore(OPENED_AT_ONCE)

    async def open_one(number: int) -> Client:
        proof = {"Authorization": f"Bearer {tokens[number % len(tokens)]}"}
        async with few:
            return await stack.enter_async_context(Client.connected(url, additional_headers=proof, open_timeout=60))

    return await asyncio.gather(*(open_one(number) for number in range(CLIENTS * SOCKETS)))


async def add_several(client: Client, number: int) -> list[tuple[int, str, tuple[int, ...]]]:
    """Adds events at once with extIDs that other sockets use too; checks each reply and returns what it told."""
    sent: dict[Any, dict[str, Any]] = {}
    for ext_id in EXT_IDS:
        guests = [1000 + number, 2000 + len(sent)]
        title = f"socket {number}, add {ext_id!r}"
        sent[ext_id] = {**EVENT, "title": title, "owner_manager_id": 500, "participant_manager_ids": guests}
        frame = {"command": "MngAddCalendarEvent", "extID": ext_id, "data": sent[ext_id]}
        await client.socket.send(msgspec.json.encode(frame).decode())
    told = []
    while sent:
        reply = await client.receive()
        data, event = sent.pop(reply["extID"]), reply["data"]["event"]
        managers = tuple(row["manager_id"] for row in event["participants"])
        assert (data["title"], (500, *data["participant_manager_ids"])) == (event["title"], managers)
        told.append((event["id"], event["title"], managers))
    return told


async def test_many_clients_each_get_their_own(scratch_dir, dsn, db):
    """200 clients add over 4 sockets each at once; every reply fits its frame, and the tables hold what was told."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    async with (
        gateway_process(scratch_dir, database_url=dsn, db_acquire_seconds=20) as gateway,
        AsyncExitStack() as stack,
    ):
        clients = await open_sockets(stack, gateway.url)
        told = await asyncio.gather(*(add_several(client, number) for number, client in enumerate(clients)))
        answered = sorted(event for events in told for event in events)
        assert CLIENTS * SOCKETS * len(EXT_IDS) == len(answered)
        stored = await db.fetch("""
            SELECT id, title, array_agg(participant.manager_id ORDER BY role, manager_id) AS managers
            FROM calendar_event JOIN calendar_participant AS participant ON event_id = id GROUP BY id ORDER BY id
        """)
        assert answered == [(row["id"], row["title"], tuple(row["managers"])) for row in stored]


async def test_descriptors_are_allowed_for_all_sockets(scratch_dir, dsn):
    """A gateway started under a low limit raises its own as far as it may, and does not complain."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        async with gateway_process(scratch_dir, database_url=dsn, connections_max=1000) as gateway:
            assert (hard, hard) == resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)
            assert [] == [line for line in gateway.log_lines if line["event"] == "too few descriptors"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


def test_descriptors_that_are_too_few_are_told(monkeypatch):
    """Where the limit may not be raised far enough one line names it and what is needed."""
    monkeypatch.setattr("gateway.cli.serve.resource.getrlimit", lambda _: (100, 200))
    monkeypatch.setattr("gateway.cli.serve.resource.setrlimit", lambda *_: None)
    stream = io.StringIO()
    settings = settings_for_tests(
        connections_max=1000, db_connections_max=10, streams_max=4, database_url="postgresql://db/gateway"
    )
    allow_descriptors(settings, make_logger(settings, stream))
    line = msgspec.json.decode(stream.getvalue())
    told = "ulimit -n is 200: GATEWAY_CONNECTIONS_MAX (1000) and the database need 1078"
    assert ("warning", told) == (line["level"], line["line"])
