"""Runs the steps in rounds, there and back, so that whatever disturbs the machine disturbs every side."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.bench.figures import Failure, Round, Sample, StepFailedError
from tests.bench.stage import Step


def run(
    steps: Mapping[str, Step], count: int, check_sides: Callable[[Round], None], tell: Callable[[str], None]
) -> tuple[list[Round], list[Failure]]:
    """Every step once a round, in every second round the other way about: steps that stand beside each other do so in each,
    and neither is always the first. A step that fails is left out of its round, and told.

    Raises what `check_sides` raises of a round: that its sides did not do the same work.
    """
    rounds: list[Round] = []
    failures: list[Failure] = []
    names = list(steps)
    for number in range(count):
        measured: dict[str, Sample] = {}
        for done, name in enumerate(names[:: -1 if number % 2 else 1], start=1):
            tell(f"round {number + 1} of {count}, {done} of {len(names)}: {name}")
            try:
                measured[name] = steps[name]()
            except StepFailedError as error:
                tell(f"{name} failed: {error}\n")
                failures.append(Failure(number + 1, name, str(error)))
        rounds.append({name: measured[name] for name in names if name in measured})
        check_sides(rounds[-1])
    return rounds, failures
