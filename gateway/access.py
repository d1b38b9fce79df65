"""What a session may do (`__access`): brands, desk mask and session type, and the questions that commands ask of them."""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache

from msgspec import Struct

from gateway.errors import CommandError, ErrorCode, quoted
from gateway.tokens import Session


class SessionType(IntEnum):
    """The platform's session types. Numbers are on the wire and in the manager's row."""

    USER = 0
    MANAGER = 1
    DEALER = 2
    ADMIN = 3
    SYSTEM = 4
    FIX = 5
    CUSTOMER = 9
    CRM_MANAGER = 10
    CRM_ADMIN = 11


CALENDAR_TYPES = frozenset(
    (SessionType.MANAGER, SessionType.DEALER, SessionType.ADMIN, SessionType.CRM_MANAGER, SessionType.CRM_ADMIN)
)
ADMIN_TYPES = frozenset((SessionType.ADMIN, SessionType.CRM_ADMIN))


class Access(Struct, frozen=True):
    """`__access`: built from the manager's row; nothing a client sends can change it.

    `epoch` is the state of all managers and sessions that this was read at: a statement given another one does nothing.
    """

    session: Session
    manager_id: int
    type: int
    brands: tuple[str, ...]
    desk_mask: str
    epoch: int

    def require_calendar(self) -> None:
        """Raises CommandError FORBIDDEN for a session type that has no calendar."""
        if self.type not in CALENDAR_TYPES:
            raise CommandError(ErrorCode.FORBIDDEN, "the calendar needs a manager's session type")

    def is_admin(self) -> bool:
        """Whether the session may act for other managers."""
        return self.type in ADMIN_TYPES

    def brand_for(self, brand: str | None) -> str:
        """The brand to use: the one asked for, or the first of the manager's. Raises CommandError FORBIDDEN."""
        if not brand:
            return self.brands[0]
        if brand not in self.brands:
            raise CommandError(ErrorCode.FORBIDDEN, f"no right on brand {quoted(brand)}", field="brand")
        return brand

    def require_desk(self, desk: str) -> None:
        """Raises CommandError FORBIDDEN for a desk outside the mask; no desk at all is allowed to everybody."""
        if desk and not covers(self.desk_mask, desk):
            raise CommandError(ErrorCode.FORBIDDEN, f"no right on desk {quoted(desk)}", field="desk")

    def require_creator(self, created_by: int) -> None:
        """Raises CommandError FORBIDDEN for a creator other than oneself, unless the session is an administrator's."""
        if created_by != self.manager_id and not self.is_admin():
            raise CommandError(
                ErrorCode.FORBIDDEN, "naming another manager as created_by needs ADMIN or CRM_ADMIN", field="created_by"
            )


@lru_cache(maxsize=65_536)
def covers(mask: str, desk: str) -> bool:
    """Whether a desk mask covers a desk: some plain pattern matches and no `!` pattern does, in any order."""
    include, exclude = _regexes(mask)
    return any(p.fullmatch(desk) for p in include) and not any(p.fullmatch(desk) for p in exclude)


def split_mask(mask: str) -> tuple[list[str], list[str]]:
    """The plain and the `!` patterns of a mask, without the blanks around them: `! X` that excluded nothing would let X in."""
    patterns = [pattern.strip() for pattern in mask.split(",")]
    include = [pattern for pattern in patterns if pattern and not pattern.startswith("!")]
    return include, [pattern[1:].lstrip() for pattern in patterns if pattern.startswith("!")]


@lru_cache(maxsize=4096)
def _regexes(mask: str) -> tuple[tuple[re.Pattern[str], ...], tuple[re.Pattern[str], ...]]:
    include, exclude = split_mask(mask)
    return tuple(map(_compiled, include)), tuple(map(_compiled, exclude))


def _compiled(pattern: str) -> re.Pattern[str]:
    """Each part between two `*` is taken where it first fits, for good: no mask makes a search that never ends."""
    first, *rest = (re.escape(part) for part in pattern.split("*"))
    if not rest:
        return re.compile(first)
    *middle, last = rest
    return re.compile(first + "".join(f"(?>.*?{part})" for part in middle if part) + ".*" + last, re.DOTALL)
