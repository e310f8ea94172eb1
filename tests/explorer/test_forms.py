"""A recipe as a form: a control for every setting, and problems at the control that they concern."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from formulavision.explorer.forms import Control, change, problems_at, sections
from formulavision.generators.contract import Params
from formulavision.generators.registry import Registered, plugins
from formulavision.recipes.recipe import Recipe
from formulavision.util.errors import ConfigError

RINGS = Path(__file__).parents[1] / "third_party" / "rings"
SCENES = {"generator": "bezier", "scene": {"background": "perlin"}, "images": 4}
PARTS: dict[str, Any] = {"parts": [{"generator": "bezier", "categories": 2}, {"generator": "perlin", "instances": 3}]}
SHIPPED = sorted(
    name
    for name, registered in plugins().generators.items()
    if registered.generator.__module__.startswith("formulavision_plugins")
)
"""Not those that other tests register."""


def controls(recipe: Recipe) -> list[Control]:
    return [control for section in sections(recipe) for control in section.controls]


def shown(made: list[Control]) -> list[Any]:
    return [control.value for control in made]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_parameter_of_a_generator_has_a_control_with_its_description(name: str) -> None:
    recipe = Recipe.load(name)
    made = {control.path: control for control in controls(recipe)}
    for field, info in plugins()[name].generator.Params.model_fields.items():
        control = made[f"generator.{field}"]
        assert (info.description or "") in control.info
        unit = (info.json_schema_extra or {}).get("unit", "") if isinstance(info.json_schema_extra, dict) else ""
        assert str(unit) in control.info
    assert {"canvas.size", "canvas.padding", "canvas.channels", "seed", "instances", "categories.count"} <= made.keys()


@pytest.mark.parametrize("data", [*SHIPPED, SCENES, PARTS], ids=str)
def test_controls_that_are_left_alone_change_nothing(data: Any) -> None:
    recipe = Recipe.from_dict({"generator": data} if isinstance(data, str) else data)
    made = controls(recipe)
    assert Recipe.from_dict(change(recipe, made, shown(made))) == recipe


def test_a_control_changes_its_setting_and_no_other() -> None:
    recipe = Recipe.from_dict(PARTS)
    made = controls(recipe)
    values = [12.0 if control.path == "parts.1.generator.grid" else control.value for control in made]
    expected = Recipe.from_dict(recipe.to_dict(), ["parts.1.generator.grid=12", "parts.1.categories.count=144"])
    assert Recipe.from_dict(change(recipe, made, values)) == expected


def test_numbers_that_are_the_defaults_follow_a_parameter() -> None:
    for number in (100, 40):
        recipe = Recipe.from_dict({"generator": "perlin", "categories": number})
        made = controls(recipe)
        values = [7 if control.path == "generator.grid" else control.value for control in made]
        assert Recipe.from_dict(change(recipe, made, values)).num_categories == min(number, 49)


def test_a_third_partys_parameters_have_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(RINGS)
    monkeypatch.setitem(
        plugins().generators, "rings", Registered(importlib.import_module("formulavision_rings").Rings, "", "")
    )
    made = controls(Recipe.load("rings"))
    assert made[0] == Control("generator.largest", "slider", 12.0, "most rings (rings, from 2 to 100)", 2, 100)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("generator.grid", "slider"),
        ("generator.backend", "choice"),
        ("generator.persistence", "slider"),
        ("canvas.size", "number"),
        ("seed", "number"),
    ],
)
def test_the_type_decides_the_control(path: str, kind: str) -> None:
    assert {control.path: control.kind for control in controls(Recipe.load("perlin"))}[path] == kind


def test_what_no_other_control_shows_is_yaml() -> None:
    base = next(control for control in controls(Recipe.load("ifs")) if control.path == "generator.base")
    assert base.kind == "text" and base.value == "null" and base.read("[[1, 2]]") == [[1, 2]]
    with pytest.raises(ConfigError, match=r"^generator\.base: is not YAML"):
        base.read("[")


def test_an_empty_number_is_a_problem_at_its_control() -> None:
    recipe = Recipe.load("perlin")
    made = controls(recipe)
    values = [None if control.path == "seed" else control.value for control in made]
    with pytest.raises(ConfigError, match=r"^seed: is missing$"):
        change(recipe, made, values)


def test_problems_stand_at_their_controls() -> None:
    made = controls(Recipe.load("perlin"))
    paths = [control.path for control in made]
    at, others = problems_at(made, ["generator.grid: 0 is not allowed", "canvas: wrong", ": of all", "seed.x: inside"])
    assert at[paths.index("generator.grid")] == "0 is not allowed" and at[paths.index("seed")] == "inside"
    assert others == ["canvas: wrong", "of all"]


def test_bounds_that_are_not_allowed_themselves_are_told() -> None:
    extent = next(each for each in controls(Recipe.load("bezier")) if each.path == "generator.extent_min")
    assert (extent.low, extent.high) == (0, 1) and "above 0 to 1" in extent.info
    assert isinstance(plugins()["bezier"].generator.Params(), Params)
