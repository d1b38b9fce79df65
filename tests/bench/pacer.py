"""Sends at a steady rate, in steps of a millisecond: more wakes would cost the client more than the server under test.

The event loop's own timers are late by up to a millisecond, so the kernel's are used.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

STEP_SECONDS = 0.001
_MONOTONIC = time.CLOCK_MONOTONIC
_libc = ctypes.CDLL(None, use_errno=True)


class _Times(ctypes.Structure):
    """`struct itimerspec`: interval, then first time."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns")]


@contextmanager
def paced(rate: float, send: Callable[[float], None]) -> Iterator[None]:
    """Calls `send` with the time when it was due, `rate` times a second; late ones are made up for at once."""
    loop = asyncio.get_running_loop()
    step = max(1 / rate, STEP_SECONDS)
    due, owed = time.perf_counter(), 0.0

    def tick() -> None:
        nonlocal due, owed
        with suppress(BlockingIOError):
            os.read(timer, 8)
        while due <= time.perf_counter():
            owed += rate * step
            while owed >= 1:
                send(due)
                owed -= 1
            due += step

    timer = _ticking(step)
    loop.add_reader(timer, tick)
    try:
        yield
    finally:
        loop.remove_reader(timer)
        os.close(timer)


def _ticking(seconds: float) -> int:
    """A descriptor that becomes readable every so often."""
    timer: int = _libc.timerfd_create(_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    every_s, every_ns = divmod(max(1, int(seconds * 1e9)), 10**9)
    times = _Times(every_s, every_ns, every_s, every_ns)
    if timer < 0 or _libc.timerfd_settime(timer, 0, ctypes.byref(times), None) != 0:
        raise OSError(ctypes.get_errno(), "no timer")
    return timer
