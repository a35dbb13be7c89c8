"""Training in one process: what it computes, what it leaves behind, and what it refuses."""

import dataclasses
import json
import math

import pytest
import torch
from small_runs import (
    FILES,
    SMALL,
    Scenes,
    assert_same_end,
    best_of,
    changed,
    log_of,
    newest,
    on_call,
    small_backbones,
    small_model,
    trainer,
)
from torch import nn

from ccnet.model import CCNet
from ccnet.norm import InPlaceABN
from ccnet.training.recipes import Recipe


def test_run_leaves_what_is_needed_to_use_repeat_and_resume_it(finished):
    run_dir, scores = finished
    assert {path.name for path in run_dir.iterdir()} == FILES
    assert json.loads((run_dir / "recipe.json").read_text()) == dataclasses.asdict(SMALL)
    assert json.loads((run_dir / "config.json").read_text()) == {
        **small_model().config,
        "training_size": [64, 96],
    }
    log = log_of(run_dir)
    assert [record["step"] for record in log] == [2, 4]
    assert log[-1]["mIoU"] == pytest.approx(scores.miou)
    assert scores.confusion.sum() == 2 * 64 * 96
    results = json.loads((run_dir / "results.json").read_text())
    assert (results["step"], results["mIoU"]) == (4, log[-1]["mIoU"])
    assert results["best"] == max(record["mIoU"] for record in log)
    lines, best = (run_dir / "train.log").read_text().splitlines(), 0.0
    assert lines.pop(0).endswith("96 x 64 pixels, at which the median image to validate on is seen")
    for line, record in zip(lines, log, strict=True):
        best = max(best, record["mIoU"])
        said = f"step {record['step']} of 4: loss {record['loss']:.3f}, mIoU {record['mIoU']:.2f}"
        assert line.partition(" INFO ")[2].startswith(f"{said} (best so far: {best:.2f})")


def test_run_is_repeated_from_its_folder(finished, tmp_path):
    """From recipe.json and config.json, whatever the random state is."""
    run_dir = finished[0]
    recipe = Recipe(**json.loads((run_dir / "recipe.json").read_text()))
    torch.manual_seed(recipe.seed)
    with small_backbones():
        model = CCNet(**json.loads((run_dir / "config.json").read_text()))
    nn.init.constant_(model.head.cca.gamma, 0.5)
    torch.manual_seed(77)
    trainer(tmp_path, recipe, model=model, workers=1).run()
    assert_same_end(run_dir, tmp_path)


def test_training_changes_every_parameter(finished):
    before, after = small_model().state_dict(), newest(finished[0])["model"]
    for name, _ in small_model().named_parameters():
        assert not torch.equal(before[name], after[name]), name
        assert after[name].isfinite().all(), name


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


def test_step_that_overflows_float16_is_left_out(tmp_path):
    training = trainer(tmp_path, changed(precision="float16", steps=1, optimizer="sgd"))
    before = {name: value.clone() for name, value in training.model.named_parameters()}
    training.model.head.classifier.weight.register_hook(lambda gradient: gradient * math.inf)
    training.run()
    state = newest(tmp_path)
    assert state["scaler"]["scale"] == 2.0**15
    for name, value in before.items():
        assert torch.equal(state["model"][name], value), name


def assert_plain_like(plain, model, **tolerances):
    """Checks that a network without in-place norms computes what the model with them does."""
    assert any(isinstance(layer, InPlaceABN) for layer in model.modules())
    assert not any(isinstance(layer, InPlaceABN) for layer in plain.modules())
    x = torch.randn(2, 3, 65, 64)
    with torch.no_grad():
        torch.testing.assert_close(plain(x)["out"], model.eval()(x)["out"], **tolerances)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_inplace_norm_gives_weights_of_plain_networks(tmp_path, precision):
    recipe = changed(norm="inplace", precision=precision, validate_every=4)
    model = small_model(negative_slope=0.01)
    trainer(tmp_path, recipe, model=model).run()
    with small_backbones():
        plain = CCNet.from_weights(best_of(tmp_path))
    assert_plain_like(plain, model)


@pytest.mark.parametrize(
    ("precision", "gain", "warned"),
    [("bfloat16", 0.01, True), ("bfloat16", 0.1, False), ("float32", 0.01, False)],
)
def test_gains_too_small_for_half_precision_give_a_warning(
    tmp_path, caplog, precision, gain, warned
):
    model = small_model(negative_slope=0.01)
    model.head.conva[1].weight.data[:2] = -gain
    trainer(tmp_path, changed(norm="inplace", precision=precision), model=model)
    messages = [record.message for record in caplog.records if "gain" in record.message]
    assert [message[:27] for message in messages] == ["2 channels have a gain belo"] * warned


