"""Sharing out of pictures: each is taken once, by whichever process."""

import re
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from threading import Lock

import pytest

from ccnet.jobs.search import find_jobs
from ccnet.prediction_run.sharing import OwnCounters, Shard, Share


class LockedCounters(OwnCounters):
    """Counters for threads that stand for processes."""

    def __init__(self):
        super().__init__()
        self.lock = Lock()

    def add(self, name, amount, /):
        with self.lock:
            return super().add(name, amount)


def take_all(share):
    return list(iter(share.take, None))


def test_each_picture_is_taken_once():
    counters = LockedCounters()
    with ThreadPoolExecutor(4) as processes:
        parts = list(processes.map(lambda _: take_all(Share(range(500), counters)), range(4)))
    assert sorted(chain(*parts)) == list(range(500))


def test_a_limit_is_of_all_processes():
    counters = OwnCounters()
    first, second = (Share(range(10), counters, limit=3) for _ in range(2))
    assert (first.total, first.take(), second.take()) == (3, 0, 1)
    assert [first.claim(), second.claim(), first.claim(), second.claim()] == [True] * 3 + [False]
    assert (first.take(), second.take(), first.position) == (None, None, 3)


def test_the_end_of_who_hands_out_is_one_line():
    class Gone:
        def add(self, name, amount, /):
            raise RuntimeError("Connection reset by peer\nand a long trace")

    with pytest.raises(ConnectionError, match="the process that hands out the pictures is gone"):
        Share(range(3), Gone()).take()


@pytest.fixture
def find(tmp_path, monkeypatch):
    """Finds so many images."""
    monkeypatch.chdir(tmp_path)

    def find(count, folder="in"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for index in range(count):
            (tmp_path / folder / f"{index}.png").touch()
        return find_jobs(["in"], tmp_path).jobs

    return find


@pytest.mark.parametrize("parts", [1, 2, 7, 300])
def test_shards_make_up_the_whole(find, parts):
    jobs = find(200)
    chosen = [Shard(number + 1, parts).of(jobs) for number in range(parts)]
    assert sorted(chain(*chosen)) == list(range(200))
    assert max(map(len, chosen)) < 2 * 200 / parts + 10


def test_files_that_come_move_no_picture_to_another_shard(find):
    shard = Shard(2, 3)
    before = {jobs[index].name for jobs in [find(30)] for index in shard.of(jobs)}
    after = {jobs[index].name for jobs in [find(60, "in/more")] for index in shard.of(jobs)}
    assert {name for name in after if "more" not in name} == before


@pytest.mark.parametrize("text", ["0/8", "9/8", "x", "1", "1/0", "-1/8", "1/8/2", "1.5/8", "", "/"])
def test_what_is_no_shard(text):
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is none of 1/N to N/N, as in 3/8")):
        Shard.parse(text)
