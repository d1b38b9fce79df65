"""What of a stream is sent again, and in which order; without a gateway."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from gateway.errors import StartupError
from gateway.harness.kinds import Job, Kinds
from gateway.harness.replay import NOT_ADDED, Replay
from gateway.harness.stream import CUT_OFF, read_stream
from tests.client import EVENT
from tests.harness_streams import GET, add, line, stream, update


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


def test_stream_leaves_out_what_was_refused_for_its_token_or_its_rate(tmp_path):
    """With the harness's own token, and at its own rate, these would be executed; what else was refused is sent."""
    refused = [line(0.0, 1, "MngAddCalendarEvent", EVENT, status=status) for status in (401, 429, 429)]
    file = stream(tmp_path, *refused, line(0.2, 1, "MngAddCalendarEvent", {**EVENT, "title": ""}, status=400))
    read = read_stream(file)
    assert [("refused with 401:", 1), ("refused with 429:", 2)] == [(why[:17], n) for why, n in read.skipped.items()]
    assert [400] == [step.recorded.status for step in read.steps]


def test_stream_faults_are_named(tmp_path):
    """No header, one without a version, another version or a broken line is an error; a half last line or a blank is not."""
    file = stream(tmp_path, add(0.0, 1))
    text = file.read_bytes()
    deep = b'{"time":0,"connection":1,"manager":10,"frame":{"command":"x","extID":1,"data":%b1%b}}' % (b"[" * 3000, b"]" * 3000)
    for broken, told in (
        (b"", "no header"),
        (b"{}\n", "no header .*`stream`"),
        (b'{"stream":"crm-gateway"}\n', "no header .*`version`"),
        (b'{"stream":"crm-gateway","version":2}\n', "crm-gateway 2"),
        (b'{"stream":"\\u001b[2J","version":1}\n', "is a stream \ufffd.2J 1"),
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
    for half in (b'{"time":0.2,"conn', b'{"time":0.2,"\xc3', deep, b"\n", b" \r\n\n"):
        file.write_bytes(text + half)
        read = read_stream(file)
        assert (1, 0 if half.isspace() else 1) == (len(read.steps), read.skipped[CUT_OFF])
