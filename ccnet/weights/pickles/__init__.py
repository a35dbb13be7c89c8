"""Pickles: PyTorch's checkpoints, read without running any code in them; seals of our own ones."""

from ccnet.weights.pickles.reading import read_pickle
from ccnet.weights.pickles.seals import save_sealed

__all__ = ["read_pickle", "save_sealed"]
