"""Access: what a desk mask covers, and that rights follow the manager's row at the very next command, in every process."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import Any, cast

import pytest

from gateway.access import Access, covers
from gateway.commands.table import COMMANDS
from gateway.database import Database, Statement
from gateway.errors import CommandError
from gateway.issuer_keys import IssuerKeys
from gateway.sessions import Sessions
from gateway.tokens import Session
from tests.client import EVENT, WAIT_SECONDS, Client
from tests.conftest import Running, Start, settings_for_tests, started
from tests.proxy import proxied
from tests.test_proofs import bearer, opened
from tests.test_tokens import KEY, token_of

LONG_DESK = "a" * 64


@pytest.mark.parametrize(
    ("mask", "desk", "covered"),
    [
        ("DESK_EU", "DESK_EU", True),
        ("DESK_EU", "DESK_EU_TEST", False),
        ("DESK_EU", "MY_DESK_EU", False),
        ("DESK_EU", "desk_eu", False),
        ("desk_*", "DESK_EU", False),
        ("DESK_*", "DESK_", True),
        ("DESK_*", "DESK_EU", True),
        ("DESK_*", "", False),
        ("*", "DESK_EU", True),
        ("*", "", True),
        ("**", "", True),
        ("", "", False),
        ("", "DESK_EU", False),
        (" ", "", False),
        (",", "", False),
        (" , ,", "DESK_EU", False),
        ("*_EU", "DESK_EU", True),
        ("*_EU", "DESK_EU_2", False),
        ("D*_*U", "DESK_EU", True),
        ("D*_*U", "DESK_US", False),
        ("*EU*", "DESK_EU_1", True),
        ("*EU*", "EU", True),
        ("*EU*", "DESK_US", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*ab*ab", "ab", False),
        ("*ab*ab", "abab", True),
        ("*ab*ab", "ababxab", True),
        ("*a*b*", "ba", False),
        ("DESK_A,DESK_B", "DESK_B", True),
        ("DESK_A,DESK_B", "DESK_C", False),
        (" DESK_A , DESK_B ", "DESK_B", True),
        ("DESK_EU*,!DESK_EU_TEST", "DESK_EU_1", True),
        ("DESK_EU*,!DESK_EU_TEST", "DESK_EU_TEST", False),
        ("!DESK_EU_TEST,DESK_EU*", "DESK_EU_TEST", False),
        ("!DESK_EU_TEST,DESK_EU_TEST", "DESK_EU_TEST", False),
        ("DESK_*,!*_TEST,DESK_EU_TEST", "DESK_EU_TEST", False),
        ("DESK_EU* , ! DESK_EU_TEST ", "DESK_EU_TEST", False),
        ("!DESK_EU", "DESK_US", False),
        ("*,!DESK_*", "", True),
        ("*,!*", "DESK_EU", False),
        ("!,*", "", False),
        ("!,*", "DESK_EU", True),
        ("D.SK", "DESK", False),
        ("D.SK", "D.SK", True),
        ("DESK_?", "DESK_1", False),
        ("DESK_%", "DESK_1", False),
        ("[A-Z]*", "DESK", False),
        ("(*", "(x", True),
        ("*", "A\nB", True),
        ("DESK", "DESK\n", False),
        ("*a" * 30 + "b", LONG_DESK, False),
        ("*a" * 30 + "*", LONG_DESK, True),
        ("*" * 60, LONG_DESK, True),
    ],
)
def test_mask_covers(mask: str, desk: str, covered: bool) -> None:
    """A desk is covered when some plain pattern matches and no `!` pattern does; no mask makes the search endless."""
    assert covered is covers(mask, desk)


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [(0, False), (1, True), (2, True), (3, True), (4, False), (5, False), (9, False), (10, True), (11, True)],
)
def test_session_type_has_a_calendar(kind: int, allowed: bool) -> None:
    """Managers, dealers and administrators of both kinds may use the calendar, and nobody else."""
    access = Access(Session("s", 10, 1), 10, kind, ("default",), "*", 1)
    with nullcontext() if allowed else pytest.raises(CommandError, match="session type"):
        access.require_calendar()


@pytest.fixture
async def two(start: Start, connect: Any, db: Any) -> list[Client]:
    """A client each of two gateways on one database, signed in as manager 10, whose access both remember."""
    proof = bearer(token_of(await opened(db)))
    clients = [await connect(await start(token_secret=KEY), login=None, **proof) for _ in range(2)]
    for client in clients:
        await client.add()
    return clients


async def answers(clients: list[Client], **changes: Any) -> list[Any]:
    """What each gateway answers to the next add: 200, or the error and its field."""
    replies = [await client.command("MngAddCalendarEvent", {**EVENT, **changes}) for client in clients]
    return [200 if reply["status"] == 200 else (reply["error"], reply.get("field")) for reply in replies]


async def test_rights_changed_in_the_database_act_on_the_next_command(two: list[Client], db: Any) -> None:
    """Brands, desk mask and type changed by plain SQL hold at the next command of every gateway, in both directions."""
    forbidden: dict[str, dict[str, Any]] = {
        "brands = '{other}'": {"brand": "default"},
        "desk_mask = 'DESK_US'": {"desk": "DESK_EU"},
        "type = 10": {"created_by": 11},
        "type = 9": {},
    }
    allowed: dict[str, dict[str, Any]] = {
        "brands = '{default,other}'": {"brand": "other"},
        "desk_mask = 'DESK_*'": {"desk": "DESK_EU"},
        "type = 11": {"created_by": 11},
        "type = 1": {},
    }
    for (taken, event), given in zip(forbidden.items(), allowed, strict=True):
        before = await db.fetchval("SELECT count(*) FROM calendar_event")
        await db.execute(f"UPDATE manager SET {taken} WHERE id = 10")
        assert [("FORBIDDEN", next(iter(event), None))] * 2 == await answers(two, **event)
        assert before == await db.fetchval("SELECT count(*) FROM calendar_event")
        await db.execute(f"UPDATE manager SET {given} WHERE id = 10")
        assert [200] * 2 == await answers(two, **allowed[given])


async def test_refusal_rests_on_the_rights_of_now(two: list[Client], db: Any) -> None:
    """What was refused by the remembered rights is asked again of the database before it is answered."""
    assert [("FORBIDDEN", "brand")] * 2 == await answers(two, brand="other")
    await db.execute("UPDATE manager SET brands = '{other}' WHERE id = 10")
    assert [200] * 2 == await answers(two, brand="other")


async def test_session_ended_in_the_database_stops_at_the_next_command(start: Start, connect: Any, db: Any) -> None:
    """The next command on every gateway is 401 and writes nothing, whatever it is; then its socket closes with 4501."""
    gateways = [await start(token_secret=KEY), await start(token_secret=KEY)]
    for end in (
        "UPDATE session SET revoked_time = 1",
        "UPDATE session SET expires_time = 1",
        "DELETE FROM session",
        "UPDATE manager SET disabled = true WHERE id = 10",
        "DELETE FROM manager WHERE id = 10",
    ):
        await db.execute("UPDATE manager SET disabled = false")
        proofs = [bearer(token_of(await opened(db))) for _ in range(3)]
        first, second, third = clients = [
            await connect(gateways[number > 0], login=None, **proof) for number, proof in enumerate(proofs)
        ]
        await first.add()
        await second.add()
        await third.command("HealthCheck")  # its proof was taken: a message is read only after that
        before = await db.fetchval("SELECT count(*) FROM calendar_event")
        await db.execute(end)
        replies = [await first.command("MngAddCalendarEvent", EVENT), await second.command("MngLogout")]
        replies.append(await third.command("MngAddCalendarEvent", EVENT))
        assert (end, [401] * 3) == (end, [reply["status"] for reply in replies])
        assert (end, [4501] * 3) == (end, [await client.closed() for client in clients])
        assert before == await db.fetchval("SELECT count(*) FROM calendar_event")


async def test_session_ended_is_told_before_anything_wrong_with_the_data(two: list[Client], db: Any) -> None:
    """A command with bad data, or without the right, is 401 too once the session is over."""
    await db.execute("UPDATE session SET revoked_time = 1")
    wrong = [{"title": ""}, {"brand": "other"}]
    replies = [await client.command("MngAddCalendarEvent", {**EVENT, **data}) for client, data in zip(two, wrong, strict=True)]
    assert [401, 401] == [reply["status"] for reply in replies]


async def test_commands_before_login_are_401(gateway: Running, connect: Any) -> None:
    """Every command needs a session but MngLogin and HealthCheck; it is told before anything wrong with the data."""
    client = await connect(gateway, login=None)
    replies = {name: (await client.command(name, {"no such": 1}))["error"] for name in COMMANDS}
    open_to_all = dict.fromkeys(("MngLogin", "HealthCheck"), "INVALID_DATA")
    assert dict.fromkeys(COMMANDS, "UNAUTHORIZED") | open_to_all == replies
    assert 200 == (await client.command("HealthCheck"))["status"]


async def test_access_sent_by_a_client_changes_nothing(gateway: Running, connect: Any) -> None:
    """`data.__access` is dropped unread: the session's manager and rights stand."""
    client = await connect(gateway)
    event = await client.add(__access={"manager_id": 99, "type": 11, "brands": ["other"], "desk_mask": "*"})
    assert (10, "default") == (event["created_by"], event["brand"])


