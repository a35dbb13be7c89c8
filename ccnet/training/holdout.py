"""Hold-out: which samples of a data set a run validates on, also where others are added to them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from ccnet.datasets import select
from ccnet.distributed import from_rank_zero
from ccnet.training.checkpoint import Checkpoints
from ccnet.training.optimization import class_pixels


def left_out_of(names: Sequence[Sequence[str]], parts: str) -> list[list[int]]:
    """Returns, for each data set, the indices of the samples whose names contain one of some parts.

    Args:
        names: of the samples of each.
        parts: separated by commas, as of `select`; empty for no samples.

    Raises:
        ValueError: if a part is in no name of any data set, or all samples of one are left out.
    """
    chosen = set(select([name for own in names for name in own], parts) if parts else [])
    start, found = 0, list[list[int]]()
    for own in names:
        found.append([index for index in range(len(own)) if start + index in chosen])
        if found[-1] and len(found[-1]) == len(own):
            raise ValueError(f"leave_out {parts!r} leaves no image to train on of {len(own)}")
        start += len(own)
    return found


def without(dataset: Any, indices: Iterable[int]) -> Any:
    """Returns a data set without the samples of some indices."""
    rest = sorted(set(range(len(dataset))).difference(indices))
    return Subset(dataset, rest) if len(rest) < len(dataset) else dataset


def split(dataset: Any, held_out: Sequence[int], classes: int, rule: str) -> tuple[Any, Any]:
    """Splits a data set into the samples to train and to validate on.

    Args:
        dataset: the data set.
        held_out: the indices of those to validate on.
        classes: the number of classes.
        rule: by which they are chosen, for errors.

    Raises:
        ValueError: if one of the two has no pixel of a class.
    """
    parts = without(dataset, held_out), Subset(dataset, held_out)
    for part, use in zip(parts, ("train", "validate"), strict=True):
        if not any(class_pixels(Subset(dataset, [at]), classes).any() for at in part.indices):
            raise ValueError(
                f"no pixel of the {len(part)} images to {use} on has a class ({rule}): give a "
                "validation folder (--val-root), or leave such images out"
            )
    return parts


def hold_out(names: Sequence[str], every: int, earlier: Mapping[str, str]) -> list[int]:
    """Returns the indices of the samples to validate on, in order.

    Args:
        names: of the samples.
        every: every how many-th one is held out, from the first one on.
        earlier: the sets of samples by names, as of `earlier_sets`: these stay there, and only the
            others are counted.

    Raises:
        ValueError: if so none is left to train or to validate on.
    """
    if len(names) < 2:
        raise ValueError(
            f"there is only one image, {names[0]}: "
            "add another one, or give a validation folder (--val-root)"
        )
    others = [index for index, name in enumerate(names) if name not in earlier]
    kept = [index for index, name in enumerate(names) if earlier.get(name) == "val"]
    held_out = sorted([*kept, *others[::every]])
    if len(held_out) in {0, len(names)}:
        use = "train" if held_out else "validate"
        raise ValueError(
            f"none of the {len(names)} images is one to {use} on, as those of a run that is "
            "resumed stay what they were in it: add other images, or give a validation folder "
            "(--val-root)"
        )
    return held_out


def earlier_sets(run_dir: Path) -> dict[str, str]:
    """Returns the set, "train" or "val", of each image of the run in a folder, by its name.

    A name in both sets is one to train on. Images of a recipe's `mix` do not count. Empty if there
    is no run, or no intact record of its data. Every rank must call this.
    """
    return from_rank_zero(lambda: _read(run_dir))


def _read(run_dir: Path) -> dict[str, str]:
    sets: dict[str, str] = {}
    if not Checkpoints(run_dir / "checkpoints").paths():
        return sets
    try:
        for line in (run_dir / "data.jsonl").read_text(encoding="utf-8").splitlines():
            sample = json.loads(line)
            is_mixed_in = "part" in sample and sample["part"] > 0
            if "image" in sample and not is_mixed_in and sets.get(sample["name"]) != "train":
                sets[sample["name"]] = sample["set"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return sets
