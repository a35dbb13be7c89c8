"""CCNet model: dilated backbone, recurrent criss-cross attention and auxiliary head."""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from huggingface_hub import ModelCard
from torch import Tensor, nn
from torch.nn import functional as F

from ccnet.backbones import build_backbone, check_name
from ccnet.classes import MAX_CLASSES, LabelSet
from ccnet.economy import economise, is_watched
from ccnet.freezing import Freezable
from ccnet.heads import FCNHead, RCCAHead
from ccnet.inference.footprint import Footprint, count_footprint
from ccnet.inference.prediction import TRAINING_SIZE, PredictionMixin
from ccnet.norm import InPlaceABN, activation_slopes, restore_batchnorm
from ccnet.options import ANY_SIZE, check_options, named_options, options_of
from ccnet.reconfiguration import as_json, build_from_weights
from ccnet.schema import check, flag, integer, mapping, number
from ccnet.transforms import MAX_CHANNELS, Preprocessing, check_batch
from ccnet.weights.hub_mixin import StrictHubMixin
from ccnet.weights.model_card import write_model_card
from ccnet.weights.serialization import ModelWeights

_RULES = {
    "num_classes": integer(1, MAX_CLASSES),
    "in_channels": integer(1, MAX_CHANNELS),
    "recurrence": integer(0, 100),
    "backbone_options": mapping().or_none(),
    "aux_channels": integer(0, 8192).or_none(),
    "dropout": number(0, 1),
    "negative_slope": number(0, 1),
    "align_corners": flag(),
    "training_size": TRAINING_SIZE,
}
"""The arguments of `CCNet` but those of its parts, which check theirs."""


