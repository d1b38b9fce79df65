"""`gateway load`: what it says it did is so, and whatever goes wrong gives another exit code than 0."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

import msgspec
import pytest

from gateway.backend import backend
from gateway.capture import Header
from gateway.errors import StartupError
from gateway.harness.credentials import Member
from gateway.harness.extra import require_extra
from gateway.harness.kinds import Kinds
from gateway.harness.mix import COMMAND_OF, MIX, STEPS, Mix, parse_mix
from gateway.settings import Settings
from tests.certificates import Authority
from tests.client import EVENT
from tests.harness_runs import TOKEN, Answer, Ended, gateway, good, stand_in
from tests.test_cli import run

HEALTH = ("load", "--token", TOKEN, "--mix", "health=1", "--connections", 1, "--reply-seconds", 0.5)


async def test_load_adds_what_it_says(start, dsn, db, tmp_path):
    """All commands of the mix succeed, and the tables hold the events that were added and not deleted."""
    running = await start()
    mix = "add=45,get=20,update=12,filter=8,answer=5,complete=4,archive=2,delete=2,health=2,logout=1"
    ended = await gateway(
        "load", "--url", running.url, "--commands", 600, "--mix", mix, "--report", tmp_path / "r.html", folder=tmp_path, dsn=dsn
    )
    assert (0, 0, 0) == (ended.code, ended.figures["wrong"], ended.figures["missing"]), ended.err + ended.out
    done = {name: figures["ok"] for name, figures in ended.figures["commands"].items()}
    assert 600 == sum(done.values())
    assert set(COMMAND_OF.values()) - {"MngLogin"} == set(done)
    events = done["MngAddCalendarEvent"] - done["MngDeleteCalendarEvent"]
    assert events == await db.fetchval("SELECT count(*) FROM calendar_event")
    assert 0 < ended.figures["client_cpu_us"]
    assert "us of CPU per command" in ended.out
    assert "<svg" in (tmp_path / "r.html").read_text()


async def test_load_at_a_rate_counts_from_the_intended_time(tmp_path):
    """Commands that could not be sent in time, because the one before was answered late, are late by that much too."""

    async def late(socket, number, ext_id):
        await asyncio.sleep(0.5 if number == 1 else 0)
        await good(socket, number, ext_id)

    async with stand_in(late) as url:
        ended = await gateway(*HEALTH, "--url", url, "--rate", 50, "--seconds", 1, "--in-flight", 1, folder=tmp_path)
    assert (0, 50) == (ended.code, ended.figures["answered"]), ended.err
    assert 200 < ended.figures["latency"]["p90"]


async def test_load_fails_when_replies_are_wrong_missing_or_slow(tmp_path):
    """Exit code 1 and a sentence for each; a reply with another extID is both one too many and one missing."""

    async def refused(socket, number, ext_id):
        await socket.send(b'{"extID":%b,"status":500,"error":"INTERNAL","message":"","outcome":"unknown"}' % ext_id, text=True)

    async def malformed(socket, number, ext_id):
        await good(socket, number, ext_id.replace(b"7", b"9000"))

    async def silent(socket, number, ext_id):
        if number != 7:
            await good(socket, number, ext_id)

    async def slow(socket, number, ext_id):
        await asyncio.sleep(0.05)
        await good(socket, number, ext_id)

    async def one(answer: Answer, *arguments: object) -> Ended:
        async with stand_in(answer) as url:
            return await gateway(*HEALTH, "--url", url, "--commands", 20, *arguments, folder=tmp_path)

    wrong, unasked, missing, late, well = await asyncio.gather(
        one(refused), one(malformed), one(silent), one(slow, "--max-p99", 20), one(good, "--max-p99", 5000)
    )
    assert [1, 1, 1, 1, 0] == [ended.code for ended in (wrong, unasked, missing, late, well)]
    assert {"INTERNAL": 20} == wrong.figures["errors"]
    assert "20 wrong replies" in wrong.err
    assert unasked.figures["errors"]["UNASKED_REPLY"] == unasked.figures["missing"] == 2
    assert "1 missing reply" in missing.err
    assert "above --max-p99 20" in late.err
    assert [None, 20, 5000] == [ended.figures["max_p99"] for ended in (wrong, late, well)]
    for ended in (wrong, unasked, missing, late, well):
        assert ended.err.endswith("".join(f"Failed: {why}\n" for why in ended.figures["failed"]))
    assert ["1 missing reply"] == missing.figures["failed"]


async def test_load_comes_back_as_a_client_should(tmp_path):
    """After 1012 it connects again and sends again what was unanswered; after 4501 it stays away."""

    def closing(code: int) -> Answer:
        async def close_once(socket, number, ext_id):
            if number == 10:
                await socket.close(code)
            else:
                await good(socket, number, ext_id)

        return close_once

    async def one(code: int) -> Ended:
        async with stand_in(closing(code)) as url:
            return await gateway(*HEALTH, "--url", url, "--commands", 50, "--in-flight", 1, folder=tmp_path)

    restart, revoked, lost = await asyncio.gather(one(1012), one(4501), one(4000))
    assert (0, 50, 1, 0) == tuple([restart.code] + [restart.figures[n] for n in ("answered", "reconnects", "missing")])
    assert (1, 9, 0) == (revoked.code, revoked.figures["answered"], revoked.figures["reconnects"])
    assert (1, 49, 1, 1) == tuple([lost.code] + [lost.figures[n] for n in ("answered", "reconnects", "missing")])


async def test_load_without_a_gateway_says_so(tmp_path):
    """Nobody listens: exit code 2 and a sentence, no traceback."""
    ended = await gateway(*HEALTH, "--url", "ws://127.0.0.1:9", folder=tmp_path)
    assert 2 == ended.code
    assert "does a gateway run there?" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("option", ["--report", "--json"])
async def test_load_tries_what_it_is_to_write_before_it_sends(tmp_path, option):
    """Exit code 2 and one line, without a command sent; no empty file is left of the other one."""
    sent = []

    async def counting(socket, number, ext_id):
        sent.append(ext_id)
        await good(socket, number, ext_id)

    given = {"--report": tmp_path / "report.html", "--json": tmp_path / "all.json", option: tmp_path / "none" / "here"}
    async with stand_in(counting) as url:
        ended = await run(
            *map(str, (*HEALTH, "--url", url, "--commands", 5)), *[str(word) for pair in given.items() for word in pair]
        )
    assert (2, "", f"gateway: {option} {given[option]}: No such file or directory\n") == ended
    assert [] == sent + list(tmp_path.iterdir())


async def test_load_with_tls_at_one_end_alone_says_so(tmp_path):
    """Exit code 2, and one line that names the other scheme and a reason; no table."""
    async with stand_in(good) as plain, stand_in(good, Authority(tmp_path).serving()) as secured:
        for url, reason, hint in (
            (plain.replace("ws:", "wss:"), "(ConnectionResetError)", "One without it wants ws://."),
            (secured.replace("wss:", "ws:"), "(closed within the handshake)", "is it wss:// that it wants?"),
        ):
            ended = await gateway(*HEALTH, "--connections", 16, "--url", url, folder=tmp_path)
            assert (2, "", 1) == (ended.code, ended.out, len(ended.err.splitlines())), ended.err
            assert ended.err.startswith(f"gateway: No connection to {url} {reason}: does a gateway run there")
            assert hint in ended.err


async def test_load_and_replay_trust_whom_they_are_told_to(tmp_path):
    """An authority of one's own, by option or variable; without it the message says how. A file without one is named."""
    authority, recorded, wrong = Authority(tmp_path), tmp_path / "health.ndjson", tmp_path / "wrong.pem"
    wrong.write_text("no PEM")
    frame = {"command": "HealthCheck", "extID": "recorded", "data": {}}
    line = {"time": 0.0, "connection": 1, "manager": 10, "frame": frame, "status": 200}
    recorded.write_bytes(b"".join(msgspec.json.encode(item) + b"\n" for item in (Header(), line)))
    async with stand_in(good, authority.serving()) as url:
        for command in ((*HEALTH, "--commands", 1), ("replay", recorded, "--token", TOKEN)):
            by_option, by_variable, without, no_pem = await asyncio.gather(
                gateway(*command, "--url", url, "--ca-file", authority.file, folder=tmp_path),
                gateway(*command, folder=tmp_path, url=url, ca_file=str(authority.file)),
                gateway(*command, "--url", url, folder=tmp_path),
                gateway(*command, "--url", url, "--ca-file", wrong, folder=tmp_path),
            )
            assert [0, 0, 2, 2] == [ended.code for ended in (by_option, by_variable, without, no_pem)], by_option.err
            assert "CERTIFICATE_VERIFY_FAILED" in without.err
            assert "name by --ca-file whose certificates to trust" in without.err
            assert f"--ca-file {wrong} holds no PEM certificates" in no_pem.err
        named = url.replace("127.0.0.1", "localhost")
        other = await gateway(*HEALTH, "--url", named, "--ca-file", authority.file, folder=tmp_path)
    assert 2 == other.code
    assert other.err.endswith("its certificate is for another name: have that in --url.\n")


