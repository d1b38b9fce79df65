"""One word end to end: a command's wire name, file, handler, request and test carry the same name."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.commands.table import COMMANDS

TESTS = Path(__file__).parent


def test_commands_carry_one_name():
    """`MngAddCalendarEvent` is `add_calendar_event()` in its file, takes `AddCalendarEvent`, and has a test file."""
    for wire_name, command in COMMANDS.items():
        word = wire_name.removeprefix("Mng")
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", word).lower()
        assert f"gateway.commands.{snake}" == command.handler.__module__
        assert snake == command.handler.__name__
        assert word == command.request.__name__
        assert (TESTS / f"test_{snake}.py").exists(), f"no test file for {wire_name}"
