"""Categories that are perturbations of one base system, as in 1p-frac.

Source: Nakamura et al., "Scaling Backwards: Minimal Synthetic Pre-training?", ECCV 2024, and the program that they
published. A perturbation multiplies a to f of each map by factors of their own. It is drawn again until the image is
full enough.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, UInt32

from formulavision import Category, ConfigError
from formulavision.rendering import python_random

from .drawing import FractalDrawing
from .patches_published import skip_masks
from .singular_values import probabilities_by_elimination, random_transformations

__all__ = ["perturbed", "published_perturbation", "published_tries", "random_base"]

_MOST_TRIES = 1000
"""Largest number of perturbations that are tried for a category; the published program has no limit."""


def random_base(stream: np.random.Generator, n: int, sigma: float) -> Float64[np.ndarray, "n 7"]:
    """Draw a base system of n maps, with a sigma-factor of ``sigma`` - 0.1 to ``sigma`` + 0.1."""
    return probabilities_by_elimination(random_transformations(stream, n, sigma - 0.1, sigma + 0.1))


def perturbed(base: Float64[np.ndarray, "n 7"], factors: Float64[np.ndarray, "n 6"]) -> Float64[np.ndarray, "n 7"]:
    """The base with a to f multiplied; the probabilities stay."""
    return np.column_stack([base[:, :6] * factors, base[:, 6]])


def published_perturbation(drawing: FractalDrawing, base: Category, index: int) -> Float64[np.ndarray, "n 7"]:
    """Category ``index`` of the published program: the first try whose image is full enough.

    Args:
        drawing: draws on the canvas on which the share of lit pixels is measured.
        base: the base system.

    Raises:
        ConfigError: there is no such perturbation among the tries.
    """
    for factors, patches in published_tries(drawing, base, index):
        image = drawing.shade(drawing.owners(base, factors, 0), drawing.masks(base, 0, patches))
        if np.count_nonzero(image) / image.size > drawing.params.fill_rate:
            return perturbed(base.parameters, factors)
    raise ConfigError(
        f"generator: none of {_MOST_TRIES:,} perturbations of the base lights more than {drawing.params.fill_rate:g} "
        f"of the pixels for category {index}: lower fill_rate, or take another base or base_seed"
    )


def published_tries(
    drawing: FractalDrawing, base: Category, index: int
) -> Iterator[tuple[Float64[np.ndarray, "n 6"], UInt32[np.ndarray, " 625"]]]:
    """The tries for a category, from a stream of Python's random of its own: factors, then a patch for each point.

    Yields:
        The factors, and a copy of the stream's state where the patches begin.
    """
    params = drawing.params
    state = python_random.seeded(params.patch_seed + index)
    low, high = 1 - params.perturbation, 1 + params.perturbation
    fractions = np.empty(6 * len(base.parameters))
    for _ in range(_MOST_TRIES):
        python_random.fractions(state, np.empty(2 * len(fractions), np.uint32), fractions)
        factors = (low + (high - low) * fractions).reshape(-1, 6)
        yield factors, state.copy()
        if params.patch == "random":
            skip_masks(state, drawing.published_length(base, factors))
