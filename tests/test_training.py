"""Training: reproducible to the bit, resumable, and careful with what is on the disk."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import tv_tensors

from ccnet.classes import CAMVID
from ccnet.model import CCNet
from ccnet.serialization import load_strictly, read_weights
from ccnet.street_scenes import StreetScenes
from ccnet.training.checkpoint import load_checkpoint, save_checkpoint
from ccnet.training.data import SampleOrder, combined_seed, training_loader
from ccnet.training.engine import Trainer, log_balanced_weights, poly_schedule
from ccnet.training.recipes import RECIPES, Recipe
from ccnet.transforms import training_augmentation

TINY = Recipe(
    steps=4,
    batch_size=2,
    crop_height=33,
    crop_width=49,
    warmup_steps=1,
    validate_every=2,
    precision="float32",
    output_stride=32,
)


def new_model(seed=0, **config):
    torch.manual_seed(seed)
    options = {"output_stride": 32}
    model = CCNet("resnet18", 11, backbone_options=options, label_set="camvid", **config)
    nn.init.constant_(model.head.cca.gamma, 0.5)
    return model


class Scenes(StreetScenes):
    """Small scenes that call `on_draw` with the number of scenes drawn before."""

    def __init__(self, length=5, on_draw=lambda count: None):
        super().__init__(length, size=(64, 96), seed=3)
        self.count, self.on_draw = 0, on_draw

    def __getitem__(self, index):
        self.on_draw(self.count)
        self.count += 1
        return super().__getitem__(index)


def trainer(run_dir, recipe=TINY, *, model=None, train_set=None, **options):
    val_set = StreetScenes(2, size=(64, 96), seed=4)
    options.setdefault("workers", 0)
    return Trainer(model or new_model(), train_set or Scenes(), val_set, recipe, run_dir, **options)


def same(one, other):
    """Whether two nested states are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def interrupt_at(count):
    def on_draw(drawn):
        if drawn == count:
            raise RuntimeError("the power failed")

    return on_draw


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run that was never interrupted, and its scores."""
    run_dir = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return run_dir, trainer(run_dir).run()


def test_a_run_leaves_what_is_needed_to_use_and_to_resume_it(finished):
    run_dir, scores = finished
    assert {path.name for path in run_dir.iterdir()} == {
        "last.pt",
        "best.safetensors",
        "log.jsonl",
        "recipe.json",
    }
    assert json.loads((run_dir / "recipe.json").read_text()) == dataclasses.asdict(TINY)
    log = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log] == [2, 4]
    assert log[-1]["miou"] == pytest.approx(scores.miou)
    assert scores.confusion.sum() == 2 * 64 * 96
    assert load_checkpoint(run_dir / "last.pt")["best"] == max(record["miou"] for record in log)
    state, config = read_weights(run_dir / "best.safetensors")
    load_strictly(CCNet(**config), state)


def test_training_changes_every_parameter(finished):
    before = new_model().state_dict()
    after = load_checkpoint(finished[0] / "last.pt")["model"]
    for name, parameter in new_model().named_parameters():
        assert not torch.equal(before[name], after[name]), name
        assert after[name].isfinite().all(), name
        assert parameter.shape == after[name].shape


@pytest.mark.parametrize("stop", [2, 3])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(finished, tmp_path, stop):
    """Stopped at a step right after a checkpoint, or at one further: bit for bit the same."""
    balancing = len(Scenes())  # the class weights are counted over every scene first
    halting = Scenes(on_draw=interrupt_at(balancing + stop * TINY.batch_size))
    with pytest.raises(RuntimeError, match="the power failed"):
        trainer(tmp_path / "run", train_set=halting).run()
    assert load_checkpoint(tmp_path / "run" / "last.pt")["step"] == 2
    # Another seed: what counts must come from the checkpoint.
    scores = trainer(tmp_path / "run", model=new_model(seed=99), resume=True).run()
    run_dir, uninterrupted = finished
    assert torch.equal(scores.confusion, uninterrupted.confusion)
    one, other = (load_checkpoint(folder / "last.pt") for folder in (run_dir, tmp_path / "run"))
    assert one["step"] == other["step"] == TINY.steps
    assert same(one, other)
    best = [read_weights(folder / "best.safetensors") for folder in (run_dir, tmp_path / "run")]
    assert same(*best)
    for name in ("log.jsonl", "recipe.json"):
        assert (run_dir / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_the_seed_decides_the_run(finished, tmp_path):
    recipe = dataclasses.replace(TINY, seed=1, steps=2)
    trainer(tmp_path, recipe).run()
    ours, theirs = (
        [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (tmp_path, finished[0])
    )
    assert ours[0] != theirs[0]


def test_a_finished_run_is_resumed_to_its_scores(finished, tmp_path):
    for path in finished[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    scores = trainer(tmp_path, model=new_model(seed=99), resume=True).run()
    assert torch.equal(scores.confusion, finished[1].confusion)


def test_a_run_in_bfloat16_with_momentum(tmp_path):
    recipe = dataclasses.replace(
        TINY, precision="bfloat16", optimizer="sgd", balance_classes=False, steps=1
    )
    scores = trainer(tmp_path, recipe, workers=1).run()
    assert scores.confusion.sum() == 2 * 64 * 96
    state = load_checkpoint(tmp_path / "last.pt")
    assert {value.dtype for value in state["model"].values()} == {torch.float32, torch.int64}
    assert all(value.isfinite().all() for value in state["model"].values())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 0.5}, "learning_rate"),
        ({"steps": 6, "seed": 9}, "seed, steps"),
        ({"scale_high": 3.0}, "scale_high"),
    ],
)
def test_another_recipe_is_refused_and_its_fields_named(finished, changes, named):
    before = {path: path.read_bytes() for path in finished[0].iterdir()}
    with pytest.raises(ValueError, match=f"has another {named}$"):
        trainer(finished[0], dataclasses.replace(TINY, **changes), resume=True)
    assert {path: path.read_bytes() for path in finished[0].iterdir()} == before


def test_another_model_is_refused_and_its_arguments_named(finished):
    with pytest.raises(ValueError, match=r"has another recurrence$"):
        trainer(finished[0], model=new_model(recurrence=1), resume=True)


def test_a_folder_with_a_run_is_not_overwritten(finished):
    before = {path: path.read_bytes() for path in finished[0].iterdir()}
    with pytest.raises(FileExistsError, match=r"already holds a run; resume it or name another"):
        trainer(finished[0])
    assert {path: path.read_bytes() for path in finished[0].iterdir()} == before


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    model = new_model()
    kept = {}

    def poison(drawn):
        if drawn == 5 + 2 * TINY.batch_size:  # the first sample of the third step
            kept["last"] = (tmp_path / "last.pt").read_bytes()
            nn.init.constant_(model.head.classifier.weight, math.nan)

    with pytest.raises(FloatingPointError, match=r"the loss of step 3 is nan$"):
        trainer(tmp_path, model=model, train_set=Scenes(on_draw=poison)).run()
    assert (tmp_path / "last.pt").read_bytes() == kept["last"]
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def loaded(workers, first=0, last=6, seed=5):
    augment = training_augmentation((33, 49), scale_range=(0.5, 2.0))
    loader = training_loader(
        StreetScenes(5, size=(40, 60), seed=3),
        augment,
        batch_size=2,
        first_step=first,
        last_step=last,
        seed=seed,
        workers=workers,
    )
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


def test_the_same_sample_is_augmented_anew_in_every_pass():
    class One(StreetScenes):
        def __init__(self):
            super().__init__(1, size=(40, 60))

    loader = training_loader(
        One(),
        training_augmentation((33, 49)),
        batch_size=1,
        first_step=0,
        last_step=3,
        seed=0,
        workers=0,
    )
    first, second, third = (labels for _, labels in loader)
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


def test_seeds_are_combined_without_collisions():
    seeds = {combined_seed(seed, number) for seed in range(50) for number in range(200)}
    assert len(seeds) == 50 * 200
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert combined_seed(1, 2) != combined_seed(2, 1)


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


def write_code(path):
    torch.save({"model": {}, "step": Code(path.parent / "executed")}, path)


def truncate(path):
    save_checkpoint(path, {"model": {"a": torch.randn(500)}, "step": 1})
    path.write_bytes(path.read_bytes()[:-700])


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b"no checkpoint"),
        truncate,
        write_code,
        lambda path: path.touch(),
    ],
    ids=["text", "truncated", "code", "empty"],
)
def test_damaged_checkpoints_are_named_and_no_code_is_run(tmp_path, write):
    path = tmp_path / "last.pt"
    write(path)
    with pytest.raises(ValueError, match=r"last\.pt is not an intact checkpoint"):
        trainer(tmp_path, resume=True)
    assert [found.name for found in tmp_path.iterdir()] == ["last.pt"]


def test_the_code_in_that_pickle_would_run_elsewhere(tmp_path):
    """What the test above guards against does happen with a loader that is not careful."""
    write_code(tmp_path / "last.pt")
    torch.load(tmp_path / "last.pt", weights_only=False)
    assert (tmp_path / "executed").is_dir()


@pytest.mark.parametrize("state", [{"weights": 1}, [1, 2], {"model": {}}])
def test_other_files_are_no_checkpoints(tmp_path, state):
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt is not a checkpoint of a training run"):
        load_checkpoint(tmp_path / "other.pt")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*none\.pt"):
        load_checkpoint(tmp_path / "none.pt")


def test_learning_rate_rises_linearly_and_falls_by_its_power():
    recipe = dataclasses.replace(TINY, steps=110, warmup_steps=10, power=0.9)
    factors = [poly_schedule(step, recipe) for step in range(110)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[4] == pytest.approx(0.5)
    assert factors[9] == factors[10] == 1
    assert factors[60] == pytest.approx(0.5**0.9)
    assert factors[109] == pytest.approx(0.01**0.9)
    assert poly_schedule(110, recipe) == 0
    assert sorted(factors[10:], reverse=True) == factors[10:]
    plain = dataclasses.replace(recipe, warmup_steps=0, steps=10, power=2.0)
    assert [poly_schedule(step, plain) for step in (0, 5, 10)] == pytest.approx([1, 0.25, 0])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_only_kernels_decay(tmp_path, optimizer):
    recipe = dataclasses.replace(TINY, optimizer=optimizer, weight_decay=0.03, learning_rate=0.2)
    model = new_model()
    groups = trainer(tmp_path, recipe, model=model).optimizer.param_groups
    decay = {id(value): group["weight_decay"] for group in groups for value in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    kernels = {id(module.weight) for module in model.modules() if isinstance(module, nn.Conv2d)}
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.03 if id(parameter) in kernels else 0.0), name
    assert decay[id(model.head.cca.gamma)] == 0
    assert all(group["initial_lr"] == 0.2 for group in groups)


def test_class_weights_are_those_of_enet():
    masks = [torch.randint(0, 10, (6, 8)), torch.full((6, 8), 2)]
    masks[0][0] = 255

    class Masks:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return None, tv_tensors.Mask(masks[index].to(torch.uint8))

    counts = [sum(int((mask == label).sum()) for mask in masks) for label in range(11)]
    raw = [1 / math.log(1.02 + count / sum(counts)) for count in counts]
    expected = [value * 11 / sum(raw) for value in raw]
    weights = log_balanced_weights(Masks(), len(CAMVID))
    assert weights.tolist() == pytest.approx(expected)
    assert weights.argmin() == 2
    assert weights.argmax() == 10


@pytest.mark.parametrize("name", RECIPES)
def test_named_recipes_are_valid_and_json_able(name):
    assert Recipe(**json.loads(json.dumps(dataclasses.asdict(RECIPES[name])))) == RECIPES[name]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dataset", "coco"),
        ("optimizer", "adam"),
        ("precision", "float16"),
        ("steps", 0),
        ("batch_size", -1),
        ("crop_width", 0),
        ("validate_every", 0),
    ],
)
def test_wrong_fields_of_a_recipe_are_named(field, value):
    with pytest.raises(ValueError, match=rf"{field} .*not '?{value}"):
        dataclasses.replace(TINY, **{field: value})
