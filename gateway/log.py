"""Log lines: structlog, one canonical line for each command. Never data, tokens or passwords, at any level."""

from __future__ import annotations

import logging
import random
import sys
import time
import traceback
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO, cast

import msgspec
import structlog

from gateway.settings import Settings

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
REPEATS_MAX = 5
"""Lines of one event and kind let through in each REPEATS_SECONDS; the next one let through counts those left out."""
REPEATS_SECONDS = 10.0
UNLIMITED = "command"
"""Each failed command of a manager is logged, however often: it is one line, and what an operator counts. What nobody has
signed in for is limited like the rest, or anybody could fill the disk."""
FRAMES_MAX = 8

Logger = structlog.typing.FilteringBoundLogger
EventDict = MutableMapping[str, Any]


def make_logger(settings: Settings, stream: TextIO | None = None) -> Logger:
    """The logger of the process; JSON lines unless the stream is a terminal. Standard library loggers join it."""
    stream = stream or sys.stderr
    console = settings.log_format == "console" or (settings.log_format == "auto" and stream.isatty())
    renderers: list[Any] = [_escape, structlog.dev.ConsoleRenderer()] if console else [_json]
    logger: Logger = structlog.wrap_logger(
        structlog.WriteLogger(cast(TextIO, _Unfailing(stream))),
        processors=[_limit_repeats(), structlog.processors.add_log_level, _stamp, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[settings.log_level]),
    )
    _join_libraries(logger)
    return logger


class _Unfailing:
    """Writes what can be written: a disk that is full, or a reader that has gone, costs lines, and no command."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


class CommandLog:
    """Writes the canonical line of each command: all failures, and a share of the successes."""

    def __init__(self, logger: Logger, settings: Settings) -> None:
        self._logger = logger
        self._success_ratio = settings.log_success_ratio

    def success(self, command: str, ext_id: str | int, manager_id: int | None, started: float) -> None:
        """`started` is of time.perf_counter()."""
        if random.random() < self._success_ratio:  # noqa: S311 - picks a sample, guards nothing
            self._logger.info(
                "command",
                command=command,
                ext_id=ext_id,
                manager_id=manager_id,
                outcome="ok",
                duration_ms=_ms_since(started),
            )

    def failure(self, command: str, ext_id: str | int | None, manager_id: int | None, started: float, **what: object) -> None:
        """`what` says the error, its status, field and outcome."""
        self._logger.warning(
            "command",
            command=command[:64],
            ext_id=ext_id,
            manager_id=manager_id,
            duration_ms=_ms_since(started),
            **what,
        )


def place_of(error: BaseException) -> dict[str, object]:
    """Class, SQLSTATE, constraint and stack of an error. Its text is left out: libraries quote values in it."""
    place: dict[str, object] = {"exception": type(error).__qualname__}
    for name in ("sqlstate", "constraint_name"):
        if value := getattr(error, name, None):
            place[name] = value
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
    place["at"] = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    if error.__cause__ is not None:
        place["cause"] = type(error.__cause__).__qualname__
    return place


def _join_libraries(logger: Logger) -> None:
    """Libraries' own lines, from warnings up only: below that they log tokens and bodies, whatever our level is.

    All loggers lead to the root, those of libraries still to come too; the handler has the level, whoever turns a logger up.
    """
    root = logging.getLogger()
    root.handlers[:] = [_LibraryHandler(logger)]
    root.setLevel(logging.WARNING)


class _LibraryHandler(logging.Handler):
    """Passes on the first line of a library's text, without arguments: the rest may hold a client's data."""

    def __init__(self, logger: Logger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        what = place_of(record.exc_info[1]) if record.exc_info and record.exc_info[1] else {}
        self._logger.warning("library", library=record.name, line=str(record.msg).partition("\n")[0][:200], **what)


def _limit_repeats() -> Any:
    """Lets a few lines of one event through in each window, so that a fault that repeats cannot fill a disk."""
    seen: dict[tuple[object, ...], list[float]] = {}

    def limit(_logger: object, method: str, event: EventDict) -> EventDict:
        asked_for = event.get("manager_id") is not None or "error_id" in event  # by an operator, or by a client's word of it
        if method in ("debug", "info") or (event["event"] == UNLIMITED and asked_for):
            return event
        key = tuple(event.get(name) for name in ("event", "line", "exception", "error"))
        now = time.monotonic()
        window = seen.setdefault(key, [now, 0, 0])
        if now - window[0] >= REPEATS_SECONDS:
            left_out = int(window[2])
            window[:] = [now, 0, 0]
            if left_out:
                event["left_out"] = left_out
        window[1] += 1
        if window[1] > REPEATS_MAX:
            window[2] += 1
            raise structlog.DropEvent
        return event

    return limit


def _stamp(_logger: object, _method: str, event: EventDict) -> EventDict:
    event["time"] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{int(time.time() * 1000) % 1000:03d}Z"
    return event


def _escape(_logger: object, _method: str, event: EventDict) -> EventDict:
    """What clients say may hold what a terminal obeys (colours, the cursor, lines rewritten): it is shown, not sent there."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = repr(value)[1:-1]
    return event


def _json(_logger: object, _method: str, event: EventDict) -> str:
    try:
        return msgspec.json.encode(event, enc_hook=str).decode()
    except UnicodeEncodeError:  # half a surrogate pair in an extID
        return msgspec.json.encode({key: _escaped(value) for key, value in event.items()}, enc_hook=str).decode()


def _escaped(value: object) -> object:
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
