"""A queue whose owners take turns: one that puts in a thousand items waits for them, the others do not."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Keeps the order of each owner's items. When all that waits is taken, which is the rule, nobody's turn is looked at."""

    def __init__(self) -> None:
        self._items: dict[Hashable, deque[Item]] = {}
        self._turns: deque[Hashable] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, owner: Hashable, item: Item) -> None:
        """Puts an item behind the owner's others."""
        items = self._items.get(owner)
        if items is None:
            self._items[owner] = deque((item,))
            self._turns.append(owner)
        else:
            items.append(item)
        self._size += 1

    def take(self, most: int) -> list[Item]:
        """Up to so many items: one of each owner in turn, as often as it goes. The next take goes on with the next owner."""
        if self._size <= most:
            taken = [item for items in self._items.values() for item in items]
            self._items.clear()
            self._turns.clear()
            self._size = 0
            return taken
        self._size -= most
        return [self._take_one() for _ in range(most)]

    def _take_one(self) -> Item:
        owner = self._turns.popleft()
        items = self._items[owner]
        item = items.popleft()
        if items:
            self._turns.append(owner)
        else:
            del self._items[owner]
        return item
