"""2D-OFDB and 1p-frac to the pixel, as settings of the generator ``ifs``, and our own ways beside them."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formulavision_plugins.ifs import patches_published, search_one_base
from formulavision_plugins.ifs.singular_values import probabilities_by_elimination, random_transformations
from numpy.typing import NDArray
from PIL import Image

from formulavision import ConfigError, DeviceDrawer, Drawer, FormulaDataset, Recipe, generate, verify
from formulavision.recipes import categories
from formulavision.rendering import mersenne, python_random

OFDB: dict[str, Any] = {
    "search": "published", "max_transformations": 7, "weights": "table", "table_rows": 1, "orbit": "published",
    "patches": "published", "flips": False,
}  # fmt: skip


def recipe(generator: dict[str, Any], categories: Any, size: int, **others: Any) -> Recipe:
    settings = {"generator": {"name": "ifs", **generator}, "categories": categories, "instances": 1, "seed": 1}
    return Recipe.from_dict({**settings, "canvas": {"size": size}, **others})


def digest(image: NDArray[np.uint8]) -> str:
    """Of the array as the original programs saved it, with three equal channels."""
    return hashlib.sha256(np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2).tobytes()).hexdigest()


def manifest(shared_data: Path, name: str) -> tuple[Path, dict[str, Any]]:
    folder = shared_data / "published-generators" / name
    return folder, json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


# 2D-OFDB -------------------------------------------------------------------------------------------------------------


def test_2d_ofdb_is_the_published_one(shared_data: Path, tmp_path: Path) -> None:
    folder, goldens = manifest(shared_data, "ofdb")
    drawn = recipe({**OFDB, "patch_seed": 4321}, {"folder": str(folder / "param")}, 362)
    store = generate(drawn, tmp_path / "store")
    names = [store.layout.name(i) for i in range(len(store))]
    assert [f"{name}.png" for name in names] == [golden["file"] for golden in goldens["images"]]
    for i, golden in enumerate(goldens["images"]):
        assert digest(store.read(i)) == golden["pixels_sha256"]
        assert np.array_equal(store.read(i)[:, :, 0], np.asarray(Image.open(folder / golden["png"])))


def test_the_stream_of_patches_is_left_where_the_program_left_it(shared_data: Path) -> None:
    _, goldens = manifest(shared_data, "ofdb")
    state = python_random.seeded(goldens["random_seed_set_once_before"])
    for image in goldens["images"]:
        patches_published.skip_masks(state, 200_000)
        after = image["random_state_after"]
        assert state[624] == after["position"]
        assert hashlib.sha256(state[:624].astype("<u4").tobytes()).hexdigest() == after["words_sha256"]


def systems(count: int, folder: Path) -> dict[str, str]:
    """Categories in a folder: three maps that halve distances, in other places."""
    for i in range(count):
        system = [[0.5, 0.1 * i, 0, 0.5, x, y, p] for x, y, p in ((0, 0, 0.25), (1, 0, 0.25), (0.5, 1, 0.5))]
        np.savetxt(folder / f"{i:03d}.csv", system, delimiter=",")
    return {"folder": str(folder)}


@pytest.mark.parametrize("wanted", [[0], [9], [130], [130, 3, 127, 128, 9]])
def test_published_patches_do_not_depend_on_what_is_drawn_before(tmp_path: Path, wanted: list[int]) -> None:
    """Stretches have 128 images."""
    settings = recipe({**OFDB, "dots": 1000, "patch_seed": 2**63}, systems(131, tmp_path), 48)
    python = random.Random(2**63)
    numbers = [[python.randrange(1, 512) for _ in range(1000)] for _ in range(131)]
    for index in wanted:
        drawer = Drawer(settings)
        generator: Any = drawer.generator
        masks = generator.drawing.masks(drawer.categories[index], 0, generator._patch_stream(drawer.categories[index]))
        assert masks.tolist() == [0, *numbers[index]]
    alone = [Drawer(settings).draw(index)[0] for index in wanted]
    assert np.array_equal(np.stack(alone), Drawer(settings).draw_batch(wanted)[0])


def plain_ofdb(system: NDArray[np.float64], python: random.Random, points: int, size: int) -> NDArray[np.uint8]:
    """One image as the README of the goldens describes it, with plain loops."""
    borders, system = np.cumsum(system[:, 6]), system[:, :6] * [0.2, 1, 1, 1, 1, 1]
    x = y = 0.0
    orbit = [(x, y)]
    for draw in np.random.RandomState(100).random(points)[:-1]:
        j = int(np.searchsorted(borders, draw))
        if j < len(system):
            a, b, c, d, e, f = system[j].tolist()
            x, y = (x * a + y * b) + e, (x * c + y * d) + f
        orbit.append((x, y))
    places = np.array(orbit)
    for axis in (0, 1):
        if (bad := np.flatnonzero(np.isnan(places[:, axis]))).size:
            places = np.delete(places, [*range(bad[0] - 100, bad[0]), *bad], axis=0)
    low, high = np.minimum(places.min(axis=0), 0), places.max(axis=0)
    pixels = ((places - low) / (high - low) * (size - 12) + 6).astype(np.uint16)
    image = np.zeros((size, size), np.uint8)
    for column, row in pixels.astype(int):
        bits = f"{python.randrange(1, 512):09b}"
        image[row + 1 : row + 4, column + 1 : column + 4] = np.array([*map(int, bits)]).reshape(3, 3) * 127
    return image[::-1]


DIVERGING = {
    1: [[0.5, 0.1, 0.2, 1.9, 0.3, -0.2, 0.6], [0.4, 0, 0, 0.9, 1, 0.5, 0.4]],
    2: [[8, 0.1, 0, 0.5, 0.2, 0.4, 0.97], [0.3, 0.5, 0, 0.5, 0, 1, 0.03]],
    4: [[-0.5, 1, 1.5, 0.2, 0.7, 0.1, 1.0]],
}
"""Systems in whose orbits a number becomes NaN: by x first, by y first, and with a single map."""


def diverging(count: int, folder: Path) -> dict[str, str]:
    categories = systems(count, folder)
    for i, system in DIVERGING.items():
        np.savetxt(folder / f"{i:03d}.csv", system, delimiter=",")
    return categories


@pytest.mark.slow
def test_images_after_a_fractal_that_diverges_are_the_published_ones(tmp_path: Path) -> None:
    (tmp_path / "categories").mkdir()
    settings = recipe({**OFDB, "dots": 6000, "patch_seed": 5}, diverging(7, tmp_path / "categories"), 48)
    python = random.Random(5)
    drawer = Drawer(settings)
    expected = [plain_ofdb(category.parameters, python, 6000, 48) for category in drawer.categories]
    for i in (6, 3):
        assert np.array_equal(Drawer(settings).draw(i)[0][:, :, 0], expected[i])
        assert np.array_equal(FormulaDataset(settings)[i][0][0], expected[i])
    assert np.array_equal(drawer.draw_batch(range(7))[0][..., 0], expected)
    assert np.array_equal(pickle.loads(pickle.dumps(drawer)).draw_batch([5, 0])[0][..., 0], [expected[5], expected[0]])
    places = np.arange(7), np.zeros(7, int)
    on_device = DeviceDrawer(drawer, torch.device("cpu")).draw_instances(*places)
    assert np.array_equal(on_device[..., 0], expected)
    store = generate(settings, tmp_path / "store", workers=2)
    assert all(np.array_equal(store.read(i)[:, :, 0], expected[i]) for i in range(7))
    assert verify(tmp_path / "store", sample=None).problems == []
    fewer = Recipe.from_dict({**settings.to_dict(), "categories": {"folder": str(tmp_path / "categories"), "count": 4}})
    assert np.array_equal(Drawer(fewer).draw(3)[0][:, :, 0], expected[3])
    ifs = {"generator": settings.to_dict()["generator"], "categories": {"folder": str(tmp_path / "categories")}}
    parts = {"parts": [{"generator": "perlin", "categories": 2, "instances": 1}, {**ifs, "instances": 1}]}
    in_parts = Drawer({**parts, "canvas": {"size": 48}})
    assert np.array_equal(in_parts.draw_batch(range(2, 9))[0][..., 0], expected)


def test_published_patches_need_the_categories_before(tmp_path: Path) -> None:
    settings = recipe({**OFDB, "dots": 1000}, systems(3, tmp_path), 48)
    categories, generator = Drawer(settings).categories, settings.build()
    told = "patches: published needs the categories before 002 to draw it: call generator.before_drawing"
    with pytest.raises(ConfigError, match=told):
        generator.render(categories[2], 0)
    generator.before_drawing(categories[:2])
    with pytest.raises(ConfigError, match=told):
        generator.render(categories[2], 0)
    generator.before_drawing(categories)
    assert np.array_equal(generator.render(categories[2], 0), Drawer(settings).draw(2)[0])
    settings = recipe({**OFDB, "dots": 1000, "patch": "full"}, systems(3, tmp_path), 48)
    assert np.any(settings.build().render(categories[2], 0))  # without random patches there is no stream


@pytest.mark.parametrize(
    ("row", "weights"), [(0, [0.2, 1, 1, 1, 1, 1]), (6, [1, 0.6, 1, 1, 1, 1]), (24, [1, 1, 1, 1, 1, 1.8])]
)
def test_the_first_rows_of_the_table_are_those_of_the_whole_table(row: int, weights: list[float]) -> None:
    table: Any = recipe({"weights": "table", "table_rows": row + 1}, 1, 64).build()
    assert table.table[row].tolist() == weights
    whole: Any = recipe({"weights": "table"}, 1, 64).build()
    assert np.array_equal(table.table, whole.table[: row + 1])


def test_a_full_patch_lights_all_pixels_below_its_point(tmp_path: Path) -> None:
    settings = {"weights": "table", "weight_interval": 0, "orbit": "published", "dots": 1000}
    points, full = (
        Drawer(recipe({**settings, "patch": patch}, systems(1, tmp_path), 64)).draw(0)[0][::-1, :, 0]
        for patch in ("point", "full")
    )
    expected = np.zeros_like(points)
    for row, column in zip(*np.nonzero(points), strict=True):
        expected[row + 1 : row + 4, column + 1 : column + 4] = 127
    assert np.array_equal(full, expected)


@pytest.mark.parametrize(
    ("settings", "instances"),
    [
        (OFDB, 1),
        ({**OFDB, "flips": True}, 4),
        ({"weights": "table", "table_rows": 3, "patch": "full"}, 12),
        ({"weights": "table", "table_rows": 3, "patch": "point", "flips": False}, 3),
    ],
)
def test_instances_end_where_nothing_is_left_to_vary(settings: dict[str, Any], instances: int) -> None:
    data = {"generator": {"name": "ifs", **settings}, "categories": 1, "instances": instances}
    assert Recipe.from_dict(data).num_instances == instances
    with pytest.raises(ConfigError, match=f"instances: {instances + 1} is not allowed: 'ifs' has {instances} diff"):
        Recipe.from_dict({**data, "instances": instances + 1})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"patches": "published"}, "patches: published needs orbit: published, and orbit is independent"),
        ({**OFDB, "patch": "fixed"}, "patches: published is not allowed with patch: fixed"),
        ({**OFDB, "table_rows": 2}, "patches: published needs one instance a category: .* table_rows: 1"),
        ({"patches": "published", "orbit": "published"}, "patches: published needs one instance a category"),
        ({"patch_seed": 1}, "patch_seed: has an effect with patches: published only, and patches is independent"),
        ({"table_rows": 1}, "table_rows: has an effect with weights: table only, and weights is continuous"),
        ({**OFDB, "patch_seed": 2**64}, "patch_seed: 18446744073709551616 is not allowed"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        recipe(settings, 1, 64)


# 1p-frac -------------------------------------------------------------------------------------------------------------


def one_p_frac(arguments: dict[str, Any], patch_seed: int, **base: Any) -> dict[str, Any]:
    """The settings for the arguments of the published program."""
    return {
        "search": "one_base", "fill_rate": arguments["pixel_threshold"], "perturbation": arguments["delta"],
        "dots": arguments["iteration"], "patch": {"random": "random", "fill": "full"}[arguments["mask_mode"]],
        "fill_size": arguments["image_size_x"], "fill_padding": arguments["pad_size_x"], "orbit": "published",
        "patches": "published", "patch_seed": patch_seed, "flips": False, **base,
    }  # fmt: skip


@pytest.mark.parametrize("run", ["5", "11", "22", "28_sigma4", "58_fill", "12_small"])
@pytest.mark.parametrize("source", ["seed", "file"])
def test_1p_frac_is_the_published_one(shared_data: Path, tmp_path: Path, run: str, source: str) -> None:
    folder, goldens = manifest(shared_data, "one_p_frac")
    golden = next(golden for golden in goldens["runs"] if golden["run"] == f"base_{run}")
    arguments, images = golden["arguments"], golden["images"]
    seeded = {
        "base_seed": golden["default_rng_seed"],
        "base_transformations": arguments["N"],
        "sigma": arguments["sigma"],
    }
    base = seeded if source == "seed" else {"base": str(folder / golden["parameters"])}
    settings = one_p_frac(arguments, images[0]["random_seed"], **base)
    store = generate(recipe(settings, len(images), arguments["image_size_x"]), tmp_path / "store")
    table = np.array(golden["table_abcdef_p"])
    for i, image in enumerate(images):
        system = Drawer(store.recipe).categories[i].parameters
        assert np.array_equal(system[:, :6], table[:, :6] * image["weights"])
        assert np.array_equal(system[:, 6], table[:, 6])
        assert digest(store.read(i)) == image["pixels_sha256"]
        assert np.array_equal(store.read(i)[:, :, 0], np.asarray(Image.open(folder / image["png"])))


def plain_1p_frac(
    base: NDArray[np.float64], seed: int, delta: float, points: int, size: int, threshold: float
) -> tuple[NDArray[np.uint8], int, int]:
    """One sample as the README of the goldens describes it, with plain loops.

    Returns:
        The image, the number of tries, and the number of tries whose orbit had NaN.
    """
    python = random.Random(seed)
    draws, borders = np.random.RandomState(100).random(points), np.cumsum(base[:, 6])
    tries = cut = 0
    while True:
        tries += 1
        system = base[:, :6] * [[python.uniform(1 - delta, 1 + delta) for _ in range(6)] for _ in base]
        x = y = 0.0
        orbit = [(x, y)]
        for draw in draws[:-1]:
            j = int(np.searchsorted(borders, draw))
            if j < len(system):
                a, b, c, d, e, f = system[j].tolist()
                x, y = (x * a + y * b) + e, (x * c + y * d) + f
            orbit.append((x, y))
        places = np.array(orbit)
        cut += bool(np.isnan(places).any())
        for axis in (0, 1):
            if (bad := np.flatnonzero(np.isnan(places[:, axis]))).size:
                places = np.delete(places, [*range(max(0, bad[0] - 100), bad[0]), *bad], axis=0)
        with np.errstate(all="ignore"):
            low, high = places.min(axis=0), places.max(axis=0)
            pixels = ((places - low) / (high - low) * (size - 12) + 6).astype(np.uint16)
        image = np.zeros((size, size), np.uint8)
        for column, row in pixels.astype(int):
            bits = f"{python.randrange(1, 512):09b}"
            image[row + 1 : row + 4, column + 1 : column + 4] = np.array([*map(int, bits)]).reshape(3, 3) * 127
        if np.mean(image > 1) > threshold:
            return image[::-1], tries, cut


def test_perturbations_that_diverge_take_fewer_random_numbers() -> None:
    settings = {
        "search": "one_base", "sigma": 5.8, "perturbation": 0.5, "fill_rate": 0.1, "dots": 9000, "fill_size": 64,
        "orbit": "published", "patches": "published", "patch_seed": 77, "flips": False, "base_seed": 2,
    }  # fmt: skip
    drawer = Drawer(recipe(settings, 6, 64))
    generator: Any = drawer.generator
    total = np.zeros(2, int)
    for i in (5, 0, 4, 1, 3, 2):
        image, *tries = plain_1p_frac(generator._base.parameters, 77 + i, 0.5, 9000, 64, 0.1)
        assert np.array_equal(drawer.draw(i)[0][:, :, 0], image)
        total += tries
    assert total.tolist() == [13, 3], "neither retries nor orbits that diverge were tested"


def test_a_base_from_a_file_is_kept_in_the_recipe(tmp_path: Path) -> None:
    rows = [[0.5, 0.1, -0.1, 0.6, 0.3, -0.2, 0.4], [0.3, -0.5, 0.4, 0.3, 0.1, 0.9, 0.6]]
    np.savetxt(tmp_path / "base.csv", rows, delimiter=",")
    data: dict[str, Any] = {"search": "one_base", "base": str(tmp_path / "base.csv")}
    read = recipe(data, 2, 64)
    assert read.id == recipe({**data, "base": rows}, 2, 64).id != recipe({"search": "one_base"}, 2, 64).id
    (tmp_path / "base.csv").unlink()
    again = Recipe.from_dict(read.to_dict())
    assert again == read
    generator: Any = again.build()
    assert generator._base.parameters.tolist() == rows


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"base": "none.csv"}, r"generator.base: none.csv cannot be read as rows of a to f and p \(.*No such file"),
        ({"base": [[0.5] * 6]}, r"generator.base.0.6: is missing"),
        ({"base": []}, "generator.base: is empty"),
        ({"base": [[0.5] * 6 + [0.4]] * 2}, "base: the parameters p must be probabilities: .* which is 0.8"),
        ({"base": [[0.5] * 6 + [1.0]], "base_seed": 1}, "base_seed, base_transformations and sigma: have no effect wh"),
        ({"sigma": 6.0}, "sigma: 6 is not allowed: it is at most 5.9 for 2 transformations"),
        ({"weights": "table"}, "search: one_base needs weights: continuous"),
        ({"max_transformations": 4}, "max_transformations: has no effect with search: one_base: set base_trans"),
        ({"fill_size": 64}, "fill_size: has an effect with patches: published only, and patches is independent"),
        ({"search": "independent", "base_seed": 1}, "base_seed: has an effect with search: one_base only"),
        (
            {"patches": "published", "orbit": "published", "fill_size": 32, "fill_padding": 16},
            "fill_padding: 16 leaves nothing of fill_size 32",
        ),
    ],
)
def test_settings_of_one_base_are_checked(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        recipe({"search": "one_base", **settings}, 1, 64)


def test_published_perturbations_end_after_a_number_of_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_one_base, "_MOST_TRIES", 3)
    settings = {"search": "one_base", "orbit": "published", "patches": "published", "dots": 1000, "fill_rate": 0.3}
    with pytest.raises(ConfigError, match=r"none of 3 perturbations .* more than 0\.3 .* for category 0: lower fill_r"):
        Drawer(recipe(settings, 1, 64))


def test_categories_of_a_file_have_no_published_patches_of_their_own(tmp_path: Path) -> None:
    settings = {"search": "one_base", "orbit": "published", "patches": "published", "dots": 1000}
    with pytest.raises(ConfigError, match="categories: 000 is no perturbation that patches: published draws"):
        Drawer(recipe(settings, systems(1, tmp_path), 64)).draw(0)


def test_cached_categories_are_shared_by_what_does_not_change_them() -> None:
    def cache(generator: dict[str, Any]) -> str:
        return categories._cache_file(recipe(generator, 1, 64).build()).name

    fractaldb = {"search": "published", "max_transformations": 7, "weights": "table", "orbit": "published"}
    assert cache(OFDB) == cache({**OFDB, "patch_seed": 9, "dots": 1000}) == cache(fractaldb)
    independent = {"search": "independent", "weights": "table"}
    assert cache(independent) != cache({**independent, "table_rows": 1})
    own = {"search": "one_base", "orbit": "published"}
    assert cache(own) == cache({**own, "dots": 1000, "patch": "full"})
    published: dict[str, Any] = {**own, "patches": "published"}
    others: list[dict[str, Any]] = [
        {},
        {"patch_seed": 1},
        {"dots": 1000},
        {"patch": "full"},
        {"fill_size": 64},
        {"fill_padding": 5},
    ]
    assert len({cache(own), *(cache({**published, **other}) for other in others)}) == 7


# Our own ways --------------------------------------------------------------------------------------------------------


def test_categories_of_one_base_are_its_perturbations() -> None:
    settings = {"search": "one_base", "perturbation": 0.1, "base_seed": 5}
    drawer = Drawer(recipe(settings, 6, 64))
    generator: Any = drawer.generator
    base = generator._base.parameters
    factors = np.stack([category.parameters[:, :6] / base[:, :6] for category in drawer.categories])
    assert np.abs(factors - 1).max() <= 0.1 + 1e-12
    assert np.abs(factors - 1).max() > 0.09
    assert len({factor.tobytes() for factor in factors}) == 6
    assert all(np.array_equal(category.parameters[:, 6], base[:, 6]) for category in drawer.categories)
    fewer = Drawer(recipe(settings, 2, 128)).categories
    assert np.array_equal(fewer[1].parameters, drawer.categories[1].parameters)


def test_instances_of_a_perturbation_differ_in_their_patches_alone() -> None:
    data = {"search": "one_base", "flips": False}
    random_patches, full = (
        Drawer(recipe({**data, "patch": patch}, 2, 64, instances=number))
        for patch, number in (("random", 3), ("full", 1))
    )
    images = random_patches.draw_batch(range(3))[0]
    assert len({image.tobytes() for image in images}) == 3
    assert not images[:, full.draw(0)[0] == 0].any()


def test_systems_by_singular_values_are_those_of_the_published_programs(shared_data: Path) -> None:
    _, goldens = manifest(shared_data, "multi_fractal_scenes")
    for row in goldens["rows"]:
        stream = np.random.default_rng(row["seed"])
        n = int(stream.integers(2, 5))
        found = random_transformations(stream, n, (5 + n) / 2, (6 + n) / 2)
        system = np.array(row["system"])
        assert np.array_equal(found, np.column_stack([system[:, :, :2].reshape(-1, 4), system[:, :, 2]]))


def test_probabilities_by_elimination_are_numpys() -> None:
    transformations = np.random.default_rng(0).uniform(-1, 1, (7, 6))
    transformations[3, :4] = 0.0
    transformations[4, :4] = 0.5
    magnitudes = np.abs(np.linalg.det(transformations[:, :4].reshape(-1, 2, 2)))
    assert probabilities_by_elimination(transformations)[:, 6] == pytest.approx(
        magnitudes / magnitudes.sum(), rel=1e-14
    )


@pytest.mark.parametrize(("maps", "fill_rate"), [(4, 0.0), (8, 0.1)])
def test_maps_by_singular_values_expand_no_distance(maps: int, fill_rate: float) -> None:
    settings = {"search": "singular_values", "max_transformations": maps, "fill_rate": fill_rate}
    found = Drawer(recipe(settings, 20, 64)).categories
    for category in found:
        n = len(category.parameters)
        values = np.linalg.svd(category.parameters[:, :4].reshape(-1, 2, 2), compute_uv=False)
        assert values.max() <= 1 + 1e-12
        assert (5 + n) / 2 - 1e-12 <= (values @ [1, 2]).sum() <= (6 + n) / 2 + 1e-12
    assert {len(category.parameters) for category in found} >= {2, 3, 4}
    assert max(len(category.parameters) for category in found) <= maps


def test_published_sets_ask_the_operating_system_for_no_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy's ``RandomState(seed)`` does so before it takes the seed; ``plugins check`` refuses that."""
    settings = {"search": "one_base", "orbit": "published", "patches": "published", "dots": 1000, "fill_rate": 0.01}
    before = Drawer(recipe(settings, 1, 64)).draw(0)[0]  # compiles kernels, whose files have random names
    expected = np.random.RandomState(100).random_sample(3)
    monkeypatch.setattr("random._urandom", None)
    with pytest.raises(TypeError):
        np.random.RandomState(100)
    assert mersenne.legacy_random(100).random_sample(3).tolist() == expected.tolist()
    assert np.array_equal(Drawer(recipe(settings, 1, 64)).draw(0)[0], before)
