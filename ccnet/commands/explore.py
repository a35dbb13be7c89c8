"""Opens a page for the browser on which to see where each pixel gathers its information.

    ccnet explore                          # rendered streets, the bundled network
    ccnet explore street.jpg --weights mine.safetensors

Open the address that it prints. On the page: choose or upload a picture, choose weights and the
number of attention loops, and click a pixel: from where it gathers after one loop and after two,
the strongest sources with their share and class, the way that the information takes, and the
probability of every class.

Only this machine can reach the page unless --host says otherwise, and nothing is sent anywhere.
Registered weights that are not on this machine are downloaded when they are chosen. Ctrl-C ends it.
"""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import torch

from ccnet.command_line import ArgumentParser
from ccnet.console import prepare_console, printable
from ccnet.distributed import usable_device
from ccnet.explorer import Explorer, serve
from ccnet.explorer.networks import name_of
from ccnet.explorer.server import LOOPBACK
from ccnet.files import user_path
from ccnet.images import check_is_file
from ccnet.inference.memory import DEFAULT_LIMIT
from ccnet.zoo import NETWORKS

PORT = 8765


def parse_arguments(
    argv: Sequence[str] | None = None, prog: str | None = None
) -> argparse.Namespace:
    parser = ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", type=user_path, help="paths of pictures to choose")
    parser.add_argument(
        "--network",
        default="ccnet_resnet18",
        choices=list(NETWORKS),
        help="of registered weights to begin with (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        default="DEFAULT",
        help="to begin with: a registered name, or the path of a file, whose network it names",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--port", type=int, default=PORT, help="a free one if it is taken (default: %(default)s)"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; with 0.0.0.0 all who reach this machine can use the page "
        "(default: %(default)s, this machine alone)",
    )
    parser.add_argument(
        "--memory-limit",
        type=float,
        default=DEFAULT_LIMIT,
        metavar="GIB",
        help="what a picture may take, as estimated from its size (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.port < 2**16:
        parser.error(f"--port must be 0 to {2**16 - 1}, not {arguments.port}")
    if not 0 < arguments.memory_limit < math.inf:
        parser.error(f"--memory-limit must be positive, not {arguments.memory_limit}")
    return arguments


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    prepare_console()
    arguments = parse_arguments(argv, prog)
    try:
        for path in arguments.images:
            check_is_file(path)
        explorer = Explorer(
            arguments.images,
            name_of(arguments.network, arguments.weights),
            usable_device(arguments.device),
            memory_limit=arguments.memory_limit,
            allows_files=arguments.host in LOOPBACK,
        )
        explorer.networks.get(explorer.options()["first_weights"])
        server = serve(explorer, arguments.host, arguments.port)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    taken = arguments.port not in (0, server.server_port)
    note = f" (port {arguments.port} is taken)" if taken else ""
    print(f"{printable(server.url)}{note}: open it in a browser; Ctrl-C ends it", flush=True)
    if arguments.host not in LOOPBACK:
        print("all who reach this machine can use the page", file=sys.stderr, flush=True)
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()
    if server.connections:  # their threads compute: to unload PyTorch under them aborts
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
