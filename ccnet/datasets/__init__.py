"""Data sets for semantic segmentation: images with a class label for every pixel."""

from ccnet.datasets.camvid import CamVid
from ccnet.datasets.cityscapes import Cityscapes
from ccnet.datasets.labeled_images import LabeledImages, Sample, Transforms
from ccnet.datasets.labelmefacade import LabelMeFacade
from ccnet.datasets.mask_folder import MaskFolder
from ccnet.datasets.renumbered import Renumbered
from ccnet.datasets.selection import select
from ccnet.datasets.street_scenes import StreetScenes

__all__ = [
    "CamVid",
    "Cityscapes",
    "LabelMeFacade",
    "LabeledImages",
    "MaskFolder",
    "Renumbered",
    "Sample",
    "StreetScenes",
    "Transforms",
    "select",
]
