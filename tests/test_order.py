"""Commands of one connection that name the same event take effect in the order sent."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.calendar_store.statements import GET_EVENTS
from tests.calendar_model import Manager
from tests.people import add_managers

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


@pytest.mark.parametrize("command", ["MngUpdateCalendarEvent", "MngDeleteCalendarEvent"])
async def test_refusal_is_decided_before_what_was_sent_behind_it(gateway, connect, db, command):
    """A change of another version than the event's is refused, though rights have changed and the next one makes it that."""
    client = await connect(gateway)
    for _ in range(ROUNDS):
        event = await client.add()
        await db.execute("UPDATE manager SET desk_mask = desk_mask WHERE id = 12")
        refused = {"id": event["id"], "if_version": 2, **({"title": "refused"} if "Update" in command else {})}
        await client.socket.send(json.dumps({"command": command, "extID": 1, "data": refused}))
        await client.socket.send(
            json.dumps({"command": "MngUpdateCalendarEvent", "extID": 2, "data": {"id": event["id"], "title": "done"}})
        )
        replies = {reply["extID"]: reply for reply in [await client.receive() for _ in range(2)]}
        assert [409, 200] == [replies[number]["status"] for number in (1, 2)]
        assert ("done", 2) == tuple(await db.fetchrow("SELECT title, version FROM calendar_event WHERE id = $1", event["id"]))


@pytest.mark.parametrize(("command", "title"), [("MngDeleteCalendarEvent", None), ("MngUpdateCalendarEvent", "changed")])
async def test_get_sees_nothing_of_what_was_sent_behind_it(gateway, connect, monkeypatch, command, title):
    """Also where its own statement is held up and the other one's is not."""
    client, other = await connect(gateway), await connect(gateway)
    event, another = await client.add(), await other.add()
    held, fetch, go_on = asyncio.Event(), gateway.database.fetch, asyncio.Event()

    async def hold_first_get(statement, *args):
        if statement is GET_EVENTS and not held.is_set():
            held.set()
            await go_on.wait()
        return await fetch(statement, *args)

    monkeypatch.setattr(gateway.database, "fetch", hold_first_get)
    change = {"id": event["id"]} | ({"title": title} if title else {})
    await client.socket.send(json.dumps({"command": "MngGetCalendarEvent", "extID": "get", "data": {"id": event["id"]}}))
    await held.wait()
    await client.socket.send(json.dumps({"command": command, "extID": "change", "data": change}))
    for number in range(5):  # time enough for the change to overtake
        assert 200 == (await other.command("MngUpdateCalendarEvent", {"id": another["id"], "priority": number % 4}))["status"]
    go_on.set()
    replies = {reply["extID"]: reply for reply in [await client.receive() for _ in range(2)]}
    assert {"get": 200, "change": 200} == {ext_id: reply["status"] for ext_id, reply in replies.items()}
    assert event == replies["get"]["data"]["event"]


@pytest.mark.parametrize("reads", [0, 20], ids=["session to look up", "manager waits its turn"])
async def test_changes_with_different_tokens_take_effect_as_sent(start, connect, db, reads):
    """What holds up a command of one manager holds up those of the others behind it on the same socket."""
    gateway = await start(manager_in_flight_max=2)
    client = await connect(gateway)
    tokens = await add_managers(db, [Manager(number, 3, ("default",), "*") for number in (20, 21)])
    event = await client.add()

    async def send(command: str, token: str, **data: object) -> None:
        frame = {"command": command, "extID": 1, "__token": token, "data": {"id": event["id"], **data}}
        await client.socket.send(json.dumps(frame))

    titles = []
    for _ in range(ROUNDS):
        await db.execute("UPDATE manager SET desk_mask = desk_mask WHERE id = 20")
        gateway.gateway._dispatch._services.sessions._known.clear()
        for token in tokens[0 if reads else 1 :]:
            await client.command("MngGetCalendarEvent", {"id": event["id"]}, __token=token)
        for _ in range(reads):
            await send("MngGetCalendarEvent", tokens[0])
        for token, title in zip(tokens * 2, "abcd", strict=True):
            await send("MngUpdateCalendarEvent", token, title=title)
        assert [200] * (reads + 4) == [(await client.receive())["status"] for _ in range(reads + 4)]
        titles.append((await client.command("MngGetCalendarEvent", {"id": event["id"]}))["data"]["event"]["title"])
    assert ["d"] * ROUNDS == titles
