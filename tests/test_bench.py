"""The benchmark's rounds and figures, by steps that measure nothing: what is made of them, and of those that fail."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import Mock

import msgspec
import pytest
from msgspec import structs
from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection

from gateway.watched_socket import WatchedSocket
from tests.bench import __main__ as bench
from tests.bench import read_part, report, rounds, write_part
from tests.bench.dataset import Dataset
from tests.bench.echo_server import echo
from tests.bench.figures import Failure, Figure, Finding, Round, Sample, StepFailedError, find
from tests.bench.stage import Step
from tests.client import WAIT_SECONDS

RATIO = Figure("gateway / echo", lambda r: r["gateway"]["p50"] / r["echo"]["p50"], target=2)
NEAR_STEPS = 7
SHOWN_ONLY = "64 x 4: echo on the gateway's socket"
MACHINE = {"cpu": "none"}
SILENT = StepFailedError("silent")


def step(*values: float | StepFailedError, key: str = "p50") -> Step:
    """One that measures these, one in each round, or fails."""
    left = iter(values)

    def measure() -> Sample:
        value = next(left)
        if isinstance(value, StepFailedError):
            raise value
        return {key: value}

    return measure


def run(count: int, **steps: Step) -> tuple[list[Round], list[Failure]]:
    return rounds.run(steps, count, lambda _: None, lambda _: None)


def one_failed() -> tuple[list[Finding], list[Round], list[Failure]]:
    """What five rounds find whose gateway fails in the second."""
    fault = StepFailedError("12 adds were acknowledged\nand 11 are there")
    results, failures = run(5, gateway=step(3, fault, 3, 3, 3), echo=step(2, 2, 2, 2, 2))
    return find([RATIO], results), results, failures


def url_of(server: Server) -> str:
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def sides_of(figure: Figure) -> list[str]:
    """The steps that it is computed from."""
    asked: dict[str, Sample] = defaultdict(lambda: defaultdict(lambda: 1.0))
    figure.of(asked)
    return list(asked)


@pytest.fixture
def passes(monkeypatch, tmp_path):
    """Whether a part of these steps passes, without a machine and a database."""

    async def version(*_: object) -> list[str]:
        return ["18.4"]

    def measured(count: int, **steps: Step) -> bool:
        part = SimpleNamespace(FIGURES=[RATIO], PLACES="", check_sides=lambda _: None)
        part.staged = lambda *_: nullcontext(SimpleNamespace(postgres=None))
        part.steps = lambda _: steps
        monkeypatch.setitem(bench.PARTS, "fake", part)
        return bench._measure(Dataset(0, "", ""), "fake", count, 1)

    monkeypatch.setattr(bench, "BENCH_DIR", tmp_path)
    monkeypatch.setattr("tests.bench.dataset.value", version)
    monkeypatch.setattr("tests.bench.machine.describe", lambda *_: MACHINE)
    return measured


def test_every_second_round_goes_the_other_way_about() -> None:
    """Neighbours stay neighbours; what a round measured is listed in the order of the first."""
    told: list[str] = []
    steps = {name: step(1, 1, 1) for name in "abc"}
    results, _ = rounds.run(steps, 3, lambda _: None, told.append)
    assert ["a", "b", "c", "c", "b", "a", "a", "b", "c"] == [line[-1] for line in told]
    assert [["a", "b", "c"]] * 3 == [list(round_) for round_ in results]


@pytest.mark.parametrize("figure", write_part.FIGURES, ids=lambda figure: figure.name)
def test_sides_of_a_figure_are_steps_that_stand_near_each_other(figure) -> None:
    """The widest is that of pgbench, at all its numbers of clients."""
    names = list(write_part.steps(Mock()))
    places = [names.index(name) for name in sides_of(figure)]
    assert max(places) - min(places) <= NEAR_STEPS


def test_figure_is_the_median_of_its_rounds() -> None:
    """Not the ratio of the sides' medians, here 20 / 20, which may be of different rounds."""
    results, _ = run(3, gateway=step(2, 30, 20), echo=step(1, 20, 20))
    (finding,) = find([RATIO], results)
    assert (1.5, [2, 1.5, 1]) == (finding.measured, finding.by_round)


def test_worst_round_counts_where_one_is_too_many() -> None:
    """The highest of what must stay low, the lowest of what must be high."""
    results, _ = run(3, gateway=step(1, 5, 3), echo=step(1, 1, 1))
    worst = [structs.replace(RATIO, worst=True), structs.replace(RATIO, worst=True, at_least=True)]
    assert [5, 1] == [finding.measured for finding in find(worst, results)]


