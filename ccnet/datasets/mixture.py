"""Mixture: several data sets to train on at once, each with a share of the samples."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from torch.utils.data import ConcatDataset

from ccnet.options import named_options


class Mixture(ConcatDataset[Any]):
    """Several data sets, one behind the other, of which a `Trainer` draws in given shares.

    The shares count samples, whatever the numbers of images: of a small data set with a large share
    each image comes more often. After any number of steps each data set
    has had its share of the samples, to within the number of data sets.

    Args:
        datasets: (image, mask) pairs with the same classes.
        shares: of each data set, relative to each other, 0 or more: [2, 1], [0.7, 0.3], ...

    Attributes:
        shares: of each data set, exact, 1 together.
        sizes: the number of samples of each.

    Raises:
        ValueError: if there are not as many shares as data sets, one is not a number of 0 or more,
            all are 0, or a data set that has a share is empty.
    """

    @named_options()
    def __init__(self, datasets: Sequence[Any], shares: Sequence[float | Fraction]) -> None:
        try:
            exact = [Fraction(str(share)) for share in shares]
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise ValueError(f"shares must be numbers of 0 or more, not {shares}") from error
        if len(datasets) != len(exact):
            raise ValueError(f"{len(datasets)} data sets need as many shares, not {len(exact)}")
        if not any(exact) or min(exact) < 0:
            raise ValueError(f"shares must be 0 or more, and not all 0, not {shares}")
        super().__init__(datasets)
        for number, (one, share) in enumerate(zip(datasets, exact, strict=True)):
            if share and not len(one):
                raise ValueError(f"data set {number} of the mixture is empty: its share must be 0")
        self.sizes = [len(one) for one in datasets]
        self.shares = [share / sum(exact) for share in exact]
