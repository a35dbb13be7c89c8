"""Colours, RGB in 0..255, that several kinds of objects share; mixing and shading."""

Color = tuple[float, float, float]

WHITE, BLACK, STEEL = (236, 234, 226), (26, 26, 30), (96, 100, 104)
GLASS, TYRE, LIT = (52, 62, 74), (30, 30, 32), (250, 214, 130)
# fmt: off
GREENS = [(70, 104, 46), (92, 118, 52), (52, 88, 50), (108, 120, 56), (136, 112, 48)]
PAINTS = [(168, 32, 34), (36, 66, 130), (214, 216, 218), (40, 42, 46), (138, 144, 150),
          (28, 92, 76), (200, 172, 60), (96, 24, 40), (236, 236, 232)]
CLOTHES = [(40, 48, 82), (150, 44, 46), (60, 62, 64), (206, 184, 140), (58, 110, 92),
           (228, 226, 218), (190, 120, 40), (92, 62, 110), (84, 124, 170)]
SKINS = [(232, 190, 162), (206, 158, 124), (142, 96, 68), (92, 62, 46)]
# fmt: on


def mix(a: Color, b: Color, share: float) -> Color:
    """Interpolates linearly from `a` (share 0) to `b` (share 1)."""
    keep = 1 - share
    return a[0] * keep + b[0] * share, a[1] * keep + b[1] * share, a[2] * keep + b[2] * share


def shade(color: Color, gain: float) -> Color:
    """Multiplies the brightness of a colour by `gain`."""
    return color[0] * gain, color[1] * gain, color[2] * gain
