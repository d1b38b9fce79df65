"""The search of a run's logs for secrets, titles and bodies: that it would find them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import run_log
from tests.conftest import settings_for_tests
from tests.run_log import BODY, CANARIES, SECRETS, TITLE, TOKEN, Heard, leaks
from tests.test_tokens import claims, token_of

ROOT = Path(__file__).parent.parent
INNER = "tests/test_archive_calendar_event.py"


def test_run_log_finds_every_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    """In what was heard and in log files anywhere below a folder, named by source; captures may hold titles and bodies."""
    monkeypatch.setattr(run_log, "_heard", [Heard("test_x", f"fine\nnot {text} fine\n") for text in CANARIES])
    assert [f"test_x: {text!r} in not {text} fine" for text in CANARIES] == leaks([])
    monkeypatch.setattr(run_log, "_heard", [])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "deep").mkdir()
        (folder / "deep" / "gateway-1.log").write_text("\n".join(CANARIES))
        (folder / "capture.ndjson").write_text("\n".join(CANARIES))
        assert len(CANARIES) + len(SECRETS) == len(leaks([folder]))


def test_run_log_knows_tokens_by_their_beginning() -> None:
    """Every token that the gateway or the tests sign begins with the same letters."""
    assert token_of(claims()).startswith(TOKEN)


def test_run_hears_gateways_at_debug() -> None:
    """Nothing is left out of what is searched."""
    assert ("debug", 1.0) == (settings_for_tests().log_level, settings_for_tests().log_success_ratio)


def test_run_fails_when_a_gateway_logs_what_it_reads() -> None:
    """The control: with that bug planted, a run whose tests all pass fails at its end, and shows the line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.planted_leak", "--no-header", INNER]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert (1, True) == (ended.returncode, " passed, 1 error in " in ended.stdout.splitlines()[-1]), ended.stdout
    for told in ("secrets, titles or bodies in the logs of this run", INNER, TOKEN, TITLE, BODY):
        assert told in ended.stdout
