"""Contract: what an exported file takes and gives, and of what it was made, in its metadata."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ccnet.classes import LabelSet
from ccnet.inference.prediction import TRAINING_SIZE
from ccnet.inference.protocol import Size
from ccnet.schema import check, integer, mapping, number, one_of, reason_of, several
from ccnet.transforms import Preprocessing

KEY = "ccnet"
"""The entry of a file's metadata that holds the contract, in JSON."""

INPUT = "image"
"""The name of a file's input."""

LOGITS, LABELS = "logits", "labels"
"""What a file may give, and the name of its output."""

_LAYOUTS = {
    LOGITS: (
        {"layout": "NCHW", "dtype": "float32", "values": "(pixels - mean) / std"},
        {"layout": "NKHW", "dtype": "float32"},
    ),
    LABELS: (
        {"layout": "NHWC", "dtype": "uint8", "values": "pixels, 0..255"},
        {"layout": "NHW", "dtype": "uint8"},
    ),
}
"""What the metadata says of input and output."""

INT8 = "int8"
"""The precision, in `origin`, of files whose convolutions compute in 8-bit integers."""

AXES = ("batch", "height", "width")
ANY_SIZE = ((1, 1024), (33, 8192), (33, 8192))
"""Smallest and largest number, height and width of pictures, unless a file is made for one size.

The smallest map, of a network of stride 32, then has two rows and columns: PyTorch makes another
program of sizes of 1.
"""

_BOUNDS = several(2, 2, integer(1, 2**16))
_RULES = {
    "output": one_of(LOGITS, LABELS),
    "label_set": mapping(),
    "preprocessing": mapping(),
    **dict.fromkeys(AXES, _BOUNDS),
    "training_size": TRAINING_SIZE,
    "numbers_per_pixel": number(0, 2**32),
}


@dataclass(frozen=True)
class Contract:
    """What an exported file takes and gives, and of what it was made.

    Attributes:
        output: "logits", of normalised float32 pictures (N, C, H, W), or "labels", of the pictures
            themselves (N, H, W, C), uint8.
        label_set: the K classes.
        preprocessing: from the pictures to the normalised ones.
        sizes: smallest and largest number, height and width of the pictures in a batch.
        training_size: height and width of the images that the network learnt from; None if unknown.
        numbers_per_pixel: that a forward pass holds at its peak: see `inference.footprint`.
        origin: facts about the network that was exported, JSON-able.
    """

    output: str
    label_set: LabelSet
    preprocessing: Preprocessing
    sizes: tuple[tuple[int, int], ...] = ANY_SIZE
    training_size: Size | None = None
    numbers_per_pixel: float = 0.0
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def takes_pictures(self) -> bool:
        """Whether preprocessing is part of the file, which gives labels."""
        return self.output == LABELS

    @property
    def is_in_integers(self) -> bool:
        """Whether convolutions compute in 8-bit integers."""
        return self.origin.get("precision") == INT8

    def check_size(self, *size: int) -> None:
        """Checks number, height and width of the pictures in a batch.

        Raises:
            ValueError: if the file does not take them; says what it takes.
        """
        if any(not low <= n <= high for n, (low, high) in zip(size, self.sizes, strict=True)):
            batch, height, width = map(_shown, self.sizes)
            raise ValueError(
                f"the file takes batches of {batch} pictures, {width} pixels wide and {height} "
                f"high, not {size[0]} of {size[2]} x {size[1]}"
            )

    def to_text(self) -> str:
        """Returns JSON that `from_text` reads, and from which other programs learn all they need.

        It is an object with "input" (its name, layout, dtype, number of channels, what its values
        are, and the sizes that are taken), "output" likewise, "label_set" (`categories`, `colors`,
        `label_ids`), "preprocessing" (`mean`, `std`, `channel_order`), and the other fields of this
        class under their names.
        """
        input_layout, output_layout = _LAYOUTS[self.output]
        sizes = {axis: list(bounds) for axis, bounds in zip(AXES, self.sizes, strict=True)}
        channels = self.preprocessing.channels
        content = {
            "input": {"name": INPUT, **input_layout, "channels": channels, **sizes},
            "output": {"name": self.output, **output_layout},
            "label_set": self.label_set.to_config(),
            "preprocessing": self.preprocessing.to_config(),
            "training_size": self.training_size,
            "numbers_per_pixel": self.numbers_per_pixel,
            "origin": dict(self.origin),
        }
        return json.dumps(content)

    @classmethod
    def from_text(cls, text: str | None) -> "Contract":
        """Reads what `to_text` wrote.

        Raises:
            ValueError: if it is anything else, or None, as in a file that has no contract.
        """
        if text is None:
            raise ValueError(f"its metadata has no {KEY!r}: ccnet export did not write it")
        try:
            content = json.loads(text)
            taken = content["input"]
            content |= {"output": content["output"]["name"], **{axis: taken[axis] for axis in AXES}}
            check(content, _RULES)
            mean = content["preprocessing"]["mean"]
            size = content["training_size"]
            return cls(
                content["output"],
                LabelSet.from_config(content["label_set"]),
                Preprocessing.from_config(
                    content["preprocessing"], Preprocessing().for_channels(len(mean))
                ),
                tuple((content[axis][0], content[axis][1]) for axis in AXES),
                None if size is None else (size[0], size[1]),
                content["numbers_per_pixel"],
                dict(content["origin"]),
            )
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"its metadata {KEY!r} is damaged: {reason_of(error)}") from error


def _shown(bounds: tuple[int, int]) -> str:
    low, high = bounds
    return f"{low}" if low == high else f"{low} to {high}"
