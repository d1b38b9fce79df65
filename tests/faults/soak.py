"""`python -m tests.faults.soak`: one gateway under a mixed load, with a fault every so often, must stay as it was."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import click
import msgspec
import uvloop

from gateway.embedded import EmbeddedPostgres
from tests.calendar_model import Manager
from tests.faults import soak_report
from tests.faults.__main__ import FAULTS_DIR, end_as_by_ctrl_c
from tests.faults.blows import BLOWS, SETTINGS, Scene, prepared
from tests.faults.lives import Lives
from tests.faults.mixture import SOCKETS, Mixture, mixed
from tests.faults.plants import CONTROLS, PLANTS
from tests.faults.soak_report import MINUTES, Soaked
from tests.faults.stage import CRM_ADMIN, MANAGERS, Stage, connected, sessions
from tests.faults.vitals import Sample, Vitals
from tests.issuers import publish, rsa_jwk
from tests.people import add_managers
from tests.proxy import proxied
from tests.scrape import SHOWN, metrics_port

EVERY_SECONDS = 20.0
MINUTES_MAX = 50.0
"""The sessions of the load last an hour."""
REST_SHARE = 0.75
"""Of the time from one fault to the next, when the load pauses for a look."""
OTHER_BRAND = Manager(11, CRM_ADMIN, ("other",))


@click.command()
@click.option("--minutes", type=click.FloatRange(0.5, MINUTES_MAX), default=MINUTES, show_default=True, help="How long.")
@click.option("--every", type=click.FloatRange(5), default=EVERY_SECONDS, show_default=True, help="Seconds between faults.")
@click.option("--plant", type=click.Choice([*CONTROLS, *PLANTS]), default=None, help="Plant this bug in the gateway.")
def main(minutes: float, every: float, plant: str | None) -> None:
    """Soak a gateway; exit with 1 when something grew or was lost. A run as long as the default rewrites docs/soak.md."""
    folder = FAULTS_DIR / time.strftime("%Y%m%dT%H%M%S")
    folder.mkdir(parents=True)
    end_as_by_ctrl_c()
    server = EmbeddedPostgres(FAULTS_DIR / "data")
    try:
        server.start()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(soak(Stage(server, folder, short=False), minutes * 60, every, plant or ""))
    finally:
        server.stop()
    (folder / "samples.json").write_bytes(msgspec.json.format(msgspec.json.encode(found.samples), indent=1))
    click.echo(f"\n{soak_report.verdict(found)}\n\nledger, samples and log are in {folder}")
    if minutes >= MINUTES and not plant:
        soak_report.write_page(found)
    sys.exit(not found.passed)


async def soak(stage: Stage, seconds: float, every: float, plant: str) -> Soaked:
    """All the faults in turn, each followed by a look at rest."""
    lives, failures = Lives(stage.folder / "lives.jsonl", MANAGERS[0]), list[str]()
    async with stage.database() as dsn:
        async with _scene(stage, dsn, plant) as scene, mixed(lives, (await sessions(dsn))[0], scene.gateway.url) as load:
            samples = [sample async for sample in _looks(scene, load, seconds, every, failures)]
            bugs = await scene.vitals.internal_errors()
        async with connected(dsn) as db:
            truth = await lives.reconcile(db, bugs)
    return Soaked(seconds, every, samples, truth, load.told, lives.unanswered, load.lost_sockets, failures)


@asynccontextmanager
async def _scene(stage: Stage, dsn: str, plant: str) -> AsyncIterator[Scene]:
    """A gateway whose link to PostgreSQL can be cut, and what the faults need."""
    key_file = stage.folder / "jwks.json"
    settings = {**SETTINGS, **SHOWN, "log_level": "info", "jwks_file": publish(key_file, rsa_jwk("key-0"))}
    async with connected(dsn) as db:
        (token,) = await add_managers(db, [OTHER_BRAND])
    async with proxied(dsn) as (proxy, through), stage.gateway(through, plant, **settings) as gateway:
        vitals = Vitals(gateway, metrics_port(gateway))
        large = await prepared(gateway.url, token)
        yield Scene(stage, gateway, proxy, vitals, token, key_file, large, itertools.count(1))


async def _looks(scene: Scene, load: Mixture, seconds: float, every: float, failures: list[str]) -> AsyncIterator[Sample]:
    """A look behind each fault; what failed is said, and the others go on."""
    began = time.monotonic()
    click.echo(soak_report.HEAD)
    await scene.vitals.at_rest(0, "", SOCKETS, 0)  # a fault must not meet a load that is still connecting
    for number, name in zip(range(1, int(seconds / every) + 1), itertools.cycle(BLOWS), strict=False):
        load.go()
        try:
            await BLOWS[name](scene)
            await asyncio.sleep(began + (number - 1 + REST_SHARE) * every - time.monotonic())
            await load.rest()
            sample = await scene.vitals.at_rest(time.monotonic() - began, name, SOCKETS, load.acknowledged)
        except Exception as error:  # a fault that breaks the soak is one that it did not pass
            failures.append(f"{name} at {time.monotonic() - began:.0f} s: {type(error).__name__}: {error}")
            click.echo(failures[-1])
        else:
            click.echo(soak_report.line(sample))
            yield sample
        await asyncio.sleep(began + number * every - time.monotonic())


if __name__ == "__main__":
    main()
