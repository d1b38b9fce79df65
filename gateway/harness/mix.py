"""A synthetic stream: a seeded mix of all commands, with the sizes of a CRM's calendar."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from gateway.errors import StartupError
from gateway.harness.bodies import add, page, tail
from gateway.harness.credentials import Member, named
from gateway.harness.kinds import Job, Kinds, new_event_id

COMMAND_OF = {
    "add": "MngAddCalendarEvent",
    "get": "MngGetCalendarEvent",
    "update": "MngUpdateCalendarEvent",
    "filter": "MngGetCalendarEventsByFilter",
    "answer": "MngSetCalendarParticipantStatus",
    "complete": "MngCompleteCalendarEvent",
    "archive": "MngArchiveCalendarEvent",
    "delete": "MngDeleteCalendarEvent",
    "health": "HealthCheck",
    "login": "MngLogin",
    "logout": "MngLogout",
}
MIX = "add=45,get=20,update=12,filter=8,answer=5,complete=4,archive=2,delete=2,health=2,login=0.01,logout=0.01"
"""More reads than writes would be nearer to a person; writes are what costs. A sign-in costs the gateway 50 ms."""
FILTERS = 64
BODIES = 512
"""Different adds prepared beforehand; each is sent many times."""
STEPS = 8192
"""Length, before its parts are rounded, of the cycle of commands that every connection runs through from a place of its own."""
IDS_MAX = 1000
"""Events that a connection remembers and goes on to work with; older ones stay as they are."""


def parse_mix(text: str) -> dict[str, float]:
    """`add=70,get=20` as weights. Raises StartupError."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition("=")
        try:
            weights[name] = float(weight)
        except ValueError:
            weights[name] = -1.0
        if name not in COMMAND_OF or not 0 <= weights[name] < 1e6:
            raise StartupError(f"--mix has {part!r}: it must be like add=70,get=20, of {', '.join(COMMAND_OF)}")
    if not sum(weights.values()):
        raise StartupError("--mix has no weight above 0")
    return weights


