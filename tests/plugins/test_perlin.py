"""The perlin generator."""

from __future__ import annotations

import hashlib
import importlib.util
from typing import Any

import numpy as np
import pytest

import formulavision


def recipe(canvas: Any = None, categories: Any = 4, instances: Any = 6, **generator: Any) -> formulavision.Recipe:
    return formulavision.Recipe.from_dict(
        {
            "generator": {"name": "perlin", **generator},
            "categories": categories,
            "instances": instances,
            "canvas": {"size": 32, **(canvas or {})},
            "seed": 1,
        }
    )


def images(*indices: int, canvas: Any = None, **settings: Any) -> np.ndarray:
    return formulavision.Drawer(recipe(canvas, **settings)).draw_batch(indices)[0]


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]


def test_categories_are_the_grid_of_frequencies() -> None:
    drawer = formulavision.Drawer(recipe(categories=9, grid=3))
    assert [tuple(c.parameters[0]) for c in drawer.categories] == [(x, y) for x in (1, 2, 3) for y in (1, 2, 3)]


@pytest.mark.parametrize(("grid", "count"), [(10, 100), (36, 1296)])
def test_the_published_grids_have_their_number_of_categories(grid: int, count: int) -> None:
    assert recipe(categories={}, grid=grid).num_categories == count


def test_more_categories_than_the_grid_has_are_refused() -> None:
    with pytest.raises(formulavision.ConfigError, match="'perlin' has 9"):
        recipe(categories=10, grid=3)


def test_a_category_has_its_frequency_along_each_axis() -> None:
    # 1 cell along x and 10 along y: the noise changes far more from row to row than from column to column.
    image = images(9 * 6, categories=10).astype(int)[0, :, :, 0]
    assert np.abs(np.diff(image, axis=0)).mean() > 4 * np.abs(np.diff(image, axis=1)).mean()


def test_an_instance_is_the_same_alone_and_in_a_batch() -> None:
    together = images(0, 1, 2, 13)
    alone = np.concatenate([images(index) for index in (0, 1, 2, 13)])
    np.testing.assert_array_equal(together, alone)


def test_render_gives_the_pixels_of_a_batch() -> None:
    drawer = formulavision.Drawer(recipe())
    category, instance = drawer.locate(8)
    np.testing.assert_array_equal(drawer.generator.render(category, instance), drawer.draw(8)[0])


def test_no_two_instances_are_alike() -> None:
    assert len({image.tobytes() for image in images(*range(24))}) == 24


def test_channels_are_independent_fields() -> None:
    image = images(3, canvas={"channels": 3})[0].astype(float)
    assert np.abs(np.corrcoef(image.reshape(-1, 3).T) - np.eye(3)).max() < 0.9


def test_a_gray_image_is_the_first_channel_of_the_coloured_one() -> None:
    np.testing.assert_array_equal(images(3, canvas={"channels": 3})[..., :1], images(3))


def test_padding_is_ignored() -> None:
    np.testing.assert_array_equal(images(3, canvas={"padding": 0}), images(3, canvas={"padding": 12}))


def test_octaves_add_detail() -> None:
    smooth, rough = (np.abs(np.diff(images(5, octaves=n).astype(int), axis=1)).mean() for n in (1, 6))
    assert rough > smooth


@pytest.mark.parametrize("settings", [{}, {"octaves": 4, "persistence": 0.7, "lacunarity": 2.3}])
def test_the_noise_package_draws_the_same_to_one_gray_level(settings: Any) -> None:
    pytest.importorskip("noise")
    indices = (0, 7, 12, 23)
    ours, theirs = (images(*indices, backend=b, **settings).astype(int) for b in ("kernel", "noise"))
    assert np.abs(ours - theirs).max() <= 1


def test_a_missing_noise_package_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(formulavision.ConfigError) as caught:
        recipe(backend="noise")
    assert str(caught.value) == (
        "generator.backend: 'noise' needs the noise package: pip install formulavision[noise] (or use 'kernel')"
    )


# A digest that changes is a pixel that changed: raise the generator's version with it.
@pytest.mark.parametrize(
    ("settings", "canvas", "expected"),
    [
        ({}, {}, "5f977bd01409178f"),
        ({"octaves": 4, "persistence": 0.6}, {"size": 64}, "ac0f1cfa94606a6d"),
        ({}, {"channels": 3}, "abc102259c3c01f7"),
    ],
)
def test_pixels_are_those_of_version_1(settings: Any, canvas: Any, expected: str) -> None:
    assert digest(images(0, 5, 17, 23, canvas=canvas, **settings)) == expected
