"""Replies of thousands of events: whole, in order, beside other commands, and cut for a client that does not read."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from gateway import fair_share
from gateway.calendar_store.event_reader import ROOM_SECONDS, TURN_SECONDS, row_bytes_max
from gateway.errors import CloseCode
from gateway.fields import TIME_MAX
from gateway.settings import Settings
from tests.calendar_model import Manager
from tests.client import Client
from tests.conftest import Running
from tests.people import Person, team
from tests.process import becomes_true, until
from tests.scrape import SHOWN, scrape, scrape_until

EVENTS = 3000
GIVE_UP_SECONDS = 30
"""When the published clients take a command for lost."""
FILL = f"""
    INSERT INTO calendar_event
    SELECT id, 'default', '', 21, 21, 21, 0, 0, 0, 'Event ' || id || repeat('x', 400), '{{"a":[1]}}', 1 + id % 7, 100,
        0, 0, 0, 0, 0, 0, 0, 1, 1, 1
    FROM generate_series(1, {EVENTS}) AS id;
    INSERT INTO calendar_participant SELECT id, 21, 0, 1, 1, 1, start_time, end_time FROM calendar_event;
"""
PAGE = {"from": 0, "to": 1000, "limit": 50_000, "offset": 0, "deskFilter": "*"}

MOST_PARTICIPANTS = """
    INSERT INTO calendar_participant
    SELECT event.id, 9007199254740991 - number, 2, 3, 1, 1, start_time, end_time
    FROM calendar_event AS event, generate_series(1, $1 - 1) AS number WHERE event.id % 75 = 0
"""


@pytest.fixture
async def filled(db: Any) -> None:
    """Three thousand events, over seven starts."""
    await db.execute(FILL)


def frame(person: Person, ext_id: str, **data: Any) -> str:
    request = {"command": "MngGetCalendarEventsByFilter", "extID": ext_id, "__token": person.token, "data": {**PAGE, **data}}
    return msgspec.json.encode(request).decode()


def streams_open(gateway: Running) -> int:
    """Streams that hold a database connection."""
    pool = gateway.database._streams
    found: int = pool.get_size() - pool.get_idle_size()
    return found


async def streams_become(expected: int, gateway: Running) -> None:
    """Returns once so many streams are open."""
    await becomes_true(lambda: expected == streams_open(gateway))


async def streams_asked_for(expected: int, gateway: Running) -> None:
    """Returns once on so many sockets a large reply is under way, or waits for its turn."""
    turns = gateway.gateway._dispatch._services.event_reader._turns
    await becomes_true(lambda: expected == sum(one.identity in turns for one in gateway.gateway._connections))


async def deaf(gateway: Running, connect: Any) -> Client:
    """A client that reads nothing of what is written to it; the kernel takes only a little of it for the client."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", gateway.port))
    client: Client = await connect(gateway, None, sock=raw, ping_interval=None)
    client.socket.transport.pause_reading()
    return client


async def stuck(gateway: Running, connect: Any, person: Person) -> Client:
    """A client that asked for everything and reads nothing of it."""
    client = await deaf(gateway, connect)
    before = streams_open(gateway)
    await client.socket.send(frame(person, "stuck"))
    await streams_become(before + 1, gateway)
    return client


async def complete_some(client: Client, person: Person) -> None:
    """Sends changes of three events, with extIDs 0, 1 and 2, and waits for no answer."""
    for number in range(3):
        request = {"command": "MngCompleteCalendarEvent", "extID": number, "__token": person.token, "data": {"id": 1 + number}}
        await client.socket.send(msgspec.json.encode(request).decode())


async def test_large_page_is_whole_and_in_order(gateway, connect, db, filled):
    """More than 500 rows arrive as one valid message: all of them, ordered, with the right count and has_more."""
    (person,) = await team(db, connect, gateway, Manager(21))
    places = sorted((1 + number % 7, number) for number in range(1, EVENTS + 1))
    for limit, offset in (
        (50_000, 0),
        (EVENTS, 0),
        (EVENTS - 1, 0),
        (501, 0),
        (500, 0),
        (1000, 2500),
        (1000, 2499),
        (600, 1800),
    ):
        data = await person.filter(limit=limit, offset=offset)
        expected = places[offset : offset + limit]
        assert expected == [(row["start_time"], row["id"]) for row in data["rows"]]
        assert (len(expected), offset + limit < EVENTS) == (data["count"], data["has_more"])
    row = (await person.filter(to=1000))["rows"][1234]
    assert row == await person.get(row["id"])


