"""Runs the gateway with a bug planted: `python -m tests.faults.planted NAME serve`; for pytest, `-p tests.faults.planted`
with the name in PLANTED, which plants it in the tests' own process and in the gateways that they start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

from tests.faults.plants import Plant, plant_of


class _Edited(SourceFileLoader):
    """Compiles the module's text after the edit, and keeps no bytecode of it."""

    plant: Plant

    def get_code(self, fullname: str) -> CodeType:
        text = self.get_data(self.get_filename(fullname)).decode()
        return compile(edited(text, self.plant), self.path, "exec", dont_inherit=True)


class _Finder:
    """Finds the one module that is to be edited; leaves all others to the finders behind it."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self._plant.module:
            return None
        spec = PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.origin is not None
        loader = _Edited(name, spec.origin)
        loader.plant = self._plant
        spec.loader = loader
        return spec


def edited(text: str, plant: Plant) -> str:
    """The text with the bug in it. Raises LookupError when the gateway has changed there."""
    if text.count(plant.old) != 1:
        raise LookupError(f"{plant.module} holds {text.count(plant.old)} times, instead of once: {plant.old!r}")
    return text.replace(plant.old, plant.new)


def install(name: str) -> None:
    """Plants the bug in this process, whose gateway must not have been imported yet."""
    plant = plant_of(name)
    assert plant.module not in sys.modules, f"{plant.module} is imported already"
    sys.meta_path.insert(0, _Finder(plant))


def _in_pytest(name: str) -> None:
    install(name)
    from tests import process  # noqa: PLC0415 - it imports nothing of the gateway, and only pytest needs it

    process.PROGRAM = ("tests.faults.planted", name)


if __name__ == "__main__":
    install(sys.argv.pop(1))
    from gateway.cli import main

    main()
elif "PLANTED" in os.environ:
    _in_pytest(os.environ["PLANTED"])
