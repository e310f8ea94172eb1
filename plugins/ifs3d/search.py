"""The search for categories: random systems, of which those are accepted whose points spread along every axis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float64

from formulavision import ConfigError
from formulavision.rendering import mersenne

from .clouds import POINTS, is_accepted, with_probabilities

__all__ = ["independent_search", "published_search"]

_MOST_TRIALS = 1_000_000
"""Largest number of trials for a category; the default parameters need about 140, the strictest ones about 30,000."""


def independent_search(
    random: np.random.Generator, max_transformations: int, variance: float
) -> Float64[np.ndarray, "n 13"]:
    """The first accepted system of a random stream.

    Raises:
        ConfigError: there is no such system among 1,000,000.
    """
    return next(_accepted(random, random.integers, max_transformations, variance, published=False))


def published_search(seed: int, max_transformations: int, variance: float) -> Iterator[Float64[np.ndarray, "n 13"]]:
    """The systems that the published search accepts, one after the other, without end.

    Probabilities may differ from the published ones in the last bit: determinants come from LAPACK, whose rounding
    differs among versions.

    Args:
        seed: of numpy's generator.
        max_transformations: largest number of transformations of a system.
        variance: least variance along every axis.

    Raises:
        ConfigError: there are 1,000,000 systems without an accepted one among them.
    """
    random = mersenne.legacy_random(seed)
    return _accepted(random, random.randint, max_transformations, variance, published=True)


def _accepted(
    random: Any, integers: Any, max_transformations: int, variance: float, *, published: bool
) -> Iterator[Float64[np.ndarray, "n 13"]]:
    trials = 0
    while trials < _MOST_TRIALS:
        trials += 1
        count = int(integers(2, max_transformations + 1))
        system = with_probabilities(random.uniform(-1.0, 1.0, (count, 12)), published=published)
        if is_accepted(system, random.random(POINTS + 1), variance):
            yield system
            trials = 0
    raise ConfigError(
        f"generator: none of {_MOST_TRIALS:,} random systems has a variance above {variance:g} along every axis: lower "
        "variance or max_transformations"
    )