class Rights:
    """Stands for the database where access is looked up: it answers once it may, and counts how often it was asked."""

    def __init__(self) -> None:
        self.epoch = 1
        self.asked = 0
        self.may_answer = asyncio.Event()

    async def fetch_row(self, _statement: Statement, *_args: object) -> dict[str, Any]:
        self.asked += 1
        await self.may_answer.wait()
        return {"epoch": self.epoch, "type": 1, "brands": ["default"], "desk_mask": "*"}


def looked_up_in(rights: Rights) -> tuple[Sessions, Session, Session]:
    """Sessions that ask there, and two of them."""
    sessions, ends = Sessions(cast(Database, rights), 60, IssuerKeys(settings_for_tests())), int(time.time()) + 60
    return sessions, Session("a", 10, ends), Session("b", 11, ends)


async def test_command_does_not_overtake_those_that_wait_for_their_access() -> None:
    """One comes at each turn of the event loop while access is looked up, the first time and anew: all keep their order."""
    rights, begun = Rights(), list[int]()
    sessions, session, _ = looked_up_in(rights)

    async def begin(number: int) -> None:
        access = sessions.known_access(session) or await sessions.access_of(session)
        assert rights.epoch == access.epoch
        begun.append(number)

    for rights.epoch in (1, 2, 3):
        if sessions.known_access(session):
            sessions._note_epoch(rights.epoch)
        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(begin(number))
                if number == 5:
                    rights.may_answer.set()
                await asyncio.sleep(0)
        assert (rights.epoch, list(range(20))) == (rights.asked, begun)
        rights.may_answer.clear()
        begun.clear()


