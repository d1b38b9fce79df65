"""What `gateway load` and `gateway replay` are asked for that cannot be: told before anything is sent, with exit code 2."""

from __future__ import annotations

import asyncio

import pytest

from tests.harness_runs import TOKEN
from tests.harness_streams import add, stream
from tests.test_cli import run

LOAD, REPLAY = (
    ("load", "--token", TOKEN, "--url", "ws://127.0.0.1:9"),
    ("replay", "--token", TOKEN, "--url", "ws://127.0.0.1:9"),
)
NUMBERS = {"--seconds": LOAD, "--rate": LOAD, "--reply-seconds": LOAD, "--max-p99": LOAD, "--speed": REPLAY}


@pytest.mark.parametrize("option", NUMBERS)
async def test_numbers_have_bounds(option, tmp_path):
    """The message names the option and what it may be; also for what is neither above nor below anything."""
    recording = [tmp_path / "any.ndjson"] if NUMBERS[option] is REPLAY else []
    for file in recording:
        file.write_text("")
    values = ("nan", "inf", "-inf", "1e-320", "0", "-1", "1e320")
    for code, out, err in await asyncio.gather(*(run(*NUMBERS[option], *map(str, recording), option, v) for v in values)):
        assert (2, "") == (code, out)
        assert f"Invalid value for '{option}'" in err
        assert "is not in the range 0.001<=x<=" in err


async def test_replay_has_a_rate_within_bounds(tmp_path):
    """As load has."""
    (tmp_path / "any.ndjson").write_text("")
    code, _, err = await run(*REPLAY, str(tmp_path / "any.ndjson"), "--rate", "nan")
    assert 2 == code
    assert "nan is not in the range 0.001<=x<=1000000.0" in err


async def test_files_are_not_written_over_one_another(tmp_path):
    """Neither the recording nor the other one's, under whatever name; and all are as they were."""
    recording, linked, figures = tmp_path / "recording", tmp_path / "linked", tmp_path / "figures"
    recording.write_text("recorded")
    linked.hardlink_to(recording)
    (tmp_path / "here").symlink_to(tmp_path)
    for command, told in (
        ((*LOAD, "--json", figures, "--report", figures), "--json and --report are the same file"),
        ((*LOAD, "--json", figures, "--report", tmp_path / "here" / "figures"), "--json and --report are the same file"),
        ((*LOAD, "--ca-file", recording, "--json", recording), "--ca-file and --json are the same file"),
        ((*REPLAY, recording, "--json", recording), "FILE and --json are the same file"),
        ((*REPLAY, recording, "--report", linked), "FILE and --report are the same file"),
    ):
        code, out, err = await run(*map(str, command))
        assert (2, "", 1) == (code, out, len(err.splitlines())), err
        assert err.startswith(f"gateway: {told}, {command[-1]}: give another one")
    assert ("recorded", False) == (recording.read_text(), figures.exists())


@pytest.mark.parametrize("option", ["--report", "--json"])
async def test_a_folder_is_no_file_to_write_to(tmp_path, option):
    """Nor is an empty name, which is that of the folder one is in."""
    for name in ("", str(tmp_path)):
        code, out, err = await run(*LOAD, option, name)
        assert (2, "") == (code, out)
        assert "is a directory" in err.lower()


@pytest.mark.parametrize("variable", [False, True])
async def test_load_takes_no_manager_beside_a_token(variable):
    """The token's own would be acted for, whoever was named."""
    shown = () if variable else ("--token", TOKEN)
    ended = await run("load", *shown, "--manager", "11", "--url", "ws://127.0.0.1:9", **({"token": TOKEN} if variable else {}))
    origin = "GATEWAY_TOKEN" if variable else "--token"
    assert (2, "", f"gateway: {origin} and --manager exclude each other: a token says whose it is\n") == ended


async def test_empty_token_is_none(tmp_path):
    """It does not stand for tokens that are signed here."""
    recording = stream(tmp_path, add(0.0, 1))
    for command in (("load",), ("replay", str(recording))):
        code, _, err = await run(*command, "--token", "", "--url", "ws://127.0.0.1:9")
        assert (2, True) == (code, err.startswith("gateway: --token is no token: "))
