"""Networks whose logits are known, for tests of how a picture is put to a network."""

import torch
from torch import nn

from ccnet.classes import LabelSet
from ccnet.inference import segment
from ccnet.protocol import Protocol
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
    """Adds what the window's place in the picture cannot but change: coordinates and its mean."""

    def forward(self, x):
        height, width = x.shape[-2:]
        y = torch.linspace(-2, 1, height).to(x)[:, None]
        ramp = (y + torch.linspace(0, 3, width).to(x) ** 2) * torch.arange(K).to(x)[:, None, None]
        return {"out": self.conv(x) + ramp + self.conv(x.mean((2, 3), keepdim=True))}


def predict(model, pixels, **options):
    return segment(
        model, pixels, PREPROCESSING, LABELS, Protocol(**options), return_probabilities=True
    )
