"""Weather: colours of sky and light, and rendering of the sky."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from ccnet.datasets.street_scenes.colors import WHITE, Color, mix
from ccnet.datasets.street_scenes.sampling import smooth_noise
from ccnet.datasets.street_scenes.world import SKY


class Weather(NamedTuple):
    """Colours of sky and light; `ambient`, `cloud` and `lit` are fractions in 0..1."""

    zenith: Color
    horizon: Color
    cast: Color  # gain per channel
    ambient: float  # fraction of the light that is diffuse
    cloud: float
    lit: float  # fraction of the windows that are lit


SUNNY = Weather((84, 136, 206), (204, 222, 238), (1.1, 1.09, 1.04), 0.58, 0.45, 0.02)
OVERCAST = Weather((176, 184, 194), (218, 220, 222), (1.0, 1.02, 1.05), 0.86, 0.9, 0.08)
DUSK = Weather((66, 76, 122), (236, 176, 146), (0.84, 0.78, 0.86), 0.82, 0.5, 0.5)
LOW_SUN = Weather((116, 156, 208), (250, 226, 184), (1.12, 1.03, 0.9), 0.5, 0.35, 0.1)
WEATHERS = [SUNNY, SUNNY, OVERCAST, DUSK, LOW_SUN]  # sunny weather is twice as likely


def draw_sky(
    rng: np.random.Generator, weather: Weather, size: tuple[int, int], horizon: float
) -> Image.Image:
    """Renders the sky as an RGBA image whose fourth channel is its label.

    Args:
        rng: random generator of the clouds and the position of the glow.
        weather: the colours and the fraction of clouds.
        size: height and width of the image, in pixels.
        horizon: the image row of the horizon.
    """
    small = (72, 96)  # a low resolution suffices; resized to `size` at the end
    rise = np.linspace(0, 1, small[0], dtype=np.float32)[:, None, None]
    blend = np.clip(rise * size[0] / horizon, 0, 1) ** 0.8
    sky = np.array(weather.zenith) * (1 - blend) + np.array(weather.horizon) * blend
    cover = np.zeros(small, np.float32)
    for n in (2, 4, 8, 16):
        cover += smooth_noise(rng, (4 * n, 2 * n), small) / n**0.7
    opacity = np.clip(cover[..., None] * 1.3 + weather.cloud - 0.5, 0, 0.85) * rng.uniform(0.5, 1)
    clouds = np.array(mix(weather.horizon, WHITE, 0.5))
    sky = sky + (clouds - sky) * opacity  # broadcasts one column to all
    glow = rng.uniform(0.1, 0.9) - np.linspace(0, 1, small[1])[None, :, None]
    sky += 40 * (1 - weather.ambient) * np.exp(-9 * (glow**2 + (1 - blend) ** 2))
    picture = Image.fromarray(sky.clip(0, 255).astype(np.uint8))
    picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
    picture.putalpha(SKY)
    return picture
