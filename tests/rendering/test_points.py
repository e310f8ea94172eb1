"""Points and patches against the published way to draw them, in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from formulavision.rendering import points
from formulavision.rendering.random import philox4x32, philox_blocks


def pasted(columns: np.ndarray, rows: np.ndarray, masks: np.ndarray, size: int, values: list[int]) -> np.ndarray:
    """Patch by patch, each over those before it, zeros too; what reaches beyond the image is cut off."""
    image = np.zeros((size + 4, size + 4), np.uint8)
    for i, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        bits = (int(masks[i % len(masks)]) >> np.arange(8, -1, -1)) & 1
        image[row + 1 : row + 4, column + 1 : column + 4] = bits.reshape(3, 3) * values[i % len(values)]
    return image[:size, :size]


@pytest.mark.parametrize("size", [8, 63, 64, 65, 100])
@pytest.mark.parametrize("count", [0, 1, 30, 5000])
@pytest.mark.parametrize("fixed", [False, True])
def test_patches_are_those_that_pasting_in_order_leaves(size: int, count: int, fixed: bool) -> None:
    random = np.random.default_rng(size + count)
    columns, rows = random.integers(0, size, (2, count)).astype(np.uint16)
    masks = random.integers(1, 512, 1 if fixed else max(count, 1)).astype(np.uint16)
    latest, owners = np.empty((2, size, size), np.uint32)
    image = np.empty((size, size), np.uint8)
    points.mark(columns, rows, count, latest)
    points.patch_owners(latest, owners)
    with_zero = np.concatenate([np.zeros(1, np.uint16), masks])
    points.shade(owners, with_zero, 127, image)
    assert np.array_equal(image, pasted(columns, rows, masks, size, [127]))
    points.shade_in_colors(owners, with_zero, 7, image)
    assert np.array_equal(image, pasted(columns, rows, masks, size, list(range(1, 8))))


def test_bare_points_are_set_and_later_ones_win() -> None:
    random = np.random.default_rng(0)
    columns, rows = random.integers(0, 20, (2, 300)).astype(np.uint16)
    latest, image = np.empty((20, 20), np.uint32), np.empty((20, 20), np.uint8)
    points.mark(columns, rows, 300, latest)
    points.shade_in_colors(latest, np.array([0, 1], np.uint16), 128, image)
    expected = np.zeros((20, 20), np.uint8)
    for i in range(300):
        expected[rows[i], columns[i]] = 1 + i % 128
    assert np.array_equal(image, expected)


def test_masks_are_halves_of_philox_blocks() -> None:
    masks = np.empty(3000, np.uint16)
    points.patch_masks(masks, 5, 6, 7, 8)
    for i in (0, 1, 127, 128, 1023, 1024, 2047, 2048, 2999):
        chunk, half, block = i // 1024, i % 1024 // 128, i % 128
        word = philox4x32(128 * chunk + block, 0, 5, 6, 7, 8)[half // 2]
        assert masks[i] == 1 + ((word >> 16 * (half % 2) & 0xFFFF) * 511 >> 16)


def test_masks_are_all_of_1_to_511_alike() -> None:
    from scipy.stats import chisquare

    masks = np.empty(511 * 400, np.uint16)
    points.patch_masks(masks, 1, 2, 3, 4)
    counts = np.bincount(masks, minlength=512)
    assert counts[0] == 0
    assert len(counts) == 512
    assert chisquare(counts[1:]).pvalue > 1e-4


def test_blocks_are_one_philox_block_a_column() -> None:
    words = np.empty((4, 1000), np.uint32)
    philox_blocks(0xFFFF_FC00, 1, 2, 3, 0xFFFF_FFFF, 0x8000_0000, words)
    for n in (0, 1, 500, 999):
        assert tuple(words[:, n].tolist()) == philox4x32(0xFFFF_FC00 + n, 1, 2, 3, 0xFFFF_FFFF, 0x8000_0000)


def scaled(values: np.ndarray, size: int, padding: int) -> np.ndarray:
    """The published renderer's own words in numpy (data of FractalDB: "To pixels")."""
    shifted = values - values.min() if values.min() < 0 else values
    low = min(values.min(), 0.0)
    return (shifted / (values.max() - low - max(0.0, values.min())) * (size - 2 * padding) + padding).astype(np.uint16)


