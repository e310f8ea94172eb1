"""The goldens of the published programs RCDB and SegRCDB, and the recipes that must give them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formulavision import Recipe

__all__ = ["GOLDENS", "digest", "rcdb_recipe"]

GOLDENS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "plugins" / "published_contours.json").read_text())


def digest(array: NDArray[Any]) -> str:
    """SHA-256 of an image with one or three channels, as the program saved it with three; of a mask or words as they
    are."""
    saved = np.broadcast_to(array, (*array.shape[:2], 3)) if array.ndim == 3 else array
    return hashlib.sha256(np.ascontiguousarray(saved).tobytes()).hexdigest()


def rcdb_recipe(run: dict[str, Any], **settings: Any) -> Recipe:
    """The recipe of a run's first categories and instances."""
    first = {kind: 1 + max(image[kind] for image in run["images"]) for kind in ("category", "instance")}
    return Recipe.from_dict(
        {
            "generator": {"name": "rcdb", "random": "published", **run["settings"], **settings},
            "categories": first["category"],
            "instances": first["instance"],
            "canvas": {"size": run["settings"].get("image_size", 512), "padding": 0},
        }
    )
