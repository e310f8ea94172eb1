"""Streams of random numbers: one for each use, the same on every machine and in every order of drawing."""

from __future__ import annotations

import enum
import hashlib

import numpy as np

__all__ = ["Stream", "generator_key", "random_stream"]


class Stream(enum.IntEnum):
    """What random numbers are for: ``random_stream(seed, Stream.SHUFFLE, epoch)``. A new use takes a new number.

    Numbers below 97 are free for uses, since from there on they are the keys of generators with short names.
    """

    SHUFFLE = 0
    """Order of the training images: (epoch)."""
    AUGMENT = 1
    """Crops and flips: (epoch, index)."""
    STEP = 2
    """torch's generator in a training step: (epoch, step, rank)."""
    LABEL_NOISE = 3
    """Which labels are replaced, and by which: (1 + epoch), or 0 for all epochs."""
    CLUSTER = 4
    """Starts of k-means: (1 + epoch)."""
    EMPTY_CLUSTER = 5
    """Clusters that are divided to refill empty ones."""
    BALANCE = 6
    """Order of images that weights all clusters alike: (epoch)."""
    HEAD = 7
    """Weights of a new classification head: (epoch)."""

    # These were numbered apart from those above, whose numbers they share: others would choose other images.
    FEW_SHOT = 0
    """Training images of a few-shot probe: (draw, label)."""
    HOLD_OUT = 1
    """Images that choose a probe's penalty: (class)."""
    SHOWN = 0
    """Images of a sheet of heat maps."""
    VERIFIED = 0
    """Images that ``verify`` draws again: (0), and in which order: (1)."""


def random_stream(*key: int) -> np.random.Generator:
    """A random stream of its own for up to five integers, the same on every machine and in every order of drawing.

    Philox4x64-10 (Salmon et al., SC 2011): the first two integers are the key, the rest the high words of the counter.
    Integers that are left out are zeros. The second one is a :class:`Stream`, a :func:`generator_key`, or, where a
    subset of a downstream dataset is chosen, a class.
    """
    if len(key) > 5:
        raise ValueError(f"a random stream has up to five integers, not {len(key)}: {key}")
    words = np.array([int(k) & 0xFFFF_FFFF_FFFF_FFFF for k in key] + [0] * (5 - len(key)), np.uint64)
    return np.random.Generator(np.random.Philox(key=words[:2], counter=np.append(np.uint64(0), words[2:])))


def generator_key(name: str) -> int:
    """The number of a generator's streams, which no other name has: the bytes of a name of up to eight, else a digest.

    Names are ASCII, so that the highest bit tells a digest from a name.
    """
    encoded = name.encode()
    if len(encoded) <= 8:
        return int.from_bytes(encoded, "little")
    return int.from_bytes(hashlib.sha256(encoded).digest()[:8], "little") | 1 << 63
