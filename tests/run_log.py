"""Everything that was logged in a run of the tests, searched at its end for what must never be in a log.

In-process gateways and command lines hand over what they wrote; log files of processes (PostgreSQL's own too) and captures are
found in the run's folders. The tests' standard passwords, keys, titles and bodies are the canaries, and the start of any token.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PASSWORD = "correct horse"
SECRET = "a secret of the tests, long enough to be one"
KEY = "a key that is long enough for every HMAC there is, SHA-512 among them"
TITLE = "Retention sync"
BODY = "the body of an event of the tests"
TOKEN = "eyJhbGci"
"""Every token begins so: it is `{"alg` in base64."""

SECRETS = (TOKEN, PASSWORD, SECRET, KEY)
CANARIES = (*SECRETS, TITLE, BODY)
SHOWN_CHARS = 200


class Heard(NamedTuple):
    """What one source wrote, and the test that ran then."""

    source: str
    text: str


_heard: list[Heard] = []


def heard(text: str) -> None:
    """Takes note of what was logged."""
    _heard.append(Heard(os.environ.get("PYTEST_CURRENT_TEST", "between tests"), text))


def leaks(folders: Iterable[Path]) -> list[str]:
    """Each canary in what was heard and in the files below the folders, where it was, and the first line it was in."""
    found = [*_found(_heard, CANARIES)]
    for folder in folders:
        found += _found(_files(folder, "*.log"), CANARIES)
        found += _found(_files(folder, "*.ndjson"), SECRETS)  # captures hold titles and bodies
    return found


def _files(folder: Path, names: str) -> Iterator[Heard]:
    return (Heard(str(path), path.read_text(errors="replace")) for path in sorted(folder.rglob(names)) if path.is_file())


def _found(sources: Iterable[Heard], canaries: tuple[str, ...]) -> Iterator[str]:
    for source, text in sources:
        for canary in canaries:
            if canary in text:
                line = next(line for line in text.splitlines() if canary in line)
                yield f"{source}: {canary!r} in {line[:SHOWN_CHARS]}"
