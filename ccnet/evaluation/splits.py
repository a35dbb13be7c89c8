"""Splits: the images that published figures are of."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Split:
    """The images of a split.

    Attributes:
        count: the number of images.
        size: height and width of every image; None if they differ.
        groups: as far as known, the number of images by the beginning of their names, up to the
            first "_", such as the city.
        names_sha256: SHA-256 of the sorted names, joined by line breaks; None if it is not known.
        labeled_pixels: the number of pixels with a class; None if it is not known.
    """

    count: int
    size: tuple[int, int] | None = None
    groups: Mapping[str, int] = field(default_factory=dict)
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
        if len(names) != self.count:
            return f"{len(names)} images in place of {self.count}"
        groups = Counter(name.partition("_")[0] for name in names)
        for group, number in self.groups.items():
            if groups[group] != number:
                return f"{groups[group]} images of {group} in place of {number}"
        digest = hashlib.sha256("\n".join(sorted(names)).encode("utf-8", "surrogateescape"))
        if len(set(names)) != self.count or self.names_sha256 not in (None, digest.hexdigest()):
            return "images of other names"
        others = [size for size in sizes if size != self.size]
        if others and self.size:
            return "an image of {} x {} pixels in place of {} x {}".format(*others[0], *self.size)
        known = labeled_pixels is not None and self.labeled_pixels is not None
        if known and labeled_pixels != self.labeled_pixels:
            return f"{labeled_pixels} labelled pixels in place of {self.labeled_pixels}"
        return ""


SPLITS = {
    "ADE20K val": Split(
        2000, names_sha256="ea1c90a7ccd457dda9514cc222d606241e61d58a5ba75215d5ceff95f1557a36"
    ),
    "CamVid val": Split(
        101,
        (360, 480),
        {"0016E5": 101},
        "76fa530e818b0bb8716bb9d9ebfdde4e908e8ee9c8850ff65af4e512bb233481",
        17_155_529,
    ),
    "Cityscapes val": Split(500, (1024, 2048), {"frankfurt": 267, "lindau": 59, "munster": 174}),
    "Pascal VOC 2012 val": Split(1449),
}
"""The splits of the registry's figures, by their names there."""
