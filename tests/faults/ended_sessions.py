"""Sessions that end and rights that change under open sockets, at two processes on one database."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

from websockets.exceptions import ConnectionClosed

from gateway import managers
from gateway.errors import CloseCode
from tests.client import EVENT, Client
from tests.faults.check import Finding
from tests.faults.keys import opened
from tests.faults.stage import Stage, connected, sessions
from tests.process import until
from tests.test_cli import run

CLOSED_SECONDS = 1.0
"""From the end of a session to the close of its sockets, idle or not."""
PATIENCE_SECONDS = 4.0
"""How long a close is waited for: one that does not come is to be told, not to end the check."""
OWNER = 1
"""Whose event everybody else changes, or may not."""
WHOLE = "desk_mask = '*', brands = '{default}', type = 11"
LESS = {
    "desk mask": ("desk_mask = '*,!DESK_EU'", 404),
    "brands": ("brands = '{other}'", 404),
    "type": ("type = 9", 403),
    "administrator": ("type = 10", 403),
}
"""What is taken from a manager's row, and how a change of the owner's event is refused then."""
_EPOCH = "SELECT epoch FROM access_epoch"


class Place(NamedTuple):
    """Two gateways on one database; `db` makes changes, `watch` sees when they are there for everybody."""

    dsn: str
    db: Any
    watch: Any
    urls: tuple[str, str]


class Tally:
    """What was seen. `wrong` counts each exception by what it was."""

    def __init__(self) -> None:
        self.wrong: Counter[str] = Counter()
        self.obeyed = 0
        self.closed = 0
        self.slowest = 0.0

    def command(self, after: str, found: int, *wanted: int) -> None:
        """Notes the status of a command, or the code that its socket was closed with."""
        self._note(found in wanted, f"command after {after}: {found}")
        self.obeyed += found in wanted

    def close(self, after: str, code: int, seconds: float) -> None:
        """Notes how a socket ended, and how long after its session."""
        good = code == CloseCode.SESSION_ENDED and seconds <= CLOSED_SECONDS
        self._note(good, f"{after}: closed with {code} after {seconds:.0f} s" if code else f"{after}: not closed")
        self.closed += good
        self.slowest = max(self.slowest, seconds)

    def _note(self, good: bool, what: str) -> None:
        if not good:
            self.wrong[what] += 1

    def __str__(self) -> str:
        wrong = ", ".join(f"{what} ({count}x)" for what, count in sorted(self.wrong.items()))
        return (
            f"{self.obeyed:,} next commands obeyed, {self.closed} sockets closed with 4501, the last after "
            f"{self.slowest * 1000:.0f} ms; exceptions: {wrong or 'none'}"
        )


async def _log_out(place: Place, _manager_id: int, token: str) -> None:
    """MngLogout on another socket, which shows the session in this frame alone."""
    async with Client.connected(place.urls[0]) as client:
        assert (await client.command("MngLogout", __token=token))["status"] == 200


async def _revoke(place: Place, _manager_id: int, token: str) -> None:
    """`gateway revoke`, as an operator runs it."""
    ended = await run("revoke", "--token-file", "-", stdin=token, database_url=place.dsn)
    assert ended.code == 0, ended.err


async def _disable(place: Place, manager_id: int, _token: str) -> None:
    """What `gateway manager disable` does."""
    await managers.set_disabled(place.db, manager_id, disabled=True)


ENDS: dict[str, Callable[[Place, int, str], Coroutine[Any, Any, None]]] = {
    "MngLogout": _log_out,
    "gateway revoke": _revoke,
    "disabling": _disable,
}


async def ended_sessions(stage: Stage) -> Finding:
    """Takes rights and gives them back, ends sessions in every way; the sockets of changed rights are open all the while."""
    rounds, each, tally, numbers = stage.count(5, 1), stage.count(6, 2), Tally(), itertools.count(OWNER + 1)
    async with (
        stage.database() as dsn,
        connected(dsn) as db,
        connected(dsn) as watch,
        stage.gateway(dsn) as one,
        stage.gateway(dsn) as other,
        AsyncExitStack() as open_sockets,
    ):
        place = Place(dsn, db, watch, (one.url, other.url))
        event_id, kept = await _add_owners_event(place), []
        for name, (less, status) in LESS.items():
            manager_id = next(numbers)
            _, clients = await open_sockets.enter_async_context(_sockets(place, manager_id, each))
            for _ in range(rounds):
                for row, wanted in ((WHOLE, 200), (less, status), (WHOLE, 200)):
                    await db.execute(f"UPDATE manager SET {row} WHERE id = {manager_id}")
                    for found in await asyncio.gather(*(_change(client, event_id) for client in clients)):
                        tally.command(name, found, wanted)
            kept += clients
        for name, manager_id in zip(list(ENDS) * rounds, numbers, strict=False):
            await _end(place, name, manager_id, each, tally)
        for found in await asyncio.gather(*(_change(client, event_id) for client in kept)):
            tally.command("the end of others", found, 200)
        late = await db.fetchval("SELECT count(*) FROM calendar_event WHERE id <> $1", event_id)
    ended = f"{rounds * len(ENDS)} sessions ended in {len(ENDS)} ways, rights changed in {len(LESS)}, at 2 processes"
    stayed = f"{len(kept)} sockets of changed rights stayed; {late} written by ended sessions"
    return Finding(not tally.wrong and late == 0, f"{ended}: {tally}; {stayed}")


async def _end(place: Place, name: str, manager_id: int, each: int, tally: Tally) -> None:
    """Ends a session with idle and busy sockets at both processes. Time counts from when the end is there for everybody."""
    async with _sockets(place, manager_id, each) as (token, clients), asyncio.TaskGroup() as tasks:
        idle, busy = clients[::2], clients[1::2]
        before = await place.watch.fetchval(_EPOCH)
        closings = [tasks.create_task(_closing(client)) for client in idle]
        tasks.create_task(ENDS[name](place, manager_id, token))
        await until(lambda: place.watch.fetchval(_EPOCH), lambda epoch: epoch != before)
        ended_at = time.monotonic()
        for found in await asyncio.gather(*(_add(client) for client in busy)):
            tally.command(name, found, 401, CloseCode.SESSION_ENDED)
        closings += [tasks.create_task(_closing(client)) for client in busy]
        for code, closed_at in await asyncio.gather(*closings):
            tally.close(name, code, closed_at - ended_at)


async def _add_owners_event(place: Place) -> int:
    async with _sockets(place, OWNER, 1) as (_, clients):
        return int((await clients[0].add(desk="DESK_EU", priority=1))["id"])


async def _change(client: Client, event_id: int) -> int:
    """The status of a change of the owner's event, to what it is."""
    return await _status(client, "MngUpdateCalendarEvent", {"id": event_id, "priority": 1})


async def _add(client: Client) -> int:
    return await _status(client, "MngAddCalendarEvent", EVENT)


async def _status(client: Client, command: str, data: dict[str, Any]) -> int:
    """The status of a command, or the code that its socket was closed with instead of an answer."""
    try:
        return int((await client.command(command, data))["status"])
    except ConnectionClosed:
        return await client.closed()


async def _closing(client: Client) -> tuple[int, float]:
    """The code that a socket is closed with, 0 when it is not, and when."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            code = await client.closed()
    except TimeoutError:
        code = 0
    return code, time.monotonic()


@asynccontextmanager
async def _sockets(place: Place, manager_id: int, each: int) -> AsyncIterator[tuple[str, list[Client]]]:
    """So many sockets at each process, all of one new session of a manager who may do everything; and its token."""
    (token,) = await sessions(place.dsn, [manager_id])
    async with opened(place.urls[0], token, each) as ours, opened(place.urls[1], token, each) as theirs:
        yield token, [*ours, *theirs]
