"""Hold-out: which samples of a data set a run validates on, also where others are added to them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ccnet.distributed import from_rank_zero
from ccnet.training.checkpoint import Checkpoints


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

    A name in both sets is one to train on. Empty if there is no run, or no intact record of its
    data. Every rank must call this.
    """
    return from_rank_zero(lambda: _read(run_dir))


def _read(run_dir: Path) -> dict[str, str]:
    sets: dict[str, str] = {}
    if not Checkpoints(run_dir / "checkpoints").paths():
        return sets
    try:
        for line in (run_dir / "data.jsonl").read_text(encoding="utf-8").splitlines():
            sample = json.loads(line)
            if "image" in sample and sets.get(sample["name"]) != "train":
                sets[sample["name"]] = sample["set"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return sets