async def test_commands_that_wait_for_a_dead_database_are_answered_together(dsn: str, connect: Any) -> None:
    """What a session may do is asked once for all of them: in turn, the last would be answered after two minutes."""
    async with proxied(dsn) as (proxy, through), started(through) as gateway:
        client = await connect(gateway)
        gateway.gateway._dispatch._services.sessions._known.clear()
        proxy.hold()
        for number in range(60):
            await client.socket.send(f'{{"command":"MngGetCalendarEvent","extID":{number},"data":{{"id":1}}}}')
        async with asyncio.timeout(WAIT_SECONDS):
            replies = [await client.receive() for _ in range(60)]
        proxy.release()
    assert {(503, "not_executed"), (504, "not_executed")} >= {(reply["status"], reply["outcome"]) for reply in replies}


async def test_refusal_of_a_session_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of another one with the same id, of another issuer, whose look-up waits; nor of the same, which asks again."""
    monkeypatch.setattr("gateway.turns.LONG_SECONDS", 0)
    rights = Rights()
    sessions, session, _ = looked_up_in(rights)
    fetch_row, refused = rights.fetch_row, iter([True])

    async def refuse_once(statement: Statement, *args: object) -> dict[str, Any] | None:
        row = await fetch_row(statement, *args)
        return None if next(refused, False) else row

    monkeypatch.setattr(rights, "fetch_row", refuse_once)
    same_id = Session(session.id, 11, session.expires_time)
    waiting = [asyncio.ensure_future(sessions.access_of(one)) for one in (session, session, same_id)]
    await asyncio.sleep(0)
    assert sessions.known_access(same_id) is None
    rights.may_answer.set()
    first, again, other = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(first, CommandError)
    assert (session, same_id) == (again.session, other.session)  # type: ignore[union-attr]
    assert 3 == rights.asked


async def test_look_up_keeps_no_other_session_waiting() -> None:
    """What is remembered of another session is used at once."""
    rights = Rights()
    sessions, session, other = looked_up_in(rights)
    rights.may_answer.set()
    known = await sessions.access_of(other)
    rights.may_answer.clear()
    looking_up = asyncio.ensure_future(sessions.access_of(session))
    await asyncio.sleep(0)
    assert known is sessions.known_access(other)
    assert sessions.known_access(session) is None
    rights.may_answer.set()
    assert await looking_up is sessions.known_access(session)
