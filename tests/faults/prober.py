"""Watches a gateway's event loop from outside: a process of its own that asks for its health every two milliseconds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from tests.bench.load_job import Job, Opened, Result
from tests.bench.processes import load_client_program
from tests.bench.statements import frame_of_health_check

PROBE_SECONDS = 0.002


class Prober:
    """A load client's process. One job at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin, process.stdout

    async def stall(self, port: int, seconds: float, token: str = "") -> float:
        """The longest time that an answer took."""
        job = Job(
            port=port,
            frames=[frame_of_health_check()],
            expect='"status":200',
            token=token,
            seconds=seconds,
            pause_seconds=PROBE_SECONDS,
        )
        return (await self.run(job)).longest

    async def run(self, job: Job) -> Result:
        """A job that ends by itself."""
        self._input.write(job.told())
        if error := msgspec.json.decode(await self._output.readline(), type=Opened).error:
            raise RuntimeError(error)
        result = msgspec.json.decode(await self._output.readline(), type=Result)
        if result.wrong:
            raise RuntimeError(f"{result.wrong} wrong or missing replies; one began {result.first_wrong!r}")
        return result


@asynccontextmanager
async def prober(*, first: bool = True) -> AsyncIterator[Prober]:
    """A prober as long as the block. With `first` it does not wait for the load's own processes, where that may be."""
    process = await asyncio.create_subprocess_exec(
        load_client_program(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=_first_in_line if first and os.geteuid() == 0 else None,
    )
    try:
        yield Prober(process)
    finally:
        process.kill()
        await process.wait()


def _first_in_line() -> None:
    os.nice(-10)
