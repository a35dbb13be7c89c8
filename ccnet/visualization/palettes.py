"""Display colours: those of a label set, moved apart until people can tell them apart.

The palettes of data sets were made for files. Seen on a photograph, some of their colours are too
dark, and some are the same to who does not see red, green or blue.

Sources:
    Ottosson, "A perceptual color space for image processing" (OKLab), 2020.
    Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision
    deficiency", IEEE TVCG 2009: full severity.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ccnet.classes import CAMVID, Color, LabelSet

_Values = NDArray[np.float64]

_VISIONS = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
"""What eyes make of linear RGB, by the kind of their vision."""

_CONES = np.array(
    (
        (0.4122214708, 0.5363325363, 0.0514459929),
        (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005),
    )
)
_OKLAB = np.array(
    (
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    )
)

_BEGINNINGS: dict[LabelSet, tuple[Color, ...]] = {
    CAMVID: (
        (102, 204, 255),
        (178, 51, 51),
        (204, 230, 153),
        (140, 75, 150),
        (204, 102, 255),
        (76, 153, 102),
        (255, 165, 20),
        (153, 153, 204),
        (51, 76, 230),
        (255, 51, 51),
        (0, 255, 230),
    ),
}
"""Where to begin instead of the colours of a data set whose own say little: the sky is grey."""

_LIGHTNESS, _CHROMA = (0.5, 0.9), 0.07
"""What stands out from a photograph, in OKLab: neither dark, nor white, nor grey."""

_PURE_BLUE = 0.44, 0.25
"""Lightness and chroma of a darker colour that stands out too, if it is a class's own."""

_ENOUGH, _REACHES = 0.13, (0.3, 0.35, 0.4, 0.5, 0.6)
"""Distances to aim at: one that is enough, and those that n colours allow, times sqrt(n)."""

_NORMAL_FACTOR = 1.4
"""How many times farther apart they are to be for normal vision: other eyes see but a plane."""

_FAITH = 6.0
"""Weight of a squared distance from the original colour, beside collisions of 0..1."""

_SAME, _NEVER = 1e-6, 1e3
"""Distance of equal colours, and the collision of these: as good as forbidden."""

_LEVELS, _MOST_SWEEPS = 11, 20


@lru_cache(maxsize=64)
def display_colors(label_set: LabelSet) -> tuple[Color, ...]:
    """Returns colours for the classes as people are to see them, over a photograph or beside it.

    Each is as near to the class's own colour as it can be with a lightness and a chroma that stand
    out, while all are far enough apart, in normal vision and without red, green or blue cones. A
    black class, such as VOC's background, stays black. The same label set has the same colours on
    every machine; 150 classes take 0.3 s, the first time.

    Args:
        label_set: the classes, with the colours that their files have.
    """
    own = _BEGINNINGS.get(label_set, label_set.colors)
    levels = np.linspace(0, 255, _LEVELS).round()
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    candidates = np.concatenate([np.array(own, dtype=float), grid])
    apart = _distances(candidates)
    strain = _strain(_seen(candidates)["normal"], len(own))
    if own.count((0, 0, 0)) == 1:
        black = own.index((0, 0, 0))
        strain[:, black] = np.inf
        strain[black] = np.inf
        strain[black, black] = 0
    aims = dict.fromkeys(min(_ENOUGH, reach / len(own) ** 0.5) for reach in _REACHES)
    found = [_spread(apart, strain, aim) for aim in aims]
    best = max(found, key=lambda chosen: round(_least(apart[np.ix_(chosen, chosen)]), 4))
    return tuple((int(r), int(g), int(b)) for r, g, b in candidates[best])


def least_differences(colors: Sequence[Color]) -> dict[str, float]:
    """Returns the distance of the two nearest colours in OKLab, by the kind of vision.

    Differences under about 0.02 are hardly seen. For one colour alone it is infinite.
    """
    return {vision: _least(_norms(seen)) for vision, seen in _seen(np.array(colors)).items()}


def _seen(colors: _Values) -> dict[str, _Values]:
    """Brings sRGB colours (N, 3) in 0..255 to OKLab (N, 3) as each kind of vision sees them."""
    values = colors / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    visions = {name: (linear @ np.array(matrix).T).clip(0, 1) for name, matrix in _VISIONS.items()}
    return {name: np.cbrt(rgb @ _CONES.T) @ _OKLAB.T for name, rgb in visions.items()}


def _norms(points: _Values) -> _Values:
    """The distances (N, N) of points (N, 3)."""
    squares = (points**2).sum(axis=1)
    distances: _Values = np.sqrt((squares[:, None] + squares - 2 * points @ points.T).clip(0))
    return distances


def _distances(colors: _Values) -> _Values:
    """The distances (N, N) of colours for who sees them worst."""
    seen = _seen(colors)
    apart = _norms(seen.pop("normal")) / _NORMAL_FACTOR
    for points in seen.values():
        np.minimum(apart, _norms(points), out=apart)
    return apart


def _strain(seen: _Values, classes: int) -> _Values:
    """What each candidate (N, 3) costs each class: (N, classes); infinite for what cannot be shown.

    The first candidates are the own colours of the classes. Of a grey, any hue is as near.
    """
    lightness, chroma = seen[:, 0], np.hypot(seen[:, 1], seen[:, 2])
    darkest, lightest = _LIGHTNESS
    wanted = lightness[:classes].clip(darkest, lightest)
    strain = (lightness[:, None] - wanted) ** 2 / 2
    own = chroma[:classes]
    wider = np.maximum(1, 1.3 * _CHROMA / own.clip(1e-9))
    hues = seen[:classes, 1:] * wider[:, None]
    shifts = ((seen[:, None, 1:] - hues) ** 2).sum(axis=-1)
    strain += np.where(own > 0.03, shifts, 0)
    fits = (lightness >= darkest) & (lightness <= lightest) & (chroma >= _CHROMA)
    fits[:classes] |= (lightness >= _PURE_BLUE[0])[:classes] & (own >= _PURE_BLUE[1])
    return np.where(fits[:, None], _FAITH * strain, np.inf)


def _spread(apart: _Values, strain: _Values, aim: float) -> list[int]:
    """Chooses a candidate for each class in turn, until none has a better one; returns them."""
    collisions = np.where(apart < _SAME, _NEVER, (1 - apart / aim).clip(0) ** 2)
    chosen = strain.argmin(axis=0)
    total = collisions[:, chosen].sum(axis=1)
    for _ in range(_MOST_SWEEPS):
        before = chosen.copy()
        for label, current in enumerate(before):
            rest = total - collisions[:, current]
            chosen[label] = (rest + strain[:, label]).round(6).argmin()
            total = rest + collisions[:, chosen[label]]
        if (chosen == before).all():
            break
    return list(chosen)


def _least(distances: _Values) -> float:
    return float((distances + np.diag([np.inf] * len(distances))).min())
