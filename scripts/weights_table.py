"""Table of weights in the README, generated from the registry.

    python scripts/weights_table.py --write

Prints the table; --write puts it into README.md instead.
"""

import argparse
from pathlib import Path

from torchvision.models import WeightsEnum

from ccnet.console import prepare_console
from ccnet.files import atomic_write
from ccnet.weights import REGISTRY

BEGIN, END = "<!-- weights: made by scripts/weights_table.py -->", "<!-- end of weights -->"
README = Path(__file__).resolve().parents[1] / "README.md"


def make_table() -> str:
    lines = [
        "| network | weights | mIoU (%) | measured by | on | protocol | fetched from | licence |",
        "| --- | --- | ---: | --- | --- | --- | --- | --- |",
    ]
    for backbone, choice in REGISTRY.items():
        for weights in choice:
            is_default = weights is choice.DEFAULT
            lines.append(make_row(f"ccnet_{backbone}", weights, is_default=is_default))
    return "\n".join(lines)


def make_row(network: str, weights: WeightsEnum, *, is_default: bool) -> str:
    meta = weights.meta
    ((dataset, metrics),) = meta["metrics"].items()
    protocol = meta["protocol"].mode
    if meta["protocol"].windows:
        (crop, _), (stride, _) = meta["protocol"].windows
        protocol += f" {crop}, stride {stride}"
    if meta["protocol"].box:
        long, short = meta["protocol"].box
        protocol += f", fit {long}x{short}"
    if meta["sha256"]:
        place = "this repository"
    elif meta["hub"]:
        place = f"Hugging Face Hub, {meta['hub']['repo_id']}"
    elif meta["origin"]:
        place = "its origin, converted"
    else:
        place = "a file that you fetch"
    cells = [
        f"`{network}`",
        f"`{weights.name}`{' (default)' if is_default else ''}",
        f"{metrics['mIoU']:.2f}",
        meta["whose"],
        dataset,
        protocol,
        place,
        meta["license"],
    ]
    return f"| {' | '.join(cells)} |"


def replace_table(readme: str) -> str:
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{make_table()}\n\n{END}{after}"


def main() -> None:
    prepare_console()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="update README.md instead of printing")
    if not parser.parse_args().write:
        print(make_table())
        return
    text = replace_table(README.read_text(encoding="utf-8"))
    with atomic_write(README) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
