"""Compresses gray images of two values, 0 and another, directly from their pixels to a zlib stream, and back.

Fractals are such images: dots of one value on black. The formats are RFC 1950 (the zlib stream) and RFC 1951 (deflate).
A stream here is one block with the same Huffman codes for all images; their lengths stand at its start (RFC 1951,
section 3.2.7). An image of FractalDB takes 9,000 bytes. It would take 8,950 with the best codes for each image, and
27,000 with the fixed codes of RFC 1951 (section 3.2.6), which have 8 bits per pixel. The only matches are repetitions
of the last byte (distance 1). All arithmetic is on integers, so that all machines write the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby

import numpy as np
from isal import isal_zlib
from numba import uint8, uint64
from numpy.typing import NDArray

from formulavision.rendering.kernels import kernel

__all__ = ["compress_two_values", "decompress_two_values"]

_END = 256
# Lengths of matches: symbol 257 + i means _SHORTEST[i] plus the value of _EXTRA_BITS[i] bits (RFC 1951, section 3.2.5).
_EXTRA_BITS = (*(i // 4 - 1 if i >= 8 else 0 for i in range(28)), 0)
_SHORTEST = (*(3 + sum(1 << n for n in _EXTRA_BITS[:i]) for i in range(28)), 258)
_LONGEST = 258
_AHEAD = 12
"""Number of bits that are decoded at once."""
# The longest runs that take fewer bits as literals than as a match: of 0, and of the other value.
_LITERALS = 8, 4

# Order in which the lengths of the code-length codes are written (RFC 1951, section 3.2.7), without the last one.
# Symbol 18 means 11 to 138 zeros.
_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1)
_ZEROS, _FEWEST_ZEROS, _MOST_ZEROS = 18, 11, 138

_Bits = tuple[int, int]
"""A value and its number of bits; the lowest bit is written first."""

# Unsigned, because numba checks signed indices for negative values.
_0, _1, _2, _3, _7, _8, _16, _32, _56, _255 = (np.uint64(n) for n in (0, 1, 2, 3, 7, 8, 16, 32, 56, 255))
# Eight pixels are one 64-bit word, the leftmost pixel in the lowest byte. If each is 0 or 1, the highest byte of
# word * GATHER holds the eight bits, the leftmost pixel's highest. The way back: byte * ONES copies the bits to all
# bytes, and SPREAD selects one bit in each.
ONES = np.uint64(0x0101010101010101)
GATHER = np.uint64(0x8040201008040201)
SPREAD = np.uint64(0x0102040810204080)


def compress_two_values(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8] | None:
    """Compress the lines of a PNG, each after its filter 0, to a zlib stream.

    Args:
        pixels: uint8 [h * w].

    Returns:
        uint8 [bytes]; None where the image has more than one value besides 0.
    """
    value = int(pixels.max())
    stream = _compress(pixels, height, width, value, *_head(value or 1), *_tables())
    return stream if len(stream) > 0 else None


def decompress_two_values(stream: bytes, size: int) -> NDArray[np.uint8] | None:
    """Decompress a stream of ``compress_two_values``, twice as fast as a general decoder.

    Returns:
        The lines of the PNG, uint8 [size]; None where the stream has other codes, is damaged, or has another size.
    """
    value = _values().get(stream[:_HEAD_BYTES])
    if value is None:
        return None
    head, head_bits = _head(value)
    data = np.frombuffer(stream + bytes(8), np.uint8)
    lines, end = _decompress(data, size, value, head_bits, *_decoding_tables())
    begins = (int.from_bytes(stream[: len(head)], "little") - int.from_bytes(head, "little")) % (1 << head_bits) == 0
    ends = len(lines) > 0 and stream[end:] == isal_zlib.adler32(lines).to_bytes(4, "big")
    return lines if begins and ends else None


# The codes ------------------------------------------------------------------------------------------------------------


def _code_lengths(value: int) -> dict[int, int]:
    """Number of bits of each symbol's code, for dense dots: half of the symbols are black, a quarter are the value."""
    return {0: 1, value: 2, 285: 5, 259: 6, _END: 7, **dict.fromkeys(range(260, 285), 7)}


def _huffman_codes(lengths: dict[int, int]) -> dict[int, _Bits]:
    """The codes of given lengths (RFC 1951, section 3.2.2). A code is written from its highest bit (section 3.1.1)."""
    codes, code, before = {}, 0, 0
    for symbol, length in sorted(lengths.items(), key=lambda item: (item[1], item[0])):
        code <<= length - before
        codes[symbol] = int(f"{code:0{length}b}"[::-1], 2), length
        code, before = code + 1, length
    return codes


