"""zlib streams of gray images of two values, 0 and another, straight from their pixels.

Fractals are such images: one value on black. zlib's formats are RFC 1950 (the stream) and RFC 1951
(deflate, its blocks). A stream here is one block whose Huffman codes are the same for all images; the block begins with
their lengths (RFC 1951, section 3.2.7). The codes that RFC 1951 itself fixes (section 3.2.6) have 8 bits for a pixel:
27,000 bytes for an image of FractalDB, where the ones below take 9,000, and the best ones for each image 8,950.
Bytes are literals, or repeat the last one (a match of distance 1); no other match is looked for. All arithmetic is of
integers, so all machines write the same bytes.
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
# Lengths of matches: symbol 257 + i stands for _SHORTEST[i] and the value of so many bits (RFC 1951, section 3.2.5).
_EXTRA_BITS = (*(i // 4 - 1 if i >= 8 else 0 for i in range(28)), 0)
_SHORTEST = (*(3 + sum(1 << n for n in _EXTRA_BITS[:i]) for i in range(28)), 258)
_LONGEST = 258
_AHEAD = 12
"""Bits that are decoded at once."""
# Shorter matches take more bits than literals: of 0, and of the other value.
_LITERALS = 8, 4

# Symbols in the order in which the lengths of the codes for lengths of codes are written (RFC 1951, section 3.2.7), the
# last left out. 18 stands for 11 zeros and more.
_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1)
_ZEROS, _FEWEST_ZEROS, _MOST_ZEROS = 18, 11, 138

_Bits = tuple[int, int]
"""A value and the number of its bits; the lowest is written first."""

# Unsigned, as all numbers that they meet: numba looks for negative indices otherwise.
_0, _1, _2, _3, _7, _8, _16, _32, _56, _255 = (np.uint64(n) for n in (0, 1, 2, 3, 7, 8, 16, 32, 56, 255))
# Eight pixels in a word, the leftmost in the lowest byte. Where each is 0 or 1, the highest byte of the product with
# _GATHER is their bits, the leftmost first. Where a product with _ONES has copied these bits to all bytes, those of
# _SPREAD are one for each pixel.
_ONES = np.uint64(0x0101010101010101)
_GATHER = np.uint64(0x8040201008040201)
_SPREAD = np.uint64(0x0102040810204080)


def compress_two_values(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8] | None:
    """The zlib stream of a PNG's lines, each behind filter 0; None where there are two values beside 0.

    Args:
        pixels: uint8 [h * w].
    """
    value = int(pixels.max())
    stream = _compress(pixels, height, width, value, *_head(value or 1), *_tables())
    return stream if len(stream) > 0 else None


def decompress_two_values(stream: bytes, size: int) -> NDArray[np.uint8] | None:
    """The lines that ``compress_two_values`` made a stream of, uint8 [size], twice as fast as a general decoder.

    None where the stream is another one, is damaged, or has not that size.
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
    """Bits of each symbol's code. Black is half of what is written where dots are dense, the value a quarter."""
    return {0: 1, value: 2, 285: 5, 259: 6, _END: 7, **dict.fromkeys(range(260, 285), 7)}


def _huffman_codes(lengths: dict[int, int]) -> dict[int, _Bits]:
    """By RFC 1951, section 3.2.2. The first bit of a code is its highest (section 3.1.1)."""
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
    """A stream up to the block's first symbol, and the number of its bits."""
    lengths = _code_lengths(value)
    # Of literals and lengths 0 to 285, and of distance 1, the only one.
    runs = groupby([*(lengths.get(symbol, 0) for symbol in range(286)), 1])
    widths = {7: 1, _ZEROS: 3, 1: 3, 0: 4, 2: 4, 5: 4, 6: 4}
    codes = _huffman_codes(widths)

    def parts() -> Iterator[_Bits]:
        yield from ((0x78, 8), (0x01, 8))  # deflate with a window of 32 kB, fastest (RFC 1950, section 2.2)
        yield from ((1, 1), (2, 2))  # the last block, of codes of its own (RFC 1951, section 3.2.3)
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
"""The same for all values."""


