"""`gateway serve`: runs a gateway in the foreground until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import click

from gateway import __version__
from gateway.backend import DEMO_MANAGERS, backend, password_file, require_secret
from gateway.composition import serve_until
from gateway.environment import load, unknown_variables
from gateway.log import Logger, make_logger
from gateway.server import Gateway
from gateway.settings import Settings

FIRST_EVENT = (
    '{"brand":"default","desk":"DESK_RETENTION","owner_manager_id":10,"title":"Retention sync","type":3,"priority":1,'
    '"start_time":1710000000,"end_time":1710003600,"ast_json":{"type":"doc","content":[]},'
    '"participant_manager_ids":[10,11,12]}'
)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GC_YOUNG_OBJECTS = 50_000
"""New objects before the garbage collector looks: a burst of commands makes and drops thousands, none of them in a circle.

At Python's own 700 the collector took 10 % of the time at 256 commands in flight, and 42 % with 5,000 sockets open.
"""

DESCRIPTORS_BESIDE = 64
"""What is open beside sockets and database connections: log, capture, listening ports, and files that are read for a moment."""


@click.command()
@click.option("--host", help="Address to listen on (GATEWAY_HOST).")
@click.option("--port", type=int, help="Port to listen on, 0 for a free one (GATEWAY_PORT).")
@click.option("--database-url", help="PostgreSQL to use (GATEWAY_DATABASE_URL); without one, an embedded one is started.")
@click.option("--data-dir", help="Folder of the embedded PostgreSQL (GATEWAY_DATA_DIR).")
@click.option("--capture", "capture_dir", help="Record live frames into this folder, without secrets (GATEWAY_CAPTURE_DIR).")
@click.option(
    "--capture-redact-text",
    "capture_text",
    flag_value="redact",
    help="Record filler for titles and bodies (GATEWAY_CAPTURE_TEXT=redact).",
)
@click.option("--log-level", help="debug, info, warning or error (GATEWAY_LOG_LEVEL).")
def serve(**flags: str | int | None) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain. A second one stops at once. SIGHUP reads certificate and keys anew.

    Exit code 0 after a stop that was asked for, 2 when the gateway cannot start.
    """
    for number in SIGNALS:
        signal.signal(number, _exit)
    signal.signal(signal.SIGHUP, _exit if sys.stderr.isatty() else _ignore)
    settings = load(os.environ, flags)
    logger = make_logger(settings)
    for sentence in unknown_variables(os.environ):
        logger.warning("unknown variable", line=sentence)
    allow_descriptors(settings, logger)
    if settings.database_url:
        require_secret(settings)
    with backend(settings, serving=True) as (completed, dsn), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(completed, dsn, logger))
    logger.info("stopped")


def allow_descriptors(settings: Settings, logger: Logger) -> None:
    """Raises this process's limit of open descriptors where that is too low for all sockets, or says so where it may not."""
    needed = settings.connections_max + settings.db_connections_max + settings.streams_max + DESCRIPTORS_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != soft < needed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # macOS allows less than it says
            hard = soft
        if resource.RLIM_INFINITY != hard < needed and settings.database_url:  # the embedded default is for trying
            line = f"ulimit -n is {hard}: GATEWAY_CONNECTIONS_MAX ({settings.connections_max}) and the database need {needed}"
            logger.warning("too few descriptors", line=line)


async def _serve(settings: Settings, dsn: str, logger: Logger) -> None:
    stop, stop_now = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (stop_now if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal)
    on_terminal = sys.stderr.isatty()

    def ready(gateway: Gateway) -> None:
        def on_hangup() -> None:
            if on_terminal and not sys.stderr.isatty():  # it was closed, and nothing can be written to it any more
                _leave_terminal()
                on_signal()
            else:
                gateway.reload()

        loop.add_signal_handler(signal.SIGHUP, on_hangup)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_YOUNG_OBJECTS)
        logger.info("serving", host=settings.host, port=gateway.port, embedded=not settings.database_url)
        with suppress(OSError):  # whoever started it may not listen
            click.echo(_welcome(settings, gateway.port))
            sys.stdout.flush()

    try:
        await serve_until(settings, dsn, logger, stop, stop_now, ready)
    finally:
        for number in (*SIGNALS, signal.SIGHUP):
            loop.remove_signal_handler(number)
            signal.signal(number, _ignore)


def _welcome(settings: Settings, port: int) -> str:
    """Address, a login, and the very command to type next."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
    scheme = "wss" if settings.tls_cert else "ws"
    url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    lines = [f"Gateway {__version__} serves {url}"]
    if not settings.database_url:
        lines += _first_steps(settings, url)
    return "\n".join([*lines, "Ctrl-C stops it."])


def _first_steps(settings: Settings, url: str) -> list[str]:
    """On the embedded default: where the data is, and how to sign in with the password that the first start made."""
    lines = [f"PostgreSQL is embedded under {_relative(Path(settings.data_dir))}"]
    login = DEMO_MANAGERS[0]
    if not password_file(Path(settings.data_dir), login).exists():
        return lines
    password = _relative(password_file(Path(settings.data_dir), login))
    where = [] if url == "ws://127.0.0.1:8080" else ["--url", url]
    command = [*_program(), "send", "MngAddCalendarEvent", *where, "--login", str(login), "--password-file", password]
    return [
        *lines,
        f"Sign in as login {login}; its password is in {password}",
        "Type in another terminal:",
        "",
        f"  {shlex.join(command)} --data '{FIRST_EVENT}'",
        "",
    ]


def _program() -> list[str]:
    """How this very program is called from the current folder."""
    if Path(sys.argv[0]).name == "gateway":
        return [_relative(Path(sys.argv[0]))]
    return [_relative(Path(sys.executable)), "-m", "gateway"]


def _relative(path: Path) -> str:
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not to be had on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


def _exit(_number: int, _frame: FrameType | None) -> None:
    """A signal before the event loop runs: leaves by the same doors, so that the embedded PostgreSQL is stopped.

    Another one would interrupt that.
    """
    for number in (*SIGNALS, signal.SIGHUP):
        signal.signal(number, _ignore)
    raise SystemExit(0)


def _leave_terminal() -> None:
    """Sends what is still to be written nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """A signal when all that is left is to stop the embedded PostgreSQL, at once as it is."""
