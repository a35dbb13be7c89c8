"""Changes: a run that is resumed with another recipe or network than it began with."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ccnet.schema import shown

logger = logging.getLogger(__name__)

FIXED = ("weights", "weights_backbone", "backbone", "norm")
"""Fields of recipes that say what a run starts from, and what its weights are weights of."""

_CONTEXT, _EXCERPT = 15, 50
"""Of long texts that differ, so many characters before the difference, and in all."""


def refuse_changes(
    run_dir: Path, saved: Mapping[str, Any], current: Mapping[str, Any], advice: str = ""
) -> None:
    """Refuses to resume a run with other settings of what cannot change in it.

    Args:
        run_dir: the folder of the run.
        saved: its settings.
        current: those of the resumed run.
        advice: what to do in place of that, beside choosing another folder.

    Raises:
        ValueError: if they differ; names the differences.
    """
    if changed := _differences(saved, current):
        raise ValueError(
            f"the run in {run_dir} has {_described(changed, 'not')}: "
            f"this cannot change in a run: choose another folder{advice}"
        )


def refuse_another_start(
    run_dir: Path, saved: Mapping[str, Any], recipe: Mapping[str, Any], advice: str = ""
) -> None:
    """Refuses to resume a run with a recipe whose fields in `FIXED` differ, as `refuse_changes`."""
    before, now = ({name: one[name] for name in FIXED if name in one} for one in (saved, recipe))
    refuse_changes(run_dir, before, now, advice)


def changed_fields(
    run_dir: Path,
    state: Mapping[str, Any],
    recipe: Mapping[str, Any],
    *,
    accept: bool,
) -> list[str]:
    """Compares the recipe of a run with that of the resumed run.

    Args:
        run_dir: the folder of the run.
        state: its checkpoint.
        recipe: the recipe of the resumed run.
        accept: go on with another recipe, and say so in the log.

    Returns:
        The names of the fields that differ.

    Raises:
        ValueError: if some do and this is not accepted, or the run has made more steps; names the
            differences.
    """
    saved, step = state["recipe"], state["step"]
    changed = _differences(saved, recipe)
    if changed and not accept:
        raise ValueError(
            f"the run in {run_dir} has {_described(changed, 'not')}: give its values, choose "
            "another folder, or go on with these (--accept-changed-recipe, "
            "accept_changed_recipe=True)"
        )
    if "steps" in changed and recipe["steps"] < step:
        raise ValueError(
            f"the run in {run_dir} is at step {step}: steps must be at least that, "
            f"not {recipe['steps']}"
        )
    if changed:
        logger.warning("going on with a changed recipe: %s", _described(changed, "now"))
    return list(changed)


def _differences(
    saved: Mapping[str, Any], current: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    pairs = {name: (saved.get(name), current.get(name)) for name in saved.keys() | current.keys()}
    return {name: pairs[name] for name in sorted(pairs) if pairs[name][0] != pairs[name][1]}


def _described(changed: Mapping[str, tuple[Any, Any]], word: str) -> str:
    pairs = {name: _shown_apart(*values) for name, values in changed.items()}
    return "; ".join(f"{name} {before}, {word} {after}" for name, (before, after) in pairs.items())


def _shown_apart(before: Any, after: Any) -> tuple[str, str]:
    """Shows two values, or where they begin to differ if they look alike when shortened."""
    if shown(before) != shown(after):
        return shown(before), shown(after)
    texts = [value if isinstance(value, str) else repr(value) for value in (before, after)]
    pairs = enumerate(zip(*texts, strict=False))
    common = next((at for at, (one, other) in pairs if one != other), min(map(len, texts)))
    start = max(0, common - _CONTEXT)
    one, other = (shown(f"...{text[start : start + _EXCERPT]}") for text in texts)
    return one, other
