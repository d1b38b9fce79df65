"""The checks of an event's fields that no type expresses: fields against each other, and sizes that settings limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Raw

from gateway.errors import CommandError, ErrorCode
from gateway.faults import nesting_fault
from gateway.settings import Settings


class _HasManager(Protocol):
    @property
    def manager_id(self) -> int: ...


def require_times(start_time: int, end_time: int) -> None:
    """Raises CommandError INVALID_DATA when the event ends before it starts."""
    if end_time < start_time:
        raise CommandError(ErrorCode.INVALID_DATA, "end_time must be >= start_time", field="end_time")


def require_text(title: str, ast_json: Raw, settings: Settings) -> None:
    """Raises CommandError: INVALID_DATA for a body of the wrong kind, TOO_LARGE over a limit."""
    if len(title) > settings.title_chars_max:
        raise _too_large("title", f"longer than {settings.title_chars_max} characters")
    body = bytes(ast_json)
    if body[0] not in b'{["n':
        raise CommandError(ErrorCode.INVALID_DATA, "ast_json must be an object, an array, a string or null", field="ast_json")
    if len(body) > settings.body_bytes_max:
        raise _too_large("ast_json", f"larger than {settings.body_bytes_max} bytes")
    if fault := nesting_fault("ast_json", body, settings.body_nesting_max):
        raise fault


def require_participants(
    participants: Sequence[_HasManager] | None, manager_ids: Sequence[int] | None, settings: Settings
) -> None:
    """Raises CommandError: TOO_LARGE for too many, INVALID_DATA for the same manager twice in `participants`."""
    for name, given in (("participants", participants), ("participant_manager_ids", manager_ids)):
        if given is not None and len(given) > settings.participants_max:
            raise _too_large(name, f"longer than {settings.participants_max} entries")
    seen: set[int] = set()
    for index, row in enumerate(participants or ()):
        if row.manager_id in seen:
            raise CommandError(
                ErrorCode.INVALID_DATA,
                f"participants names manager {row.manager_id} twice; name each once",
                field=f"participants[{index}].manager_id",
            )
        seen.add(row.manager_id)


def _too_large(field: str, what: str) -> CommandError:
    return CommandError(ErrorCode.TOO_LARGE, f"{field} is {what}", field=field)
