"""Sessions and managers in the database: who may come in, what they may do, and whether that still holds.

What a session may do is remembered together with the access epoch, a number in the database that every change of a
manager and every end of a session advances. A statement carries the epoch it was decided at and does nothing at another,
so a revoked session stops at the next command without a look-up of its own.

The gateway's own tokens need a live row in `session`; other issuers' need none, and no row in `revoked_token`.
"""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from weakref import WeakValueDictionary

from msgspec import Struct

from gateway.access import Access
from gateway.database import Database, Statement
from gateway.errors import CommandError, ErrorCode, no_service
from gateway.issuer_keys import IssuerKeys
from gateway.tokens import Session
from gateway.turns import Question

ACCESS_CACHE_MAX = 100_000
"""Sessions whose access is remembered; some 300 bytes each."""
DECISIONS_MAX = 5
"""Times a command is decided anew because managers or sessions changed meanwhile, before it is answered with 503."""

_FIND_ACCESS = Statement(
    """
    SELECT (SELECT epoch FROM access_epoch) AS epoch, manager.type, manager.brands, manager.desk_mask
    FROM session JOIN manager ON manager.id = session.manager_id
    WHERE session.id = $1 AND session.manager_id = $2 AND session.revoked_time = 0 AND session.expires_time > $3
      AND NOT manager.disabled
    """,
    writes=False,
)
_FIND_FOREIGN_ACCESS = Statement(
    """
    SELECT (SELECT epoch FROM access_epoch) AS epoch, type, brands, desk_mask
    FROM manager
    WHERE id = $1 AND NOT disabled AND NOT EXISTS (SELECT FROM revoked_token WHERE issuer = $2 AND jti = $3)
    """,
    writes=False,
)
_EPOCH = Statement("SELECT epoch FROM access_epoch", writes=False)
_FIND_ENDED = Statement(
    """
    SELECT open.number
    FROM unnest($1::text[], $2::bigint[], $3::text[]) WITH ORDINALITY AS open (id, manager_id, issuer, number)
    LEFT JOIN manager ON manager.id = open.manager_id AND NOT manager.disabled
    WHERE manager.id IS NULL OR CASE
        WHEN open.issuer IS NULL THEN NOT EXISTS (
            SELECT FROM session
            WHERE session.id = open.id AND session.manager_id = open.manager_id
              AND session.revoked_time = 0 AND session.expires_time > $4)
        ELSE EXISTS (SELECT FROM revoked_token WHERE revoked_token.issuer = open.issuer AND jti = open.id)
    END
    """,
    writes=False,
)
_FIND_MANAGER = Statement("SELECT id, type, brands, password_hash, disabled FROM manager WHERE login = $1", writes=False)
_OPEN = Statement(
    """
    WITH expired AS (DELETE FROM session WHERE manager_id = $2 AND expires_time < $3 - 86400)
    INSERT INTO session (id, manager_id, created_time, expires_time)
    SELECT $1, id, $3, $4 FROM manager WHERE id = $2 AND NOT disabled
    RETURNING id
    """,
    writes=True,
)
_REVOKE = Statement(
    """
    UPDATE session SET revoked_time = $2
    FROM manager
    WHERE session.id = $1 AND revoked_time = 0 AND expires_time > $2 AND manager.id = manager_id AND NOT disabled
    RETURNING session.id
    """,
    writes=True,
)
_REVOKE_FOREIGN = Statement(
    """
    WITH expired AS (DELETE FROM revoked_token WHERE expires_time < $5 - 86400)
    INSERT INTO revoked_token (issuer, jti, expires_time, revoked_time)
    SELECT $2, $3, $4, $5 FROM manager WHERE id = $1 AND NOT disabled
    ON CONFLICT DO NOTHING
    RETURNING jti
    """,
    writes=True,
)

STATEMENTS = (_FIND_ACCESS, _FIND_FOREIGN_ACCESS, _EPOCH, _FIND_ENDED, _FIND_MANAGER, _OPEN, _REVOKE, _REVOKE_FOREIGN)


class StaleAccessError(Exception):
    """The epoch has advanced since the access was decided: nothing was done, decide again."""


class Manager(Struct, frozen=True):
    """The part of a manager's row that signing in needs."""

    id: int
    type: int
    brands: list[str]
    password_hash: str
    disabled: bool


