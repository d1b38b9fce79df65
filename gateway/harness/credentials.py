"""Who the harness is: tokens signed with the gateway's own key, for managers of its database, or one token that was given."""

from __future__ import annotations

import asyncio
import base64
import os
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import click
import msgspec
from msgspec import Struct

from gateway import managers
from gateway.access import CALENDAR_TYPES
from gateway.backend import backend, password_file, require_secret, secret_file
from gateway.database_pool import connect_arguments
from gateway.environment import load
from gateway.errors import StartupError
from gateway.harness.stops import let_it_end
from gateway.schema import check, connect
from gateway.settings import Settings
from gateway.tokens import Session, Tokens

MEMBERS_MAX = 16
"""Managers that a synthetic load acts for, unless they are named."""
NAMED_MAX = 10
"""Managers that a sentence names; of more it says how many."""
SESSION_SECONDS_MIN = 8 * 86_400
"""However short GATEWAY_SESSION_SECONDS is: longer than `--seconds` may be, so that no session ends within a run."""
_OPEN = "INSERT INTO session (id, manager_id, expires_time) VALUES ($1, $2, $3)"
_END = "UPDATE session SET revoked_time = $2 WHERE id = ANY ($1) AND revoked_time = 0"
_REMOVE = "DELETE FROM session WHERE id = ANY ($1)"
"""Only once they are ended: each live one that is removed would have every gateway decide anew what all sessions may do."""


class Member(Struct):
    """A manager that the harness acts for. `spare_tokens` are sessions made to be ended by MngLogout.

    `sessions` are the ids of all that were opened for the run; `passwords` is the folder of the password files, on the embedded
    default alone.
    """

    manager_id: int
    token: str
    login: str = ""
    password: str = ""
    all_desks: bool = False
    spare_tokens: list[str] = []
    sessions: Sequence[str] = ()
    passwords: str = ""


def named(managers: Sequence[int]) -> str:
    """Managers, one at least, as a sentence names them: manager 11; managers 11, 12 and 21."""
    *words, last = map(str, managers[:NAMED_MAX])
    if len(managers) > NAMED_MAX:
        words, last = [*words, last], f"{len(managers) - NAMED_MAX:,} more"
    return f"managers {', '.join(words)} and {last}" if words else f"manager {last}"


def given(token: str, origin: str) -> Member:
    """The manager of a token that is shown as it is. Raises StartupError, which names its origin, when it is no token."""
    try:
        claims = token.split(".")[1]
        found = msgspec.json.decode(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        return Member(int(found["sub"]), token)
    except (IndexError, ValueError, KeyError, TypeError):
        raise StartupError(f"{origin} is no token: `gateway token --manager ID` prints one") from None


@contextmanager
def signed(wanted: Collection[int], *, spare: int = 0, any_of_them: bool = False) -> Iterator[list[Member]]:
    """A member for each wanted manager, or for the first ones that may use the calendar.

    Their sessions are opened in the database that the settings name, and removed from it at the end. `any_of_them`
    leaves out those who are not there. Raises StartupError.
    """
    settings = load(os.environ)
    if settings.database_url:
        require_secret(settings)
    members: list[Member] = []
    try:
        with backend(settings) as (completed, dsn):
            members += asyncio.run(_open(completed, dsn, wanted, spare, any_of_them=any_of_them))
        yield members
    finally:
        if members:
            _end(settings, [session for member in members for session in member.sessions])


def refusal(url: str, origin: str | None) -> str:
    """What to say when a gateway takes none of the tokens: where one that was given is from, or which key signed them."""
    if origin:
        return (
            f"The gateway at {url} refuses the token of {origin}: it has ended, or another gateway signed it. "
            "`gateway token --manager ID`, typed in the folder that the gateway runs in, prints one."
        )
    settings = load(os.environ)
    key = "GATEWAY_TOKEN_SECRET" if settings.token_secret else secret_file(Path(settings.data_dir).absolute())
    return (
        f"The gateway at {url} refuses tokens signed with the key in {key}: it has another key, or another database. "
        "Type this in the folder that the gateway runs in; or set GATEWAY_DATA_DIR, or GATEWAY_DATABASE_URL and "
        "GATEWAY_TOKEN_SECRET, as they are there; or give --token what `gateway token --manager ID` prints there."
    )


async def _open(settings: Settings, dsn: str, wanted: Collection[int], spare: int, *, any_of_them: bool) -> list[Member]:
    db = await connect(connect_arguments(settings, dsn))
    try:
        await check(db)
        rows = {row["id"]: row for row in await managers.list_all(db) if not row["disabled"]}
        usable = [row for row in rows.values() if row["type"] in CALENDAR_TYPES]
        if not wanted:
            chosen = usable[:MEMBERS_MAX]
        else:
            if (missing := [str(i) for i in wanted if i not in rows]) and not any_of_them:
                raise StartupError(
                    f"No manager {', '.join(missing)} may sign in to this database: add them with `gateway manager add`, "
                    "or enable them."
                )
            chosen = [rows[manager_id] for manager_id in wanted if manager_id in rows]
        if not chosen:
            raise StartupError("No manager of this database can be used: add one with `gateway manager add`, or give --token.")
        async with db.transaction():  # interrupted, it leaves none of them
            return [await _member(db, settings, row, spare) for row in chosen]
    finally:
        await db.close()


def _end(settings: Settings, sessions: Sequence[str]) -> None:
    """What the run found is not to be lost when the database is gone by now: that is told, and no more."""
    let_it_end()

    async def remove(dsn: str, completed: Settings) -> None:
        db = await connect(connect_arguments(completed, dsn))
        try:
            await db.execute(_END, sessions, int(time.time()))
            await db.execute(_REMOVE, sessions)
        finally:
            await db.close()

    try:
        with backend(settings) as (completed, dsn):
            asyncio.run(remove(dsn, completed))
    except (StartupError, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        click.echo(f"The sessions of this run ({len(sessions):,}) were not ended: {error}", err=True)


async def _member(db: Any, settings: Settings, row: Any, spare: int) -> Member:
    now = int(time.time())
    expires_time = now + max(settings.session_seconds, SESSION_SECONDS_MIN)
    session, *spares = (Session(str(uuid.uuid4()), row["id"], expires_time) for _ in range(1 + spare))
    await db.executemany(_OPEN, [(s.id, s.manager_id, s.expires_time) for s in (session, *spares)])
    tokens = Tokens(settings)
    return Member(
        row["id"],
        tokens.sign(session),
        row["login"],
        _password(settings, row["id"]),
        row["desk_mask"] == "*",
        [tokens.sign(one) for one in spares],
        [one.id for one in (session, *spares)],
        "" if settings.database_url else str(password_file(Path(settings.data_dir), row["id"]).parent),
    )


def _password(settings: Settings, manager_id: int) -> str:
    """Known on the embedded default alone."""
    path = password_file(Path(settings.data_dir), manager_id)
    return path.read_text().strip() if not settings.database_url and path.exists() else ""
