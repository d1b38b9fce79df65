"""`gateway load` and `gateway replay` stop by themselves, whatever the other end does, and when they are told to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from gateway.capture import Header
from gateway.harness.credentials import Member
from gateway.harness.figures import Figures
from gateway.harness.kinds import STOPPED, Kinds
from gateway.harness.mix import Mix
from gateway.harness.run import Plan, Run
from tests.harness_runs import TOKEN, Ended, gateway, good, stand_in

SHORT = ("--token", TOKEN, "--connections", 1, "--reply-seconds", 0.5)
HEALTH = ("load", *SHORT, "--mix", "health=1")


def healths(folder: Path, *times: float) -> Path:
    """A recording of a HealthCheck at each of these times."""
    file = folder / "healths.ndjson"
    frame = {"command": "HealthCheck", "extID": "recorded", "data": {}}
    lines = [{"time": time, "connection": 1, "manager": 10, "frame": frame, "status": 200} for time in times]
    file.write_bytes(b"".join(msgspec.json.encode(item) + b"\n" for item in (Header(), *lines)))
    return file


def unsettled(ended: Ended) -> tuple[int, int, int, int]:
    """The exit code, and how many commands were answered, missing and not sent."""
    return ended.code, ended.figures["answered"], ended.figures["missing"], ended.figures["unsent"]


async def silent(_socket, _number, _ext_id):
    """Answers nothing."""


async def test_run_that_is_answered_no_more_ends(tmp_path):
    """What is unanswered is missing, the rest was not sent; also at a rate, where a command is due that cannot go."""

    async def first_alone(socket, number, ext_id):
        if number == 1:
            await good(socket, number, ext_id)

    for command, settled in (
        (("replay", healths(tmp_path, *range(5)), *SHORT, "--fast", "--in-flight", 1), (1, 1, 1, 3)),
        ((*HEALTH, "--commands", 20, "--in-flight", 2), (1, 1, 2, 17)),
        ((*HEALTH, "--commands", 100_000, "--in-flight", 1, "--rate", 100), (1, 1, 1, 99_998)),
    ):
        async with stand_in(first_alone) as url:
            ended = await gateway(*command, "--url", url, folder=tmp_path)
        assert settled == unsettled(ended), ended.err
        assert f"Failed: {settled[3]:,} commands not sent: no reply within --reply-seconds\n" in ended.err
        assert not ended.figures["interrupted"]
        assert {STOPPED: settled[3]} == ended.figures["skipped"]


async def test_waiting_for_a_missing_reply_is_no_time_of_the_run(tmp_path):
    """The clock stops with the last reply or command, and the last tick with it, which is that of the last reply."""

    async def all_but_the_last(socket, number, ext_id):
        if number < 20:
            await good(socket, number, ext_id)

    command = (*HEALTH, "--commands", 20, "--in-flight", 1, "--reply-seconds", 1.5)
    async with stand_in(all_but_the_last) as url:
        ended = await gateway(*command, "--url", url, folder=tmp_path)
    assert (1, 19, 1, 0) == unsettled(ended), ended.err
    ticks = ended.figures["ticks"]
    assert 19 == sum(tick["answered"] for tick in ticks)
    assert ended.figures["seconds"] == ticks[-1]["second"]
    assert ticks[-1]["answered"]


async def test_run_lasts_until_its_last_reply_or_command(tmp_path):
    """Whichever is later: the reply of a slow gateway, or a command that is not answered."""

    async def first_alone_and_late(socket, number, ext_id):
        if number == 1:
            await asyncio.sleep(0.2)
            await good(socket, number, ext_id)

    for times in ((0.0,), (0.0, 0.7)):
        async with stand_in(first_alone_and_late) as url:
            ended = await gateway("replay", healths(tmp_path, *times), *SHORT, "--url", url, folder=tmp_path)
        assert 1 == ended.figures["answered"], ended.err
        assert max(0.2, *times) <= ended.figures["seconds"] + 0.01  # of which clocks may differ


async def test_load_with_an_end_of_its_own_lasts_until_then(tmp_path):
    """A silence is what it measures: in its rate and its ticks the time counts in which nothing came."""

    async def first_alone(socket, number, ext_id):
        if number == 1:
            await good(socket, number, ext_id)

    async with stand_in(first_alone) as url:
        ended = await gateway(*HEALTH, "--seconds", 1.5, "--url", url, folder=tmp_path)
    assert (1, 1, 4, 0) == unsettled(ended), ended.err
    assert 1.5 <= ended.figures["seconds"] == ended.figures["ticks"][-1]["second"]
    assert 0 < ended.figures["per_second"] < 1


async def test_run_with_nothing_due_goes_on(tmp_path):
    """A reply that does not come for longer than --reply-seconds ends no run that sends seldom."""

    async def second_alone(socket, number, ext_id):
        if number == 2:
            await good(socket, number, ext_id)

    for command in ((*HEALTH, "--commands", 2, "--rate", 0.7), ("replay", healths(tmp_path, 0.0, 1.5), *SHORT)):
        async with stand_in(second_alone) as url:
            assert (1, 1, 1, 0) == unsettled(await gateway(*command, "--url", url, folder=tmp_path))


async def test_connections_that_do_not_close_are_left(monkeypatch):
    """A peer that is gone never takes what is still to be written to it."""
    monkeypatch.setattr("gateway.harness.run.LEAVE_SECONDS", 0.0)
    kinds = Kinds()
    plan = Plan(title="", url="", tokens=[], refusal="", connections=0, in_flight=1)
    run = Run(plan, Mix(kinds, {"health": 1}, 1, [Member(10, "")], 1), Figures(kinds), lambda *_: None)
    async with asyncio.timeout(1), asyncio.TaskGroup() as tasks:
        stay = tasks.create_task(asyncio.sleep(1000))
        await run._leave([stay])
    assert stay.cancelled()


@pytest.mark.parametrize("left", [0, 1])
async def test_clock_waits_for_the_end_of_sending_while_a_command_is_left(left):
    """A load with --commands and --seconds that has sent the last one has nothing more to measure than its replies."""
    kinds = Kinds()
    source, figures = Mix(kinds, {"health": 1}, 1, [Member(10, "")], 1), Figures(kinds)
    source.left, moved = left, figures.moved
    plan = Plan(title="", url="", tokens=[], refusal="", connections=0, in_flight=1, seconds=1000)
    async with asyncio.TaskGroup() as tasks:
        pacer = tasks.create_task(asyncio.sleep(0))
        assert not await Run(plan, source, figures, lambda *_: None)._until_sent(pacer)
    assert bool(left) == (figures.moved > moved)


async def test_load_at_a_rate_ends_without_a_connection_that_may_not_come_back(tmp_path):
    """What was due on it is missing, and not waited for."""

    async def closes_one(socket, number, ext_id):
        if number == 10:
            await socket.close(4501)
        else:
            await good(socket, number, ext_id)

    command = (*HEALTH, "--connections", 2, "--commands", 60, "--rate", 200)
    async with stand_in(closes_one) as url:
        ended = await gateway(*command, "--url", url, folder=tmp_path)
    code, answered, missing, unsent = unsettled(ended)
    assert (1, 60, 0) == (code, answered + missing, unsent), ended.err
    assert 30 <= answered < 60
    assert {"4501": 1} == ended.figures["closes"]


async def test_what_was_not_sent_is_counted_once(tmp_path):
    """As missing where no connection is left to send it on, and not as left out, too."""

    async def closing(socket, number, ext_id):
        await good(socket, number, ext_id)
        if number == 3:
            await socket.close(4501)

    for command, commands in (
        ((*HEALTH, "--commands", 20, "--in-flight", 1), 20),
        ((*HEALTH, "--commands", 5000, "--in-flight", 1, "--rate", 1000), 5000),
        (("replay", healths(tmp_path, *range(20)), *SHORT, "--fast", "--in-flight", 1), 20),
    ):
        async with stand_in(closing) as url:
            ended = await gateway(*command, "--url", url, folder=tmp_path)
        assert (1, 3, commands - 3, 0) == unsettled(ended), ended.err
        assert {} == ended.figures["skipped"]


async def test_load_that_loses_all_connections_between_commands_fails(tmp_path):
    """Though every reply came: it ended before its time."""

    async def goodbye(socket, number, ext_id):
        await good(socket, number, ext_id)
        await socket.close(4501)

    async with stand_in(goodbye) as url:
        ended = await gateway(*HEALTH, "--rate", 0.1, "--seconds", 1000, "--url", url, folder=tmp_path)
    assert (1, 1, 0, 0) == unsettled(ended), ended.err
    assert "Failed: no connection was left at the end\n" == ended.err


async def test_ping_behind_a_reply_holds_nothing_up(tmp_path):
    """Though the ping is the last of what was read; and it is answered."""

    async def with_ping(socket, number, ext_id):
        if number == 10:
            await (await socket.ping())
        socket.protocol.send_text(b'{"extID":%b,"status":200,"data":{}}' % ext_id)
        socket.protocol.send_ping(b"%d" % number)
        socket.transport.write(b"".join(socket.protocol.data_to_send()))

    async with stand_in(with_ping) as url:
        ended = await gateway(*HEALTH, "--commands", 20, "--in-flight", 1, "--url", url, folder=tmp_path)
    assert (0, 20, 0, 0) == unsettled(ended), ended.err


async def test_gateway_that_restarts_for_ever_does_not_keep_a_run(tmp_path):
    """What was sent again five times and not answered is missing."""

    async def restarting(socket, _number, _ext_id):
        await socket.close(1012)

    async with stand_in(restarting) as url:
        ended = await gateway(*HEALTH, "--commands", 1, "--reply-seconds", 15, "--url", url, folder=tmp_path)
    assert (1, 0, 1, 5) == (*unsettled(ended)[:3], ended.figures["retried"]), ended.err


async def test_peer_that_sends_no_frames_is_left(tmp_path):
    """A connection whose other end speaks something else does not come back, and is counted."""

    async def babbling(socket, _number, _ext_id):
        socket.transport.write(b"\xff" * 64)

    async with stand_in(babbling) as url:
        ended = await gateway(*HEALTH, "--commands", 3, "--in-flight", 1, "--url", url, folder=tmp_path)
    assert (1, 0, 3, {"1002": 1}) == (*unsettled(ended)[:3], ended.figures["closes"]), ended.err
    assert "Traceback" not in ended.err


async def test_commands_that_a_rate_left_no_time_for_are_missing(tmp_path):
    """Each that was due within the time is counted, sent or not."""
    command = (*HEALTH, "--rate", 1_000_000, "--seconds", 1, "--reply-seconds", 0.001)
    async with stand_in(good) as url:
        ended = await gateway(*command, "--url", url, folder=tmp_path)
    code, answered, missing, unsent = unsettled(ended)
    assert (1, 1_000_000, 0) == (code, answered + missing, unsent), ended.err


@pytest.mark.parametrize("rate", [1, 1_000_000])
async def test_load_is_interrupted_however_far_it_is_behind(tmp_path, rate):
    """Ctrl-C ends it before all was sent: exit code 1. A rate that nobody could keep up with does not keep it from that."""
    begun = asyncio.Event()

    async def answering(socket, number, ext_id):
        begun.set()
        await good(socket, number, ext_id)

    command = (*HEALTH, "--rate", rate, "--commands", 20_000_000)
    async with stand_in(answering) as url:
        ended = await gateway(*command, "--url", url, folder=tmp_path, interrupt=begun)
    code, answered, missing, unsent = unsettled(ended)
    assert (1, 20_000_000) == (code, answered + missing + unsent), ended.err
    assert "commands not sent: interrupted\n" in ended.err


async def test_replay_that_was_interrupted_fails(tmp_path):
    """With how many commands were not sent; a load that had no number of them to send ends well."""
    for command, settled in (
        (("replay", healths(tmp_path, 0.0, 1000.0), *SHORT), (1, 1, 0, 1)),
        ((*HEALTH, "--seconds", 1000, "--rate", 0.01), (0, 1, 0, 0)),
    ):
        begun = asyncio.Event()

        async def answering(socket, number, ext_id, begun=begun):
            await good(socket, number, ext_id)
            begun.set()

        async with stand_in(answering) as url:
            ended = await gateway(*command, "--url", url, folder=tmp_path, interrupt=begun)
        assert settled == unsettled(ended), ended.err
        assert ("Failed: 1 command not sent: interrupted\n" in ended.err) == bool(settled[3])
        assert ended.figures["interrupted"]
