"""What a soak concludes: from answers and rows, and from looks at a gateway at rest."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.embedded import EmbeddedPostgres
from tests.client import WAIT_SECONDS
from tests.faults.ledger import Truth
from tests.faults.lives import GONE, Lives, title_of
from tests.faults.soak_report import Soaked
from tests.faults.vitals import Sample, trends
from tests.process import ROOT, becomes_true, children_of

DONE, REFUSED, LOST = {"status": 200}, {"status": 503, "outcome": "not_executed"}, {"status": 504, "outcome": "unknown"}
GOOD = Truth(sent=10, acknowledged=9, lost=0, doubled=0, torn=0, denied=0, late=0, strange=0, bugs=0)
LOOKS = 60
SOAK_IN = """
import sys
from pathlib import Path
from tests.faults import soak
soak.FAULTS_DIR = Path(sys.argv.pop())
soak.main()
"""
IN_BACKGROUND = ["/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
"""Starts a program as a shell does behind `&`, with SIGINT ignored."""

Answers = list[tuple[int, dict[str, Any] | None]]


@pytest.mark.parametrize(
    ("answers", "rows", "broken"),
    [
        ([(1, DONE)], [1], ""),
        ([(1, DONE)], [], "lost"),
        ([(1, DONE), (2, DONE)], [1], "lost"),
        ([(1, DONE), (2, REFUSED)], [1], ""),
        ([(1, DONE), (2, REFUSED)], [2], "denied"),
        ([(1, DONE), (2, LOST)], [1], ""),
        ([(1, DONE), (2, None)], [2], ""),
        ([(1, DONE), (2, LOST)], [], "lost"),
        ([(1, DONE), (GONE, DONE)], [], ""),
        ([(1, DONE), (GONE, DONE)], [1], "lost"),
        ([(1, DONE), (GONE, LOST)], [], ""),
        ([(1, REFUSED)], [], ""),
        ([(1, REFUSED)], [1], "denied"),
        ([(1, LOST), (1, DONE)], [], "lost"),
    ],
)
def test_life_tells_what_its_rows_may_be(tmp_path, answers: Answers, rows: list[int], broken: str) -> None:
    """An acknowledged change that is not there is lost; one that was refused and is there is denied; unknown is either."""
    lives = Lives(tmp_path / "lives.jsonl", 10)
    life = lives.begin()
    for revision, reply in answers:
        life.last = max(life.last, revision)
        lives.answer(life, revision, reply)
    assert broken == life.broken([title_of(life, revision) for revision in rows])


def looks(**growing: Callable[[int], float]) -> list[Sample]:
    """Looks at a gateway that is warm after eight of them, and restless by a little; `growing` adds to a measure."""
    found = []
    for number in range(LOOKS):
        restless = number % 3
        one = Sample(20.0 * number, "a fault", 85.0 + restless - 30 * (number < 8), 39 + restless % 2, 40, 0)
        for name, more in growing.items():
            setattr(one, name, getattr(one, name) + more(number))
        found.append(one)
    return found


def test_trends_of_a_gateway_that_only_warmed_up_are_flat() -> None:
    """What it took before the warm-up ended, and one bad look, do not count."""
    assert [True] * 3 == [trend.flat for trend in trends(looks())]
    assert [True] * 3 == [trend.flat for trend in trends(looks(tasks=lambda number: 100 * (number == 50)))]


@pytest.mark.parametrize(
    ("name", "more", "place"),
    [
        ("memory_mib", lambda number: number * 0.2, 0),
        ("descriptors", lambda number: number // 8, 1),
        ("tasks", lambda number: number // 8, 2),
    ],
)
def test_trends_of_a_gateway_that_leaks_grow(name: str, more: Callable[[int], float], place: int) -> None:
    """A descriptor or a task in each turn of the faults is seen, and memory of 12 MiB in all; the others stay flat."""
    assert [number != place for number in range(3)] == [trend.flat for trend in trends(looks(**{name: more}))]


@pytest.mark.parametrize(
    "wrong",
    [
        {"samples": []},
        {"samples": looks(tasks=lambda number: number)},
        {"truth": GOOD._replace(lost=1)},
        {"truth": GOOD._replace(bugs=1)},
        {"unanswered": 1},
        {"lost_sockets": 1},
        {"failures": ["SIGHUP at 20 s: TimeoutError: "]},
    ],
)
def test_soak_passes_only_when_nothing_is_wrong(wrong: dict[str, Any]) -> None:
    """One thing that falls short is enough."""
    good = Soaked(1200, 20, looks(), GOOD, Counter({"200": 10}), unanswered=0, lost_sockets=0, failures=[])
    assert (True, False) == (good.passed, good._replace(**wrong).passed)


def is_gateway(pid: int) -> bool:
    """Whether this process is there and serves."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().endswith("\0serve\0")
    except OSError:
        return False


async def test_soak_that_is_terminated_leaves_nothing_running(scratch_dir: Path) -> None:
    """SIGTERM, as `make` hands it on, ends its gateway and its PostgreSQL too."""
    server, found = EmbeddedPostgres(scratch_dir / "soak" / "data"), list[int]()
    nowhere = asyncio.subprocess.DEVNULL
    command = [*IN_BACKGROUND, sys.executable, "-c", SOAK_IN, str(scratch_dir / "soak")]
    soak = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=nowhere, stderr=nowhere)

    def gateways() -> list[int]:
        found.extend(filter(is_gateway, children_of(soak.pid)))
        return found

    try:
        await becomes_true(server.is_running)
        await becomes_true(gateways)
        soak.terminate()
        async with asyncio.timeout(WAIT_SECONDS):
            assert 1 == await soak.wait()
        assert ([], False) == (list(filter(is_gateway, found)), server.is_running())
    finally:
        for pid in filter(is_gateway, found):
            os.kill(pid, signal.SIGKILL)
        if soak.returncode is None:
            soak.kill()
            await soak.wait()
        server.start()
        server.stop()
