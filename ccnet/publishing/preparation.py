"""Preparation: the files of a repository, which compute what their origin computes."""

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.constants import CONFIG_NAME, REPOCARD_NAME, SAFETENSORS_SINGLE_FILE
from PIL import Image
from torch import Tensor
from torchvision.models import WeightsEnum
from torchvision.transforms.v2.functional import to_pil_image

from ccnet.datasets import StreetScenes
from ccnet.inference import Segmentation
from ccnet.model import CCNet
from ccnet.weights.assumptions import settle
from ccnet.weights.conversion import complete, read_foreign
from ccnet.weights.downloads import checkpoint_at_hand, load_registered
from ccnet.weights.fetching import fetch
from ccnet.weights.hashes import verify
from ccnet.weights.origins import as_registered
from ccnet.weights.serialization import ModelWeights, read_weights, write_folder
from ccnet.weights.sources import read_path

logger = logging.getLogger(__name__)

PICTURE = "example.png"

TOLERANCE = 1e-5
"""How far logits may be apart, in parts of the largest."""

SCENE_SIZE, SCENE_SEED = (240, 320), 20181128
"""Of the rendered street that networks are compared on."""


class ByHandError(ValueError):
    """Only a person can fetch these weights; says how."""


def by_hand(member: WeightsEnum) -> ByHandError:
    """The error of weights that have no address."""
    return ByHandError(
        f"fetch the file ({member.meta['source']}), then --only {member.name} --file FILE"
    )


def read_member(
    member: WeightsEnum, file: str | None = None, *, progress: bool = True
) -> tuple[ModelWeights, ModelWeights]:
    """Reads registered weights where they come from, which is not the Hub.

    Args:
        member: the weights.
        file: path of their checkpoint; None for the bundled file, or to fetch it from its origin
            unless it is in the folder of CCNET_WEIGHTS_DIR.
        progress: show a progress bar.

    Returns:
        The weights as the registry describes them, and as anybody would read their file: only what
        it does not tell is from the registry.

    Raises:
        ByHandError: if there is neither a file nor an address.
        OSError: if they cannot be had.
        ValueError: if the file is not the published one, or of no known network.
    """
    origin = member.meta["origin"]
    if file is not None:
        if origin:
            verify(Path(file), origin["sha256_prefix"])
        plain = read_own(file)
    elif member.meta["sha256"]:
        bundled = load_registered(member)
        return bundled, complete(read_weights(bundled.source))
    elif origin is None:
        raise by_hand(member)
    elif at_hand := checkpoint_at_hand(member):
        plain = read_foreign(at_hand)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, Path(origin["url"]).name)
            try:
                fetch(origin["url"], path, origin["sha256_prefix"], progress=progress)
            except OSError as error:
                raise OSError(f"{origin['url']}: {error}") from error
            plain = read_foreign(path)
    return as_registered(plain, member), settle(plain, member.meta["config"])


def read_own(file: str) -> ModelWeights:
    """Reads a network of one's own: a file, the folder of a run or of `save_pretrained`.

    Raises:
        FileNotFoundError: if there is nothing at this path.
        ValueError: if it is of no known network.
    """
    found = read_path(file)
    if found is None:
        raise FileNotFoundError(f"no weights at {file}")
    return complete(found)


@dataclass(frozen=True)
class Prepared:
    """The files of a repository.

    Attributes:
        files: their paths, by their names in the repository.
        difference: of the logits from those of the origin, at most, in parts of the largest.
    """

    files: dict[str, Path]
    difference: float


def prepare(folder: Path, weights: ModelWeights, plain: ModelWeights, repo_id: str) -> Prepared:
    """Writes the files of a repository: weights, configuration, card and picture.

    The network that is read back from them is held against another reading of the same file, on a
    rendered street, through preprocessing and network.

    Args:
        folder: where to write; created if need be.
        weights: what is published.
        plain: the same tensors as anybody would read them.
        repo_id: "owner/name", for the card.

    Raises:
        OSError: if a file cannot be written.
        ValueError: if the logits differ by more than `TOLERANCE`.
    """
    reference = CCNet.from_weights(plain)
    write_folder(folder, weights)
    model = CCNet.from_weights(read_weights(folder))
    logits = _logits(model)
    difference = _difference(logits, _logits(reference))
    if not difference <= TOLERANCE:
        raise ValueError(
            f"as it is to be published, {plain.source} computes something else than as it is read "
            f"without the registry: logits differ by {difference:.2g} of the largest"
        )
    _compare_names(model, reference, plain.source)
    names = [SAFETENSORS_SINGLE_FILE, CONFIG_NAME, REPOCARD_NAME]
    details = {"location": repo_id}
    if model.preprocessing.channels == 3:
        _picture(model, logits).save(folder / PICTURE)
        names.append(PICTURE)
        details["picture"] = PICTURE
    model.generate_model_card(**details).save(folder / REPOCARD_NAME)
    return Prepared({name: folder / name for name in names}, difference)


def longer_card(member: WeightsEnum) -> dict[str, Path]:
    """The second card that bundled weights have, by the name under which the first refers to it."""
    if "card" not in member.meta:
        return {}
    return {member.meta["card"]: Path(load_registered(member).source).with_suffix(".md")}


def _scene(channels: int) -> Tensor:
    """A rendered street (C, H, W), uint8; of other channels than three, noise."""
    if channels == 3:
        image: Tensor = StreetScenes(1, size=SCENE_SIZE, seed=SCENE_SEED)[0][0]
        return image.as_subclass(Tensor)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (channels, *SCENE_SIZE), dtype=torch.uint8, generator=generator)


def _logits(model: CCNet) -> Tensor:
    """The logits of the scene, (K, H, W)."""
    with torch.inference_mode():
        x = model.transforms()(_scene(model.preprocessing.channels)[None])
        logits: Tensor = model(x)["out"][0]
    return logits


def _difference(one: Tensor, other: Tensor) -> float:
    """Infinite for another number of classes."""
    if one.shape != other.shape:
        return torch.inf
    return ((one - other).abs().max() / other.abs().max()).item()


def _compare_names(model: CCNet, reference: CCNet, source: str) -> None:
    """Warns if a file has other class names than those that are published."""
    names = zip(model.label_set.categories, reference.label_set.categories, strict=True)
    for number, (ours, theirs) in enumerate(names):
        if ours != theirs:
            logger.warning("%s calls class %d %r, not %r", source, number, theirs, ours)


def _picture(model: CCNet, logits: Tensor) -> Image.Image:
    """The scene beside its segmentation."""
    image = _scene(3)
    result = Segmentation(logits.argmax(0).to(torch.uint8), model.label_set, image)
    height, width = image.shape[1:]
    sheet = Image.new("RGB", (2 * width, height))
    sheet.paste(to_pil_image(image), (0, 0))
    sheet.paste(result.overlay(), (width, 0))
    return sheet
