r"""Trains a CCNet with a named recipe, on one process or on several under torchrun.

    python scripts/train.py street-scenes-r18 --run-dir runs/scenes
    python scripts/train.py finetune --root my-data --run-dir runs/mine
    torchrun --nproc-per-node 4 scripts/train.py cityscapes-r101 --root cityscapes \
        --run-dir runs/r101 --resume auto

Every field of the recipe is an option, such as --steps 4000. They are described in the class Recipe
of ccnet.training.recipes.
"""

import argparse
import dataclasses
import logging
import os
import shlex
import sys

import torch

import ccnet
from ccnet import distributed
from ccnet.console import prepare_console
from ccnet.files import user_path
from ccnet.locks import FolderLock
from ccnet.training.command_line import (
    add_recipe_options,
    add_run_options,
    given_fields,
    run_script,
)
from ccnet.training.engine import Trainer
from ccnet.training.holdout import earlier_sets
from ccnet.training.recipes import CHOICES, RECIPES, Recipe
from ccnet.training.run_log import RunLog
from ccnet.training.setup import build_model, describe, open_datasets

logger = logging.getLogger("ccnet")

ROOTS = {"camvid": "CAMVID_ROOT", "cityscapes": "CITYSCAPES_DATASET"}
"""Environment variables with the folders of data sets."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage="%(prog)s RECIPE --run-dir FOLDER [--root FOLDER] [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", choices=RECIPES)
    add_run_options(parser, workers=1)
    parser.add_argument("--root", type=user_path, help="folder of the data set")
    parser.add_argument(
        "--val-root", type=user_path, help="validation folder, for --dataset folder"
    )
    add_recipe_options(parser, Recipe, CHOICES)
    return parser.parse_args()


def chosen_recipe(arguments: argparse.Namespace) -> Recipe:
    return dataclasses.replace(RECIPES[arguments.recipe], **given_fields(arguments, Recipe))


def train(
    arguments: argparse.Namespace, device: torch.device, lock: FolderLock, log: RunLog
) -> None:
    recipe = chosen_recipe(arguments)
    rank, world = distributed.rank(), distributed.world_size()
    if rank == 0:
        for name, value in dataclasses.asdict(recipe).items():
            logger.info("%s: %s", name, value)
        images = recipe.batch_size / (world * recipe.accumulation)
        logger.info("world size: %d, images per forward pass: %g", world, images)
    root = arguments.root or os.environ.get(ROOTS.get(recipe.dataset, ""))
    earlier = earlier_sets(arguments.run_dir) if arguments.resume == "auto" else None
    train_set, val_set, label_set = open_datasets(recipe, root, arguments.val_root, earlier)
    logger.info("%s; %d to validate on", describe(train_set, label_set), len(val_set))
    with distributed.rank_zero_first():
        model = build_model(recipe, label_set).to(device)
    trainer = Trainer(
        model,
        train_set,
        val_set,
        recipe,
        arguments.run_dir,
        workers=arguments.workers,
        resume=arguments.resume == "auto",
        accept_changed_data=arguments.accept_changed_data,
        environment={"command": shlex.join(sys.argv), "ccnet": ccnet.__version__},
        lock=lock,
        log=log,
    )
    scores = trainer.run()
    if rank == 0:
        print(scores.table())


def main() -> None:
    prepare_console()
    run_script(parse_arguments, train, ["tensorboard"])


if __name__ == "__main__":
    main()
