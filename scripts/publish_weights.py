"""Makes the file to publish of trained weights: half precision, without the auxiliary head.

    python scripts/publish_weights.py runs/camvid/best.safetensors weights/mine.safetensors

Convolution kernels become float16; norms, biases and gamma, which weigh little, stay as they are.
Prints what the registry in ccnet/weights.py needs.
"""

import argparse
import hashlib
from pathlib import Path

import torch

from ccnet.model import CCNet
from ccnet.serialization import load_strictly, read_weights, save_weights


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trained", type=Path, help=".safetensors of a training run")
    parser.add_argument("published", type=Path, help="the file to write")
    arguments = parser.parse_args()
    try:
        publish(arguments)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


def publish(arguments: argparse.Namespace) -> None:
    state_dict, config = read_weights(arguments.trained)
    config["aux_channels"] = 0
    kept = {
        name: tensor.to(torch.float16) if tensor.dim() > 1 else tensor
        for name, tensor in state_dict.items()
        if not name.startswith("aux_head.")
    }
    if not all(tensor.isfinite().all() for tensor in kept.values()):
        raise SystemExit(f"{arguments.trained} has weights that are not finite in float16")
    model = CCNet(**config)
    load_strictly(model, kept)
    save_weights(arguments.published, kept, config)
    print(f"file        {arguments.published} ({arguments.published.stat().st_size / 1e6:.1f} MB)")
    print(f"sha256      {hashlib.sha256(arguments.published.read_bytes()).hexdigest()}")
    print(f"num_params  {sum(parameter.numel() for parameter in model.parameters())}")


if __name__ == "__main__":
    main()
