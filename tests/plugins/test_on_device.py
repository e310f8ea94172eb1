"""What the shipped generators draw on a device is what they draw on the CPU.

Without a GPU, Triton's interpreter draws a few images here. It takes ten times as long as the emulator of compiled
kernels, which draws the others (``tests/rendering/test_compiled_kernels.py``): for the interpreter these are slow.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import slow
from draw_both import draw_both, draw_scenes_both
from formulavision_plugins.ifs3d import clouds
from numpy.typing import NDArray

from formulavision import Category, Drawer, Recipe
from formulavision.recipes.category_files import write_folder
from formulavision.recipes.drawing import DeviceDrawer
from formulavision.rendering import triton_support

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HUNDRED = 100
LIT_SHARE = 0.995
"""Of lit pixels that must agree: float32 rounding at the borders of cells is all that may differ."""


def slow_if_interpreted(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.slow(test) if INTERPRETED else test


def if_compiled(*case: object) -> object:
    """A case of a test that is slow in the interpreter."""
    return pytest.param(*case, marks=[pytest.mark.slow] if INTERPRETED else [])


def if_interpreted(*case: object) -> object:
    """A case of a test that takes long to compile."""
    return pytest.param(*case, marks=[] if INTERPRETED else [pytest.mark.slow])


def agreement(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Share of the pixels that are lit in either that are the same in both."""
    lit = (one > 0) | (other > 0)
    return float((one == other)[lit].mean())


def assert_same(one: NDArray[np.uint8], other: NDArray[np.uint8], device: torch.device) -> None:
    assert one.any()
    if device.type == "cpu":
        assert np.array_equal(one, other)
    assert agreement(one, other) >= LIT_SHARE


# Fractals ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_twenty_categories_of_fractals_are_the_same(device: torch.device) -> None:
    assert_same(*draw_both(device, "ifs", ["generator.dots=1000"], range(20), range(0, 140, 7), categories=20), device)


@pytest.mark.parametrize(
    "changes",
    [
        ["generator.dots=1025", "generator.patch=fixed", "generator.flips=false", "canvas.channels=3"],
        if_compiled(
            ["generator.weights=table", "instances=2000", "canvas.size=33", "canvas.padding=0", "seed=4294967301"]
        ),
        if_compiled(
            ["generator.orbit=published", "generator.weights=table", "generator.patch=point", "generator.dots=2001"]
        ),
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in (
                ["generator.dots=1025"],
                ["generator.dots=3000"],
                ["generator.patch=fixed"],
                ["generator.patch=full"],
                ["generator.patch=point"],
                ["generator.flips=false"],
                ["canvas.channels=3"],
                ["generator.weights=table", "instances=2000"],
                ["generator.weights=table", "generator.weight_interval=0"],
                ["canvas.size=33", "canvas.padding=0"],
                ["seed=4294967301"],
                ["generator.orbit=published", "generator.dots=2000"],
                [
                    "generator.orbit=published",
                    "generator.weights=table",
                    "generator.patch=point",
                    "generator.dots=9001",
                ],
            )
        ),
    ],
    ids=" ".join,
)
def test_fractals_with_all_settings_are_the_same(device: torch.device, changes: list[str]) -> None:
    small = [] if any("dots" in change for change in changes) else ["generator.dots=1000"]
    images = draw_both(device, "ifs", small + changes, [1, 0], [3, 13], categories=2)
    assert_same(*images, device)


@slow_if_interpreted
def test_instances_beyond_32_bits_are_the_same(device: torch.device) -> None:
    images = draw_both(device, "ifs", ["generator.dots=1000"], [0, 1], [2**32 + 1, 2**40], categories=2)
    assert_same(*images, device)


ELEVEN = "has eleven transformations"
"""It takes long to compile."""

SYSTEMS = {
    "expands": [[1.8, 0.3, -0.2, 1.9, 0.5, 0.1, 0.5], [1.5, 0, 0, 1.7, -0.3, 0.2, 0.5]],
    "meets infinity on both sides": [[1e6, -1e6, 1e6, 1e6, 1e6, 1e6, 1.0]],
    "is a single point": [[0, 0, 0, 0, 0, 0, 1.0]],
    "is a line": [[0.5, 0, 0, 0, 0, 0, 0.5], [0.5, 0, 0, 0, 0.5, 0, 0.5]],
    ELEVEN: [[0.4, 0.1, -0.1, 0.4, i / 11, (i * i % 11) / 11, 1 / 11] for i in range(11)],
    "never takes some transformations": [[0.5, 0, 0, 0.5, i % 2, i / 3, p] for i, p in enumerate([0.0, 0.6, 0.0, 0.4])],
}


