"""Exports a network as one file that runs without this package, and compares the two.

    ccnet export --output camvid.onnx
    ccnet export --weights runs/mine --with-preprocessing --output mine.onnx
    ccnet export --network ccnet_resnet101 --format aoti --output cityscapes.pt2
    ccnet export --weights runs/mine --int8 pictures/ --output mine.int8.onnx

The file takes any number of pictures of any size: by default normalised ones, of which it gives
the logits; with --with-preprocessing the pictures themselves, of which it gives the labels. It is
read back and compared with the network on several sizes before it replaces one at --output. Class
names, colours, what it takes, licence and hash of the weights are in its metadata, which
`ccnet.load_exported` reads.
"""

import argparse
import re
from collections.abc import Sequence

from ccnet.command_line import ArgumentParser
from ccnet.console import ending_on_signals, prepare_console, printable
from ccnet.deployment.exported.export import DTYPES, export_network
from ccnet.deployment.exported.formats import FORMATS
from ccnet.files import sha256_of, user_path
from ccnet.training.termination import ENDS
from ccnet.zoo import NETWORK_NAMES, find_builder


def parse_arguments(
    argv: Sequence[str] | None = None, prog: str | None = None
) -> argparse.Namespace:
    parser = ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="ccnet_resnet18", metavar="NAME", help=NETWORK_NAMES)
    parser.add_argument("--weights", default="DEFAULT", help="name, path or hf:// address")
    parser.add_argument(
        "--output", type=user_path, required=True, metavar="FILE", help="ending in .onnx or .pt2"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="ONNX; a program of torch.export; or one compiled for this machine by AOTInductor "
        "(default: that of the file's name)",
    )
    parser.add_argument(
        "--with-preprocessing", action="store_true", help="from pictures, uint8, to labels, uint8"
    )
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights (default: as they are)")
    parser.add_argument(
        "--size",
        type=_size,
        metavar="H,W",
        help="of all pictures, each 1 to 32768 pixels (default: any from 33 to 8192)",
    )
    parser.add_argument(
        "--int8",
        type=user_path,
        metavar="FOLDER",
        help="compute in 8-bit integers, with ranges of pictures in this folder, like those that "
        "the file will see; a quarter of the size, faster with OpenVINO",
    )
    return parser.parse_args(argv)


def _size(text: str) -> list[int]:
    if not re.fullmatch(r"\d{1,9},\d{1,9}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"must be height and width, such as 480,640, not {text!r}")
    return [int(side) for side in text.split(",")]


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    prepare_console()
    arguments = parse_arguments(argv, prog)
    try:
        with ending_on_signals(ENDS):
            export(arguments)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


def export(arguments: argparse.Namespace) -> None:
    path = arguments.output
    model = find_builder(arguments.network)(weights=arguments.weights)
    export_network(
        model,
        path,
        format=arguments.format,
        with_preprocessing=arguments.with_preprocessing,
        dtype=arguments.dtype,
        size=arguments.size,
        int8=arguments.int8,
        tell=lambda line: print(line, flush=True),
    )
    print(f"written     {printable(path)} ({path.stat().st_size / 1e6:.1f} MB)")
    print(f"sha256      {sha256_of(path)}")
    if arguments.with_preprocessing and (size := model.training_size) is not None:
        print(
            f"note        the network learnt from pictures of about {size[1]} x {size[0]} pixels, "
            "and the file does not resize: give it pictures of about that size"
        )
