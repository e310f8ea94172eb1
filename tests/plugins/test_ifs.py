"""The generator ``ifs`` beyond the published settings."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from draw_both import draw_with_masks

from formulavision import ConfigError, Drawer, Recipe
from formulavision.rendering import points


def recipe(**settings: object) -> Recipe:
    generator = {"name": "ifs", "dots": 20_000, "weights": "table", **settings}
    return Recipe.from_dict({"generator": generator, "categories": 4, "canvas": {"size": 96}, "seed": 3})


@pytest.fixture(scope="module")
def drawer() -> Drawer:
    return Drawer(recipe())


@pytest.mark.parametrize("weights", ["table", "continuous"])
def test_the_pixels_of_version_2_stay(weights: str) -> None:
    """A change here is a change of everybody's datasets: it needs a new ``Ifs.version``."""
    digests = {
        patch: hashlib.sha256(
            Drawer(recipe(patch=patch, weights=weights)).draw_batch([0, 101, 399])[0].tobytes()
        ).hexdigest()[:16]
        for patch in ("point", "random", "fixed")
    }
    assert digests == DIGESTS[weights]


def test_an_instance_is_weight_then_flip_then_patch_draw(drawer: Drawer) -> None:
    names = [drawer.generator.instance_name(i) for i in (0, 1, 24, 25, 99, 100, 999)]
    assert names == [
        "00_count_0_flip0", "01_count_0_flip0", "24_count_0_flip0", "00_count_0_flip1", "24_count_0_flip3",
        "00_count_1_flip0", "24_count_9_flip3",
    ]  # fmt: skip


@pytest.mark.parametrize(("flip", "axes"), [(1, (0,)), (2, (1,)), (3, (0, 1))])
def test_flips_are_the_same_drawing_turned_over(drawer: Drawer, flip: int, axes: tuple[int, ...]) -> None:
    plain, flipped = drawer.draw(7)[0], drawer.draw(7 + 25 * flip)[0]
    assert np.array_equal(np.flip(plain, axes), flipped)


def test_patch_draws_differ(drawer: Drawer) -> None:
    recipe_of_many = Recipe.from_dict(recipe().to_dict(), ["instances=200"])
    many = Drawer(recipe_of_many)
    assert not np.array_equal(many.draw(0)[0], many.draw(100)[0])


def test_weights_vary_an_instance_more_than_its_patches_do(drawer: Drawer) -> None:
    images, _ = drawer.draw_batch(range(25))
    assert len({image.tobytes() for image in images}) == 25


def test_a_fixed_patch_is_one_mask_for_the_image() -> None:
    generator = Drawer(recipe(patch="fixed")).generator
    category = Drawer(recipe(patch="fixed")).categories[0]
    masks = [generator.drawing.masks(category, draw).tolist() for draw in range(25)]  # type: ignore[attr-defined]
    assert {(len(mask), mask[0]) for mask in masks} == {(2, 0)}
    assert len({mask[1] for mask in masks}) > 10


def test_colour_draws_where_gray_does(drawer: Drawer) -> None:
    colored = Drawer(Recipe.from_dict(recipe().to_dict(), ["canvas.channels=3"]))
    gray, color = drawer.draw(3)[0], colored.draw(3)[0]
    assert np.array_equal(gray[:, :, 0] > 0, color.any(axis=2))
    assert len(np.unique(color.reshape(-1, 3), axis=0)) > 100


@pytest.mark.parametrize("padding", [0, 1, 6, 30])
def test_points_stay_inside_the_canvas(padding: int) -> None:
    drawn = Drawer(Recipe.from_dict(recipe(patch="point").to_dict(), [f"canvas.padding={padding}"])).draw(0)[0]
    rows, columns = np.nonzero(drawn[:, :, 0])
    last = 96 - max(padding, 1)
    assert (rows.min(), columns.min()) >= (96 - 1 - last, padding)
    assert (rows.max(), columns.max()) <= (96 - 1 - padding, last)


