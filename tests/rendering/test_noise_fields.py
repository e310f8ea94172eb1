"""Perlin noise equals the reference package, at points and on grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from formulavision.rendering import noise_fields

noise = pytest.importorskip("noise")

coordinates = st.one_of(
    st.floats(-3, 3, width=32), st.floats(-2000, 2000, width=32), st.floats(-1e9, 1e9, width=32), st.integers(-600, 600)
)
repeats = st.one_of(st.integers(1, 2000), st.floats(0.5, 3000, width=32), st.sampled_from([1, 7, 100, 256, 1024]))
octaves = st.integers(1, 12)
persistences = st.floats(0, 2, width=32)
lacunarities = st.floats(0.25, 4, width=32)


points = st.tuples(coordinates, coordinates, octaves, persistences, lacunarities, repeats, repeats, st.integers(0, 1))


def equals_the_reference(
    x: float, y: float, octaves: int, persistence: float, lacunarity: float, repeat_x: float, repeat_y: float, base: int
) -> None:
    # Beyond, the reference overflows an integer.
    highest = max(1, lacunarity) ** (octaves - 1)
    assume(all(min(abs(c), repeat) * highest < 2**31 for c, repeat in ((x, repeat_x), (y, repeat_y))))
    arguments = (octaves, persistence, lacunarity, repeat_x, repeat_y, base)
    expected = noise.pnoise2(float(x), float(y), *arguments)
    assert noise_fields.perlin2(x, y, *arguments) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=500, deadline=None)
@given(points)
@example((-0.5, -1023.5, 8, 0.5, 2.0, 1024, 1024, 0))
@example((255.5, 255.5, 1, 0.5, 2.0, 1024, 1024, 1))
@example((1e9, 0.5, 1, 0.5, 2.0, 2e9, 1024, 0))
@example((6.75, 0.25, 3, 0.5, 2.0, 7, 3, 0))
def test_noise_at_a_point_equals_the_reference(point: tuple[Any, ...]) -> None:
    equals_the_reference(*point)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(points)
def test_noise_at_many_more_points_equals_the_reference(point: tuple[Any, ...]) -> None:
    equals_the_reference(*point)


def lookups(x: float, y: float, base: int) -> list[int]:
    """The places of the reference's table of 512 that one octave at a point reads, where the repeats are 1024."""
    table = noise_fields._PERMUTATION
    i, j = (int(np.floor(np.fmod(c, 1024))) for c in (x, y))
    i, i1, j, j1 = ((int(np.fmod(n, 1024)) & 255) + base for n in (i, i + 1, j, j + 1))
    corners = [int(table[n & 255]) + m for n in (i, i1) for m in (j, j1)]
    return [i, i1, *corners]


@settings(max_examples=1000, deadline=None)
@given(st.floats(-2000, 2000, width=32), st.floats(-2000, 2000, width=32), st.integers(-256, 256))
def test_every_base_equals_the_reference_where_that_stays_in_its_table(x: float, y: float, base: int) -> None:
    assume(all(0 <= place < 512 for place in lookups(x, y, base)))
    assert noise_fields.perlin2(x, y, base=base) == pytest.approx(noise.pnoise2(x, y, base=base), abs=1e-6)


def test_a_base_shifts_the_lattice_along_both_axes() -> None:
    x, y = np.random.default_rng(0).uniform(0, 200, (2, 100))
    x, y = x.astype(np.float32), y.astype(np.float32)
    np.testing.assert_allclose(noise_fields.perlin2(x, y, base=300), noise_fields.perlin2(x + 44, y + 44), atol=1e-4)


@pytest.mark.parametrize("coordinate", [np.inf, -np.inf, np.nan])
def test_noise_at_what_is_no_number_is_none(coordinate: float) -> None:
    assert np.isnan(noise_fields.perlin2(coordinate, 0.5))


def test_noise_beyond_32_bits_is_that_of_the_first_cell() -> None:
    assert noise_fields.perlin2(2.0**33, 0.3, repeat_x=1e12) == noise_fields.perlin2(0, 0.3)


def test_coordinates_broadcast() -> None:
    x, y = np.arange(4) / 3, np.arange(3)[:, None] / 7
    separately = [[noise_fields.perlin2(u, v) for u in x] for v in y[:, 0]]
    np.testing.assert_array_equal(noise_fields.perlin2(x, y), np.array(separately))


@pytest.mark.parametrize("function", [noise_fields.perlin2, noise_fields.perlin_field])
def test_no_octave_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="octaves is 0"):
        function(np.zeros(2, np.float32), np.zeros(2, np.float32), octaves=0)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0.1, 60),
    st.floats(0.1, 60),
    st.floats(-300, 300),
    st.floats(-300, 300),
    octaves,
    persistences,
    lacunarities,
    repeats,
    repeats,
    st.integers(0, 255),
)
@example(30, 3, -5, 250, 1, 0.5, 2.0, 7, 100, 0)
def test_a_field_equals_its_points(
    cells_x: float,
    cells_y: float,
    offset_x: float,
    offset_y: float,
    octaves: int,
    persistence: float,
    lacunarity: float,
    repeat_x: float,
    repeat_y: float,
    base: int,
) -> None:
    x = noise_fields.grid_coordinates(17, cells_x, offset_x)
    y = noise_fields.grid_coordinates(23, cells_y, offset_y)
    arguments = (octaves, persistence, lacunarity, repeat_x, repeat_y, base)
    field = noise_fields.perlin_field(x, y, *arguments)
    np.testing.assert_allclose(field, noise_fields.perlin2(x, y[:, None], *arguments), rtol=0, atol=1e-6)


def test_grid_coordinates_are_those_of_pixel_centres() -> None:
    np.testing.assert_array_equal(noise_fields.grid_coordinates(4, 2, 10), [10.25, 10.75, 11.25, 11.75])


def test_gray_levels_of_noise() -> None:
    field = np.array([[-1.5, -1, -0.5, 0, 0.5, 1, 1.5]], dtype=np.float32)
    out = np.empty(field.shape, np.uint8)
    noise_fields.to_gray(field, out)
    assert out.tolist() == [[0, 0, 64, 128, 191, 255, 255]]
