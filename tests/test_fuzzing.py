"""Damaged files of every kind: an error, or what is in them; in bounded memory and time."""

import random

import pytest

pytest.importorskip("resource", reason="memory is limited with it")

import fuzzing
from fuzz_mutations import change_archive, change_bytes, change_json, change_legacy
from fuzz_pictures import pictures

from ccnet.images import decode_image
from ccnet.images.formats import picture_formats


def _report(failures):
    return "\n".join(
        f"{one}\n(again: python tests/fuzzing.py --count 1 --seed N)" for one in failures
    )


def test_damaged_files_are_refused_or_read():
    tried, failures = fuzzing.run(seed=0, count=400, seconds=2)
    assert not failures, _report(failures)
    assert tried


@pytest.mark.slow
def test_many_damaged_files_are_refused_or_read():
    tried, failures = fuzzing.run(seed=10_000, count=10**6, seconds=60)
    assert not failures, _report(failures)
    assert tried > 100


FAULTS = {
    "fail": "KeyError",
    "hang": "ended by SIGPROF",
    "fill_memory": "MemoryError",
    "crash": "ended by SIGSEGV",
    "believe": "a changed file was believed",
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "reason"), FAULTS.items())
def test_every_kind_of_failure_is_found_with_its_seed(name, reason):
    tried, failures = fuzzing.run(7, 2, seconds=60, only=f"fault {name}", limit=1)
    assert tried == len(failures) == 2
    for seed, failure in zip((7, 8), failures, strict=True):
        assert failure.startswith(f"seed {seed}")
        assert reason in failure


def test_there_is_a_picture_of_every_format(tmp_path):
    found = pictures()
    assert {name.split()[0] for name in found} >= set(picture_formats()) - {"AVIF", "HEIF"}
    for name, content in found.items():
        (tmp_path / "a").write_bytes(content)
        assert decode_image(tmp_path / "a").shape[0] == 3, name


@pytest.mark.parametrize("change", [change_archive, change_legacy, change_json, change_bytes])
def test_damage_is_the_same_for_the_same_seed(change, tmp_path):
    import torch

    path = tmp_path / "a.pth"
    path.write_bytes(b'{"a": [1, 2, {"b": 3}]}')
    if change in (change_archive, change_legacy):
        is_archive = change is change_archive
        torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=is_archive)
    content = path.read_bytes()
    first, second = ([change(random.Random(seed), content) for seed in range(20)] for _ in range(2))
    assert first == second
    assert sum(one != content for one in first) > 10
