"""Data sets for semantic segmentation: images with a class label for every pixel."""

from ccnet.datasets.ade20k import ADE20K
from ccnet.datasets.camvid import CamVid
from ccnet.datasets.cityscapes import Cityscapes
from ccnet.datasets.labeled_images import LabeledImages, Sample, Transforms
from ccnet.datasets.labelmefacade import LabelMeFacade
from ccnet.datasets.mask_folder import MaskFolder
from ccnet.datasets.mixture import Mixture
from ccnet.datasets.renumbered import Renumbered
from ccnet.datasets.selection import select
from ccnet.datasets.street_scenes import StreetScenes
from ccnet.datasets.voc import PascalVOC

__all__ = [
    "ADE20K",
    "CamVid",
    "Cityscapes",
    "LabelMeFacade",
    "LabeledImages",
    "MaskFolder",
    "Mixture",
    "PascalVOC",
    "Renumbered",
    "Sample",
    "StreetScenes",
    "Transforms",
    "select",
]
