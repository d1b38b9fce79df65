"""What the read part needs: a gateway on the large database and one on the small."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import structs

from gateway.access import Access
from tests.bench import server_processes
from tests.bench.dataset import Dataset, open_session
from tests.bench.processes import cores
from tests.bench.server_processes import Served
from tests.bench.stage import Stage, shared_sides


class ReadStage(Stage, frozen=True, kw_only=True):
    """`token` and `access` are of a session in the large database, `small_token` of one in the small."""

    gateway: Served
    small_gateway: Served
    token: str
    small_token: str
    access: Access


@contextmanager
def staged(data: Dataset, seconds: int) -> Iterator[ReadStage]:
    """Every process of the part beside PostgreSQL."""
    core, _ = cores()
    token, access = asyncio.run(open_session(data.dsn))
    small_token, _ = asyncio.run(open_session(data.small_dsn))
    with (
        shared_sides(data, seconds) as shared,
        server_processes.gateway(data.dsn, core, "gateway") as gateway,
        server_processes.gateway(data.small_dsn, core, "gateway-small") as small_gateway,
    ):
        yield ReadStage(
            **structs.asdict(shared),
            gateway=gateway,
            small_gateway=small_gateway,
            token=token,
            small_token=small_token,
            access=access,
        )
