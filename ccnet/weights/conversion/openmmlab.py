"""OpenMMLab's records: what a checkpoint says of the network that it holds.

mmengine writes the configuration to `meta["cfg"]` and the classes to `meta["dataset_meta"]`, mmcv
before it to `meta["config"]`, `meta["CLASSES"]` and `meta["PALETTE"]`.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ccnet.inference import InferenceProtocol
from ccnet.schema import shown
from ccnet.transforms import Preprocessing
from ccnet.weights.conversion.python_config import parse_config
from ccnet.weights.conversion.recorded_classes import part_of, recorded_label_set
from ccnet.weights.families import OPTION

logger = logging.getLogger(__name__)

_OUTPUT_STRIDES = {
    ((1, 2, 1, 1), (1, 1, 2, 4)): 8,
    ((1, 2, 2, 1), (1, 1, 1, 2)): 16,
    ((1, 2, 2, 2), (1, 1, 1, 1)): 32,
}
"""By the strides and dilations of the four stages."""

_NORMS = ("BN", "BN2d", "SyncBN", "MMSyncBN", "NaiveSyncBN", "BatchNorm2d", "SyncBatchNorm", None)
_CONVOLUTIONS = (None, "Conv2d", "Conv")

_ONLY: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "backbone": {
        "type": ("ResNetV1c", "ResNet"),
        "style": ("pytorch",),
        "in_channels": (3,),
        "base_channels": (64,),
        "num_stages": (4,),
        "avg_down": (False,),
        "multi_grid": (None,),
        "plugins": (None, []),
        "dcn": (None,),
        "conv_cfg": _CONVOLUTIONS,
        "norm_cfg": _NORMS,
    },
    "decode_head": {
        "type": ("CCHead", "FCNHead"),
        "in_index": (3,),
        "num_convs": (2,),
        "kernel_size": (3,),
        "dilation": (1,),
        "concat_input": (True,),
        "input_transform": (None,),
        "upsample_input": (False,),
        "conv_cfg": _CONVOLUTIONS,
        "norm_cfg": _NORMS,
        "act_cfg": ("ReLU", "LeakyReLU"),
    },
}
"""Values that this network can have, of the options that its tensors do not tell.

