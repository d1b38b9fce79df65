"""What a load client is told, on lines of text, and what it answers, on lines of JSON."""

from __future__ import annotations

from msgspec import Struct

NUMBER = "########"
"""Stands in a frame for a number of its own, in eight digits; its extID must be that number and nothing else."""


class Shape(Struct, frozen=True, kw_only=True):
    """How frames are spread. `in_flight` on each socket; or `window` in all, each on the next socket; or `rate` a second.

    At a rate frames leave when it is their time, whatever was answered, and latency counts from that time.
    With nothing in flight the sockets stay idle.
    """

    sockets: int = 1
    in_flight: int = 1
    window: int = 0
    rate: float = 0.0


ONE_BY_ONE = Shape()


class Job(Struct, frozen=True, kw_only=True):
    """Frames to send, over and over. It ends after `seconds`, after `count` replies, or with the next line of input,
    which is empty and does nothing to a job that has ended by then.

    A reply is text, on the socket of its command; `expect` stands in it right behind the extID.
    """

    port: int
    frames: list[str]
    expect: str
    token: str = ""
    shape: Shape = ONE_BY_ONE
    seconds: float = 0.0
    warm_seconds: float = 0.0
    count: int = 0
    pause_seconds: float = 0.0

    def told(self) -> bytes:
        """The job as load_job.c reads it: a line of what it is without its frames, then the frames, each on a line."""
        shape = self.shape
        spread = (shape.sockets, 0 if shape.rate or shape.window else shape.in_flight, shape.window, shape.rate)
        times = (self.seconds, self.warm_seconds, self.count, self.pause_seconds)
        line = (self.port, *spread, *times, self.expect or "-", self.token or "-", len(self.frames))
        return "".join(f"{text}\n" for text in (" ".join(map(str, line)), *self.frames)).encode()


class Opened(Struct, frozen=True):
    """The first answer to a job, when all its sockets are open. With an error there is no result."""

    error: str = ""


class Result(Struct, frozen=True, kw_only=True):
    """`commands`, `seconds` and what follows are of the time measured, `commands_in_all` of everything since `Opened`.

    Latencies are in seconds, those of commands that were under way at the end included.
    """

    commands: int
    commands_in_all: int
    wrong: int
    seconds: float
    cpu_seconds: float
    bytes_received: int
    p50: float
    p99: float
    longest: float
    first_wrong: str = ""
