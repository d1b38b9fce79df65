"""`gateway replay`: the same events come to be, under ids of their own, and every recorded status comes again."""

from __future__ import annotations

from html import escape
from typing import Any

import msgspec
import pytest

from gateway.harness.replay import NO_MANAGER, NOT_ADDED
from gateway.harness.stream import CUT_OFF
from tests.client import EVENT, Client
from tests.conftest import PASSWORD, Running, started
from tests.harness_runs import TOKEN, gateway, good, stand_in
from tests.harness_streams import GET, add, line, stream


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


async def test_replay_says_which_line_of_the_recording_was_answered_otherwise(tmp_path):
    """In whatever order they are sent: line, connection and extID as the file has them, both statuses. A blank is a line."""
    late, early = line(0.2, 7, "HealthCheck", {}, status=409), line(0.1, 7, "HealthCheck", {}, status=403)
    late["frame"]["extID"], early["frame"]["extID"] = "52", None
    file = stream(tmp_path, late, early)
    file.write_bytes(file.read_bytes().replace(b"\n", b"\n\n", 1))
    report = tmp_path / "report.html"
    async with stand_in(good) as url:
        command = ("replay", file, "--url", url, "--token", TOKEN, "--connections", 1, "--fast", "--report", report)
        ended = await gateway(*command, folder=tmp_path)
    examples = [
        'line 4, connection 7: recorded 403, got 200 {"extID":1,"status":200,"data":{}}',
        'line 3, connection 7, extID "52": recorded 409, got 200 {"extID":2,"status":200,"data":{}}',
    ]
    assert (1, examples) == (ended.code, ended.figures["examples"]), ended.err
    assert [True, True] == [f"  e.g. {example}\n" in ended.out for example in examples]
    assert escape("\n".join(examples)) in report.read_text()


async def test_replay_fails_when_an_add_is_answered_without_its_event(tmp_path):
    """The reply is wrong, whatever its status; what names the event is not sent, and counted."""
    file = stream(tmp_path, add(0.0, 1), line(0.1, 1, *GET), line(0.2, 1, "HealthCheck", {}))
    async with stand_in(good) as url:
        ended = await gateway("replay", file, "--url", url, "--token", TOKEN, "--fast", folder=tmp_path)
    assert (1, 2, 1) == (ended.code, ended.figures["answered"], ended.figures["wrong"]), ended.err
    assert ({"BAD_SHAPE": 1}, {NOT_ADDED: 1}) == (ended.figures["errors"], ended.figures["skipped"])
    assert f"1 not sent: {NOT_ADDED}" in ended.out


async def test_replay_with_one_token_says_whose_frames_it_stands_for(tmp_path):
    """At the start, on standard error; not of those that are its manager's own, or nobody's."""
    own, nobody = line(0.0, 1, "HealthCheck", {}), {**line(0.1, 1, "HealthCheck", {}), "manager": 0}
    others = [{**line(n / 100, 2, "HealthCheck", {}), "manager": n} for n in (21, 12, 11, 12)]
    for lines, told in (
        ((own, nobody, *others), "managers 11, 12 and 21"),
        (others[:1], "manager 21"),
        ((own, nobody), ""),
    ):
        async with stand_in(good) as url:
            command = ("replay", stream(tmp_path, *lines), "--url", url, "--token", TOKEN, "--fast")
            ended = await gateway(*command, folder=tmp_path)
        warning = f"Warning: the frames of {told} go out as manager 10, so that rights may differ; without --token "
        assert (0, f"{warning}each goes out as its own\n" if told else "") == (ended.code, ended.err)


async def test_replay_says_that_the_last_line_of_a_recording_is_cut_off(tmp_path):
    """As a gateway leaves it that was killed: on standard error and among what was left out."""
    file = stream(tmp_path, *(line(n / 100, 1, "HealthCheck", {}) for n in range(4)))
    file.write_bytes(file.read_bytes()[:-10])
    async with stand_in(good) as url:
        ended = await gateway("replay", file, "--url", url, "--token", TOKEN, "--fast", folder=tmp_path)
    assert (0, 3, {CUT_OFF: 1}) == (ended.code, ended.figures["answered"], ended.figures["skipped"])
    assert ended.err.startswith(f"Warning: the last line of {file} is cut off and left out\n")
    assert f"1 not sent: {CUT_OFF}\n" in ended.out