def test_validation_set_without_labels_is_an_error(tmp_path):
    blank = [
        (image, torch.full_like(mask, 255)) for image, mask in map(Scenes().__getitem__, (0, 1))
    ]
    with pytest.raises(ValueError, match="no labelled pixels"):
        trainer(tmp_path, val_set=blank).run()
    assert newest(tmp_path)["step"] == SMALL.validate_every


def test_seed_and_losses_take_part(tmp_path):
    def first_loss(name, fields):
        training = trainer(tmp_path / name, changed(steps=2, **fields))
        training.run()
        return training, log_of(tmp_path / name)[0]["loss"]

    plain = first_loss("plain", {})[1]
    assert first_loss("seed", {"seed": 1})[1] != plain
    mining = {"ohem": True, "ohem_threshold": 0.1, "ohem_min_kept": 64}
    training, loss = first_loss("mining", mining)
    assert training.objective.loss.main.threshold == 0.1
    assert training.objective.loss.main.class_weights is not None
    assert loss > 1.01 * plain
    assert first_loss("consistency", {"consistency_weight": 0.7})[1] > plain


def test_consistency_loss_is_trained_saved_and_left_out_of_the_weights(tmp_path):
    training = trainer(tmp_path, changed(consistency_weight=0.7, steps=1))
    before = training.objective.loss.consistency.reduce.weight.clone()
    training.run()
    after = newest(tmp_path)["loss_function"]["consistency.reduce.weight"]
    assert not torch.equal(before, after)
    assert best_of(tmp_path).state_dict.keys() == small_model().state_dict().keys()


def test_options_of_the_real_network(tmp_path):
    """Gradient checkpointing, and the residual blocks of the in-place norm."""
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
    assert_plain_like(
        CCNet.from_weights(best_of(tmp_path / "inplace")), model, rtol=1e-4, atol=1e-4
    )


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
    training.run()
    other = trainer(tmp_path / "other", recipe, model=like)
    batches = list(other.loader)
    assert [len(images) for images, _ in batches] == [2, 2, 1]
    losses = [other.objective.train()(images, labels) for images, labels in batches]
    (sum(losses) / 3).backward()
    torch.testing.assert_close(found, {name: p.grad for name, p in like.named_parameters()})
    expected = pytest.approx(sum(loss.item() for loss in losses) / 3)
    assert log_of(tmp_path / "run")[0]["loss"] == expected


def test_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    model, kept = small_model(), {}
    checkpoint = tmp_path / "checkpoints" / "step-00000002.pt"

    def poison():
        kept["last"] = checkpoint.read_bytes()
        nn.init.constant_(model.head.classifier.weight, math.nan)

    first_of_third_step = on_call(2 * SMALL.batch_size + 1, poison)
    with pytest.raises(FloatingPointError, match=r"the loss of step 3 is nan$"):
        trainer(tmp_path, model=model, train_set=Scenes(on_draw=first_of_third_step)).run()
    assert checkpoint.read_bytes() == kept["last"]
    assert newest(tmp_path)["step"] == 2
    assert not list(tmp_path.rglob(".*"))


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    """A finite loss whose gradient is not finite, in the last step before a checkpoint."""
    weight = (model := small_model()).head.classifier.weight
    weight.register_post_accumulate_grad_hook(on_call(4, lambda: weight.grad.fill_(math.nan)))
    with pytest.raises(FloatingPointError, match="after step 4 weights are not finite"):
        trainer(tmp_path, model=model).run()
    assert newest(tmp_path)["step"] == 2
    assert best_of(tmp_path).state_dict["head.classifier.weight"].isfinite().all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale_low": 0.0}, "not 0.0..2.0"),
        ({"max_class_share": 1.5}, "1.5"),
        ({"color_jitter": 2.0}, "not 2.0"),
        ({"ohem": True, "ohem_threshold": 2.0}, "not 2.0"),
        ({"norm": "inplace"}, "leaky ReLUs, and activations are ReLU: give norm 'batch'"),
        (
            {"norm": "inplace", "freeze_backbone": "all", "negative_slope": 0.01},
            "the activations of its head are ReLU: give norm 'batch'",
        ),
    ],
)
def test_recipe_that_cannot_be_run_leaves_nothing_behind(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, changed(**fields))
    assert not list(tmp_path.iterdir())
