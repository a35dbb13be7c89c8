"""Model cards, saved beside weights: what they are, their origin, results, use and fine-tuning."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.constants import HUGGINGFACE_CO_URL_HOME

_TEMPLATE = """---
{front_matter}
---

# {title}

Semantic segmentation with criss-cross attention ([CCNet](https://arxiv.org/abs/1811.11721)), for
the pure-PyTorch implementation `ccnet-pytorch`.

{picture}| | |
| --- | --- |
{facts}

## Use

```bash
pip install {package}  # a clone of the repository of ccnet-pytorch
```

```python
{imports}

model = ccnet.CCNet.from_pretrained({location})  # this folder, or "owner/name" on the Hub
{prediction}
```

`model(x)` takes a normalised batch (N, {channels}, H, W), as `model.transforms()` makes it, and
returns `{{"out": logits}}` of (N, {num_classes}, H, W).
{training}
## Classes

{classes}
"""

_TRAINING = """
## Fine-tune

`my-data` has the folders `images` and `masks`, and `classes.json` with the names of your classes:

```bash
ccnet train finetune --root my-data --run-dir runs/mine \\
    --backbone {backbone} --weights {address}
```
"""
"""For networks of pictures in colour, which the command reads."""

_DATASETS = {
    "ADE20K": "scene_parse_150",
    "CamVid": "camvid",
    "Cityscapes": "cityscapes",
    "ImageNet-1K": "imagenet-1k",
    "Pascal VOC 2012": "pascal-voc-2012",
}
"""What the Hub calls data sets."""

_METRICS = {"mIoU": "mean_iou", "top-1": "accuracy"}
"""Likewise metrics, by the first word of their names."""

_SPLITS = ("train", "val", "test")

_VARIANTS: dict[str, dict[str, Any]] = {
    "multi-scale and flip": {"scales": [0.5, 0.75, 1.0, 1.25, 1.5, 1.75], "flip": True}
}
"""What differs from the protocol, by the words after a comma in the name of a metric."""


_OF_A_PICTURE = 'model.predict("street.jpg"{options}).overlay().save("overlay.png")'

_OF_AN_ARRAY = """image = numpy.load("street.npy")  # (H, W, {channels}), uint8
model.predict(image{options}).colorize().save("labels.png")"""


def write_model_card(config: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """Writes a model card.

    Args:
        config: the arguments of `CCNet`.
        details: facts about the weights. The card shows `weights`, `dataset`, `metrics`, `whose`,
            `protocol`, `recipe`, `license` (an SPDX name) and `source`. `location` is what the
            example loads from, the `Path` of a folder or "owner/name", `picture` the name of a
            picture beside the card.

    Returns:
        Markdown with front matter: what the Hub searches by, and the results as its evaluation
        metadata.
    """
    channels = config.get("in_channels", 3)
    is_picture = channels in (1, 3)
    facts = {
        "backbone": config["backbone"],
        "recurrence": config["recurrence"],
        "channels": None if channels == 3 else channels,
        "learnt at": _size(config.get("training_size")),
        "weights": details.get("weights"),
        "trained on": details.get("dataset"),
        **_metric_rows(details),
        "protocol": _as_text(details.get("protocol")),
        "recipe": details.get("recipe"),
        "licence": details.get("license"),
        "source": details.get("source"),
    }
    rows = [f"| {name} | {value} |" for name, value in facts.items() if value is not None]
    title = f"CCNet {config['backbone']}, {config['num_classes']} classes"
    location = str(details.get("location", "folder-or-owner/name"))
    picture = details.get("picture")
    protocol = details.get("protocol")
    is_known = config.get("training_size") is not None  # and is what `predict` fits images into
    fit = None if is_known or not isinstance(protocol, Mapping) else protocol.get("fit")
    is_timm = config["backbone"].startswith("timm:")
    return _TEMPLATE.format(
        front_matter=_front_matter(details, title),
        title=title,
        picture=f"![Segmentation by this network]({picture})\n\n" if picture else "",
        facts="\n".join(rows),
        location=json.dumps(location),
        training=_TRAINING.format(
            backbone=config["backbone"],
            address=f"hf://{location}" if _is_on_the_hub(details) else shlex.quote(location),
        )
        if channels == 3
        else "",
        package='"PATH_OF_THE_CLONE[timm]"' if is_timm else "PATH_OF_THE_CLONE",
        imports="import ccnet" if is_picture else "import ccnet\nimport numpy",
        prediction=(_OF_A_PICTURE if is_picture else _OF_AN_ARRAY).format(
            options=f", fit={fit}" if fit else "", channels=channels
        ),
        channels=channels,
        num_classes=config["num_classes"],
        classes=", ".join(config["label_set"]["categories"]),
    )


def inherited_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the details that still hold after fine-tuning: licence and origin."""
    kept = {key: details[key] for key in ("license", "source") if key in details}
    if "weights" in details:
        origin = str(details["weights"]).removeprefix("derived from ")
        dataset = f", trained on {details['dataset']}" if "dataset" in details else ""
        kept["weights"] = f"derived from {origin}{dataset}"
    return kept


def _front_matter(details: Mapping[str, Any], title: str) -> str:
    """The metadata of the card, as YAML."""
    dataset = str(details.get("dataset", ""))
    data = ModelCardData(
        **_license(details),
        library_name="ccnet-pytorch",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", "criss-cross-attention", "ccnet"],
        datasets=[one for name, one in _DATASETS.items() if name in dataset] or None,
        model_name=str(details.get("location", title)).rpartition("/")[2],
        eval_results=list(_results(details)) or None,
    )
    if data.eval_results is None:
        data.pop("model_name")
    return data.to_yaml()


def _license(details: Mapping[str, Any]) -> dict[str, Any]:
    """A licence by its short name; one that has none is another one, with a name of its own."""
    if "license" not in details:
        return {}
    name = str(details["license"]).lower()
    if re.fullmatch(r"[a-z0-9.+-]+", name):
        return {"license": name}
    return {"license": "other", "license_name": _slug(name)}


def _results(details: Mapping[str, Any]) -> Iterator[EvalResult]:
    """The figures as evaluation metadata: of which data, who measured them, and how."""
    whose, protocol, place = details.get("whose"), details.get("protocol"), _place_of(details)
    for dataset, metric, value in _metrics(details):
        name, _, split = dataset.rpartition(" ")
        has_split = split in _SPLITS
        name = name if has_split else dataset
        kind, _, variant = metric.partition(", ")
        kind = kind.partition(" ")[0]
        how = {**protocol, **_VARIANTS.get(variant, {})} if isinstance(protocol, Mapping) else None
        for figure in value if isinstance(value, (list, tuple)) else [value]:
            if not isinstance(figure, (int, float, str)):
                continue
            yield EvalResult(
                task_type="image-segmentation",
                task_name="Semantic segmentation",
                dataset_type=_DATASETS.get(name, _slug(name)),
                dataset_name=dataset,
                dataset_split=split if has_split else None,
                metric_type=_METRICS.get(kind, _slug(kind)),
                metric_name=f"{metric} (reported by {whose})" if whose else metric,
                metric_value=figure,
                metric_args=how,
                source_name=str(whose) if whose and place else None,
                source_url=place,
            )


def _place_of(details: Mapping[str, Any]) -> str | None:
    """Where those who measured the figures say so."""
    source = str(details.get("source", ""))
    if re.fullmatch(r"https?://\S+", source):
        return source
    return f"{HUGGINGFACE_CO_URL_HOME}{details['location']}" if _is_on_the_hub(details) else None


def _is_on_the_hub(details: Mapping[str, Any]) -> bool:
    location = details.get("location")
    return isinstance(location, str) and bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", location))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


def _metrics(details: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Data set, metric and value."""
    by_dataset = details.get("metrics")
    for dataset, metrics in by_dataset.items() if isinstance(by_dataset, Mapping) else ():
        for metric, value in metrics.items() if isinstance(metrics, Mapping) else ():
            yield str(dataset), str(metric), value


def _metric_rows(details: Mapping[str, Any]) -> dict[str, str]:
    whose = f" (reported by {details['whose']})" if "whose" in details else ""
    return {
        f"{metric} on {dataset}": f"{_as_text(value)}{whose}"
        for dataset, metric, value in _metrics(details)
    }


def _size(size: Any) -> str | None:
    return None if size is None else f"{size[1]} x {size[0]} pixels, to which `predict` fits images"


def _as_text(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_as_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return None if value is None else str(value)