async def test_replay_warns_of_what_it_left_out(tmp_path):
    """Its share, whatever the reason and however small, of all but sign-ins, which are no fault. None when all was sent."""
    sent, sign_in = line(0.0, 1, "HealthCheck", {}), line(0.1, 1, "MngLogin", {"login": "10"})
    unknown, refused = line(0.2, 1, "MngGetCalendarEvent", {"id": 9}), line(0.3, 1, "MngAddCalendarEvent", EVENT, status=429)
    for lines, told in (
        ([*[sent] * 6, sign_in, unknown, refused], "25 % of the recording was left out"),
        ([*[sent] * 101, unknown], "less than 1 % of the recording was left out"),
        ([sent, sign_in], ""),
    ):
        async with stand_in(good) as url:
            command = ("replay", stream(tmp_path, *lines), "--url", url, "--token", TOKEN, "--fast")
            ended = await gateway(*command, folder=tmp_path)
        assert (0, f"Warning: {told}, see `not sent` in the table\n" if told else "") == (ended.code, ended.err)


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
    sign_ins = (line(n / 1000, 1, ("MngLogin", "MngLogout")[n % 2], {}) for n in range(1200))
    lines = *sign_ins, line(2.0, 1, "MngGetCalendarEvent", {"id": 1})
    left_out = await gateway("replay", stream(tmp_path, *lines), folder=tmp_path)
    empty = await gateway("replay", stream(tmp_path), folder=tmp_path)
    reasons = "1,200 sign-in or sign-out: the harness has sessions of its own; 1 names an event that the stream did not add"
    message = f"gateway: {tmp_path / 'stream.ndjson'} holds no command that could be sent"
    assert (2, "", f"{message} (left out: {reasons})\n") == left_out[:3]
    assert (2, "", f"{message}\n") == empty[:3]


async def test_replay_waits_for_a_command_that_was_put_off(start, dsn, tmp_path):
    """Commands sent again because of a rate (429) keep their place among those on their event."""
    running = await start(manager_commands_per_second_max=20, manager_commands_burst_max=10)
    updates = [line(n / 100, 1, "MngUpdateCalendarEvent", {"id": 1, "title": f"{n}", "if_version": n}) for n in range(1, 31)]
    ended = await gateway(
        "replay", stream(tmp_path, add(0.0, 1), *updates), "--url", running.url, "--fast", folder=tmp_path, dsn=dsn
    )
    assert (0, 31, 0) == (ended.code, ended.figures["answered"], ended.figures["wrong"]), ended.err
    assert 0 < ended.figures["retried"]


async def test_replay_of_a_recording_that_mostly_signs_in_is_no_failure(start, dsn, tmp_path):
    """Sign-ins are left out because the harness has sessions of its own."""
    running = await start()
    sign_ins = [line(n / 100, 1, "MngLogin", {"login": "10"}) for n in range(3)]
    ended = await gateway(
        "replay", stream(tmp_path, *sign_ins, add(0.1, 1)), "--url", running.url, "--fast", folder=tmp_path, dsn=dsn
    )
    assert (0, 1) == (ended.code, ended.figures["answered"]), ended.err


async def test_replay_names_whom_it_does_not_know_and_fails_when_that_is_most(start, dsn, tmp_path):
    """What was left out proves nothing; a part of it is no fault."""
    running = await start()
    strangers = [{**add(n / 100, 1, n), "manager": 70 + n} for n in range(1, 13)]
    for known, code in ((11, 1), (12, 0)):
        adds = [add(0.5 + n / 100, 2, 100 + n) for n in range(known)]
        file = stream(tmp_path, *strangers, *adds)
        ended = await gateway("replay", file, "--url", running.url, "--fast", folder=tmp_path, dsn=dsn)
        assert (code, known) == (ended.code, ended.figures["answered"]), ended.err
        named = "managers 71, 72, 73, 74, 75, 76, 77, 78, 79, 80 and 2 more"
        assert {f"{NO_MANAGER} ({named})": 12} == ended.figures["skipped"]
        assert ("Failed: 12 commands left out, more than were answered\n" in ended.err) == bool(code)
