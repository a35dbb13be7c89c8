r"""Trains a CCNet with a named recipe, on one process or on several under torchrun.

    ccnet train street-scenes-r18 --run-dir runs/scenes
    ccnet train finetune --root my-data --run-dir runs/mine
    torchrun --nproc-per-node 4 -m ccnet train cityscapes-r101 --root cityscapes \
        --run-dir runs/r101 --resume auto

Options replace values of a recipe, such as --steps 4000. Those that it has:

    ccnet train finetune --help
"""

import argparse
import dataclasses
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

import ccnet
from ccnet import distributed
from ccnet.command_line import ArgumentParser
from ccnet.console import prepare_console
from ccnet.files import user_path
from ccnet.locks import FolderLock
from ccnet.training.command_line import (
    add_recipe_options,
    add_run_options,
    given_fields,
    option_groups,
    run_script,
)
from ccnet.training.engine import Trainer
from ccnet.training.holdout import earlier_sets
from ccnet.training.named_recipes import RECIPES
from ccnet.training.optimization import given_weights
from ccnet.training.own_augmentation import OwnAugmentation
from ccnet.training.recipes import CHOICES, Recipe
from ccnet.training.run_log import RunLog
from ccnet.training.setup import (
    VALIDATION_SHARE,
    build_model,
    describe,
    open_datasets,
    require_folders,
)
from ccnet.training.summary import describe_end, describe_start
from ccnet.training.trackers import TRACKERS, chosen_tracker
from ccnet.weights.registry import REGISTRY

logger = logging.getLogger("ccnet")

ROOTS = {"camvid": "CAMVID_ROOT", "cityscapes": "CITYSCAPES_DATASET"}
"""Environment variables with the folders of data sets."""


def parse_arguments(
    argv: Sequence[str] | None = None, prog: str | None = None
) -> argparse.Namespace:
    parser = ArgumentParser(
        prog=prog,
        usage="%(prog)s RECIPE --run-dir FOLDER [--root FOLDER] [options]",
        description=f"{__doc__}\nRecipes:\n{listed_recipes()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", choices=RECIPES, metavar="RECIPE", help="one of those above.")
    groups = option_groups(parser, Recipe)
    groups["Data"].add_argument(
        "--root",
        type=user_path,
        metavar="FOLDER",
        help="folder of the data set; rendered scenes need none. For CamVid and Cityscapes also "
        f"in the environment: {' and '.join(ROOTS.values())}.",
    )
    groups["Data"].add_argument(
        "--val-root",
        type=user_path,
        metavar="FOLDER",
        help="for your own folder, another one to validate on. (default: every "
        f"{VALIDATION_SHARE}th image of --root)",
    )
    groups["Data"].add_argument(
        "--mix-root",
        type=user_path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="folder of a data set of --mix; once for each that has one, in their order.",
    )
    given = sys.argv[1:] if argv is None else argv
    named = next((word for word in given if word in RECIPES), "")
    add_run_options(groups["Run"], workers=1)
    groups["Run"].add_argument(
        "--tracker",
        choices=TRACKERS,
        help="what gets curves and pictures. (default: tensorboard, if it is installed)",
    )
    add_recipe_options(groups, Recipe, CHOICES, RECIPES.get(named))
    return parser.parse_args(argv)


def listed_recipes() -> str:
    rows = {
        name: f"{'pretrained ' if one.weights else ''}{one.backbone}, {one.dataset}, "
        f"{one.steps} steps of {one.batch_size} images"
        for name, one in RECIPES.items()
    }
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {row}" for name, row in rows.items())


def chosen_recipe(arguments: argparse.Namespace) -> Recipe:
    """Returns the named recipe with the fields that are given.

    Its own weights give way to weights of the backbone that are given, and to a backbone for which
    there are none of that name.
    """
    recipe, given = RECIPES[arguments.recipe], given_fields(arguments, Recipe)
    registered = REGISTRY.get(given.get("backbone", recipe.backbone))
    exist = registered is not None and recipe.weights in registered.__members__
    if given.get("weights_backbone") or not exist:
        given = {"weights": "", **given}
    return dataclasses.replace(recipe, **given)


def describe_left_out(arguments: argparse.Namespace, recipe: Recipe) -> str:
    """Says that the named recipe's own weights gave way; empty if they did not."""
    own = RECIPES[arguments.recipe].weights
    if recipe.weights or not own or arguments.weights is not None:
        return ""
    if recipe.weights_backbone:
        return f"the recipe's weights {own} give way to those of the backbone that are given"
    return (
        f"there are no weights {own} of {recipe.backbone}, so the network starts untrained: "
        "--weights-backbone DEFAULT starts from the backbone's ImageNet weights"
    )


def root_of(arguments: argparse.Namespace, recipe: Recipe) -> Path | str | None:
    return arguments.root or os.environ.get(ROOTS.get(recipe.dataset, ""))


def check(arguments: argparse.Namespace) -> None:
    recipe = chosen_recipe(arguments)
    chosen_tracker(arguments.tracker)
    root = root_of(arguments, recipe)
    require_folders(recipe, root, arguments.val_root, arguments.mix_root)
    if recipe.augmentation:
        OwnAugmentation(recipe.augmentation, num_classes=1)


def train(
    arguments: argparse.Namespace, device: torch.device, lock: FolderLock, log: RunLog
) -> None:
    recipe = chosen_recipe(arguments)
    if left_out := describe_left_out(arguments, recipe):
        logger.warning("%s", left_out)
    earlier = earlier_sets(arguments.run_dir) if arguments.resume == "auto" else None
    roots = root_of(arguments, recipe), arguments.val_root
    train_set, val_set, label_set = open_datasets(recipe, *roots, earlier, arguments.mix_root)
    logger.info("data: %s", describe(train_set, val_set, label_set))
    if recipe.class_weights:
        given_weights(recipe.class_weights, label_set.categories)
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
        accept_changed_recipe=arguments.accept_changed_recipe,
        environment={"command": shlex.join(sys.argv), "ccnet": ccnet.__version__},
        tracker=arguments.tracker,
        lock=lock,
        log=log,
    )
    how = trainer.recipe, device, trainer.step, trainer.run_dir, trainer.tracker
    for line in describe_start(model, *how):
        logger.info("%s", line)
    scores = trainer.run()
    if distributed.rank() == 0:
        best, backbone = trainer.history.best, model.config["backbone"]
        print(*describe_end(trainer.run_dir, scores, best, backbone, val_set), sep="\n")


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    prepare_console()
    run_script(partial(parse_arguments, argv, prog), train, check)