def test_an_attractor_away_from_the_origin_is_drawn_where_the_published_one_is(tmp_path: Path) -> None:
    """A Sierpinski triangle in [1, 2] x [1, 2]; the published orbit starts at the origin, which its bounds include."""
    corners = [(0.5, 0.5), (1.0, 0.5), (0.5, 1.0)]
    rows = np.array([[0.5, 0, 0, 0.5, e, f, 1 / 3] for e, f in corners])
    np.savetxt(tmp_path / "00000.csv", rows, delimiter=",")
    boxes = []
    for orbit in ("published", "independent"):
        settings = [f"categories={{folder: {tmp_path}}}"]
        image = Drawer(Recipe.from_dict(recipe(orbit=orbit, weight_interval=0).to_dict(), settings)).draw(0)[0]
        rows_lit, columns_lit = np.nonzero(image[:, :, 0][:48, 48:])
        boxes.append([rows_lit.min(), rows_lit.max(), columns_lit.min(), columns_lit.max()])
    assert np.abs(np.subtract(boxes[0], boxes[1])).max() <= 2


def test_no_category_of_the_independent_search_diverges() -> None:
    many = Drawer(Recipe.from_dict(recipe().to_dict(), ["categories.count=20", "instances=25"]))
    images, _ = many.draw_batch(range(len(many)))
    lit = (images > 0).mean(axis=(1, 2, 3))
    assert lit.min() > 0.001, "an orbit that diverges leaves a handful of pixels"


def test_a_search_that_finds_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    from formulavision_plugins.ifs import search_independent

    monkeypatch.setattr(search_independent, "_MOST_TRIALS", 100)
    generator = Recipe.from_dict({"generator": {"name": "ifs", "fill_rate": 0.3}}).build()
    with pytest.raises(ConfigError, match=r"none of 100 random systems fills 0\.3 of the canvas .* lower fill_rate"):
        generator.category(0)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"weight_interval": 0.1},
            "weight_interval: has an effect with weights: table only, and weights is continuous",
        ),
        ({"weights": "table", "perturbation": 0.1}, "perturbation: has an effect with weights: continuous only"),
    ],
)
def test_a_setting_that_would_not_count_is_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Recipe.from_dict({"generator": {"name": "ifs", **settings}})


def test_the_published_search_refuses_a_seed_that_numpy_would() -> None:
    generator = Recipe.from_dict({"generator": {"name": "ifs", "search": "published"}, "seed": 2**32}).build()
    with pytest.raises(ConfigError, match="seed: 4294967296 is not allowed"):
        next(iter(generator.categories(1)))


def test_the_independent_search_reaches_the_filling_rate() -> None:
    from formulavision_plugins.ifs.orbits import published_orbit, select
    from formulavision_plugins.ifs.systems import add_identity, cumulative_probabilities

    draws = np.random.default_rng(0).random(100_000)
    for category in Drawer(recipe(fill_rate=0.15)).categories:
        selection = np.empty(100_000, np.uint8)
        x, y = np.empty(100_000), np.empty(100_000)
        select(draws, cumulative_probabilities(category.parameters), selection)
        published_orbit(add_identity(category.parameters), selection, x, y)
        columns, rows = np.empty(100_000, np.uint16), np.empty(100_000, np.uint16)
        length = points.to_pixels(x, y, 512, 6, columns, rows)
        lit = points.light(columns, rows, length, np.zeros((512, 512), np.uint8))
        assert lit / 512**2 > 0.15 * 0.97, "another orbit of the category fills as much, but for chance"


