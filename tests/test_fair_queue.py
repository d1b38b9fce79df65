"""A queue whose owners take turns."""

from __future__ import annotations

from gateway.fair_queue import FairQueue


def filled(*owners: str) -> FairQueue[str]:
    """A queue with an item of each of these owners, numbered by owner: a0, a1, b0."""
    queue: FairQueue[str] = FairQueue()
    counts: dict[str, int] = {}
    for owner in owners:
        counts[owner] = counts.get(owner, -1) + 1
        queue.append(owner, f"{owner}{counts[owner]}")
    return queue


def test_queue_that_fits_is_taken_whole() -> None:
    """All of it, each owner's in order, and nothing is left."""
    queue = filled(*"abacb")
    assert ["a0", "a1", "b0", "b1", "c0"] == queue.take(5)
    assert (0, []) == (len(queue), queue.take(5))


def test_owners_take_turns_when_more_waits_than_is_taken() -> None:
    """One of each in turn; who waits alone gets all the rest."""
    queue = filled(*"aaaaaabbc")
    assert ["a0", "b0", "c0", "a1", "b1"] == queue.take(5)
    assert 4 == len(queue)
    assert ["a2", "a3", "a4"] == queue.take(3)
    queue.append("a", "a6")
    assert ["a5", "a6"] == queue.take(3)


def test_next_take_goes_on_with_the_next_owner() -> None:
    """Nobody is served first twice because the takes are small."""
    queue = filled(*"aaabbb")
    assert [["a0"], ["b0"], ["a1"], ["b1"]] == [queue.take(1) for _ in range(4)]
    queue.append("c", "c0")
    assert [["a2"], ["b2"], ["c0"]] == [queue.take(1) for _ in range(3)]
