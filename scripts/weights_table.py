"""Prints the README's table of weights, made from the registry; --write puts it there.

python scripts/weights_table.py --write
"""

import argparse
from pathlib import Path

from torchvision.models import WeightsEnum

from ccnet.files import atomic_write
from ccnet.weights import (
    CCNet_ResNet18_Weights,
    CCNet_ResNet50_Weights,
    CCNet_ResNet101_Weights,
)

NETWORKS = {
    "ccnet_resnet18": CCNet_ResNet18_Weights,
    "ccnet_resnet50": CCNet_ResNet50_Weights,
    "ccnet_resnet101": CCNet_ResNet101_Weights,
}
BEGIN, END = "<!-- weights: made by scripts/weights_table.py -->", "<!-- end of weights -->"
README = Path(__file__).resolve().parents[1] / "README.md"


def make_table() -> str:
    lines = [
        "| network | weights | mIoU (%) | measured by | on | protocol | fetched from | licence |",
        "| --- | --- | ---: | --- | --- | --- | --- | --- |",
    ]
    for network, choice in NETWORKS.items():
        for weights in choice:
            lines.append(make_row(network, weights, is_default=weights is choice.DEFAULT))
    return "\n".join(lines)


def make_row(network: str, weights: WeightsEnum, *, is_default: bool) -> str:
    meta = weights.meta
    ((dataset, metrics),) = meta["metrics"].items()
    protocol = meta["protocol"]["mode"]
    if protocol == "slide":
        protocol += " {}, stride {}".format(
            meta["protocol"]["crop"][0], meta["protocol"]["stride"][0]
        )
    if meta["hub"]:
        place = f"Hugging Face Hub, {meta['hub']['repo_id']}"
    elif meta["origin"]:
        place = "its origin, converted"
    else:
        place = "a file that you fetch" if "by_hand" in meta else "this repository"
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="into README.md")
    if not parser.parse_args().write:
        print(make_table())
        return
    text = replace_table(README.read_text())
    with atomic_write(README) as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    main()