async def test_large_page_has_the_bytes_of_a_small_one(gateway, connect, db, filled):
    """The rows of a streamed reply are the very bytes of the pages that are sent at once."""
    (person,) = await team(db, connect, gateway, Manager(21))
    await person.client.socket.send(frame(person, "s"))
    streamed = await person.client.socket.recv(decode=False)
    rows = []
    for offset in range(0, EVENTS, 500):
        await person.client.socket.send(frame(person, "s", limit=500, offset=offset))
        page = await person.client.socket.recv(decode=False)
        rows.append(page[page.index(b"[") + 1 : page.rindex(b"]")])
    whole = b",".join(rows)
    assert b'{"extID":"s","status":200,"data":{"rows":[' + whole + b'],"count":3000,"has_more":false}}' == streamed


async def test_other_commands_are_answered_while_a_reader_is_slow(gateway, connect, db, filled):
    """A stream that its client has not read holds up nobody else; once read it is whole, and as it was when it began."""
    person, other = await team(db, connect, gateway, Manager(21), Manager(22))
    slow = await stuck(gateway, connect, person)
    for _ in range(20):
        assert 200 == (await person.command("Get", id=1))["status"]
    assert 500 == (await person.filter(limit=500))["count"]
    await person.event("Update", id=EVENTS, title="renamed", start_time=50)
    assert EVENTS == (await other.filter())["count"]
    assert 1 == streams_open(gateway)
    slow.socket.transport.resume_reading()
    reply = await slow.receive()
    assert ("stuck", EVENTS, False) == (reply["extID"], reply["data"]["count"], reply["data"]["has_more"])
    assert {str(EVENTS)} == {row["title"].split()[1].rstrip("x") for row in reply["data"]["rows"] if row["id"] == EVENTS}
    await streams_become(0, gateway)


async def test_stream_of_large_events_waits_in_small_pieces(gateway, connect, db, filled):
    """Whatever a batch of rows amounts to, little of it waits at once, and a client that reads slowly is not cut for it."""
    (person,) = await team(db, connect, gateway, Manager(21))
    await db.execute("UPDATE calendar_event SET ast_json = to_json(repeat('x', 20000)) WHERE id <= 600")
    slow = await stuck(gateway, connect, person)
    await becomes_true(lambda: any(one.socket.paused for one in gateway.gateway._connections))
    assert all(one.socket.transport.get_write_buffer_size() < 400_000 for one in gateway.gateway._connections)
    slow.socket.transport.resume_reading()
    assert EVENTS == (await slow.receive())["data"]["count"]


@pytest.mark.parametrize(("letter", "repeats"), [("x", 20_000), ("\u20ac", 7000)])
async def test_page_of_few_large_events_is_streamed(gateway, connect, db, filled, letter, repeats):
    """Not only the number of rows makes a page too large to be sent at once, and letters are not bytes."""
    (person,) = await team(db, connect, gateway, Manager(21))
    await db.execute("UPDATE calendar_event SET ast_json = to_json(repeat($1, $2))", letter, repeats)
    places = sorted((1 + number % 7, number) for number in range(1, EVENTS + 1))
    for limit in (32, 450):
        data = await person.filter(limit=limit)
        assert places[:limit] == [(row["start_time"], row["id"]) for row in data["rows"]]
        assert (limit, True) == (data["count"], data["has_more"])


async def test_page_of_the_largest_events_is_answered_at_every_limit(gateway, connect, db, filled):
    """The largest body and the most participants that the settings let in, in pages around the size that an outbox holds."""
    (person,) = await team(db, connect, gateway, Manager(21))
    settings = gateway.gateway._settings
    await db.execute(
        "UPDATE calendar_event SET ast_json = to_json(repeat('x', $1)) WHERE id % 75 = 0", settings.body_bytes_max - 2
    )
    await db.execute(MOST_PARTICIPANTS, settings.participants_max)
    await db.execute("UPDATE calendar_event SET desk = 'LARGE' WHERE id % 75 = 0")
    for limit in (2, 12, 13, 26, 30, 40):
        assert limit == (await person.filter(limit=limit, deskFilter="LARGE"))["count"]


