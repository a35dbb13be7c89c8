"""ImageNet backbones of timm and torchvision compute what they computed at home."""

import math

import pytest
import torch
from families import difference, random_input

from ccnet.backbones import Backbone
from ccnet.weights.conversion import convert_backbone
from ccnet.weights.serialization import load_strictly


def randomised(module):
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if "running_var" in name:
                value.uniform_(0.5, 1.5)
            elif "running_mean" in name or name.endswith("bias"):
                value.normal_(std=0.2)
            elif value.dim() == 4:
                value.normal_(std=1 / math.sqrt(value[0].numel()))
            elif value.dim() == 1:
                value.uniform_(0.5, 1.5).mul_(torch.randint(0, 2, value.shape) * 2 - 1)
    return module.eval()


def test_deep_stem_agrees_with_timm_at_every_stage():
    timm = pytest.importorskip("timm")
    theirs = randomised(timm.create_model("resnet101s", pretrained=False))
    ours = Backbone("resnet101", stem_widths=(64, 64, 128), output_stride=32, ceil_mode=False)
    load_strictly(ours, convert_backbone(theirs.state_dict()))
    ours, theirs = ours.eval().double(), theirs.double()
    x = one = random_input((64, 96))
    with torch.no_grad():
        x, one = ours.stem(x), theirs.maxpool(theirs.act1(theirs.bn1(theirs.conv1(one))))
        assert difference(x, one) < 1e-5
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            x, one = getattr(ours, stage)(x), getattr(theirs, stage)(one)
            assert x.shape == one.shape
            assert difference(x, one) < 1e-5, stage
    assert x.shape == (1, 2048, 2, 3)
    assert x.std() > 1e-3


def test_plain_stem_agrees_with_torchvision():
    from torchvision.models import resnet18

    theirs = randomised(resnet18())
    ours = Backbone("resnet18", output_stride=32, ceil_mode=False)
    load_strictly(ours, convert_backbone(theirs.state_dict()))
    x = torch.randn(1, 3, 64, 96)
    features = torch.nn.Sequential(*list(theirs.children())[:-2])
    with torch.no_grad():
        assert difference(ours.eval()(x)[1], features(x)) < 1e-5
