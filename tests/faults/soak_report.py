"""A soak on the terminal and in docs/soak.md."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tests.faults.blows import BLOWS
from tests.faults.ledger import Truth
from tests.faults.report import PAGE as RELIABILITY
from tests.faults.vitals import Sample, Trend, trends

MINUTES = 20.0
PAGE = RELIABILITY.parent / "soak.md"
HEAD = f"{'s':>6}  {'after':20} {'MiB':>7} {'descriptors':>11} {'tasks':>6} {'acknowledged':>12}"
_INTRODUCTION = """\
# The soak

`make soak` loads one gateway for 20 minutes (`ARGS="--minutes N"`) with a mixture of adds with and without a key, updates,
deletes, reads and pages, strikes every 20 seconds with the next of {blows} faults, over and over
({names}),
and lets the load rest behind each for a look at what the gateway holds: resident memory, open descriptors (without the database
pool's) and asyncio tasks. It passes when

- the median of the last third of the looks is no more than that of the first third, but for the allowance in the table; the
  first quarter is left out as warm-up;
- nothing acknowledged is lost, doubled or torn, and no row is there against its answer, by the ledger of all writes;
- no command of anybody's is answered with INTERNAL, none of the load's stays unanswered, and none of its sockets ends.

A run of the whole 20 minutes writes this page. Ledger, samples and the gateway's log stay under `.faults/`.
"""

_NOT_WHOLE = " It was no whole run: so few looks say little of memory that grows slowly."


class Soaked(NamedTuple):
    """A soak that is over. `failures` are faults that missed, or after which the gateway did not come to rest."""

    seconds: float
    every: float
    samples: list[Sample]
    truth: Truth
    told: Counter[str]
    unanswered: int
    lost_sockets: int
    failures: list[str]

    @property
    def trends(self) -> list[Trend]:
        return trends(self.samples) if self.samples else []

    @property
    def passed(self) -> bool:
        good = bool(self.samples) and self.truth.holds and not (self.unanswered or self.lost_sockets or self.failures)
        return good and all(trend.flat for trend in self.trends)


def line(sample: Sample) -> str:
    """One look on the terminal."""
    return (
        f"{sample.second:6.0f}  {sample.after:20} {sample.memory_mib:7.1f} {sample.descriptors:11} {sample.tasks:6} "
        f"{sample.acknowledged:12,}"
    )


def verdict(found: Soaked) -> str:
    """What came of it."""
    return "\n".join([*map(str, found.trends), *_facts(found), "passed" if found.passed else "FAILED"])


def write_page(found: Soaked) -> None:
    """Writes docs/soak.md."""
    run = (
        f"The last run: {time.strftime('%Y-%m-%d')}, {found.seconds / 60:g} minutes, a fault every {found.every:g} s: "
        f"{'passed' if found.passed else 'FAILED'}.{'' if found.seconds >= MINUTES * 60 else _NOT_WHOLE}"
    )
    flat = [
        f"| {trend.what} | {trend.first:g} | {trend.last:g} | +{trend.more:g} | {'yes' if trend.flat else 'NO'} |"
        for trend in found.trends
    ]
    looks = [
        f"| {one.second:.0f} | {one.after} | {one.memory_mib:.1f} | {one.descriptors} | {one.tasks} | {one.acknowledged:,} |"
        for one in found.samples
    ]
    PAGE.write_text(
        "\n".join(
            [
                _INTRODUCTION.format(blows=len(BLOWS), names=", ".join(BLOWS)),
                f"{run}\n",
                *_table("at rest | first third | last third | allowed | flat", flat),
                *(f"- {fact}" for fact in _facts(found)),
                "",
                *_table("s | behind | MiB | descriptors | tasks | acknowledged", looks),
            ]
        )
    )


def _facts(found: Soaked) -> list[str]:
    told = ", ".join(f"{what}: {count:,}" for what, count in sorted(found.told.items()))
    facts = [str(found.truth), f"the load was told {told}; {found.unanswered} unanswered, {found.lost_sockets} sockets lost"]
    return [*facts, f"{len(found.samples)} looks; failed: {'; '.join(found.failures) or 'none'}"]


def _table(head: str, rows: Sequence[str]) -> list[str]:
    return [f"| {head} |", f"|{' --- |' * (head.count('|') + 1)}", *rows, ""]
