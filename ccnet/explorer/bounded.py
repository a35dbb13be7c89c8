"""Values that are made on demand and kept within a bound, for many threads at once."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

Value = TypeVar("Value")


class BoundedStore(Generic[Value]):
    """Keeps values by key; those that were not used for the longest time are dropped.

    What is kept is given at once. Of what is missing, one value is made at a time: a network on a
    CPU takes all of it, and what two threads ask for is made once.

    Args:
        bound: on the sum of the sizes. The newest value is kept even if it is larger.
        size_of: gives the size of a value.
    """

    def __init__(self, bound: int, size_of: Callable[[Value], int] = lambda value: 1) -> None:
        self._bound, self._size_of = bound, size_of
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._size = 0
        self._access, self._making = Lock(), Lock()

    def get(self, key: Hashable) -> Value | None:
        """Returns a value if it is kept."""
        with self._access:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def get_or_make(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Returns a value; makes it if it is not kept. An error of `make` is the caller's."""
        if (found := self.get(key)) is not None:
            return found
        with self._making:
            if (found := self.get(key)) is not None:
                return found
            value = make()
            self.put(key, value)
            return value

    def put(self, key: Hashable, value: Value) -> None:
        """Keeps a value, in place of one that may be there."""
        with self._access:
            if key in self._values:
                self._size -= self._size_of(self._values.pop(key))
            self._values[key] = value
            self._size += self._size_of(value)
            while self._size > self._bound and len(self._values) > 1:
                _, dropped = self._values.popitem(last=False)
                self._size -= self._size_of(dropped)
