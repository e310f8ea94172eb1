"""The published FractalDB by its digests: categories bit for bit and images pixel for pixel, in every clone.

``published.sha256`` has a digest for each of 140 published files. The files themselves are not in the repository.
"""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from formulavision_plugins.ifs import search_published, weight_table
from numpy.typing import NDArray
from PIL import Image

from formulavision import Drawer, Recipe

LINES = Path(__file__).with_name("published.sha256").read_text().splitlines()
DIGESTS = {name: digest for digest, name in map(str.split, LINES)}
CATEGORIES = 10
"""Number of categories that are searched here, of 100 with known digests: about 430 trials."""


def digest(array: NDArray[np.float64] | NDArray[np.uint8]) -> str:
    """Sha256 of an array's values in C order: a table, float64 [rows, columns], or an RGB image, uint8 [h, w, 3]."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def known(folder: str) -> list[str]:
    names = [name for name in DIGESTS if name.startswith(folder)]
    assert names
    return names


def read(path: Path) -> NDArray[np.float64] | NDArray[np.uint8]:
    """The values of a published file that its digest is computed from."""
    if path.suffix == ".csv":
        return np.loadtxt(path, delimiter=",", ndmin=2)
    return np.asarray(Image.open(path).convert("RGB"))


def test_the_digests_are_those_of_the_published_files(official: Path) -> None:
    assert len(DIGESTS) == 100 + 8 + 20 + 12
    assert [name for name, value in DIGESTS.items() if digest(read(official / name)) != value] == []


def test_the_published_search_finds_the_published_categories() -> None:
    found = islice(search_published.published_search(1, 7, 0.2), CATEGORIES)
    assert [digest(system) for system in found] == [DIGESTS[name] for name in known("categories/")[:CATEGORIES]]


@pytest.mark.parametrize("name", known("weights/"))
def test_weight_tables_are_the_published_ones(name: str) -> None:
    interval = Path(name).stem.removeprefix("weights_")
    assert digest(weight_table(float(interval))) == DIGESTS[name]


@pytest.mark.parametrize(
    ("folder", "size", "dots", "channels"),
    [("point_gray_362_200000", 362, 200_000, 1), ("point_color_256_100000", 256, 100_000, 3)],
)
def test_point_images_of_searched_categories_are_the_published_ones(
    folder: str, size: int, dots: int, channels: int
) -> None:
    recipe = Recipe.from_dict(
        {
            "generator": {"name": "ifs", "search": "published", "max_transformations": 7, "orbit": "published",
                          "weights": "table", "dots": dots, "patch": "point"},
            "categories": 4,
            "instances": 100,
            "canvas": {"size": size, "padding": 6, "channels": channels},
            "seed": 1,
        }
    )  # fmt: skip
    drawer = Drawer(recipe)
    index_of = {drawer.name(index): index for index in range(len(drawer))}
    for name in known(f"golden/{folder}/"):
        path = Path(name)
        image, _ = drawer.draw(index_of[f"{path.parent.name}/{path.stem}"])
        assert digest(np.broadcast_to(image, (size, size, 3))) == DIGESTS[name], name
