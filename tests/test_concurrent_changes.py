"""Changes of one event from several sockets and gateways: none is lost, each is one version, their order is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tests.calendar_model import Json, Manager
from tests.client import Client
from tests.people import Person, add_managers, team

PATIENT: dict[str, Any] = {"db_acquire_seconds": 50}
"""A change waits for those before it; fifty at once on a busy machine are no fault."""
SIDES = (("title", "priority", "type", "customer_id", "remind_time"), ("lead_id", "login", "status", "end_time", "ast_json"))


def values_of(field: str) -> list[Any]:
    """Five values, each another than the one before it and than what the event begins with."""
    small = [1, 2, 3, 1, 2]
    match field:
        case "title":
            return [f"title {number}" for number in range(5)]
        case "ast_json":
            return [{"step": number} for number in range(5)]
        case "end_time":
            return [1_710_009_000 + number for number in range(5)]
        case "priority" | "type" | "status":
            return small
    return [number + 1 for number in range(5)]


async def updates(person: Person, event_id: int, fields: tuple[str, ...]) -> tuple[list[int], Json]:
    """Sends 25 updates without waiting: the versions acknowledged, and each field as last acknowledged."""
    sent = [(field, values_of(field)[turn]) for turn in range(5) for field in fields]
    for number, (field, value) in enumerate(sent):
        frame = {"command": "MngUpdateCalendarEvent", "extID": number, "__token": person.token}
        await person.client.socket.send(msgspec.json.encode({**frame, "data": {"id": event_id, field: value}}).decode())
    replies = [await person.client.receive() for _ in sent]
    assert [] == [reply for reply in replies if reply["status"] != 200]
    replies.sort(key=lambda reply: reply["data"]["event"]["version"])
    last = {}
    for reply in replies:
        field = sent[reply["extID"]][0]
        last[field] = reply["data"]["event"][field]
    assert [number for number, _ in enumerate(sent)] == [reply["extID"] for reply in replies]
    return [reply["data"]["event"]["version"] for reply in replies], last


@pytest.mark.parametrize("gateways", [1, 2])
async def test_fifty_updates_from_two_sockets_lose_nothing(start, connect, db, gateways):
    """Two sockets, of one gateway or of two on one database, change different fields: all end as last acknowledged."""
    running = [await start(**PATIENT) for _ in range(gateways)]
    tokens = await add_managers(db, [Manager(21, 11)] * 2)
    clients: list[Client] = [await connect(running[number % gateways], None) for number in range(2)]
    one, other = (Person(client, Manager(21, 11), token) for client, token in zip(clients, tokens, strict=True))
    event = await one.add(participant_manager_ids=[22])
    left, right = await asyncio.gather(updates(one, event["id"], SIDES[0]), updates(other, event["id"], SIDES[1]))
    assert list(range(2, 52)) == sorted(left[0] + right[0])
    final = await other.get(event["id"])
    expected = {**event, **left[1], **right[1], "version": 51, "updated_time": final["updated_time"]}
    assert expected == final
    assert {field: values_of(field)[-1] for side in SIDES for field in side}.items() <= final.items()
    assert 51 == await db.fetchval("SELECT version FROM calendar_event")


async def test_answers_at_once_are_all_kept(start, connect, db):
    """Ten guests answer at the same moment through two gateways while the owner renames: one version each."""
    running = [await start(**PATIENT) for _ in range(2)]
    guests = [Manager(30 + number) for number in range(10)]
    owner, *some = await team(db, connect, running[0], Manager(21), *guests[:5])
    others = await team(db, connect, running[1], *guests[5:])
    event = await owner.add(participant_manager_ids=[guest.id for guest in guests])
    event_id = event["id"]
    # Clients of one socket each read replies meant for the others, so replies are collected by socket.
    frames: list[tuple[Client, Json]] = [
        (guest.client, {"command": "MngSetCalendarParticipantStatus", "extID": guest.id, "__token": guest.token})
        for guest in (*some, *others)
    ]
    for client, frame in frames:
        data = {"id": event_id, "status": 1 + frame["extID"] % 3}
        await client.socket.send(msgspec.json.encode({**frame, "data": data}).decode())
    rename = {"command": "MngUpdateCalendarEvent", "extID": 0, "__token": owner.token, "data": {"id": event_id, "title": "x"}}
    await owner.client.socket.send(msgspec.json.encode(rename).decode())
    replies = [await owner.client.receive() for _ in range(6)] + [await others[0].client.receive() for _ in range(5)]
    assert list(range(2, 13)) == sorted(reply["data"]["event"]["version"] for reply in replies)
    final = await owner.get(event_id)
    assert {21: 1} | {guest.id: 1 + guest.id % 3 for guest in guests} == {
        row["manager_id"]: row["status"] for row in final["participants"]
    }
    assert ("x", 12) == (final["title"], final["version"])


async def test_one_of_many_changes_of_a_version_wins(start, connect, db):
    """Ten changes that name the same version: one is done, nine get 409 with the event that won."""
    running = [await start(**PATIENT) for _ in range(2)]
    people = [(await team(db, connect, running[number % 2], Manager(21 + number, 11)))[0] for number in range(10)]
    event = await people[0].add()
    replies = await asyncio.gather(
        *(person.command("Update", id=event["id"], title=f"by {person.id}", if_version=1) for person in people)
    )
    assert [200] + [409] * 9 == sorted(reply["status"] for reply in replies)
    final = await people[0].get(event["id"])
    assert [{"event": final}] * 10 == [reply["data"] for reply in replies]
    assert 2 == final["version"]


async def test_delete_among_updates_is_final(start, connect, db):
    """Commands of one socket about one event act as sent: what comes before a delete is done, what comes behind is 404."""
    (person,) = await team(db, connect, await start(**PATIENT), Manager(21))
    event = await person.add()
    for number in range(9):
        name, data = ("MngDeleteCalendarEvent", {}) if number == 4 else ("MngUpdateCalendarEvent", {"priority": 1 + number % 2})
        frame = {"command": name, "extID": number, "__token": person.token, "data": {"id": event["id"], **data}}
        await person.client.socket.send(msgspec.json.encode(frame).decode())
    replies = [await person.client.receive() for _ in range(9)]
    statuses = {reply["extID"]: reply["status"] for reply in replies}
    assert [200] * 5 + [404] * 4 == [statuses[number] for number in range(9)]
    assert 0 == await db.fetchval("SELECT count(*) FROM calendar_participant")


async def test_gateways_at_odds_starve_none_of_their_changes(start, connect, db):
    """Hundreds of changes of one event through each of two gateways: however often one is beaten, all are done."""
    people = [(await team(db, connect, await start(**PATIENT), Manager(21 + number, 11)))[0] for number in range(2)]
    event = await people[0].add()

    async def change(person: Person, field: str) -> list[int]:
        for number in range(200):
            frame = {"command": "MngUpdateCalendarEvent", "extID": number, "__token": person.token}
            data = {"id": event["id"], field: 1 + number}
            await person.client.socket.send(msgspec.json.encode({**frame, "data": data}).decode())
        return [(await person.client.receive())["status"] for _ in range(200)]

    assert [[200] * 200] * 2 == list(await asyncio.gather(change(people[0], "login"), change(people[1], "lead_id")))
    final = await people[0].get(event["id"])
    assert (200, 200, 401) == (final["login"], final["lead_id"], final["version"])
