"""Segments pictures, or, without one, a rendered street whose labels are known.

    python scripts/predict.py street.jpg --output results

Writes two PNGs for each picture: NAME.overlay.png, the classes over the picture, and
NAME.labels.png, whose pixel values are the classes and whose palette is their colours.
"""

import argparse
import time
from pathlib import Path

import torch
from torchvision.transforms.v2.functional import to_pil_image

import ccnet
from ccnet.classes import CAMVID
from ccnet.evaluation import Scores, confusion_matrix
from ccnet.files import atomic_write
from ccnet.street_scenes import StreetScenes
from ccnet.zoo import NETWORKS

DEMO_SEED = 20181128
"""Of the rendered street. Training uses small seeds, so no network has seen it."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", type=Path, help="pictures of streets")
    parser.add_argument("--output", type=Path, default=Path(), help="folder of the results")
    parser.add_argument("--network", choices=NETWORKS, default="ccnet_resnet18")
    parser.add_argument("--weights", default="DEFAULT", help="a name, or the path of a file")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def segment(model: ccnet.CCNet, image: Path, output: Path) -> ccnet.Segmentation:
    start = time.perf_counter()
    result = model.predict(image)
    seconds = time.perf_counter() - start
    overlay_path, labels_path = (
        output.with_name(f"{output.name}.{kind}.png") for kind in ("overlay", "labels")
    )
    with atomic_write(overlay_path) as temporary:
        result.overlay().save(temporary)
    result.save(labels_path)
    height, width = result.labels.shape
    print(f"{output.name}: {width} x {height} pixels in {seconds:.2f} s")
    for name, share in result.shares().items():
        print(f"  {name:<14}{100 * share:5.1f} %")
    print(f"  picture     {image}\n  overlay     {overlay_path}\n  colour map  {labels_path}")
    return result


def main() -> None:
    arguments = parse_arguments()
    model = NETWORKS[arguments.network](weights=arguments.weights).to(arguments.device)
    for path in arguments.images:
        try:
            segment(model, path, arguments.output / path.stem)
        except (FileNotFoundError, ValueError) as error:
            raise SystemExit(f"error: {error}") from error
    if not arguments.images:
        scene, labels = StreetScenes(1, seed=DEMO_SEED)[0]
        picture = arguments.output / "rendered-street.png"
        with atomic_write(picture) as temporary:
            to_pil_image(scene).save(temporary)
        result = segment(model, picture, arguments.output / "rendered-street")
        if model.label_set.categories == CAMVID.categories:
            confusion = confusion_matrix(labels, result.labels, len(CAMVID))
            scores = Scores(confusion, CAMVID)
            print(
                f"  against the rendered labels: pixel accuracy {scores.pixel_accuracy:.1f} %, "
                f"mIoU {scores.miou:.1f} %"
            )


if __name__ == "__main__":
    main()
