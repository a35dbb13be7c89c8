"""From features to logits: recurrent criss-cross attention, and the auxiliary head."""

import torch
from torch import Tensor, nn

from ccnet.attention import CrissCrossAttention2d


def _conv_norm_act(in_channels: int, out_channels: int, negative_slope: float) -> nn.Sequential:
    activation = nn.LeakyReLU(negative_slope, inplace=True) if negative_slope else nn.ReLU(True)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        activation,
    )


class RCCAHead(nn.Module):
    """Recurrent criss-cross attention between two convolutions, beside the features themselves.

    One shared criss-cross module is applied `recurrence` times to features of `in_channels // 4`
    channels. After two loops every position has seen the whole map.

    Args:
        in_channels: C, the channels of the features.
        num_classes: K.
        recurrence: R, the number of loops; 0 is the same head without attention.
        dropout: the probability of dropping a whole channel before the classifier.
        negative_slope: that of the activations: 0 is ReLU.

    Attributes:
        channels: of the map that `attend` gives: a quarter of `in_channels`.

    Source:
        CCNet, section 3.3 (https://arxiv.org/abs/1811.11721).
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        recurrence: int = 2,
        dropout: float = 0.1,
        negative_slope: float = 0.0,
    ) -> None:
        super().__init__()
        width = in_channels // 4
        self.channels, self.recurrence = width, recurrence
        self.conva = _conv_norm_act(in_channels, width, negative_slope)
        self.cca = CrissCrossAttention2d(width) if recurrence else None
        self.convb = _conv_norm_act(width, width, negative_slope)
        self.bottleneck = _conv_norm_act(in_channels + width, width, negative_slope)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, num_classes, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        """Classifies features (N, C, h, w): logits (N, K, h, w)."""
        return self.classify(features, self.attend(features))

    def attend(self, features: Tensor) -> Tensor:
        """The map (N, C / 4, h, w) that comes out of the loops of attention."""
        context: Tensor = self.conva(features)
        if self.cca is not None:
            for _ in range(self.recurrence):
                context = self.cca(context)
        return context

    def classify(self, features: Tensor, context: Tensor) -> Tensor:
        """Logits (N, K, h, w) from the features and what `attend` made of them."""
        fused = self.bottleneck(torch.cat([features, self.convb(context)], dim=1))
        logits: Tensor = self.classifier(self.dropout(fused))
        return logits


class FCNHead(nn.Module):
    """One 3x3 convolution and a classifier: the auxiliary head.

    Args:
        in_channels: C, the channels of the features.
        channels: the channels between convolution and classifier.
        num_classes: K.
        dropout: the probability of dropping a whole channel before the classifier.
        negative_slope: that of the activation: 0 is ReLU.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_classes: int,
        dropout: float = 0.1,
        negative_slope: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv = _conv_norm_act(in_channels, channels, negative_slope)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        """Classifies features (N, C, h, w): logits (N, K, h, w)."""
        logits: Tensor = self.classifier(self.dropout(self.conv(features)))
        return logits
