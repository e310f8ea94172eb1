"""Run-length encoding of object masks as COCO has it: the bytes of ``pycocotools.mask.encode``.

A mask is read column by column, from top to bottom, and written as the lengths of its runs, of pixels outside first.
Each length from the fourth on is written as its difference from the one two before it, in groups of five bits, lowest
first, as text (``rleEncode`` and ``rleToString`` in maskApi.c of https://github.com/cocodataset/cocoapi).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, UInt8, UInt16

from formulavision.rendering.kernels import kernel

__all__ = ["encode_masks"]


def encode_masks(object_map: UInt16[np.ndarray, "h w"], objects: int) -> list[str]:
    """The compressed run lengths (COCO's ``counts``) of the mask of each object of a map, from object 1 on.

    Args:
        object_map: values up to ``objects``.
        objects: number of objects in the image; one without a visible pixel gets those of an empty mask.
    """
    columns = np.ascontiguousarray(object_map.T).reshape(-1)
    text, ends = _write_runs(*_find_changes(columns, objects), len(columns))
    return [part.tobytes().decode() for part in np.split(text, ends[:-1])]


@kernel
def _find_changes(
    pixels: UInt16[np.ndarray, " pixels"], objects: int
) -> tuple[Int64[np.ndarray, " changes"], Int64[np.ndarray, " values"]]:
    """The positions at which each object, and 0 (the background), begins or ends, object after object.

    Returns:
        The positions; where those of each value from 0 on start in them, and at the last place their number.
    """
    starts = np.zeros(objects + 2, np.int64)
    before = np.int64(0)
    for pixel in pixels:
        value = np.int64(pixel)
        if value != before:
            starts[before + 1] += 1
            starts[value + 1] += 1
            before = value
    starts = np.cumsum(starts)
    changes = np.empty(starts[-1], np.int64)
    place = starts.copy()
    before = np.int64(0)
    for i in range(len(pixels)):
        value = np.int64(pixels[i])
        if value != before:
            changes[place[before]] = i
            place[before] += 1
            changes[place[value]] = i
            place[value] += 1
            before = value
    return changes, starts


@kernel
def _write_runs(
    changes: Int64[np.ndarray, " changes"], starts: Int64[np.ndarray, " values"], pixels: int
) -> tuple[UInt8[np.ndarray, " characters"], Int64[np.ndarray, " objects"]]:
    """The text of the run lengths of all objects, and where that of each object ends."""
    objects = len(starts) - 2
    text = np.empty(7 * (len(changes) + objects), np.uint8)  # a length has 31 bits at most
    ends = np.empty(objects, np.int64)
    place = 0
    for k in range(objects):
        begin, end = starts[k + 1], starts[k + 2]
        last = second = np.int64(0)  # the run length before this one, and the one before that
        done = np.int64(0)
        for i in range(begin, end + 1):
            change = changes[i] if i < end else np.int64(pixels)
            length = change - done
            done = change
            rest = length - second if i - begin > 2 else length
            second, last = last, length
            more = True
            while more:
                group = rest & 31
                rest >>= 5
                more = rest != -1 if group & 16 else rest != 0
                text[place] = 48 + group + (32 if more else 0)
                place += 1
        ends[k] = place
    return text[:place], ends