@pytest.mark.parametrize("points_wanted", [1, 2, 5, 8, 9, 10, 16, 17, 1003, 4001])
@pytest.mark.parametrize("scale", [0.3, 1.0, 1.3, 3.0])
def test_the_published_orbit_is_followed_step_by_step(points_wanted: int, scale: float) -> None:
    """Also where it expands, and overflows: there its parts never meet what was computed ahead."""
    from formulavision_plugins.ifs.orbits import published_orbit
    from formulavision_plugins.ifs.systems import add_identity

    random = np.random.default_rng(points_wanted)
    system = add_identity(random.uniform(-scale, scale, (3, 7)))
    selection = random.integers(0, 4, points_wanted).astype(np.uint8)
    x, y = np.empty((2, points_wanted))
    published_orbit(system, selection, x, y)
    path = [(0.0, 0.0)]
    for a, b, c, d, e, f in system[selection[:-1]].tolist():
        px, py = path[-1]
        path.append((px * a + py * b + e, px * c + py * d + f))
    assert np.array_equal(np.column_stack([x, y]), path, equal_nan=True)


def plain_independent_orbit(system: np.ndarray, points_wanted: int, key: tuple[int, int, int, int]) -> np.ndarray:
    """By its definition, chain by chain in numpy scalars: float32 [2, points]."""
    from formulavision_plugins.ifs.orbits import BURN_IN, CHAINS
    from formulavision_plugins.ifs.systems import thresholds

    from formulavision.rendering.random import philox4x32

    rows = system[:, :6].astype(np.float32)
    limits = thresholds(system)
    steps = BURN_IN + -(-points_wanted // CHAINS)
    orbit = np.zeros((2, steps, CHAINS), np.float32)
    for chain in range(CHAINS):
        x = y = np.float32(0)
        for step in range(steps):
            if step % 8 == 0:
                words = philox4x32(CHAINS * (step // 8) + chain, 0, *key)
            draw = words[step % 8 // 2] >> 16 * (step % 2) & 0xFFFF
            a, b, c, d, e, f = rows[np.searchsorted(limits, draw, side="right")]
            x, y = x * a + y * b + e, x * c + y * d + f
            orbit[:, step, chain] = x, y
    return orbit[:, BURN_IN:].reshape(2, -1)[:, :points_wanted]


@pytest.mark.parametrize("rows", [2, 5, 16, 17, 40])
def test_the_independent_orbit_is_what_its_definition_says(rows: int) -> None:
    from formulavision_plugins.ifs.orbits import independent_orbit, lookup_tables
    from formulavision_plugins.ifs.systems import thresholds, with_probabilities

    system = with_probabilities(np.random.default_rng(rows).uniform(-0.6, 0.6, (rows, 6)))
    columns, lines = np.empty((2, 1500), np.uint16)
    tables = lookup_tables(system[:, :6], thresholds(system))
    box = independent_orbit(*tables, 1, 2, 3, 4, 96, 6, columns, lines)
    x, y = plain_independent_orbit(system, 1500, (1, 2, 3, 4))
    assert box == (min(x.min(), 0), max(x.max(), 0), min(y.min(), 0), max(y.max(), 0))
    expected = np.empty((2, 1500), np.uint16)
    points.scale_to_canvas(x, y, 1500, box, 96, 6, *expected)
    assert np.array_equal([columns, lines], expected)


@pytest.mark.slow
@pytest.mark.parametrize(("lanes", "permutes"), [(16, True), (8, True), (4, False)])
def test_the_independent_orbit_is_the_same_on_other_processors(lanes: int, permutes: bool) -> None:
    """With vector registers of other widths, and without permutations."""
    from formulavision_plugins.ifs import orbits
    from formulavision_plugins.ifs.systems import thresholds, with_probabilities

    system = with_probabilities(np.random.default_rng(1).uniform(-0.6, 0.6, (7, 6)))
    columns, lines = np.empty((2, 1500), np.uint16)
    orbits.independent_orbit(
        *orbits.lookup_tables(system[:, :6], thresholds(system)), 1, 2, 3, 4, 96, 6, columns, lines
    )
    script = f"""
import numpy as np
from formulavision_plugins.ifs import orbits
from formulavision_plugins.ifs.systems import thresholds
orbits._LANES, orbits._PERMUTES = {lanes}, {permutes}
system, columns, lines = np.array({system.tolist()}), *np.empty((2, 1500), np.uint16)
orbits.independent_orbit(*orbits.lookup_tables(system[:, :6], thresholds(system)), 1, 2, 3, 4, 96, 6, columns, lines)
print(columns.tobytes().hex(), lines.tobytes().hex())"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [columns.tobytes().hex(), lines.tobytes().hex()]


def drawn(columns: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    latest, owners = np.empty((2, 256, 256), np.uint32)
    image, masks = np.empty((256, 256), np.uint8), np.zeros(1 + len(columns), np.uint16)
    points.patch_masks(masks[1:], seed, 0, 0, 0)
    points.mark(columns, rows, len(columns), latest)
    points.patch_owners(latest, owners)
    points.shade(owners, masks, 1, image)
    return image


def test_the_independent_orbit_makes_statistically_the_published_image() -> None:
    """Over 50 categories, two images of each orbit: as bright in all, and in every block of 8 x 8 pixels an independent
    image differs from a published one no more than that from another published one."""
    from formulavision_plugins.ifs.orbits import independent_orbit, lookup_tables, published_orbit, select
    from formulavision_plugins.ifs.systems import add_identity, cumulative_probabilities, thresholds

    n = 100_000
    fill, differences = [], []
    for category in Drawer(Recipe.from_dict({"generator": {"name": "ifs"}, "categories": 50, "seed": 5})).categories:
        system = category.parameters
        images = []
        columns, rows = np.empty((2, n), np.uint16)
        for seed in (1, 2):
            selection, x, y = np.empty(n, np.uint8), np.empty(n), np.empty(n)
            select(np.random.RandomState(seed).random_sample(n), cumulative_probabilities(system), selection)
            published_orbit(add_identity(system), selection, x, y)
            points.to_pixels(x, y, 256, 6, columns, rows)
            images.append(drawn(columns, rows, seed))
        for seed in (3, 4):
            tables = lookup_tables(system[:, :6], thresholds(system))
            independent_orbit(*tables, seed, 0, 0, 0, 256, 6, columns, rows)
            images.append(drawn(columns, rows, seed))
        fill.append([image.mean() for image in images])
        blocks = [image.reshape(32, 8, 32, 8).mean(axis=(1, 3)) for image in images]
        differences.append([np.abs(blocks[0] - blocks[k]).mean() for k in (1, 2, 3)])
    of_orbit = np.mean(fill, axis=0)
    assert of_orbit[2:].mean() == pytest.approx(of_orbit[:2].mean(), rel=0.01)
    published, *independent = np.mean(differences, axis=0)
    assert np.max(independent) < 1.05 * published


def test_patches_have_the_3x3_statistics_of_the_published_ones(official: Path) -> None:
    """How often each of the 512 patterns of 3 x 3 pixels occurs, beside an image with the published masks."""
    settings = {"search": "published", "orbit": "published", "dots": 200_000}
    data = {**recipe(**settings).to_dict(), "categories": {"folder": str(official / "categories")}}
    drawer = Drawer(Recipe.from_dict(data, ["canvas.size=362", "canvas.padding=6", "instances=500"]))

    def patterns(image: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(image[:, :, 0] > 0, (3, 3)).reshape(-1, 9)
        return np.bincount(windows @ (1 << np.arange(9)), minlength=512)[1:] / len(windows)

    with np.load(official / "golden/patch_gray_362_200000/00000/00000_02_masks.npz", allow_pickle=False) as file:
        published = patterns(draw_with_masks(drawer, drawer.categories[0], 2, file["masks"]))
    ours = [patterns(drawer.draw(instance)[0]) for instance in (2, 102, 202)]
    between_ours = np.abs(ours[1] - ours[2]).sum()
    assert np.abs(ours[0] - published).sum() < 1.1 * between_ours
    assert ours[0].sum() == pytest.approx(published.sum(), rel=0.01)


DIGESTS = {
    "table": {"point": "24ad41ab2fdd8fac", "random": "5c39002cfbd506bc", "fixed": "3e326fe6f3d22473"},
    "continuous": {"point": "57bdf37d43abb7ff", "random": "f0b9577e5f33c38a", "fixed": "2232d5488c26677d"},
}
