"""Command lines: an unknown option is named, together with the nearest one that there is."""

import argparse
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

SYNONYMS = {
    **dict.fromkeys(("epochs", "max-epochs", "num-epochs", "iterations", "iters"), ("steps",)),
    "lr": ("learning-rate",),
    "bs": ("batch-size",),
    "wd": ("weight-decay",),
    **dict.fromkeys(("early-stopping", "early-stop"), ("patience",)),
    **dict.fromkeys(("logger", "wandb", "tensorboard"), ("tracker",)),
    **dict.fromkeys(("amp", "fp16", "bf16", "half"), ("precision",)),
    **dict.fromkeys(("gpu", "gpus", "cuda"), ("device",)),
    **dict.fromkeys(("data-dir", "data-root", "data-path", "dir"), ("root",)),
    **dict.fromkeys(("model", "arch"), ("network", "backbone")),
    **dict.fromkeys(("checkpoint", "ckpt", "pretrained"), ("weights",)),
    **dict.fromkeys(("size", "image-size", "img-size", "imgsz"), ("fit", "crop-height")),
    **dict.fromkeys(("output-dir", "out-dir", "save-dir", "work-dir"), ("run-dir", "output")),
}
"""What other programs call an option: its names here, of which a command has one or none."""


class ArgumentParser(argparse.ArgumentParser):
    """Parser whose error for unknown options names the nearest ones, and what they are."""

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """Parses arguments; ends the program where they are wrong."""
        parsed: argparse.Namespace
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            options = {
                name[2:]: action.help or ""
                for name, action in self._option_string_actions.items()
                if name.startswith("--")
            }
            words = [re.sub("=.*", "", word, flags=re.DOTALL) for word in unknown]
            found = [_nearest(word, options) for word in words if word.startswith("-")]
            meant = ", ".join(dict.fromkeys(filter(None, found)))
            advice = f"did you mean {meant}?" if meant else "--help lists the options"
            self.error(f"unrecognized arguments: {' '.join(unknown)}: {advice}")
        return parsed


def _nearest(word: str, options: Mapping[str, str]) -> str:
    """Returns the option that a word may mean, with the start of its help; "" for none."""
    name = word.strip("-").replace("_", "-").lower()
    synonyms = [one for one in SYNONYMS.get(name, ()) if one in options]
    for found in [*synonyms, *get_close_matches(name, options, 1)]:
        text = re.split(r"[.,:;(]", options[found].replace("%%", "%"))[0].strip()
        return f"--{found} ({text})" if text else f"--{found}"
    return ""
