"""Counter-based random streams: one for each key, the same on every machine and in every order of drawing."""

from __future__ import annotations

import enum
import hashlib

import numpy as np

__all__ = ["Stream", "generator_key", "random_stream"]


class Stream(enum.IntEnum):
    """The uses of random numbers outside of generators, as the second integer of a stream's key:
    ``random_stream(seed, Stream.SHUFFLE, epoch)``.

    A new use takes a new number below 97: larger numbers are the keys of generators with short names
    (:func:`generator_key`). After each use stand the integers that follow in its key.
    """

    SHUFFLE = 0
    """Order of the training images: (epoch)."""
    AUGMENT = 1
    """Crops and flips: (epoch, index)."""
    STEP = 2
    """Seed of torch's random numbers in a training step: (epoch, step, rank)."""
    LABEL_NOISE = 3
    """Label noise, the replaced labels and their new values: (1 + epoch), or (0) for all epochs; of the objects of a
    scene (1 + epoch, index, 1 + object)."""
    CLUSTER = 4
    """Initial centres of k-means: (1 + epoch)."""
    EMPTY_CLUSTER = 5
    """Choice of clusters that are divided to refill empty ones."""
    BALANCE = 6
    """Order of the training images that weights all clusters equally: (epoch)."""
    HEAD = 7
    """Initial weights of a new classification head: (epoch)."""
    TRANSFORM = 8
    """Seed of the global random numbers that a user's transform of a training image draws: (epoch, index)."""
    SCENE = 9
    """Composition of a scene: its number of objects and its background, (scene), and its objects, (scene, 1)."""
    RESIZED_CROP = 10
    """Seed of the global random numbers that a random resized crop draws: (epoch, index)."""
    AUGMENTATION = 11
    """Seed of those that RandAugment and colour jitter draw: (epoch, index)."""
    SCORED = 12
    """Choice of the images that ``score`` measures: (category)."""
    MIXTURE = 13
    """Order in which a mixture takes a part's images: (pass over the part, number of the part)."""
    MIXING = 14
    """Mixing of pictures into a training image: seed of the global random numbers that it draws, (epoch, index); its
    rounds and its picture, (epoch, index, 1)."""

    # These share numbers with uses above, because they had a list of their own: new numbers would choose other images.
    FEW_SHOT = 0
    """Choice of the training images of a few-shot probe: (draw, label)."""
    HOLD_OUT = 1
    """Choice of the held-out images that select a probe's penalty: (class)."""
    SHOWN = 0
    """Choice of the images on a sheet of heat maps."""
    VERIFIED = 0
    """Choice of the images that ``verify`` draws again: (0), and their order: (1)."""


def random_stream(*key: int) -> np.random.Generator:
    """The random stream of a key of up to five integers: the same numbers on every machine, independent of other keys.

    The generator is Philox4x64-10 (Salmon et al., SC 2011): the first two integers are its key, the others the high
    words of its counter. Missing integers count as 0.

    Args:
        key: usually a seed, then a :class:`Stream` or a :func:`generator_key`, then what the use needs. Where a subset
            of a downstream dataset is chosen, the second integer is a class.

    Raises:
        ValueError: there are more than five integers.
    """
    if len(key) > 5:
        raise ValueError(f"a random stream has up to five integers, not {len(key)}: {key}")
    words = np.array([int(k) & 0xFFFF_FFFF_FFFF_FFFF for k in key] + [0] * (5 - len(key)), np.uint64)
    return np.random.Generator(np.random.Philox(key=words[:2], counter=np.append(np.uint64(0), words[2:])))


def generator_key(name: str) -> int:
    """The number of a generator's streams, unique for each name: the bytes of a name up to 8 letters, else a digest.

    Names are ASCII, so only a digest has the highest bit set.
    """
    encoded = name.encode()
    if len(encoded) <= 8:
        return int.from_bytes(encoded, "little")
    return int.from_bytes(hashlib.sha256(encoded).digest()[:8], "little") | 1 << 63
