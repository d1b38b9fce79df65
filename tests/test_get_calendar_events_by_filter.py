"""MngGetCalendarEventsByFilter: what overlaps a time, in order, page by page, compared with a model in plain Python."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from gateway.calendar_store.event_filter import BRANDS_APART_MAX
from tests.calendar_model import Calendar, Json, Manager
from tests.people import Person, team, wire_name

DAY, WEEK = 86_400, 604_800
DESKS = ["", "DESK_EU", "DESK_EU_1", "DESK_EU_TEST", "DESKXEU", "DESK_US", "D.SK", "desk_eu"]
MASKS = [
    "*",
    "",
    "DESK_EU",
    "DESK_*",
    "*EU*",
    "DESK_EU*,!DESK_EU_TEST",
    "!DESK_US,*",
    "DESK_US,D.SK",
    "*_*",
    "!*,*",
    " DESK_EU , ,",
]
MASKS += [
    "DESK%",
    "DESK_EU_",
    "DE?K_EU",
    "D*_*1",
    "\\*",
    "*\\",
    "!DESK_EU",
    "%,_,*",
    "DESK\\_EU",
    "**EU",
    "*,!",
    "'",
    "DESK_EU,DESK_EU",
    "*, ! DESK_EU*",
]
PEOPLE = [
    Manager(20, 11, ("red", "blue")),
    Manager(21, mask="DESK_EU*,!DESK_EU_TEST", brands=("red",)),
    Manager(22, mask="", brands=("red", "blue")),
    Manager(23, mask="DESK_US,*SK", brands=("blue", "green")),
    Manager(24, 3, ("blue",), "%,_ESK_EU,DESK\\_EU,DESK_EU"),
]
Team = list[Person]


def page(**data: Any) -> Json:
    return {"from": 0, "to": 10**11, "limit": 1000, "offset": 0, "deskFilter": "*", **data}


def random_event(rng: random.Random) -> Json:
    """Starts that tie, lengths from none to months, few distinct values for each filter."""
    start = rng.randrange(1, 60) * DAY // 2
    length = rng.choice([0, 0, 3600, DAY // 2, DAY, WEEK - 1, WEEK, WEEK + 1, 8 * WEEK])
    links = {name: rng.choice([0, 0, 1, 2]) for name in ("customer_id", "lead_id", "login")}
    codes = {"status": rng.randrange(4), "type": rng.randrange(3), "all_day": rng.randrange(2)}
    who = {"owner_manager_id": rng.randrange(20, 26), "created_by": rng.randrange(20, 26)}
    where = {"brand": rng.choice(["red", "red", "blue"]), "desk": rng.choice(DESKS)}
    guests = {"participant_manager_ids": rng.sample(range(20, 27), rng.choice([0, 0, 1, 3]))}
    return {"title": "e", "start_time": start, "end_time": start + length, **links, **codes, **who, **where, **guests}


@pytest.fixture
async def filled(gateway: Any, connect: Any, db: Any) -> tuple[Team, Calendar]:
    """The people, and some hundred events that both the gateway and the model hold."""
    people = await team(db, connect, gateway, *PEOPLE)
    rng, calendar = random.Random(3), Calendar()
    for _ in range(300):
        event = await people[0].add(**random_event(rng))
        calendar.events[event["id"]] = event
    return people, calendar


def random_filters(rng: random.Random) -> list[Json]:
    """No filter, each filter alone, and each pair of them, over random times."""
    values: dict[str, list[Any]] = {
        "manager_id": [0, 20, 21, 22, 26, 99],
        "brand": ["", "red", "blue"],
        "status": [0, 1, 3],
        "type": [0, 1, 2, 6],
        "customer_id": [0, 1, 9],
        "lead_id": [0, 2],
        "login": [0, 1],
        "deskFilter": MASKS,
    }
    found: list[Json] = [{"deskFilter": mask} for mask in MASKS]
    for count in (0, 1, 2):
        for names in itertools.combinations(values, count):
            for _ in range(6 if count == 1 else 3):
                start = rng.randrange(0, 60) * DAY // 2
                span: Json = {"from": start, "to": start + rng.choice([1, DAY, WEEK, 60 * DAY])}
                found.append(span | {name: rng.choice(values[name]) for name in names})
    return found


async def test_filter_equals_the_model(filled):
    """Every filter alone and in pairs, for managers with all kinds of masks, gives the model's rows in the model's order."""
    people, calendar = filled
    rng, compared = random.Random(4), 0
    for wanted in random_filters(rng):
        number = rng.randrange(len(people))
        manager = PEOPLE[number]
        if wanted.get("brand") and wanted["brand"] not in manager.brands:
            assert (403, "FORBIDDEN", "brand") == await people[number].refusal("GetCalendarEventsByFilter", **page(**wanted))
            continue
        data = page(**wanted, limit=rng.choice([1, 7, 1000]), offset=rng.choice([0, 0, 5]))
        found = await people[number].filter(**data)
        assert calendar.filter(manager, data) == found, (manager, data)
        compared += found["count"]
    assert compared > 1000


async def test_filter_by_desk_never_widens(filled):
    """Whatever the mask, the rows are among those of the mask `*`; that one is all that the session sees."""
    people, calendar = filled
    for manager, person in zip(PEOPLE, people, strict=True):
        everything = (await person.filter())["rows"]
        sees = [event["id"] for event in calendar.events.values() if calendar.sees(manager, event)]
        assert sorted(sees) == sorted(event["id"] for event in everything)
        for mask in MASKS:
            assert all(row in everything for row in (await person.filter(deskFilter=mask))["rows"])


async def test_pages_behind_a_row_equal_pages_by_offset(filled):
    """Over many equal starts, `after` and `offset` walk the same pages; together they are the whole, once each."""
    people, calendar = filled
    for manager, person in zip(PEOPLE[:3], people, strict=False):
        whole = calendar.filter(manager, page())["rows"]
        for limit in (1, 7, 50):
            if limit * 60 < len(whole):
                continue
            after: Json | None = None
            walked: list[Json] = []
            more = True
            while more:
                by_offset = await person.filter(limit=limit, offset=len(walked))
                by_row = await person.filter(limit=limit, after=after)
                assert by_offset == by_row
                walked += by_row["rows"]
                more = by_row["has_more"]
                assert (len(walked) < len(whole), len(by_row["rows"])) == (more, by_row["count"])
                after = {"start_time": walked[-1]["start_time"], "id": walked[-1]["id"]}
            assert whole == walked
        assert {"rows": [], "count": 0, "has_more": False} == await person.filter(limit=5, after=after)


OVERLAPS: list[tuple[int, int, bool]] = [
    (500, 1000, False),
    (500, 1001, True),
    (999, 999, False),
    (1000, 1000, True),
    (1999, 1999, True),
    (2000, 2000, False),
    (1999, 3000, True),
    (2000, 3000, False),
    (500, 3000, True),
    (1200, 1300, True),
]
FAR = 100 * WEEK
LONG: list[tuple[int, int, bool]] = [
    (FAR - WEEK, FAR, False),
    (FAR - WEEK, FAR + 1, True),
    (FAR - WEEK - 1, FAR, False),
    (FAR - WEEK - 1, FAR + 1, True),
    (FAR - WEEK + 1, FAR, False),
    (FAR - WEEK + 1, FAR + 1, True),
    (1, FAR + 1, True),
    (1, FAR + WEEK, True),
    (1, FAR, False),
]


async def test_filter_takes_what_overlaps(gateway, connect, db):
    """An end exactly at `from` is out, a start exactly at `to` is out, an instant counts at its instant, however long."""
    (person,) = await team(db, connect, gateway, Manager(21))
    for customer, times, cases in ((1, (1000, 2000), OVERLAPS), (2, (FAR, FAR + DAY), LONG)):
        for start, end, _ in sorted(cases):
            await person.add(title=f"{start}-{end}", start_time=start, end_time=end, all_day=1, customer_id=customer)
        inside = [f"{start}-{end}" for start, end, overlaps in sorted(cases) if overlaps]
        for own in ({}, {"manager_id": 21}):
            found = await person.filter(**{"from": times[0], "to": times[1], "customer_id": customer}, **own)
            assert inside == [row["title"] for row in found["rows"]]


async def test_filter_follows_changed_times_and_people(gateway, connect, db):
    """A manager's events are found by the times, guests and creator that they have now, not by those they had."""
    boss, guest = await team(db, connect, gateway, Manager(20, 11), Manager(21, mask=""))
    event = await boss.add(start_time=1000, end_time=2000, participant_manager_ids=[21])
    span = {"from": 5000, "to": 6000, "manager_id": 21}
    assert 0 == (await guest.filter(**span))["count"]
    event = await boss.event("Update", id=event["id"], start_time=5000, end_time=5000 + 2 * WEEK)
    assert [event] == (await guest.filter(**span))["rows"]
    assert [event] == (await guest.filter(**{"from": 5000 + WEEK, "to": 5000 + 3 * WEEK, "manager_id": 21}))["rows"]
    await boss.event("Update", id=event["id"], participants=[])
    assert 0 == (await guest.filter(**span))["count"]
    event = await boss.event("Update", id=event["id"], created_by=21)
    assert [event] == (await guest.filter(**span))["rows"]


