"""Splits: the images that published figures are of."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Split:
    """The images of a split.

    Attributes:
        groups: the number of images by the beginning of their names, up to the first "_": the
            recorded drive, or the city.
        size: height and width of every image.
        names_sha256: SHA-256 of the sorted names, joined by line breaks; None if it is not known.
        labeled_pixels: the number of pixels with a class; None if it is not known.
    """

    groups: Mapping[str, int]
    size: tuple[int, int]
    names_sha256: str | None = None
    labeled_pixels: int | None = None

    def misfit(
        self,
        names: Sequence[str],
        sizes: Collection[tuple[int, int]] = (),
        labeled_pixels: int | None = None,
    ) -> str:
        """Says how images differ from those of the split; empty if they do not.

        Args:
            names: of all images.
            sizes: the heights and widths that occur.
            labeled_pixels: the number of pixels with a class; None if it is not known.
        """
        count = sum(self.groups.values())
        if len(names) != count:
            return f"{len(names)} images in place of {count}"
        groups = Counter(name.partition("_")[0] for name in names)
        for group, number in self.groups.items():
            if groups[group] != number:
                return f"{groups[group]} images of {group} in place of {number}"
        digest = hashlib.sha256("\n".join(sorted(names)).encode("utf-8", "surrogateescape"))
        if len(set(names)) != count or self.names_sha256 not in (None, digest.hexdigest()):
            return "images of other names"
        others = [size for size in sizes if size != self.size]
        if others:
            return "an image of {} x {} pixels in place of {} x {}".format(*others[0], *self.size)
        known = labeled_pixels is not None and self.labeled_pixels is not None
        if known and labeled_pixels != self.labeled_pixels:
            return f"{labeled_pixels} labelled pixels in place of {self.labeled_pixels}"
        return ""


SPLITS = {
    "CamVid val": Split(
        {"0016E5": 101},
        (360, 480),
        "76fa530e818b0bb8716bb9d9ebfdde4e908e8ee9c8850ff65af4e512bb233481",
        17_155_529,
    ),
    "Cityscapes val": Split({"frankfurt": 267, "lindau": 59, "munster": 174}, (1024, 2048)),
}
"""The splits of the registry's figures, by their names there."""
