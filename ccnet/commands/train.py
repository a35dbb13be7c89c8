r"""Trains a CCNet with a named recipe, on one process or on several under torchrun.

    ccnet train street-scenes-r18 --run-dir runs/scenes
    ccnet train finetune --root my-data --run-dir runs/mine
    torchrun --nproc-per-node 4 -m ccnet train cityscapes-r101 --root cityscapes \
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
from collections.abc import Sequence
from functools import partial

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


def parse_arguments(
    argv: Sequence[str] | None = None, prog: str | None = None
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=prog,
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
    return parser.parse_args(argv)


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
    validated = len(val_set)  # type: ignore[arg-type] # all data sets here have a length
    logger.info("%s; %d to validate on", describe(train_set, label_set), validated)
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


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    prepare_console()
    run_script(partial(parse_arguments, argv, prog), train, ["tensorboard"])
