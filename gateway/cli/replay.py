"""`gateway replay`: sends a recorded stream to a running gateway again, and measures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.client_options import token_origin, trusted
from gateway.cli.harness_options import RATE, SPEED, Within, common, finish, require_apart
from gateway.errors import StartupError
from gateway.harness.extra import require_extra
from gateway.harness.stops import end_in_order

if TYPE_CHECKING:
    from gateway.harness.stream import Stream


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@common
@click.option("--speed", type=Within(SPEED), help="Times as fast as recorded; 1 without it.")
@click.option("--rate", type=Within(RATE), help="Commands per second, evenly, instead.")
@click.option("--fast", is_flag=True, help="As fast as replies come, instead.")
@click.option("--connections", type=click.IntRange(1), help="Sockets to open; as many as recorded without it.")
@click.option("--in-flight", type=click.IntRange(1), default=64, show_default=True, help="Unanswered commands of each socket.")
@click.option("--keep-unknown-ids", is_flag=True, help="Send commands on events that the stream did not add, ids as recorded.")
def replay(
    file: Path,
    url: str,
    ca_file: Path | None,
    token: str | None,
    reply_seconds: float,
    max_p99: float | None,
    json_file: Path | None,
    report_file: Path | None,
    speed: float | None,
    rate: float | None,
    connections: int | None,
    in_flight: int,
    *,
    fast: bool,
    keep_unknown_ids: bool,
) -> None:
    """Send a recorded stream again and check each reply.

    FILE is one that `gateway serve --capture DIR` made: each reply is held against the recorded one. Events get new ids;
    commands that name them follow. Tokens are signed with the gateway's own key, as `gateway load` does, for the recorded
    managers. Exit code 0 when all is well; 1 when replies were wrong, missing or slower than --max-p99; 2 when it could
    not start, or with tokens that the gateway does not take.

    \b
      gateway replay .capture/20260101T120000Z-a1b2c3.ndjson --speed 10 --report report.html
    """
    require_extra()
    require_apart({"FILE": file, "--ca-file": ca_file, "--json": json_file, "--report": report_file})
    if sum((speed is not None, rate is not None, fast)) > 1:
        raise StartupError("--speed, --rate and --fast exclude each other: give one of them")
    from gateway.harness import credentials  # noqa: PLC0415 - needs the extra `load`
    from gateway.harness.figures import Figures  # noqa: PLC0415
    from gateway.harness.kinds import Kinds  # noqa: PLC0415
    from gateway.harness.replay import Replay  # noqa: PLC0415
    from gateway.harness.run import Plan, Run  # noqa: PLC0415
    from gateway.harness.show import show_tick, warn  # noqa: PLC0415
    from gateway.harness.stream import CUT_OFF, read_stream  # noqa: PLC0415

    stream = read_stream(file, keep_unknown=keep_unknown_ids)
    if not stream.steps:
        skipped = "; ".join(f"{count:,} {reason}" for reason, count in stream.skipped.items())
        raise StartupError(f"{file} holds no command that could be sent" + (f" (left out: {skipped})" if skipped else ""))
    if stream.skipped[CUT_OFF]:
        warn(f"the last line of {file} is cut off and left out")
    end_in_order()
    tokens = click.get_current_context().with_resource(_tokens(stream, token))
    links = connections or stream.connections
    managers = _managers(stream, links, tokens)
    kinds = Kinds()
    source = Replay(kinds, stream, links, tokens, managers.__getitem__)
    first = stream.steps[0].time
    if fast:
        source.fill()
        pace, how = None, "as fast as possible"
    elif rate:
        pace, how = source.times(lambda number, _step: number / rate), f"{rate:g}/s"
    else:
        factor = speed or 1.0
        pace = source.times(lambda _number, step: (step.time - first) / factor)
        how = ("" if factor == 1 else f"{factor:g} times ") + "as fast as recorded"
    plan = Plan(
        title=f"gateway replay {file.name}, {how}",
        url=url,
        trusted=trusted(url, ca_file),
        tokens=[tokens[manager] for manager in managers],
        refusal=credentials.refusal(url, token_origin() if token is not None else None),
        connections=links,
        in_flight=in_flight,
        reply_seconds=reply_seconds,
    )
    run = Run(plan, source, Figures(kinds), show_tick, pace)
    source.wake = run.wake
    finish(run, max_p99, json_file, report_file)


@contextmanager
def _tokens(stream: Stream, token: str | None) -> Iterator[dict[int, str]]:
    """A token for each recorded manager that is known here; a token that was given stands for all of them."""
    from gateway.harness import credentials  # noqa: PLC0415
    from gateway.harness.show import warn  # noqa: PLC0415

    if token is None:
        with credentials.signed(stream.managers, any_of_them=True) as members:
            yield {member.manager_id: member.token for member in members}
        return
    given = credentials.given(token, token_origin())
    if others := [manager for manager in stream.managers if manager != given.manager_id]:
        warn(
            f"the frames of {credentials.named(others)} go out as manager {given.manager_id}, so that rights may differ; "
            f"without {token_origin()} each goes out as its own"
        )
    for step in stream.steps:
        step.manager = given.manager_id if step.manager else 0
    yield {given.manager_id: token}


def _managers(stream: Stream, links: int, tokens: dict[int, str]) -> list[int]:
    """Whose token each connection shows: its first known manager's."""
    found: dict[int, int] = {}
    for step in stream.steps:
        if step.manager in tokens:
            found.setdefault(step.connection % links, step.manager)
    some = next(iter(tokens))
    return [found.get(number, some) for number in range(links)]
