"""Orientation: how a viewer turns an image, by its EXIF data."""

from PIL import ExifTags, Image

from ccnet.images.formats import UNREADABLE


def stored_orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image, 1..8, or what XMP says where EXIF says nothing.

    Whatever else is there, such as text, counts as 1, upright; so does damaged EXIF data. Pillow
    turns a TIFF by the same rule when it reads the pixels, and forgets the orientation then.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return int(orientation) if orientation in range(1, 9) else 1
    except UNREADABLE:
        return 1
