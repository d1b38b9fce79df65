"""A run's results for people and programs: the table, the sides behind it, JSON and the plot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.bench import plot
from tests.bench.figures import Failure, Finding, Round, Sample, medians

_TIMES = {
    "p50": "p50",
    "p99": "p99",
    "echo_p99": "echo's p99",
    "seconds": "",
    "stall": "longest wait",
    "server_cpu": "server CPU",
    "client_cpu": "client CPU",
}


def table(findings: Sequence[Finding]) -> str:
    """Figure, measured, target, reached, aim, and the lowest and highest round, with how many there are if some failed."""
    lines = [("figure", "measured", "target", "reached", "aim", "rounds")]
    lines += [
        (
            finding.name,
            f"{finding.measured:.2f} {finding.unit}",
            finding.wanted,
            "yes" if finding.reached else "NO",
            finding.aimed,
            _spread(finding),
        )
        for finding in findings
    ]
    return _aligned(lines)


def sides(rounds: Sequence[Round]) -> str:
    """What stands behind the figures: the median of each side, which no figure is made of."""
    return _aligned([("side", "median"), *((name, _described(sample)) for name, sample in medians(rounds).items())])


def failed(failures: Sequence[Failure]) -> str:
    """The steps that failed, each on a line: in which round, and why."""
    return _aligned(
        [("failed", "round", "reason"), *((one.step, str(one.round), " ".join(one.reason.split())) for one in failures)]
    )


def passed(findings: Sequence[Finding], failures: Sequence[Failure]) -> bool:
    """Whether every figure is reached and rests on all rounds, and no other step failed either."""
    return all(finding.reached for finding in findings) and not failures


def keep(
    folder: Path,
    machine: dict[str, str],
    findings: Sequence[Finding],
    rounds: Sequence[Round],
    failures: Sequence[Failure],
    part: str,
) -> list[Path]:
    """Writes the JSON and the plot; returns where."""
    name = time.strftime(f"{part}-%Y%m%dT%H%M%S")
    content: dict[str, Any] = {
        "machine": machine,
        "figures": [{**msgspec.structs.asdict(f), "reached": f.reached} for f in findings],
        "medians": medians(rounds),
        "rounds": rounds,
        "failures": failures,
    }
    data, picture = folder / f"{name}.json", folder / f"{name}.svg"
    data.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1))
    picture.write_text(plot.bars(findings, f"{part} part: {machine['cpu']}"))
    return [data, picture]


def _spread(finding: Finding) -> str:
    by_round = finding.by_round
    return ", ".join(filter(None, (f"{min(by_round):.2f} - {max(by_round):.2f}" if by_round else "", finding.rests_on)))


def _described(sample: Sample) -> str:
    parts = []
    if "per_second" in sample:
        parts.append(f"{sample['per_second']:,.0f}/s")
    parts += [f"{label} {_duration(sample[key])}".strip() for key, label in _TIMES.items() if key in sample]
    if "bytes" in sample:
        parts.append(f"{sample['bytes']:,.0f} bytes")
    if "resident_growth" in sample:
        parts.append(f"memory +{sample['resident_growth'] / 2**20:.1f} MiB")
    if "resident" in sample:
        parts.append(f"memory {sample['resident'] / 2**20:.1f} MiB, {sample['resident_alone'] / 2**20:.1f} without sockets")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.2f} ms" if seconds >= 0.001 else f"{seconds * 1e6:.0f} us"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