async def test_filter_checks_its_fields(gateway, connect, db):
    """Five fields are required; bounds, ranges, masks and `after` are refused by name; foreign brands are 403."""
    (person,) = await team(db, connect, gateway, Manager(21))
    name = "GetCalendarEventsByFilter"
    for field in ("from", "to", "limit", "offset", "deskFilter"):
        data = page()
        del data[field]
        assert (400, "FIELD_REQUIRED", field) == await person.refusal(name, **data)
    wrong: dict[str, list[Any]] = {
        "from": [-1, "1", 1.5, 10**12],
        "to": [0, -1, 10**12],
        "limit": [0, -1, 50_001, "1"],
        "offset": [-1, 2**53, "0"],
        "deskFilter": [5, ["*"], "a\0"],
        "status": [4, -1, "0"],
        "type": [7, -1],
        "manager_id": [-1, 2**53],
        "brand": ["a b", "%", "x" * 65],
        "after": [5, [1, 2]],
        "desk_filter": ["*"],
        "cursor": [1],
    }
    for field, values in wrong.items():
        for value in values:
            assert (400, "INVALID_DATA", field) == await person.refusal(name, **page(**{field: value}))
    assert (413, "TOO_LARGE", "deskFilter") == await person.refusal(name, **page(deskFilter="x" * 1025))
    assert (400, "INVALID_DATA", "to") == await person.refusal(name, **page(**{"from": 7, "to": 7}))
    assert (400, "FIELD_REQUIRED", "after.id") == await person.refusal(name, **page(after={"start_time": 1}))
    assert (400, "INVALID_DATA", "after.start_time") == await person.refusal(name, **page(after={"start_time": -1, "id": 1}))
    assert (403, "FORBIDDEN", "brand") == await person.refusal(name, **page(brand="foreign"))
    nothing = {"manager_id": None, "brand": None, "status": None, "after": None, "login": 0, "lead_id": 0, "customer_id": 0}
    assert {"rows": [], "count": 0, "has_more": False} == await person.filter(**nothing)


