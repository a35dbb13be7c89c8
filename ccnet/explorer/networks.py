"""Networks of the explorer: registered weights and files, with any number of loops."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE

from ccnet.explorer.bounded import BoundedStore
from ccnet.files import file_state, user_path
from ccnet.inference.replica import evaluation_replica
from ccnet.model import CCNet
from ccnet.weights.conversion import complete
from ccnet.weights.registry import REGISTRY
from ccnet.weights.sources import BEST_OF_A_RUN, read_path, split_entry
from ccnet.zoo import NETWORKS, build_ccnet

MOST_LOOPS = 4

KEPT = 2
"""Networks that are kept."""

_FILES = (SAFETENSORS_SINGLE_FILE, CONFIG_NAME, BEST_OF_A_RUN)
"""Of a folder, those that a network is read from."""


class Networks:
    """Networks by the names of their weights.

    Args:
        weights: path of a file to choose, besides the registered ones; None for no such.
        device: of the networks.
        allows_files: whether any path may be given.

    Attributes:
        names: of weights that can be chosen, the default one first, with what is known of them.
    """

    def __init__(
        self,
        weights: str | None = None,
        device: torch.device | str = "cpu",
        *,
        allows_files: bool = True,
    ) -> None:
        self._device, self.allows_files = device, allows_files
        self._kept: BoundedStore[CCNet] = BoundedStore(KEPT)
        self.names = _registered()
        if weights is not None and weights not in self.names:
            self.names = {weights: f"file {Path(weights).name}", **self.names}

    def get(self, name: str, loops: int | None = None) -> CCNet:
        """Returns the network of some weights, with a number of loops; None for their own.

        Raises:
            OSError: if weights cannot be fetched or read.
            ValueError: if there are no such weights, or no such number of loops.
        """
        if name not in self.names and not self.allows_files:
            raise ValueError("files of weights can be chosen only on the machine of the explorer")
        key = (name, self.state(name))
        network = self._kept.get_or_make(key, lambda: self._load(name))
        return network if loops is None else _with_loops(network, loops)

    def state(self, name: str) -> tuple[Any, ...]:
        """What changes when a file of weights is written again; registered ones never do."""
        if name.partition(":")[0] in NETWORKS:
            return ()
        path = user_path(split_entry(name)[0])
        files = [path / name for name in _FILES] if path.is_dir() else [path]
        return tuple(map(file_state, files))

    def _load(self, name: str) -> CCNet:
        builder, _, member = name.partition(":")
        if builder in NETWORKS and name in self.names:
            network = NETWORKS[builder](weights=member, progress=False)
        else:
            network = _of_file(name)
        return network.to(self._device)


def name_of(network: str, weights: str) -> str:
    """Returns the name of weights in `Networks`.

    Args:
        network: a name in `zoo.NETWORKS`.
        weights: name of registered weights of this network, or the path of a file.
    """
    choice = REGISTRY[network.removeprefix("ccnet_")]
    return f"{network}:{choice[weights].name}" if weights in choice.__members__ else weights


def _registered() -> dict[str, str]:
    """Names and descriptions of registered weights: the bundled ones first."""
    return {
        f"ccnet_{backbone}:{member.name}": f"{member.name}, {backbone}{_figures(member.meta)}"
        for backbone, choice in REGISTRY.items()
        for member in choice
    }


def _figures(meta: Mapping[str, Any]) -> str:
    (data, figures), *_ = meta["metrics"].items()
    return f" ({data}: {figures['mIoU']} % mIoU)"


def _of_file(name: str) -> CCNet:
    found = read_path(name)
    if found is None:
        raise ValueError(f"there is no file of weights at {name}")
    weights = complete(found)
    backbone = weights.config.get("backbone")
    if not isinstance(backbone, str):
        raise ValueError(f"{name} does not say its backbone: convert it by ccnet convert")
    return build_ccnet(backbone, weights=weights)


def _with_loops(network: CCNet, loops: int) -> CCNet:
    """Returns a replica with another number of loops, which shares all tensors."""
    if not 0 <= loops <= MOST_LOOPS:
        raise ValueError(f"the number of loops must be 0 to {MOST_LOOPS}, not {loops}")
    if loops and network.head.cca is None:
        raise ValueError("these weights have no attention: only 0 loops are possible")
    replica = evaluation_replica(network)
    assert isinstance(replica, CCNet)
    replica.config = {**network.config, "recurrence": loops}
    replica.head.recurrence = loops
    return replica
