"""What the commands that talk to a running gateway have in common: where it is, whom they trust, whose a token was."""

from __future__ import annotations

import ssl
from pathlib import Path

import click
from click.core import ParameterSource

from gateway.errors import StartupError

url_option = click.option(
    "--url", envvar="GATEWAY_URL", default="ws://127.0.0.1:8080", show_default=True, help="The gateway (GATEWAY_URL)."
)
ca_file_option = click.option(
    "--ca-file",
    envvar="GATEWAY_CA_FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Certificates to trust for wss:// (GATEWAY_CA_FILE); those of the system without it.",
)


def trusted(url: str, ca_file: Path | None) -> ssl.SSLContext | None:
    """How to check the gateway's certificate; None for ws://. Raises StartupError, also for an address of another kind."""
    if not url.startswith(("ws://", "wss://")):
        raise StartupError(f"--url {url} must begin with ws:// or wss://, like ws://127.0.0.1:8080")
    if url.startswith("ws:"):
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise StartupError(f"--ca-file {ca_file} holds no PEM certificates.") from None


def token_origin() -> str:
    """Where the running command has its token from, as messages name it."""
    found = click.get_current_context().get_parameter_source("token")
    return "GATEWAY_TOKEN" if found is ParameterSource.ENVIRONMENT else "--token"
