"""The dilated ResNets: sizes, dilations, stems, and what they share with torchvision's own."""

import copy
from functools import partial

import pytest
import torch
import torchvision
from live_memory import kept_for_backward
from torch import nn

from ccnet.backbones import BACKBONES, Backbone


def randomise_norms(module):
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return module


def map_sizes(height, width, name="resnet18", **options):
    with torch.device("meta"):
        stage3, stage4 = Backbone(name, **options)(torch.empty(2, 3, height, width))
    return tuple(stage3.shape[2:]), tuple(stage4.shape[2:])


@pytest.mark.parametrize(
    ("output_stride", "expected"),
    [(8, ((8, 13), (8, 13))), (16, ((4, 7), (4, 7))), (32, ((4, 7), (2, 4)))],
)
def test_output_strides(output_stride, expected):
    assert map_sizes(64, 104, output_stride=output_stride, ceil_mode=False) == expected


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_ceil_mode_adds_a_row_where_the_size_is_even(name):
    assert map_sizes(1024, 2048, name)[1] == (129, 257)
    assert map_sizes(1024, 2048, name, ceil_mode=False)[1] == (128, 256)
    for ceil_mode in (False, True):
        assert map_sizes(769, 769, name, ceil_mode=ceil_mode)[1] == (97, 97)
    assert all(min(map_sizes(*size, name)[1]) >= 1 for size in [(1, 1), (1, 30), (33, 2)])


@pytest.mark.parametrize(
    ("name", "channels", "depths"),
    [
        ("resnet18", (256, 512), (2, 2, 2, 2)),
        ("resnet50", (1024, 2048), (3, 4, 6, 3)),
        ("resnet101", (1024, 2048), (3, 4, 23, 3)),
    ],
)
def test_every_network_has_its_depth_and_channels(name, channels, depths):
    assert name in BACKBONES
    with torch.device("meta"):
        backbone = Backbone(name)
        stage3, stage4 = backbone(torch.empty(1, 3, 33, 65))
    assert backbone.channels == channels == (stage3.shape[1], stage4.shape[1])
    stages = (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)
    assert tuple(len(stage) for stage in stages) == depths


def dilations(stage):
    """Of the 3x3 convolutions of each block; their padding must be the same."""
    found = []
    for block in stage.children():
        convs = [conv for conv in block.modules() if getattr(conv, "kernel_size", 0) == (3, 3)]
        assert all(conv.padding == conv.dilation for conv in convs)
        found.append({conv.dilation for conv in convs})
    assert all(len(amounts) == 1 for amounts in found)
    return [amounts.pop()[0] for amounts in found]


@pytest.mark.parametrize(
    ("output_stride", "contract", "stage3", "stage4"),
    [
        (8, False, [2, 2, 2, 2, 2, 2], [4, 4, 4]),
        (8, True, [1, 2, 2, 2, 2, 2], [2, 4, 4]),
        (16, False, [1, 1, 1, 1, 1, 1], [2, 2, 2]),
        (16, True, [1, 1, 1, 1, 1, 1], [1, 2, 2]),
        (32, False, [1, 1, 1, 1, 1, 1], [1, 1, 1]),
        (32, True, [1, 1, 1, 1, 1, 1], [1, 1, 1]),
    ],
)
def test_dilations_block_by_block(output_stride, contract, stage3, stage4):
    with torch.device("meta"):
        backbone = Backbone("resnet50", output_stride=output_stride, contract_dilation=contract)
    stages = (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)
    assert [*map(dilations, stages)] == [[1] * 3, [1] * 4, stage3, stage4]


