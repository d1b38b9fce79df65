"""What a handler is given: the services of the process, and whose command it is."""

from __future__ import annotations

from msgspec import Struct

from gateway.access import Access
from gateway.calendar_store.event_reader import EventReader
from gateway.calendar_store.idempotency import Idempotency, WriteKey
from gateway.calendar_store.store import CalendarStore
from gateway.command_rate import CommandRate
from gateway.errors import CommandError, ErrorCode
from gateway.fair_share import FairShare
from gateway.identity import Identity
from gateway.metrics import Metrics
from gateway.passwords import Passwords
from gateway.sessions import Sessions
from gateway.settings import Settings
from gateway.sign_in_throttle import SignInThrottle
from gateway.tokens import Tokens


class Services(Struct, frozen=True):
    """What lives as long as the process."""

    settings: Settings
    tokens: Tokens
    sessions: Sessions
    passwords: Passwords
    sign_ins: SignInThrottle
    command_rate: CommandRate
    fair_share: FairShare
    calendar: CalendarStore
    event_reader: EventReader
    idempotency: Idempotency
    metrics: Metrics


class Context(Struct, frozen=True):
    """One command's surroundings. `access` is None only for the commands that need no session; `key` makes a write run once."""

    services: Services
    identity: Identity
    access: Access | None
    key: WriteKey | None = None

    def require_access(self) -> Access:
        """The access of a command that needs a session; dispatch has seen to it."""
        if self.access is None:
            raise CommandError(ErrorCode.UNAUTHORIZED, "no session: sign in first")
        return self.access
