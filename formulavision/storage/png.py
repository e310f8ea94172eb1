"""The PNG encoder and decoder.

Images are 8-bit gray or RGB, which all readers read alike; object maps of more than 255 objects are 16-bit gray.
``deflate.py`` compresses gray images of two values, 0 and another. All other images are filtered here and compressed by
ISA-L (``isal``), the fastest library whose bytes are the same in every process (``benchmarks/encoding.py`` has the
figures). Files that this encoder does not write, such as interlaced PNGs, are decoded by Pillow.
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache

import numpy as np
from isal import isal_zlib
from jaxtyping import UInt8, UInt16
from numba import uint8, uint32, uint64
from numpy.typing import NDArray
from PIL import Image

from formulavision.rendering.kernels import kernel
from formulavision.storage.deflate import GATHER, ONES, SPREAD, compress_two_values, decompress_two_values
from formulavision.util.config import did_you_mean
from formulavision.util.errors import ConfigError

__all__ = [
    "DEFAULT_ENCODING",
    "ENCODINGS",
    "check_encoding",
    "decode_image",
    "decode_object_map",
    "encode_gray",
    "encode_object_map",
    "encode_png",
]

ENCODINGS = ("plain", "compact")
DEFAULT_ENCODING = "plain"

LEVEL = 0
"""Compression level of ISA-L. At levels 0 and 3 all processes write the same bytes, which a store needs. At levels 1
and 2 one process in ten compresses one image in some thousands to other bytes."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _RGB, _PALETTE = 0, 2, 3
_NONE, _SUB, _UP = range(3)
# Pillow decodes larger images, or refuses them.
_MOST_PIXELS = 2**28

# Unsigned, because numba checks signed indices for negative values.
_0, _1, _3, _4, _7, _8, _56, _127 = (np.uint64(n) for n in (0, 1, 3, 4, 7, 8, 56, 127))


def check_encoding(name: str) -> None:
    """Refuse an unknown encoding.

    Raises:
        ConfigError: there is no such encoding.
    """
    if name not in ENCODINGS:
        raise ConfigError(
            f"--png {name}: there is no such encoding{did_you_mean(name, ENCODINGS)}; known: {', '.join(ENCODINGS)}"
        )


def encode_png(image: NDArray[np.uint8], encoding: str = DEFAULT_ENCODING) -> bytes:
    """Encode an image as PNG, lossless.

    Args:
        image: uint8 [h, w, 1] or [h, w, 3].
        encoding: plain writes 8 bits for a gray pixel, 24 for a coloured one. compact writes a gray image of two values
            with 1 bit per pixel and a palette of the two; some readers, such as numpy's view of a Pillow image and
            torchvision's ``decode_image``, then return indices of the palette instead of gray values.
    """
    height, width, channels = image.shape
    pixels = np.ascontiguousarray(image).reshape(-1)
    if channels == 3:
        return _png(_head(width, height, 8, _RGB), _deflate(_filter(pixels, height, 3)))
    if encoding == "compact":
        low, high, lines = _pack(pixels, height, width)
        if len(lines) > 0:
            return _png(_head(width, height, 1, _PALETTE, (low, low, low, high, high, high)), _deflate(lines))
    else:
        stream = compress_two_values(pixels, height, width)
        if stream is not None:
            return _png(_head(width, height, 8, _GRAY), stream)
    return _png(_head(width, height, 8, _GRAY), _deflate(_filter(pixels, height, 1)))


def encode_gray(values: UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]) -> bytes:
    """Encode numbers of pixels as a gray PNG of as many bits, lossless."""
    if values.dtype == np.uint8:
        return encode_png(values[:, :, None])
    height, width = values.shape
    lines = values.astype(">u2").reshape(-1).view(np.uint8)  # the highest byte comes first (section 7.1)
    return _png(_head(width, height, 16, _GRAY), _deflate(_filter(lines, height, 2)))