async def test_largest_event_is_no_larger_than_a_page_counts_on(gateway, connect):
    """Every field at its longest, every character of the title an escape."""
    settings, client = gateway.gateway._settings, await connect(gateway)
    most = 2**53 - 1
    times = dict.fromkeys(("start_time", "end_time", "remind_time"), TIME_MAX)
    numbers = dict.fromkeys(("owner_manager_id", "customer_id", "lead_id", "login"), most)
    event = await client.add(
        title="\x01" * (settings.title_chars_max - 1) + "x",
        desk="D" * 64,
        ast_json="x" * (settings.body_bytes_max - 2),
        participants=[
            {"manager_id": most - number, "status": 3, "created_time": TIME_MAX, "updated_time": TIME_MAX}
            for number in range(settings.participants_max - 1)
        ],
        **times,
        **numbers,
    )
    length = len(msgspec.json.encode(event))
    assert row_bytes_max(settings) - 64 * settings.participants_max < length < row_bytes_max(settings)


async def test_pages_sent_together_are_all_answered(gateway, connect, db, filled):
    """Pages below the size that is streamed, more than an outbox holds: each waits until the client takes those before it."""
    (person,) = await team(db, connect, gateway, Manager(21))
    await db.execute("UPDATE calendar_event SET ast_json = to_json(repeat('x', 8000)) WHERE start_time = 1")
    slow = await deaf(gateway, connect)
    for number in range(6):
        await slow.socket.send(frame(person, f"{number}", limit=420))
    for _ in range(6):  # as long as it takes to read them all
        assert 420 == (await person.filter(limit=420))["count"]
    slow.socket.transport.resume_reading()
    replies = [await slow.receive() for _ in range(6)]
    assert {(200, 420)} == {(reply["status"], reply["data"]["count"]) for reply in replies}


async def test_replies_that_come_while_pages_wait_to_be_read_have_room(start, connect, db, filled, monkeypatch):
    """Behind a stream that its client does not read; of two pages that would fill the outbox one waits, the changes do not."""
    monkeypatch.setattr("gateway.calendar_store.event_reader.ROOM_SECONDS", 60.0)
    gateway = await start(outbox_stall_seconds=60)
    (person,) = await team(db, connect, gateway, Manager(21))
    await db.execute("UPDATE calendar_event SET ast_json = to_json(repeat('x', 8000))")
    large = "UPDATE calendar_event SET ast_json = to_json(repeat('x', 400000)), start_time = 500, end_time = 600 WHERE id <= 3"
    await db.execute(large)
    slow = await stuck(gateway, connect, person)
    (connection,) = [one for one in gateway.gateway._connections if one.unanswered]
    for ext_id in "ab":
        await slow.socket.send(frame(person, ext_id, to=400, limit=420))
        await becomes_true(lambda: connection._outbox.waiting_bytes > 3_000_000)
    assert 420 == (await person.filter(to=400, limit=420))["count"]  # as long as it takes to read the second, too
    await complete_some(slow, person)
    await until(lambda: db.fetchval("SELECT count(*) FROM calendar_event WHERE status = 1"), lambda done: done == 3)
    await becomes_true(lambda: connection.unanswered <= 2)
    slow.socket.transport.resume_reading()
    replies = {reply["extID"]: reply["status"] for reply in [await slow.receive() for _ in range(6)]}
    assert dict.fromkeys(("stuck", "a", "b", 0, 1, 2), 200) == replies


async def test_pages_wait_for_no_stream_of_another_socket(gateway, connect, db, filled):
    """Not where one of their own socket waits for its manager's turn behind that."""
    (person,) = await team(db, connect, gateway, Manager(21))
    await db.execute("UPDATE calendar_event SET ast_json = to_json(repeat('x', 4000))")
    slow = await stuck(gateway, connect, person)
    other = await connect(gateway, None)
    await other.socket.send(frame(person, "export"))
    managers = gateway.gateway._dispatch._services.event_reader._turns
    await becomes_true(lambda: managers.of(person.id)._users == 2)
    await other.socket.send(frame(person, "page", limit=100))
    assert ("page", 200) == ((page := await other.receive())["extID"], page["status"])
    slow.socket.transport.abort()
    assert ("export", 200) == ((export := await other.receive())["extID"], export["status"])


