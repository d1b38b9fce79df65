"""HealthCheck over the wire: it needs no session, and tells a client the limits it can run into."""

from __future__ import annotations

import json
import time

from gateway import __version__
from gateway.commands.health_check import Limits


async def test_health_check_tells_the_limits_in_force(start, connect):
    """Without a session the reply has version, clock and the limits as they are set, not as they are by default."""
    changes = {"title_chars_max": 7, "participants_max": 3, "body_nesting_max": 9, "in_flight_max": 5}
    gateway = await start(**changes)
    client = await connect(gateway, login=None)
    before = int(time.time())
    reply = await client.command("HealthCheck")
    data = reply["data"]
    assert (200, "ok", __version__) == (reply["status"], data["status"], data["version"])
    assert before <= data["time"] <= time.time()
    assert {name: getattr(gateway.settings, name) for name in Limits.__struct_fields__} == data["limits"]
    assert changes == {name: data["limits"][name] for name in changes}


async def test_health_check_takes_no_data(gateway, connect):
    """Empty, null and omitted data are the same; a key of its own is refused by name."""
    client = await connect(gateway, login=None)
    for data in ({}, None, {"__access": {"type": 3}}):
        assert 200 == (await client.command("HealthCheck", data))["status"]
    null = await client.exchange('{"command":"HealthCheck","extID":9,"data":null}', 9)
    refused = await client.command("HealthCheck", {"verbose": 1})
    assert (200, 400, "INVALID_DATA", "verbose") == (null["status"], refused["status"], refused["error"], refused["field"])


async def test_health_check_needs_no_database(gateway, connect, db):
    """It answers while the tables cannot be reached."""
    client = await connect(gateway, login=None)
    async with db.transaction():
        await db.execute("LOCK TABLE manager, session, access_epoch, calendar_event IN ACCESS EXCLUSIVE MODE")
        assert 200 == (await client.command("HealthCheck"))["status"]


async def test_health_check_limits_are_those_that_bite(start, connect):
    """A title one character over the limit that was told is refused, one at the limit is taken."""
    gateway = await start(title_chars_max=7)
    client = await connect(gateway)
    most = (await client.command("HealthCheck"))["data"]["limits"]["title_chars_max"]
    replies = [
        await client.command("MngAddCalendarEvent", {"title": "x" * length, "start_time": 1, "end_time": 1})
        for length in (most, most + 1)
    ]
    assert [(200, None), (413, "title")] == [(reply["status"], reply.get("field")) for reply in replies]
    assert "7" in json.dumps(replies[1]["message"])
