"""Class tables: name, RGB colour and label id of each class of a data set, in the usual order."""

from ccnet.class_tables.ade20k import ADE20K
from ccnet.class_tables.camvid import CAMVID
from ccnet.class_tables.cityscapes import CITYSCAPES
from ccnet.class_tables.voc import VOC

__all__ = ["ADE20K", "CAMVID", "CITYSCAPES", "VOC"]
