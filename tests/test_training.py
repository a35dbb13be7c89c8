"""Training in one process: what it computes, what it leaves behind, and what it refuses."""

import dataclasses
import json
import logging
import math
import platform

import pytest
import torch
from small_runs import (
    FILES,
    SMALL,
    Scenes,
    assert_same_end,
    changed,
    log_of,
    newest,
    small_ccnet,
    small_model,
    trainer,
)
from torch import nn

import ccnet
from ccnet.classes import CAMVID
from ccnet.model import CCNet
from ccnet.serialization import load_strictly, read_details, read_weights
from ccnet.training.optimization import poly_schedule
from ccnet.training.recipes import Recipe


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run, and its scores."""
    run_dir = tmp_path_factory.mktemp("runs") / "finished"
    return run_dir, trainer(run_dir).run()


def test_a_run_leaves_what_is_needed_to_use_to_repeat_and_to_resume_it(finished):
    run_dir, scores = finished
    assert {path.name for path in run_dir.iterdir()} == FILES
    assert json.loads((run_dir / "recipe.json").read_text()) == dataclasses.asdict(SMALL)
    assert json.loads((run_dir / "config.json").read_text()) == small_model().config
    environment = json.loads((run_dir / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["ccnet"] == ccnet.__version__
    assert environment["python"] == platform.python_version()
    assert environment["processes"] == 1
    assert "command" in environment
    log = log_of(run_dir)
    assert [record["step"] for record in log] == [2, 4]
    assert log[-1]["mIoU"] == pytest.approx(scores.miou)
    assert scores.confusion.sum() == 2 * 64 * 96
    results = json.loads((run_dir / "results.json").read_text())
    assert (results["step"], results["mIoU"]) == (4, log[-1]["mIoU"])
    assert results["best"] == newest(run_dir)["best"] == max(record["mIoU"] for record in log)
    lines = (run_dir / "train.log").read_text().splitlines()
    assert [line.partition(" INFO ")[2] for line in lines] == [
        f"step {record['step']}: mIoU {record['mIoU']:.2f}" for record in log
    ]
    state, config = read_weights(run_dir / "best.safetensors")
    load_strictly(small_ccnet(**config), state)


def test_the_log_is_written_whatever_the_program_shows(tmp_path, caplog):
    logging.getLogger("ccnet").setLevel(logging.ERROR)
    try:
        trainer(tmp_path, changed(steps=1)).run()
        assert logging.getLogger("ccnet").level == logging.ERROR
    finally:
        logging.getLogger("ccnet").setLevel(logging.NOTSET)
    assert "step 1: mIoU " in (tmp_path / "train.log").read_text()


def curves(run_dir):
    accumulation = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulation.EventAccumulator(str(run_dir / "tensorboard"))
    return events.Reload()


def test_curves_and_overlays_are_shown(finished):
    run_dir, _ = finished
    events = curves(run_dir)
    losses = events.Scalars("train/loss")
    assert [event.step for event in losses] == [1, 2, 3, 4]
    assert losses[1].value == pytest.approx(log_of(run_dir)[0]["loss"])
    rates = [event.value for event in events.Scalars("train/learning_rate")]
    expected = [SMALL.learning_rate * poly_schedule(step, SMALL) for step in range(4)]
    assert rates == pytest.approx(expected)
    for name, key in (("val/mIoU", "mIoU"), ("val/pixel_accuracy", "pixel accuracy")):
        values = [(event.step, event.value) for event in events.Scalars(name)]
        assert values == [(r["step"], pytest.approx(r[key])) for r in log_of(run_dir)]
    assert {f"val_IoU/{name}" for name in CAMVID.categories} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["val/0", "val/1"]
    shown = events.Images("val/1")
    assert [(image.step, image.width, image.height) for image in shown] == [
        (2, 96, 64),
        (4, 96, 64),
    ]


def test_curves_go_on_without_a_gap_or_a_repetition(tmp_path):
    def fail(drawn):
        if drawn == 3 * SMALL.batch_size:
            raise RuntimeError("the power failed")

    with pytest.raises(RuntimeError, match="the power failed"):
        trainer(tmp_path, train_set=Scenes(on_draw=fail)).run()
    trainer(tmp_path, resume=True).run()
    events = curves(tmp_path)
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("val/mIoU")] == [2, 4]


def test_a_run_is_repeated_from_its_folder(finished, tmp_path):
    """From recipe.json and config.json, with whatever random state there is."""
    run_dir = finished[0]
    recipe = Recipe(**json.loads((run_dir / "recipe.json").read_text()))
    torch.manual_seed(recipe.seed)
    model = small_ccnet(**json.loads((run_dir / "config.json").read_text()))
    nn.init.constant_(model.head.cca.gamma, 0.5)
    torch.manual_seed(77)
    trainer(tmp_path, recipe, model=model, workers=1).run()
    assert_same_end(run_dir, tmp_path)


def test_training_changes_every_parameter(finished):
    before, after = small_model().state_dict(), newest(finished[0])["model"]
    for name, _ in small_model().named_parameters():
        assert not torch.equal(before[name], after[name]), name
        assert after[name].isfinite().all(), name


def test_the_seed_decides_the_run(finished, tmp_path):
    trainer(tmp_path, changed(seed=1, steps=2)).run()
    assert log_of(tmp_path)[0]["loss"] != log_of(finished[0])[0]["loss"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_keeps_full_weights(tmp_path, precision, optimizer):
    recipe = changed(precision=precision, optimizer=optimizer, steps=3)
    before = small_model().head.classifier.weight.clone()
    training = trainer(tmp_path, recipe)
    seen = []
    training.model.head.classifier.register_forward_hook(lambda *x: seen.append(x[2].dtype))
    scores = training.run()
    assert {str(dtype) for dtype in seen} == {f"torch.{precision}"}
    assert scores.confusion.sum() == 2 * 64 * 96
    state = newest(tmp_path)
    assert {value.dtype for value in state["model"].values()} == {torch.float32, torch.int64}
    assert bool(state["scaler"]) == (precision == "float16")
    assert not torch.equal(state["model"]["head.classifier.weight"], before)


def test_a_step_that_overflows_float16_is_left_out(tmp_path):
    recipe = changed(precision="float16", steps=1, optimizer="sgd")
    training = trainer(tmp_path, recipe)
    before = {name: value.clone() for name, value in training.model.named_parameters()}
    training.model.head.classifier.weight.register_hook(lambda gradient: gradient * math.inf)
    training.run()
    state = newest(tmp_path)
    assert state["scaler"]["scale"] == 2.0**15
    for name, value in before.items():
        assert torch.equal(state["model"][name], value), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_memory_saving_norm_gives_weights_of_plain_networks(tmp_path, precision):
    recipe = changed(norm="inplace", precision=precision, validate_every=4)
    model = small_model(negative_slope=0.01)
    trainer(tmp_path, recipe, model=model).run()
    assert any(type(layer).__name__ == "InPlaceABN" for layer in model.modules())
    state, config = read_weights(tmp_path / "best.safetensors")
    plain = small_ccnet(**config).eval()
    load_strictly(plain, state)
    assert not any(type(layer).__name__ == "InPlaceABN" for layer in plain.modules())
    x = torch.randn(2, 3, 33, 49)
    with torch.no_grad():
        torch.testing.assert_close(plain(x)["out"], model.eval()(x)["out"])


@pytest.mark.parametrize(
    ("precision", "gain", "warned"),
    [("bfloat16", 0.01, True), ("bfloat16", 0.1, False), ("float32", 0.01, False)],
)
def test_gains_too_small_for_half_precision_are_warned_of(
    tmp_path, caplog, precision, gain, warned
):
    model = small_model(negative_slope=0.01)
    model.head.conva[1].weight.data[:2] = -gain
    trainer(tmp_path, changed(norm="inplace", precision=precision), model=model)
    assert [r.message[:27] for r in caplog.records] == ["2 channels have a gain belo"] * warned


def test_what_is_known_of_the_weights_goes_into_the_file(tmp_path):
    model = small_model()
    model.card_details = {"weights": "fine-tuned from X", "license": "Y"}
    trainer(tmp_path, model=model).run()
    assert read_details(tmp_path / "best.safetensors") == model.card_details


def test_nothing_to_validate_with_is_an_error(tmp_path):
    blank = [
        (image, torch.full_like(mask, 255)) for image, mask in map(Scenes().__getitem__, (0, 1))
    ]
    with pytest.raises(ValueError, match="no pixel of any class"):
        trainer(tmp_path, val_set=blank).run()
    assert newest(tmp_path)["step"] == SMALL.validate_every


def test_networks_that_cannot_have_that_norm(tmp_path):
    with pytest.raises(ValueError, match="cannot be inverted"):
        trainer(tmp_path, changed(norm="inplace"))
    assert not list(tmp_path.iterdir())


def test_the_consistency_loss_is_trained_saved_and_left_out_of_the_weights(finished, tmp_path):
    recipe = changed(consistency_weight=0.7)
    training = trainer(tmp_path, recipe)
    before = training.objective.loss.consistency.reduce.weight.clone()
    training.run()
    after = newest(tmp_path)["loss_function"]["consistency.reduce.weight"]
    assert not torch.equal(before, after)
    assert (
        read_weights(tmp_path / "best.safetensors")[0].keys() == small_model().state_dict().keys()
    )
    plain = log_of(trainer_of(tmp_path / "plain", SMALL))
    assert log_of(tmp_path)[0]["loss"] > plain[0]["loss"]


def trainer_of(run_dir, recipe):
    trainer(run_dir, recipe).run()
    return run_dir


def test_mining_takes_part(finished, tmp_path):
    training = trainer(tmp_path, changed(ohem=True, ohem_threshold=0.1, ohem_min_kept=64, steps=2))
    assert training.objective.loss.main.threshold == 0.1
    assert training.objective.loss.main.class_weights is not None
    training.run()
    assert log_of(tmp_path)[0]["loss"] > 1.01 * log_of(finished[0])[0]["loss"]


def test_options_of_the_real_network(tmp_path):
    """Gradient checkpointing and the residual blocks of the memory-saving norm."""
    torch.manual_seed(0)
    options = {"output_stride": 32, "negative_slope": 0.01}
    config = {"backbone_options": options, "negative_slope": 0.01, "label_set": "camvid"}
    model = CCNet("resnet18", 11, **config)
    plain = CCNet("resnet18", 11, **config)
    plain.load_state_dict(model.state_dict())
    short = {"steps": 1, "batch_size": 2, "output_stride": 32, "optimizer": "sgd"}
    losses = []
    for name, network, fields in (
        ("inplace", model, {"norm": "inplace"}),
        ("checkpointing", plain, {"gradient_checkpointing": True}),
    ):
        trainer(tmp_path / name, changed(**short, **fields), model=network).run()
        losses.append(log_of(tmp_path / name)[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    state, config = read_weights(tmp_path / "inplace" / "best.safetensors")
    restored = CCNet(**config).eval()
    load_strictly(restored, state)
    x = torch.randn(1, 3, 65, 64)
    with torch.no_grad():
        found, expected = restored(x)["out"], model.eval()(x)["out"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_compiled_training_is_training(tmp_path):
    recipe = changed(compile=True, steps=2, optimizer="sgd")
    trainer(tmp_path / "compiled", recipe).run()
    trainer(tmp_path / "plain", dataclasses.replace(recipe, compile=False)).run()
    compiled, plain = (log_of(tmp_path / name)[-1] for name in ("compiled", "plain"))
    assert compiled["loss"] == pytest.approx(plain["loss"], rel=1e-3)
    assert newest(tmp_path / "compiled")["model"].keys() == small_model().state_dict().keys()


def test_accumulated_gradients_are_the_mean_of_the_passes(tmp_path):
    recipe = changed(steps=1, batch_size=5, accumulation=3, optimizer="sgd")
    model, like = (small_model(dropout=0.0).double() for _ in range(2))
    training = trainer(tmp_path / "run", recipe, model=model)
    found = {}
    training.optimizer.register_step_pre_hook(
        lambda *_: found.update({name: p.grad.clone() for name, p in model.named_parameters()})
    )
    batches = list(trainer(tmp_path / "other", recipe, model=like).loader)
    assert [len(images) for images, _ in batches] == [2, 2, 1]
    training.run()
    objective = trainer(tmp_path / "other", recipe, model=like).objective.train()
    expected = {name: torch.zeros_like(p) for name, p in like.named_parameters()}
    losses = []
    for images, labels in batches:
        loss = objective(images, labels)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(like.parameters()))
        for name, gradient in zip(expected, gradients, strict=True):
            expected[name] += gradient / 3
    torch.testing.assert_close(found, expected)
    assert log_of(tmp_path / "run")[0]["loss"] == pytest.approx(sum(losses) / 3)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    model, kept = small_model(), {}
    checkpoint = tmp_path / "checkpoints" / "step-00000002.pt"

    def poison(drawn):
        if drawn == 2 * SMALL.batch_size:  # the first sample of the third step
            kept["last"] = checkpoint.read_bytes()
            nn.init.constant_(model.head.classifier.weight, math.nan)

    with pytest.raises(FloatingPointError, match=r"the loss of step 3 is nan$"):
        trainer(tmp_path, model=model, train_set=Scenes(on_draw=poison)).run()
    assert checkpoint.read_bytes() == kept["last"]
    assert newest(tmp_path)["step"] == 2
    assert not list(tmp_path.rglob(".*"))


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    """A finite loss with a gradient that is not, in the last step before a checkpoint."""
    model = small_model()
    calls = []

    def poison(gradient):
        calls.append(1)
        return gradient * math.nan if len(calls) == 4 else gradient

    model.head.classifier.weight.register_hook(poison)
    with pytest.raises(FloatingPointError, match="after step 4 weights are not finite"):
        trainer(tmp_path, model=model).run()
    assert newest(tmp_path)["step"] == 2
    assert read_weights(tmp_path / "best.safetensors")[0]["head.classifier.weight"].isfinite().all()


def test_scenes_are_mixed_into_their_own_classes_only(tmp_path):
    mixed = trainer(tmp_path, changed(scenes=3))
    assert len(mixed.train_set) == 5 + 3
    model = small_ccnet(backbone="resnet18", num_classes=11)
    with pytest.raises(ValueError, match=r"3 scenes have CamVid's classes.* must be 0"):
        trainer(tmp_path, changed(scenes=3), model=model)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"accumulation": 3}, "a batch of 2 is too small for 1 processes and 3 forward passes"),
        ({"scale_low": 0.0}, "not 0.0..2.0"),
        ({"scale_low": 3.0}, "not 3.0..2.0"),
        ({"max_class_share": 1.5}, "1.5"),
        ({"color_jitter": 2.0}, "not 2.0"),
        ({"ohem": True, "ohem_threshold": 2.0}, "not 2.0"),
    ],
)
def test_a_recipe_that_cannot_be_run_leaves_nothing_behind(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, changed(**fields))
    assert not list(tmp_path.iterdir())
