"""Why an image that must be the same is drawn otherwise: it is drawn alone, again, and after others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

__all__ = ["AFTER_OTHERS", "EACH_TIME", "impurity"]

EACH_TIME = "it is drawn otherwise each time: by a clock, global random numbers, or by what was drawn before it"
AFTER_OTHERS = "it is drawn otherwise after other images: a generator must keep nothing that changes its images"

Image = TypeVar("Image")


def impurity(
    draw: Callable[[Iterable[int]], Image], index: int, others: Iterable[int], differ: Callable[[Image, Image], Any]
) -> tuple[str, Image]:
    """The reason for a difference that a new drawer shows in this process, or an empty text.

    Args:
        draw: draws images alone, one after the other, with a new drawer, and returns the last.
        index: of the image.
        others: indices of other images.
        differ: whether two images differ.

    Returns:
        ``EACH_TIME``, ``AFTER_OTHERS`` or an empty text; and the image as a new drawer draws it first.
    """
    first, *again = (draw([index]) for _ in range(3))  # two may be equal by chance
    later = draw([*others, index])
    if any(differ(first, other) for other in again):
        return EACH_TIME, first
    return AFTER_OTHERS if differ(first, later) else "", first
