"""`gateway send`: sends one command and prints its reply."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from gateway.cli.client_options import ca_file_option, token_origin, trusted, url_option
from gateway.cli.password import password_of
from gateway.errors import StartupError, no_websocket

REPLY_SECONDS = 30.0
"""A gateway answers well before this; the published clients give up then."""
UNAUTHORIZED = 401
SIGN_IN = "MngLogin"
"""Proves by its data alone."""
HOW_TO_PROVE = (
    "give --login NAME --password-file FILE, or --token TOKEN, as `gateway token --manager ID`, typed in the folder that the "
    "gateway runs in, prints it."
)


@click.command()
@click.argument("command")
@click.option("--data", default="{}", help="The command's data: JSON, @FILE, or - for standard input.")
@url_option
@ca_file_option
@click.option("--token", envvar="GATEWAY_TOKEN", help="Token to show (GATEWAY_TOKEN), as `gateway token` prints it.")
@click.option("--login", help="Login to sign in with instead; goes before GATEWAY_TOKEN.")
@click.option("--password-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File of its password.")
@click.option("--ext-id", default="1", show_default=True, help="The frame's extID.")
@click.option("--idempotency-key", help="The frame's idempotencyKey: sent twice, a write is done once.")
def send(
    command: str,
    data: str,
    url: str,
    ca_file: Path | None,
    token: str | None,
    login: str | None,
    password_file: Path | None,
    ext_id: str,
    idempotency_key: str | None,
) -> None:
    """Send COMMAND and print its reply. The commands and their data are in docs/protocol.md.

    Exit code 0 when the reply's status is 200, 1 when it is another, 2 when there was no reply.

    \b
      gateway send HealthCheck
      gateway send MngAddCalendarEvent --login 10 --password-file .data/passwords/10 --data @event.json
    """
    frame = {"command": command, "extID": ext_id, "data": _data(data)}
    if idempotency_key is not None:
        frame["idempotencyKey"] = idempotency_key
    token = _token_to_show(token, login, password_file)
    password = password_of(password_file) if login is not None else ""
    try:
        with connect(url, ssl=trusted(url, ca_file), max_size=None, compression=None, proxy=None) as socket:
            if token is not None:
                frame["__token"] = token
            elif login is not None:
                _sign_in(socket, login, password)
            reply = _exchange(socket, frame)
    except ConnectionClosed as error:
        raise StartupError(f"The gateway closed the connection: {error}") from None
    except InvalidStatus as error:
        raise StartupError(no_websocket(url, error.response.status_code, bytes(error.response.body or b""))) from None
    except (OSError, WebSocketException, TimeoutError, ValueError) as error:
        raise StartupError(f"No answer from {url} ({error}): does a gateway run there? See --url, and --ca-file.") from None
    click.echo(msgspec.json.format(msgspec.json.encode(reply), indent=2))
    if reply.get("status") == UNAUTHORIZED and command != SIGN_IN:
        what = "nobody is signed in" if token is None else f"the token of {token_origin()} was refused"
        click.echo(f"gateway: {what}: {HOW_TO_PROVE}", err=True)
    sys.exit(0 if reply.get("status") == 200 else 1)


def _token_to_show(token: str | None, login: str | None, password_file: Path | None) -> str | None:
    """The token, unless a login was named and the token only lay in the environment. Raises StartupError."""
    if login is None and password_file is not None:
        raise StartupError("--password-file needs --login NAME.")
    if token is None or login is None:
        if token is not None and not token.strip():
            raise StartupError("--token is empty: `gateway token --manager ID` prints one.")
        return token
    if token_origin() == "--token":
        raise StartupError("--login and --token are two proofs: give one of them.")
    return None


def _data(text: str) -> Any:
    given: str | bytes = text
    if text == "-":
        given = sys.stdin.buffer.read()
    elif text.startswith("@"):
        try:
            given = Path(text[1:]).read_bytes()
        except OSError as error:
            raise StartupError(f"--data {text}: {error.strerror}") from None
    try:
        return msgspec.json.decode(given)
    except (ValueError, RecursionError) as error:
        raise StartupError(
            f"--data is not JSON: {error}. Keys and texts need double quotes; a file is named by @FILE."
        ) from None


def _sign_in(socket: ClientConnection, login: str, password: str) -> None:
    reply = _exchange(socket, {"command": "MngLogin", "extID": "sign in", "data": {"login": login, "password": password}})
    if reply.get("status") != 200:
        wait = math.ceil(reply.get("retry_after_ms", 0) / 1000)
        again = f"; try again in {wait} s" if wait else ""
        raise StartupError(f"Sign-in as {login} was refused: {reply.get('message')}{again}")


def _exchange(socket: ClientConnection, frame: dict[str, Any]) -> dict[str, Any]:
    socket.send(msgspec.json.encode(frame), text=True)
    while True:
        reply: dict[str, Any] = msgspec.json.decode(socket.recv(timeout=REPLY_SECONDS))
        if "event" not in reply and reply.get("extID") in (frame["extID"], None):
            return reply