async def test_replies_on_the_same_socket_come_behind_the_stream(gateway, connect, db, filled):
    """Commands sent while a stream is under way are done meanwhile, and answered behind its end; bare pongs too."""
    (person,) = await team(db, connect, gateway, Manager(21))
    slow = await stuck(gateway, connect, person)
    # Before its first piece is written, other replies may still overtake it.
    await becomes_true(lambda: any(one._outbox._streaming.locked() for one in gateway.gateway._connections))
    await slow.socket.send(frame(person, "second"))
    await complete_some(slow, person)
    await until(lambda: db.fetchval("SELECT count(*) FROM calendar_event WHERE status = 1"), lambda count: count == 3)
    slow.socket.transport.resume_reading()
    replies = [await slow.receive() for _ in range(5)]
    assert [200] * 5 == [reply["status"] for reply in replies]
    assert ["stuck", {"0", "1", "2"}, "second"] == [
        replies[0]["extID"],
        {str(reply["extID"]) for reply in replies[1:4]},
        replies[4]["extID"],
    ]
    assert [EVENTS] * 2 == [len(reply["data"]["rows"]) for reply in replies if "rows" in reply["data"]]


async def test_streams_of_one_socket_take_one_place(start, connect, db, filled):
    """Large pages that wait behind another on their socket, whoever asked, leave the other places; then they arrive whole."""
    gateway = await start(streams_max=2, db_acquire_seconds=0.5)
    person, colleague, other = await team(db, connect, gateway, Manager(21), Manager(22), Manager(23))
    slow = await stuck(gateway, connect, person)
    for number in range(5):
        await slow.socket.send(frame((colleague, person)[number % 2], f"more {number}", limit=EVENTS - 1))
    await complete_some(slow, person)
    await until(lambda: db.fetchval("SELECT count(*) FROM calendar_event WHERE status = 1"), lambda count: count == 3)
    for _ in range(5):
        assert EVENTS == (await other.filter())["count"]
    await streams_become(1, gateway)
    slow.socket.transport.resume_reading()
    replies = [await slow.receive() for _ in range(9)]
    assert "stuck" == replies[0]["extID"]
    pages = {reply["extID"]: reply["data"]["count"] for reply in replies if "rows" in reply["data"]}
    assert {"stuck": EVENTS} | {f"more {number}": EVENTS - 1 for number in range(5)} == pages
    await streams_become(0, gateway)


async def test_streams_of_one_manager_take_one_place(start, connect, db, filled):
    """Large pages of a manager's other sockets and sessions leave the other places to others; then they arrive whole."""
    gateway = await start(streams_max=2, db_acquire_seconds=0.5)
    person, other = await team(db, connect, gateway, Manager(21), Manager(22))
    (elsewhere,) = await team(db, connect, gateway, Manager(21))
    clients = [await stuck(gateway, connect, person), await deaf(gateway, connect), await deaf(gateway, connect)]
    for client in clients[1:]:
        await client.socket.send(frame(elsewhere, "more"))
    await streams_asked_for(3, gateway)
    assert EVENTS == (await other.filter())["count"]
    assert 1 == streams_open(gateway)
    for client in clients:
        client.socket.transport.resume_reading()
    assert [EVENTS] * 3 == [(await client.receive())["data"]["count"] for client in clients]
    await streams_become(0, gateway)


def test_all_waits_of_a_page_end_before_its_client_gives_up():
    """A manager's turn, the access, the page's two waits and its statement, the stream's two and its first rows."""
    settings = Settings()
    database_seconds = settings.db_acquire_seconds + settings.db_command_seconds
    assert fair_share.TURN_SECONDS + 2 * ROOM_SECONDS + 2 * TURN_SECONDS + 3 * database_seconds < GIVE_UP_SECONDS


async def test_stream_waits_for_its_turn_so_long(start, connect, db, filled, monkeypatch):
    """A large page whose turn on its socket does not come gets NO_SERVICE; the one before it still arrives whole."""
    monkeypatch.setattr("gateway.calendar_store.event_reader.TURN_SECONDS", 0.2)
    gateway = await start()
    (person,) = await team(db, connect, gateway, Manager(21))
    slow = await stuck(gateway, connect, person)
    await slow.socket.send(frame(person, "late"))
    await becomes_true(lambda: "NO_SERVICE" in gateway.log_text)
    slow.socket.transport.resume_reading()
    first, second = [await slow.receive() for _ in range(2)]
    assert ("stuck", EVENTS) == (first["extID"], first["data"]["count"])
    assert ("late", 503, "NO_SERVICE", "not_executed") == tuple(second[k] for k in ("extID", "status", "error", "outcome"))
    assert second["retry_after_ms"] > 0


