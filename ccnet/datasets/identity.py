"""Identity: what tells a sample of a data set from others, without decoding it."""

import zlib
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from ccnet.datasets.mixture import Mixture
from ccnet.files import irregularity

ENDS = 2**16
"""Number of bytes that are read at the start of a file, and at its end.

At the start are orientation, palette and quantisation tables. The last bytes of a PNG file depend
on all of its pixels, and a change of any compressed picture hardly ever leaves both its length and
its end as they were.
"""

FORM = 2
"""The version of what `identify` returns: records of another one cannot be compared."""


def identify(dataset: Any, index: int) -> Mapping[str, Any]:
    """Returns what tells a sample from others: equal for the same data at another place.

    Args:
        dataset: with a method `identify(index)`, such as the data sets of this package; or a
            `Subset`, `ConcatDataset` or `Mixture` of such ones. Of any other one, the type counts
            alone.
        index: of the sample.

    Returns:
        Texts and numbers by names for people, such as "name", "image" and "mask".
    """
    if hasattr(dataset, "identify"):
        found: Mapping[str, Any] = dataset.identify(index)
        return found
    if isinstance(dataset, Subset):
        return identify(dataset.dataset, int(dataset.indices[index]))
    if isinstance(dataset, ConcatDataset):
        part = bisect_right(dataset.cumulative_sizes, index)
        before = dataset.cumulative_sizes[part - 1] if part else 0
        found = identify(dataset.datasets[part], index - before)
        if isinstance(dataset, Mixture):
            return {**found, "part": part, "share": str(dataset.shares[part])}
        return found
    return {"name": f"{type(dataset).__qualname__} {index}"}


def unidentified(dataset: Any) -> list[str]:
    """Returns the types of the parts of a data set that have no method `identify`."""
    if hasattr(dataset, "identify"):
        return []
    if isinstance(dataset, Subset):
        return unidentified(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return [name for part in dataset.datasets for name in unidentified(part)]
    return [type(dataset).__qualname__]


def identify_file(path: Path) -> str:
    """Returns the length of a file and the CRC-32 of its two ends, of 64 KiB each.

    Raises:
        OSError: if it cannot be read; names it.
    """
    try:
        if problem := irregularity(path):
            raise OSError(problem)
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            start = file.read(ENDS)
            file.seek(max(len(start), size - ENDS))
            return f"{size} {zlib.crc32(file.read(ENDS), zlib.crc32(start)):08x}"
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror or error}") from error
