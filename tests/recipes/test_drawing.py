"""The order in which images are drawn: each once, what shares work together, and no pixel depends on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formulavision import Drawer, Generator, Recipe
from formulavision.util.errors import PluginError

TABLE = {"name": "ifs", "dots": 1000, "weights": "table"}
RECIPE = Recipe.from_dict({"generator": TABLE, "categories": 3, "instances": 1000, "canvas": {"size": 24}, "seed": 2})


@pytest.fixture(scope="module")
def drawer() -> Drawer:
    return Drawer(RECIPE)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Drawer, "batch_size", 50)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2999), unique=True, max_size=200), st.integers(1, 60))
def test_every_index_is_in_one_batch(drawer: Drawer, indices: list[int], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Drawer, "batch_size", size)
        batches = list(drawer.batches(indices))
    assert sorted(np.concatenate([*batches, np.array([], np.int64)]).tolist()) == sorted(indices)
    assert all(1 <= len(batch) <= size for batch in batches)


def test_what_shares_work_is_drawn_together(drawer: Drawer, small_batches: None) -> None:
    batches = list(drawer.batches(range(2000)))
    assert len(batches) == 2 * 25, "a batch for the 40 images of a weight, none of two weights"
    for batch in batches:
        assert len({(index // 1000, index % 1000 % 25) for index in batch.tolist()}) == 1


def test_an_orbit_is_computed_once_for_the_images_of_a_weight(drawer: Drawer, monkeypatch: pytest.MonkeyPatch) -> None:
    called: Counter[str] = Counter()
    drawing = drawer.generator.drawing  # type: ignore[attr-defined]
    owners, shade = drawing.owners, drawing.shade
    monkeypatch.setattr(drawing, "owners", lambda *a: called.update(owners=1) or owners(*a))
    monkeypatch.setattr(drawing, "shade", lambda *a: called.update(shade=1) or shade(*a))
    for batch in drawer.batches(range(1000)):
        drawer.draw_batch(batch)
    assert called == {"owners": 25, "shade": 250}


@pytest.mark.parametrize(
    ("weights", "orbit", "channels"),
    [
        # Each pair of two settings; the others repeat them in other threes.
        ("table", "published", 1),
        ("table", "independent", 3),
        ("continuous", "published", 3),
        ("continuous", "independent", 1),
        pytest.param("table", "published", 3, marks=pytest.mark.slow),
        pytest.param("table", "independent", 1, marks=pytest.mark.slow),
        pytest.param("continuous", "published", 1, marks=pytest.mark.slow),
        pytest.param("continuous", "independent", 3, marks=pytest.mark.slow),
    ],
)
def test_no_pixel_depends_on_the_batch(weights: str, orbit: str, channels: int) -> None:
    recipe = Recipe.from_dict(
        RECIPE.to_dict(),
        [f"generator.weights={weights}", f"generator.orbit={orbit}", f"canvas.channels={channels}", "instances=130"],
    )
    drawer = Drawer(recipe)
    together = np.zeros((len(drawer), *recipe.canvas.shape), np.uint8)
    memory = np.full((drawer.batch_size, *recipe.canvas.shape), 99, np.uint8)
    for batch in drawer.batches(range(len(drawer))):
        together[batch] = drawer.draw_batch(batch, memory[: len(batch)])[0]
    for index in (0, 1, 25, 129, 130, 389):
        assert np.array_equal(drawer.draw(index)[0], together[index])
    backwards, _ = drawer.draw_batch(range(len(drawer) - 1, -1, -1))
    assert np.array_equal(backwards[::-1], together)


def test_instances_beyond_the_recipe_are_those_of_a_longer_one(drawer: Drawer) -> None:
    longer = Drawer(Recipe.from_dict(RECIPE.to_dict(), ["instances=3000"]))
    images = drawer.draw_instances(np.array([0, 2]), np.array([2345, 1001]))
    assert np.array_equal(images[0], longer.draw(2345)[0])
    assert np.array_equal(images[1], longer.draw(7001)[0])


def test_a_generator_that_raises_while_it_tells_what_shares_work_is_named(
    drawer: Drawer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(drawer.generator), "shared_work", lambda self, instances: 1 / 0)
    with pytest.raises(PluginError, match=r"'ifs' .* failed while sharing work: ZeroDivisionError"):
        list(drawer.batches([1]))


@pytest.mark.parametrize("wrong", [[1, 2], None, [["a"]], "x"])
def test_what_is_no_number_for_each_instance_is_named_as_well(
    drawer: Drawer, monkeypatch: pytest.MonkeyPatch, wrong: object
) -> None:
    monkeypatch.setattr(type(drawer.generator), "shared_work", lambda self, instances: wrong)
    with pytest.raises(PluginError, match=r"'ifs' .* failed while sharing work: "):
        list(drawer.batches([1]))


@pytest.mark.parametrize(("size", "limit"), [(256, 122), (512, 30), (2048, 1)])
def test_what_shares_work_and_is_too_large_is_cut(size: int, limit: int) -> None:
    settings = [f"canvas.size={size}", "generator.weight_interval=0", "categories.count=1", "instances=200"]
    drawer = Drawer(Recipe.from_dict(RECIPE.to_dict(), settings))
    batches = list(drawer.batches(range(200)))
    assert max(len(batch) for batch in batches) == limit == drawer.batch_size
    assert sorted(np.concatenate(batches).tolist()) == list(range(200))


def test_without_a_word_on_sharing_images_are_drawn_in_order(small_batches: None) -> None:
    drawer = Drawer(Recipe.from_dict({"generator": "perlin", "canvas": {"size": 16}}))
    assert type(drawer.generator).shared_work is Generator.shared_work
    assert [batch.tolist() for batch in drawer.batches(range(120))] == [
        list(range(50)), list(range(50, 100)), list(range(100, 120)),
    ]  # fmt: skip


def test_a_categorys_folder_draws_as_well(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "one.csv", [[0.5, 0, 0, 0.5, 0.1, 0.2, 0.5], [0.4, 0, 0, 0.4, 0.5, 0.1, 0.5]], delimiter=",")
    many = np.column_stack([np.random.default_rng(0).uniform(-0.4, 0.4, (21, 6)), np.full(21, 1 / 21)])
    np.savetxt(tmp_path / "twenty-one.csv", many, delimiter=",")
    data = {**RECIPE.to_dict(), "categories": {"folder": str(tmp_path)}}
    for weights in ("table", "continuous"):
        images, labels = Drawer(Recipe.from_dict(data, [f"generator.weights={weights}"])).draw_batch([0, 1, 1000])
        assert labels.tolist() == [0, 0, 1]
        assert all(image.any() for image in images)
