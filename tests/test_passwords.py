"""Password hashes: what is stored, what matches, and that none of it is done on the event loop."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator

import pytest

from gateway import passwords
from gateway.passwords import HASHING_NICE, Passwords, hash_password
from tests.conftest import settings_for_tests


@pytest.fixture
def checker() -> Iterator[Passwords]:
    pool = Passwords(settings_for_tests())
    yield pool
    pool.close()


def test_hashes_are_argon2id_with_a_salt() -> None:
    """The same password is stored differently each time, with RFC 9106's second recommended parameters."""
    first, second = hash_password("secret"), hash_password("secret")
    assert first != second
    assert ["", "argon2id", "v=19", "m=65536,t=3,p=4"] == first.split("$")[:4]


@pytest.mark.parametrize(
    ("password", "tried", "same"),
    [
        ("secret", "secret", True),
        ("secret", "Secret", False),
        ("secret", "", False),
        ("p\xe4ss \U0001f600", "p\xe4ss \U0001f600", True),
    ],
)
async def test_password_matches_its_own_hash_alone(checker: Passwords, password: str, tried: str, same: bool) -> None:
    """Passwords are compared exactly, in any script."""
    assert same is await checker.matches(tried, hash_password(password))


async def test_password_matches_nothing_where_nothing_is_stored(checker: Passwords) -> None:
    """Without a hash, and with one that is none, no password matches."""
    assert [False, False] == [await checker.matches("secret", stored) for stored in (None, "no hash")]


async def test_password_is_hashed_off_the_event_loop(checker: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is done in one of the pool's own threads."""
    threads: list[str] = []

    def verified(*_: str) -> bool:
        threads.append(threading.current_thread().name)
        return True

    monkeypatch.setattr(passwords, "_verified", verified)
    await checker.matches("secret", None)
    assert ["password_0"] == threads


@pytest.mark.skipif(sys.platform != "linux", reason="only there a thread has a priority of its own")
async def test_password_is_hashed_behind_the_event_loop(checker: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that hashes leaves the processor to whoever answers others."""
    nice: list[int] = []

    def verified(*_: str) -> bool:
        nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return True

    monkeypatch.setattr(passwords, "_verified", verified)
    await checker.matches("secret", None)
    loop = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert [min(19, loop + HASHING_NICE)] == nice


async def test_passwords_closed_leave_no_thread_behind() -> None:
    """After `close` the threads end."""
    pool = Passwords(settings_for_tests())
    await pool.matches("secret", None)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("password")]
    pool.close()
    for thread in threads:
        thread.join(timeout=20)
    assert [False] * len(threads) == [thread.is_alive() for thread in threads]
    assert threads
