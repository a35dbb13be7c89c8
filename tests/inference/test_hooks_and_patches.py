"""Predictions of networks with hooks that keep notes, and with a `forward` of someone else's."""

import functools
import types

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


@pytest.fixture
def model(make_model):
    """A network whose norms would give other labels in training mode."""
    model = make_model()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.1, 0.4)
    return model


@pytest.mark.parametrize("training", [False, True])
def test_what_pre_hooks_note_is_found_by_hooks_and_users(model, pixels, training):
    head, ended = model.head, 0

    def begin(module, inputs):
        module.shape = inputs[0].shape
        module.calls = getattr(module, "calls", 0) + 1

    head.register_forward_pre_hook(begin)

    def end(module, inputs, output):
        nonlocal ended
        ended += module.shape == inputs[0].shape

    head.register_forward_hook(end)
    for _ in range(2):
        model.train(training).predict(pixels, mode="slide", crop=24)
    assert head.calls == ended > 2


def test_pre_hooks_of_a_network_in_evaluation_mode_get_its_modules(model, pixels):
    seen = []
    model.head.register_forward_pre_hook(lambda module, _: seen.append(module))
    model.predict(pixels)
    assert seen == [model.head]


def noise(module, inputs):
    """Noise as of quantisation, in training mode only."""
    if module.training:
        module.calls += 1
        return (torch.randn_like(inputs[0]),)
    return None


def standardized(module, _):
    module.weight = module.original * 1.0


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("hook", [noise, standardized])
def test_pre_hooks_do_what_they_do_in_evaluation_mode(model, pixels, hook, training):
    expected = model.predict(pixels).labels
    convolution = model.head.conva[0]
    convolution.calls = 0
    convolution.original = convolution.weight
    del convolution.weight
    standardized(convolution, None)
    convolution.register_forward_pre_hook(hook)
    before = convolution.weight
    model.train(training)
    assert torch.equal(model.predict(pixels).labels, expected)
    assert convolution.calls == 0
    assert not training or convolution.weight is before


class Casting:
    """Calls a function, and gives its outcome back as floats."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *inputs):
        return self.function(*inputs).float()


def partially(module):
    """As libraries that move weights to the device just in time do."""
    module._old_forward = old = module.forward
    new = functools.partial(lambda self, *inputs: self._old_forward(*inputs), module)
    module.forward = functools.update_wrapper(new, old)


def as_a_method(module):
    """As libraries of mixed precision do."""
    function = Casting(module.forward.__func__)
    module.forward = types.MethodType(lambda self, *inputs: function(self, *inputs), module)


FOLLOWED = {
    "partial": partially,
    "method": as_a_method,
    "checkpointed": lambda module: setattr(
        module,
        "forward",
        functools.partial(checkpoint, module.forward, use_reentrant=False),
    ),
    "nothing of the module": lambda module: setattr(
        module, "forward", lambda features: features[:, :5]
    ),
}


def in_a_closure(module):
    old = module.forward
    module.forward = lambda *inputs: old(*inputs)


def in_a_default(module):
    def new(module, *inputs, old=module.forward):
        return old(*inputs)

    module.forward = functools.partial(new, module)


def in_a_method(module):
    old = module.forward
    module.forward = types.MethodType(lambda _, *inputs: old(*inputs), module)


def in_an_object(module):
    module.forward = Casting(module.forward)


def kept_aside(module):
    in_a_closure(module)
    partially(module)


def in_a_global(module):
    namespace = {"old": module.forward}
    exec("def new(*inputs): return old(*inputs)", namespace)
    module.forward = namespace["new"]


REFUSED = (in_a_closure, in_a_default, in_a_method, in_an_object, kept_aside, in_a_global)


@pytest.mark.parametrize("change", FOLLOWED.values(), ids=FOLLOWED)
def test_replaced_forward_runs_in_evaluation_mode(model, pixels, change):
    change(model.head)
    expected = model.predict(pixels).labels
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert torch.equal(model.predict(pixels).labels, expected)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("change", REFUSED)
def test_forward_that_would_run_in_training_mode_is_refused(model, pixels, change):
    expected = model.predict(pixels).labels
    change(model.head)
    assert torch.equal(model.predict(pixels).labels, expected)
    model.train()
    with pytest.raises(ValueError, match=r"forward of a RCCAHead was replaced .* model\.eval\(\)"):
        model.predict(pixels)
    assert torch.equal(model.eval().predict(pixels).labels, expected)
