"""Measures mIoU on a data set: whole images, at their own size.

python scripts/evaluate.py camvid --root CamVid
python scripts/evaluate.py street-scenes
"""

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from ccnet.datasets import CamVid
from ccnet.evaluation import evaluate
from ccnet.street_scenes import StreetScenes
from ccnet.zoo import NETWORKS

UNSEEN_SEED = 1_000_000
"""Of the rendered scenes. Training uses small seeds, so no network has seen them."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=("camvid", "street-scenes"))
    parser.add_argument("--root", type=Path, default=os.environ.get("CAMVID_ROOT"))
    parser.add_argument("--split", default="val")
    parser.add_argument("--network", choices=NETWORKS, default="ccnet_resnet18")
    parser.add_argument("--weights", default="DEFAULT", help="a name, or the path of a file")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    samples: Iterable[tuple[Tensor, Tensor]]
    if arguments.dataset == "street-scenes":
        samples = StreetScenes(100, seed=UNSEEN_SEED)  # type: ignore[assignment]
    elif arguments.root is None:
        raise SystemExit("name the folder of CamVid: --root, or the variable CAMVID_ROOT")
    else:
        samples = CamVid(arguments.root, arguments.split)  # type: ignore[assignment]
    model = NETWORKS[arguments.network](weights=arguments.weights).to(arguments.device)
    scores = evaluate(model, samples)
    print(scores.table())
    print(f"\npixel accuracy {scores.pixel_accuracy:.2f} %")


if __name__ == "__main__":
    main()
