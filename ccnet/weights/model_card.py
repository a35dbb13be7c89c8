"""Model cards, saved beside weights: what they are, their origin, metrics and use."""

import json
from collections.abc import Mapping
from typing import Any

_TEMPLATE = """---
{front_matter}
---

# {title}

Semantic segmentation with criss-cross attention ([CCNet](https://arxiv.org/abs/1811.11721)), for
the pure-PyTorch implementation `ccnet-pytorch`.

| | |
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

## Classes

{classes}
"""


_OF_A_PICTURE = 'model.predict("street.jpg"{options}).overlay().save("overlay.png")'

_OF_AN_ARRAY = """image = numpy.load("street.npy")  # (H, W, {channels}), uint8
model.predict(image{options}).colorize().save("labels.png")"""


def write_model_card(config: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """Writes a model card.

    Args:
        config: the arguments of `CCNet`.
        details: facts about the weights. The card shows `weights`, `dataset`, `metrics`, `whose`,
            `protocol`, `recipe`, `license` (an SPDX name) and `source`. `location` is the folder or
            "owner/name" that the example loads from.

    Returns:
        Markdown with front matter.
    """
    front_matter = {
        "library_name": "ccnet-pytorch",
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "criss-cross-attention", "ccnet"],
    }
    if "license" in details:
        front_matter["license"] = str(details["license"]).lower()
    channels = config.get("in_channels", 3)
    is_picture = channels in (1, 3)
    facts = {
        "backbone": config["backbone"],
        "recurrence": config["recurrence"],
        "channels": None if channels == 3 else channels,
        "learnt at": _size(config.get("training_size")),
        "weights": details.get("weights"),
        "trained on": details.get("dataset"),
        **_metrics(details),
        "protocol": _as_text(details.get("protocol")),
        "recipe": details.get("recipe"),
        "licence": details.get("license"),
        "source": details.get("source"),
    }
    protocol = details.get("protocol")
    is_known = config.get("training_size") is not None  # and is what `predict` fits images into
    fit = None if is_known or not isinstance(protocol, Mapping) else protocol.get("fit")
    is_timm = config["backbone"].startswith("timm:")
    header = [f"{key}: {json.dumps(value)}" for key, value in front_matter.items()]
    rows = [f"| {name} | {value} |" for name, value in facts.items() if value is not None]
    return _TEMPLATE.format(
        front_matter="\n".join(header),
        title=f"CCNet {config['backbone']}, {config['num_classes']} classes",
        facts="\n".join(rows),
        location=json.dumps(str(details.get("location", "folder-or-owner/name"))),
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


def _metrics(details: Mapping[str, Any]) -> dict[str, str]:
    whose = f" (reported by {details['whose']})" if "whose" in details else ""
    metrics_by_dataset = details.get("metrics")
    if not isinstance(metrics_by_dataset, Mapping):
        return {}
    return {
        f"{metric} on {dataset}": f"{_as_text(value)}{whose}"
        for dataset, metrics in metrics_by_dataset.items()
        if isinstance(metrics, Mapping)
        for metric, value in metrics.items()
    }


def _size(size: Any) -> str | None:
    return None if size is None else f"{size[1]} x {size[0]} pixels, to which `predict` fits images"


def _as_text(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_as_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return None if value is None else str(value)
