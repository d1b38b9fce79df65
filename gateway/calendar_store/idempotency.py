"""Sent twice, done once: the keys of calendar writes, each kept with the reply that is given again."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import asyncpg
import msgspec
from msgspec import Raw

from gateway.database import Database, Statement
from gateway.errors import CommandError, ErrorCode, Outcome, no_service
from gateway.settings import Settings
from gateway.turns import Turn, Turns

PRUNE_ROWS = 1_000
"""Keys removed by one statement: some 10 ms of PostgreSQL's time."""
PRUNE_PAUSE_SECONDS = 60.0
"""Between two looks for keys that are old enough to go."""

_FIND = Statement("SELECT digest, reply FROM idempotency_key WHERE manager_id = $1 AND key = $2", writes=False)
_PRUNE = Statement(
    """
    WITH old AS (
        SELECT manager_id, key FROM idempotency_key WHERE created_time < extract(epoch FROM now()) - $1::bigint
        ORDER BY created_time LIMIT $2 FOR UPDATE SKIP LOCKED
    ),
    pruned AS (
        DELETE FROM idempotency_key AS kept USING old WHERE kept.manager_id = old.manager_id AND kept.key = old.key
        RETURNING 1
    )
    SELECT count(*) AS count FROM pruned
    """,
    writes=True,
)

STATEMENTS = (_FIND, _PRUNE)


class WriteKey(NamedTuple):
    """A manager's `idempotencyKey`, with the SHA-256 of the command and its decoded data."""

    manager_id: int
    key: str
    digest: bytes


def write_key(manager_id: int, text: str, command: str, data: Raw) -> WriteKey:
    """The key of a command. Its data counts as it was sent, before defaults, whatever its spaces and its order of fields."""
    try:
        fields = msgspec.json.decode(data)
        fields.pop("__access", None)
        sent = msgspec.json.encode(fields, order="sorted")
    except (msgspec.MsgspecError, RecursionError):  # a body that only its own limits will judge
        sent = bytes(data)
    return WriteKey(manager_id, text, hashlib.sha256(command.encode() + b" " + sent).digest())


class KeyTakenError(Exception):
    """A write with this key is committed, so this one did nothing.

    `lost` is the error of the same command's first try, whose answer never came; without it the key is another command's.
    """

    def __init__(self, lost: CommandError | None = None) -> None:
        super().__init__()
        self.lost = lost


class _Kept(NamedTuple):
    """What the first write with a key left behind."""

    digest: bytes
    reply: bytes


class _Failed(NamedTuple):
    """The first write with a key failed, `at` then (monotonic). Those who waited with the same get `error`, or NO_SERVICE."""

    digest: bytes
    error: CommandError | None
    at: float


class Idempotency:
    """Runs each keyed write once, whichever process it is sent to, and gives its reply again."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._keep_seconds = settings.idempotency_seconds
        self._turns: Turns[tuple[int, str], _Kept | _Failed] = Turns(settings.db_command_seconds, _first_is_running)

    async def once(self, key: WriteKey, write: Callable[[], Awaitable[bytes]]) -> tuple[bytes, bool]:
        """The reply as JSON, and whether it was given before. Raises what `write` raises, and CommandError CONFLICT.

        Equal keys of this process wait for each other here, without a database connection; what was sent again while the
        first was under way fails with it, or it would come behind the commands that were sent after both. A refusal
        counts only once it is clear that the key is new: the event may have changed or gone since the first time.
        """
        began = time.monotonic()
        async with self._turns.of((key.manager_id, key.key)) as turn:
            if isinstance(turn.result, _Kept):
                return _again(turn.result, key), True
            if turn.result is not None and turn.result.at > began:
                raise _failed_before(turn.result, key)
            try:
                reply = await write()
            except KeyTakenError as taken:
                turn.result = await self._committed(key, taken.lost)
                return _again(turn.result, key), taken.lost is None
            except CommandError as error:
                kept = await self._kept_after(turn, key, error)
                if kept is None:
                    raise
                return _again(kept, key), True
            turn.result = _Kept(key.digest, reply)
            return reply, False

    async def _kept_after(self, turn: Turn[_Kept | _Failed], key: WriteKey, error: CommandError) -> _Kept | None:
        """What the key was kept with before, which a refusal must not hide; None: the key is new."""
        turn.result = _Failed(key.digest, None, time.monotonic())  # stays where nobody can say
        kept = None if error.status >= 500 else await self._find(key)
        turn.result = kept or _failure(key, error)
        return kept

    async def taken(self, key: WriteKey) -> bool:
        """Whether a write with this key is committed."""
        return await self._find(key) is not None

    async def prune_forever(self) -> None:
        """Removes keys that are past their time, in small steps. Several processes may do this at once."""
        while True:
            await asyncio.sleep(PRUNE_PAUSE_SECONDS)
            await self.prune()

    async def prune(self) -> None:
        """Removes what is past its time now; what the database refuses is left for the next time."""
        try:
            while row := await self._db.fetch_row(_PRUNE, self._keep_seconds, PRUNE_ROWS):
                if row["count"] < PRUNE_ROWS:
                    return
        except (CommandError, asyncpg.PostgresError):
            return

    async def _committed(self, key: WriteKey, lost: CommandError | None) -> _Kept:
        """What a taken key was kept with; while nobody can say, a lost answer stays unknown."""
        try:
            kept = await self._find(key)
        except CommandError as error:
            raise lost or error from None
        if kept is None:
            raise RuntimeError("a taken key is not there")
        return kept

    async def _find(self, key: WriteKey) -> _Kept | None:
        row = await self._db.fetch_row(_FIND, key.manager_id, key.key)
        return None if row is None else _Kept(row["digest"], row["reply"].encode())


def _failure(key: WriteKey, error: CommandError) -> _Failed | None:
    """What those that wait for the key are to know. None after a refusal that the database did not confirm.

    Such a one they meet again, or their access is another by now. An ended session is not theirs, if they have another.
    """
    if error.code is ErrorCode.UNAUTHORIZED:
        return _Failed(key.digest, None, time.monotonic())
    if error.confirmed or error.status >= 500:
        return _Failed(key.digest, error.for_another(), time.monotonic())
    return None


def _failed_before(first: _Failed, key: WriteKey) -> CommandError:
    """Why a command that waited for its key is not done."""
    if first.error is not None and first.digest == key.digest:
        return first.error.for_another()
    return no_service("the command before this one with its idempotencyKey failed")


def _first_is_running() -> CommandError:
    return CommandError(
        ErrorCode.TIMEOUT, "the first command with this idempotencyKey is still running", outcome=Outcome.UNKNOWN
    )


def _again(kept: _Kept, key: WriteKey) -> bytes:
    if kept.digest != key.digest:
        raise CommandError(
            ErrorCode.CONFLICT, "this idempotencyKey was used with another command or other data: take a new key"
        )
    return kept.reply
