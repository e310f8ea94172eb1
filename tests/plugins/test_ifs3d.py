"""The generator ``ifs3d``: MV-FractalDB to the bit, and the counter-based one."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from formulavision_plugins.ifs3d import Ifs3d, clouds, published, search
from formulavision_plugins.ifs3d.generator import in_ring
from numpy.typing import NDArray
from PIL import Image

from formulavision import Category, ConfigError, Drawer, Recipe
from formulavision.recipes.category_files import write_folder
from formulavision.rendering import points_3d

GOLDEN = {"random": "published", "cloud_seed": 101, "view_seed": 7}
"""Settings of the goldens; their search has the seed 1."""
SIZE = 224


def recipe(canvas: Any = None, categories: Any = 3, instances: Any = 24, **generator: Any) -> Recipe:
    return Recipe.from_dict(
        {
            "generator": {"name": "ifs3d", **generator},
            "categories": categories,
            "instances": instances,
            "canvas": {"size": SIZE, "padding": 0, **(canvas or {})},
            "seed": 1,
        }
    )


def images(*indices: int, **settings: Any) -> NDArray[np.uint8]:
    return Drawer(recipe(**settings)).draw_batch(indices)[0]


def digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def generator_of(**settings: Any) -> Ifs3d:
    generator = recipe(**settings).build()
    assert isinstance(generator, Ifs3d)
    return generator


# MV-FractalDB --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> tuple[Path, dict[str, Any]]:
    folder = shared_data / "published-generators" / "mv_fractaldb"
    return folder, json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


PROJECTION = points_3d.perspective(45, 1, 100)


@pytest.fixture(scope="module")
def drawer() -> Drawer:
    return Drawer(recipe(categories=6, instances=1740, **GOLDEN))


def cloud_of(drawer: Drawer, category: int, row: int) -> NDArray[np.float32]:
    assert isinstance(drawer.generator, Ifs3d)
    return drawer.generator.cloud(drawer.categories[category], row)


def ring_cameras(views: NDArray[np.int64], turns: NDArray[np.float64]) -> NDArray[np.float32]:
    toward, up = in_ring(views, turns)
    return points_3d.cameras(toward, up, 4.0)


def view_of(drawer: Drawer, category: int, row: int, view: int, place: int) -> NDArray[np.uint8]:
    """A view as the program rendered it for the goldens: the cloud is number ``place`` of those that were there."""
    image = np.zeros((SIZE, SIZE), np.uint8)
    matrix = points_3d.combined(ring_cameras(np.array([view]), published.turns(7, place)[[view]]), PROJECTION)[0]
    points_3d.draw_points(cloud_of(drawer, category, row), matrix, 255, image)
    return np.repeat(image[:, :, None], 3, axis=2)


# The digest of the digests of all goldens, in their order.
def test_all_clouds_are_the_published_ones(drawer: Drawer) -> None:
    found = [digest(cloud_of(drawer, number // 145, number % 145).T) for number in range(870)]
    assert hashlib.sha256("".join(found).encode()).hexdigest()[:32] == "80ba8854a9bac25ca6af52b26157bdd9"


def test_the_goldens_have_these_digests(golden: tuple[Path, dict[str, Any]]) -> None:
    every = "".join(cloud["float32_sha256"] for cloud in golden[1]["clouds"]["in_order"])
    assert hashlib.sha256(every.encode()).hexdigest()[:32] == "80ba8854a9bac25ca6af52b26157bdd9"
    views = "".join(view["pixels_sha256"] for view in golden[1]["views"]["in_order"])
    assert hashlib.sha256(views.encode()).hexdigest()[:32] == "d70a6c12b0285af58fc449ea95342884"


def test_all_views_are_the_published_ones(drawer: Drawer) -> None:
    rows = [0, 66, 144, 0, 66, 144, 0, 66, 144, 0, 66, 144, 0, 66, 144, 0, 66, 144]
    found = [
        digest(view_of(drawer, place // 3, row, view, place)) for place, row in enumerate(rows) for view in range(12)
    ]
    assert hashlib.sha256("".join(found).encode()).hexdigest()[:32] == "d70a6c12b0285af58fc449ea95342884"


def test_all_matrices_are_the_published_ones_to_the_bit(golden: tuple[Path, dict[str, Any]]) -> None:
    views = golden[1]["views"]["in_order"]
    number, turns = (np.array([view[key] for view in views]) for key in ("view", "jitter_degrees"))
    assert turns.tobytes() == np.concatenate([published.turns(7, place) for place in range(18)]).tobytes()
    found = ring_cameras(number, turns)
    expected, projections = (
        np.array([view[key] for view in views], np.float32).reshape(-1, 4, 4).transpose(0, 2, 1)
        for key in ("mat_view_column_major", "mat_proj_column_major")
    )
    assert len(views) == 216 and found.tobytes() == expected.tobytes()
    assert np.broadcast_to(PROJECTION, projections.shape).tobytes() == projections.tobytes()


# PyGLM 2.8.3 on glibc 2.36 gives this digest; the nearest sines and cosines give 34 other matrices.
def test_matrices_of_any_turn_are_those_of_glm_to_the_bit() -> None:
    random = Random(3)
    turns = np.array([random.uniform(-math.pi, math.pi) for _ in range(20_000)])
    found = ring_cameras(np.arange(20_000) % 12, turns)
    assert digest(found) == "5ed213b76ee963fad67a05da7cfefb44f9134e6bb87d3937ad229a07e9dc27a1"


def test_the_first_views_come_out_of_the_drawer(drawer: Drawer, golden: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = golden
    for view in range(12):
        picture = Image.open(folder / "images" / "000000" / f"000000_00000_{view:03d}.png").convert("L")
        assert np.array_equal(drawer.draw(view)[0][:, :, 0], np.asarray(picture))


def test_categories_in_the_programs_files_give_its_clouds(golden: tuple[Path, dict[str, Any]]) -> None:
    folder, manifest = golden
    found = Drawer(recipe(categories={"folder": str(folder / "param")}, **GOLDEN))
    assert len(found.categories) == 6
    for number in range(0, 870, 29):
        expected = manifest["clouds"]["in_order"][number]["float32_sha256"]
        assert digest(cloud_of(found, number // 145, number % 145).T) == expected
    with np.load(folder / "clouds_float32.npz") as whole:
        assert np.array_equal(cloud_of(found, 1, 66).T, whole["cloud_000001_0066"])
        assert np.array_equal(cloud_of(found, 5, 144).T, whole["cloud_000005_0144"])


def test_the_search_finds_the_published_categories(drawer: Drawer, golden: tuple[Path, dict[str, Any]]) -> None:
    """Their probabilities to a bit: LAPACK's determinants differ there among versions."""
    for category in drawer.categories:
        file = np.loadtxt(golden[0] / "param" / f"{category.index:06d}.csv", delimiter=",", ndmin=2)
        assert np.array_equal(category.parameters[:, :12], file[:, :12])
        np.testing.assert_allclose(category.parameters[:, 12], file[:, 12], rtol=4e-16)


