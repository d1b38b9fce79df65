"""`gateway replay`: the same events come to be, under ids of their own, and every recorded status comes again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.capture import Header
from gateway.errors import StartupError
from gateway.harness.kinds import Job, Kinds
from gateway.harness.replay import NOT_ADDED, Replay
from gateway.harness.stream import read_stream
from tests.client import EVENT, Client
from tests.conftest import PASSWORD, Running, started
from tests.harness_runs import TOKEN, gateway, good, stand_in


async def work(running: Running) -> None:
    """Two managers on three sockets add, change and delete events, of each other's too; some of it is refused."""
    async with (
        Client.connected(running.url) as ten,
        Client.connected(running.url) as eleven,
        Client.connected(running.url) as nobody,
    ):
        await ten.login("10", PASSWORD)
        token = (await eleven.login("11", PASSWORD))["token"]
        await nobody.command("MngGetCalendarEvent", {"id": 1})
        ids = [(await ten.add(title=f"Event {n}", participant_manager_ids=[10, 11]))["id"] for n in range(8)]
        await eleven.command("MngSetCalendarParticipantStatus", {"id": ids[0], "status": 1})
        await ten.command("MngUpdateCalendarEvent", {"id": ids[1], "title": "Moved", "participant_manager_ids": [10, 12]})
        await ten.command("MngCompleteCalendarEvent", {"id": ids[2]})
        await eleven.command("MngUpdateCalendarEvent", {"id": ids[2], "title": "Not mine"})
        await ten.command("MngArchiveCalendarEvent", {"id": ids[3]})
        await ten.command("MngDeleteCalendarEvent", {"id": ids[4]})
        await eleven.command("MngGetCalendarEvent", {"id": ids[4]})
        await nobody.command("MngAddCalendarEvent", {**EVENT, "title": "By token"}, __token=token)
        await ten.command("MngAddCalendarEvent", {**EVENT, "title": ""})
        page = {"from": 1, "to": 2_000_000_000, "limit": 3, "offset": 0, "deskFilter": "*"}
        await ten.command("MngGetCalendarEventsByFilter", {**page, "after": {"start_time": 1_710_000_000, "id": ids[5]}})
        await ten.command("MngUpdateCalendarEvent", {"id": ids[5], "owner_manager_id": 12, "if_version": 1})
        await ten.command("MngUpdateCalendarEvent", {"id": ids[6], "priority": 3, "if_version": 9})


async def tables(db: Any) -> Any:
    """Events with their participants, in order, without ids and times that the server gives."""
    return await db.fetch(
        """
        SELECT brand, desk, owner_manager_id, created_by, updated_by, type, status, priority, title, ast_json::text,
            event.start_time, event.end_time, version,
            (SELECT array_agg((p.manager_id, p.role, p.status) ORDER BY p.manager_id)
             FROM calendar_participant AS p WHERE p.event_id = event.id)
        FROM calendar_event AS event ORDER BY title, version
        """
    )


@pytest.mark.parametrize("how", [["--speed", "20"], ["--fast", "--connections", "2", "--in-flight", "3"]])
async def test_captured_run_replays_to_the_same_tables(start, dsn, db, tmp_path, how):
    """Whatever the pace: the same events and participants, up to ids and times, and no reply that differs."""
    async with started(dsn, capture_dir=str(tmp_path / "capture")) as running:
        await work(running)
    before, ids = await tables(db), await db.fetch("SELECT id FROM calendar_event")
    assert 8 == len(before)
    await db.execute("DELETE FROM calendar_event")
    again = await start()
    (file,) = (tmp_path / "capture").iterdir()
    ended = await gateway("replay", file, "--url", again.url, *how, folder=tmp_path, dsn=dsn)
    assert (0, 0, 0) == (ended.code, ended.figures["wrong"], ended.figures["missing"]), ended.err + ended.out
    assert before == await tables(db)
    assert set() == set(ids) & set(await db.fetch("SELECT id FROM calendar_event"))
    assert {"sign-in or sign-out: the harness has sessions of its own": 2, "without a session": 1} == ended.figures["skipped"]