@pytest.mark.parametrize(
    ("kind", "orbit"),
    [
        if_compiled("is a line", "published"),
        *(if_compiled(kind, "independent") for kind in SYSTEMS if kind != ELEVEN),
        *slow((ELEVEN, "independent")),
        if_compiled("meets infinity on both sides", "published"),
        *slow(*((kind, "published") for kind in SYSTEMS if kind not in ("is a line", "meets infinity on both sides"))),
    ],
)
def test_fractals_of_any_system_are_the_same(device: torch.device, tmp_path: Path, kind: str, orbit: str) -> None:
    plain = [[0.5, 0, 0, 0.5, 0, 0, 0.3], [0.5, 0, 0, 0.5, 1, 0, 0.3], [0.5, 0, 0, 0.5, 0, 1, 0.4]]
    systems = [np.array(plain), np.array(SYSTEMS[kind], dtype=float)]
    write_folder([Category(i, f"{i:05d}", system) for i, system in enumerate(systems)], tmp_path / "categories")
    folder = {"folder": str(tmp_path / "categories")}
    changes = [f"generator.orbit={orbit}", "generator.dots=2000" if orbit == "published" else "generator.dots=1000"]
    images = draw_both(device, "ifs", changes, [0, 1], [0, 1], categories=folder)
    assert_same(*images, device)


@slow_if_interpreted
def test_images_do_not_depend_on_the_batch(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {}
    for name, change in (("ifs", "generator.dots=1000"), ("bezier", "generator.grid=2")):
        data = {"generator": {"name": name}, "categories": 4, "canvas": {"size": 32}}
        drawer = Drawer(Recipe.from_dict(data, [change]))
        labels, instances = np.array([3, 0, 2, 0]), np.array([1, 5, 0, 2])
        whole = DeviceDrawer(drawer, device).draw_instances(labels, instances)
        with monkeypatch.context() as patch:
            patch.setattr(triton_support, "SCRATCH_BYTES", 3 * 4 * 32 * 32)
            parts = DeviceDrawer(drawer, device).draw_instances(labels[::-1].copy(), instances[::-1].copy())
        drawn[name] = whole.cpu().numpy(), parts.flip(0).cpu().numpy()
    assert all(np.array_equal(*images) for images in drawn.values())


# Noise and curves ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(["generator.octaves=16", "generator.lacunarity=4"], marks=pytest.mark.slow),
        if_compiled(["generator.octaves=3", "generator.lacunarity=4"]),
        *slow(["canvas.channels=3", "canvas.size=141"]),
        pytest.param([], marks=pytest.mark.slow),
        pytest.param(["canvas.channels=3"], marks=pytest.mark.slow),
        pytest.param(["canvas.size=141"], marks=pytest.mark.slow),
        pytest.param(
            ["generator.octaves=4", "generator.persistence=0.7", "generator.lacunarity=2.3"], marks=pytest.mark.slow
        ),
    ],
    ids=" ".join,
)
def test_perlin_noise_is_the_same_to_one_gray_level(device: torch.device, changes: list[str]) -> None:
    one, other = draw_both(device, "perlin", ["generator.grid=20", *changes], [0, 399, 7], [0, 19, 10**6])
    assert np.abs(one.astype(int) - other).max() <= (0 if device.type == "cpu" else 1)


@pytest.mark.parametrize(
    "changes",
    [
        ["canvas.channels=3"],
        *slow(["generator.thickness_max=7", "canvas.size=33"]),
        *slow([]),
        if_compiled(["generator.thickness_max=64"]),
        *slow(["generator.extent_max=1", "canvas.padding=0"]),
    ],
    ids=" ".join,
)
def test_bezier_curves_are_the_same_to_one_gray_level(device: torch.device, changes: list[str]) -> None:
    images = draw_both(device, "bezier", ["generator.grid=4", *changes], [0, 15, 7, 0], [0, 19, 10**6, 1])
    one, other = images
    assert one.any()
    assert np.abs(one.astype(int) - other).max() <= (0 if device.type == "cpu" else 1)


