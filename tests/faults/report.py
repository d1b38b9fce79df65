"""The scoreboard on the terminal, the run as JSON beside its ledgers, and docs/reliability.md."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.faults.check import Check, Finding

Line = tuple[Check, Finding, float]
PAGE = Path(__file__).parent.parent.parent / "docs" / "reliability.md"
_WORDS = {True: "passed", False: "FAILED", None: "not run"}
_HEAD = """\
# Reliability

Each promise of the protocol, the check that tries to break it, and what its last whole run found. `make faults` runs all
checks on a PostgreSQL of its own (fsync on) and gateways in processes of their own, and writes this page; one alone is
`make faults ARGS="--only NAME"`. Checks of kind c count things and run in CI too, with smaller counts
(tests/test_reliability.py); those of kind t time things against a control of the same run, best of three. The raw ledger of a
run (every command sent and its answer) and the gateways' logs stay under `.faults/`. What could not be run says why, and is no
pass. What one gateway is like after 20 minutes of faults is shown by `make soak`: [soak.md](soak.md).
"""


def line(check: Check, finding: Finding, seconds: float) -> str:
    """One check on the terminal."""
    return f"{_WORDS[finding.passed]:8} {check.kind} {check.name:22} {seconds:5.1f} s  {finding.facts}"


def scoreboard(lines: Sequence[Line]) -> str:
    """The sums; each line was printed when it ended."""
    found = [finding.passed for _, finding, _ in lines]
    broken = [check.name for check, finding, _ in lines if finding.passed is False]
    sums = f"{found.count(True)} passed, {found.count(False)} failed, {found.count(None)} not run"
    return f"{sums}: {', '.join(broken)} fell short" if broken else sums


def keep(folder: Path, lines: Sequence[Line]) -> None:
    """Writes the run as JSON."""
    rows = [
        {"name": check.name, "passed": finding.passed, "facts": finding.facts, "seconds": round(seconds, 1)}
        for check, finding, seconds in lines
    ]
    (folder / "scoreboard.json").write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1))


def write_page(lines: Sequence[Line]) -> None:
    """Writes docs/reliability.md from a whole run."""
    rows = [
        f"| `{check.name}` {check.kind} | {check.promise} | {check.criterion} | {_WORDS[finding.passed]} | {_cell(finding)} |"
        for check, finding, _ in lines
    ]
    seconds = sum(seconds for *_, seconds in lines)
    run = f"The last whole run: {time.strftime('%Y-%m-%d')}, {seconds:.0f} s: {scoreboard(lines)}."
    table = ["| check | promise | passes with | | found |", "| --- | --- | --- | --- | --- |", *rows]
    PAGE.write_text("\n".join([_HEAD, run, "", *table, ""]))


def _cell(finding: Finding) -> str:
    return finding.facts.replace("|", "\\|").replace("\n", " ")
