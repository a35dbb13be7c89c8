"""Where weights are found, and that they are what they should be."""

import hashlib
import os
from pathlib import Path

from torchvision.models import WeightsEnum

_PACKAGE = Path(__file__).resolve().parent
BUNDLED_DIRS = (_PACKAGE.parent / "weights", _PACKAGE / "bundled")
"""Where bundled weights lie: in the repository, and inside an installed package."""

WEIGHTS_DIR_VARIABLE = "CCNET_WEIGHTS_DIR"
"""The environment variable that names one more folder to look into."""


def find_weights(weights: WeightsEnum) -> Path:
    """The verified file of a set of weights.

    Looks beside the code, then in the folder that the variable CCNET_WEIGHTS_DIR names.

    Raises:
        FileNotFoundError: names every place that was tried.
        ValueError: if the file is not the published one.
    """
    folders = list(BUNDLED_DIRS)
    if os.environ.get(WEIGHTS_DIR_VARIABLE):
        folders.append(Path(os.environ[WEIGHTS_DIR_VARIABLE]))
    places: list[Path] = [folder / weights.meta["file"] for folder in folders]
    for path in places:
        if path.is_file():
            _verify(path, weights.meta["sha256"])
            return path
    tried = "\n  ".join(str(path) for path in places)
    raise FileNotFoundError(
        f"{weights} was not found in any of\n  {tried}\n"
        f"Put {weights.meta['file']} into a folder and name it in {WEIGHTS_DIR_VARIABLE}."
    )


def _verify(path: Path, sha256: str) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path} is not the published file: its SHA-256 is {found}, not {sha256}. "
            "Fetch it again, or pass its path as weights= to use it as it is."
        )