class Mix:
    """The source of `gateway load`. Each connection works with events that it added itself, so that every status is known.

    A job's `ref` is the event that it names, or, for an add, where the id that it is given is kept.
    """

    def __init__(
        self, kinds: Kinds, weights: Mapping[str, float], seed: int, members: Sequence[Member], connections: int
    ) -> None:
        self._kinds = kinds
        self._random = random.Random(seed)  # noqa: S311 - repeats on purpose
        self._steps = _cycle(_possible(weights, members[:connections]), self._random)
        self._connections = [
            _Connection(members[n % len(members)], n * len(self._steps) // connections, n * BODIES // connections)
            for n in range(connections)
        ]
        self._now = int(time.time())
        self._bodies = {m.manager_id: [add(m, self._random, self._now) for _ in range(BODIES)] for m in members}
        self._filters = [page(self._random, self._now) for _ in range(FILTERS)]
        self._tails: dict[str, Callable[[_Connection], tuple[bytes, object] | None]] = {
            "add": self._add, "get": self._any_event, "update": self._update, "filter": self._any_filter,
            "answer": self._answer, "complete": self._any_event, "archive": self._any_event,
            "delete": self._delete, "health": lambda _: (b"}", None),
            "login": self._login, "logout": self._logout,
        }  # fmt: skip
        self.left = float("inf")
        self._dues: list[deque[float]] | None = None
        self._under_way: Counter[int] = Counter()
        self._stopped = False

    def pace(self) -> None:
        """Sends only what `due` asked for, instead of as fast as possible."""
        self._dues = [deque() for _ in self._connections]

    def due(self, number: int, at: float) -> None:
        """A command of this connection is to be sent at that time."""
        assert self._dues is not None
        self._dues[number].append(at)

    def stop(self) -> int:
        """Nothing more is taken but what is due already; returns how many other commands are left of those asked for."""
        self._stopped = True
        return 0 if self.left == float("inf") else int(self.left) - sum(map(len, self._dues or ()))

    def exhausted(self) -> bool:
        return self.left <= 0 or (self._stopped and not any(self._dues or ()))

    def abandon(self, number: int) -> int:
        if self._dues is None:
            return 0
        unsent = len(self._dues[number])
        self._dues[number].clear()
        self.left -= unsent
        return unsent

    def skipped(self) -> dict[str, int]:
        """A mix skips nothing."""
        return {}

    def take(self, number: int) -> Job | None:
        if self.left <= 0:
            return None
        if self._dues is None:
            if self._stopped:
                return None
            due = time.perf_counter()
        elif self._dues[number]:
            due = self._dues[number].popleft()
        else:
            return None
        self.left -= 1
        connection = self._connections[number]
        connection.step = (connection.step + 1) % len(self._steps)
        name = self._steps[connection.step]
        made = self._tails[name](connection)
        if made is None:  # no event yet to work with, or nothing to sign in with or to sign out
            name, made = "add", self._add(connection)
        tail, ref = made
        if isinstance(ref, int):
            self._under_way[ref] += 1
        return Job(self._kinds[COMMAND_OF[name]], tail, due, ref=ref)

    def answered(self, job: Job, message: bytes, *, ok: bool) -> None:
        if isinstance(job.ref, int):
            self._settle(job.ref)
        elif job.ref is not None and ok and (event_id := new_event_id(message)):
            job.ref.append(event_id)

    def lost(self, job: Job) -> None:
        """An event that nobody heard of is not worked with."""
        if isinstance(job.ref, int):
            self._settle(job.ref)

    def _settle(self, event_id: int) -> None:
        self._under_way[event_id] -= 1
        if not self._under_way[event_id]:
            del self._under_way[event_id]

    def _add(self, connection: _Connection) -> tuple[bytes, object]:
        bodies = self._bodies[connection.member.manager_id]
        connection.body = (connection.body + 1) % BODIES
        tail, invites = bodies[connection.body]
        return tail, connection.invited if invites else connection.events

    def _any_event(self, connection: _Connection) -> tuple[bytes, object] | None:
        if not connection.events:
            return None
        event_id = connection.one_of(connection.events)
        return b',"data":{"id":%d}}' % event_id, event_id

    def _delete(self, connection: _Connection) -> tuple[bytes, object] | None:
        """The oldest event that nothing is under way on: what is sent again later (429, 503, 1012) would not find it."""
        event_id = next((event_id for event_id in connection.events if event_id not in self._under_way), None)
        if event_id is None:
            return None
        connection.events.remove(event_id)
        return b',"data":{"id":%d}}' % event_id, event_id

    def _answer(self, connection: _Connection) -> tuple[bytes, object] | None:
        if not connection.invited:
            return None
        return b',"data":{"id":%d,"status":%d}}' % (connection.one_of(connection.invited), connection.step % 4), None

    def _update(self, connection: _Connection) -> tuple[bytes, object] | None:
        if not connection.events:
            return None
        start = self._now + connection.step * 300
        fields = b'"title":"Moved %d","start_time":%d,"end_time":%d' % (connection.step, start, start + 1800)
        event_id = connection.one_of(connection.events)
        return b',"data":{"id":%d,%b}}' % (event_id, fields), event_id

    def _any_filter(self, connection: _Connection) -> tuple[bytes, object]:
        return self._filters[connection.step % FILTERS], None

    def _login(self, connection: _Connection) -> tuple[bytes, object] | None:
        member = connection.member
        if not member.password:
            return None
        return tail({"login": member.login, "password": member.password}), None

    def _logout(self, connection: _Connection) -> tuple[bytes, object] | None:
        """Ends a session made for that: the connection's own goes on."""
        if not connection.member.spare_tokens:
            return None
        return b',"__token":"%b"}' % connection.member.spare_tokens.pop().encode(), None


class _Connection:
    """What one connection knows: events of its own, and those it is invited to. Ids are taken in turn, not by chance."""

    __slots__ = ("body", "events", "invited", "member", "step", "turn")

    def __init__(self, member: Member, step: int, body: int) -> None:
        self.member = member
        self.step = step
        self.body = body
        self.turn = 0
        self.events: deque[int] = deque(maxlen=IDS_MAX)
        self.invited: deque[int] = deque(maxlen=IDS_MAX)

    def one_of(self, ids: deque[int]) -> int:
        self.turn += 1
        return ids[-1 - self.turn % min(len(ids), 16)]


def _possible(weights: Mapping[str, float], members: Sequence[Member]) -> dict[str, float]:
    """The weights of what one of them at least can send. Raises StartupError, which says what they lack, when there is none."""
    lacks = {}
    if not any(member.password for member in members):
        lacks["login"] = _without_password(members)
    if not any(member.spare_tokens for member in members):
        lacks["logout"] = "sessions to end are opened with the signing key, and not beside a token"
    possible = {name: weight for name, weight in weights.items() if weight and name not in lacks}
    if not possible:
        why = "; ".join(f"{name}: {lack}" for name, lack in lacks.items() if weights.get(name))
        raise StartupError(f"--mix names only what nobody can send ({why}): give another command a weight, like add=1")
    return possible


def _without_password(members: Sequence[Member]) -> str:
    """Why none of them can sign in."""
    if not members[0].passwords:
        return "passwords are known on the embedded default alone, and not beside a token"
    managers = sorted({member.manager_id for member in members})
    return f"{named(managers)} {'has' if len(managers) == 1 else 'have'} no password file in {members[0].passwords}"


def _cycle(weights: Mapping[str, float], pick: random.Random) -> list[str]:
    """Each command as often as its weight says, but once at least, in an order by chance."""
    total = sum(weights.values())
    steps = [name for name, weight in weights.items() for _ in range(max(1, round(STEPS * weight / total)))]
    pick.shuffle(steps)
    return steps
