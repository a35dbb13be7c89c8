r"""Publishes the registered networks on the Hugging Face Hub, or one of your own.

    ccnet publish_zoo --owner NAME                  # says what it would do
    ccnet publish_zoo --owner NAME --output folder  # prepares and checks the files
    ccnet publish_zoo --owner NAME --yes
    ccnet publish_zoo --owner NAME --yes --only AUTHORS_CITYSCAPES_R2 \
        --file CS_scenes_60000.pth
    ccnet publish_zoo --owner NAME --yes --name my-street \
        --file runs/mine/best.safetensors

For each network: fetch and verify its file, convert it, hold the logits of what is to be published
against those of the file as it is read without the registry, write weights, configuration, card and
picture, upload them as one commit, read them back by commit and hash, and pin them in
ccnet/weights/pins.json, which the registry reads. What is pinned and still there is left alone, so
the same command goes on where it stopped. The error of one network does not cost the others.
"""

import argparse
import os
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torchvision.models import WeightsEnum

from ccnet.command_line import ArgumentParser
from ccnet.console import ending_on_signals, prepare_console
from ccnet.files import user_path
from ccnet.publishing.upload import check_account
from ccnet.publishing.zoo import Options, Outcome, Subject, publish_all, table
from ccnet.training.termination import ENDS
from ccnet.weights.hub import in_one_line
from ccnet.weights.pins import PINS, REPO_ID, read_pins
from ccnet.weights.registry import REGISTRY


def parse_arguments(
    argv: Sequence[str] | None = None, prog: str | None = None
) -> argparse.Namespace:
    parser = ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--owner", required=True, help="your name on the Hub, or an organisation's")
    parser.add_argument("--yes", action="store_true", help="upload; without, nothing is")
    parser.add_argument(
        "--only",
        action="append",
        metavar="MEMBER",
        help="this network of the registry: its name, or a pattern such as '*CITYSCAPES*'",
    )
    parser.add_argument("--file", type=user_path, help="take the weights from this file or folder")
    parser.add_argument("--name", help="name of the repository, for a network of your own")
    parser.add_argument("--private", action="store_true", help="make new repositories private")
    parser.add_argument(
        "--output", type=user_path, help="write the files into this folder, and keep them"
    )
    parser.add_argument(
        "--pins", type=user_path, default=PINS, help="file of pins (default: the registry's)"
    )
    arguments = parser.parse_args(argv)
    try:
        arguments.subjects = choose(arguments)
        if arguments.yes and not os.access(arguments.pins.parent, os.W_OK):
            raise ValueError(f"--pins {arguments.pins}: its folder cannot be written to")
        if arguments.pins.exists():
            read_pins(arguments.pins)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return arguments


def choose(arguments: argparse.Namespace) -> list[Subject]:
    """Finds out what is to be published.

    Raises:
        ValueError: if options do not go together, or name nothing.
    """
    owner, name = arguments.owner, arguments.name
    file = str(arguments.file) if arguments.file else None
    repo_id = f"{owner}/{name or 'x'}"
    if not REPO_ID.fullmatch(repo_id):
        raise ValueError(
            f"{repo_id!r} cannot be a repository: names are of letters, digits, '-', '_' and '.'"
        )
    if name and (arguments.only or not file):
        raise ValueError("--name is of a network of your own, and needs --file but no --only")
    if name:
        return [Subject(f"{owner}/{name}", file=file)]
    members = find_members(arguments.only)
    if file and len(members) != 1:
        raise ValueError(
            "--file needs --name, for a network of your own, or --only with one of the registry, "
            f"not with {len(members)}"
        )
    return [
        Subject(f"{owner}/{one.meta['file'].removesuffix('.safetensors')}", one, file)
        for one in members
    ]


def find_members(patterns: Sequence[str] | None) -> list[WeightsEnum]:
    """Finds registered weights by names or patterns, with or without the name of the enum.

    Raises:
        ValueError: if there are none of a name; names the nearest.
    """
    members: list[WeightsEnum] = [one for choice in REGISTRY.values() for one in choice]
    if not patterns:
        return members
    found = []
    for pattern in patterns:
        fitting = [
            one for one in members if any(fnmatchcase(n, pattern) for n in (str(one), one.name))
        ]
        if not fitting:
            near = get_close_matches(
                pattern, [n for one in members for n in (str(one), one.name)], 1
            )
            hint = f": did you mean {near[0]}?" if near else ""
            raise ValueError(f"the registry has no {pattern}{hint}")
        found += [one for one in fitting if one not in found]
    return found


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    prepare_console()
    arguments = parse_arguments(argv, prog)
    subjects = arguments.subjects
    options = Options(arguments.yes, arguments.output, arguments.private, arguments.pins)
    if options.uploads:
        try:
            check_account(arguments.owner)
        except Exception as error:  # whatever the Hub or the network does
            raise SystemExit(f"error: {in_one_line(error)}") from error
    outcomes: list[Outcome] = []
    try:
        with ending_on_signals(ENDS):
            for outcome in publish_all(subjects, options):
                outcomes.append(outcome)
                if outcome.state != "planned":
                    print(f"{len(outcomes)} of {len(subjects)}: {outcome.subject}: {outcome.state}")
    finally:  # also when interrupted
        if outcomes:
            print(f"\n{table(outcomes)}")
    states = {outcome.state for outcome in outcomes}
    if "planned" in states:
        print("Nothing was done: --yes uploads, --output FOLDER prepares the files alone.")
    if "published" in states and any(one.member for one in subjects):
        print(f"Next: commit {options.pins}, and run scripts/weights_table.py --write.")
    if "failed" in states:
        raise SystemExit(1)
