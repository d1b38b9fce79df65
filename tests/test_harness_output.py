"""What becomes of a run whose progress, table or files cannot be written: it goes on, and its verdict is told."""

from __future__ import annotations

import asyncio
import sys

from tests.client import WAIT_SECONDS
from tests.harness_runs import TOKEN, good, stand_in

LOAD = ("load", "--token", TOKEN, "--mix", "health=1", "--connections", "1", "--reply-seconds", "0.5", "--commands", "30")


async def run(url: str, *arguments: object, redirected: str = "", limits: str = "") -> tuple[int | None, str, str]:
    """The exit code, and what came on both outputs, of which the shell takes those that are redirected."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "gateway", *LOAD, "--url", url, *map(str, arguments))
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", f'{limits} exec "$@" {redirected}', "sh", *command, stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(WAIT_SECONDS):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_run_goes_on_when_nobody_takes_its_progress(tmp_path):
    """Lines a second that cannot be written are left out; the table and the figures are there."""
    async with stand_in(good) as url:
        code, out, _ = await run(url, "--rate", 25, "--json", tmp_path / "all.json", redirected="2>/dev/full")
    assert (0, True, True) == (code, "30 replies in " in out, (tmp_path / "all.json").exists())


async def test_what_cannot_be_written_takes_nothing_else_with_it(tmp_path):
    """Neither the report nor the verdict; a run that went well ends with 2 then, one that failed with 1."""
    async with stand_in(good) as url:
        for arguments, redirected, told in (
            (("--json", "/dev/full"), "", "gateway: Not written: /dev/full: No space left on device\n"),
            (
                ("--json", tmp_path / "all.json"),
                ">/dev/full",
                "gateway: Not written: standard output: No space left on device\n",
            ),
        ):
            report = tmp_path / f"{len(redirected)}.html"
            ended = await run(url, *arguments, "--report", report, redirected=redirected)
            failed = await run(url, *arguments, "--max-p99", 0.001, redirected=redirected)
            assert (2, told, True) == (ended[0], ended[2], report.exists())
            assert (1, True, told) == (failed[0], failed[2].startswith("Failed: p99 is "), failed[2].partition("\n")[2])
    assert (tmp_path / "all.json").exists()


async def test_run_with_more_connections_than_files_may_be_open_says_so():
    """Exit code 2, and how to have more."""
    async with stand_in(good) as url:
        code, _, err = await run(url, "--connections", 100, limits="ulimit -n 40;")
    assert (2, 1) == (code, len(err.splitlines()))
    assert err.endswith("allow more by `ulimit -n`, or give fewer --connections.\n")
