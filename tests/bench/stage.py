"""What every part of the benchmark is given: the echo, PostgreSQL's programs, the load clients, and how long a step takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from tests.bench import server_processes
from tests.bench.dataset import Dataset
from tests.bench.figures import Sample
from tests.bench.load_job import ONE_BY_ONE, Job, Result, Shape
from tests.bench.postgres_sides import Postgres
from tests.bench.processes import cores, cpu_seconds
from tests.bench.server_processes import LoadClient, Served

Step = Callable[[], Sample]
WARM_SHARE = 0.25
"""How long a step runs before it is measured, as a share of its time."""


class Stage(Struct, frozen=True):
    """The sides that all parts share."""

    dataset: Dataset
    postgres: Postgres
    echo: Served
    echo_on_gateway_socket: Served
    client: LoadClient
    prober: LoadClient
    step_seconds: int

    def ask(self, server: Served, frames: list[str], token: str = "", shape: Shape = ONE_BY_ONE) -> Sample:
        """Load on one server; the gateway answers with status 200, the echo with the frame itself."""
        return self.ask_counted(server, frames, token, shape)[0]

    def ask_counted(self, server: Served, frames: list[str], token: str, shape: Shape) -> tuple[Sample, int]:
        """The same, and how many commands were answered in all."""
        self.client.begin(
            Job(
                port=server.port,
                frames=frames,
                expect='"status":200,' if token else '"data":',
                token=token,
                shape=shape,
                seconds=self.step_seconds,
                warm_seconds=self.step_seconds * WARM_SHARE,
            )
        )
        cpu_before = cpu_seconds(server.pid)
        result = self.client.result()
        return sample_of(result, cpu_seconds(server.pid) - cpu_before), result.commands_in_all


@contextmanager
def shared_sides(data: Dataset, seconds: int) -> Iterator[Stage]:
    """A stage without a gateway."""
    server_core, other_core = cores()
    with (
        server_processes.echo(server_core, "library") as echo,
        server_processes.echo(server_core, "gateway") as echo_on_gateway_socket,
        server_processes.load_client(server_core | other_core) as client,
        server_processes.load_client(other_core) as prober,
    ):
        yield Stage(data, Postgres(server_core), echo, echo_on_gateway_socket, client, prober, seconds)


def sample_of(result: Result, server_cpu_seconds: float) -> Sample:
    """A load client's result as the figures use it."""
    return {
        "per_second": result.commands / result.seconds,
        "p50": result.p50,
        "p99": result.p99,
        "bytes": result.bytes_received / max(1, result.commands),
        "client_cpu": result.cpu_seconds / max(1, result.commands),
        "server_cpu": server_cpu_seconds / max(1, result.commands_in_all),
    }
