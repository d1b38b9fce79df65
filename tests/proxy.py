"""A link to PostgreSQL that can be cut before the statement that carries a marker, within it, or after its last byte, that
can swallow its answer, or hide from PostgreSQL that it is cut, and that can become a black hole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

Blow = Literal["before", "within", "after", "swallowed"]
Where = Literal[Blow, "abandoned"]
CHUNK_BYTES = 1 << 20
SYNC = b"S\x00\x00\x00\x04"
"""The message that ends a statement of the extended protocol: until PostgreSQL has it, it commits nothing."""


class Proxy:
    """Passes bytes on between the gateway and PostgreSQL's unix socket until a marker comes by."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._markers: dict[bytes, Where] = {}
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.abandon = asyncio.Event()
        self.cuts = 0

    def cut(self, where: Where, marker: str) -> None:
        """Cuts the first connection that sends the marker, once.

        `swallowed` leaves it open, and silent ever after; `abandoned` cuts it at `abandon`, for the gateway alone.
        """
        self._markers[marker.encode()] = where

    @property
    def waiting(self) -> int:
        """Cuts whose marker has not come by yet."""
        return len(self._markers)

    def hold(self) -> None:
        """Makes a black hole of the link: connections are taken, and no byte passes either way."""
        self._flowing.clear()

    def release(self) -> None:
        """Lets everything pass that was held, and what follows."""
        self._flowing.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the gateway's."""
        try:
            back_reader, back_writer = await asyncio.open_unix_connection(self._socket_path)
        except OSError:  # PostgreSQL is away, which the gateway sees as a link that ends
            return
        async with asyncio.TaskGroup() as tasks:
            answers = tasks.create_task(self._pass_answers(back_reader, writer))
            tasks.create_task(self._pass_statements(reader, back_writer, answers, writer))

    async def _pass_statements(
        self,
        reader: asyncio.StreamReader,
        back: asyncio.StreamWriter,
        answers: asyncio.Task[None],
        front: asyncio.StreamWriter,
    ) -> None:
        with suppress(ConnectionError):
            while chunk := await reader.read(CHUNK_BYTES):
                if any(marker in chunk for marker in self._markers):
                    while not chunk.endswith(SYNC):
                        chunk += await reader.read(CHUNK_BYTES)
                    await self._cut(chunk, reader, back, answers, front)
                    return
                await self._flowing.wait()
                back.write(chunk)
                await back.drain()
        answers.cancel()
        back.close()

    async def _cut(
        self,
        statement: bytes,
        reader: asyncio.StreamReader,
        back: asyncio.StreamWriter,
        answers: asyncio.Task[None],
        front: asyncio.StreamWriter,
    ) -> None:
        """No answer passes any more; of the statement PostgreSQL gets nothing, half, or all, and then the end, if it is cut."""
        where = {self._markers.pop(marker) for marker in tuple(self._markers) if marker in statement}.pop()
        self.cuts += 1
        answers.cancel()
        sent = {"before": 0, "within": len(statement) // 2}.get(where, len(statement))
        back.write(statement[:sent])
        with suppress(ConnectionError):
            await back.drain()
        with closing(back):
            if where == "swallowed":
                while await reader.read(CHUNK_BYTES):
                    pass  # until the gateway has waited long enough
            if where == "abandoned":
                await self.abandon.wait()
            front.transport.abort()
            if where == "abandoned":
                await asyncio.get_running_loop().create_future()  # until the end of the block

    async def _pass_answers(self, back: asyncio.StreamReader, front: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while chunk := await back.read(CHUNK_BYTES):
                await self._flowing.wait()
                front.write(chunk)
                await front.drain()
        front.close()


@asynccontextmanager
async def proxied(dsn: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy to the PostgreSQL of `dsn`, and the address that leads through it."""
    parts = urlsplit(dsn)
    folder = parse_qs(parts.query)["host"][0]
    proxy = Proxy(f"{folder}/.s.PGSQL.5432")
    links: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        links.add(link)
        with closing(writer), suppress(asyncio.CancelledError):  # the end of the block is a good end of its links
            await proxy.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy, f"postgresql://gateway@127.0.0.1:{port}{parts.path}?sslmode=disable"
    for link in links:
        link.cancel()
    await asyncio.gather(*links, return_exceptions=True)
