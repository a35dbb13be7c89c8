"""Trains a CCNet by a named recipe.

    python scripts/train.py camvid-r18 --camvid CamVid --run-dir runs/camvid-r18

Every field of the recipe can be given on the command line, as in --steps 4000.
"""

import argparse
import dataclasses
import logging
import os
from pathlib import Path

import torch
from torch.utils.data import Dataset

from ccnet.datasets import CamVid, Sample
from ccnet.model import CCNet
from ccnet.serialization import load_strictly, read_weights
from ccnet.street_scenes import StreetScenes
from ccnet.training.engine import Trainer
from ccnet.training.recipes import RECIPES, Recipe


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="take up the run in that folder")
    parser.add_argument("--weights", type=Path, help="start from these .safetensors")
    parser.add_argument("--camvid", type=Path, default=os.environ.get("CAMVID_ROOT"))
    parser.add_argument("--workers", type=int, default=1, help="processes that load data")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    fields = parser.add_argument_group("fields of the recipe")
    for field in dataclasses.fields(Recipe):
        flag = f"--{field.name.replace('_', '-')}"
        if field.type is bool:
            fields.add_argument(flag, action=argparse.BooleanOptionalAction)
        else:
            fields.add_argument(flag, type=field.type)  # type: ignore[arg-type]
    return parser.parse_args()


def open_datasets(recipe: Recipe, camvid: Path | None) -> tuple[Dataset[Sample], Dataset[Sample]]:
    if recipe.dataset == "street-scenes":
        return StreetScenes(400, seed=recipe.seed), StreetScenes(50, seed=recipe.seed + 1)
    if camvid is None:
        raise SystemExit("name the folder of CamVid: --camvid, or the variable CAMVID_ROOT")
    return CamVid(camvid, "train"), CamVid(camvid, "val")


def main() -> None:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Recipe)}
    recipe = dataclasses.replace(
        RECIPES[arguments.recipe],
        **{name: value for name, value in given.items() if value is not None},
    )
    for name, value in dataclasses.asdict(recipe).items():
        logging.info("%s: %s", name, value)
    train_set, val_set = open_datasets(recipe, arguments.camvid)
    torch.manual_seed(recipe.seed)
    model = CCNet(
        recipe.backbone,
        num_classes=11,
        recurrence=recipe.recurrence,
        backbone_options={"output_stride": recipe.output_stride},
        label_set="camvid",
    )
    if arguments.weights:
        load_strictly(model, read_weights(arguments.weights)[0])
    trainer = Trainer(
        model.to(arguments.device),
        train_set,
        val_set,
        recipe,
        arguments.run_dir,
        workers=arguments.workers,
        resume=arguments.resume,
    )
    print(trainer.run().table())


if __name__ == "__main__":
    main()
