"""`gateway load`: sends a synthetic mix of all commands to a running gateway, and measures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.client_options import token_origin, trusted
from gateway.cli.harness_options import RATE, RUN_SECONDS, Within, common, finish, require_apart
from gateway.errors import StartupError
from gateway.harness.extra import require_extra
from gateway.harness.stops import end_in_order

if TYPE_CHECKING:
    from gateway.harness.mix import Mix
    from gateway.harness.run import Times

SECONDS = 10.0
SPARE_SESSIONS = 100
"""For each manager, sessions to be ended by MngLogout; a mix that ends more goes on with adds."""


@click.command()
@common
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same commands.")
@click.option("--seconds", type=Within(RUN_SECONDS), help=f"How long to send; {SECONDS:g} without --commands.")
@click.option("--commands", type=click.IntRange(1), help="How many commands to send.")
@click.option("--rate", type=Within(RATE), help="Commands per second; as fast as replies come without it.")
@click.option("--connections", type=click.IntRange(1), default=16, show_default=True, help="Sockets to open.")
@click.option("--in-flight", type=click.IntRange(1), default=4, show_default=True, help="Unanswered commands of each socket.")
@click.option("--mix", help="Weights of the commands, like add=70,get=20 (docs/harness.md).")
@click.option("--manager", "managers", type=int, multiple=True, help="Manager to act for; repeat for more. All without it.")
def load(
    url: str,
    ca_file: Path | None,
    token: str | None,
    reply_seconds: float,
    max_p99: float | None,
    json_file: Path | None,
    report_file: Path | None,
    seed: int,
    seconds: float | None,
    commands: int | None,
    rate: float | None,
    connections: int,
    in_flight: int,
    mix: str | None,
    managers: tuple[int, ...],
) -> None:
    """Load a running gateway and show how fast it is. Every reply is checked, and events are added.

    Tokens are signed with the gateway's own key: on the embedded default, or with GATEWAY_DATABASE_URL and
    GATEWAY_TOKEN_SECRET, nothing needs to be given. Exit code 0 when all is well; 1 when replies were wrong, missing or
    slower than --max-p99; 2 when it could not start, or with tokens that the gateway does not take.

    \b
      gateway load --report report.html
      gateway load --seconds 60 --rate 1000 --max-p99 50
    """
    require_extra()
    require_apart({"--ca-file": ca_file, "--json": json_file, "--report": report_file})
    if token is not None and managers:
        raise StartupError(f"{token_origin()} and --manager exclude each other: a token says whose it is")
    from gateway.harness import credentials  # noqa: PLC0415 - needs the extra `load`
    from gateway.harness.figures import Figures  # noqa: PLC0415
    from gateway.harness.kinds import Kinds  # noqa: PLC0415
    from gateway.harness.mix import MIX, Mix, parse_mix  # noqa: PLC0415
    from gateway.harness.run import Plan, Run  # noqa: PLC0415
    from gateway.harness.show import show_tick  # noqa: PLC0415

    weights = parse_mix(mix or MIX)
    spare = SPARE_SESSIONS if weights.get("logout") else 0
    end_in_order()
    if token is None:
        acting: AbstractContextManager[list[credentials.Member]] = credentials.signed(managers, spare=spare)
    else:
        acting = nullcontext([credentials.given(token, token_origin())])
    members = click.get_current_context().with_resource(acting)
    kinds = Kinds()
    source = Mix(kinds, weights, seed, members, connections)
    if commands is not None:
        source.left = commands
    pace = _pace(source, rate, connections, commands) if rate else None
    plan = Plan(
        title=f"gateway load, seed {seed}" + (f", {rate:g}/s" if rate else ", as fast as possible"),
        url=url,
        trusted=trusted(url, ca_file),
        tokens=[members[n % len(members)].token for n in range(connections)],
        refusal=credentials.refusal(url, token_origin() if token is not None else None),
        connections=connections,
        in_flight=in_flight,
        seconds=seconds or (0.0 if commands else SECONDS),
        reply_seconds=reply_seconds,
    )
    finish(Run(plan, source, Figures(kinds), show_tick, pace), max_p99, json_file, report_file)


def _pace(source: Mix, rate: float, connections: int, commands: int | None) -> Times:
    """Evenly, one connection after the other."""
    source.pace()

    def times() -> Iterator[tuple[float, int, object]]:
        number = 0
        while commands is None or number < commands:
            at = number % connections
            yield number / rate, at, lambda due, at=at: source.due(at, due)
            number += 1

    return times()  # type: ignore[return-value]