@pytest.mark.parametrize("count", [2, 31, 33, 10_000])
@pytest.mark.parametrize(("size", "padding"), [(362, 6), (96, 0), (512, 30)])
def test_points_are_scaled_as_published(count: int, size: int, padding: int) -> None:
    random = np.random.default_rng(count)
    x, y = random.normal(size=(2, count))
    x[0] = y[0] = 0.0  # where the published orbit starts
    columns, rows = np.empty((2, count), np.uint16)
    assert points.to_pixels(x, y, size, padding, columns, rows) == count
    last = size - 1
    assert np.array_equal(columns, np.minimum(scaled(x, size, padding), last))
    assert np.array_equal(rows, np.minimum(scaled(y, size, padding), last))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("size", "padding"), [(7, 1), (362, 6), (4096, 0), (65535, 2)])
def test_points_at_the_borders_of_pixels_are_scaled_by_the_quotient(dtype: type, size: int, padding: int) -> None:
    extent = size - 2 * padding
    borders: np.ndarray = (np.arange(extent + 1) / extent * 3 - 1.2).astype(dtype)
    low, high = borders[0], borders[-1]
    values = np.clip(np.concatenate([borders, *(np.nextafter(borders, dtype(to)) for to in (-9, 9))]), low, high)
    columns, rows = np.empty((2, len(values)), np.uint16)
    points.to_pixels(values, values, size, padding, columns, rows)
    exact = ((values - low) / (high - low)).astype(np.float64) * extent + padding
    assert np.array_equal(columns, np.minimum(np.floor(exact), size - 1))
    assert np.array_equal(rows, columns)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [8, 362, 4096])
def test_a_point_near_a_border_alone_in_its_block_is_scaled_by_the_quotient(dtype: type, size: int) -> None:
    random = np.random.default_rng(size)
    places = random.integers(0, size - 12, (400, 512)) + 6.5 if size > 12 else np.full((400, 512), 6.5)
    # One in each block is beside a border, by steps of 2^-16, in which blocks are looked at, or by finer ones.
    steps = random.choice([-1, 1], 400) * random.uniform(0, size // 40 + 8, 400) * random.choice([1.0, 1e-3, 1e-7], 400)
    places[:, 7] += 0.5 + steps / 65536
    places[0, :2] = 0, size
    values: np.ndarray = (places.ravel() / size * 3 - 1.2).astype(dtype)
    columns, rows = np.empty((2, len(values)), np.uint16)
    points.to_pixels(values, values, size, 0, columns, rows)
    exact = ((values - values.min()) / (values.max() - values.min())).astype(np.float64) * size
    assert np.array_equal(columns, np.minimum(np.floor(exact), size - 1))


def test_from_100_points_before_the_first_that_is_no_number_on_they_are_dropped() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 1000))
    y[700:] = np.nan
    columns, rows = np.empty((2, 1000), np.uint16)
    assert points.to_pixels(x, y, 64, 6, columns, rows) == 600
    alone = np.empty((2, 600), np.uint16)
    points.to_pixels(x[:600], y[:600], 64, 6, *alone)
    assert np.array_equal([columns[:600], rows[:600]], alone)
    y[50:] = np.nan
    assert points.to_pixels(x, y, 64, 6, columns, rows) == 0


def test_a_line_and_a_single_point_have_a_place() -> None:
    columns, rows = np.full((2, 5), 99, np.uint16)
    points.to_pixels(np.linspace(0, 1, 5), np.zeros(5), 64, 6, columns, rows)
    assert columns.tolist() == [6, 19, 32, 45, 58]
    assert rows.tolist() == [0] * 5
    points.to_pixels(np.zeros(5, np.float32), np.zeros(5, np.float32), 64, 6, columns, rows)
    assert columns.tolist() == [0] * 5


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 5000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_running_bounds_leave_out_what_is_no_number(count: int, dtype: type[np.floating]) -> None:
    values = np.random.default_rng(count).normal(size=count).astype(dtype)
    values[::7] = np.nan
    lows, highs = np.zeros((2, 128), dtype)
    points.widen(values, lows, highs)
    for lane in (0, 5, 127):
        own = np.append(values[lane::128], 0)
        assert (lows[lane], highs[lane]) == (np.nanmin(own), np.nanmax(own))


@pytest.mark.parametrize("shape", [(8, 8), (5, 363)])
def test_a_mirror_image(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    target = np.empty_like(image)
    points.mirror(image, target)
    assert np.array_equal(target, image[:, ::-1])
