"""Secrets and texts of clients in whatever is kept: a tour with canaries at DEBUG, and a search for each of them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gateway.commands.table import COMMANDS
from tests.faults.canary import Canaries, Canary
from tests.faults.canary_tour import QUICK, Tour
from tests.faults.check import Finding
from tests.faults.plants import FRAMES_LOGGED, LIBRARIES_LOGGED
from tests.faults.stage import Stage, sessions
from tests.scrape import SHOWN

STATUSES = {200, 400, 401, 403, 404, 409, 413, 429, 500, 503, 504}
"""A tour that misses one of them has left something out."""
UNDECODED = {"no frame", "not UTF-8", "too large", "reply"}
"""Ways that neither of the two bugs sees: what never becomes a message, and what the gateway says itself."""
RECORDED = {"key", "name"}
"""What a recording with redaction keeps on purpose: keys, and names that a client made up."""
SHOWN_MAX = 5


class Toured(NamedTuple):
    """What a tour found: each canary and the file it was in."""

    sent: Canaries
    found: set[tuple[str, str]]
    missing: list[str]
    """what the tour did not come to, or left nothing of"""

    @property
    def leaked(self) -> set[Canary]:
        return {self.sent[text] for text, _ in self.found}


async def canaries(stage: Stage) -> Finding:
    """No canary is found; with a bug planted that logs what clients send, and another that logs what libraries say, all are."""
    clean = await _toured(stage, "")
    controls = await asyncio.gather(*(_toured(stage, plant) for plant in (FRAMES_LOGGED, LIBRARIES_LOGGED)))
    sent = {canary for control in controls for canary in control.sent.values()}
    given_away = {canary for control in controls for canary in control.leaked}
    unseen = {canary for canary in sent - given_away if canary.way not in UNDECODED}
    shown = [f"{clean.sent[text].kind} ({clean.sent[text].way}) in {name}" for text, name in sorted(clean.found)]
    facts = (
        f"{len(clean.sent)} canaries sent in {len(set(clean.sent.values()))} ways: {len(clean.found)} found; two bugs that log "
        f"give away {len(given_away)} of {len(sent)} ways"
    )
    unseen_ways = [f"the bugs do not give away: {canary.kind} ({canary.way})" for canary in sorted(unseen)]
    wrong = [*shown[:SHOWN_MAX], *clean.missing, *unseen_ways]
    return Finding(not wrong, "; ".join([facts, *wrong]))


async def _toured(stage: Stage, plant: str) -> Toured:
    """A tour of a gateway of its own, with that bug if one is named, and the search of all that it left behind."""
    folder = stage.folder / f"canaries-{plant.replace(' ', '-') or 'clean'}"
    folder.mkdir()
    own, sent = Stage(stage.server, folder, short=stage.short or bool(plant)), Canaries()
    settings = {**QUICK, **SHOWN, "log_level": "debug", "log_success_ratio": 1, "drain_seconds": 5}
    recording = {"capture_dir": folder / "capture", "capture_text": "redact"}
    try:
        async with own.database() as dsn:
            tokens = await sessions(dsn, [10] * 4)
            async with own.gateway(dsn, plant, **settings, **recording) as gateway:
                tour = Tour(own, gateway, dsn, sent, tokens)
                code = await tour.run()
        (folder / "metrics.txt").write_text(tour.page)
        found = set(_search(sent, folder, stage.server.log_path))
        return Toured(sent, found, [*_not_reached(tour), *_not_kept(sent, folder), *([f"exit code {code}"] if code else [])])
    finally:
        if plant:
            shutil.rmtree(folder)  # what was logged on purpose is no leak of the run that it is part of


def _not_reached(tour: Tour) -> list[str]:
    """Statuses that no command was answered with, and commands that never succeeded or never failed."""
    statuses = {status for _, status in tour.told}
    succeeded = {command for command, status in tour.told if status == 200}
    failed = {command for command, status in tour.told if status != 200}
    return [f"no {name}" for name in (*(STATUSES - statuses), *(COMMANDS.keys() - succeeded), *(COMMANDS.keys() - failed))]


def _not_kept(sent: Canaries, folder: Path) -> list[str]:
    """What is searched and shows no sign of the tour: a recording keeps its keys, the metrics page its counts."""
    recording = "".join(path.read_text() for path in folder.rglob("*.ndjson"))
    recorded = any(canary in recording for canary, what in sent.items() if what.kind in RECORDED)
    counted = 'command="MngLogout",status="200"' in (folder / "metrics.txt").read_text()
    return [f"nothing on {name}" for name, kept in (("the recording", recorded), ("the metrics page", counted)) if not kept]


def _search(sent: Canaries, folder: Path, server_log: Path) -> Iterator[tuple[str, str]]:
    """Each canary that is where it must not be, and the name of the file."""
    for path in [*sorted(folder.rglob("*")), server_log]:
        text = path.read_text(errors="replace") if path.is_file() else ""
        allowed = RECORDED if path.suffix == ".ndjson" else set()
        yield from ((canary, path.name) for canary, what in sent.items() if what.kind not in allowed and canary in text)