async def test_load_and_replay_name_the_key_that_the_gateway_does_not_take(start, dsn, db, scratch_dir):
    """Of another data folder, of the environment, or a token's: exit code 2, one message that says what to do, no table."""
    url, folder = ("--url", (await start()).url), scratch_dir / "another folder"
    file = scratch_dir / "refused.ndjson"
    frame = {"command": "MngAddCalendarEvent", "extID": "recorded", "data": EVENT}
    line = {"time": 0.0, "connection": 1, "manager": 10, "frame": frame, "status": 200, "id": 1}
    file.write_bytes(b"".join(msgspec.json.encode(item) + b"\n" for item in (Header(), line)))
    (scratch_dir / "runs").mkdir()
    here = {"folder": scratch_dir / "runs"}

    def make_another() -> None:
        with backend(Settings(data_dir=str(folder)), serving=True):
            pass

    await asyncio.to_thread(make_another)
    elsewhere = {**here, "data_dir": str(folder)}
    for ended, told in (
        (await gateway("load", *url, **elsewhere), f"the key in {folder}/token_secret"),
        (await gateway("load", *url, "--rate", 50, **elsewhere), f"the key in {folder}/token_secret"),
        (await gateway("replay", file, *url, **elsewhere), f"the key in {folder}/token_secret"),
        (await gateway("load", *url, dsn=dsn, **here, token_secret="x" * 32), "the key in GATEWAY_TOKEN_SECRET"),
        (await gateway("load", *url, "--token", TOKEN, **here), "the token of --token:"),
        (await gateway("load", *url, **here, token=TOKEN), "the token of GATEWAY_TOKEN:"),
        (await gateway("load", *url, "--token", "none", **here), "--token is no token"),
        (await gateway("replay", file, *url, **here, token="none"), "GATEWAY_TOKEN is no token"),
    ):
        assert (2, "", {}) == (ended.code, ended.out, ended.figures)
        (message,) = [line for line in ended.err.splitlines() if line.startswith("gateway: ")]
        assert told in message
        assert "gateway token --manager ID" in message
        assert "Traceback" not in ended.err
    assert 0 == await db.fetchval("SELECT count(*) FROM calendar_event")