def encode_object_map(object_map: UInt16[np.ndarray, "h w"], objects: int) -> bytes:
    """Encode an object map as PNG: 8-bit gray up to 255 objects, 16-bit gray above.

    Args:
        objects: number of objects in the image, also of those that others hide.
    """
    return encode_gray(object_map.astype(np.uint8) if objects <= 255 else object_map)


@lru_cache(maxsize=64)
def _head(width: int, height: int, depth: int, color: int, palette: tuple[int, ...] = ()) -> bytes:
    """The bytes of the file before the compressed data (PNG specification, sections 5 and 11)."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return _SIGNATURE + header + (_chunk(b"PLTE", bytes(palette)) if palette else b"")


def _deflate(lines: NDArray[np.uint8]) -> bytes:
    return isal_zlib.compress(lines, LEVEL)


def _png(head: bytes, stream: bytes | NDArray[np.uint8]) -> bytes:
    """The whole file, from the zlib stream of its filtered lines (section 10)."""
    return head + _chunk(b"IDAT", bytes(stream)) + _END


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", isal_zlib.crc32(data, isal_zlib.crc32(kind)))


_END = _chunk(b"IEND", b"")


@kernel
def _word(data, i):  # type: ignore[no-untyped-def]
    """Eight bytes from index i (uint64) as one number, the first byte lowest; compiled to a single load."""
    word = _0
    for k in range(8):
        word |= uint64(data[i + uint64(k)]) << uint64(8 * k)
    return word


@kernel
def _set_word(data, i, word):  # type: ignore[no-untyped-def]
    for k in range(8):
        data[i + uint64(k)] = uint8(word >> uint64(8 * k))


@kernel
def _pack(pixels, height, width):  # type: ignore[no-untyped-def]
    """Lines of 1 bit per pixel, each after the byte of its filter, 0 (none).

    Args:
        pixels: uint8 [h * w].

    Returns:
        The lowest and the highest value, and the lines, uint8 [h (1 + ceil(w / 8))]; no lines where the image has more
        than two values.
    """
    low = high = pixels[0]
    for pixel in pixels:
        low = min(low, pixel)
        high = max(high, pixel)
    # The position of a bit in which the two values differ.
    difference = uint64(low ^ high)
    shift = _0
    while difference >> shift > _1:
        shift += _1
    lows = ONES * uint64(low)
    whole = uint64(width) >> _3
    rest = uint64(width) & _7
    lines = np.zeros(height * (1 + (width + 7) // 8), np.uint8)
    # Becomes nonzero at the first pixel of a third value.
    others = _0
    start = place = _0
    for _ in range(height):
        place += _1
        for i in range(whole):
            word = _word(pixels, start + (i << _3)) ^ lows
            bits = word >> shift & ONES
            others |= word ^ bits * difference
            lines[place + i] = uint8(bits * GATHER >> _56)
        start += whole << _3
        place += whole
        if rest > _0:
            last = _0
            for k in range(rest):
                word = uint64(pixels[start + k] ^ low)
                bits = word >> shift & _1
                others |= word ^ bits * difference
                last |= bits << _7 - k
            lines[place] = uint8(last)
            start += rest
            place += _1
        if others != _0:
            return low, high, lines[:0]
    return low, high, lines


@kernel
def _cost(values, predictions, step):  # type: ignore[no-untyped-def]
    """Estimated compressed size of the differences between values and their predictions.

    A difference that equals the one of the previous pixel costs nothing; others cost more the further from 0 they are.
    """
    cost = uint32(0)
    back = uint64(step)
    for i in range(back, uint64(len(values))):
        residue = uint8(values[i] - predictions[i])
        last = uint8(values[i - back] - predictions[i - back])
        size = uint8(min(residue, uint8(-residue), uint8(15)) + uint8(1))
        cost = uint32(cost + (size if residue != last else uint8(0)))
    return cost


@kernel
def _filter(pixels, height, step):  # type: ignore[no-untyped-def]
    """Lines after the filter (PNG specification, section 9) with the lowest cost, of none, Sub and Up.

    Average and Paeth are left out: readers need 3 and 9 times as long to undo them as for Sub.

    Args:
        pixels: uint8 [h * w * step].
        step: bytes per pixel.

    Returns:
        uint8 [h (1 + w * step)].
    """
    width = len(pixels) // height
    # The cost leaves the edges of the image out.
    none = _cost(pixels, np.zeros_like(pixels), step)
    sub = _cost(pixels[step:], pixels[:-step], step)
    up = _cost(pixels[width:], pixels[:-width], step)
    best = _UP if up < min(none, sub) else _SUB if sub < none else _NONE
    lines = np.empty(height * (1 + width), np.uint8)
    start = place = _0
    back = uint64(step if best == _SUB else width)
    for row in range(height):
        lines[place] = best
        place += _1
        # Bytes without a left or upper neighbour are not filtered.
        alone = uint64(width)
        if best == _SUB:
            alone = uint64(step)
        elif best == _UP and row > 0:
            alone = _0
        for i in range(alone):
            lines[place + i] = pixels[start + i]
        for i in range(alone, uint64(width)):
            lines[place + i] = uint8(pixels[start + i] - pixels[start + i - back])
        start += uint64(width)
        place += uint64(width)
    return lines


def decode_image(data: bytes, channels: int) -> NDArray[np.uint8]:
    """Decode an image: uint8 [h, w, channels].

    Args:
        data: a PNG, or any file that Pillow reads.
        channels: 1 converts to gray, 3 to RGB.

    Raises:
        OSError: the data is no image, is cut short or is damaged.
    """
    image = _decode_png(data, channels) if data.startswith(_SIGNATURE) else None
    if image is not None:
        return image
    with Image.open(io.BytesIO(data)) as picture:
        if channels == 3:
            return np.asarray(picture.convert("RGB"))
        # A palette of grays is converted by way of RGB; the weights add up to 1, so that grays keep their values.
        return np.asarray(picture.convert("L"))[:, :, None]


def decode_object_map(data: bytes) -> UInt16[np.ndarray, "h w"]:
    """Decode an object map: a gray PNG of 8 or 16 bits.

    Raises:
        OSError: the data is no such PNG, is cut short or is damaged.
    """
    if data.startswith(_SIGNATURE):
        for size in (1, 2):
            pixels = _decode_png(data, size)
            if pixels is not None:
                return pixels[:, :, 0].astype(np.uint16) if size == 1 else pixels.view(">u2")[:, :, 0].astype(np.uint16)
    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode not in ("L", "I;16"):
            raise OSError(f"no object map: its pixels are {picture.mode}, not gray of 8 or 16 bits")
        return np.asarray(picture).astype(np.uint16)


def _decode_png(data: bytes, channels: int) -> NDArray[np.uint8] | None:
    """Decode a PNG of a kind that this module writes, uint8 [h, w, channels]; None for other kinds.

    Args:
        channels: bytes of a pixel: 1 for gray, 2 for gray of 16 bits, 3 for RGB.

    Raises:
        OSError: the data is cut short or is damaged.
    """
    chunks = _read_chunks(data)
    header = b"".join(chunks.pop(b"IHDR", []))
    palette = b"".join(chunks.pop(b"PLTE", []))
    if chunks.keys() != {b"IDAT", b"IEND"} or len(header) != 13:
        return None
    width, height, depth, color, *methods = struct.unpack(">IIBBBBB", header)
    values = _two_values(color, palette) if depth == channels == 1 else None
    in_bytes = (color, depth, channels) in ((_GRAY, 8, 1), (_GRAY, 16, 2), (_RGB, 8, 3))
    if not (values or in_bytes) or any(methods) or not 0 < width * height <= _MOST_PIXELS:
        return None
    size = height * (1 + ((width + 7) // 8 if values else width * channels))
    lines = _undo(_inflate(b"".join(chunks[b"IDAT"]), size), height, channels)
    if len(lines) == 0:
        return None
    pixels = _unpack(lines, height, width, *values) if values else lines
    return pixels.reshape(height, width, channels)


def _inflate(stream: bytes, size: int) -> NDArray[np.uint8]:
    lines = decompress_two_values(stream, size)
    if lines is not None:
        return lines
    inflate = isal_zlib.decompressobj()
    try:
        raw = inflate.decompress(stream, size + 1)
    except isal_zlib.error as error:  # type: ignore[misc]  # its stub has an instance for the class
        raise OSError(f"damaged PNG: {error}") from None
    if len(raw) != size or not inflate.eof:
        raise OSError("damaged PNG: its data is not of the size of the image")
    return np.frombuffer(raw, np.uint8)


def _two_values(color: int, palette: bytes) -> tuple[int, int] | None:
    """The two gray values of an image of 1 bit per pixel; None where the palette is not of two grays."""
    if color == _GRAY:
        return 0, 255
    if color == _PALETTE and len(palette) == 6:
        low, high = palette[0], palette[3]
        return (low, high) if palette == bytes((low, low, low, high, high, high)) else None
    return None


def _read_chunks(data: bytes) -> dict[bytes, list[bytes]]:
    """The contents of the chunks up to the end chunk, by kind.

    Raises:
        OSError: the data is cut short, or a checksum is wrong.
    """
    chunks: dict[bytes, list[bytes]] = {}
    kind, start = b"", len(_SIGNATURE)
    while kind != b"IEND":
        end = start + 8 + int.from_bytes(data[start : start + 4], "big")
        checksum = data[end : end + 4]
        if len(checksum) < 4 or isal_zlib.crc32(data[start + 4 : end]) != int.from_bytes(checksum, "big"):
            raise OSError("PNG cut short or damaged")
        kind = data[start + 4 : start + 8]
        chunks.setdefault(kind, []).append(data[start + 8 : end])
        start = end + 4
    return chunks


@kernel
def _undo(raw, height, step):  # type: ignore[no-untyped-def]
    """Undo the filters of lines (PNG specification, section 9).

    Args:
        raw: uint8 [h (1 + w)].
        step: bytes per pixel, at least 1.

    Returns:
        uint8 [h * w]; empty where a line has a filter that the encoder does not use.
    """
    width = uint64(len(raw) // height) - _1
    # The line above the first one counts as zeros.
    lines = np.empty((height + 1) * width, np.uint8)
    for i in range(width):
        lines[i] = 0
    start = above = _0
    for _ in range(height):
        kind = raw[start]
        start += _1
        here = above + width
        if kind == _NONE:
            for i in range(width):
                lines[here + i] = raw[start + i]
        elif kind == _UP:
            for i in range(width):
                lines[here + i] = uint8(raw[start + i] + lines[above + i])
        elif kind == _SUB:
            # Channel by channel, so that the left neighbour stays in a register.
            for channel in range(uint64(step)):
                left = uint8(0)
                for i in range(channel, width, uint64(step)):
                    left = uint8(raw[start + i] + left)
                    lines[here + i] = left
        else:
            return lines[:0]
        start += width
        above = here
    return lines[width:]


@kernel
def _unpack(lines, height, width, low, high):  # type: ignore[no-untyped-def]
    """Pixels, uint8 [h * w], of lines of 1 bit per pixel, uint8 [h * ceil(w / 8)]."""
    pixels = np.empty(height * width, np.uint8)
    difference = uint64(low ^ high)
    lows = ONES * uint64(low)
    whole = uint64(width) >> _3
    rest = uint64(width) & _7
    start = place = _0
    for _ in range(height):
        for i in range(whole):
            bits = ((uint64(lines[start + i]) * ONES & SPREAD) + ONES * _127 >> _7) & ONES
            _set_word(pixels, place + (i << _3), bits * difference ^ lows)
        start += whole
        place += whole << _3
        if rest > _0:
            for k in range(rest):
                bit = uint64(lines[start]) >> _7 - k & _1
                pixels[place + k] = uint8(bit * difference ^ uint64(low))
            start += _1
            place += rest
    return pixels
