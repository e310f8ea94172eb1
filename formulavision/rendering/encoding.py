"""Images to PNG and back."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["decode_image", "encode_png"]


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """A PNG of uint8 [h, w, 1] or [h, w, 3], lossless.

    A gray image of two values becomes 1 bit a pixel with a palette of the true values, so that every reader sees them
    (a published FractalDB image reads as (0, 0, 0) and (127, 127, 127)), other gray images 8 bits a pixel.
    """
    if image.shape[2] == 3:
        return _save(Image.fromarray(np.ascontiguousarray(image)), compress_level=1)
    gray = image[:, :, 0]
    low, high = int(gray.min()), int(gray.max())
    lit = gray == high
    if not np.all(lit | (gray == low)):
        return _save(Image.fromarray(np.ascontiguousarray(gray)), compress_level=1)
    picture = Image.fromarray(lit.view(np.uint8))
    picture.putpalette([low] * 3 + [high] * 3)
    return _save(picture, bits=1, compress_level=6)


def _save(picture: Image.Image, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


def decode_image(data: bytes, channels: int) -> NDArray[np.uint8]:
    """An encoded image as uint8 [h, w, channels].

    Raises:
        OSError: the data is no image or is cut short.
    """
    with Image.open(io.BytesIO(data)) as picture:
        if channels == 3:
            return np.asarray(picture.convert("RGB"))
        # From a palette of grays to "L" by way of RGB: the weights of the conversion add up to one gray's own value.
        return np.asarray(picture.convert("L"))[:, :, None]
