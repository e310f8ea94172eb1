"""Convert images of any format to 8-bit RGB. Images whose values have no defined black and white are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import ExifTags, Image

__all__ = ["exif_orientation", "to_rgb", "why_not_rgb"]

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_UNSIGNED = (1, 4)
_WHITE_IS_ZERO = 0

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that turns an image upright, by its EXIF orientation (as in ``ImageOps.exif_transpose``)."""


def why_not_rgb(image: Image.Image) -> str | None:
    """The reason why an image cannot be converted to 8-bit RGB, read from its header alone; None where it can."""
    # Images that were made in memory have no format. PIL scales PNM files of 9 to 16 bits to 16, in mode I.
    known = image.format in {None, "PNG", "TIFF", "JPEG2000"} if image.mode != "I" else image.format == "PPM"
    formats = getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, ())
    if image.mode == "F" or 3 in formats:
        return "holds floating-point values, whose black and white are not known: convert it to 8 or 16 bits"
    if (image.mode.startswith("I") and not known) or not set(formats) <= set(_UNSIGNED):
        return "holds signed or 32-bit integers, whose black and white are not known: convert it to 8 or 16 bits"
    return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert the first frame of an image to mode RGB, turned upright by its EXIF orientation.

    Unsigned integers of 9 to 16 bits are scaled by their type's range (value / 257, rounded, for 16 bits); gray and
    palettes become RGB; transparency is dropped; CMYK and other colour spaces are converted as PIL does.

    Raises:
        ValueError: the image holds floating-point, signed or 32-bit values, or is of a mode that PIL does not convert.
    """
    if (reason := why_not_rgb(image)) is not None:
        raise ValueError(reason)
    image.load()
    turn = _UPRIGHT.get(exif_orientation(image) or 1)
    if image.mode.startswith("I"):
        tags: Any = getattr(image, "tag_v2", {})
        top = 2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1
        values = np.asarray(image).astype(np.float64)
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            values = top - values
        image = Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8))
    elif image.mode in ("P", "PA", "RGBa", "La") and ("transparency" in image.info or image.mode != "P"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.mode != "RGB":
        image = image.convert("RGB")
    if turn is not None:
        image = image.transpose(turn)
        image.info = {}  # its orientation lies there, and would turn it again
    return image


def exif_orientation(image: Image.Image) -> int | None:
    """The EXIF orientation of an image, 1 to 8; None where it has none, or damaged EXIF data."""
    try:
        # Read after loading: PIL itself turns TIFF files upright while it loads them, and removes the orientation.
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF data: the image stays as it is
        return None
