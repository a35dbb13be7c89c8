"""Images: decoding of files, arrays and tensors to 8-bit RGB, as a viewer shows them."""

from ccnet.images.bitmap import restore_palette
from ccnet.images.channels import decode_channels
from ccnet.images.decoding import FileLike, ImageLike, check_is_file, decode_image, images_of
from ccnet.images.formats import UNREADABLE, is_picture_name
from ccnet.images.orientation import stored_orientation

__all__ = [
    "UNREADABLE",
    "FileLike",
    "ImageLike",
    "check_is_file",
    "decode_channels",
    "decode_image",
    "images_of",
    "is_picture_name",
    "restore_palette",
    "stored_orientation",
]
