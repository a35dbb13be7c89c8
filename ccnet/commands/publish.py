"""Prepares trained weights for publication: half precision, without the auxiliary head.

    ccnet publish runs/camvid/best.safetensors my-model.safetensors

Convolution kernels become float16; norms, biases and gamma, which are small, keep their dtype.
Prints its hash and size, as ccnet/weights/registry.py of this project has them.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from typing import Any

import torch

from ccnet.command_line import ArgumentParser
from ccnet.console import prepare_console
from ccnet.files import sha256_of, user_path
from ccnet.model import CCNet
from ccnet.reconfiguration import WITHOUT_EFFECT
from ccnet.schema import shown
from ccnet.weights import read_weights, write_weights
from ccnet.weights.registry import details_of, find_member


def parse_arguments(
    argv: Sequence[str] | None = None, prog: str | None = None
) -> argparse.Namespace:
    parser = ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trained", type=user_path, help=".safetensors file of a training run")
    parser.add_argument("published", type=user_path, help="file to write")
    parser.add_argument(
        "--entry",
        metavar="NAME",
        help="registered weights, such as CCNet_ResNet18_Weights.CAMVID, that the file is to be: "
        "it gets their configuration and details",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    prepare_console()
    arguments = parse_arguments(argv, prog)
    try:
        publish(arguments)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


def fixed_arguments(model: CCNet) -> dict[str, Any]:
    """Returns the arguments of a network and of its backbone with an effect.

    But for the widths of the stem, which the tensors tell.
    """
    config, known = model.config, signature(type(model.backbone)).parameters.values()
    defaults = {one.name: one.default for one in known if one.default is not one.empty}
    options = {**defaults, **config["backbone_options"]}
    return {
        **{
            name: config[name]
            for name in sorted(config.keys() - WITHOUT_EFFECT.keys() - {"backbone_options"})
        },
        **{
            f"backbone's {name}": options[name]
            for name in sorted(options.keys() - WITHOUT_EFFECT.keys() - {"stem_widths"})
        },
    }


def publish(arguments: argparse.Namespace) -> None:
    if arguments.published.exists() and arguments.published.samefile(arguments.trained):
        raise ValueError(f"{arguments.published} is the trained file itself: give another name")
    trained = read_weights(arguments.trained)
    state_dict = {
        name: tensor.to(torch.float16) if tensor.dim() > 1 else tensor
        for name, tensor in trained.state_dict.items()
        if not name.startswith("aux_head.")
    }
    if not all(tensor.isfinite().all() for tensor in state_dict.values()):
        raise ValueError(f"{arguments.trained} has weights that are not finite in float16")
    published = replace(
        trained, state_dict=state_dict, config={**trained.config, "aux_channels": 0}
    )
    model = CCNet.from_weights(published)
    if arguments.entry is not None:
        entry = find_member(arguments.entry)
        registered = CCNet(**entry.meta["config"])
        found, needed = fixed_arguments(model), fixed_arguments(registered)
        for name, value in needed.items():
            if found.get(name) != value:
                raise ValueError(
                    f"{arguments.trained} cannot be {entry}: its {name} is "
                    f"{shown(found.get(name))}, not {shown(value)}"
                )
        published = replace(published, config=registered.config, details=details_of(entry))
        model = CCNet.from_weights(published)
    write_weights(arguments.published, published)
    print(f"file        {arguments.published} ({arguments.published.stat().st_size / 1e6:.1f} MB)")
    print(f"sha256      {sha256_of(arguments.published)}")
    print(f"num_params  {sum(parameter.numel() for parameter in model.parameters())}")
    print(f"licence     {published.details.get('license', 'none stated')}")
