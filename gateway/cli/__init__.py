"""The command line: `gateway --help`. One file for each command."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from gateway import __version__
from gateway.errors import StartupError

COMMANDS = ("serve", "send", "manager", "token", "revoke", "schema", "settings", "load", "replay")
"""Each is a file here, and a function of its name in it."""


class _Commands(click.Group):
    """Imports a command when it is asked for: all of them together take half a second."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"gateway.cli.{cmd_name}"), cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="gateway")
def cli() -> None:
    """A WebSocket command gateway between trading-platform CRMs and PostgreSQL.

    \b
    First steps, on an embedded PostgreSQL under .data:
      gateway serve                    starts it and prints a first command to try
      gateway send HealthCheck         asks a running gateway how it is
      gateway load                     loads a running gateway and shows how fast it is
    On a PostgreSQL of yours:
      export GATEWAY_DATABASE_URL=postgresql://user:password@host/name
      export GATEWAY_TOKEN_SECRET=...  32 characters or more, the same for every gateway
      gateway schema apply
      gateway manager add --id 10 --login anna --brand default
      gateway serve

    Every setting is an environment variable GATEWAY_*: see `gateway settings`.
    """


def main() -> None:
    """Runs the command line. What a person can mend is one message and exit code 2, without a traceback."""
    _open_outputs()
    try:
        cli(prog_name="gateway")
    except StartupError as error:
        click.echo(f"gateway: {error}", err=True)
        sys.exit(2)


def _open_outputs() -> None:
    """Gives what was started without them (`2>&-`) outputs to nowhere: else the next file or socket gets their numbers."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the process ends