@pytest.mark.parametrize(
    ("name", "options", "widths"),
    [
        ("resnet18", {}, [64]),
        ("resnet50", {}, [64, 64, 128]),
        ("resnet101", {}, [64, 64, 128]),
        ("resnet50", {"stem_widths": (32, 32, 64)}, [32, 32, 64]),
        ("resnet18", {"stem_widths": [16, 24]}, [16, 24]),
        ("resnet101", {"stem_widths": ()}, [64]),
    ],
)
def test_stems(name, options, widths):
    with torch.device("meta"):
        backbone = Backbone(name, **options)
        backbone(torch.empty(1, 3, 32, 48))
    convs = [layer for layer in backbone.stem if isinstance(layer, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == widths
    kernel = (7, 7) if len(widths) == 1 else (3, 3)
    assert all(conv.kernel_size == kernel and conv.bias is None for conv in convs)
    assert [conv.stride for conv in convs] == [(2, 2)] + [(1, 1)] * (len(widths) - 1)
    assert backbone.layer1[0].conv1.in_channels == widths[-1]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_equals_torchvisions_resnet_without_dilation(name):
    theirs = randomise_norms(getattr(torchvision.models, name)(weights=None)).eval()
    ours = Backbone(name, stem_widths=(), output_stride=32, ceil_mode=False).eval()
    stem = {"conv1": "stem.0", "bn1": "stem.1"}
    renamed = {
        ".".join([stem.get(key.split(".")[0], key.split(".")[0]), *key.split(".")[1:]]): value
        for key, value in theirs.state_dict().items()
        if not key.startswith("fc.")
    }
    ours.load_state_dict(renamed)
    x = torch.randn(2, 3, 65, 43)
    with torch.no_grad():
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        stage3 = theirs.layer3(theirs.layer2(theirs.layer1(y)))
        stage4 = theirs.layer4(stage3)
        found = ours(x)
    torch.testing.assert_close(found, (stage3, stage4))


def test_contracted_dilation_computes_the_strided_network_at_every_position():
    """At output stride 8, every second (fourth) position of a bottleneck network is the strided
    network's own: what its blocks read there lies on the same coarser grid."""
    dense = randomise_norms(Backbone("resnet50", contract_dilation=True)).double().eval()
    strided = Backbone("resnet50", output_stride=32).double().eval()
    strided.load_state_dict(dense.state_dict())
    full = Backbone("resnet50").double().eval()
    full.load_state_dict(dense.state_dict())
    x = torch.randn(1, 3, 65, 98, dtype=torch.float64)
    with torch.no_grad():
        (dense3, dense4), (strided3, strided4), (full3, _) = dense(x), strided(x), full(x)
    torch.testing.assert_close(dense3[..., ::2, ::2], strided3)
    torch.testing.assert_close(dense4[..., ::4, ::4], strided4)
    assert not torch.allclose(full3[..., ::2, ::2], strided3, rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet34"}, "one of 'resnet18', 'resnet50', 'resnet101', not 'resnet34'"),
        ({"output_stride": 4}, r"one of 8, 16, 32, not 4"),
        (
            {"stem_widths": [64, 0]},
            r"must be None or a list .*each an integer in 1..4096, not \[64, 0\]",
        ),
    ],
)
def test_networks_that_do_not_exist(arguments, message):
    with pytest.raises(ValueError, match=message):
        Backbone(**arguments)


def test_a_new_network_neither_dies_out_nor_explodes():
    for stage in Backbone("resnet50", stem_widths=(32, 32, 64)).train()(torch.randn(2, 3, 65, 97)):
        assert 0.05 < stage.std() < 50


def trained_step(backbone, x):
    """What two forward and backward passes leave: outputs, gradients and buffers."""
    for _ in range(2):
        outputs = backbone(x)
        sum((output * output.detach().cos()).sum() for output in outputs).backward()
    gradients = {name: parameter.grad for name, parameter in backbone.named_parameters()}
    return *outputs, gradients, dict(backbone.named_buffers())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_gradient_checkpointing_changes_nothing(name, momentum):
    """Not even how often, and with what, the running statistics are moved."""
    plain = Backbone(name, output_stride=32).train()
    for layer in plain.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum
    frugal = copy.deepcopy(plain)
    frugal.gradient_checkpointing = True
    x = torch.randn(2, 3, 33, 49)
    expected, found = trained_step(plain, x), trained_step(frugal, x)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    norms = [layer for layer in frugal.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {layer.momentum for layer in norms} == {momentum}
    assert int(frugal.layer4[0].bn1.num_batches_tracked) == 2


def test_gradient_checkpointing_saves_memory_in_training_alone():
    backbone = Backbone("resnet50", output_stride=16)
    x = torch.randn(1, 3, 65, 64)
    kept = {}
    for checkpointing in (False, True):
        backbone.gradient_checkpointing = checkpointing
        for training in (False, True):
            backbone.train(training)
            own = (x, *backbone.parameters())
            kept[checkpointing, training] = kept_for_backward(partial(backbone, x), own)
    assert kept[True, False] == kept[False, False] > 0
    assert kept[True, True] < 0.5 * kept[False, True]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_all_activations_have_the_slope_asked_for(name):
    x = torch.randn(1, 3, 33, 49, dtype=torch.float64)
    steep, straight = (Backbone(name, negative_slope=s).double().eval() for s in (0.01, 1.0))
    straight.load_state_dict(steep.state_dict())
    slopes = [layer.negative_slope for layer in steep.modules() if isinstance(layer, nn.LeakyReLU)]
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in steep.modules())
    assert set(slopes) == {0.01}
    assert not any(isinstance(layer, nn.ReLU) for layer in steep.modules())
    # One activation module serves all convolutions of a block, none those of shortcuts.
    assert 8 <= len(slopes) < convolutions
    # Without any bend, and no maximum taken, the network would be linear.
    straight.stem[-1] = nn.Identity()
    zero, one, two = (straight(factor * x)[1] for factor in (0, 1, 2))
    torch.testing.assert_close(two - zero, 2 * (one - zero))
