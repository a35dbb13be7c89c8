"""Measures mIoU against the size of the images that come in: at their own size, and by default.

    python scripts/benchmarks/input_size.py camvid --root CamVid --every 8

Images are enlarged and reduced with Pillow's Lanczos filter; --noise then adds what a camera does.
Predicted labels are resized to the size of the masks, to the nearest pixel. Prints a table in
Markdown.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import ccnet
from ccnet.console import prepare_console
from ccnet.evaluation import Scores, confusion_matrix
from ccnet.evaluation.data import DATASETS, Data, open_data
from ccnet.files import user_path
from ccnet.inference import InferenceProtocol
from ccnet.zoo import NETWORKS

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)

COLUMNS: dict[str, Callable[[ccnet.CCNet], InferenceProtocol]] = {
    "own": lambda model: InferenceProtocol(),
    "default": lambda model: model.default_protocol,
    "unfiltered": lambda model: model.default_protocol.replace(antialias=False),
}
"""What is compared: images at their own size, at the default one, and there without antialias."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("dataset", choices=DATASETS)
    add("--root", type=user_path, help="folder of the data set")
    add("--network", choices=NETWORKS, default="ccnet_resnet18")
    add("--weights", default="DEFAULT")
    add("--factors", type=float, nargs="+", default=FACTORS, help="on the size of the images")
    add("--every", type=int, default=1, metavar="N", help="only every Nth image")
    add("--noise", type=float, default=0.0, metavar="STD", help="in values of 0..255")
    add("--columns", choices=COLUMNS, nargs="+", default=["own", "default"])
    return parser.parse_args()


def resized(image: Tensor, factor: float, noise: float) -> Tensor:
    """Resizes an image (3, H, W), uint8, and adds Gaussian noise of a standard deviation."""
    size = [max(1, round(side * factor)) for side in image.shape[-2:]]
    picture = Image.fromarray(np.ascontiguousarray(image.movedim(0, -1).numpy()))
    if factor != 1:
        picture = picture.resize(size[::-1], Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(picture)).movedim(-1, 0)
    if noise:
        pixels = (pixels + noise * torch.randn(pixels.shape)).round().clamp(0, 255).byte()
    return pixels.contiguous()


def rows(
    model: ccnet.CCNet, data: Data, arguments: argparse.Namespace
) -> Iterator[tuple[str, list[Scores]]]:
    """Yields for each factor the size of the first image, and the scores of each column."""
    count = len(model.label_set)
    protocols = [COLUMNS[name](model) for name in arguments.columns]
    for factor in arguments.factors:
        torch.manual_seed(0)
        size = ""
        totals = [torch.zeros(count, count, dtype=torch.int64) for _ in protocols]
        for index in range(0, len(data.images), arguments.every):
            image, labels = (tensor.as_subclass(Tensor) for tensor in data.images[index])
            pixels = resized(image, factor, arguments.noise)
            size = size or f"{pixels.shape[2]} x {pixels.shape[1]}"
            for protocol, total in zip(protocols, totals, strict=True):
                predicted = model.predict(pixels, protocol, memory_limit=None).colorize()
                nearest = predicted.resize(labels.shape[::-1], Image.Resampling.NEAREST)
                total += confusion_matrix(labels, torch.from_numpy(np.array(nearest)), count)
        yield size, [Scores(total, model.label_set, data.classes) for total in totals]


def main() -> None:
    prepare_console()
    arguments = parse_arguments()
    try:
        data = open_data(arguments.dataset, arguments.root)
        model = NETWORKS[arguments.network](weights=arguments.weights)
        data = data.numbered_as(model.label_set)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    columns = arguments.columns
    print(f"| images of | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}")
    for size, scores in rows(model, data, arguments):
        print(f"| {size} | {' | '.join(f'{one.miou:.1f}' for one in scores)} |", flush=True)


if __name__ == "__main__":
    main()
