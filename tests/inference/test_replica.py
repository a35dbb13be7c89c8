"""Networks that several threads share: prediction beside training, hooks, shards, compilation."""

import threading
import time
import warnings

import pytest
import torch
from small_runs import small_model
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import parametrizations, prune

from ccnet.evaluation import evaluate
from ccnet.inference.replica import evaluation_replica
from ccnet.norm import convert_inplace_abn, convert_sync_batchnorm


def small_network():
    """A small network whose norms would give other labels in training mode."""
    model = small_model()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.1, 0.4)
    return model.eval()


@pytest.fixture
def pictures():
    return [torch.randint(0, 256, (3, 33, 49), dtype=torch.uint8) for _ in range(24)]


def at_once(tasks, meanwhile=lambda: None):
    """Runs every task in a thread of its own, and another again and again until they are done."""
    done, errors = threading.Event(), []

    def guarded(task):
        try:
            task()
        except BaseException as error:
            errors.append(error)

    def repeat():
        while not done.is_set():
            meanwhile()
            time.sleep(0.001)

    companion = threading.Thread(target=guarded, args=(repeat,))
    threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
    for thread in (companion, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    companion.join()
    assert not errors, errors


def snapshot(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return state, {name: module.training for name, module in model.named_modules()}


def assert_unchanged(model, before):
    state, modes = snapshot(model)
    assert modes == before[1]
    assert all(torch.equal(value, before[0][name]) for name, value in state.items())


@pytest.mark.parametrize("training", [False, True, "switching"])
def test_threads_share_a_network_in_any_mode(pictures, training):
    model = small_network()
    expected = [model.predict(picture).labels for picture in pictures]
    model.train(bool(training))
    before = snapshot(model)
    found = [None] * len(pictures)

    def predict(index):
        found[index] = model.predict(pictures[index]).labels

    def switch():
        if training == "switching":
            model.eval()
            model.train()

    at_once([lambda index=index: predict(index) for index in range(len(pictures))], switch)
    assert all(map(torch.equal, found, expected))
    assert_unchanged(model, before)


def test_other_threads_see_no_change_at_any_moment(pictures):
    model = small_network().train()
    seen = set()

    def look():
        seen.update(module.training for module in model.modules())

    at_once([lambda: [model.predict(picture) for picture in pictures]], look)
    assert seen == {True}


def test_training_goes_on_beside_predictions(pictures):
    """The same steps give the same weights, whatever other threads predict meanwhile."""
    batches = torch.randn(3, 2, 3, 33, 49)

    def train(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for batch in batches:
            optimizer.zero_grad()
            model(batch)["out"].square().mean().backward()
            optimizer.step()

    alone, together = (small_model(dropout=0.0).train() for _ in range(2))
    train(alone)
    at_once([lambda: train(together)], lambda: together.predict(pictures[0]))
    assert_unchanged(together, snapshot(alone))


def test_evaluation_leaves_a_network_in_training_mode_alone(pictures):
    labels = [torch.zeros(33, 49, dtype=torch.uint8)] * 2
    samples = list(zip(pictures, labels, strict=False))
    model = small_network()
    expected = evaluate(model, samples).confusion
    before = snapshot(model.train())
    at_once([lambda: evaluate(model, samples)] * 3)
    assert_unchanged(model, before)
    assert torch.equal(evaluate(model, samples).confusion, expected)


CHANGES = {
    "plain": lambda model: None,
    "shared": lambda model: setattr(model, "again", model.head),
    "bound forward": lambda model: setattr(
        model.head.convb, "forward", type(model.head.convb).forward.__get__(model.head.convb)
    ),
    "weight norm": lambda model: parametrizations.weight_norm(model.head.conva[0]),
    "pruned by hook": lambda model: prune.identity(model.head.conva[0], "weight"),
    "synchronised norms": convert_sync_batchnorm,
    "checkpointed": lambda model: setattr(model.backbone, "gradient_checkpointing", True),
    "compiled in place": lambda model: model.backbone.compile(backend="eager"),
    "compiled part": lambda model: setattr(
        model, "backbone", torch.compile(model.backbone, backend="eager")
    ),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_networks_predict_in_any_mode(make_model, pictures, change, training):
    expected = make_model().predict(pictures[0], return_probabilities=True).probabilities
    model = make_model()
    change(model)
    before = snapshot(model.train(training))
    for _ in range(2):
        found = model.predict(pictures[0], return_probabilities=True).probabilities
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert_unchanged(model, before)


def test_inplace_norms_predict_in_any_mode(make_model, pictures):
    slope = {"negative_slope": 0.01}
    model = convert_inplace_abn(make_model(**slope, backbone_options=slope))
    expected = model.predict(pictures[0]).labels
    before = snapshot(model.train())
    assert torch.equal(model.predict(pictures[0]).labels, expected)
    assert_unchanged(model, before)


def test_torchscript_parts_predict_in_any_mode(make_model, pictures):
    model = make_model()
    expected = model.predict(pictures[0]).labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated since PyTorch 2.9
        model.head.convb = torch.jit.script(model.head.convb)
    for training in (False, True):
        before = snapshot(model.train(training))
        assert torch.equal(model.predict(pictures[0]).labels, expected)
        assert_unchanged(model, before)


def test_a_replica_shares_tensors(make_model):
    model = make_model().train()
    replica = evaluation_replica(model)
    assert type(replica) is type(model)
    assert not any(module.training for module in replica.modules())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        owner, _, leaf = name.rpartition(".")
        assert getattr(replica.get_submodule(owner), leaf) is tensor


@pytest.mark.parametrize("training", [False, True])
def test_hooks_on_every_module_fire(make_model, pictures, training):
    model = make_model().train(training)
    modules = dict(model.named_modules())
    fired, prepared = set(), set()
    for name, module in modules.items():
        module.register_forward_hook(lambda module, inputs, output: fired.add(module))
        module.register_forward_hook(
            lambda module, inputs, options, output: fired.add(module), with_kwargs=True
        )
        module.register_forward_pre_hook(lambda module, inputs, name=name: prepared.add(name))
    model.predict(pictures[0])
    expected = {name for name in modules if not name.startswith("aux_head")}
    assert fired == {modules[name] for name in expected}
    assert prepared == expected
    for checkpointing in (False, True):
        model.backbone.gradient_checkpointing = checkpointing
        fired.clear()
        model.train()(torch.randn(2, 3, 33, 49), return_rcca=checkpointing)
        assert fired == set(modules.values())


def test_a_hook_replaces_the_output_of_the_head(make_model, pictures):
    model = make_model()
    model.head.register_forward_hook(lambda module, inputs, logits: logits.roll(1, dims=1))
    expected = (make_model().predict(pictures[0]).labels + 1) % 5
    assert torch.equal(model.predict(pictures[0]).labels, expected)


@pytest.fixture
def mesh(tmp_path):
    if not hasattr(torch.cpu.Stream, "record_event"):
        pytest.skip("this PyTorch cannot shard on a CPU")
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("parts", [["head"], ["backbone.layer4"], ["head", "backbone", ""]])
def test_sharded_parts_predict_and_train(pictures, make_model, mesh, parts, training):
    expected = make_model().predict(pictures[0], return_probabilities=True).probabilities
    model = make_model().train(training)
    model.backbone.gradient_checkpointing = "backbone.layer4" in parts
    for part in parts:
        fully_shard(model.get_submodule(part), mesh=mesh)
    found = model.predict(pictures[0], return_probabilities=True).probabilities
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    outputs = model.train()(torch.randn(2, 3, 33, 49), return_rcca=True)
    sum(output.square().mean() for output in outputs.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