The first is that of an option that is not recorded. Of mappings it is their `type`.
"""


@dataclass
class Recorded:
    """What a checkpoint records.

    Attributes:
        config: arguments of `CCNet`; only those that are recorded.
        protocol: the options of inference.
        guesses: arguments in `config` that are not what is recorded, which cannot be used.
    """

    config: dict[str, Any] = field(default_factory=dict)
    protocol: InferenceProtocol | None = None
    guesses: set[str] = field(default_factory=set)


def read_record(checkpoint: Mapping[str, Any], num_classes: int | None = None) -> Recorded:
    """Reads what an OpenMMLab checkpoint records of its network.

    Args:
        checkpoint: as `read_pickle` returns it.
        num_classes: number of classes by the tensors; None to check the network alone.

    Raises:
        ValueError: if the recorded network is another than this project's.
    """
    meta = checkpoint.get("meta")
    if not isinstance(meta, Mapping):
        return Recorded()
    recorded = Recorded()
    settings = _settings(meta)
    model = part_of(settings, "model")
    backbone, head = part_of(model, "backbone"), model.get("decode_head", {})
    if isinstance(head, Sequence) and not isinstance(head, str):
        raise ValueError(f"it has a cascade of {len(head)} decode heads; this network has one")
    head = head if isinstance(head, Mapping) else {}
    _check_supported("backbone", backbone)
    _check_supported("decode_head", {**head, "in_index": _stage(backbone, head)})
    for name, kind in (("recurrence", int), ("align_corners", bool)):
        value = head.get(name)
        if isinstance(value, (int, float)) and kind(value) == value:
            recorded.config[name] = kind(value)
    if "dropout_ratio" in head:
        recorded.config["dropout"] = max(0.0, float(head["dropout_ratio"] or 0))
    activation = part_of(head, "act_cfg")
    if _short(activation.get("type")) == "LeakyReLU":
        recorded.config["negative_slope"] = float(activation.get("negative_slope", 0.01))
    if options := _backbone_options(backbone):
        recorded.config["backbone_options"] = {"contract_dilation": False, **options}
        if "contract_dilation" not in options:  # its default there
            recorded.guesses.add(f"{OPTION}contract_dilation")
    if (pixels := _preprocessing(settings, model)) is not None:
        recorded.config["preprocessing"] = pixels.to_config()
    if num_classes is not None:
        labels, is_guess = recorded_label_set(meta, settings, num_classes)
        if labels is not None:
            recorded.config["label_set"] = labels.to_config()
        if is_guess:
            recorded.guesses.add("label_set")
    recorded.protocol = _protocol(part_of(model, "test_cfg") or part_of(settings, "test_cfg"))
    return recorded


def _settings(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in ("cfg", "config"):
        recorded = meta.get(key)
        if isinstance(recorded, Mapping):
            return recorded
        if isinstance(recorded, str) and recorded.strip():
            try:
                found = parse_config(recorded)
            except ValueError as error:
                logger.warning("the recorded configuration cannot be read: %s", error)
            else:
                if found:
                    return found
    return {}


def _short(type_name: Any) -> Any:
    """The last part of the dotted name of a type."""
    return type_name.rpartition(".")[2] if isinstance(type_name, str) else type_name


def _check_supported(part: str, settings: Mapping[str, Any]) -> None:
    for name, allowed in _ONLY[part].items():
        value = settings.get(name, allowed[0])
        value = _short(value.get("type", allowed[0]) if isinstance(value, Mapping) else value)
        if value not in allowed:
            raise ValueError(
                f"its {part} has {name}={shown(value)}, which this network cannot have: "
                f"only {' or '.join(map(repr, allowed))}"
            )
    epsilon = part_of(settings, "norm_cfg").get("eps", 1e-5)
    if epsilon != 1e-5:
        raise ValueError(f"its {part} has norms with eps={shown(epsilon)}; this network has 1e-5")
    if settings.get("out_channels") == 1:
        raise ValueError("it has one output channel for two classes, cut at a threshold")


def _backbone_options(backbone: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if "contract_dilation" in backbone:
        options["contract_dilation"] = bool(backbone["contract_dilation"])
    if "strides" in backbone or "dilations" in backbone:
        strides = tuple(backbone.get("strides", (1, 2, 2, 2)))
        dilations = tuple(backbone.get("dilations", (1, 1, 1, 1)))
        if (strides, dilations) not in _OUTPUT_STRIDES:
            raise ValueError(
                f"its backbone has strides {shown(strides)} and dilations {shown(dilations)}, "
                "which this network cannot have"
            )
        options["output_stride"] = _OUTPUT_STRIDES[strides, dilations]
    return options


def _preprocessing(settings: Mapping[str, Any], model: Mapping[str, Any]) -> Preprocessing | None:
    """Returns the recorded normalisation: of the model, its test pipeline, or the data set."""
    recorded = part_of(model, "data_preprocessor") or part_of(settings, "data_preprocessor")
    if recorded:
        swaps = bool(recorded.get("bgr_to_rgb") or recorded.get("rgb_to_bgr"))
        mean = recorded.get("mean") or (0.0, 0.0, 0.0)
        std = recorded.get("std") or (1.0, 1.0, 1.0)
    else:
        pipelines = (
            part_of(part_of(settings, "data"), "test").get("pipeline"),
            settings.get("test_pipeline"),
            part_of(part_of(settings, "data"), "val").get("pipeline"),
        )
        steps = (step for pipeline in pipelines for step in _steps(pipeline))
        recorded = next(steps, part_of(settings, "img_norm_cfg"))
        if "mean" not in recorded or "std" not in recorded:
            return None
        swaps = bool(recorded.get("to_rgb", True))
        mean, std = recorded["mean"], recorded["std"]
    return Preprocessing(tuple(mean), tuple(std), "RGB" if swaps else "BGR")


def _steps(pipeline: Any) -> Iterator[Mapping[str, Any]]:
    """Yields the steps of a pipeline that normalise, also those inside others."""
    if isinstance(pipeline, (list, tuple)):
        for step in pipeline:
            yield from _steps(step)
    elif isinstance(pipeline, Mapping):
        if _short(pipeline.get("type")) == "Normalize":
            yield pipeline
        yield from _steps(pipeline.get("transforms"))


def _stage(backbone: Mapping[str, Any], head: Mapping[str, Any]) -> Any:
    """Returns the number of the stage that the head reads."""
    stages, index = backbone.get("out_indices", (0, 1, 2, 3)), head.get("in_index", -1)
    is_one = type(index) is int and -len(stages) <= index < len(stages)
    return stages[index] if is_one else index


def _protocol(test: Mapping[str, Any]) -> InferenceProtocol | None:
    if test.get("mode") == "whole":
        return InferenceProtocol()
    if test.get("mode") != "slide" or "crop_size" not in test:
        return None
    try:
        return InferenceProtocol("slide", crop=test["crop_size"], stride=test.get("stride"))
    except (TypeError, ValueError) as error:
        logger.warning("the recorded test_cfg is not used: %s", error)
        return None
