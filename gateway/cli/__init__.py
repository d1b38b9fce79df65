"""The command line: `gateway --help`. One file for each command."""

from __future__ import annotations

import sys

import click

from gateway import __version__
from gateway.cli.load import load
from gateway.cli.manager import manager
from gateway.cli.replay import replay
from gateway.cli.revoke import revoke
from gateway.cli.schema import schema
from gateway.cli.send import send
from gateway.cli.serve import serve
from gateway.cli.settings import settings
from gateway.cli.token import token
from gateway.errors import StartupError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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


for command in (serve, send, manager, token, revoke, schema, settings, load, replay):
    cli.add_command(command)


def main() -> None:
    """Runs the command line. What a person can mend is one message and exit code 2, without a traceback."""
    try:
        cli(prog_name="gateway")
    except StartupError as error:
        click.echo(f"gateway: {error}", err=True)
        sys.exit(2)
