"""Checks the suite itself: each planted bug must make the tests named for it fail, which pass without it."""

from __future__ import annotations

import asyncio
import os
import sys

from tests.faults.check import Finding
from tests.faults.plants import PLANTS
from tests.faults.stage import Stage
from tests.process import ROOT

AT_ONCE = 2
"""Runs of pytest side by side: the smallest machine has two cores."""
TESTS_FAILED = 1
"""pytest's exit code; others mean that the tests did not run."""


async def planted_bugs(stage: Stage) -> Finding:
    """Runs the tests named for each bug with and without it."""
    names = list(PLANTS)[: stage.count(len(PLANTS), 1)]
    together = sorted({test.partition("::")[0] for name in names for test in PLANTS[name].tests})
    code, output = await _pytest(together, "")
    if code != 0:
        return Finding(False, f"the tests fail without any bug: {_last(output)}")
    turns = asyncio.Semaphore(AT_ONCE)

    async def caught(name: str) -> str:
        async with turns:
            code, output = await _pytest(PLANTS[name].tests, name)
        (stage.folder / f"planted-{name.replace(' ', '-')}.txt").write_text(output)
        return "" if code == TESTS_FAILED else f"{name} (exit {code}, {_last(output)})"

    missed = [text for text in await asyncio.gather(*map(caught, names)) if text]
    facts = f"{len(names) - len(missed)} of {len(names)} caught"
    return Finding(not missed, f"{facts}; not caught: {'; '.join(missed)}" if missed else facts)


async def _pytest(tests: list[str] | tuple[str, ...], name: str) -> tuple[int, str]:
    """Exit code and output of the tests, with that bug planted if it is named."""
    options = ["-p", "no:cacheprovider", "-q", *(("-x", "-p", "tests.faults.planted") if name else ("-n", str(AT_ONCE)))]
    environment = {key: text for key, text in os.environ.items() if not key.startswith(("GATEWAY_", "PYTEST_", "PLANTED"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", *options, *tests),
        cwd=ROOT,
        env=environment | ({"PLANTED": name} if name else {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode()


def _last(output: str) -> str:
    return output.strip().rpartition("\n")[2]
