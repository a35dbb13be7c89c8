"""Order and randomness of the data: functions of seed and sample number, and of nothing else."""

import pytest
import torch
from small_runs import same

from ccnet.datasets import StreetScenes
from ccnet.training.augmentation import training_augmentation
from ccnet.training.data import Portions, training_loader
from ccnet.training.order import SampleOrder, combined_seed


def loader(workers, first=0, last=6, *, scenes=5, batch_size=2, seed=5, passes=1):
    batches = training_loader(
        StreetScenes(scenes, size=(40, 60), seed=3),
        training_augmentation((33, 49), scale_range=(0.5, 2.0)),
        batch_size=batch_size,
        first_step=first,
        last_step=last,
        seed=seed,
        workers=workers,
        passes=passes,
    )
    assert len(batches) == (last - first) * passes
    return batches


def loaded(workers, *arguments, **options):
    batches = loader(workers, *arguments, **options)
    torch.manual_seed(workers)  # must not matter
    return [(images.clone(), labels.clone()) for images, labels in batches]


def test_data_depend_neither_on_workers_nor_on_the_first_step():
    alone = loaded(0)
    assert len(alone) == 6
    assert all(images.shape == (2, 3, 33, 49) for images, _ in alone)
    assert same(loaded(2), alone)
    assert same(loaded(1, first=3), alone[3:])
    assert not same(loaded(0, seed=6), alone)


def test_loading_leaves_the_random_state_alone():
    iterator = iter(loader(0))
    torch.manual_seed(8)
    next(iterator)
    found = torch.rand(3)
    torch.manual_seed(8)
    assert torch.equal(found, torch.rand(3))


def test_sample_is_augmented_anew_in_every_pass_over_the_data():
    first, second, third = (labels for _, labels in loaded(0, 0, 3, scenes=1, batch_size=1))
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_every_pass_is_a_new_shuffle_of_all_samples():
    drawn = list(SampleOrder(7, 0, 21, seed=1))
    assert [number for number, _ in drawn] == list(range(21))
    passes = [[index for _, index in drawn[start : start + 7]] for start in (0, 7, 14)]
    assert all(sorted(order) == list(range(7)) for order in passes)
    assert passes[0] != passes[1] != passes[2] != passes[0]
    assert list(SampleOrder(7, 10, 21, seed=1)) == drawn[10:]
    assert len(SampleOrder(7, 10, 21, seed=1)) == 11
    assert [index for _, index in SampleOrder(7, 0, 7, seed=2)] != passes[0]


def portions(monkeypatch, rank, world, batch_size, passes):
    """The samples of a rank in each pass, step by step."""
    monkeypatch.setattr("ccnet.training.data.rank", lambda: rank)
    monkeypatch.setattr("ccnet.training.data.world_size", lambda: world)
    drawn = list(Portions(SampleOrder(11, 0, 4 * batch_size, seed=1), batch_size, passes))
    assert len(drawn) == 4 * passes
    return [drawn[start : start + passes] for start in range(0, len(drawn), passes)]


@pytest.mark.parametrize("batch_size", [6, 7, 11])
@pytest.mark.parametrize(("world", "passes"), [(1, 1), (1, 2), (2, 1), (3, 1), (2, 3), (3, 2)])
def test_ranks_and_passes_share_the_batch_of_one_process(monkeypatch, batch_size, world, passes):
    shares = [portions(monkeypatch, rank, world, batch_size, passes) for rank in range(world)]
    for step in range(4):
        batch = portions(monkeypatch, 0, 1, batch_size, 1)[step][0]
        parts = [part for share in shares for part in share[step]]
        assert sorted(sample for part in parts for sample in part) == sorted(batch)
        sizes = sorted(map(len, parts))
        assert sizes[0] >= 1
        assert sizes[-1] - sizes[0] <= 1


@pytest.mark.parametrize(("world", "passes"), [(1, 4), (4, 1), (2, 2)])
def test_batch_that_is_too_small_is_refused(monkeypatch, world, passes):
    message = (
        rf"batch_size 3 is too small for {world} processes and {passes} forward passes a step: "
        "at least 4"
    )
    with pytest.raises(ValueError, match=message):
        portions(monkeypatch, 0, world, 3, passes)


def test_passes_follow_one_another():
    whole = loaded(0, 0, 2, batch_size=5)
    parts = loaded(1, 0, 2, batch_size=5, passes=2)
    for step, (images, labels) in enumerate(whole):
        expected = [(images[part::2], labels[part::2]) for part in range(2)]
        assert same(parts[2 * step : 2 * step + 2], expected)


def test_seeds_are_combined_without_collisions():
    seeds = {combined_seed(seed, number) for seed in range(50) for number in range(200)}
    assert len(seeds) == 50 * 200
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert combined_seed(1, 2) != combined_seed(2, 1)
