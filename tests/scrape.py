"""Scrapes of a gateway's metrics page, as Prometheus reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.client import WAIT_SECONDS
from tests.process import until

SHOWN = {"metrics_host": "127.0.0.1", "metrics_port": 0}
"""Settings of a gateway that shows its metrics."""


class Scrape:
    """One reading of the page."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name which have these labels."""
        return sum(s.value for s in self._samples if s.name == name and labels.items() <= s.labels.items())

    def values(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The samples of that name by the values of these labels, those at 0 left out."""
        return {tuple(s.labels[label] for label in labels): s.value for s in self._samples if s.name == name and s.value}


async def fetch(port: int, path: str = "/metrics", accept: str = "*/*") -> tuple[int, str, str]:
    """Status, headers and body of a plain request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: tests\r\nAccept: {accept}\r\n\r\n".encode())
        async with asyncio.timeout(WAIT_SECONDS):
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        return int(head.split()[1]), head, body
    finally:
        writer.close()
        await writer.wait_closed()


def metrics_port(gateway: Any) -> int:
    """Where the gateway said that its metrics are."""
    (line,) = [line for line in gateway.log_lines if line["event"] == "metrics"]
    return int(line["port"])


async def scrape(gateway: Any) -> Scrape:
    status, _, body = await fetch(metrics_port(gateway))
    assert 200 == status
    return Scrape(body)


async def scrape_until(gateway: Any, holds: Callable[[Scrape], object]) -> Scrape:
    """The first scrape for which it holds."""

    def read() -> Awaitable[Scrape]:
        return scrape(gateway)

    return await until(read, holds)
