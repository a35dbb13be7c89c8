"""Draws which positions one pixel attends to, after each loop of criss-cross attention.

    ccnet attention street.jpg --pixel 190 80 --output attention.png

Panels: the image with a ring around the pixel; the prediction; for every number of loops, the
attention weight of each position of the feature map, with the strongest sources, their share and
class, and the way of the strongest. The weights are those of the composed loops, without residuals
and projections: one loop reaches the pixel's row and column, two reach every position.

Without an image, a street scene is rendered. The image is processed as a whole: one that would take
more memory than --memory-limit is refused.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch

from ccnet.command_line import ArgumentParser
from ccnet.console import prepare_console, printable
from ccnet.datasets.street_scenes import StreetScenes
from ccnet.distributed import usable_device
from ccnet.files import atomic_write, user_path
from ccnet.images import decode_image
from ccnet.inference.marked_png import save_marked
from ccnet.inference.memory import DEFAULT_LIMIT
from ccnet.visualization import HeatScale, draw_attention, notable_sources, record_attention
from ccnet.zoo import NETWORK_NAMES, find_builder

DEMO_SEED = 20181128
"""Seed of the rendered scene. Training uses small seeds, so no network was trained on it."""

MOST_WIDTH = 4096
"""Of a panel, in pixels."""


SUFFIXES = (".png", ".webp", ".jpg", ".jpeg")
"""Of figures."""


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
    parser.add_argument(
        "--scale",
        choices=get_args(HeatScale),
        default="logarithmic",
        help="of the colours: logarithmic shows small shares too (default: %(default)s)",
    )
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
    if arguments.image and arguments.image.is_dir():
        parser.error(f"{arguments.image} is a folder: give one picture of it")
    if arguments.image and same_file(arguments.image, arguments.output):
        parser.error(f"--output {arguments.output} is the image itself")
    return arguments


def check_output(path: Path) -> None:
    """Raises ValueError unless a figure can be written to such a path."""
    if path.is_dir() or path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--output must be a file that ends in {', '.join(SUFFIXES)}, not {path}")


def same_file(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    prepare_console()
    arguments = parse_arguments(argv, prog)
    try:
        check_output(arguments.output)
        image = decode_image(arguments.image or StreetScenes(1, seed=DEMO_SEED)[0][0])
        pixel = arguments.pixel or [side // 2 for side in image.shape[-2:]]
        network = find_builder(arguments.network)
        model = network(weights=arguments.weights, recurrence=arguments.recurrence)
        model = model.to(usable_device(arguments.device))
        record = record_attention(model, image, arguments.memory_limit)
        figure = draw_attention(record, pixel, scale=arguments.scale, width=arguments.panel_width)
        if arguments.output.suffix.lower() == ".png":
            save_marked(figure, arguments.output, optimize=True)  # no picture to segment
        else:
            with atomic_write(arguments.output) as temporary:
                figure.save(temporary)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    category = printable(record.category(pixel))
    print(f"{printable(arguments.output)}: row {pixel[0]}, column {pixel[1]}: {category}")
    for count, weights in enumerate(record.maps(pixel), start=1):
        order = weights.flatten().sort(descending=True).values
        most = int((order.cumsum(0) < 0.9).sum()) + 1
        print(f"  loops {count}: 90 % of the attention on {most} of {order.numel()} positions")
        for source in notable_sources(weights):
            row, column = record.pixel(source.position)
            name = printable(record.category((row, column)))
            print(f"    {source.share:.1%} from near row {row}, column {column}: {name}")
