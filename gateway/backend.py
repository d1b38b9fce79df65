"""Where the data is: the server that GATEWAY_DATABASE_URL names, or the embedded default with all that it makes for itself."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from gateway import grants, managers, schema
from gateway.database_pool import connect_arguments
from gateway.embedded import EmbeddedPostgres
from gateway.environment import SECRET_CHARS_MIN
from gateway.errors import StartupError
from gateway.managers import NewManager
from gateway.settings import Settings

DEMO_MANAGERS = (10, 11, 12)
"""Made on the embedded default alone, for the first command of a new user."""


@contextmanager
def backend(settings: Settings, *, serving: bool = False) -> Iterator[tuple[Settings, str]]:
    """The settings completed with the token secret, and the address of the database.

    The embedded default is made ready: started (or borrowed from the gateway that runs it), at the current schema, with
    its secret and its managers. A tool (`serving` false) takes one that is there and makes none. Raises StartupError, also
    when the server of GATEWAY_DATABASE_URL does not let its user do what the block asks of it.
    """
    if settings.database_url:
        try:
            yield settings, settings.database_url
        except asyncpg.InsufficientPrivilegeError as error:
            raise grants.denied(error) from None
        return
    data_dir = Path(settings.data_dir).absolute()
    postgres = EmbeddedPostgres(data_dir)
    if not serving and not postgres.was_made():
        raise StartupError(
            f"There is no database in {data_dir}: type this in the folder that the gateway runs in, or set GATEWAY_DATA_DIR, "
            "or GATEWAY_DATABASE_URL, as it is there. `gateway serve` makes an embedded one."
        )
    with _owned(postgres) if serving else postgres.borrowed() as dsn:
        secret = asyncio.run(_prepare(settings, dsn, data_dir))
        yield msgspec.structs.replace(settings, token_secret=settings.token_secret or secret), dsn


def place_of(settings: Settings) -> str:
    """The database as messages name it."""
    if settings.database_url:
        return "the database of GATEWAY_DATABASE_URL"
    return f"the embedded database in {Path(settings.data_dir).absolute()}"


def require_secret(settings: Settings) -> None:
    """Raises StartupError without a token secret: on a shared database each gateway must sign with the same one."""
    if not settings.token_secret:
        raise StartupError(
            "GATEWAY_TOKEN_SECRET is not set: with GATEWAY_DATABASE_URL it must be given, the same for every gateway on "
            "this database. Make one: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
        )


def password_file(data_dir: Path, manager_id: int) -> Path:
    """Where the embedded default keeps the password of one of its managers."""
    return data_dir / "passwords" / str(manager_id)


def forget_password(settings: Settings, manager_id: int) -> None:
    """Removes the password that the embedded default made for a manager who has another now."""
    if not settings.database_url:
        password_file(Path(settings.data_dir), manager_id).unlink(missing_ok=True)


def secret_file(data_dir: Path) -> Path:
    """Where the embedded default keeps the key that signs its tokens."""
    return data_dir / "token_secret"


@contextmanager
def _owned(postgres: EmbeddedPostgres) -> Iterator[str]:
    try:
        postgres.start()
        yield postgres.dsn
    finally:
        postgres.stop()


def _secret(data_dir: Path) -> str:
    path = secret_file(data_dir)
    if not path.exists():
        _write_private(path, secrets.token_urlsafe(48))
    secret = path.read_text().strip()
    if len(secret) < SECRET_CHARS_MIN:
        raise StartupError(
            f"{path} must hold the key that signs tokens, {SECRET_CHARS_MIN} characters or more: delete it, and the next start "
            "makes one; tokens signed with another are refused."
        )
    return secret


async def _prepare(settings: Settings, dsn: str, data_dir: Path) -> str:
    """Makes what is missing, all of it or none, and returns the secret. A gateway and a tool may do this at once."""
    db = await schema.connect(connect_arguments(settings, dsn))
    try:
        await schema.apply(db)
        async with db.transaction():
            await db.execute("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0")
            await db.execute("LOCK TABLE manager IN SHARE ROW EXCLUSIVE MODE")
            if not await managers.list_all(db):
                await _add_demo_managers(db, data_dir)
            return _secret(data_dir)
    finally:
        await db.close()


async def _add_demo_managers(db: Any, data_dir: Path) -> None:
    password_file(data_dir, 0).parent.mkdir(mode=0o700, exist_ok=True)
    for manager_id in DEMO_MANAGERS:
        password = secrets.token_urlsafe(12)
        _write_private(password_file(data_dir, manager_id), password)
        await managers.add(db, NewManager(id=manager_id, login=str(manager_id)), password)


def _write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner reads; whole or not at all, and on disk when this returns."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
