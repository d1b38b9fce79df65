"""Managers as the command line keeps them: what is stored, and the message for each thing that is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import managers
from gateway.errors import StartupError
from gateway.managers import NewManager, Rights
from gateway.passwords import Passwords
from tests.conftest import PASSWORD, settings_for_tests


def manager(**changes: Any) -> NewManager:
    return NewManager(**{"id": 20, "login": "anna", **changes})


async def test_manager_added_is_stored_and_listed(db: Any) -> None:
    """A manager has what was given, and defaults for the rest; the list is by id and without hashes."""
    given = {"type": 3, "brands": ("b", "a"), "desk_mask": "DESK_EU*,!DESK_EU_TEST"}
    await managers.add(db, manager(id=2**53 - 1, login="B\xe4rbel", **given), PASSWORD)
    await managers.add(db, manager(), PASSWORD)
    rows = {row["id"]: dict(row) for row in await managers.list_all(db)}
    assert [10, 11, 12, 20, 2**53 - 1] == list(rows)
    stored = {"type": 3, "brands": ["b", "a"], "desk_mask": given["desk_mask"], "disabled": False}
    assert {"id": 2**53 - 1, "login": "B\xe4rbel", **stored} == rows[2**53 - 1]
    defaults = {"type": 10, "brands": ["default"], "desk_mask": "*", "disabled": False}
    assert {"id": 20, "login": "anna", **defaults} == rows[20]


async def test_manager_password_is_stored_as_a_hash(db: Any) -> None:
    """The row holds an argon2id hash that the password matches, and not the password."""
    await managers.add(db, manager(), PASSWORD)
    row = await db.fetchrow("SELECT * FROM manager WHERE id = 20")
    checker = Passwords(settings_for_tests())
    assert PASSWORD not in str(dict(row))
    assert await checker.matches(PASSWORD, row["password_hash"])
    checker.close()


async def test_manager_with_something_wrong_is_refused_by_name(db: Any) -> None:
    """Each wrong value is refused with a message that names the option, and nothing is stored."""
    for changes, password, told in (
        ({"id": 0}, PASSWORD, "--id 0 must be from 1 to 9007199254740991"),
        ({"id": -1}, PASSWORD, "--id -1 "),
        ({"id": 2**53}, PASSWORD, "--id 9007199254740992 "),
        ({"id": 10}, PASSWORD, "A manager with this id exists already: choose another --id"),
        ({"login": "10"}, PASSWORD, "A manager with this login exists already: choose another --login"),
        ({"login": ""}, PASSWORD, "--login "),
        ({"login": " \t"}, PASSWORD, "--login "),
        ({"login": "x" * 129}, PASSWORD, "--login "),
        ({"login": "a\0b"}, PASSWORD, "--login "),
        ({"brands": ()}, PASSWORD, "--brand is required"),
        ({"brands": ("",)}, PASSWORD, "--brand '' must be"),
        ({"brands": ("default", "a b")}, PASSWORD, "--brand 'a b' must be"),
        ({"brands": ("x" * 65,)}, PASSWORD, "--brand 'xxx"),
        ({"brands": ("a\n",)}, PASSWORD, "--brand "),
        ({"desk_mask": "DESK;"}, PASSWORD, "--desk-mask 'DESK;' must be like"),
        ({"desk_mask": "DESK\n"}, PASSWORD, "--desk-mask "),
        ({"desk_mask": "DESK EU"}, PASSWORD, "with commas between the patterns"),
        ({"desk_mask": "DESK,,EU"}, PASSWORD, "with commas between the patterns"),
        ({"desk_mask": "!DESK, ! EU"}, PASSWORD, "covers no desk"),
        ({}, "", "The password must be 8 to 1024 characters long"),
        ({}, "\u00e9" * 7, "The password must be 8 to 1024 characters long"),
        ({}, "x" * 1025, "The password must be 8 to 1024 characters long"),
    ):
        with pytest.raises(StartupError) as caught:
            await managers.add(db, manager(**changes), password)
        assert (changes, True) == (changes, told in str(caught.value)), str(caught.value)
    assert 3 == await db.fetchval("SELECT count(*) FROM manager")


async def test_manager_changed_keeps_what_is_not_given(db: Any) -> None:
    """Each right alone, and all of them; the rest of the row and other managers stay."""
    row = "SELECT type, brands, desk_mask, login, disabled FROM manager WHERE id = $1"
    other = await db.fetchrow(row, 11)
    for rights, told in (
        (Rights(type=3), (3, ["default"], "*")),
        (Rights(brands=("b", "a")), (3, ["b", "a"], "*")),
        (Rights(desk_mask=""), (3, ["b", "a"], "")),
        (Rights(type=0, brands=("c",), desk_mask="DESK_EU*"), (0, ["c"], "DESK_EU*")),
    ):
        await managers.change(db, 10, rights)
        assert (*told, "10", False) == tuple(await db.fetchrow(row, 10))
    assert other == await db.fetchrow(row, 11)


async def test_manager_change_with_something_wrong_is_refused_by_name(db: Any) -> None:
    """In the words of adding one, and nothing is changed; so is a change of nothing."""
    before = await managers.list_all(db)
    for manager_id, rights, told in (
        (10, Rights(), "nothing to change: give --brand, --desk-mask or --type"),
        (0, Rights(type=3), "--id 0 must be from 1 to 9007199254740991"),
        (10, Rights(type=3, brands=("a b",)), "--brand 'a b' must be"),
        (10, Rights(type=3, brands=()), "--brand is required"),
        (10, Rights(type=3, desk_mask="DESK;"), "--desk-mask 'DESK;' must be like"),
        (10, Rights(type=3, desk_mask="!DESK"), "covers no desk"),
    ):
        with pytest.raises(StartupError) as caught:
            await managers.change(db, manager_id, rights)
        assert (rights, True) == (rights, told in str(caught.value)), str(caught.value)
    assert before == await managers.list_all(db)


async def test_manager_disabled_and_enabled_again(db: Any) -> None:
    """`require` refuses a disabled manager, with the command that helps; the sessions of before have ended for good."""
    await db.execute("INSERT INTO session (id, manager_id, expires_time) VALUES ('a', 10, 9e9), ('b', 11, 9e9)")
    await managers.require(db, 10)
    await managers.set_disabled(db, 10, disabled=True)
    with pytest.raises(StartupError, match="gateway manager enable 10"):
        await managers.require(db, 10)
    await managers.set_disabled(db, 10, disabled=False)
    await managers.require(db, 10)
    await managers.set_disabled(db, 11, disabled=False)
    assert [("b", 0)] == [tuple(row) for row in await db.fetch("SELECT id, revoked_time FROM session WHERE revoked_time = 0")]


async def test_manager_unknown_is_refused_by_each_change(db: Any) -> None:
    """Each change of a manager that is not there says so."""
    for change in (
        managers.require(db, 99),
        managers.change(db, 99, Rights(type=3)),
        managers.set_disabled(db, 99, disabled=True),
        managers.set_password(db, 99, PASSWORD),
    ):
        with pytest.raises(StartupError, match="There is no manager 99: see gateway manager list"):
            await change


async def test_manager_password_set_ends_the_managers_sessions(db: Any) -> None:
    """Who knew the old password is out; other managers' sessions go on, and an ended one keeps its time.

    One that is too short ends and changes nothing.
    """
    await db.execute("INSERT INTO session (id, manager_id, expires_time) VALUES ('a', 10, 9e9), ('b', 11, 9e9), ('c', 10, 9e9)")
    await db.execute("UPDATE session SET revoked_time = 7 WHERE id = 'c'")
    before = await db.fetchval("SELECT password_hash FROM manager WHERE id = 10")
    with pytest.raises(StartupError, match="The password must be 8 to 1024 characters long"):
        await managers.set_password(db, 10, "another")
    assert before == await db.fetchval("SELECT password_hash FROM manager WHERE id = 10")
    await managers.set_password(db, 10, "another1")
    revoked = {row["id"]: row["revoked_time"] for row in await db.fetch("SELECT id, revoked_time FROM session")}
    assert (True, 0, 7) == (revoked["a"] > 7, revoked["b"], revoked["c"])
    assert before != await db.fetchval("SELECT password_hash FROM manager WHERE id = 10")
