"""Whose a connection is: the session it has now, and the order in which its commands are let in. Asks no database.

What a session may do, and whether it still holds, is in sessions.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.errors import no_service
from gateway.tokens import Session

EARLIER_SECONDS = 4.0
"""How long a command waits for earlier ones of its connection with other tokens: for their turn and their look-up."""


class Entering:
    """Commands of one connection and one session that wait to be let in; those of its next session wait for them."""

    __slots__ = ("_earlier", "count", "done", "session")

    def __init__(self, session: Session, earlier: Entering | None) -> None:
        self.session = session
        self.count = 0
        self.done = asyncio.Event()
        self._earlier = earlier.done if earlier else None

    async def wait_for_earlier(self) -> None:
        """Returns once those before are in or refused, which each of them is within seconds. Raises CommandError."""
        if self._earlier is None:
            return
        if self._earlier.is_set():
            await asyncio.sleep(0)  # behind those that waited for it, which go on at the event loop's next turn
            return
        try:
            async with asyncio.timeout(EARLIER_SECONDS):
                await self._earlier.wait()
        except TimeoutError:
            raise no_service("earlier commands of this connection wait") from None


class Identity:
    """Whose connection it is. MngLogin, MngLogout and proofs change `session`; each command reads it as it is read.

    `proved` is set by any valid proof, also by a `__token` that makes no session of the socket's. `address` is what the
    client counts as where clients are counted; `changed` is called when the session has become another, or nobody's.
    `room` returns once so many bytes may be written to the client, or it is gone.
    `entering` are its latest commands that wait to be let in, if any do. `gone` is true once the socket is closed: nothing
    can be answered any more.
    """

    __slots__ = ("address", "changed", "entering", "gone", "proved", "room", "session")

    def __init__(self, address: str = "") -> None:
        self.address = address
        self.changed: Callable[[], None] = _nothing
        self.room: Callable[[int], Awaitable[None]] = _at_once
        self.session: Session | None = None
        self.proved = False
        self.entering: Entering | None = None
        self.gone = False

    def forget_connection(self) -> None:
        """Calls nobody any more; whom it called refers to this in a circle, which only the garbage collector would find."""
        self.changed, self.room = _nothing, _at_once

    def open(self, session: Session) -> None:
        """Makes the session the socket's."""
        self.session = session
        self.proved = True
        self.changed()

    def close(self) -> None:
        """The socket is nobody's again; its time to prove itself starts anew."""
        self.session = None
        self.proved = False
        self.changed()


def _nothing() -> None:
    """Nobody is told."""


async def _at_once(_size: int) -> None:
    """Nothing is written to anybody."""
