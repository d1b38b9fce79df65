"""What a line of the scoreboard is: a promise, the function that tries to break it, and what that found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from tests.faults.stage import Stage

Kind = Literal["c", "t"]
"""c counts, and also runs in CI in a shorter form; t times, against a control of the same run, and only here."""


class Finding(NamedTuple):
    """What a check found. `passed` is None when it could not be run, which is never a pass; `facts` says what or why."""

    passed: bool | None
    facts: str


class Check(NamedTuple):
    """One line of the scoreboard."""

    name: str
    kind: Kind
    promise: str
    criterion: str
    run: Callable[[Stage], Awaitable[Finding]]


def not_run(why: str) -> Finding:
    """What needs more than this machine gives."""
    return Finding(None, f"not run: {why}")
