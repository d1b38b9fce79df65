"""What a part of the benchmark is given: the servers that run, the load clients, and how long a step may take."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from gateway.access import Access
from tests.bench.dataset import Dataset
from tests.bench.figures import Sample
from tests.bench.load_client import Job, Result
from tests.bench.postgres_sides import Postgres
from tests.bench.processes import cpu_seconds
from tests.bench.server_processes import LoadClient, Served

Step = Callable[[], Sample]


class Stage(Struct, frozen=True):
    """`token` and `access` are of a session in the large database, `small_token` of one in the small."""

    dataset: Dataset
    postgres: Postgres
    gateway: Served
    small_gateway: Served
    echo: Served
    client: LoadClient
    prober: LoadClient
    token: str
    small_token: str
    access: Access
    step_seconds: int

    def ask(self, server: Served, frames: list[str], token: str = "", sockets: int = 1, in_flight: int = 1) -> Sample:
        """Load on one server; the gateway answers with status 200, the echo with the frame itself."""
        cpu_before = cpu_seconds(server.pid)
        result = self.client.run(
            Job(
                port=server.port,
                frames=frames,
                expect='"status":200' if token else '"command"',
                token=token,
                sockets=sockets,
                in_flight=in_flight,
                seconds=self.step_seconds,
                warm_seconds=self.step_seconds / 4,
            )
        )
        return sample_of(result, cpu_seconds(server.pid) - cpu_before)


def sample_of(result: Result, server_cpu_seconds: float) -> Sample:
    """A load client's result as the figures use it."""
    return {
        "per_second": result.commands / result.seconds,
        "p50": result.p50,
        "p99": result.p99,
        "bytes": result.bytes_received / max(1, result.commands),
        "client_cpu": result.cpu_seconds / max(1, result.commands),
        "server_cpu": server_cpu_seconds / max(1, result.commands_with_warm_up),
    }
