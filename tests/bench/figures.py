"""Figures: what the issue asks for, computed once for each round, of which the median counts and all show the spread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import nan
from statistics import median

from msgspec import Struct

Sample = Mapping[str, float]
Round = Mapping[str, Sample]
"""What each step measured in one round, by the step's name."""


class Figure(Struct, frozen=True):
    """A figure with its target, and what is aimed at beyond it.

    `worst` takes the worst round instead of the median, where one bad time is one too many.
    """

    name: str
    of: Callable[[Round], float]
    target: float
    aim: float | None = None
    at_least: bool = False
    unit: str = "x"
    worst: bool = False


class Finding(Struct, frozen=True):
    """A figure as it was measured: the median of `by_round`, which are those of the `rounds` in which no side of it failed.

    The two sides' own medians may be of different rounds, and so of a machine that was disturbed and one that was not.
    """

    name: str
    measured: float
    target: float
    aim: float | None
    at_least: bool
    unit: str
    by_round: list[float]
    rounds: int

    @property
    def reached(self) -> bool:
        return self.measured >= self.target if self.at_least else self.measured <= self.target

    @property
    def wanted(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.target:g} {self.unit}"

    @property
    def aimed(self) -> str:
        return "" if self.aim is None else f"{self.aim:g} {self.unit}"

    @property
    def rests_on(self) -> str:
        """How many rounds, where a side failed in others."""
        return "" if len(self.by_round) == self.rounds else f"{len(self.by_round)} of {self.rounds} rounds"


class StepFailedError(Exception):
    """A side that gave no answer, or a wrong one. The figures that need it have a round less; the others stand."""


class Failure(Struct, frozen=True):
    """A step that failed in a round, which is counted from 1."""

    round: int
    step: str
    reason: str


def medians(rounds: Sequence[Round]) -> Round:
    """The median of everything that was measured, over the rounds in which it was."""
    return {step: _median_of([round_[step] for round_ in rounds if step in round_]) for round_ in rounds for step in round_}


def find(figures: Sequence[Figure], rounds: Sequence[Round]) -> list[Finding]:
    """Every figure, from the rounds in which no side of it failed; not a number where there is none."""
    return [_found(figure, rounds) for figure in figures]


def _found(figure: Figure, rounds: Sequence[Round]) -> Finding:
    by_round = [value for round_ in rounds if (value := _value_of(figure, round_)) is not None]
    counted = median if not figure.worst else min if figure.at_least else max
    return Finding(
        name=figure.name,
        measured=counted(by_round) if by_round else nan,
        target=figure.target,
        aim=figure.aim,
        at_least=figure.at_least,
        unit=figure.unit,
        by_round=by_round,
        rounds=len(rounds),
    )


def _median_of(samples: Sequence[Sample]) -> Sample:
    return {key: median(sample[key] for sample in samples) for key in samples[0]}


def _value_of(figure: Figure, round_: Round) -> float | None:
    try:
        return figure.of(round_)
    except KeyError:
        return None
