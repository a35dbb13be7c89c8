"""Values kept within a bound, and made once."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ccnet.explorer.bounded import BoundedStore


def test_least_recently_used_are_dropped():
    store = BoundedStore(10, size_of=len)
    for key in "abc":
        store.put(key, key * 3)
    assert store.get("a") == "aaa"
    store.put("d", "dddd")
    assert [store.get(key) for key in "abcd"] == ["aaa", None, "ccc", "dddd"]
    store.put("c", "c")
    store.put("e", "ee")
    assert [store.get(key) for key in "acde"] == ["aaa", "c", "dddd", "ee"]
    store.put("huge", "h" * 50)
    assert [store.get(key) for key in ("a", "c", "d", "e", "huge")] == [None] * 4 + ["h" * 50]


def test_what_many_ask_for_is_made_once():
    store, made, together = BoundedStore(100), [], threading.Barrier(8)

    def make(key):
        made.append(key)
        time.sleep(0.05)  # while others ask for it
        return f"value {key}"

    def ask(index):
        together.wait()
        return store.get_or_make(index % 2, lambda: make(index % 2))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == ["value 0", "value 1"] * 4
    assert sorted(made) == [0, 1]


def test_errors_are_those_of_who_asks_and_nothing_is_kept():
    store = BoundedStore(100)

    def fail():
        raise KeyError("missing")

    for _ in range(2):
        with pytest.raises(KeyError, match="missing"):
            store.get_or_make("key", fail)
    assert store.get_or_make("key", lambda: 5) == 5
