"""`gateway schema`: compares the database with the version this gateway needs, or takes it there."""

from __future__ import annotations

import asyncio
import os

import click

from gateway import schema as steps
from gateway.backend import backend
from gateway.cli.connect import connected
from gateway.environment import load


@click.group()
def schema() -> None:
    """The tables this gateway needs; schema.sql documents them."""


@schema.command()
def check() -> None:
    """Say whether the database has the version this gateway needs. Exit code 2 when not."""
    with backend(load(os.environ)) as (settings, dsn):
        asyncio.run(connected(settings, dsn, steps.check, any_version=True))
    click.echo(f"The database schema has version {steps.current_version()}, as needed.")


@schema.command()
def apply() -> None:
    """Take the database forward to the version this gateway needs. It may be empty; one transaction does all."""
    with backend(load(os.environ)) as (settings, dsn):
        before, after = asyncio.run(connected(settings, dsn, steps.apply, any_version=True))
    click.echo(f"The database schema has version {after}" + (", as before." if before == after else f"; it had {before}."))