async def test_replay_sends_keys_of_its_own(dsn, db, tmp_path):
    """What was done once is done once in each replay, and what was refused for its key is refused: keys are new in each."""
    async with started(dsn, capture_dir=str(tmp_path / "capture")) as running, Client.connected(running.url) as ten:
        await ten.login("10", PASSWORD)
        for _ in range(2):
            event = (await ten.command("MngAddCalendarEvent", EVENT, idempotencyKey="k1"))["data"]["event"]
            await ten.command("MngUpdateCalendarEvent", {"id": event["id"], "title": "Moved", "if_version": 1})
        await ten.command("MngAddCalendarEvent", {**EVENT, "title": "Other"}, idempotencyKey="k1")
        await ten.command("MngAddCalendarEvent", {**EVENT, "title": "Kept"}, idempotencyKey="\0")
        await ten.command("MngAddCalendarEvent", {**EVENT, "title": "Kept"}, idempotencyKey="k3")
        for _ in range(2):
            await ten.command("MngDeleteCalendarEvent", {"id": event["id"]}, idempotencyKey="k2")
    (file,) = (tmp_path / "capture").iterdir()
    statuses = [200, 200, 200, 200, 409, 409, 400, 200, 200, 200]
    assert statuses == [msgspec.json.decode(text)["status"] for text in file.read_bytes().splitlines()[1:]]
    async with started(dsn) as running:
        for replays in (1, 2):
            ended = await gateway("replay", file, "--url", running.url, "--fast", folder=tmp_path, dsn=dsn)
            assert (0, 9, 0) == (ended.code, ended.figures["answered"], ended.figures["wrong"]), ended.out
            assert 1 + replays == await db.fetchval("SELECT count(*) FROM calendar_event")


async def test_replay_fails_when_a_reply_differs(start, dsn, db, tmp_path):
    """A recorded success that is refused this time is a wrong reply."""
    file = stream(tmp_path, add(0.0, 1), line(0.1, 1, "MngGetCalendarEvent", {"id": 1}, status=404))
    ended = await gateway("replay", file, "--url", (await start()).url, folder=tmp_path, dsn=dsn)
    assert (1, 1) == (ended.code, ended.figures["wrong"]), ended.err


async def test_replay_fails_when_an_add_is_answered_without_its_event(tmp_path):
    """The reply is wrong, whatever its status; what names the event is not sent, and counted."""
    file = stream(tmp_path, add(0.0, 1), line(0.1, 1, *GET), line(0.2, 1, "HealthCheck", {}))
    async with stand_in(good) as url:
        ended = await gateway("replay", file, "--url", url, "--token", TOKEN, "--fast", folder=tmp_path)
    assert (1, 2, 1) == (ended.code, ended.figures["answered"], ended.figures["wrong"]), ended.err
    assert ({"BAD_SHAPE": 1}, {NOT_ADDED: 1}) == (ended.figures["errors"], ended.figures["skipped"])
    assert f"1 not sent: {NOT_ADDED}" in ended.out


async def test_replay_checks_the_shape_of_some_replies(tmp_path):
    """One in 128 with the recorded status, 200, is decoded: what is not the command's reply is wrong."""
    file = stream(tmp_path, *(line(n / 1000, 1, *GET) for n in range(128)))
    async with stand_in(good) as url:
        arguments = ("--url", url, "--token", TOKEN, "--fast", "--keep-unknown-ids")
        ended = await gateway("replay", file, *arguments, folder=tmp_path)
    assert (1, {"BAD_SHAPE": 1}) == (ended.code, ended.figures["errors"]), ended.err


async def test_replay_fails_when_a_repeated_add_makes_another_event(tmp_path):
    """An add that was answered with the event of the one before, for its key, must be again."""
    adds = [add(0.0, 1), add(0.1, 1)]

    async def adding(socket, number, ext_id):
        await socket.send(b'{"extID":%b,"status":200,"data":{"event":{"id":%d,"brand":""}}}' % (ext_id, number), text=True)

    async with stand_in(adding) as url:
        ended = await gateway("replay", stream(tmp_path, *adds), "--url", url, "--token", TOKEN, "--fast", folder=tmp_path)
    assert (1, 2, {"BAD_SHAPE": 1}) == (ended.code, ended.figures["answered"], ended.figures["errors"]), ended.err


