"""Managers as the command line keeps them: adding, listing, rights, disabling, passwords. Signing in is in sessions.py."""

from __future__ import annotations

import re
from typing import Any

import asyncpg
from msgspec import Struct

from gateway.access import SessionType, split_mask
from gateway.errors import StartupError
from gateway.fields import INTEGER_MAX
from gateway.passwords import PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN, hash_password

_BRAND = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PATTERN = re.compile(r"(! *)?[A-Za-z0-9_.*-]+")
_END_SESSIONS = "UPDATE session SET revoked_time = extract(epoch FROM now()) WHERE manager_id = $1 AND revoked_time = 0"


class NewManager(Struct, frozen=True, kw_only=True):
    """A manager to add. The first brand is the one that events get which name none."""

    id: int
    login: str
    type: int = SessionType.CRM_MANAGER
    brands: tuple[str, ...] = ("default",)
    desk_mask: str = "*"


class Rights(Struct, frozen=True, kw_only=True):
    """The rights that a manager is to have; None stays as it is."""

    type: int | None = None
    brands: tuple[str, ...] | None = None
    desk_mask: str | None = None


async def add(db: Any, manager: NewManager, password: str) -> None:
    """Stores a manager. Raises StartupError that names what is wrong, or the id or login that is taken."""
    _check(manager, password)
    try:
        await db.execute(
            "INSERT INTO manager (id, login, password_hash, type, brands, desk_mask) VALUES ($1, $2, $3, $4, $5, $6)",
            manager.id,
            manager.login,
            hash_password(password),
            int(manager.type),
            list(manager.brands),
            manager.desk_mask,
        )
    except asyncpg.UniqueViolationError as error:
        what = "login" if error.constraint_name == "manager_login_is_unique" else "id"
        raise StartupError(f"A manager with this {what} exists already: choose another --{what}.") from None


async def list_all(db: Any) -> list[asyncpg.Record]:
    """Every manager without the password hash, by id."""
    rows: list[asyncpg.Record] = await db.fetch("SELECT id, login, type, brands, desk_mask, disabled FROM manager ORDER BY id")
    return rows


async def change(db: Any, manager_id: int, rights: Rights) -> None:
    """Gives a manager other rights from the next command on. Raises StartupError that names what is wrong or missing."""
    if rights == Rights():
        raise StartupError("There is nothing to change: give --brand, --desk-mask or --type what it is to be.")
    _check_id(manager_id)
    if rights.brands is not None:
        _check_brands(rights.brands)
    if rights.desk_mask is not None:
        _check_desk_mask(rights.desk_mask)
    done = await db.fetchval(
        """
        UPDATE manager SET type = coalesce($2, type), brands = coalesce($3, brands), desk_mask = coalesce($4, desk_mask)
        WHERE id = $1 RETURNING id
        """,
        manager_id,
        rights.type,
        rights.brands,
        rights.desk_mask,
    )
    if done is None:
        raise _unknown(manager_id)


async def set_disabled(db: Any, manager_id: int, *, disabled: bool) -> None:
    """Bars a manager from the next command on and ends the manager's sessions, or lets the manager sign in again."""
    done = await db.fetchval(
        f"""
        WITH changed AS (UPDATE manager SET disabled = $2 WHERE id = $1 RETURNING id), ended AS ({_END_SESSIONS} AND $2)
        SELECT id FROM changed
        """,  # noqa: S608 - made of a fragment of our own
        manager_id,
        disabled,
    )
    if done is None:
        raise _unknown(manager_id)


async def set_password(db: Any, manager_id: int, password: str) -> None:
    """Stores a new password and ends the manager's sessions: who knew the old one is out."""
    _check_password(password)
    done = await db.fetchval(
        f"""
        WITH changed AS (UPDATE manager SET password_hash = $2 WHERE id = $1 RETURNING id), ended AS ({_END_SESSIONS})
        SELECT id FROM changed
        """,  # noqa: S608 - made of a fragment of our own
        manager_id,
        hash_password(password),
    )
    if done is None:
        raise _unknown(manager_id)


async def require(db: Any, manager_id: int) -> None:
    """Raises StartupError when there is no such manager, or a disabled one."""
    disabled = await db.fetchval("SELECT disabled FROM manager WHERE id = $1", manager_id)
    if disabled is None:
        raise _unknown(manager_id)
    if disabled:
        raise StartupError(f"Manager {manager_id} is disabled: gateway manager enable {manager_id}")


def _check(manager: NewManager, password: str) -> None:
    _check_password(password)
    _check_id(manager.id)
    if not manager.login.strip() or len(manager.login) > 128 or "\0" in manager.login:
        raise StartupError("--login must be 1 to 128 characters, and not blank.")
    _check_brands(manager.brands)
    _check_desk_mask(manager.desk_mask)


def _check_id(manager_id: int) -> None:
    if not 1 <= manager_id <= INTEGER_MAX:
        raise StartupError(f"--id {manager_id} must be from 1 to {INTEGER_MAX}.")


def _check_brands(brands: tuple[str, ...]) -> None:
    if not brands:
        raise StartupError("--brand is required: a manager without a brand sees nothing.")
    for brand in brands:
        if not _BRAND.fullmatch(brand):
            raise StartupError(f"--brand {brand!r} must be up to 64 of the characters A-Z a-z 0-9 _ . -")


def _check_desk_mask(desk_mask: str) -> None:
    patterns = [pattern.strip(" ") for pattern in desk_mask.split(",")] if desk_mask else []
    if not all(_PATTERN.fullmatch(pattern) for pattern in patterns):
        raise StartupError(f"--desk-mask {desk_mask!r} must be like DESK_EU*,!DESK_EU_TEST, with commas between the patterns")
    include, exclude = split_mask(desk_mask)
    if exclude and not include:
        raise StartupError(
            f"--desk-mask {desk_mask!r} covers no desk: say what it covers before what it leaves out, like *,!DESK_X"
        )


def _check_password(password: str) -> None:
    if not PASSWORD_CHARS_MIN <= len(password) <= PASSWORD_CHARS_MAX:
        raise StartupError(f"The password must be {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters long.")


def _unknown(manager_id: int) -> StartupError:
    return StartupError(f"There is no manager {manager_id}: see gateway manager list")
