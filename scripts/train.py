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
from ccnet.console import prepare_console, require_extra
from ccnet.files import user_path
from ccnet.training.command_line import add_recipe_options, given_fields
from ccnet.training.engine import Trainer
from ccnet.training.recipes import CHOICES, RECIPES, Recipe
from ccnet.training.setup import build_model, describe, open_datasets
from ccnet.training.termination import Terminated

ROOTS = {"camvid": "CAMVID_ROOT", "cityscapes": "CITYSCAPES_DATASET"}
"""Environment variables with the folders of data sets."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage="%(prog)s RECIPE --run-dir FOLDER [--root FOLDER] [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--run-dir", type=user_path, required=True, help="folder of the run")
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        nargs="?",
        const="auto",
        default="never",
        help="auto: resume from the newest intact checkpoint in the run folder, if there is one",
    )
    parser.add_argument("--root", type=user_path, help="folder of the data set")
    parser.add_argument(
        "--val-root", type=user_path, help="validation folder, for --dataset folder"
    )
    parser.add_argument("--workers", type=int, default=1, help="data-loading processes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add_recipe_options(parser, Recipe, CHOICES)
    return parser.parse_args()


def chosen_recipe(arguments: argparse.Namespace) -> Recipe:
    return dataclasses.replace(RECIPES[arguments.recipe], **given_fields(arguments, Recipe))


def train(arguments: argparse.Namespace, device: torch.device) -> None:
    recipe = chosen_recipe(arguments)
    rank, world = distributed.rank(), distributed.world_size()
    if rank == 0:
        for name, value in dataclasses.asdict(recipe).items():
            logging.info("%s: %s", name, value)
        images = recipe.batch_size / (world * recipe.accumulation)
        logging.info("world size: %d, images per forward pass: %g", world, images)
    root = arguments.root or os.environ.get(ROOTS.get(recipe.dataset, ""))
    train_set, val_set, label_set = open_datasets(recipe, root, arguments.val_root)
    logging.info("%s; %d to validate on", describe(train_set, label_set), len(val_set))
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
        environment={"command": shlex.join(sys.argv), "ccnet": ccnet.__version__},
    )
    scores = trainer.run()
    if rank == 0:
        print(scores.table())


def main() -> None:
    prepare_console()
    arguments = parse_arguments()
    try:
        require_extra("train", ["tensorboard"])
        with distributed.process_group(arguments.device) as device:
            is_first = distributed.rank() == 0
            level = logging.INFO if is_first else logging.ERROR
            logging.basicConfig(level=level, format="%(asctime)s %(message)s")
            try:
                train(arguments, device)
            except Terminated as stop:
                if is_first:
                    print(f"{stop}; resume with --resume auto")
    except (OSError, ValueError, FloatingPointError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
