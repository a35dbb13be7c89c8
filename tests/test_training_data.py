"""The order of the data and its randomness: functions of seed and number, and of nothing else."""

import pytest
import torch
from small_runs import Scenes, same

from ccnet.street_scenes import StreetScenes
from ccnet.training.data import Portions, SampleOrder, combined_seed, training_loader
from ccnet.transforms import training_augmentation


def loaded(workers, first=0, last=6, seed=5, **options):
    augment = training_augmentation((33, 49), scale_range=(0.5, 2.0))
    loader = training_loader(
        options.pop("dataset", StreetScenes(5, size=(40, 60), seed=3)),
        augment,
        batch_size=options.pop("batch_size", 2),
        first_step=first,
        last_step=last,
        seed=seed,
        workers=workers,
        **options,
    )
    assert len(loader) == (last - first) * options.get("passes", 1)
    torch.manual_seed(workers)  # must not matter
    return [(images.clone(), labels.clone()) for images, labels in loader]


def test_data_do_not_depend_on_workers_nor_on_where_a_run_started():
    alone = loaded(0)
    assert len(alone) == 6
    assert all(images.shape == (2, 3, 33, 49) for images, _ in alone)
    assert same(loaded(2), alone)
    assert same(loaded(1, first=3), alone[3:])
    assert not same(loaded(0, seed=6), alone)


def test_loading_leaves_the_random_state_alone():
    torch.manual_seed(8)
    expected = torch.rand(3)
    augment = training_augmentation((33, 49))
    loader = training_loader(
        Scenes(), augment, batch_size=1, first_step=0, last_step=2, seed=0, workers=0
    )
    iterator = iter(loader)
    torch.manual_seed(8)
    next(iterator)
    assert torch.equal(torch.rand(3), expected)


def test_the_same_sample_is_augmented_anew_in_every_pass_over_the_data():
    one = StreetScenes(1, size=(40, 60))
    first, second, third = (labels for _, labels in loaded(0, 0, 3, dataset=one, batch_size=1))
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
    monkeypatch.setattr("ccnet.training.data.rank_and_count", lambda: (rank, world))
    drawn = list(Portions(SampleOrder(11, 0, 4 * batch_size, seed=1), batch_size, passes))
    assert len(drawn) == 4 * passes
    return [drawn[start : start + passes] for start in range(0, len(drawn), passes)]


@pytest.mark.parametrize("batch_size", [6, 7, 11])
@pytest.mark.parametrize(("world", "passes"), [(1, 1), (1, 2), (2, 1), (3, 1), (2, 3), (3, 2)])
def test_processes_and_passes_share_out_the_batch_of_one(monkeypatch, batch_size, world, passes):
    shares = [portions(monkeypatch, rank, world, batch_size, passes) for rank in range(world)]
    for step in range(4):
        batch = portions(monkeypatch, 0, 1, batch_size, 1)[step][0]
        parts = [part for share in shares for part in share[step]]
        assert sorted(sample for part in parts for sample in part) == sorted(batch)
        sizes = sorted(map(len, parts))
        assert sizes[0] >= 1
        assert sizes[-1] - sizes[0] <= 1


@pytest.mark.parametrize(("world", "passes"), [(1, 4), (4, 1), (2, 2)])
def test_a_batch_with_nothing_for_some_is_refused(monkeypatch, world, passes):
    message = (
        rf"a batch of 3 is too small for {world} processes and {passes} forward passes a step: "
        "at least 4"
    )
    with pytest.raises(ValueError, match=message):
        portions(monkeypatch, 0, world, 3, passes)


def test_passes_come_one_after_the_other():
    whole = loaded(0, 0, 2, batch_size=5)
    parts = loaded(1, 0, 2, batch_size=5, passes=2)
    for step, (images, labels) in enumerate(whole):
        (first, first_labels), (second, second_labels) = parts[2 * step : 2 * step + 2]
        assert torch.equal(first, images[::2])
        assert torch.equal(second, images[1::2])
        assert torch.equal(first_labels, labels[::2])
        assert torch.equal(second_labels, labels[1::2])


def test_seeds_are_combined_without_collisions():
    seeds = {combined_seed(seed, number) for seed in range(50) for number in range(200)}
    assert len(seeds) == 50 * 200
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert combined_seed(1, 2) != combined_seed(2, 1)
