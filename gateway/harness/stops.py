"""What Ctrl-C and SIGTERM do before a run and after it; while it lasts it takes both itself (run.py)."""

from __future__ import annotations

import signal
from contextlib import suppress

STOPS = (signal.SIGINT, signal.SIGTERM)


def end_in_order() -> None:
    """SIGTERM is as Ctrl-C from here on: what was opened is closed, the run's sessions in the database above all.

    Ctrl-C is so, too, where the shell ignores it in the background: the run itself takes both.
    """
    for number in STOPS:
        signal.signal(number, signal.default_int_handler)


def let_it_end() -> None:
    """Neither does anything from here on: what is left is short, and the sessions must not stay in the database."""
    for number in STOPS:
        with suppress(ValueError):  # not in the main thread, where alone they come
            signal.signal(number, lambda *_: None)