async def test_replay_of_a_stream_with_nothing_to_send_says_what_was_left_out(tmp_path):
    """Exit code 2, and each reason with how many."""
    lines = line(0.0, 1, "MngLogin", {}), line(0.1, 1, "MngGetCalendarEvent", {"id": 1}), line(0.2, 1, "MngLogout", {})
    left_out = await gateway("replay", stream(tmp_path, *lines), folder=tmp_path)
    empty = await gateway("replay", stream(tmp_path), folder=tmp_path)
    reasons = "2 sign-in or sign-out: the harness has sessions of its own; 1 names an event that the stream did not add"
    message = f"gateway: {tmp_path / 'stream.ndjson'} holds no command that could be sent"
    assert (2, "", f"{message} (left out: {reasons})\n") == left_out[:3]
    assert (2, "", f"{message}\n") == empty[:3]


def line(time: float, connection: int, command: str, data: dict[str, Any], **more: Any) -> dict[str, Any]:
    frame = {"command": command, "extID": "recorded", "data": data}
    return {"time": time, "connection": connection, "manager": 10, "frame": frame, "status": 200, **more}


def add(time: float, connection: int, event_id: int = 1) -> dict[str, Any]:
    return line(time, connection, "MngAddCalendarEvent", EVENT, id=event_id)


GET = ("MngGetCalendarEvent", {"id": 1})


def update(title: str) -> tuple[str, dict[str, Any]]:
    return "MngUpdateCalendarEvent", {"id": 1, "title": title}


def stream(folder: Path, *lines: dict[str, Any]) -> Path:
    """A file with these lines."""
    file = folder / "stream.ndjson"
    file.write_bytes(b"\n".join(msgspec.json.encode(item) for item in (Header(), *lines)) + b"\n")
    return file


def replaying(file: Path, connections: int = 2, *, paced: bool = False, keep_unknown: bool = False) -> tuple[Replay, list[int]]:
    """A replay of which all is due, and the connections it woke."""
    replay = Replay(
        Kinds(), read_stream(file, keep_unknown=keep_unknown), connections, {10: "token", 11: "eleven"}, lambda _: 10
    )
    woken: list[int] = []
    replay.wake = woken.append
    if paced:
        for due, _, tell in replay.times(lambda _, step: step.time):
            tell(due)
    else:
        replay.fill()
    return replay, woken


def taken(replay: Replay, number: int) -> Job:
    """The next command of a connection that has one."""
    job = replay.take(number)
    assert job is not None
    return job


ADDED = b'{"extID":1,"status":200,"data":{"event":{"id":77,"brand":"default"}}}'


def test_replay_maps_ids_through_the_replies(tmp_path):
    """A command on an event waits for the reply to its add, on whatever connection, and then names the new id."""
    file = stream(tmp_path, add(0.1, 1, 5), line(0.2, 2, "MngGetCalendarEvent", {"id": 5, "x": 1}))
    replay, woken = replaying(file)
    job = taken(replay, 0)
    assert replay.take(1) is None
    replay.answered(job, ADDED, ok=True)
    assert [1] == woken
    assert b',"data":{"id":77,"x":1}}' == taken(replay, 1).tail
    assert replay.exhausted()


