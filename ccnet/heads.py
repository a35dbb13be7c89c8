"""Segmentation heads: recurrent criss-cross attention (RCCA) and the auxiliary FCN head."""

from typing import Any

import torch
from torch import Tensor, nn

from ccnet.attention import CrissCrossAttention2d
from ccnet.options import named_options


def _conv_norm_act(in_channels: int, out_channels: int, negative_slope: float) -> nn.Sequential:
    activation = nn.LeakyReLU(negative_slope, inplace=True) if negative_slope else nn.ReLU(True)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        activation,
    )


class RCCAHead(nn.Module):
    """Head that concatenates the features with their recurrent criss-cross attention.

    One shared criss-cross module, between two convolutions, is applied `recurrence` times to
    `in_channels // 4` channels. After two loops the context of every position is the whole map.

    Args:
        in_channels: C, the number of channels of the features.
        num_classes: K.
        recurrence: R, the number of loops; 0 is the same head without attention.
        dropout: probability of dropping a whole channel before the classifier.
        negative_slope: slope of the activations; 0 is ReLU.

    Attributes:
        channels: number of channels of the context: `in_channels // 4`.

    Source:
        CCNet, section 3.3 (https://arxiv.org/abs/1811.11721).
    """

    @named_options()
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

    def forward(
        self, features: Tensor, *, return_context: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Computes logits from the features and their context, the result of all loops.

        Args:
            features: (N, C, h, w).
            return_context: also return the context (N, C / 4, h, w).

        Returns:
            Logits (N, K, h, w), or logits and context.
        """
        context: Tensor = self.conva(features)
        if self.cca is not None:
            for _ in range(self.recurrence):
                context = self.cca(context)
        both = self.join(features, self.convb(context))
        asked = context if return_context else None
        del context  # so that its memory is freed before the bottleneck needs its own
        logits: Tensor = self.classifier(self.dropout(self.bottleneck(both)))
        return logits if asked is None else (logits, asked)

    def join(self, features: Tensor, context: Tensor) -> Any:
        """Returns features (N, C, h, w) and context (N, C / 4, h, w) for the bottleneck."""
        return torch.cat([features, context], dim=1)


class FCNHead(nn.Module):
    """Auxiliary head: one 3x3 convolution and a classifier.

    Args:
        in_channels: C, the number of channels of the features.
        channels: number of channels between convolution and classifier.
        num_classes: K.
        dropout: probability of dropping a whole channel before the classifier.
        negative_slope: slope of the activation; 0 is ReLU.
    """

    @named_options()
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
        """Computes logits (N, K, h, w) from features (N, C, h, w)."""
        logits: Tensor = self.classifier(self.dropout(self.conv(features)))
        return logits
