"""What `gateway load` and `gateway replay` have in common: options, the end of a run, and its exit code."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from gateway.cli.client_options import ca_file_option, url_option
from gateway.errors import StartupError

if TYPE_CHECKING:
    from gateway.harness.figures import Summary
    from gateway.harness.run import Run

OUTPUT = click.Path(dir_okay=False, writable=True, path_type=Path)


def _writable(_context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Tried before the run, whose figures would be lost. Of a file that is there click has asked. Raises StartupError."""
    if path is not None and not path.exists():
        try:
            path.touch()
        except OSError as error:
            raise StartupError(f"{option.opts[0]} {path}: {error.strerror}") from None
        path.resolve().unlink()
    return path


def common(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that both have."""
    for option in reversed(
        (
            url_option,
            ca_file_option,
            click.option("--token", envvar="GATEWAY_TOKEN", help="Token to show instead of signing some (GATEWAY_TOKEN)."),
            click.option("--reply-seconds", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True,
                         help="Time for the last replies; later ones are missing."),
            click.option("--max-p99", type=click.FloatRange(0, min_open=True), help="Exit code 1 when p99 is above, in ms."),
            click.option("--json", "json_file", type=OUTPUT, callback=_writable, help="Write all figures to this file."),
            click.option("--report", "report_file", type=OUTPUT, callback=_writable,
                         help="Write a page to look at to this file (HTML)."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def finish(run: Run, max_p99: float | None, json_file: Path | None, report_file: Path | None) -> None:
    """Runs it, shows and writes the figures, and ends with code 1 when they are not as they should be."""
    import uvloop  # noqa: PLC0415 - of the extra `load`

    from gateway.harness.report import report_page  # noqa: PLC0415
    from gateway.harness.show import show_summary  # noqa: PLC0415

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        summary = runner.run(run.run())
    show_summary(summary)
    if json_file is not None:
        _write(json_file, msgspec.json.format(msgspec.json.encode(summary), indent=1))
    if report_file is not None:
        _write(report_file, report_page(summary).encode())
    faults = list(faults_of(summary, max_p99))
    for fault in faults:
        click.echo(click.style(f"Failed: {fault}", fg="red"), err=True)
    sys.exit(1 if faults else 0)


def faults_of(summary: Summary, max_p99: float | None) -> list[str]:
    """Why the run failed; empty when it did not."""
    from gateway.harness.show import counted  # noqa: PLC0415 - needs the extra `load`

    given: list[tuple[Any, str]] = [
        (summary.wrong, counted(summary.wrong, "wrong reply", "wrong replies")),
        (summary.missing, counted(summary.missing, "missing reply", "missing replies")),
        (
            summary.unsent,
            counted(summary.unsent, "command", "commands") + " not sent: interrupted, or no reply within --reply-seconds",
        ),
        (not summary.answered, "no replies at all"),
        (
            max_p99 is not None and summary.latency.p99 > max_p99,
            f"p99 is {summary.latency.p99:.1f} ms, above --max-p99 {max_p99}",
        ),
    ]
    return [words for wrong, words in given if wrong]


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise StartupError(f"{path}: {error.strerror}") from None
    click.echo(f"Written: {path}")
