"""`gateway revoke`: ends a session, or a token of another issuer, in every gateway from its next command on."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import click
import jwt

from gateway.backend import backend
from gateway.cli.connect import connected
from gateway.environment import load
from gateway.errors import StartupError
from gateway.fields import INTEGER_MAX

_REVOKE = "UPDATE session SET revoked_time = $2 WHERE id = $1 AND revoked_time = 0 RETURNING id"
_REVOKE_FOREIGN = """
    INSERT INTO revoked_token (issuer, jti, expires_time) VALUES ($1, $2, $3)
    ON CONFLICT (issuer, jti) DO UPDATE SET expires_time = greatest(revoked_token.expires_time, excluded.expires_time)
"""


class _Named(NamedTuple):
    """What to revoke; `expires_time` is how long another issuer's token has to be remembered."""

    issuer: str
    jti: str
    expires_time: int = INTEGER_MAX


@click.command()
@click.option("--jti", help="The token's `jti`; the gateway's own is the session's id.")
@click.option("--issuer", help="The token's `iss`; without it, the gateway's own.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="File of the token instead, - for standard input; its signature is not asked.",
)
def revoke(jti: str | None, issuer: str | None, token_file: Path | None) -> None:
    """Revoke a token. It is named by --jti and --issuer, or held by a file."""
    settings = load(os.environ)
    if (jti is None) == (token_file is None) or (token_file is not None and issuer is not None):
        raise StartupError("Name a token by --jti, with --issuer when another issuer made it, or by --token-file.")
    named = _Named(issuer or settings.token_issuer, jti) if jti is not None else _read(token_file)

    async def store(db: Any) -> None:
        if named.issuer != settings.token_issuer:
            await db.execute(_REVOKE_FOREIGN, *named)
        elif await db.fetchval(_REVOKE, named.jti, int(time.time())) is None:
            raise StartupError("There is no such live session; a token of another issuer needs --issuer.")

    with backend(settings) as (completed, dsn):
        asyncio.run(connected(completed, dsn, store))
    click.echo("Revoked.")


def _read(path: Path | None) -> _Named:
    with click.open_file(str(path)) as file:
        text = file.read().strip()
    try:
        claims = jwt.decode(text, options={"verify_signature": False})
        return _Named(str(claims["iss"]), str(claims["jti"]), min(int(claims["exp"]), INTEGER_MAX))
    except (jwt.PyJWTError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise StartupError("--token-file holds no token with iss, jti and exp.") from None
