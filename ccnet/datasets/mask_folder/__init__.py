"""MaskFolder: a data set of your own images and masks, and what its files say."""

from ccnet.datasets.mask_folder.classes_file import ClassesFile
from ccnet.datasets.mask_folder.dataset import LONGEST_REPORT, MaskFolder

__all__ = ["LONGEST_REPORT", "ClassesFile", "MaskFolder"]