async def test_filter_reads_any_number_of_brands(gateway, connect, db):
    """Few brands, one named twice, and more than have a part of the statement each: every row once, in order."""
    many = tuple(f"b{number}" for number in range(BRANDS_APART_MAX + 1))
    all_, some, twice = await team(
        db, connect, gateway, Manager(21, 11, many), Manager(22, brands=many[:-1]), Manager(23, brands=("b1", "b0", "b1"))
    )
    events = [await all_.add(brand=brand, start_time=start, end_time=start + 1) for start in (9, 5, 7) for brand in many]
    for person, brands in ((all_, many), (some, many[:-1]), (twice, many[:2])):
        expected = sorted((event["start_time"], event["id"]) for event in events if event["brand"] in brands)
        for offset in (0, 2):
            page = await person.filter(offset=offset, limit=len(expected) - 3)
            rows = [(row["start_time"], row["id"]) for row in page["rows"]]
            assert (expected[offset : len(expected) - 3 + offset], True) == (rows, page["has_more"])
        behind = await person.filter(after={"start_time": expected[1][0], "id": expected[1][1]})
        assert expected[2:] == [(row["start_time"], row["id"]) for row in behind["rows"]]


async def test_filter_takes_the_last_of_repeated_keys(gateway, connect, db):
    """Of a key that is sent twice, in `after` too, only the last counts: a wrong one before it is no fault."""
    (person,) = await team(db, connect, gateway, Manager(21))
    for wrong in ('"id":"x",', '"start_time":null,', '"id":-1,"start_time":1.5,'):
        data = f'"from":1,"to":9,"limit":"x","limit":5,"offset":0,"deskFilter":"*","after":{{{wrong}"start_time":1,"id":1}}'
        frame = (
            f'{{"command":"{wire_name("GetCalendarEventsByFilter")}","extID":9,"__token":"{person.token}","data":{{{data}}}}}'
        )
        assert {"rows": [], "count": 0, "has_more": False} == (await person.client.exchange(frame, 9)).get("data")
