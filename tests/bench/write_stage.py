"""What the write part needs: a gateway as shipped and one that shares nothing on an empty database, one on a large one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from msgspec import structs

from tests.bench import adds, server_processes
from tests.bench.dataset import Dataset, open_session
from tests.bench.figures import Sample, StepFailedError
from tests.bench.load_job import Shape
from tests.bench.postgres_sides import Postgres, place_server
from tests.bench.processes import cores
from tests.bench.server_processes import Served
from tests.bench.stage import Stage, shared_sides
from tests.bench.write_data import Table, tables


class WriteStage(Stage, frozen=True, kw_only=True):
    """`token` is of a session in the empty database, `large_token` of one in the large."""

    gateway: Served
    unshared_gateway: Served
    large_gateway: Served
    fresh_gateway: Callable[[], AbstractContextManager[Served]]
    empty: Table
    large: Table
    token: str
    large_token: str
    frames: list[str]

    def add(self, shape: Shape, server: Served | None = None, *, keyed: bool = False) -> Sample:
        """Adds through a gateway. Raises StepFailedError unless as many events are there as were acknowledged."""
        server = server or self.gateway
        table, token = (self.large, self.large_token) if server is self.large_gateway else (self.empty, self.token)
        table.prepare()
        before = table.added()
        frames = adds.frames(self.dataset, keyed=True) if keyed else self.frames
        sample, acknowledged = self.ask_counted(server, frames, token, shape)
        if (added := table.added() - before) != acknowledged:
            raise StepFailedError(f"{acknowledged} adds were acknowledged and {added} are there")
        return {**sample, "row_bytes": table.row_bytes()}

    def add_by_pgbench(self, clients: int, *, pipelined: bool = False) -> Sample:
        """Adds the same rows one by one. It is faster with all cores, PostgreSQL too, so that is what it gets."""
        script, options = adds.transaction(self.dataset, pipelined=pipelined)
        core, other_core = cores()
        self.empty.prepare()
        place_server(core | other_core)
        try:
            sample = self.postgres.pgbench_script(self.empty.dsn, "add", script, options, self.step_seconds, clients)
        finally:
            place_server(other_core)
        if not self.empty.added():
            raise StepFailedError("pgbench added nothing")
        return {**sample, "row_bytes": self.empty.row_bytes()}


@contextmanager
def staged(data: Dataset, seconds: int) -> Iterator[WriteStage]:
    """Every process of the part beside PostgreSQL."""
    core, other_core = cores()
    with tables(data) as (empty, large), shared_sides(data, seconds) as shared:
        empty_gateway = partial(server_processes.gateway, empty.dsn, core)
        with (
            empty_gateway("gateway") as gateway,
            empty_gateway("gateway-unshared", commands_per_commit_max=1) as unshared_gateway,
            server_processes.gateway(large.dsn, core, "gateway-large") as large_gateway,
        ):
            yield WriteStage(
                **{**structs.asdict(shared), "postgres": Postgres(core | other_core)},
                gateway=gateway,
                unshared_gateway=unshared_gateway,
                large_gateway=large_gateway,
                fresh_gateway=partial(empty_gateway, "gateway-fresh"),
                empty=empty,
                large=large,
                token=asyncio.run(open_session(empty.dsn))[0],
                large_token=asyncio.run(open_session(large.dsn))[0],
                frames=adds.frames(data),
            )