class Sessions:
    """Opens, ends and looks up sessions."""

    def __init__(self, db: Database, session_seconds: int, issuer_keys: IssuerKeys) -> None:
        self._db = db
        self._issuer_keys = issuer_keys
        self._session_seconds = session_seconds
        self._epoch = 0
        self._known: OrderedDict[str, Access] = OrderedDict()
        self._lookups: WeakValueDictionary[Session, Question] = WeakValueDictionary()
        self._looking_up = 0

    async def access_of(self, session: Session) -> Access:
        """What the session may do.

        Raises CommandError UNAUTHORIZED when it is expired or revoked, its manager disabled, or its issuer's key removed.

        Callers are answered in the order they came: commands of one connection keep theirs.
        """
        if access := self.known_access(session):
            return access
        self._looking_up += 1
        try:
            async with self._lookups.setdefault(session, Question()):
                return self._remembered(session) or await self.look_up(session)
        finally:
            self._looking_up -= 1

    def known_access(self, session: Session) -> Access | None:
        """The same from memory, or None where it must be asked for, or others that came before wait for it.

        Raises CommandError UNAUTHORIZED.
        """
        if self._looking_up and session in self._lookups:
            return None
        return self._remembered(session)

    def _remembered(self, session: Session) -> Access | None:
        self._require_current(session)
        access = self._known.get(session.id)
        if access is None or access.epoch != self._epoch or (access.session is not session and access.session != session):
            return None
        return access

    async def confirm(self, access: Access) -> None:
        """Asks the database whether the access still holds, for a command that ended before its own statement asked.

        Raises StaleAccessError.
        """
        epoch = await self._epoch_now()
        if access.epoch != epoch:
            self._note_epoch(epoch)
            raise StaleAccessError

    async def look_up(self, session: Session) -> Access:
        """What the session may do as the database has it now. Raises CommandError UNAUTHORIZED, as `access_of` does."""
        self._require_current(session)
        if session.key is None:
            row = await self._db.fetch_row(_FIND_ACCESS, session.id, session.manager_id, int(time.time()))
        else:
            row = await self._db.fetch_row(_FIND_FOREIGN_ACCESS, session.manager_id, session.key.issuer, session.id)
        if row is None:
            self._known.pop(session.id, None)
            raise ended()
        self._note_epoch(row["epoch"])
        access = Access(
            session=session,
            manager_id=session.manager_id,
            type=row["type"],
            brands=tuple(row["brands"]),
            desk_mask=row["desk_mask"],
            epoch=row["epoch"],
        )
        self._known[session.id] = access
        if len(self._known) > ACCESS_CACHE_MAX:
            self._known.popitem(last=False)
        return access

    async def current_epoch(self) -> int:
        """The epoch as the database has it now; access that was remembered at another is looked up anew at its next use."""
        epoch = await self._epoch_now()
        self._note_epoch(epoch)
        return epoch

    async def ended_of(self, sessions: Sequence[Session]) -> set[Session]:
        """Those that are over: expired, revoked or removed, or their manager disabled or removed."""
        ids, managers = [session.id for session in sessions], [session.manager_id for session in sessions]
        issuers = [session.key and session.key.issuer for session in sessions]
        rows = await self._db.fetch(_FIND_ENDED, ids, managers, issuers, int(time.time()))
        return {sessions[row["number"] - 1] for row in rows}

    async def find_manager(self, login: str) -> Manager | None:
        """The manager of that login name."""
        row = await self._db.fetch_row(_FIND_MANAGER, login)
        return None if row is None else Manager(**dict(row))

    async def open(self, manager_id: int) -> Session | None:
        """A new session, stored; None when the manager has been disabled or removed meanwhile."""
        now = int(time.time())
        session = Session(str(uuid.uuid4()), manager_id, now + self._session_seconds)
        row = await self._db.fetch_row(_OPEN, session.id, manager_id, now, session.expires_time)
        return None if row is None else session

    async def revoke(self, session: Session) -> None:
        """Ends a session on every socket and in every process. Raises CommandError UNAUTHORIZED when it is over already."""
        now = int(time.time())
        self._known.pop(session.id, None)
        if session.key is None:
            row = await self._db.fetch_row(_REVOKE, session.id, now)
        else:
            row = await self._db.fetch_row(
                _REVOKE_FOREIGN, session.manager_id, session.key.issuer, session.id, session.expires_time, now
            )
        self._known.pop(session.id, None)
        if row is None:
            raise ended()

    async def _epoch_now(self) -> int:
        row = await self._db.fetch_row(_EPOCH)
        if row is None:
            raise no_service("the database's access_epoch has no row: it was not restored whole")
        return int(row["epoch"])

    def _note_epoch(self, epoch: int) -> None:
        """Remembers the epoch. A lower one is another database's, promoted or restored, where the higher may come again.

        Or that of a statement that another has overtaken, which costs some look-ups.
        """
        if epoch < self._epoch:
            self._known.clear()
        self._epoch = epoch

    def _require_current(self, session: Session) -> None:
        """Raises CommandError UNAUTHORIZED when the session can be told to be over without the database."""
        if session.expires_time <= time.time() or (session.key is not None and not self._issuer_keys.holds(session.key)):
            raise ended()


def ended() -> CommandError:
    """The answer to a command whose session is over."""
    return CommandError(ErrorCode.UNAUTHORIZED, "the session is expired or revoked: sign in again")


def changing() -> CommandError:
    """The answer to a command that would have to be decided yet again."""
    return no_service("managers and sessions change too fast")
