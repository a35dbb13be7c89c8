"""Small networks, some of known logits, for tests of inference protocols."""

import torch
from torch import nn

from ccnet.classes import LabelSet
from ccnet.inference import InferenceProtocol
from ccnet.inference.segment import segment
from ccnet.transforms import Preprocessing

K = 5
LABELS = LabelSet.numbered(K)
PREPROCESSING = Preprocessing()


class Pointwise(nn.Module):
    """Logits of a pixel from that pixel alone: translation, flip and windows change nothing."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, K, kernel_size=1)
        self.shapes = []

    def forward(self, x):
        self.shapes.append(tuple(x.shape))
        return {"out": self.conv(x)}


class Positional(Pointwise):
    """Adds what depends on the window's place in the image: coordinates and the window's mean."""

    def forward(self, x):
        height, width = x.shape[-2:]
        y = torch.linspace(-2, 1, height).to(x)[:, None]
        ramp = (y + torch.linspace(0, 3, width).to(x) ** 2) * torch.arange(K).to(x)[:, None, None]
        return {"out": self.conv(x) + ramp + self.conv(x.mean((2, 3), keepdim=True))}


class Wide(nn.Module):
    """From 3 channels to 8, to K."""

    def __init__(self, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, classes, 1))

    def forward(self, x):
        return {"out": self.layers(x)}


class Coarse(Wide):
    """The same of every eighth pixel, and resized unless told otherwise."""

    resizes_logits = True

    def __init__(self, classes):
        super().__init__(classes)
        self.layers[1].stride = (8, 8)

    def forward(self, x):
        logits = self.layers(x)
        return {"out": self.to_pixels(logits, x.shape[2:]) if self.resizes_logits else logits}

    def to_pixels(self, logits, size):
        return nn.functional.interpolate(logits, size, mode="bilinear")


def predict(model, pixels, *, return_probabilities=True, **options):
    protocol = InferenceProtocol(**options)
    keep = {"return_probabilities": return_probabilities}
    return segment(model, pixels, PREPROCESSING, LABELS, protocol, **keep)