def test_the_table_of_weights_has_the_slip_of_the_published_one() -> None:
    regular, slip = (clouds.weight_table(published=flag) for flag in (False, True))
    assert regular.shape == (145, 12)
    assert np.argwhere(regular != slip).tolist() == [[108, 8]]
    assert slip[108].tolist() == slip[99].tolist() and regular[108, 8] == 1.6
    assert regular[:13, 0].tolist() == [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6]
    assert len({row.tobytes() for row in regular}) == 145


def test_published_images_do_not_depend_on_order_or_batch() -> None:
    settings = {**GOLDEN, "categories": 2, "instances": 1740, "canvas": {"size": 40}}
    together = images(1000, 7, 1739, 1745, 1001, **settings)
    alone = [images(index, **settings)[0] for index in (1000, 7, 1739, 1745, 1001)]
    assert np.array_equal(together, alone) and len({image.tobytes() for image in together}) == 5


def plain_cloud(
    system: NDArray[np.float64], factors: NDArray[np.float64], numbers: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A cloud as the README of the goldens describes it, with plain loops."""
    borders, maps = np.cumsum(system[:, 12]), (system[:, :12] * factors).tolist()
    x = y = z = 0.0
    orbit = []
    for j in np.searchsorted(borders, numbers[:-1]):
        if j < len(maps):
            a, b, c, d, e, f, g, h, i, u, v, w = maps[j]
            x, y, z = ((x * a + y * b) + z * c) + u, ((x * d + y * e) + z * f) + v, ((x * g + y * h) + z * i) + w
        orbit.append((x, y, z))
    points = np.array(orbit).T
    with np.errstate(all="ignore"):
        points = ((points - points.min()) / (points.max() - points.min())) * 2 - 1
        return points - np.cumsum(points, axis=1)[:, -1:] / 10_000


def diverging(folder: Path) -> dict[str, str]:
    """Categories of which the first has all 13 clouds, the second the first 7, the third none, the fourth the first 12.

    The seventh of the second category is the one of which only the last x exceeds the range of numbers.
    """
    low, high = 1.07, 1.08  # a: x is (a^n - 1) / (a - 1) after n steps
    while (a := (low + high) / 2) not in (low, high):
        low, high = (a, high) if 9998.5 * math.log(a) - math.log(a - 1) < 1024 * math.log(2) else (low, a)
    systems = [
        [[0.5, 0.1, 0.2, 0.3, 0.4, -0.2, 0.1, -0.5, 0.6, 1, 0.5, 0.2, 0.6], [*[0.1, -0.3, 0.2] * 3, 0.5, 0, 1, 0.4]],
        [[a, 0, 0, 0, -0.5, 0.1, 0, 0.2, 0.5, 1, 1, 1, 1]],
        [[9.0, 1, 2, 3, 9, 1, 2, 3, 9, 1, 1, 1, 1]],
        [[0.7, 0.1, 0, 0, 0.5, 0.3, 0, -0.5, 0.4, 1, 0.5, 0.2, 1]],
        [[0.4, 0.1, 0.2, -0.3, 0.4, 0.2, 0.1, 0.5, 0.6, 0.3, 0.5, 0.2, 0.9], [*[0.3, -0.1, 0.2] * 3, 0.5, 0, 1, 0.1]],
    ]
    for i, system in enumerate(systems):
        np.savetxt(folder / f"{i}.csv", system, delimiter=",")
    return {"folder": str(folder)}


def test_clouds_that_diverge_have_no_number_and_no_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "_STRETCH", 29)
    settings: dict[str, Any] = {**GOLDEN, "clouds": 13, "categories": diverging(tmp_path), "instances": 156}
    random, python = np.random.RandomState(101), Random(7)
    drawer = Drawer(recipe(**settings))
    table = clouds.weight_table(published=True)
    expected = np.zeros((5, 156, SIZE, SIZE), np.uint8)
    numbers = []
    for category, images_of in zip(drawer.categories, expected, strict=True):
        number = 0
        for row in range(13):
            points = plain_cloud(category.parameters, table[row], random.random_sample(10_000))
            if not np.isnan(points[1]).any():
                turns = np.array([python.uniform(-math.pi, math.pi) for _ in range(12)])
                for view, camera in enumerate(ring_cameras(np.arange(12), turns)):
                    matrix = points_3d.combined(camera[None], PROJECTION)[0]
                    points_3d.draw_points(points.astype(np.float32), matrix, 255, images_of[12 * number + view])
                number += 1
        numbers.append(number)
    assert numbers == [13, 7, 0, 12, 13]
    assert expected[1, :72].any(axis=(1, 2)).all() and not expected[1, 72:].any()
    expected = expected.reshape(-1, SIZE, SIZE, 1)
    for index in (4 * 156 + 3, 3 * 156 + 143, 2 * 156, 156 + 83, 156 + 84, 3 * 156 + 144, 5):
        assert np.array_equal(Drawer(recipe(**settings)).draw(index)[0], expected[index])
    assert np.array_equal(drawer.draw_batch(range(779, 0, -7))[0], expected[779:0:-7])
    again = pickle.loads(pickle.dumps(drawer))
    assert np.array_equal(again.draw_batch(range(160, 170))[0], expected[160:170])
    fewer = recipe(**{**settings, "categories": {**settings["categories"], "count": 4}})
    assert np.array_equal(Drawer(fewer).draw(3 * 156)[0], expected[3 * 156])


def test_published_clouds_need_the_categories_before(drawer: Drawer) -> None:
    generator = generator_of(**GOLDEN)
    told = "random: published needs the categories before 00002 to draw it: call generator"
    with pytest.raises(ConfigError, match=told):
        generator.render(drawer.categories[2], 0)
    generator.before_drawing(drawer.categories[:2])
    with pytest.raises(ConfigError, match=told):
        generator.render(drawer.categories[2], 0)
    generator.before_drawing(drawer.categories[:3])
    assert np.array_equal(generator.render(drawer.categories[2], 0), drawer.draw(2 * 1740)[0])


def test_3d_ofdb_has_twelve_views_of_the_first_row() -> None:
    generator = generator_of(**GOLDEN, clouds=1, instances=12)
    assert generator.max_instances() == 12
    with pytest.raises(ConfigError, match="12"):
        recipe(**GOLDEN, clouds=1, instances=13)


# The goldens' renderer found these clouds only; the digest is that of test_all_views_are_the_published_ones.
def test_views_of_the_clouds_that_are_seen_have_the_turns_of_their_places() -> None:
    seen = Drawer(recipe(**GOLDEN, categories=6, seen=[0, 66, 144], instances=36, canvas={"channels": 3}))
    drawn = [digest(image) for image in seen.draw_batch(range(216))[0]]
    assert hashlib.sha256("".join(drawn).encode()).hexdigest()[:32] == "d70a6c12b0285af58fc449ea95342884"
    own = images(*range(12, 36), seen=[4, 144], instances=36)
    assert np.array_equal(own[:12], images(*range(12, 24), instances=24, seen=[4, 144]))
    assert len({image.tobytes() for image in own}) == 24


def test_smaller_tables_have_fewer_weights_on_both_sides_of_one() -> None:
    whole = [row.tolist() for row in clouds.weight_table(published=False)]
    for rows, weights in ((25, [0.9, 1.1]), (73, [0.7, 0.8, 0.9, 1.1, 1.2, 1.3])):
        table = clouds.weight_table(rows, published=True)
        assert table.shape == (rows, 12) and (table == 1).all(axis=1).sum() == 1
        assert [row for row in whole if set(row) <= {1.0, *weights}] == table.tolist()
        assert all(sorted(set(column)) == sorted([*weights, 1.0]) for column in table.T)


def test_a_smaller_table_gives_other_clouds_from_the_same_stream() -> None:
    settings = {**GOLDEN, "table": 25, "categories": 2, "instances": 300}
    drawer, random, python = Drawer(recipe(**settings)), np.random.RandomState(101), Random(7)
    assert isinstance(drawer.generator, Ifs3d) and drawer.generator.max_instances() == 300
    table = clouds.weight_table(25, published=True)
    for number in range(27):
        category, row = drawer.categories[number // 25], number % 25
        points = plain_cloud(category.parameters, table[row], random.random_sample(10_000)).astype(np.float32)
        turns = np.array([python.uniform(-math.pi, math.pi) for _ in range(12)])
        if number in (0, 24, 26):
            image = np.zeros((SIZE, SIZE), np.uint8)
            matrix = points_3d.combined(ring_cameras(np.array([5]), turns[[5]]), PROJECTION)[0]
            points_3d.draw_points(points, matrix, 255, image)
            assert np.array_equal(drawer.draw(12 * number + 5)[0][:, :, 0], image)


# Projection ----------------------------------------------------------------------------------------------------------


def test_pixels_are_those_of_the_formula_but_for_rounding() -> None:
    random, image = np.random.default_rng(0), np.zeros((SIZE, SIZE), np.uint8)
    x, y, z = points = random.uniform(-1, 1, (3, 400))
    phi = 1.234
    toward, up = np.array([[[np.cos(phi), 0, -np.sin(phi)]], [[0, 1, 0]]], np.float32)
    matrix = points_3d.combined(points_3d.cameras(toward, up, 4.0), PROJECTION)[0]
    points_3d.draw_points(points.astype(np.float32), matrix, 9, image)
    depth, cotangent = 4 + np.cos(phi) * x - np.sin(phi) * z, 1 / np.tan(np.pi / 8)
    middle = SIZE / 2
    columns = middle + middle * cotangent * (np.sin(phi) * x + np.cos(phi) * z) / depth
    rows = middle + middle * cotangent * y / depth
    expected = np.zeros_like(image)
    snapped = np.floor(np.round(np.array([rows, columns]) * 256) / 256).astype(int)
    expected[tuple(snapped)] = 9
    assert (expected > 0).sum() > 380 and (image != expected).sum() <= 2


def test_points_outside_of_the_image_and_behind_the_camera_are_left_out() -> None:
    image = np.zeros((8, 8), np.uint8)
    far = np.array([[9, 0, 0, np.nan], [0, -9, 0, 0], [0, 0, 9, 0]], np.float32)
    toward, up = np.array([[[0, 0, -1]], [[0, 1, 0]]], np.float32)
    points_3d.draw_points(far, points_3d.combined(points_3d.cameras(toward, up, 4.0), PROJECTION)[0], 1, image)
    assert not image.any()


# Counter-based images ------------------------------------------------------------------------------------------------


def test_an_instance_is_the_same_alone_and_in_a_batch() -> None:
    together = images(25, 0, 13, 1)
    assert np.array_equal(together, np.concatenate([images(index) for index in (25, 0, 13, 1)]))
    assert len({image.tobytes() for image in together}) == 4 and together.any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("views", ["ring", "random"])
def test_no_two_instances_are_alike_also_far_away(views: str) -> None:
    drawer = Drawer(recipe(views=views))
    out = np.zeros((6, SIZE, SIZE, 1), np.uint8)
    drawer.generator.render_batch(drawer.categories[1], np.array([0, 1, 1740, 2**33, 2**33 + 1, 5]), out)
    assert len({image.tobytes() for image in out}) == 6 and set(np.unique(out)) == {0, 255}


def test_categories_are_accepted_systems_and_the_first_of_any_number() -> None:
    few, many = (Drawer(recipe(categories=n)).categories for n in (2, 5))
    assert all(np.array_equal(a.parameters, b.parameters) for a, b in zip(few, many, strict=False))
    for category in many:
        assert 2 <= len(category.parameters) <= 7 and category.parameters[:, 12].sum() == pytest.approx(1)
        points = generator_of().cloud(category, 6)
        assert (points.astype(float).var(axis=1) > 0.03).all()


@pytest.mark.parametrize("random", ["independent", "published"])
def test_a_search_that_finds_nothing_ends(random: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = (
        r"none of 20 random systems has a variance above 0\.15 along every axis: lower variance or max_transformations"
    )
    monkeypatch.setattr(search, "_MOST_TRIALS", 20)
    with pytest.raises(ConfigError, match=told):
        next(iter(generator_of(random=random, variance=0.15, max_transformations=64).categories(1)))


@pytest.mark.parametrize("random", ["independent", "published"])
def test_the_trials_of_each_category_are_counted_alone(random: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trials: list[bool] = []

    def watch(*given: Any) -> bool:
        trials.append(clouds.is_accepted(*given))
        return trials[-1]

    monkeypatch.setattr(search, "is_accepted", watch)
    generator = generator_of(random=random)
    expected = [np.asarray(each) for each in generator.categories(4)]
    needed = np.diff(np.flatnonzero([True, *trials])).max()
    monkeypatch.setattr(search, "_MOST_TRIALS", int(needed))
    assert all(np.array_equal(*pair) for pair in zip(generator.categories(4), expected, strict=True))
    monkeypatch.setattr(search, "_MOST_TRIALS", int(needed) - 1)
    with pytest.raises(ConfigError, match=f"none of {needed - 1:,} random systems"):
        list(generator.categories(4))


def test_random_views_look_from_everywhere() -> None:
    generator = generator_of(views="random")
    category = Category(0, "00000", np.zeros((1, 13)))
    toward, up = generator.random_directions([category] * 500, np.arange(500))
    np.testing.assert_allclose(np.linalg.norm([toward, up], axis=2), 1, rtol=1e-6)
    assert np.abs((toward * up).sum(axis=1)).max() < 1e-6 and (up[:, 1] >= 0).all()
    assert np.abs(toward.mean(axis=0)).max() < 0.1 and np.abs((toward**2).mean(axis=0) - 1 / 3).max() < 0.05


@pytest.mark.parametrize("height", [0.0, 1 - 2**-53, 0.5, 2**-53])
def test_a_camera_may_look_along_the_axis(height: float, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = generator_of(views="random")
    monkeypatch.setattr(Ifs3d, "uniforms", lambda *_: np.array([height, 0.2]))
    toward, up = generator.random_directions([Category(0, "00000", np.zeros((1, 13)))], np.arange(1))
    (matrix,) = points_3d.cameras(toward, up, 4.0)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(matrix[:3, 3], [0, 0, -4], atol=1e-6)
    assert matrix[2, 1] == np.float32(1 - 2 * height)


def test_a_cloud_that_diverges_is_an_empty_image(tmp_path: Path) -> None:
    system = np.array([[9.0, 0, 0, 0, 9, 0, 0, 0, 9, 1, 1, 1, 1.0]])
    write_folder([Category(0, "00000", system)], tmp_path / "categories")
    assert not images(0, 13, categories={"folder": str(tmp_path / "categories")}).any()


def test_a_canvas_of_three_channels_has_the_same_gray_in_all() -> None:
    assert np.array_equal(images(3, canvas={"channels": 3}), np.repeat(images(3), 3, axis=3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"random": "published", "views": "random"}, "views: random is not allowed with random: published"),
        ({"cloud_seed": 3}, "cloud_seed: has an effect with random: published only"),
        ({"view_seed": 3}, "view_seed: has an effect with random: published only"),
        ({"clouds": 146}, "clouds"),
        ({"table": 26}, "table"),
        ({"random": "published", "table": 25, "instances": 301}, "300"),
        ({"random": "published", "seen": [0, 2], "instances": 25}, "24"),
        ({"seen": []}, "seen"),
        ({"seen": [2, 1]}, "rows of the table from 0 to 144 in ascending order"),
        ({"seen": [1, 1]}, "ascending order"),
        ({"seen": [-1]}, "from 0 to 144"),
        ({"seen": [25], "table": 25}, "from 0 to 24"),
        ({"seen": [3], "clouds": 3}, "from 0 to 2"),
        ({"random": "published", "instances": 1741}, "1740"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**settings)


@pytest.mark.parametrize(
    ("system", "message"),
    [
        (np.full((1, 13), 2.0), "must be probabilities"),
        (np.array([[1e7, *[0.0] * 11, 1.0]]), "from -1,000,000 to 1,000,000"),
        (np.full((255, 13), 1 / 255), "255 transformations"),
    ],
)
def test_parameters_of_no_category_are_refused(system: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generator_of().check_category(system)


# A digest that changes is a pixel that changed: raise the generator's version with it.
@pytest.mark.parametrize(
    ("settings", "expected"), [({}, "ec50ba5ad21566af"), ({"views": "random"}, "42b28197ffd21790")]
)
def test_pixels_are_those_of_version_1(settings: Any, expected: str) -> None:
    assert digest(images(0, 5, 30, 47, **settings))[:16] == expected
