"""`gateway settings`: every setting with its value, unit, meaning and source."""

from __future__ import annotations

import os
import textwrap

import click

from gateway.environment import entries, load, unknown_variables


@click.command()
def settings() -> None:
    """List every setting with its value. Its unit, source, what is right, and its meaning are told too; secrets are masked."""
    in_force = load(os.environ)
    for entry in entries(in_force, os.environ):
        value = f"{entry.value or '(empty)'} {entry.unit}".rstrip()
        click.echo(f"{entry.variable} = {value}   [{entry.source}; {entry.right}]")
        click.echo(textwrap.indent(textwrap.fill(entry.meaning, 92), "    "))
    for sentence in unknown_variables(os.environ):
        click.echo(f"Note: {sentence}", err=True)
