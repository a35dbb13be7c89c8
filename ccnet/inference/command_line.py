"""Command-line options of an inference protocol."""

import argparse
from collections.abc import Callable
from typing import Any, TypeVar

from ccnet.inference.protocol import AVERAGES, MODES, PRECISIONS

OWN_SIZE = "none"
"""What is given for `fit=None`: the image's own size."""

_OPTIONS = "inference options"

Number = TypeVar("Number", int, float)


def add_protocol_options(parser: argparse.ArgumentParser, title: str) -> None:
    """Adds an option for every field of `InferenceProtocol`, in a group with this title."""
    add = parser.add_argument_group(title).add_argument
    options = [
        add("--mode", choices=MODES, help="whole image or sliding windows"),
        add("--crop", type=_size, metavar="H,W", help="window size in pixels (default: 769)"),
        add("--stride", type=_size, metavar="H,W", help="window stride (default: 2/3 of the crop)"),
        add("--overlap", type=float, help="fraction of the crop, instead of --stride"),
        add("--fit", type=_box, metavar="LONG,SHORT", help=f"resize to just fit, or {OWN_SIZE}"),
        add("--antialias", action=argparse.BooleanOptionalAction, help="low-pass filter for that"),
        add("--scales", type=_numbers, metavar="S,S,...", help="factors on that size"),
        add("--flip", action=argparse.BooleanOptionalAction, help="average with the flipped image"),
        add("--average", choices=AVERAGES, help="what to average over scales and flips"),
        add("--window-batch", type=int, metavar="N", help="batch size of windows"),
        add("--precision", choices=PRECISIONS, help="float32, or bfloat16 autocast"),
    ]
    parser.set_defaults(**{_OPTIONS: [option.dest for option in options]})


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the fields of `InferenceProtocol` that the command line gave."""
    given = {name: getattr(arguments, name) for name in getattr(arguments, _OPTIONS)}
    given = {name: value for name, value in given.items() if value is not None}
    return {name: None if value == OWN_SIZE else value for name, value in given.items()}


def _size(text: str) -> list[int] | int:
    sides = _read(int, text, "one side, or height and width, such as 480,640")
    return sides if len(sides) > 1 else sides[0]


def _box(text: str) -> list[int] | int | str:
    if text == OWN_SIZE:
        return text
    sides = _read(int, text, f"long and short side, such as 480,360, or {OWN_SIZE}")
    return sides if len(sides) > 1 else sides[0]


def _numbers(text: str) -> list[float]:
    return _read(float, text, "numbers, such as 0.75,1.0")


def _read(kind: Callable[[str], Number], text: str, meant: str) -> list[Number]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be {meant}, not {text!r}") from None