# Contours ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        if_interpreted(["generator.lines_max=2", "generator.vertices_max=5", "generator.outline=ring"]),
        if_compiled(["generator.lines_max=5"]),
        *slow([]),
        *slow(
            ["generator.outline=ring", "canvas.channels=3", "generator.gray=light-on-black"],
            ["generator.outline=filled", "canvas.size=141", "seed=4294967301"],
        ),
        *slow(["generator.vertices_max=600", "generator.vertices_mean=400", "generator.lines_max=3"]),
        *slow(["generator.perlin_max=100", "generator.lines_max=300", "generator.lines_min=200"]),
    ],
    ids=" ".join,
)
def test_contours_are_the_same(device: torch.device, changes: list[str]) -> None:
    """Also where lines lead far out of the canvas."""
    labels, instances = ([0, 1], [0, 2**33]) if INTERPRETED else ([0, 3, 7, 0], [0, 19, 2**33 + 5, 1])
    images = draw_both(device, "rcdb", changes, labels, instances, categories=8)
    assert np.array_equal(*images)
    assert len(np.unique(images[0])) > 2


@pytest.mark.parametrize(
    "changes",
    [
        if_interpreted(["generator.lines_max=2", "generator.vertices_min=3", "generator.vertices_max=5"]),
        *slow(["generator.lines_max=20"]),
        if_compiled(["generator.lines_max=9", "canvas.channels=3", "canvas.size=141", "seed=4294967301"]),
        *slow(["generator.vertices_max=2500", "generator.lines_max=2"]),
    ],
    ids=" ".join,
)
def test_visual_atoms_are_the_same(device: torch.device, changes: list[str]) -> None:
    labels, instances = ([0, 1], [0, 2**33]) if INTERPRETED else ([0, 3, 7, 0], [0, 19, 2**33 + 5, 1])
    images = draw_both(device, "visual-atoms", changes, labels, instances, categories=8)
    assert np.array_equal(*images)
    assert len(np.unique(images[0])) > 2


def test_masks_of_visual_atoms_are_the_same(device: torch.device) -> None:
    small = {"vertices_min": 3, "vertices_max": 5, "lines_max": 2} if INTERPRETED else {"lines_max": 5}
    recipe = {
        "parts": [{"generator": {"name": "visual-atoms", "start_pos": 100, **small}, "categories": 4}],
        "scene": {"objects": [1, 2] if INTERPRETED else [2, 5], "size": [0.5, 0.9]},
        "images": 4,
        "canvas": {"size": 32, "padding": 0},
    }
    draw_scenes_both(device, recipe, [1] if INTERPRETED else [0, 1, 3])


@pytest.mark.parametrize(
    "outline",
    [
        if_interpreted("filled"),
        *slow("lines", "ring"),
    ],
)
def test_contours_as_objects_of_scenes_are_the_same(device: torch.device, outline: str) -> None:
    small = {"lines_max": 2, "vertices_max": 6} if INTERPRETED else {}
    recipe = {
        "parts": [{"generator": {"name": "rcdb", "outline": outline, "start_pos": 100, **small}, "categories": 4}],
        "scene": {"objects": [1, 2] if INTERPRETED else [2, 5], "size": [0.5, 0.9]},
        "images": 4,
        "canvas": {"size": 32, "padding": 0},
    }
    draw_scenes_both(device, recipe, [1] if INTERPRETED else [0, 1, 3])


@pytest.mark.parametrize(
    "changes",
    [
        if_compiled({"mask": "M2", "objects": 3, "lines_max": 2}),
        *slow({"mask": "M2", "objects": 4, "lines_max": 4}),
        *slow({"mask": "M2", "lines_max": 2, "vertices_max": 5, "objects": 2}, {}),
        *slow({"mask": "M3", "objects": 9, "lines_max": 4}, {"objects": 300, "lines_max": 2}),
    ],
    ids=str,
)
def test_scenes_of_contours_are_the_same(device: torch.device, changes: dict[str, object]) -> None:
    recipe = {
        "generator": {"name": "segrcdb", **changes},
        "categories": 20,
        "scene": "own",
        "canvas": {"size": 40, "padding": 0, "channels": 1 if INTERPRETED else 3},
    }
    draw_scenes_both(device, recipe, [5] if INTERPRETED else [5, 0, 2**33 + 1])


@slow_if_interpreted
def test_scenes_of_contours_do_not_depend_on_the_batch(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_support, "SCRATCH_BYTES", 4 * 40 * 40)
    recipe = {"generator": {"name": "segrcdb", "objects": 3}, "scene": "own", "canvas": {"size": 40, "padding": 0}}
    draw_scenes_both(device, recipe, [3, 0, 1])


@pytest.mark.parametrize("name", ["rcdb", "segrcdb"])
def test_published_contours_are_drawn_on_the_cpu(device: torch.device, name: str) -> None:
    settings = {"published_categories": 4, "threads": 2}
    settings.update({"published_instances": 2} if name == "rcdb" else {"published_images": 4, "objects": 2})
    scene = {"scene": "own"} if name == "segrcdb" else {"instances": 2}
    data = {"generator": {"name": name, "random": "published", **settings}, "categories": 4, "canvas": {"size": 32}}
    assert not DeviceDrawer(Drawer(Recipe.from_dict({**data, **scene})), device).native