def test_replay_keeps_the_order_of_an_events_commands(tmp_path):
    """Each waits for the reply to the one before, on its own connection too; reads go along with reads."""
    get = line(0.2, 1, "MngGetCalendarEvent", {"id": 1})
    page = line(0.3, 2, "MngGetCalendarEventsByFilter", {"after": {"id": 1}})
    delete = line(0.4, 2, "MngDeleteCalendarEvent", {"id": 1})
    replay, woken = replaying(stream(tmp_path, add(0.0, 1), get, page, delete, line(0.5, 1, *GET)))
    added = taken(replay, 0)
    assert [None, None] == [replay.take(0), replay.take(1)]
    replay.answered(added, ADDED, ok=True)
    reads = taken(replay, 0), taken(replay, 1)
    assert [None, None] == [replay.take(0), replay.take(1)]
    replay.answered(reads[0], b"", ok=True)
    assert [None, None] == [replay.take(0), replay.take(1)]
    woken.clear()
    replay.lost(reads[1])
    assert {0, 1} == set(woken)
    deleted = taken(replay, 1)
    assert ("MngDeleteCalendarEvent", None) == (deleted.kind.name, replay.take(0))
    replay.answered(deleted, b"", ok=True)
    assert "MngGetCalendarEvent" == taken(replay, 0).kind.name


@pytest.mark.parametrize("paced", [False, True])
@pytest.mark.parametrize("connections", [1, 2])
def test_replay_takes_the_order_of_the_replies_for_that_of_the_commands(tmp_path, connections, paced):
    """Between connections, however they share the replay's; those of one connection go as they were read."""
    slow, quick = line(0.1, 1, *update("Slow")), line(0.2, 2, *update("Quick"))
    first, second = line(0.3, 1, *update("First")), line(0.4, 1, *update("Second"))
    replay, _ = replaying(stream(tmp_path, add(0.0, 2), quick, slow, second, first), connections, paced=paced)
    sent = []
    while not replay.exhausted():
        job = next(job for number in range(connections) if (job := replay.take(number)))
        assert [None] * connections == [replay.take(number) for number in range(connections)]
        sent.append(msgspec.json.decode(b"{" + job.tail[1:])["data"]["title"])
        replay.answered(job, ADDED, ok=True)
    assert [EVENT["title"], "Quick", "Slow", "First", "Second"] == sent


def test_replay_keeps_the_order_on_events_of_before(tmp_path):
    """Commands that name an event which the stream did not add wait for each other, too, and name it as recorded."""
    replay, woken = replaying(stream(tmp_path, line(0.0, 1, *update("One")), line(0.1, 2, *update("Two"))), keep_unknown=True)
    one = taken(replay, 0)
    assert None is replay.take(1)
    replay.answered(one, b"", ok=True)
    assert [1] == woken
    assert b',"data":{"id":1,"title":"Two"}}' == taken(replay, 1).tail


def test_replay_keeps_the_order_of_a_keys_commands(tmp_path):
    """Sent again on another socket, with its key, a write waits for the first; the same key of another manager is another."""
    first = line(0.0, 1, "MngAddCalendarEvent", EVENT, status=504)
    again, other = add(0.1, 2), {**add(0.2, 3, 2), "manager": 11}
    for item in (first, again, other):
        item["frame"] = {**item["frame"], "idempotencyKey": "k"}
    replay, _ = replaying(stream(tmp_path, first, again, other), 3)
    one, two = taken(replay, 0), taken(replay, 2)
    assert None is replay.take(1)
    replay.answered(one, ADDED, ok=True)
    keys = [msgspec.json.decode(b"{" + job.tail[1:])["idempotencyKey"] for job in (one, two, taken(replay, 1))]
    assert keys[0] == keys[2] != keys[1]


async def test_replay_waits_for_a_command_that_was_put_off(start, dsn, tmp_path):
    """Commands sent again because of a rate (429) keep their place among those on their event."""
    running = await start(manager_commands_per_second_max=20, manager_commands_burst_max=10)
    updates = [line(n / 100, 1, "MngUpdateCalendarEvent", {"id": 1, "title": f"{n}", "if_version": n}) for n in range(1, 31)]
    ended = await gateway(
        "replay", stream(tmp_path, add(0.0, 1), *updates), "--url", running.url, "--fast", folder=tmp_path, dsn=dsn
    )
    assert (0, 31, 0) == (ended.code, ended.figures["answered"], ended.figures["wrong"]), ended.err
    assert 0 < ended.figures["retried"]


