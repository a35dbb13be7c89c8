"""Data sets for semantic segmentation: images with a class label for every pixel."""

from ccnet.datasets.camvid import CamVid
from ccnet.datasets.cityscapes import Cityscapes
from ccnet.datasets.labeled_images import LabeledImages, Sample, Transforms
from ccnet.datasets.mask_folder import MaskFolder
from ccnet.datasets.street_scenes import StreetScenes

__all__ = [
    "CamVid",
    "Cityscapes",
    "LabeledImages",
    "MaskFolder",
    "Sample",
    "StreetScenes",
    "Transforms",
]
