from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formulavision import ConfigError, Drawer, Recipe
from formulavision.recipes.categories import find_categories
from formulavision.recipes.category_files import write_folder

SMALL = {
    "generator": {"name": "ifs", "dots": 2000},
    "categories": 3,
    "instances": 4,
    "canvas": {"size": 32},
    "seed": 7,
}


def problem_of(data: dict[str, object], *settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Recipe.from_dict(data, settings)
    return str(caught.value)


def test_yaml_gives_the_same_recipe_back(tmp_path: Path) -> None:
    recipe = Recipe.from_dict(SMALL)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe


def test_the_id_is_the_same_however_the_recipe_is_written() -> None:
    spelled_out = Recipe.from_dict(Recipe.from_dict(SMALL).to_dict())
    assert spelled_out.id == Recipe.from_dict(SMALL).id


def test_the_id_is_known() -> None:
    """Published ids must stay: one that changes by accident orphans everybody's recipes."""
    recipe = Recipe.from_dict(SMALL)
    assert recipe.to_dict() == {
        "generator": {
            "name": "ifs", "version": 2, "search": "independent", "max_transformations": 8, "fill_rate": 0.2,
            "weights": "continuous", "perturbation": 0.2, "weight_interval": 0.4, "table_rows": 25,
            "orbit": "independent", "dots": 2000, "patch": "random", "patches": "independent", "patch_seed": 0,
            "base": None, "base_seed": 0, "base_transformations": 2, "sigma": 3.5, "fill_size": 512, "fill_padding": 6,
            "flips": True,
        },
        "categories": {"count": 3},
        "instances": 4,
        "canvas": {"size": 32, "padding": 6, "channels": 1},
        "seed": 7,
    }  # fmt: skip
    assert recipe.id == "16ee3449b55e597b"


@pytest.mark.parametrize(
    "setting", ["seed=8", "instances=5", "categories.count=4", "canvas.size=33", "generator.fill_rate=0.1"]
)
def test_whatever_changes_images_changes_the_id(setting: str) -> None:
    assert Recipe.from_dict(SMALL, [setting]).id != Recipe.from_dict(SMALL).id


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("generator.fil_rate=0.1", "generator.fil_rate: there is no such setting (did you mean 'fill_rate'?)"),
        ("generator.fill_rate=0.9", "generator.fill_rate: 0.9 is not allowed: must be less than or equal to 0.3"),
        ("generator.dots=many", "generator.dots: 'many' is not allowed: must be a valid integer"),
        (
            "generator.patch=rndom",
            "generator.patch: 'rndom' is not allowed: must be 'random', 'fixed', 'full' or 'point'",
        ),
        ("generator.name=isf", "generator.name: there is no generator 'isf' (did you mean 'ifs'?)"),
        ("generator.version=1", "generator.version: 1 of 'ifs' draws other pixels than version 2"),
        ("instance=3", "instance: there is no such setting (did you mean 'instances'?)"),
        ("canvas.sise=3", "canvas.sise: there is no such setting (did you mean 'size'?)"),
        ("instances=0", "instances: 0 is not allowed: must be greater than or equal to 1"),
        ("instances=-5", "instances: -5 is not allowed"),
        ("categories.count=100000000000", "categories.count: 100000000000 is not allowed"),
        ("canvas.size=1000000", "canvas.size: 1000000 is not allowed: must be less than or equal to 4096"),
        ("canvas.channels=2", "canvas.channels: 2 is not allowed: must be 1 or 3"),
        ("canvas.padding=16", "canvas: padding 16 leaves nothing of size 32"),
        ("seed=true", "seed: True is not allowed"),
        ("seed=1.5", "seed: 1.5 is not allowed"),
        ("instances='3'", "instances: '3' is not allowed: must be a valid integer"),
        ("categories=true", "categories: "),
        ("generator.flips=1", "generator.flips: 1 is not allowed: must be true or false"),
        ("categories.folder=/no/such/folder", "categories.folder: /no/such/folder: no such folder"),
        ("seed", "--set seed: must read path.to.key=value"),
    ],
)
def test_what_is_wrong_is_told_with_path_value_and_what_is_allowed(setting: str, told: str) -> None:
    assert told in problem_of(SMALL, setting)


def test_all_problems_are_told_at_once() -> None:
    told = problem_of(SMALL, "generator.fill_rate=0.9", "instances=0", "sed=1")
    assert all(path in told for path in ("generator.fill_rate:", "instances:", "sed:"))


def test_a_grid_has_no_more_categories_than_cells() -> None:
    told = problem_of({"generator": {"name": "perlin", "grid": 4}, "categories": 17})
    assert told == "categories.count: 17 is not allowed: 'perlin' has 16 here"


def test_images_that_would_repeat_are_refused() -> None:
    told = problem_of(SMALL, "generator.weights=table", "generator.patch=point", "instances=101")
    assert told == "instances: 101 is not allowed: 'ifs' has 100 different images a category here"


@pytest.mark.parametrize("text", ["- a\n- b", "a: [", "just words", ""])
def test_a_file_that_holds_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        Recipe.load(tmp_path / "recipe.yaml")


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe.from_dict(SMALL).seed = 3  # type: ignore[misc]