def test_replay_goes_on_without_a_connection(tmp_path):
    """What one that ended for good leaves unsent is no longer waited for, whether its turn had come or not."""
    get = (line(0.1, 2, *GET), line(0.2, 1, *GET), line(0.3, 2, *GET), line(0.4, 2, *update("Moved")), line(0.5, 1, *GET))
    replay, _ = replaying(stream(tmp_path, add(0.0, 1), *get))
    assert 3 == replay.abandon(1)
    for _ in range(3):
        replay.answered(taken(replay, 0), ADDED, ok=True)
    assert replay.exhausted()


def test_replay_leaves_out_what_follows_an_add_that_was_not_sent(tmp_path):
    """The add was due on a connection that ended for good: others do not wait for it."""
    replay, woken = replaying(stream(tmp_path, add(0.0, 2), line(0.1, 1, *GET), line(0.2, 1, "HealthCheck", {})))
    assert None is replay.take(1)
    replay.abandon(0)
    assert [1] == woken
    assert "HealthCheck" == taken(replay, 1).kind.name
    assert {NOT_ADDED: 1} == replay.skipped()


def test_replay_leaves_out_what_has_no_event(tmp_path):
    """An add that failed this time takes the commands on its event with it."""
    replay, _ = replaying(stream(tmp_path, add(0.0, 1), line(0.1, 1, "MngGetCalendarEvent", {"id": 1})))
    replay.lost(taken(replay, 0))
    assert replay.take(0) is None
    assert {NOT_ADDED: 1} == replay.skipped()
    assert replay.exhausted()


def test_stream_leaves_out_events_of_before(tmp_path):
    """Their ids may be anybody's on another database; asked for, they are sent as they are."""
    early = line(0.0, 1, "MngGetCalendarEvent", {"id": 1})
    file = stream(tmp_path, early, add(0.1, 1), line(0.2, 1, "MngDeleteCalendarEvent", {"id": 9}))
    assert Counter({"names an event that the stream did not add": 2}) == read_stream(file).skipped
    kept = read_stream(file, keep_unknown=True)
    assert (3, 0) == (len(kept.steps), kept.skipped.total())


def test_stream_leaves_out_what_was_refused_for_its_token(tmp_path):
    """With the harness's own token it would be executed; what else was refused is sent."""
    other = line(0.2, 1, "MngAddCalendarEvent", {**EVENT, "title": ""}, status=400)
    file = stream(tmp_path, line(0.0, 1, "MngAddCalendarEvent", EVENT, status=401), other)
    read = read_stream(file)
    assert {"refused with 401: the token that it was sent with is not recorded": 1} == read.skipped
    assert [400] == [step.status for step in read.steps]


def test_stream_faults_are_named(tmp_path):
    """No header, one that does not say its version, another version or a broken line is an error; a half last line is not."""
    file = stream(tmp_path, add(0.0, 1))
    text = file.read_bytes()
    deep = b'{"time":0,"connection":1,"manager":10,"frame":{"command":"x","extID":1,"data":%b1%b}}' % (b"[" * 3000, b"]" * 3000)
    for broken, told in (
        (b"", "no header"),
        (b"{}\n", "no header .*`stream`"),
        (b'{"stream":"crm-gateway"}\n', "no header .*`version`"),
        (b'{"stream":"crm-gateway","version":2}\n', "crm-gateway 2"),
        (b"nonsense\n", "no header"),
        (b"\xff\n", "no header"),
        (text + b"nonsense\n", "line 3"),
        (text + text.splitlines()[1].replace(b"MngAdd", b"Mng\xff") + b"\n", "line 3.*utf-8"),
        (text + text.splitlines()[1].replace(b'"type"', b'"t\xffpe"') + b"\n", "line 3.*utf-8"),
        (text + deep + b"\n", "line 3.*recursion"),
    ):
        file.write_bytes(broken)
        with pytest.raises(StartupError, match=told):
            read_stream(file)
    for half in (b'{"time":0.2,"conn', b'{"time":0.2,"\xc3', deep):
        file.write_bytes(text + half)
        assert 1 == len(read_stream(file).steps)
