"""Commands of one connection that name the same event take effect in the order sent."""

from __future__ import annotations

import json

ROUNDS = 20


async def test_change_before_delete_takes_effect_first(gateway, connect, db):
    """An archive and a delete sent in one go both succeed, also while rights change and each access is renewed."""
    client = await connect(gateway)
    for number in range(ROUNDS):
        event = await client.add()
        await db.execute("UPDATE manager SET desk_mask = $1 WHERE id = 10", "*" + ",!none" * (number % 2))
        commands = ["MngArchiveCalendarEvent", "MngGetCalendarEvent", "MngCompleteCalendarEvent", "MngDeleteCalendarEvent"]
        for command in commands:
            await client.socket.send(json.dumps({"command": command, "extID": command, "data": {"id": event["id"]}}))
        replies = {reply["extID"]: reply for reply in [await client.receive() for _ in commands]}
        assert [(command, 200) for command in commands] == [(command, replies[command]["status"]) for command in commands]
        assert replies["MngCompleteCalendarEvent"]["data"]["event"]["version"] == 3