def _join(parts: Iterable[_Bits]) -> _Bits:
    bits = length = 0
    for value, count in parts:
        bits |= value << length
        length += count
    return bits, length


@lru_cache(maxsize=256)
def _head(value: int) -> tuple[NDArray[np.uint8], int]:
    """The start of a stream, before the block's first symbol, and its number of bits."""
    lengths = _code_lengths(value)
    # Code lengths of the literals and match lengths 0 to 285, and of the only distance, 1.
    runs = groupby([*(lengths.get(symbol, 0) for symbol in range(286)), 1])
    widths = {7: 1, _ZEROS: 3, 1: 3, 0: 4, 2: 4, 5: 4, 6: 4}
    codes = _huffman_codes(widths)

    def parts() -> Iterator[_Bits]:
        yield from ((0x78, 8), (0x01, 8))  # deflate with a window of 32 kB, fastest (RFC 1950, section 2.2)
        yield from ((1, 1), (2, 2))  # the last block, with dynamic codes (RFC 1951, section 3.2.3)
        yield from ((286 - 257, 5), (1 - 1, 5), (len(_ORDER) - 4, 4))
        yield from ((widths.get(symbol, 0), 3) for symbol in _ORDER)
        for length, run in runs:
            count = len(list(run))
            while length == 0 and count >= _FEWEST_ZEROS:
                zeros = min(count, _MOST_ZEROS)
                yield from (codes[_ZEROS], (zeros - _FEWEST_ZEROS, 7))
                count -= zeros
            yield from [codes[length]] * count

    bits, count = _join(parts())
    return np.frombuffer(bits.to_bytes(count // 8 + 1, "little"), np.uint8), count


_CODES = _huffman_codes(_code_lengths(1))
"""Codes for any value, which stands as symbol 1 here."""


def _repeat(pixel: int, count: int) -> Iterator[_Bits]:
    """The codes that repeat the last pixel (0, or 1 for the value) up to 258 times."""
    if count <= _LITERALS[pixel]:
        yield from [_CODES[pixel]] * count
    else:
        symbol = max(i for i, shortest in enumerate(_SHORTEST) if shortest <= count)
        yield from (_CODES[257 + symbol], (count - _SHORTEST[symbol], _EXTRA_BITS[symbol]), (0, 1))


def _code(pixels: Iterable[int]) -> _Bits:
    runs = ((pixel, len(list(run))) for pixel, run in groupby(pixels))
    return _join(part for pixel, count in runs for part in (_CODES[pixel], *_repeat(pixel, count - 1)))


@lru_cache
def _tables() -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    """Tables of codes for the encoder. Bits 0 to 15 of an entry are the code, bits 16 to 23 its number of bits.

    Returns:
        uint64 [259]: by a number of zeros, the code of as many zeros.
        uint64 [258]: by a number of repetitions, the code that repeats the value as often.
        uint64 [256]: by eight pixels, the code from their first to their last pixel of the value. From bit 24: the
        number of zeros before it; from bit 28: after it; from bit 32: the number of pixels of the value; from bit 40:
        the sum of their positions.
    """
    zeros = [_code([0] * count) for count in range(_LONGEST + 1)]
    repeats = [_join(_repeat(1, count)) for count in range(_LONGEST)]
    spans = []
    for byte in range(256):
        pixels = [byte >> 7 - k & 1 for k in range(8)]
        places = [k for k in range(8) if pixels[k]] or [0]
        code, bits = _code(pixels[places[0] : places[-1] + 1])
        edges = places[0] << 24 | 7 - places[-1] << 28
        spans.append(code | bits << 16 | edges | sum(pixels) << 32 | sum(places) << 40)
    pack = [np.array([code | bits << 16 for code, bits in table], np.uint64) for table in (zeros, repeats)]
    return pack[0], pack[1], np.array(spans, np.uint64)


_HEAD_BYTES = 18
"""Number of bytes in which the streams of different values differ."""


@lru_cache
def _values() -> dict[bytes, int]:
    """The values 1 to 255, by the first bytes of their streams."""
    return {_head(value)[0][:_HEAD_BYTES].tobytes(): value for value in range(1, 256)}


@lru_cache
def _decoding_tables() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Tables for the decoder, by the next bits of the stream. From bit 16, an entry has the number of bits to consume.

    Returns:
        uint64 [4096], by 12 bits: up to eight pixels, one bit each, the first highest; from bit 8 their number.
        uint64 [128], by 7 bits: the shortest repetition that the code means, or 0 for the end; from bit 9 the number of
        extra bits, whose value is added.
    """
    ahead = np.arange(1 << _AHEAD)
    used = pixels = number = 0 * ahead
    for k in range(8):
        left = ahead >> used
        lit = left & 1
        fits = (number == k) & (used + lit < _AHEAD) & (left & 3 != 3)
        pixels, number, used = pixels | (fits & lit) << 7 - k, number + fits, used + fits * (1 + lit)
    repetitions = np.zeros(128, np.uint64)
    for symbol in range(_END, 286):
        if symbol in _CODES:
            code, length = _CODES[symbol]
            i = symbol - 257
            what = 0 if symbol == _END else _SHORTEST[i] | _EXTRA_BITS[i] << 9
            repetitions[code :: 1 << length] = what | length << 16
    return (pixels | number << 8 | used << 16).astype(np.uint64), repetitions


_END_CODE, _LONGEST_CODE = (np.uint64(_CODES[symbol][0]) for symbol in (_END, 285))
_END_BITS = np.uint64(_CODES[_END][1])
_LONGEST_BITS = np.uint64(_CODES[285][1] + 1)  # with the bit of the distance
_258, _2048 = np.uint64(_LONGEST), np.uint64(8 << 8)
_ADLER = np.uint64(65521)


# The stream -----------------------------------------------------------------------------------------------------------


@kernel
def _put(out, place, bits, count, code, length):  # type: ignore[no-untyped-def]
    """Append a code to the up to seven pending bits, and write the bytes that are complete.

    Returns:
        The index of the next byte, the pending bits, and their number.
    """
    bits |= code << count
    count += length
    for k in range(8):
        out[place + uint64(k)] = uint8(bits >> uint64(8 * k))
    return place + (count >> _3), bits >> (count & ~_7), count & _7


@kernel(inline="always")
def _put_long_gap(out, place, bits, count, gap):  # type: ignore[no-untyped-def]
    """Append the part of a run of zeros that is longer than the table of zeros: one zero, and repetitions of it.

    Returns:
        The values of ``_put``, and the number of zeros that remain.
    """
    if gap > _258:
        place, bits, count = _put(out, place, bits, count, _0, _1)
        gap -= _1
        while gap >= _258:
            place, bits, count = _put(out, place, bits, count, _LONGEST_CODE, _LONGEST_BITS)
            gap -= _258
    return place, bits, count, gap


@kernel
def _compress(pixels, height, width, value, head, head_bits, zeros, repeats, spans):  # type: ignore[no-untyped-def]
    """The zlib stream, uint8 [bytes]; empty where a pixel is neither 0 nor the value.

    Args:
        pixels: uint8 [h * w].
        value: the highest pixel.

    Positions count the bytes of the lines: the filter of a row, 0, comes before its pixels like one more black pixel.
    """
    height, width, value = uint64(height), uint64(width), uint64(value)
    total = height * (width + _1)
    # A pixel takes at most two bits.
    out = np.empty(uint64(len(head)) + total // uint64(4) + uint64(32), np.uint8)
    for i in range(len(head)):
        out[i] = head[i]
    place, count = uint64(head_bits) >> _3, uint64(head_bits) & _7
    bits = uint64(head[place])
    # The position of a bit that is set in the value.
    shift = _0
    while value >> shift > _1 and value >> shift & _1 == _0:
        shift += _1
    whole, rest = width >> _3, width & _7
    found = np.empty(whole + _2, np.uint64)
    # Becomes nonzero at the first pixel of another value.
    others = _0
    # Number of the pixels of the value and sum of their positions, for the checksum.
    number = places = _0
    end = start = _0
    line = _1
    for _ in range(height):
        # Words with a pixel of the value are collected without a branch: wrongly predicted branches are slow.
        last = _0
        for i in range(whole):
            word = _0
            for k in range(8):
                word |= uint64(pixels[start + (i << _3) + uint64(k)]) << uint64(8 * k)
            lit = word >> shift & ONES
            others |= word ^ lit * value
            byte = lit * GATHER >> _56
            found[last] = i << uint64(11) | byte
            last += uint64(byte != _0)
        if rest > _0:
            word = _0
            for k in range(rest):
                word |= uint64(pixels[start + (whole << _3) + k]) << (k << _3)
            lit = word >> shift & ONES
            others |= word ^ lit * value
            byte = lit * GATHER >> _56
            found[last] = whole << uint64(11) | byte
            last += uint64(byte != _0)
        if others != _0:
            return out[:0]
        found[last] = _0
        j = _0
        while j < last:
            entry = found[j]
            j += _1
            byte = entry & _255
            at = line + (entry >> _8)
            span = spans[byte]
            lit = span >> uint64(32) & _255
            number += lit
            places += (span >> uint64(40)) + lit * at
            gap = at + (span >> uint64(24) & _7) - end
            end = at + _8 - (span >> uint64(28) & _7)
            place, bits, count, gap = _put_long_gap(out, place, bits, count, gap)
            code = zeros[gap]
            length = code >> _16
            code = code & uint64(65535) | (span & uint64(65535)) << length
            place, bits, count = _put(out, place, bits, count, code, length + (span >> _16 & _255))
            # A run of words with eight pixels of the value each.
            if found[j] == entry + _2048 and byte == _255:
                more = _0
                while found[j] == entry + _2048:
                    entry += _2048
                    more += _8
                    j += _1
                places += more * (at + _8) + (more * (more - _1) >> _1)
                number += more
                end += more
                while more >= _258:
                    place, bits, count = _put(out, place, bits, count, _LONGEST_CODE, _LONGEST_BITS)
                    more -= _258
                code = repeats[more]
                place, bits, count = _put(out, place, bits, count, code & uint64(65535), code >> _16)
        start += width
        line += width + _1
    gap = total - end
    place, bits, count, gap = _put_long_gap(out, place, bits, count, gap)
    code = zeros[gap]
    place, bits, count = _put(out, place, bits, count, code & uint64(65535), code >> _16)
    place, bits, count = _put(out, place, bits, count, _END_CODE, _END_BITS)
    place += _1 if count > _0 else _0
    # Adler-32 (RFC 1950, section 9): a byte counts once in the low sum, and in the high sum for itself and each later
    # byte.
    low = (_1 + value * number) % _ADLER
    high = (total + value * (number * total - places)) % _ADLER
    for k in range(4):
        out[place + uint64(k)] = uint8((high << _16 | low) >> uint64(24 - 8 * k))
    return out[: place + uint64(4)]


@kernel
def _decompress(data, size, value, head_bits, literals, repetitions):  # type: ignore[no-untyped-def]
    """The lines, uint8 [size], or none where the stream has other codes or another size; the index of the checksum."""
    size, value = uint64(size), uint64(value)
    lines = np.zeros(size + _8, np.uint8)
    place = uint64(head_bits) >> _3
    bits = uint64(data[place]) >> (uint64(head_bits) & _7)
    count = _8 - (uint64(head_bits) & _7)
    place += _1
    last = uint64(len(data)) - _8
    done = _0
    while True:
        if count < _32:
            if place > last:
                return lines[:0], place
            for k in range(4):
                bits |= uint64(data[place + uint64(k)]) << (count + uint64(8 * k))
            place += uint64(4)
            count += _32
        entry = literals[bits & uint64((1 << _AHEAD) - 1)]
        number = entry >> _8 & _255
        if number > _0:
            lit = ((entry & _255) * ONES & SPREAD) + ONES * uint64(127) >> _7 & ONES
            word = lit * value
            for k in range(8):
                lines[done + uint64(k)] = uint8(word >> uint64(8 * k))
            done += number
            used = entry >> _16
            if done > size:
                return lines[:0], place
        else:
            entry = repetitions[bits & uint64(127)]
            used = entry >> _16
            number = entry & uint64(511)
            bits >>= used
            count -= used
            if number == _0:
                break
            extra = entry >> uint64(9) & _7
            number += bits & (_1 << extra) - _1
            # The code of distance 1 is one bit, 0.
            if bits >> extra & _1 != _0 or done == _0 or done + number > size:
                return lines[:0], place
            pixel = lines[done - _1]
            if pixel > 0:
                for k in range(number):
                    lines[done + k] = pixel
            done += number
            used = extra + _1
        bits >>= used
        count -= used
    if done != size:
        return lines[:0], place
    return lines[:size], place - (count >> _3)
