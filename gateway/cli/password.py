"""The password that a command is given: in a file, or typed at the terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from gateway.errors import StartupError


def password_of(path: Path | None, *, new: bool = False) -> str:
    """The file's, less its line feed; without a file it is asked for, a new one twice. Raises StartupError."""
    if path is not None:
        return _read(path)
    if not _has_terminal():
        raise StartupError("There is no terminal to ask for the password at: name a file that holds it, --password-file FILE.")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=new, err=True))


def _read(path: Path) -> str:
    try:
        with click.open_file(str(path), encoding="utf-8") as file:
            return str(file.read()).rstrip("\n")
    except ValueError:
        raise StartupError(f"--password-file {path} is no UTF-8 text.") from None


def _has_terminal() -> bool:
    """Whether somebody can be asked, also where standard input is a file: as `getpass` looks for it."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return sys.stdin.isatty()
    return True
