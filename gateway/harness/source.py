"""What a run and its connections ask of a source of commands: a mix (mix.py) or a recording (replay.py)."""

from __future__ import annotations

from typing import Protocol

from gateway.harness.kinds import Job


class Source(Protocol):
    """Where commands come from; each one that was taken is reported once as answered or lost."""

    def take(self, number: int) -> Job | None:
        """The next command for a connection, None when there is none for now."""

    def answered(self, job: Job, message: bytes, *, ok: bool) -> None:
        """The reply came; `ok`: its status was as expected."""

    def lost(self, job: Job) -> None:
        """No reply will come."""

    def abandon(self, number: int) -> int:
        """The connection will not come back; how many commands are left unsent by that."""

    def exhausted(self) -> bool:
        """Whether nothing more will be taken."""


class RunSource(Source, Protocol):
    """A source that can be stopped and knows what it left out."""

    def stop(self) -> int:
        """Nothing more is to be sent; how many commands that leaves unsent."""

    def skipped(self) -> dict[str, int]:
        """Commands left out, by reason."""