async def test_stream_waits_for_its_manager_so_long(start, connect, db, filled, monkeypatch):
    """A large page whose turn does not come, as another socket of its manager reads one, gets NO_SERVICE."""
    monkeypatch.setattr("gateway.calendar_store.event_reader.TURN_SECONDS", 0.2)
    gateway = await start()
    (person,) = await team(db, connect, gateway, Manager(21))
    slow = await stuck(gateway, connect, person)
    reply = await person.command("GetCalendarEventsByFilter", **PAGE)
    assert (503, "NO_SERVICE", "not_executed") == (reply["status"], reply["error"], reply["outcome"])
    assert reply["retry_after_ms"] > 0
    slow.socket.transport.resume_reading()
    assert EVENTS == (await slow.receive())["data"]["count"]
    assert EVENTS == (await person.filter())["count"]


async def test_streams_that_wait_hold_up_no_other_command_of_their_manager(start, connect, db, filled):
    """Beside others a manager has few commands under way; large replies that one of its sockets does not read are none."""
    gateway = await start(manager_in_flight_max=1)
    person, other = await team(db, connect, gateway, Manager(21), Manager(22))
    slow = await stuck(gateway, connect, person)
    for number in range(3):
        await slow.socket.send(frame(person, str(number)))
    for _ in range(3):
        assert 200 == (await other.command("Get", id=1))["status"]
        assert 200 == (await person.command("Get", id=1))["status"]
    slow.socket.transport.abort()


async def test_reader_without_progress_is_cut(start, connect, db, filled):
    """Who takes nothing of a stream is cut with 4000, of which it may see 1006, and its database connection is free again."""
    gateway = await start(outbox_stall_seconds=0.3)
    (person,) = await team(db, connect, gateway, Manager(21))
    slow = await stuck(gateway, connect, person)
    for number in range(3):
        await slow.socket.send(frame(person, f"behind {number}"))
    await streams_become(0, gateway)
    slow.socket.transport.resume_reading()
    assert await slow.closed() in {4000, 1006}
    assert [] == slow.others
    assert EVENTS == (await person.filter())["count"]
    await becomes_true(lambda: 1 == len(gateway.gateway._connections))
    assert 0 == streams_open(gateway)
    assert '"status":500' not in gateway.log_text.replace(" ", "")


async def test_reader_that_trickles_is_cut(start, connect, db, filled, monkeypatch):
    """Who takes a little of a stream now and then is cut as 4000 once its time is over, and its place is free again."""
    monkeypatch.setattr("gateway.sweeper.SWEEP_SECONDS", 0.02)
    gateway = await start(streams_max=1, stream_seconds=1, outbox_stall_seconds=600, **SHOWN)
    person, other = await team(db, connect, gateway, Manager(21), Manager(22))
    slow = await stuck(gateway, connect, person)
    raw = slow.socket.transport.get_extra_info("socket").fileno()

    def is_cut() -> bool:
        with suppress(OSError):
            os.read(raw, 500)
        return 1 == len(gateway.gateway._connections)

    await becomes_true(is_cut)
    found = await scrape(gateway)
    assert {("4000", "gateway"): 1} == found.values("gateway_closes_total", "code", "by")
    assert 1 == found.value("gateway_replies_cut_off_total")
    assert 0 == streams_open(gateway)
    for each in (person, other):
        assert 501 == (await each.filter(limit=501))["count"]
    slow.socket.transport.abort()


