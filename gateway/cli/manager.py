"""`gateway manager`: adds, lists, disables and enables managers, and sets their rights and passwords."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from gateway import managers
from gateway.access import SessionType
from gateway.backend import backend, forget_password, place_of
from gateway.cli.connect import connected
from gateway.cli.password import password_of
from gateway.environment import load
from gateway.managers import NewManager, Rights

_manager_id = click.option("--id", "manager_id", type=int, required=True, help="The manager id.")
_type_name = partial(
    click.option,
    "--type",
    "type_name",
    type=click.Choice([kind.name for kind in SessionType], case_sensitive=False),
    help="The session type.",
)
_brands = partial(click.option, "--brand", "brands", multiple=True, help="A brand; repeat for more, the default one first.")
_desk_mask = partial(click.option, "--desk-mask", help="Desks covered, like DESK_EU*,!DESK_EU_TEST.")
_password_file = click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="File of the password, - for standard input; without it you are asked.",
)


@click.group()
def manager() -> None:
    """Who may sign in, and with which rights."""


@manager.command()
@_manager_id
@click.option("--login", required=True, help="The name to sign in with.")
@_type_name(default=SessionType.CRM_MANAGER.name, show_default=True)
@_brands(required=True)
@_desk_mask(default="*", show_default=True)
@_password_file
def add(
    manager_id: int, login: str, type_name: str, brands: tuple[str, ...], desk_mask: str, password_file: Path | None
) -> None:
    """Add a manager."""
    new = NewManager(id=manager_id, login=login, type=SessionType[type_name.upper()], brands=brands, desk_mask=desk_mask)
    password = password_of(password_file, new=True)
    _run(lambda db: managers.add(db, new, password))
    _tell(f"Manager {manager_id} added")


@manager.command()
@_manager_id
@_type_name()
@_brands()
@_desk_mask()
def change(manager_id: int, type_name: str | None, brands: tuple[str, ...], desk_mask: str | None) -> None:
    """Give a manager other rights, from the next command on.

    What is not given stays as it is; brands that are given take the place of all those before.
    """
    kind = None if type_name is None else SessionType[type_name.upper()]
    rights = Rights(type=kind, brands=brands or None, desk_mask=desk_mask)
    _run(lambda db: managers.change(db, manager_id, rights))
    _tell(f"Manager {manager_id} changed")


@manager.command("list")
def list_() -> None:
    """List all managers."""
    rows = _run(managers.list_all)
    click.echo(f"{'id':>16}  {'login':<20} {'type':<12} {'state':<9} {'desk mask':<24} brands")
    for row in rows:
        state = "disabled" if row["disabled"] else "enabled"
        kind = SessionType(row["type"]).name
        brands = ",".join(row["brands"])
        click.echo(f"{row['id']:>16}  {row['login']:<20} {kind:<12} {state:<9} {row['desk_mask']:<24} {brands}")


@manager.command()
@click.argument("manager_id", type=int)
def disable(manager_id: int) -> None:
    """Bar a manager from the next command on. All of the manager's sessions end."""
    _run(lambda db: managers.set_disabled(db, manager_id, disabled=True))
    _tell(f"Manager {manager_id} disabled")


@manager.command()
@click.argument("manager_id", type=int)
def enable(manager_id: int) -> None:
    """Let a manager sign in again."""
    _run(lambda db: managers.set_disabled(db, manager_id, disabled=False))
    _tell(f"Manager {manager_id} enabled")


@manager.command()
@click.argument("manager_id", type=int)
@_password_file
def passwd(manager_id: int, password_file: Path | None) -> None:
    """Set a manager's password and end the manager's sessions."""
    password = password_of(password_file, new=True)
    _run(lambda db: managers.set_password(db, manager_id, password))
    forget_password(load(os.environ), manager_id)
    _tell(f"Password of manager {manager_id} set and the manager's sessions ended")


def _tell(done: str) -> None:
    """Says what was done and where: of two databases it may have been the wrong one."""
    click.echo(f"{done} in {place_of(load(os.environ))}.")


def _run(work: Callable[[Any], Awaitable[Any]]) -> Any:
    with backend(load(os.environ)) as (settings, dsn):
        return asyncio.run(connected(settings, dsn, work))
