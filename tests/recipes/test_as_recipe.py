"""Public functions take a recipe, its file, a mapping or a generator's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import formulavision as fv
from formulavision.recipes.recipe import as_recipe
from formulavision.util.errors import ConfigError

DATA: dict[str, Any] = {
    "generator": {"name": "perlin", "grid": 2}, "categories": 2, "instances": 2, "canvas": {"size": 16, "padding": 0},
}  # fmt: skip


@pytest.fixture
def forms(tmp_path: Path) -> list[Any]:
    recipe = fv.Recipe.from_dict(DATA)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    return [recipe, DATA, str(tmp_path / "recipe.yaml"), tmp_path / "recipe.yaml", recipe.to_dict()]


def test_every_form_is_the_same_recipe(forms: list[Any]) -> None:
    assert {as_recipe(form).id for form in forms} == {as_recipe(DATA).id}
    assert as_recipe("perlin") == fv.Recipe.from_dict({"generator": {"name": "perlin"}})


def test_public_functions_take_every_form(forms: list[Any], tmp_path: Path) -> None:
    for i, form in enumerate(forms):
        assert len(fv.generate(form, tmp_path / f"store{i}")) == 4
        assert fv.preview(form, tmp_path / f"sheet{i}.png").is_file()
        assert len(fv.find_categories(form)) == 2
        assert len(fv.Drawer(form)) == len(fv.FormulaDataset(form)) == 4


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ("perlim", r"recipe: perlim: no such file, and no generator of this name \(did you mean 'perlin'\?\)"),
        ("none.yaml", r"none.yaml: No such file"),
        (Path("none"), r"none: No such file"),
        ({}, "generator: is missing"),
        ({"generator": "perlin", "x": 1}, "x: there is no such setting"),
        (3, "recipe: a int is not allowed: must be a Recipe"),
        (None, "recipe: a NoneType is not allowed"),
        (["perlin"], "recipe: a list is not allowed"),
        (b"perlin", "recipe: a bytes is not allowed"),
        (fv.Recipe, "recipe: a .* is not allowed"),
    ],
)
def test_anything_else_is_refused_in_one_line(form: Any, told: str, tmp_path: Path) -> None:
    calls = (
        lambda: fv.generate(form, tmp_path / "store"),
        lambda: fv.preview(form, tmp_path / "sheet.png"),
        lambda: fv.find_categories(form),
        lambda: fv.FormulaDataset(form),
    )
    for call in calls:
        with pytest.raises(ConfigError, match=told):
            call()
    assert not list(tmp_path.iterdir())
