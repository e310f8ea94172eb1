"""Images to PNG and back."""

from __future__ import annotations

import io
import struct
import zlib

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
        return _save(Image.fromarray(np.ascontiguousarray(image)))
    gray = np.ascontiguousarray(image[:, :, 0])
    low, high = int(gray.min()), int(gray.max())
    lit = gray == high
    if np.all(lit | (gray == low)):
        return _two_values(lit, low, high)
    return _save(Image.fromarray(gray))


def _save(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _two_values(lit: NDArray[np.bool_], low: int, high: int) -> bytes:
    """A PNG of 1 bit a pixel (PNG specification, sections 5 and 11), written here, as Pillow is four times slower.

    Run lengths are all that deflate finds in the bits of an image of dots: looking for more costs time and saves none.
    """
    height, width = lit.shape
    lines = np.zeros((height, 1 + (width + 7) // 8), np.uint8)  # a line begins with its filter: none
    lines[:, 1:] = np.packbits(lit, axis=1)
    deflate = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)),
            _chunk(b"PLTE", bytes([low] * 3 + [high] * 3)),
            _chunk(b"IDAT", deflate.compress(lines.tobytes()) + deflate.flush()),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


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