# Leaves --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        ["generator.radius_min=0.4", "generator.leaves=20"],
        if_compiled(["generator.leaves=20", "canvas.size=33", "seed=4294967301"]),
        pytest.param(["generator.radius_min=0.1", "canvas.channels=1"], marks=pytest.mark.slow),
        pytest.param(["generator.sigma=1.5", "generator.radius_max=2"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_dead_leaves_are_the_same(device: torch.device, changes: list[str]) -> None:
    labels, instances = ([0, 1], [0, 2**33]) if INTERPRETED else ([0, 3, 7, 0], [0, 19, 2**33 + 5, 1])
    images = draw_both(device, "dead-leaves", ["canvas.channels=3", *changes], labels, instances, categories=8)
    assert np.array_equal(*images)
    assert len(np.unique(images[0])) > 8


def test_published_leaves_are_drawn_on_the_cpu(device: torch.device) -> None:
    data = {"generator": {"name": "dead-leaves", "random": "published"}, "canvas": {"size": 32}}
    assert not DeviceDrawer(Drawer(Recipe.from_dict(data)), device).native


# Clouds of points ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        ["canvas.size=40"],
        if_compiled(["generator.views=random", "canvas.size=33", "canvas.channels=3", "seed=4294967301"]),
        *slow(["generator.clouds=3", "generator.max_transformations=12"]),
    ],
    ids=" ".join,
)
def test_views_of_clouds_are_the_same(
    device: torch.device, changes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"generator": {"name": "ifs3d"}, "categories": 4, "canvas": {"size": 40, "padding": 0}}
    drawer = Drawer(Recipe.from_dict(data, changes))
    # The clouds of a category that diverges are empty.
    wild = np.column_stack([1e6 * np.ones((2, 12)), [0.5, 0.5]])
    categories = [*drawer.categories[:2], Category(2, "wild", wild), drawer.categories[3]]
    drawer = Drawer(drawer.recipe, categories=categories)
    on_device = DeviceDrawer(drawer, device)
    assert on_device.native
    monkeypatch.setattr(clouds, "POINTS", 150)
    labels = np.array([0, 3, 0, 1, 2, 3, 0])
    instances = np.array([5, 13, 17, 2**33, 3, 12 * 145 + 1, 5])
    with np.errstate(all="ignore"):
        images = drawer.draw_instances(labels, instances)
        assert np.array_equal(images, on_device.draw_instances(labels, instances).cpu().numpy())
    assert [bool(image.any()) for image in images] == [True, True, True, True, False, True, True]


# What is drawn on the CPU all the same ------------------------------------------------------------------------------


def test_the_slow_reference_is_drawn_on_the_cpu_and_moved(device: torch.device) -> None:
    data = {"generator": {"name": "perlin", "backend": "noise"}, "categories": 2, "canvas": {"size": 32}}
    drawer = Drawer(Recipe.from_dict(data))
    on_device = DeviceDrawer(drawer, device)
    assert not on_device.native
    labels, instances = np.array([1, 0]), np.array([0, 1])
    images = on_device.draw_instances(labels, instances)
    assert images.device.type == device.type
    assert np.array_equal(images.cpu().numpy(), drawer.draw_instances(labels, instances))


# At full size --------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("name", ["ifs", "perlin", "bezier"])
def test_a_hundred_categories_at_full_size_are_the_same(name: str, device: torch.device) -> None:
    drawer = Drawer(Recipe.from_dict({"generator": {"name": name}, "categories": HUNDRED}))
    places = np.arange(HUNDRED), np.arange(HUNDRED) * 3
    one = drawer.draw_instances(*places)
    other = DeviceDrawer(drawer, device).draw_instances(*places).cpu().numpy()
    if name == "ifs":
        assert_same(one, other, device)
    else:
        assert np.abs(one.astype(int) - other).max() <= (0 if device.type == "cpu" else 1)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("name", ["ifs", "perlin", "bezier"])
def test_memory_does_not_grow_over_10_000_batches(name: str) -> None:
    changes = ["generator.dots=1000"] if name == "ifs" else []
    data = {"generator": {"name": name}, "categories": 50, "canvas": {"size": 32}}
    drawer = DeviceDrawer(Drawer(Recipe.from_dict(data, changes)), torch.device("cuda"))
    for batch in range(10_000):
        drawer.draw_instances(np.arange(50), np.arange(50) + 50 * batch)
        if batch == 100:
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    torch.cuda.synchronize()
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == before