class CCNet(Freezable, PredictionMixin, StrictHubMixin):
    """Semantic segmentation network with recurrent criss-cross attention.

    All arguments are JSON-able; together they form config.json on the Hugging Face Hub. The
    defaults are the authors' network. Preprocessing and classes are part of the model.

    Args:
        backbone: "resnet18", "resnet50" or "resnet101"; or "timm:" and the name of a network of
            timm, such as "timm:convnext_tiny".
        num_classes: K, 1 to 255.
        recurrence: number of loops of criss-cross attention; 0 is the baseline without attention.
        in_channels: number of channels of the input.
        backbone_options: keyword arguments of `backbones.Backbone` or `backbones.TimmBackbone`.
        aux_channels: width of the auxiliary head, which is for training mode; 0 for no head, None
            for half the channels of the backbone's third stage.
        dropout: probability of dropping a whole channel before the classifiers.
        negative_slope: slope of the heads' activations; 0 is ReLU.
        align_corners: passed to the bilinear interpolation of the logits to the input size.
        preprocessing: fields of `transforms.Preprocessing` that differ from those of the backbone.
        label_set: a name in `classes.LABEL_SETS`, or a mapping with `categories` and optionally
            `colors` and `label_ids`; None for numbered classes.
        training_size: height and width of the images that the network learnt from, in pixels:
            `predict` shows it images at that size. None if unknown: at their own.

    Attributes:
        config: these arguments as JSON-able values.
        preprocessing: a `transforms.Preprocessing`.
        label_set: a `classes.LabelSet`.
        card_details: facts about the weights, for the model card.
        resizes_logits: whether `forward` gives the logits of the pixels; if not, those of the
            feature map, which `to_pixels` resizes. True unless set.

    Raises:
        ValueError: if an argument is out of range, or the label set does not have `num_classes`
            classes.

    Source:
        CCNet (https://arxiv.org/abs/1811.11721).
    """

    resizes_logits = True

    @named_options(
        **dict.fromkeys(
            ("weights", "pretrained"),
            'CCNet is untrained: ccnet.ccnet_resnet18(weights="DEFAULT") has weights',
        ),
        **dict.fromkeys(
            ("categories", "classes", "class_names"),
            'label_set={"categories": [...]} has the names, num_classes their number; '
            "ccnet.build_ccnet(backbone, categories=[...]) does both",
        ),
        **ANY_SIZE,
    )
    def __init__(
        self,
        backbone: str = "resnet101",
        num_classes: int = 19,
        recurrence: int = 2,
        *,
        in_channels: int = 3,
        backbone_options: Mapping[str, Any] | None = None,
        aux_channels: int | None = None,
        dropout: float = 0.1,
        negative_slope: float = 0.0,
        align_corners: bool = True,
        preprocessing: Mapping[str, Any] | None = None,
        label_set: str | Mapping[str, Any] | None = None,
        training_size: Sequence[int] | None = None,
    ) -> None:
        check(locals(), _RULES)
        check_name(backbone)
        super().__init__()
        self.label_set = LabelSet.of(num_classes, label_set)
        self.align_corners = align_corners
        self.card_details: dict[str, Any] = {}
        self.backbone = build_backbone(backbone, in_channels, backbone_options or {})
        default = self.backbone.preprocessing.for_channels(in_channels)
        self.preprocessing = Preprocessing.from_config(preprocessing, default)
        stage3, stage4 = self.backbone.channels
        self.head = RCCAHead(stage4, num_classes, recurrence, dropout, negative_slope)
        if aux_channels is None:
            aux_channels = stage3 // 2
        self.aux_head: FCNHead | None = None
        if aux_channels:
            self.aux_head = FCNHead(stage3, aux_channels, num_classes, dropout, negative_slope)
        self.config = {
            "backbone": backbone,
            "num_classes": num_classes,
            "recurrence": recurrence,
            "backbone_options": {**as_json(backbone_options or {}), **self.backbone.settled},
            "aux_channels": aux_channels,
            "dropout": dropout,
            "negative_slope": negative_slope,
            "align_corners": align_corners,
            "preprocessing": self.preprocessing.to_config(),
            "label_set": self.label_set.to_config(),
        }
        self.config |= {"in_channels": in_channels} if in_channels != 3 else {}
        self.training_size = training_size

    @classmethod
    def from_weights(cls, weights: ModelWeights, **changes: Any) -> "CCNet":
        """Builds the network of some weights, in evaluation mode, on PyTorch's default device.

        Parts that start untrained do not change that: call `model.train()` to train them.

        Args:
            weights: tensors, which are copied, and configuration.
            changes: constructor arguments that replace those of the configuration, or `categories`
                (see `classes.complete_arguments`). `backbone_options` are replaced one by one. The
                classifiers start untrained if the categories change, the attention if it did not
                exist, the auxiliary head if its width changes; a warning in the log names them.

        Raises:
            TypeError: if `changes` has an unknown argument.
            ValueError: if the configuration does not describe a CCNet, or the tensors do not fit.
        """
        check_options("from_weights", changes, [*options_of(cls), "categories"], ANY_SIZE)
        return build_from_weights(cls, weights, changes)

    def to_weights(self) -> ModelWeights:
        """Returns a copy of tensors, configuration and details, on plain batch norm.

        Raises:
            ValueError: if activations differ from the configuration, as after
                `norm.convert_inplace_abn` of a network with ReLU.
        """
        slope = self.config["negative_slope"]
        for part, known in ((self.backbone, self.backbone.slopes), (self.head, {slope})):
            if other := activation_slopes(part) - known:
                expected = " or ".join(f"{one:g}" for one in known) or "none"
                raise ValueError(
                    f"activations have the negative slope {other.pop():g}, the configuration says "
                    f"{expected}: build the network with negative_slope=0.01 and "
                    'backbone_options={"negative_slope": 0.01}, for example, before converting it'
                )
        if any(isinstance(module, InPlaceABN) for module in self.modules()):
            restored: CCNet = restore_batchnorm(copy.deepcopy(self))  # type: ignore[assignment]
            return restored.to_weights()
        return super().to_weights()

    def forward(self, x: Tensor, *, return_rcca: bool = False) -> dict[str, Tensor]:
        """Computes the logits of every pixel.

        Args:
            x: (N, C, H, W), floating point, as `transforms()` gives.
            return_rcca: also return the output of the recurrent attention, which is the input of
                `losses.CategoryConsistentLoss`.

        Returns:
            "out": (N, K, H, W), logits in float32 (float64 for a float64 network); (N, K, h, w)
            unless `resizes_logits`. In training mode also "aux": logits of the auxiliary head, if
            any, likewise. With `return_rcca` also "rcca": (N, C, h, w).

        Raises:
            ValueError: if x is not such a batch, or its size is none that the backbone takes.
        """
        check_batch(x, self.preprocessing.channels)
        *stages, stage4 = self.backbone(x)
        size = x.shape[-2:] if self.resizes_logits else None
        aux_head = self.aux_head if self.training else None
        if aux_head is None:
            stages = []  # so that their memory is freed before the head needs its own
        if return_rcca:
            logits, context = self.head(stage4, return_context=True)
            outputs = {"out": self.to_pixels(logits, size), "rcca": context}
        else:
            outputs = {"out": self.to_pixels(self.head(stage4), size)}
        if aux_head is not None:
            outputs["aux"] = self.to_pixels(aux_head(stages[0]), size)
        return outputs

    def to_pixels(self, logits: Tensor, size: Sequence[int] | None) -> Tensor:
        """Resizes logits as the network was trained.

        Args:
            logits: (N, K, h, w), floating point.
            size: height and width of the result, in pixels; None for that of the logits.

        Returns:
            (N, K, *size), float32 (float64 for float64 logits).
        """
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if size is None:
            return wide
        return F.interpolate(wide, size, mode="bilinear", align_corners=self.align_corners)

    def _footprint(self) -> Footprint:
        build = CCNet if is_watched(self) else _economical
        return count_footprint(build, json.dumps(self.config), self.backbone.image_size)

    def _economise(self, model: nn.Module) -> None:
        economise(self, model)

    def transforms(self) -> Preprocessing:
        """Returns the preprocessing of an image to the network's input (N, C, H, W)."""
        return self.preprocessing

    def generate_model_card(self, **details: Any) -> ModelCard:
        """Generates the model card; `details` replace those of `card_details`."""
        return ModelCard(write_model_card(self.config, {**self.card_details, **details}))


def _economical(**config: Any) -> CCNet:
    """Builds a network that computes as `predict` has it."""
    model = CCNet(**config).eval()
    economise(model)
    return model
