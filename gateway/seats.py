"""How many sockets each address and each manager has in this process, and who may not have another."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from gateway.connection import Connection
from gateway.errors import CloseCode
from gateway.settings import Settings

Key = TypeVar("Key", bound=Hashable)


class Seats:
    """A socket takes a seat of its address when it opens, and of a manager whenever its session becomes another's."""

    def __init__(self, settings: Settings) -> None:
        self._of_address: _Count[str] = _Count(settings.address_connections_max)
        self._of_manager: _Count[int] = _Count(settings.manager_connections_max)
        self._manager_of: dict[Connection, int] = {}

    def enter(self, address: str) -> bool:
        """Takes a seat of the address; False when it has no other. `leave` gives it back."""
        return self._of_address.enter(address)

    def leave(self, connection: Connection) -> None:
        """Gives back all that the socket has taken."""
        self._of_address.leave(connection.identity.address)
        self._stand_up(connection)

    def change_manager(self, connection: Connection) -> None:
        """Takes a seat of the socket's manager as it is now; closes the socket, after its replies, when there is no other."""
        session = connection.identity.session
        manager_id = session.manager_id if session else None
        if manager_id == self._manager_of.get(connection):
            return
        self._stand_up(connection)
        if manager_id is None:
            return
        if self._of_manager.enter(manager_id):
            self._manager_of[connection] = manager_id
        else:
            connection.end(CloseCode.CONNECTION_LIMIT, "too many connections of this manager: come back later")

    def _stand_up(self, connection: Connection) -> None:
        manager_id = self._manager_of.pop(connection, None)
        if manager_id is not None:
            self._of_manager.leave(manager_id)


class _Count(Generic[Key]):
    """Counts by key up to a limit; 0 is none. Keys without a count take no memory."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: dict[Key, int] = {}

    def enter(self, key: Key) -> bool:
        count = self._counts.get(key, 0)
        if self._limit and count >= self._limit:
            return False
        self._counts[key] = count + 1
        return True

    def leave(self, key: Key) -> None:
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]
