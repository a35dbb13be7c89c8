"""Mixtures: several data sets with a share each, in an order of seed and number alone."""

import dataclasses
from collections import Counter
from fractions import Fraction

import pytest
import torch
from small_runs import SMALL, Scenes, assert_same_end, changed, fail, on_call, same, trainer

from ccnet.classes import CAMVID
from ccnet.datasets import Mixture, Renumbered
from ccnet.training.augmentation import training_augmentation
from ccnet.training.data import Portions, training_loader
from ccnet.training.optimization import class_pixels, log_balanced_weights
from ccnet.training.order import MixedOrder, SampleOrder
from ccnet.training.recipes import Recipe

SIZES = (5, 3, 7)
SHARES = [(0.4, 0.5, 0.1), (1, 1, 1), (0, 0.25, 0.75), (0.1, 0.2, 0.7), (0.6, 0.4, 0)]


def mixture(shares):
    sizes = SIZES[: len(shares)]
    return Mixture([Scenes(size, seed=seed) for seed, size in enumerate(sizes, 20)], shares)


def drawn(shares, start, stop, seed=1, batch_size=4):
    """The data set and the index in it of each sample."""
    data = mixture(shares)
    order = list(MixedOrder(data, start, stop, seed, batch_size))
    assert [number for number, _ in order] == list(range(start, stop))
    starts = [0, *data.cumulative_sizes]
    parts = [sum(index >= end for end in data.cumulative_sizes) for _, index in order]
    return [(part, index - starts[part]) for part, (_, index) in zip(parts, order, strict=True)]


@pytest.mark.parametrize("shares", SHARES)
def test_every_step_has_the_shares_and_every_epoch_each_image(shares):
    order = drawn(shares, 0, 400)
    total = sum(shares)
    for start in range(0, 400, 4):
        found = Counter(part for part, _ in order[: start + 4])
        for part, share in enumerate(shares):
            assert abs(found[part] - share / total * (start + 4)) <= 1.5
    for part, size in enumerate(SIZES):
        if not shares[part]:
            assert all(one != part for one, _ in order)
            continue
        times = Counter(index for one, index in order if one == part)
        assert len(times) == size
        assert max(times.values()) - min(times.values()) <= 2  # at the ends of a step


def test_order_depends_on_seed_and_number_alone():
    whole = drawn(SHARES[0], 0, 200)
    for start in (4, 100, 102):
        assert drawn(SHARES[0], start, 200) == whole[start:]
    assert drawn(SHARES[0], 0, 200, seed=2) != whole
    alone = [index for _, index in SampleOrder(5, 0, 40, seed=1)]
    every = Counter(index for part, index in drawn((1, 0), 0, 40) if part == 0)
    assert every == Counter(alone)


def test_passes_and_ranks_have_no_data_set_to_themselves():
    """Where two data sets took turns, each of two passes would see one of them."""
    data = mixture((1, 1))
    portions = list(Portions(MixedOrder(data, 0, 80, 1, 4), batch_size=4, passes=2))
    for number in range(2):
        parts = {index >= 5 for portion in portions[number::2] for _, index in portion}
        assert parts == {False, True}


def loaded(workers, first=0):
    batches = training_loader(
        mixture(SHARES[0]),
        training_augmentation((33, 49)),
        batch_size=4,
        first_step=first,
        last_step=5,
        seed=5,
        workers=workers,
    )
    return [(images.clone(), labels.clone()) for images, labels in batches]


def test_batches_depend_neither_on_workers_nor_on_the_first_step():
    alone = loaded(0)
    assert same(loaded(2), alone)
    assert same(loaded(1, first=3), alone[3:])


def train(run_dir, shares, on_draw=None, **options):
    sets = [Scenes(5, on_draw, seed=20), Scenes(3, seed=21)]
    trainer(run_dir, train_set=Mixture(sets, shares), **options).run()


def test_interrupted_run_ends_as_if_it_had_not_been(tmp_path):
    train(tmp_path / "whole", (1, 1))
    with pytest.raises(RuntimeError, match="the power failed"):
        train(tmp_path / "run", (1, 1), on_call(4, fail))
    with pytest.raises(ValueError, match=r"another share of 8: scene-000000, scene-000001"):
        train(tmp_path / "run", (1, 2), resume=True)
    train(tmp_path / "run", (1, 1), resume=True)
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_class_weights_are_those_of_the_shares():
    parts = [Scenes(2, seed=20), Scenes(4, seed=21)]
    counts = [class_pixels(part, 11).double() for part in parts]
    shares = 0.9 * counts[0] / counts[0].sum() + 0.1 * counts[1] / counts[1].sum()
    raw = 1 / torch.log(1.02 + shares)
    found = log_balanced_weights(Mixture(parts, (0.9, 0.1)), 11)
    torch.testing.assert_close(found.double(), raw / raw.mean())


