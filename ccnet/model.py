"""CCNet: a dilated ResNet, recurrent criss-cross attention, and an auxiliary classifier."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from huggingface_hub import ModelCard
from torch import Tensor, nn
from torch.nn import functional as F

from ccnet import inference
from ccnet.backbone import Backbone
from ccnet.classes import LabelSet
from ccnet.heads import FCNHead, RCCAHead
from ccnet.inference import Segmentation
from ccnet.model_card import write_model_card
from ccnet.protocol import Protocol
from ccnet.serialization import StrictHubMixin
from ccnet.transforms import ImageLike, Preprocessing


class CCNet(nn.Module, StrictHubMixin):
    """Semantic segmentation with criss-cross attention.

    Every argument is JSON-able, and together they are config.json on the Hugging Face Hub. The
    defaults are the authors' network; preprocessing and classes travel with it.

    Args:
        backbone: "resnet18", "resnet50" or "resnet101".
        num_classes: K, 1 to 255.
        recurrence: the loops of criss-cross attention; 0 is the baseline without attention.
        backbone_options: the keyword arguments of `backbone.Backbone`.
        aux_channels: the width of the auxiliary head; 0 for none, None for half the channels of
            the backbone's third stage.
        dropout: the probability of dropping a channel before the classifiers.
        negative_slope: that of the heads' activations: 0 is ReLU.
        align_corners: how logits are brought to the size of the input.
        preprocessing: the fields of `transforms.Preprocessing` that differ from its defaults.
        label_set: a name in `classes.LABEL_SETS`, or a mapping with `categories` and optionally
            `colors` and `label_ids`; None for numbered classes.

    Attributes:
        config: these arguments as JSON-able values.
        preprocessing: a `transforms.Preprocessing`.
        label_set: a `classes.LabelSet`.
        card_details: what is known of the weights, for the model card.

    Raises:
        ValueError: if an argument is out of range, or the label set does not have `num_classes`.

    Source:
        CCNet (https://arxiv.org/abs/1811.11721).
    """

    def __init__(
        self,
        backbone: str = "resnet101",
        num_classes: int = 19,
        recurrence: int = 2,
        *,
        backbone_options: Mapping[str, Any] | None = None,
        aux_channels: int | None = None,
        dropout: float = 0.1,
        negative_slope: float = 0.0,
        align_corners: bool = True,
        preprocessing: Mapping[str, Any] | None = None,
        label_set: str | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("recurrence", recurrence), ("aux_channels", aux_channels)):
            if value is not None and (not isinstance(value, int) or value < 0):
                raise ValueError(f"{name} must be a whole number, 0 or more, not {value!r}")
        self.preprocessing = Preprocessing.from_config(preprocessing)
        if label_set is None:
            self.label_set = LabelSet.numbered(num_classes)
        else:
            self.label_set = LabelSet.from_config(label_set)
        if len(self.label_set) != num_classes:
            raise ValueError(
                f"num_classes is {num_classes}, but the label set has {len(self.label_set)} classes"
            )
        self.align_corners = align_corners
        self.card_details: dict[str, Any] = {}
        self.backbone = Backbone(backbone, **(backbone_options or {}))
        stage3, stage4 = self.backbone.channels
        self.head = RCCAHead(stage4, num_classes, recurrence, dropout, negative_slope)
        if aux_channels is None:
            aux_channels = stage3 // 2
        self.aux_head = (
            FCNHead(stage3, aux_channels, num_classes, dropout, negative_slope)
            if aux_channels
            else None
        )
        self.config = {
            "backbone": backbone,
            "num_classes": num_classes,
            "recurrence": recurrence,
            "backbone_options": {
                name: list(value) if isinstance(value, Sequence) else value
                for name, value in (backbone_options or {}).items()
            },
            "aux_channels": aux_channels,
            "dropout": dropout,
            "negative_slope": negative_slope,
            "align_corners": align_corners,
            "preprocessing": self.preprocessing.to_config(),
            "label_set": self.label_set.to_config(),
        }

    def forward(self, x: Tensor, *, return_rcca: bool = False) -> dict[str, Tensor]:
        """Computes the logits of every pixel.

        Args:
            x: (N, 3, H, W), floating point, as `transforms()` gives it.
            return_rcca: also give the map that comes out of the recurrent attention, which
                `losses.CategoryConsistentLoss` takes.

        Returns:
            "out": (N, K, H, W), logits in float32 (float64 for a float64 network). In training
            mode also "aux", the auxiliary head's, likewise. On request "rcca": (N, C, h, w).

        Raises:
            ValueError: if x is no such batch.
        """
        if x.dim() != 4 or x.shape[1] != 3 or not x.is_floating_point():
            raise ValueError(
                "expected a normalised floating-point batch (N, 3, H, W), as model.transforms() "
                f"gives, not {x.dtype} {tuple(x.shape)}"
            )
        stage3, stage4 = self.backbone(x)
        size = x.shape[-2:]
        context = self.head.attend(stage4)
        outputs = {"out": self._to_pixels(self.head.classify(stage4, context), size)}
        if return_rcca:
            outputs["rcca"] = context
        if self.training and self.aux_head is not None:
            outputs["aux"] = self._to_pixels(self.aux_head(stage3), size)
        return outputs

    def _to_pixels(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.interpolate(wide, size, mode="bilinear", align_corners=self.align_corners)

    def transforms(self) -> Preprocessing:
        """The preprocessing that makes this network's input (N, 3, H, W) of pictures."""
        return self.preprocessing

    def generate_model_card(self, **details: Any) -> ModelCard:
        """The card that is saved beside the weights; `details` replace those of `card_details`."""
        return ModelCard(write_model_card(self.config, {**self.card_details, **details}))

    def predict(
        self,
        image: ImageLike,
        *,
        mode: str = "whole",
        crop: int | Sequence[int] | None = None,
        stride: int | Sequence[int] | None = None,
        overlap: float | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        average: str = "logits",
        window_batch: int = 4,
        precision: str = "float32",
        return_probabilities: bool = False,
    ) -> Segmentation:
        """Segments one picture at its own size.

        Args:
            image: a path, a PIL image, an array (H, W, 3) or a tensor (3, H, W): RGB, uint8 in
                0..255 or floating point in 0..1.
            mode: "whole" puts the whole picture to the network, "slide" a window at a time, which
                bounds the memory that a large picture takes (see `inference.segment`).
            crop: the windows' height and width in pixels, or one number for both; None for 769.
            stride: how far apart windows lie, likewise; None for two thirds of the crop.
            overlap: the share of a window in common with the next, in place of `stride`.
            scales: factors on the size of the picture; the results of all are averaged.
            flip: average with the result on the mirrored picture, at each scale.
            average: what is averaged over scales and flips, "logits" or "probabilities"; where
                windows overlap it is their logits either way.
            window_batch: how many windows the network gets at a time.
            precision: "float32" computes in the parameters' own precision, "bfloat16" under
                autocast.
            return_probabilities: also keep the probabilities (K, H, W), float32.

        Returns:
            The labels, with `colorize()`, `overlay()` and `save(path)`.

        Raises:
            FileNotFoundError: if there is no file at the path.
            ValueError: if the image cannot be read or is not one image, or an option makes no
                sense.

        Example:
            >>> model.predict("street.jpg").overlay().save("overlay.png")
        """
        protocol = Protocol(
            mode, crop, stride, overlap, scales, flip, average, window_batch, precision
        )
        return inference.segment(
            self,
            image,
            self.preprocessing,
            self.label_set,
            protocol,
            return_probabilities=return_probabilities,
        )
