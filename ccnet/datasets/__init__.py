"""Data sets of images with a class for every pixel."""

from ccnet.datasets.camvid import CamVid
from ccnet.datasets.cityscapes import Cityscapes
from ccnet.datasets.labeled_images import LabeledImages, Sample, Transforms
from ccnet.datasets.mask_folder import MaskFolder

__all__ = ["CamVid", "Cityscapes", "LabeledImages", "MaskFolder", "Sample", "Transforms"]
