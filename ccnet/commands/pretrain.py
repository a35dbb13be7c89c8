r"""Pre-trains a backbone: classification of the images in a folder or zip archive of classes.

    ccnet pretrain images.zip --run-dir runs/backbone
    torchrun --nproc-per-node 2 -m ccnet pretrain images/ --run-dir runs/backbone \
        --backbone resnet50 --size 128 --resume auto
    ccnet train finetune --root my-data --run-dir runs/mine --weights "" \
        --weights-backbone runs/backbone/best.safetensors

The images lie in one folder per class, CLASS/NAME.jpg or deeper. Every twentieth one is held out
for validation.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import torch

from ccnet import distributed
from ccnet.command_line import ArgumentParser
from ccnet.console import prepare_console
from ccnet.files import user_path
from ccnet.locks import FolderLock
from ccnet.training.class_folder import ClassFolder
from ccnet.training.classification import CHOICES, ClassificationRecipe
from ccnet.training.command_line import (
    add_recipe_options,
    add_run_options,
    given_fields,
    option_groups,
    run_script,
)
from ccnet.training.pretraining import BackboneTrainer
from ccnet.training.run_log import RunLog

logger = logging.getLogger("ccnet")


def parse_arguments(
    argv: Sequence[str] | None = None, prog: str | None = None
) -> argparse.Namespace:
    parser = ArgumentParser(
        prog=prog,
        usage="%(prog)s IMAGES --run-dir FOLDER [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", type=user_path, help="folder or zip archive of classes")
    groups = option_groups(parser, ClassificationRecipe)
    add_run_options(groups["Run"], workers=0)
    add_recipe_options(groups, ClassificationRecipe, CHOICES, ClassificationRecipe())
    details = parser.add_argument_group("facts for the card of the weights")
    details.add_argument("--license", help="licence of the images, an SPDX name if it has one")
    details.add_argument("--source", help="where the images come from")
    return parser.parse_args(argv)


def pretrain(
    arguments: argparse.Namespace, device: torch.device, lock: FolderLock, log: RunLog
) -> None:
    recipe = ClassificationRecipe(**given_fields(arguments, ClassificationRecipe))
    with distributed.rank_zero_first():
        images = ClassFolder(arguments.images, arguments.run_dir, recipe.size)
    logger.info("data: %d images of %d classes", len(images), len(images.classes))
    settings = ", ".join(f"{name} {value}" for name, value in asdict(recipe).items())
    logger.info("recipe: %s; processes: %d", settings, distributed.world_size())
    facts = {"license": arguments.license, "source": arguments.source}
    trainer = BackboneTrainer(
        images,
        recipe,
        arguments.run_dir,
        device=device,
        workers=arguments.workers,
        resume=arguments.resume == "auto",
        accept_changed_data=arguments.accept_changed_data,
        accept_changed_recipe=arguments.accept_changed_recipe,
        details={name: fact for name, fact in facts.items() if fact},
        lock=lock,
        log=log,
    )
    accuracy = trainer.run()
    if distributed.rank() == 0:
        print(f"{arguments.run_dir / 'best.safetensors'}: accuracy {accuracy:.2f} %")


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    prepare_console()
    run_script(partial(parse_arguments, argv, prog), pretrain)
