"""`gateway token`: opens a session for a manager and prints its token, for terminals, harnesses and scripts."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from typing import Any

import click

from gateway import managers
from gateway.backend import backend, require_secret
from gateway.cli.connect import connected
from gateway.environment import load
from gateway.settings import SESSION_SECONDS_MAX
from gateway.tokens import Session, Tokens


@click.command()
@click.option("--manager", "manager_id", type=int, required=True, help="The manager id.")
@click.option(
    "--seconds", type=click.IntRange(1, SESSION_SECONDS_MAX), help="Life of the session; GATEWAY_SESSION_SECONDS without it."
)
def token(manager_id: int, seconds: int | None) -> None:
    """Print a token of a new session, alone on its line."""
    settings = load(os.environ)
    if settings.database_url:
        require_secret(settings)
    session = Session(str(uuid.uuid4()), manager_id, int(time.time()) + (seconds or settings.session_seconds))

    async def store(db: Any) -> None:
        await managers.require(db, manager_id)
        await db.execute(
            "INSERT INTO session (id, manager_id, expires_time) VALUES ($1, $2, $3)",
            session.id,
            manager_id,
            session.expires_time,
        )

    with backend(settings) as (completed, dsn):
        asyncio.run(connected(completed, dsn, store))
        click.echo(Tokens(completed).sign(session))
