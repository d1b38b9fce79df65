"""Rates: so many at once, then one each so many seconds, for each key alone and in bounded memory."""

from __future__ import annotations

import pytest

from gateway.rate import Rate


def test_rate_lets_a_burst_through_and_then_one_at_a_time() -> None:
    """Three at once, then one each two seconds; what is refused is not counted."""
    rate: Rate[str] = Rate(burst=3, seconds=2)
    assert [True, True, True, False, False] == [rate.take("a", 10) <= 0 for _ in range(5)]
    assert pytest.approx(2) == rate.take("a", 10)
    assert pytest.approx(0.5) == rate.take("a", 11.5)
    assert [True, False] == [rate.take("a", 12) <= 0 for _ in range(2)]
    assert [True, True, True, False] == [rate.take("a", 100) <= 0 for _ in range(4)]


def test_rate_is_of_each_key_alone() -> None:
    """One key that is used up takes nothing from another; forgetting it gives it all back."""
    rate: Rate[str] = Rate(burst=1, seconds=60)
    assert [True, False, True] == [rate.take(key, 0) <= 0 for key in "aab"]
    rate.forget("a")
    assert [True, False] == [rate.take(key, 0) <= 0 for key in "ab"]


def test_rate_remembers_what_was_counted_past_the_burst() -> None:
    """What is counted without room lengthens the wait."""
    rate: Rate[str] = Rate(burst=1, seconds=1)
    for _ in range(5):
        rate.count("a", 0)
    assert 5 == rate.wait_seconds("a", 0)


def test_rate_keeps_no_more_keys_than_its_limit() -> None:
    """The key counted longest ago goes first; forgotten ones go by themselves."""
    rate: Rate[int] = Rate(burst=1, seconds=60, keys_max=3)
    for key in (1, 2, 3, 1, 4):
        rate.count(key, 0)
    assert 3 == len(rate)
    assert [True, False] == [rate.wait_seconds(key, 0) <= 0 for key in (2, 1)]
    rate.count(5, 1000)
    assert 1 == len(rate)