def test_step_that_fails_is_left_out_of_its_round_and_told() -> None:
    """The round keeps its other steps, and so do the other rounds."""
    findings, results, failures = one_failed()
    assert [Failure(2, "gateway", "12 adds were acknowledged\nand 11 are there")] == failures
    assert [["gateway", "echo"], ["echo"], *[["gateway", "echo"]] * 3] == [list(round_) for round_ in results]
    assert [1.5] * 4 == findings[0].by_round


def test_figure_that_lost_a_round_says_so() -> None:
    """Beside its spread; the figure itself stands."""
    findings, _, _ = one_failed()
    line = "gateway / echo  1.50 x    <= 2 x  yes           1.50 - 1.50, 4 of 5 rounds"
    assert line == report.table(findings).splitlines()[1]


def test_figure_whose_side_failed_in_every_round_is_not_reached() -> None:
    """No number, and no round."""
    results, failures = run(2, gateway=step(1, 1), echo=step(SILENT, SILENT))
    line = "gateway / echo  nan x     <= 2 x  NO            0 of 2 rounds"
    assert line == report.table(find([RATIO], results)).splitlines()[1]
    assert [1, 2] == [failure.round for failure in failures]


@pytest.mark.parametrize(
    ("part", "names", "key", "differ"),
    [
        (write_part, ("pgbench: 1 client", "64 x 4: gateway"), "row_bytes", (1021, 1000)),
        (read_part, ("month: gateway", "month: small"), "bytes", (1001, 1000)),
    ],
    ids=["write", "read"],
)
def test_sides_that_differ_in_any_round_end_the_run(part, names, key, differ) -> None:
    """Stored events of another size, a month of another; not the round with a side alone."""
    one, other = names
    steps = {one: step(1000, 1000, differ[0], key=key), other: step(1000, SILENT, differ[1], key=key)}
    with pytest.raises(RuntimeError, match=r"differ in size|has 1001 bytes"):
        rounds.run(steps, 3, part.check_sides, lambda _: None)
    rounds.run({name: step(1000, 1000, key=key) for name in names}, 2, part.check_sides, lambda _: None)


def test_failure_is_kept(tmp_path) -> None:
    """In the JSON with its round, step and reason; the plot says how many rounds are left."""
    data, picture = report.keep(tmp_path, MACHINE, *one_failed(), "write")
    kept = msgspec.json.decode(data.read_bytes())
    assert [{"round": 2, "step": "gateway", "reason": "12 adds were acknowledged\nand 11 are there"}] == kept["failures"]
    assert (5, [1.5] * 4) == (kept["figures"][0]["rounds"], kept["figures"][0]["by_round"])
    assert ">4 of 5 rounds<" in picture.read_text()


def test_part_with_a_failure_does_not_pass(passes, capsys) -> None:
    """Although its figures are reached; the failure stands behind the table, on one line."""
    assert not passes(2, gateway=step(StepFailedError("acknowledged 12\nfound 11"), 3), echo=step(2, 2))
    told = "yes           1.50 - 1.50, 1 of 2 rounds\n\nfailed   round  reason\ngateway  1      acknowledged 12 found 11\n"
    assert told in capsys.readouterr().out


def test_part_passes_when_its_figures_are_reached(passes, capsys) -> None:
    """It says nothing of failures then; with a figure that is not reached it does not pass."""
    assert passes(1, gateway=step(3), echo=step(2))
    assert "failed" not in capsys.readouterr().out
    assert not passes(1, gateway=step(5), echo=step(2))


@pytest.mark.parametrize(("sockets", "kind"), [("library", ServerConnection), ("gateway", WatchedSocket)])
async def test_echo_is_on_the_sockets_that_it_is_told(sockets, kind) -> None:
    """Each frame comes back as text, those sent together, too."""
    frames = ["x", "é" * 60_000, "", "z"]
    async with asyncio.timeout(WAIT_SECONDS), echo(sockets) as server, connect(url_of(server), proxy=None) as client:
        assert [kind] == [type(connection) for connection in server.connections]
        for frame in frames:
            await client.send(frame)
        assert frames == [await client.recv() for _ in frames]


def test_no_figure_rests_on_the_echo_on_the_gateways_socket() -> None:
    """It is shown in both parts."""
    assert not [figure.name for figure in (*read_part.FIGURES, *write_part.FIGURES) if SHOWN_ONLY in sides_of(figure)]
    assert SHOWN_ONLY in write_part.steps(Mock())
