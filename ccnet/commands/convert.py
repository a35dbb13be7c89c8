r"""Converts a checkpoint of another code base to safetensors, config.json and a model card.

    ccnet convert CS_scenes_60000.pth --output converted
    ccnet convert ccnet_r101.pth --output converted \
        --registered CCNet_ResNet101_Weights.OPENMMLAB_CITYSCAPES_769X769_80K --push owner/name

With --registered, configuration and model card come from the registry, and the file must have the
hash in the registry (the entries of the authors have none). --push uploads to the Hugging Face Hub
and prints the pin of the upload; `ccnet publish_zoo` also writes it into the registry's.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

import torch
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined] # its client's
from torch import Tensor
from torchvision.models import WeightsEnum

from ccnet.command_line import ArgumentParser
from ccnet.console import prepare_console
from ccnet.files import sha256_of, user_path
from ccnet.model import CCNet
from ccnet.publishing.upload import upload
from ccnet.weights.conversion import read_foreign
from ccnet.weights.hashes import verify
from ccnet.weights.registry import details_of, find_member


def parse_arguments(
    argv: Sequence[str] | None = None, prog: str | None = None
) -> argparse.Namespace:
    parser = ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=user_path)
    parser.add_argument("--entry", help="name of a network in it, if it holds several")
    parser.add_argument("--output", type=user_path, required=True, help="output folder")
    parser.add_argument("--registered", type=registered, help="registry entry, as ENUM.MEMBER")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload to this repository")
    parser.add_argument("--dry-run", action="store_true", help="check, but write nothing")
    return parser.parse_args(argv)


def registered(name: str) -> WeightsEnum:
    try:
        return find_member(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def logits_of(model: CCNet) -> Tensor:
    """Computes the logits of a fixed input."""
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        size = 1, model.preprocessing.channels, 96, 128
        logits: Tensor = model(torch.randn(size, generator=generator))["out"]
    return logits


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    prepare_console()
    try:
        convert_and_write(parse_arguments(argv, prog))
    except (OSError, HTTPError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


def convert_and_write(arguments: argparse.Namespace) -> None:
    member = arguments.registered
    if member and member.meta["origin"]:
        verify(arguments.checkpoint, member.meta["origin"]["sha256_prefix"])
    converted = read_foreign(arguments.checkpoint, arguments.entry)
    family = converted.source
    if member:
        converted = replace(
            converted, config=member.meta["config"], details=details_of(member), assumed={}
        )
    model = CCNet.from_weights(converted)
    logits = logits_of(model)
    shown = {key: model.config[key] for key in ("backbone", "recurrence")}
    print(f"family      {family}")
    print(f"network     {json.dumps(shown)}")
    print(f"tensors     {len(converted.state_dict)}, every name and shape as expected")
    print(f"logits      {hashlib.sha256(logits.numpy().tobytes()).hexdigest()} (SHA-256)")
    print(f"            mean {logits.mean():.6f}, deviation {logits.std():.6f}")
    if arguments.dry_run:
        return
    card = {"location": arguments.push} if arguments.push else {}
    model.save_pretrained(arguments.output, model_card_kwargs=card)
    if not torch.equal(logits_of(CCNet.from_pretrained(arguments.output)), logits):
        raise ValueError(f"{arguments.output} does not reproduce the logits of the checkpoint")
    path = arguments.output / "model.safetensors"
    print(f"written     {arguments.output} ({path.stat().st_size / 1e6:.1f} MB)")
    print(f"sha256      {sha256_of(path)}")
    if arguments.push:
        names = (path.name, "config.json", "README.md")
        pin = upload({name: arguments.output / name for name in names}, arguments.push)
        print(f"pin         {json.dumps(pin)}")