async def test_load_refuses_to_act_for_a_disabled_manager(dsn, db, tmp_path):
    """The gateway would not take the token, and the key would be blamed."""
    await db.execute("UPDATE manager SET disabled = true WHERE id = 12")
    ended = await gateway("load", "--manager", 12, "--url", "ws://127.0.0.1:9", folder=tmp_path, dsn=dsn)
    assert 2 == ended.code
    assert "No manager 12 may sign in to this database" in ended.err


def test_mix_repeats_with_its_seed():
    """The same seed gives the same commands, another one others."""

    def frames(seed: int) -> list[tuple[str, bytes]]:
        mix = Mix(Kinds(), {"add": 1, "filter": 1}, seed, [Member(10, "")], 2)
        mix._now = 0
        return [(job.kind.name, job.tail) for n in range(50) if (job := mix.take(n % 2))]

    assert 50 == len(frames(1))
    assert [name for name, _ in frames(1)] == [name for name, _ in frames(1)]
    assert [name for name, _ in frames(1)] != [name for name, _ in frames(2)]


def sent(mix: Mix, commands: int, connections: int) -> Counter[str]:
    """How often each command is taken, by one connection after the other; every add is given an id."""
    names: Counter[str] = Counter()
    for number in range(commands):
        job = mix.take(number % connections)
        assert job is not None
        mix.answered(job, b'{"extID":1,"status":200,"data":{"event":{"id":%d,' % (number + 1), ok=True)
        names[job.kind.name] += 1
    return names


@pytest.mark.parametrize("connections", [1, 16, 100])
@pytest.mark.parametrize("seed", range(1, 6))
def test_mix_sends_every_command_by_its_weight(seed, connections):
    """The rarest too, once in a cycle at least, whatever the seed and wherever the connections begin."""
    weights, member = parse_mix(MIX), Member(10, "", "anna", "a password", spare_tokens=["a token"] * 9)
    names = sent(Mix(Kinds(), weights, seed, [member], connections), 3 * STEPS, connections)
    assert set(COMMAND_OF.values()) == set(names)
    for name, weight in weights.items():
        wanted = 3 * STEPS * weight / sum(weights.values())
        assert wanted * 0.9 - 3 <= names[COMMAND_OF[name]] <= wanted * 1.1 + 3, name


def test_mix_sends_what_has_a_weight_and_can_be_sent():
    """However small the weight is; none of what has none, or needs a password that nobody knows."""
    weights = parse_mix("add=100000,health=0.001,filter=0,login=1")
    assert {"MngAddCalendarEvent", "HealthCheck"} == set(sent(Mix(Kinds(), weights, 1, [Member(10, "")], 1), 2 * STEPS, 1))


@pytest.mark.parametrize("text", ["add", "add=x", "added=1", "add=-1", "add=0", ""])
def test_mix_refuses_what_it_cannot_read(text):
    """The message says what would be right."""
    with pytest.raises(StartupError, match="--mix"):
        parse_mix(text)


def test_missing_extra_is_named(monkeypatch):
    """Without picows the message is the command that installs it."""
    monkeypatch.setitem(sys.modules, "picows", None)
    with pytest.raises(StartupError, match=r"pip install 'crm-gateway\[load\]'"):
        require_extra()
