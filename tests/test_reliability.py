"""The counting checks of `make faults`, each with its smallest counts, and the bugs that it plants."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.embedded import EmbeddedPostgres
from tests.faults.planted import edited
from tests.faults.plants import CONTROLS, PLANTS
from tests.faults.stage import Stage
from tests.faults.table import CHECKS


@pytest.fixture(scope="module")
def server(scratch_dir: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that may be killed, with fsync on."""
    server = EmbeddedPostgres(scratch_dir / "faults")
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("check", [check for check in CHECKS if check.kind == "c"], ids=lambda check: check.name)
async def test_promise_holds(server, tmp_path, check):
    """The check finds nothing broken; what this machine cannot run is skipped, saying why."""
    found = await check.run(Stage(server, tmp_path, short=True))
    if found.passed is None:
        pytest.skip(found.facts)
    assert found.passed, found.facts


@pytest.mark.parametrize("name", [*CONTROLS, *PLANTS])
def test_planted_bug_finds_its_place(name):
    """Each bug's text is in the gateway, once, and what comes of it is Python."""
    plant = (CONTROLS | PLANTS)[name]
    spec = importlib.util.find_spec(plant.module)
    assert spec is not None
    assert spec.origin is not None
    compile(edited(Path(spec.origin).read_text(), plant), spec.origin, "exec")


def test_checks_have_names_of_their_own():
    """A name picks one check."""
    assert len(CHECKS) == len({check.name for check in CHECKS})
