"""What `gateway load` and `gateway replay` have in common: options, the end of a run, and its exit code."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from gateway.cli.client_options import ca_file_option, url_option
from gateway.errors import StartupError
from gateway.harness.stops import let_it_end

if TYPE_CHECKING:
    from gateway.harness.figures import Summary
    from gateway.harness.run import Run

RATE = (0.001, 1e6)
"""Commands a second: from one in 17 minutes to far more than any client sends."""
SPEED = (0.001, 1e6)
"""Times as fast as recorded: an hour's recording takes some weeks, or no time."""
RUN_SECONDS = (0.001, 604_800.0)
"""A week; the harness's sessions last for longer (`credentials.SESSION_SECONDS_MIN`)."""
REPLY_SECONDS = (0.001, 86_400.0)
LATENCY_MS = (0.001, 3_600_000.0)
"""An hour is the longest latency that the figures tell from longer ones."""
OUTPUT = click.Path(dir_okay=False, writable=True, path_type=Path)


class Within(click.FloatRange):
    """A number between bounds, both allowed. click itself lets NaN through, which is neither above nor below any."""

    def __init__(self, bounds: tuple[float, float]) -> None:
        super().__init__(*bounds)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number. Ends with a message that names the option, and exit code 2, when it is not between the bounds."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


def _writable(_context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Tried before the run, whose figures would be lost. Of a file that is there click has asked. Raises StartupError."""
    if path is not None and path.is_dir():  # an empty name is that of the folder one is in
        raise StartupError(f"{option.opts[0]} {path}: Is a directory")
    if path is not None and not path.exists():
        try:
            path.touch()
        except OSError as error:
            raise StartupError(f"{option.opts[0]} {path}: {error.strerror}") from None
        path.resolve().unlink()
    return path


def require_apart(files: Mapping[str, Path | None]) -> None:
    """None of these, by their options, is another one, whose place it would take when written. Raises StartupError."""
    given = [(name, path) for name, path in files.items() if path is not None]
    for (one, path), (other, same) in combinations(given, 2):
        if path.resolve() == same.resolve() or (path.exists() and same.exists() and path.samefile(same)):
            raise StartupError(f"{one} and {other} are the same file, {same}: give another one for {other}")


def common(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that both have."""
    for option in reversed(
        (
            url_option,
            ca_file_option,
            click.option("--token", envvar="GATEWAY_TOKEN", help="Token to show instead of signing some (GATEWAY_TOKEN)."),
            click.option("--reply-seconds", type=Within(REPLY_SECONDS), default=30.0, show_default=True,
                         help="Time for the last replies; later ones are missing."),
            click.option("--max-p99", type=Within(LATENCY_MS), help="Exit code 1 when p99 is above, in ms."),
            click.option("--json", "json_file", type=OUTPUT, callback=_writable, help="Write all figures to this file."),
            click.option("--report", "report_file", type=OUTPUT, callback=_writable,
                         help="Write a page to look at to this file (HTML)."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def finish(run: Run, max_p99: float | None, json_file: Path | None, report_file: Path | None) -> None:
    """Runs it, shows and writes the figures, and ends with code 1 when they are not as they should be.

    What cannot be written keeps nothing else from being: it is told, and the code is 2 where it would be 0.
    """
    import uvloop  # noqa: PLC0415 - of the extra `load`

    from gateway.harness.report import report_page  # noqa: PLC0415
    from gateway.harness.show import show_summary, tell, warn  # noqa: PLC0415

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        summary = runner.run(run.run())
    let_it_end()
    summary = msgspec.structs.replace(summary, max_p99=max_p99, failed=faults_of(summary, max_p99))
    unwritten = [_said(lambda: show_summary(summary))]
    if json_file is not None:
        unwritten.append(_written(json_file, msgspec.json.format(msgspec.json.encode(summary), indent=1)))
    if report_file is not None:
        unwritten.append(_written(report_file, report_page(summary).encode()))
    if left_out := _left_out(summary):
        share = 100 * left_out / (summary.answered + summary.missing + left_out + summary.unsent)
        percent = f"{share:.0f} %" if share >= 1 else "less than 1 %"
        warn(f"{percent} of the recording was left out, see `not sent` in the table")
    complaints = [click.style(f"Failed: {fault}", fg="red") for fault in summary.failed]
    complaints += [f"gateway: Not written: {what}" for what in unwritten if what]
    for complaint in complaints:  # the exit code tells it, too
        tell(complaint)
    sys.exit(1 if summary.failed else 2 if any(unwritten) else 0)


def faults_of(summary: Summary, max_p99: float | None) -> list[str]:
    """Why the run failed; empty when it did not."""
    from gateway.harness.show import counted  # noqa: PLC0415 - needs the extra `load`

    left_out = _left_out(summary)
    given: list[tuple[Any, str]] = [
        (summary.wrong, counted(summary.wrong, "wrong reply", "wrong replies")),
        (summary.missing, counted(summary.missing, "missing reply", "missing replies")),
        (
            summary.unsent,
            f"{counted(summary.unsent, 'command', 'commands')} not sent: "
            + ("interrupted" if summary.interrupted else "no reply within --reply-seconds"),
        ),
        (not summary.answered, "no replies at all"),
        (left_out > summary.answered, counted(left_out, "command", "commands") + " left out, more than were answered"),
        (sum(summary.closes.values()) - summary.reconnects >= summary.connections, "no connection was left at the end"),
        (
            max_p99 is not None and summary.latency.p99 > max_p99,
            f"p99 is {summary.latency.p99:.1f} ms, above --max-p99 {max_p99}",
        ),
    ]
    return [words for wrong, words in given if wrong]


def _left_out(summary: Summary) -> int:
    """Commands of a recording that the replay did not send, whatever the reason; sign-ins are no loss."""
    from gateway.harness.kinds import SIGN_IN, STOPPED  # noqa: PLC0415 - needs the extra `load`

    return sum(count for reason, count in summary.skipped.items() if reason not in (SIGN_IN, STOPPED))


def _written(path: Path, content: bytes) -> str:
    """What kept it from being written; empty when nothing did."""
    try:
        path.write_bytes(content)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return _said(lambda: click.echo(f"Written: {path}"))


def _said(say: Callable[[], None]) -> str:
    """What kept it from standard output; empty when nothing did."""
    try:
        say()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again at its end, and ends with 120
        return f"standard output: {error.strerror}"
    return ""