def test_categories_from_a_folder_keep_names_and_numbers(tmp_path: Path) -> None:
    found = find_categories(Recipe.from_dict(SMALL))
    folder = write_folder(found, tmp_path / "categories")
    (folder / "00001.csv").rename(folder / "00500.csv")
    read = find_categories(Recipe.from_dict(SMALL, [f"categories.folder={folder}"]))
    assert [category.name for category in read] == ["00000", "00002", "00500"]
    assert [category.index for category in read] == [0, 1, 2]
    assert np.array_equal(read[2].parameters, found[1].parameters)


def test_the_id_is_of_what_the_folder_holds_not_of_where_it_lies(tmp_path: Path) -> None:
    found = find_categories(Recipe.from_dict(SMALL))
    recipes = [
        Recipe.from_dict(SMALL, [f"categories.folder={write_folder(found, tmp_path / name)}"])
        for name in ("one", "two")
    ]
    assert recipes[0].id == recipes[1].id


def test_a_folder_whose_categories_changed_is_refused(tmp_path: Path) -> None:
    folder = write_folder(find_categories(Recipe.from_dict(SMALL)), tmp_path / "categories")
    recipe = Recipe.from_dict(SMALL, [f"categories.folder={folder}"])
    (folder / "00002.csv").rename(folder / "00003.csv")
    with pytest.raises(ConfigError, match="holds other categories than the recipe was made with"):
        Recipe.from_dict(recipe.to_dict())


def test_a_folder_that_grows_leaves_the_id_of_its_first_categories(tmp_path: Path) -> None:
    folder = write_folder(find_categories(Recipe.from_dict(SMALL)), tmp_path / "categories")
    recipe = Recipe.from_dict(SMALL, [f"categories.folder={folder}"])
    (folder / "00003.csv").write_bytes((folder / "00000.csv").read_bytes())
    assert Recipe.from_dict(recipe.to_dict()).id == recipe.id


def test_a_folder_is_found_from_another_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(find_categories(Recipe.from_dict(SMALL)), tmp_path / "categories")
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.from_dict(SMALL, ["categories.folder=categories"])
    monkeypatch.chdir("/")
    assert len(find_categories(Recipe.from_dict(recipe.to_dict()))) == 3


def test_a_category_with_more_transformations_than_a_byte_counts_is_refused(tmp_path: Path) -> None:
    rows = np.full((300, 7), 0.1)
    (tmp_path / "00000.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    with pytest.raises(ConfigError, match=r"00000\.csv: the parameters have 300 transformations, not 254 at most"):
        Recipe.from_dict(SMALL, [f"categories={{folder: {tmp_path}}}"])


def test_a_category_of_many_transformations_is_drawn(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).uniform(-0.3, 0.3, (200, 7))
    rows[:, 6] = 1 / 200
    np.savetxt(tmp_path / "00000.csv", rows, delimiter=",")
    for orbit in ("published", "independent"):
        settings = [f"categories={{folder: {tmp_path}}}", f"generator.orbit={orbit}"]
        assert Drawer(Recipe.from_dict(SMALL, settings)).draw(0)[0].any()


@pytest.mark.parametrize("name", ["ifs", "bezier", "perlin"])
def test_the_first_categories_do_not_depend_on_how_many_there_are(name: str) -> None:
    few, many = (
        find_categories(Recipe.from_dict({**SMALL, "generator": {"name": name}, "categories": n})) for n in (2, 5)
    )
    assert all(np.array_equal(a.parameters, b.parameters) for a, b in zip(few, many, strict=False))


def test_categories_do_not_depend_on_the_number_of_workers() -> None:
    recipe = Recipe.from_dict(SMALL, ["seed=11"])
    alone = list(recipe.build().categories(3))
    found = find_categories(recipe, workers=2)
    assert all(np.array_equal(np.asarray(a), b.parameters) for a, b in zip(alone, found, strict=True))


def test_an_image_is_a_function_of_recipe_and_index() -> None:
    recipe = Recipe.from_dict(SMALL)
    ordered, labels = Drawer(recipe).draw_batch(range(12))
    shuffled = np.random.default_rng(0).permutation(12)
    images, shuffled_labels = Drawer(recipe).draw_batch(shuffled)
    assert np.array_equal(images, ordered[shuffled])
    assert np.array_equal(shuffled_labels, labels[shuffled])
    assert all(np.array_equal(Drawer(recipe).draw(i)[0], ordered[i]) for i in (0, 5, 11))


@pytest.mark.parametrize(
    "recipe",
    [
        {"generator": "perlin", "categories": 2, "instances": 3},
        {
            "parts": [
                {"generator": "perlin", "categories": 1, "instances": 4},
                {"generator": "ifs", "categories": 2, "instances": 1},
            ]
        },
    ],
)
def test_an_index_is_located_or_refused(recipe: dict[str, Any]) -> None:
    made = Recipe.from_dict(recipe)
    labels, instances = made.locate(np.arange(6))
    for index in range(-6, 6):
        found = made.locate(np.array([index]))
        assert (found[0][0], found[1][0]) == (labels[index], instances[index])
    for index in (6, 100, -7):
        with pytest.raises(IndexError):
            made.locate(np.array([0, index]))
