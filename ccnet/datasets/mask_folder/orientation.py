"""Orientation: how masks are turned to fit images that EXIF turns upright."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ccnet.datasets.label_maps import turned_size
from ccnet.datasets.mask_folder.classes_file import ORIENTATION, ORIENTATIONS, ClassesFile
from ccnet.datasets.mask_folder.pairing import Pairs
from ccnet.datasets.mask_folder.survey import FileFacts


def orient(pairs: Pairs, facts: Mapping[Path, FileFacts], described: ClassesFile) -> list[int]:
    """Finds the EXIF orientation that turns each mask as its image.

    A mask is drawn on the upright image, and turned only by an orientation of its own; or it is
    drawn on the stored pixels, and turned as the image. Where the sizes fit only one of both, that
    is it. Where they fit both, it is what is chosen, else what fits the others, else the former.
    Adds to the pairs' problems and notes.

    Args:
        pairs: images and masks.
        facts: about both.
        described: what `classes.json` says.

    Returns:
        An EXIF orientation for each pair.
    """
    fitting = [_fitting(facts[image], facts[mask]) for _, image, mask in pairs.files]
    evidence = Counter(next(iter(fits)) for fits in fitting if len(fits) == 1)
    open_cases = sum(len(set(fits.values())) == 2 for fits in fitting)
    usual = next(iter(evidence)) if len(evidence) == 1 else ORIENTATIONS[0]
    usual = described.orientation or usual
    if open_cases and described.orientation is None:
        (other,) = set(ORIENTATIONS) - {usual}
        pairs.notes.append(
            f"{open_cases} of {len(fitting)} images are turned or mirrored by an EXIF orientation "
            "that their masks do not share, and sizes do not tell whether masks are drawn on the "
            f'upright image or on the stored pixels: taken as "{usual}"; give '
            f'{described.changed(**{ORIENTATION: usual})}, or "{other}" there'
        )
    turns = []
    for fits, (_, image, mask) in zip(fitting, pairs.files, strict=True):
        if not fits and not (facts[image].problem or facts[mask].problem):
            pairs.problems["size"].append(_misfit(image, mask, facts))
        turns.append(fits.get(usual) or next(iter(fits.values()), 1))
    return turns


def _fitting(image: FileFacts, mask: FileFacts) -> dict[str, int]:
    """The orientations that the mask may be turned by; one name if only one of them fits."""
    turns = dict(zip(ORIENTATIONS, (mask.orientation, image.orientation), strict=True))
    upright = turned_size(image.size, image.orientation)
    return {name: turn for name, turn in turns.items() if turned_size(mask.size, turn) == upright}


def _misfit(image: Path, mask: Path, facts: Mapping[Path, FileFacts]) -> str:
    sizes = []
    for path in (image, mask):
        size, turn = facts[path].size, facts[path].orientation
        upright = turned_size(size, turn)
        pixels = f"{upright[1]} x {upright[0]} pixels"
        sizes.append(pixels if turn == 1 else f"{pixels} by its EXIF orientation {turn}")
    return (
        f"{image} has {sizes[0]}, its mask {sizes[1]}: a mask of another size is to be resized "
        "without mixing numbers (nearest neighbour)"
    )
