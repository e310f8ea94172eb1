"""2D-OFDB and 1p-frac to the pixel, as settings of the generator ``ifs``, and our own ways beside them."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formulavision_plugins.ifs import patches_published
from numpy.typing import NDArray
from PIL import Image

from formulavision import ConfigError, Drawer, Recipe, generate
from formulavision.rendering import python_random

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
        state = patches_published.skip_images(state, 1, 200_000)
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
    """Checkpoints are every 8 images, stretches every 128."""
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