def test_rendered_scenes_are_judged_by_some(monkeypatch):
    monkeypatch.setattr("ccnet.training.optimization.SCENES_JUDGED", 3)
    few = log_balanced_weights(Scenes(3, seed=20), 11)
    many = Scenes(9, seed=20)
    for one in (many, Renumbered(many, CAMVID, CAMVID)):
        assert torch.equal(log_balanced_weights(Mixture([one], (1,)), 11), few)


def test_data_set_without_a_labelled_pixel_leaves_the_class_weights_finite():
    class Unlabelled(Scenes):
        def labels(self, index):
            return torch.full((64, 96), 255, dtype=torch.uint8)

    assert log_balanced_weights(Mixture([Scenes(2), Unlabelled()], (1, 1)), 11).isfinite().all()


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((1,), "2 data sets need as many shares, not 1"),
        ((1, -1), "shares must be 0 or more, and not all 0"),
        ((0, 0), "shares must be 0 or more, and not all 0"),
        ((1, float("nan")), "shares must be numbers of 0 or more"),
        ((1, "much"), "shares must be numbers of 0 or more"),
        ((1, "1/0"), "shares must be numbers of 0 or more"),
        (1, "shares must be numbers of 0 or more, not 1"),
        ((0, 1), "data set 1 of the mixture is empty: its share must be 0"),
    ],
)
def test_shares_that_are_none_are_refused(shares, message):
    with pytest.raises(ValueError, match=message):
        Mixture([Scenes(2), Scenes(0)], shares)


@pytest.mark.parametrize(
    ("mix", "expected"),
    [
        ("", [("camvid", 1)]),
        ("labelmefacade=0.5", [("camvid", Fraction(1, 2)), ("labelmefacade", Fraction(1, 2))]),
        ({"street-scenes": 0.1}, [("camvid", Fraction(9, 10)), ("street-scenes", Fraction(1, 10))]),
        (
            "folder=1/3, folder = 0.5",
            [("camvid", Fraction(1, 6)), ("folder", Fraction(1, 3)), ("folder", Fraction(1, 2))],
        ),
        ("street-scenes=1", [("camvid", 0), ("street-scenes", 1)]),
    ],
)
def test_recipes_have_shares(mix, expected):
    recipe = Recipe(mix=mix)
    assert recipe.shares() == expected
    assert Recipe(**dataclasses.asdict(recipe)) == recipe


@pytest.mark.parametrize(
    "mix",
    [
        f"labelmefacade={5 / 6},street-scenes={1 / 6}",
        "labelmefacade=0.83333333333333333333,street-scenes=0.16666666666666666667",
        "labelmefacade=5/6,street-scenes=1/6",
    ],
)
def test_shares_of_everything_may_be_rounded(mix):
    rest, first, second = (share for _, share in Recipe(mix=mix).shares())
    assert rest + first + second == 1
    assert 0 <= rest < 1e-9
    assert first == pytest.approx(5 / 6, abs=1e-9)


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ("coco=0.5", "mix 'coco=0.5' must be such as .* 'coco' is none of these"),
        ("labelmefacade=0.5,", "'' is none of these"),
        (
            "labelmefacade",
            "the share of labelmefacade must be a number above 0 and at most 1, .*''",
        ),
        ("labelmefacade=half", "such as 'labelmefacade=0.5', not 'half'"),
        ("labelmefacade=0", "above 0 and at most 1"),
        ("labelmefacade=nan", "above 0 and at most 1"),
        ("labelmefacade=1/0", "above 0 and at most 1"),
        ("labelmefacade=50", "above 0 and at most 1"),
        ("labelmefacade=1e-99999999", "above 0 and at most 1"),
        ("labelmefacade=1e99999999", "above 0 and at most 1"),
        ("labelmefacade=1e-9_9_9_9_9_9_9_9", "above 0 and at most 1"),
        ("labelmefacade=0.6,folder=0.5", "the shares must be at most 1 together, not 1.1"),
        (None, "mix must be text, '' for none"),
    ],
)
def test_mixes_that_are_none_are_refused(mix, message):
    with pytest.raises(ValueError, match=message):
        changed(mix=mix)
    assert SMALL.mix == ""
