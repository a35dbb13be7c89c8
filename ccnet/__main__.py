"""The command `ccnet`, also `python -m ccnet`: finds the subcommand and hands over to it."""

import argparse
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from ccnet import __version__
from ccnet.commands import COMMANDS
from ccnet.console import prepare_console

DESCRIPTION = """Criss-cross attention and CCNet for semantic segmentation in pure PyTorch.

{commands}

Each explains its arguments: {prog} predict --help
Several processes: torchrun --nproc-per-node 4 -m ccnet train ..."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the subcommand that the first argument names.

    Args:
        argv: those of the command line, by default the process's.
    """
    prepare_console()  # before PyTorch is imported, which takes seconds
    given = sys.argv[1:] if argv is None else list(argv)
    if given[:1] == ["--"]:
        given = given[1:]
    if given[:1] == ["help"]:
        given = [*given[1:2], "--help"]
    prog = "python -m ccnet" if Path(sys.argv[0]).name == "__main__.py" else "ccnet"
    if given and given[0] in COMMANDS:
        command = import_module(f"ccnet.commands.{given[0]}")
        command.main(given[1:], f"{prog} {given[0]}")
        return
    listing = "\n".join(f"  {name:<11} {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog=prog,
        usage="%(prog)s COMMAND [arguments]",
        description=DESCRIPTION.format(commands=listing, prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ccnet {__version__}")
    if not given:
        parser.print_help()
    elif given[0].startswith("-"):
        _, unknown = parser.parse_known_args(given)  # ends here for --help and --version
        meant = next((word for word in given if word in COMMANDS), "COMMAND")
        parser.error(
            f"unrecognized arguments: {' '.join(unknown)} "
            f"(a command comes first: {prog} {meant} {unknown[0]} ...)"
        )
    else:
        near = get_close_matches(given[0].lower(), COMMANDS, 1)
        advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}"
        parser.error(f"no command {given[0]!r}: {advice}")


if __name__ == "__main__":
    main()
