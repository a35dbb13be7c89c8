"""Pascal VOC 2012: twenty kinds of objects and the background, which is black.

Source:
    Everingham et al., "The Pascal visual object classes challenge", IJCV 2015.
"""

VOC = (
    ("background", (0, 0, 0), 0),
    ("aeroplane", (128, 0, 0), 1),
    ("bicycle", (0, 128, 0), 2),
    ("bird", (128, 128, 0), 3),
    ("boat", (0, 0, 128), 4),
    ("bottle", (128, 0, 128), 5),
    ("bus", (0, 128, 128), 6),
    ("car", (128, 128, 128), 7),
    ("cat", (64, 0, 0), 8),
    ("chair", (192, 0, 0), 9),
    ("cow", (64, 128, 0), 10),
    ("diningtable", (192, 128, 0), 11),
    ("dog", (64, 0, 128), 12),
    ("horse", (192, 0, 128), 13),
    ("motorbike", (64, 128, 128), 14),
    ("person", (192, 128, 128), 15),
    ("pottedplant", (0, 64, 0), 16),
    ("sheep", (128, 64, 0), 17),
    ("sofa", (0, 192, 0), 18),
    ("train", (128, 192, 0), 19),
    ("tvmonitor", (0, 64, 128), 20),
)
