"""Sends at a steady rate. The event loop's own timers count whole milliseconds, so the kernel's are used."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_MONOTONIC = time.CLOCK_MONOTONIC
_libc = ctypes.CDLL(None, use_errno=True)


class _Times(ctypes.Structure):
    """`struct itimerspec`: interval, then first time."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns")]


@contextmanager
def paced(rate: float, send: Callable[[float], None]) -> Iterator[None]:
    """Calls `send` with the time when it was due, `rate` times a second; late ones are made up for at once."""
    loop = asyncio.get_running_loop()
    due = time.perf_counter()

    def tick() -> None:
        nonlocal due
        with suppress(BlockingIOError):
            os.read(timer, 8)
        while due <= time.perf_counter():
            send(due)
            due += 1 / rate

    timer = _ticking(1 / rate)
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