def _repeat(pixel: int, count: int) -> Iterator[_Bits]:
    """What repeats the last pixel, 0 or 1 for the value, up to 258 times."""
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
    """Codes, the number of their bits from bit 16 on.

    Returns:
        so many zeros: [259].
        repeat the value so many times: [258].
        eight pixels from the first of the value to the last: [256]. From bit 24 on the zeros before them, from 28 on
        those behind, from 32 on the number of pixels of the value and from 40 on the sum of their places.
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
"""The heads of all values differ within these."""


@lru_cache
def _values() -> dict[bytes, int]:
    """Values by the first bytes of their streams."""
    return {_head(value)[0][:_HEAD_BYTES].tobytes(): value for value in range(1, 256)}


@lru_cache
def _decoding_tables() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """What the next bits stand for, the number of bits from bit 16 on.

    Returns:
        pixels, up to eight: [4096], by 12 bits. One bit for each pixel, the first highest; from bit 8 on their number.
        the end or a repetition: [128], by 7 bits. The shortest repetition of the code, 0 for the end; from bit 9 on the
        number of bits to add to it.
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
_LONGEST_BITS = np.uint64(_CODES[285][1] + 1)  # with the distance's
_258, _2048 = np.uint64(_LONGEST), np.uint64(8 << 8)
_ADLER = np.uint64(65521)


# The stream -----------------------------------------------------------------------------------------------------------


@kernel
def _put(out, place, bits, count, code, length):  # type: ignore[no-untyped-def]
    """Append a code to up to seven bits that wait for a whole byte; write the bytes that are whole.

    Returns:
        The place for the next byte, the bits that wait now, and their number.
    """
    bits |= code << count
    count += length
    for k in range(8):
        out[place + uint64(k)] = uint8(bits >> uint64(8 * k))
    return place + (count >> _3), bits >> (count & ~_7), count & _7


@kernel(inline="always")
def _put_long_gap(out, place, bits, count, gap):  # type: ignore[no-untyped-def]
    """Append what the table of zeros is too short for: one zero, and that repeated.

    Returns:
        What ``_put`` does, and the zeros that are left.
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
    """The stream; empty where a pixel is neither 0 nor the value, which is then the highest of all.

    Places are those in the lines, where a row's filter, 0, stands before it like one more black pixel.
    """
    height, width, value = uint64(height), uint64(width), uint64(value)
    total = height * (width + _1)
    # No pixel takes more than two bits.
    out = np.empty(uint64(len(head)) + total // uint64(4) + uint64(32), np.uint8)
    for i in range(len(head)):
        out[i] = head[i]
    place, count = uint64(head_bits) >> _3, uint64(head_bits) & _7
    bits = uint64(head[place])
    # A bit that the value has.
    shift = _0
    while value >> shift > _1 and value >> shift & _1 == _0:
        shift += _1
    whole, rest = width >> _3, width & _7
    found = np.empty(whole + _2, np.uint64)
    # Not 0 once a pixel is of another value.
    others = _0
    # Of the pixels of the value: their number and the sum of their places, for the checksum.
    number = places = _0
    end = start = _0
    line = _1
    for _ in range(height):
        # Eight pixels each, without a branch: behind one that is guessed wrong a processor starts anew.
        last = _0
        for i in range(whole):
            word = _0
            for k in range(8):
                word |= uint64(pixels[start + (i << _3) + uint64(k)]) << uint64(8 * k)
            lit = word >> shift & _ONES
            others |= word ^ lit * value
            byte = lit * _GATHER >> _56
            found[last] = i << uint64(11) | byte
            last += uint64(byte != _0)
        if rest > _0:
            word = _0
            for k in range(rest):
                word |= uint64(pixels[start + (whole << _3) + k]) << (k << _3)
            lit = word >> shift & _ONES
            others |= word ^ lit * value
            byte = lit * _GATHER >> _56
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
            # Eight pixels of the value, and eight more of them.
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
    # Adler-32 (RFC 1950, section 9): a pixel counts once in the one sum, and in the other for itself and all behind it.
    low = (_1 + value * number) % _ADLER
    high = (total + value * (number * total - places)) % _ADLER
    for k in range(4):
        out[place + uint64(k)] = uint8((high << _16 | low) >> uint64(24 - 8 * k))
    return out[: place + uint64(4)]


@kernel
def _decompress(data, size, value, head_bits, literals, repetitions):  # type: ignore[no-untyped-def]
    """The lines, empty where there is something else, and the place of the checksum."""
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
            lit = ((entry & _255) * _ONES & _SPREAD) + _ONES * uint64(127) >> _7 & _ONES
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
            # The distance is 1, a bit that is 0.
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
