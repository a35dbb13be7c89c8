"""Draws which positions one pixel attends to, after each loop of criss-cross attention.

    ccnet attention street.jpg --pixel 190 80 --output attention.png

Panels, from left to right: the image with a ring around the pixel; for every number of loops, the
attention weight of each position of the feature map; the prediction. The weights are those of the
composed loops, without residuals and projections: one loop reaches the pixel's row and column, two
reach every position. The colour scale is logarithmic; grey means a weight of 0.

Without an image, a street scene is rendered. The image is processed as a whole: one that would take
more memory than --memory-limit is refused.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import ccnet
from ccnet import attention_map
from ccnet.command_line import ArgumentParser
from ccnet.console import prepare_console, printable
from ccnet.datasets.street_scenes import StreetScenes
from ccnet.distributed import usable_device
from ccnet.files import atomic_write, user_path
from ccnet.images import decode_image
from ccnet.inference.memory import DEFAULT_LIMIT
from ccnet.visualization import (
    HEAT_DECADES,
    capture_queries_and_keys,
    heat_colors,
    heat_overlay,
    map_position,
    mark_pixel,
)
from ccnet.zoo import NETWORK_NAMES, find_builder

DEMO_SEED = 20181128
"""Seed of the rendered scene. Training uses small seeds, so no network was trained on it."""

MOST_WIDTH = 4096
"""Of a panel, in pixels."""

INK, GAP = "#222222", 12
NUMBERS = ("no", "one", "two", "three", "four", "five")


def parse_arguments(
    argv: Sequence[str] | None = None, prog: str | None = None
) -> argparse.Namespace:
    parser = ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", nargs="?", type=user_path, help="path of an image")
    parser.add_argument(
        "--pixel",
        type=int,
        nargs=2,
        metavar=("ROW", "COLUMN"),
        help="counted from 0 at the top left, row (y) before column (x) (default: the centre)",
    )
    parser.add_argument(
        "--output", type=user_path, default=Path("attention.png"), help="output figure"
    )
    parser.add_argument("--network", default="ccnet_resnet18", metavar="NAME", help=NETWORK_NAMES)
    parser.add_argument("--weights", default="DEFAULT", help="name, path or hf:// address")
    parser.add_argument("--recurrence", type=int, help="attention loops (default: the weights')")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--panel-width", type=int, default=480, help="width of a panel in pixels")
    parser.add_argument(
        "--memory-limit",
        type=float,
        default=DEFAULT_LIMIT,
        metavar="GIB",
        help="what the image may take, as estimated from its size (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    if not 16 <= arguments.panel_width <= MOST_WIDTH:
        parser.error(f"--panel-width must be 16 to {MOST_WIDTH}, not {arguments.panel_width}")
    if arguments.image and same_file(arguments.image, arguments.output):
        parser.error(f"--output {arguments.output} is the image itself")
    return arguments


def same_file(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)


def look(
    model: ccnet.CCNet,
    image: Tensor,
    pixel: Sequence[int],
    memory_limit: float = DEFAULT_LIMIT,
) -> tuple[ccnet.Segmentation, list[Tensor]]:
    """Segments an image, and maps the attention of a pixel after one loop, two, and so on.

    Args:
        model: a network with attention.
        image: (3, H, W), uint8, RGB.
        pixel: row and column.
        memory_limit: GiB that the image may take, as estimated from its size.

    Returns:
        The segmentation, and an attention map (h, w), float64, of sum 1 for each number of loops.

    Raises:
        ValueError: if the network has no attention, the pixel is outside the image, or the image is
            beyond the limit.
    """
    height, width = image.shape[-2:]
    seen = model.default_protocol.view_size((height, width))
    with capture_queries_and_keys(model.head.cca) as loops:
        # In one window, for which no others are taken.
        result = model.predict(image, mode="slide", crop=seen, memory_limit=memory_limit)
    position = map_position(pixel, image.shape[-2:], loops[0][0].shape[-2:])
    counts = range(1, len(loops) + 1)
    return result, [attention_map(loops[:count], position)[0] for count in counts]


def draw(
    result: ccnet.Segmentation, maps: Sequence[Tensor], pixel: Sequence[int], width: int
) -> Image.Image:
    """Draws the figure: a row of panels with titles above and a colour bar below."""
    row, column = pixel
    picture = Image.fromarray(np.ascontiguousarray(result.image.movedim(0, -1).numpy()))
    scale = width / picture.width
    panels = {f"pixel at row {row}, column {column}": picture}
    for count, weights in enumerate(maps, start=1):
        number = NUMBERS[count] if count < len(NUMBERS) else str(count)
        title = f"attention after {number} loop{'s' if count > 1 else ''}"
        panels[title] = heat_overlay(result.image, weights)
    panels["prediction"] = result.overlay()
    size = width, max(1, round(picture.height * scale))
    font = ImageFont.load_default(width / 24)
    line = round(width / 14)
    sheet = Image.new(
        "RGB", (len(panels) * (width + GAP) - GAP, line + size[1] + GAP + 2 * line), "white"
    )
    draw_on = ImageDraw.Draw(sheet)
    for index, (title, panel) in enumerate(panels.items()):
        left = index * (width + GAP)
        panel = panel.resize(size, Image.Resampling.LANCZOS)
        if title != "prediction":
            panel = mark_pixel(panel, [(at + 0.5) * scale for at in pixel])
        sheet.paste(panel, (left, line))
        draw_on.text((left, line / 2), title, INK, font, anchor="lm")
    top = line + size[1] + GAP
    draw_on.text((width, top + line / 4), "share of the attention", INK, font, anchor="rm")
    sheet.paste(scale_bar(len(maps) * (width + GAP) - GAP, line, font), (width + GAP, top))
    return sheet


def scale_bar(
    width: int, line: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> Image.Image:
    """Draws the colour bar of attention weights with its labels, two lines high."""
    bar = Image.new("RGB", (width, 2 * line), "white")
    levels = np.tile(np.linspace(0, 1, width), (line // 2, 1))
    bar.paste(Image.fromarray(heat_colors(levels)))
    draw_on = ImageDraw.Draw(bar)
    for third, anchor in enumerate(("lm", "mm", "mm", "rm")):
        percent = f"{100 * 10 ** (HEAT_DECADES * (third / 3 - 1)):g} %"
        position = third / 3 * (width - 1), 1.1 * line
        draw_on.text(position, percent if third else f"< {percent}", INK, font, anchor=anchor)
    return bar


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    prepare_console()
    arguments = parse_arguments(argv, prog)
    try:
        image = decode_image(arguments.image or StreetScenes(1, seed=DEMO_SEED)[0][0])
        pixel = arguments.pixel or [side // 2 for side in image.shape[-2:]]
        network = find_builder(arguments.network)
        model = network(weights=arguments.weights, recurrence=arguments.recurrence)
        model = model.to(usable_device(arguments.device))
        result, maps = look(model, image, pixel, arguments.memory_limit)
        figure = draw(result, maps, pixel, arguments.panel_width)
        with atomic_write(arguments.output) as temporary:
            figure.save(temporary, optimize=True)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    category = printable(result.categories[int(result.labels[tuple(pixel)])])
    print(f"{printable(arguments.output)}: row {pixel[0]}, column {pixel[1]}: {category}")
    for count, weights in enumerate(maps, start=1):
        order = weights.flatten().sort(descending=True).values
        most = int((order.cumsum(0) < 0.9).sum()) + 1
        print(f"  loops {count}: 90 % of the attention on {most} of {order.numel()} positions")
