"""CamVid: the eleven classes in common use, and their usual colours.

Source:
    Brostow, Fauqueur and Cipolla, "Semantic object classes in video", PRL 2009.
"""

CAMVID = (
    ("sky", (128, 128, 128), 0),
    ("building", (128, 0, 0), 1),
    ("pole", (192, 192, 128), 2),
    ("road", (128, 64, 128), 3),
    ("pavement", (60, 40, 222), 4),
    ("tree", (128, 128, 0), 5),
    ("sign symbol", (192, 128, 128), 6),
    ("fence", (64, 64, 128), 7),
    ("car", (64, 0, 128), 8),
    ("pedestrian", (64, 64, 0), 9),
    ("bicyclist", (0, 128, 192), 10),
)