async def test_reader_is_not_cut_off_between_two_batches(start, connect, db, filled, monkeypatch):
    """Who takes longer for the rows of one batch than it may take nothing is not cut off by PostgreSQL."""
    monkeypatch.setattr("gateway.sweeper.SWEEP_SECONDS", 3600)
    gateway = await start(outbox_stall_seconds=0.1)
    (person,) = await team(db, connect, gateway, Manager(21))
    slow = await stuck(gateway, connect, person)
    idle = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'idle in transaction' AND clock_timestamp() - state_change > $1
    """
    await until(lambda: db.fetchval(idle, timedelta(seconds=0.5 + gateway.settings.db_command_seconds)))
    slow.socket.transport.resume_reading()
    assert EVENTS == (await slow.receive())["data"]["count"]


async def test_reader_that_leaves_frees_its_stream(gateway, connect, db, filled):
    """A socket that breaks in the middle of a stream leaves no database connection behind."""
    (person,) = await team(db, connect, gateway, Manager(21))
    for _ in range(gateway.settings.streams_max + 1):
        slow = await stuck(gateway, connect, person)
        slow.socket.transport.abort()
        await streams_become(0, gateway)
    assert EVENTS == (await person.filter())["count"]


async def test_streams_at_once_are_bounded(start, connect, db, filled):
    """Past the limit of streams a large page gets NO_SERVICE, small ones are answered; a stream that ends makes room."""
    gateway = await start(streams_max=1, db_acquire_seconds=0.3)
    person, other = await team(db, connect, gateway, Manager(21), Manager(22))
    slow = await stuck(gateway, connect, person)
    reply = await other.command("GetCalendarEventsByFilter", **PAGE)
    assert (503, "NO_SERVICE", "not_executed") == (reply["status"], reply["error"], reply["outcome"])
    assert reply["retry_after_ms"] > 0
    assert 500 == (await other.filter(limit=500))["count"]
    assert 1 == streams_open(gateway)
    slow.socket.transport.resume_reading()
    assert EVENTS == (await slow.receive())["data"]["count"]
    assert EVENTS == (await other.filter())["count"]


async def test_reader_without_progress_is_counted_as_too_slow(start, connect, db, filled):
    """Cut in the middle of a message it is still a 4000 in the metrics, though no close frame fits there."""
    gateway = await start(outbox_stall_seconds=0.3, **SHOWN)
    (person,) = await team(db, connect, gateway, Manager(21))
    slow = await stuck(gateway, connect, person)
    found = await scrape_until(gateway, lambda found: found.value("gateway_closes_total"))
    assert {("4000", "gateway"): 1} == found.values("gateway_closes_total", "code", "by")
    assert (1, 0) == (found.value("gateway_connections"), found.value("gateway_commands_in_flight"))
    assert 1 == found.value("gateway_replies_cut_off_total")
    slow.socket.transport.abort()


async def test_reply_whose_client_leaves_is_counted_and_logged_once(start, connect, db, filled):
    """A client that goes away in the middle has a line in the log and a count; those that wait behind are not begun."""
    gateway = await start(**SHOWN)
    (person,) = await team(db, connect, gateway, Manager(21))
    assert EVENTS == (await person.filter())["count"]
    slow = await stuck(gateway, connect, person)
    await slow.socket.send(frame(person, "behind"))
    await complete_some(slow, person)
    await until(lambda: db.fetchval("SELECT count(*) FROM calendar_event WHERE status = 1"), lambda count: count == 3)
    slow.socket.transport.abort()
    found = await scrape_until(gateway, lambda found: found.value("gateway_closes_total"))
    assert {("1006", "nobody"): 1} == found.values("gateway_closes_total", "code", "by")
    assert 1 == found.value("gateway_replies_cut_off_total")
    ends = [line for line in gateway.log_lines if line.get("ext_id") in ("stuck", "behind")]
    assert [("stuck", "CUT_OFF", 200), ("behind", "NO_SERVICE", 503)] == [
        (line["ext_id"], line["error"], line["status"]) for line in ends
    ]
    assert "ReaderGoneError" == ends[0]["exception"]


async def test_reply_that_the_database_cuts_off_is_counted(start, connect, db, filled):
    """The client sees 1011 in the middle of its reply; the metrics say that, and that a reply was cut off."""
    gateway = await start(**SHOWN)
    (person,) = await team(db, connect, gateway, Manager(21))
    reader = await stuck(gateway, connect, person)
    await becomes_true(lambda: any(c.socket.transport.get_write_buffer_size() for c in gateway.gateway._connections))
    await db.execute(
        """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'idle in transaction'
        """
    )
    reader.socket.transport.resume_reading()
    assert CloseCode.NO_PONG == await reader.closed()
    found = await scrape_until(gateway, lambda found: found.value("gateway_closes_total"))
    assert {("1011", "gateway"): 1} == found.values("gateway_closes_total", "code", "by")
    assert 1 == found.value("gateway_replies_cut_off_total")
