"""Bugs to plant: each is one edit of the gateway's text, and the tests that are there to catch it."""

from __future__ import annotations

from typing import NamedTuple


class Plant(NamedTuple):
    """`old` must occur exactly once in the module's file. `tests` are what pytest is given."""

    module: str
    old: str
    new: str
    tests: tuple[str, ...]


ASYNCHRONOUS = "asynchronous commit"
EARLY = "acknowledge before commit"
KEYLESS = "key not checked"
FRAMES_LOGGED = "frames logged"
LIBRARIES_LOGGED = "libraries logged at DEBUG"
SOCKETS_KEPT = "sockets kept"

CONTROLS: dict[str, Plant] = {
    ASYNCHRONOUS: Plant("gateway.database_pool", '"synchronous_commit": "on"', '"synchronous_commit": "off"', ()),
    FRAMES_LOGGED: Plant(
        "gateway.dispatch",
        "            found = wire.read(message)\n",
        "            self._log._logger.debug('frame', text=message)\n            found = wire.read(message)\n",
        (),
    ),
    LIBRARIES_LOGGED: Plant(
        "gateway.log",
        "    root.handlers[:] = [_LibraryHandler(logger)]\n    root.setLevel(logging.WARNING)\n",
        "    root.handlers[:] = [logging.StreamHandler(sys.stdout)]\n    root.setLevel(logging.DEBUG)\n",
        (),
    ),
    SOCKETS_KEPT: Plant(
        "gateway.server",
        "            self._seats.leave(connection)\n",
        "            self._seats.leave(connection)\n"
        "            kept_task = self._workers._tasks.create_task(asyncio.sleep(86_400))\n"
        "            kept = b'x' * 262_144, __import__('os').dup(2), kept_task\n"
        "            self.__dict__.setdefault('kept', []).append((connection, kept))\n",
        (),
    ),
}
"""No bug that a test of the suite could see: whether a fault's check sees it shows that the check can fail."""

PLANTS: dict[str, Plant] = {
    "wrong extID": Plant(
        "gateway.wire",
        "        return encode(ext_id)\n",
        "        return encode(str(ext_id))\n",
        ("tests/test_wire.py",),
    ),
    EARLY: Plant(
        "gateway.calendar_store.store",
        "        if not await self._write(self._adds, Write(event, access.epoch, key), access.manager_id):\n",
        "        add = self._write(self._adds, Write(event, access.epoch, key), access.manager_id)\n"
        "        self.early = [*getattr(self, 'early', []), asyncio.ensure_future(add)]\n"
        "        if not event:\n",
        ("tests/test_group_commit.py", "tests/test_atomicity.py"),
    ),
    KEYLESS: Plant(
        "gateway.execution",
        "            return await self._handle_once(command, frame, frame.idempotency_key, request, context)\n",
        "            pass\n",
        ("tests/test_idempotency.py",),
    ),
    "rollback forgotten": Plant(
        "gateway.calendar_store.batches",
        "        rows = await self._fetch("
        "statements.ADD_EVENTS, statements.ADD_KEYED_EVENTS, given, (), batch, _event_reply)\n",
        "        rows = await self._db.fetch(statements.ADD_EVENTS, given[0], '[]')\n"
        "        second = statements.ADD_EVENTS.sql.partition('invited AS (')[2].partition(')\\n    SELECT id FROM added')[0]\n"
        "        second = second.replace('JOIN added', 'JOIN calendar_event AS added').replace('$2::json', '$1::json')\n"
        "        await self._db.fetch(Statement(second, writes=True), given[1])\n",
        ("tests/test_atomicity.py",),
    ),
    "reply before participants": Plant(
        "gateway.calendar_store.statements",
        "FROM {_GIVEN_PARTICIPANTS} JOIN added ON added.id = given.event_id\n",
        "FROM {_GIVEN_PARTICIPANTS} JOIN added ON added.id = given.event_id AND given.role = 0\n",
        ("tests/test_add_calendar_event.py", "tests/test_get_calendar_event.py"),
    ),
    "brand predicate missing": Plant(
        "gateway.calendar_store.sql",
        "    event.brand = ANY (access.brands)\n",
        "    true\n",
        ("tests/test_rights_matrix.py",),
    ),
    "exclusions of a mask ignored": Plant(
        "gateway.calendar_store.sql",
        " AND NOT event.desk LIKE ANY (access.exclude)",
        "",
        ("tests/test_rights_matrix.py", "tests/test_get_calendar_events_by_filter.py"),
    ),
    "unbounded queue": Plant(
        "gateway.outbox",
        "        return self.full or waiting > self._bytes_max or now - self._progress_at > self._stall_seconds\n",
        "        return False\n",
        ("tests/test_sweeper.py::test_client_that_takes_nothing_is_cut",),
    ),
    "revoked session goes on": Plant(
        "gateway.calendar_store.statements",
        '_EPOCH_HOLDS = "given.epoch = (SELECT epoch FROM access_epoch)"',
        '_EPOCH_HOLDS = "true"',
        ("tests/test_access.py",),
    ),
    "stale if_version accepted": Plant(
        "gateway.commands.changes",
        "if_version != event.version:",
        "if_version > event.version:",
        ("tests/test_update_calendar_event.py", "tests/test_concurrent_changes.py"),
    ),
    "answers dropped by the drain": Plant(
        "gateway.drain",
        "                await connection.settled()\n",
        "                connection.abort()\n",
        ("tests/test_drain.py::test_drain_answers_all_that_is_in_flight",),
    ),
    "Origin not checked": Plant(
        "gateway.server",
        '"origins": [None, *settings.origins],',
        '"origins": None,',
        ("tests/test_handshake.py",),
    ),
    "signature not checked": Plant(
        "gateway.tokens",
        'options={"require": _REQUIRED},',
        'options={"require": _REQUIRED, "verify_signature": False, "verify_exp": True},',
        ("tests/test_tokens.py",),
    ),
    "unknown told as not executed": Plant(
        "gateway.database",
        "Outcome.UNKNOWN if statement.writes else Outcome.NOT_EXECUTED",
        "Outcome.NOT_EXECUTED",
        ("tests/test_atomicity.py", "tests/test_group_commit.py"),
    ),
    "second change of an event overtakes": Plant(
        "gateway.turns",
        "        turn = self._turns.get(name)\n",
        "        turn = None\n",
        ("tests/test_order.py", "tests/test_concurrent_changes.py"),
    ),
    "a manager's flood has no limit": Plant(
        "gateway.fair_share",
        "        if manager.under_way < self._most or not self._most:\n",
        "        if manager:\n",
        ("tests/test_fair_share.py",),
    ),
    "a command overtakes one that waits for its access": Plant(
        "gateway.sessions",
        "        if self._looking_up and session in self._lookups:\n            return None\n",
        "",
        ("tests/test_access.py",),
    ),
}


def plant_of(name: str) -> Plant:
    """A planted bug by its name, of whichever table."""
    return (CONTROLS | PLANTS)[name]
