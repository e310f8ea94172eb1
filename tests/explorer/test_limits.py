"""What a visitor may ask for: nothing that is too large, and no files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from formulavision.explorer.limits import Limits
from formulavision.recipes.recipe import Recipe
from formulavision.util.config import dump_yaml
from formulavision.util.errors import ConfigError

ONE_BASE = {"name": "ifs", "search": "one_base", "base": "/etc/passwd"}
FOLDER = {"folder": "/etc"}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"generator": "perlin", "canvas": {"size": 4096}}, "canvas.size: 4,096 is not allowed here"),
        ({"generator": {"name": "ifs", "dots": 100_000_000}}, "generator.dots: 100,000,000 is not allowed here"),
        ({"parts": ["perlin", {"generator": {"name": "ifs", "dots": 10**8}}]}, "parts.1.generator.dots: 100,000,000"),
        ({"generator": "bezier", "scene": {"objects": [1, 60_000]}}, "scene.objects: 60,000 is not allowed here"),
        ({"generator": "ifs", "categories": 5000, "scene": {}}, "categories.count: 5,000 is not allowed here"),
        (
            {"generator": "bezier", "scene": {"background": {"generator": {"name": "ifs", "dots": 10**8}}}},
            "scene.background.generator.dots: 100,000,000 is not allowed here",
        ),
        ({"generator": "ifs", "categories": FOLDER}, "categories.folder: '/etc' is not allowed here"),
        ({"generator": ONE_BASE}, "generator.base: a file is not allowed here"),
        ({"parts": [{"generator": ONE_BASE}, {"generator": "perlin"}]}, "generator.base: a file is not allowed here"),
        ({"generator": "ifs", "scene": {"background": {"generator": ONE_BASE}}}, "generator.base: a file is not"),
        ({"parts": ["perlin", {"generator": "ifs", "categories": FOLDER}]}, "categories.folder: '/etc'"),
        (
            {"generator": "ifs", "scene": {"background": {"generator": "ifs", "categories": FOLDER}}},
            "categories.folder: '/etc'",
        ),
        ({"generator": "ifs", "categories": {"folder": "~root"}}, "categories.folder: '~root'"),
        ({"generator": "ifs", "categories": {"folder": ["/etc"]}}, "categories.folder: "),
        ([], "a recipe must be a mapping"),
    ],
    ids=str,
)
def test_a_recipe_that_is_too_large_or_names_files_is_refused(data: Any, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Limits().read(dump_yaml(data))
    assert problem in str(caught.value)


def test_a_long_text_is_refused_before_it_is_read() -> None:
    with pytest.raises(ConfigError, match="20,001 characters is not allowed"):
        Limits().read("#" * 20_001)


def test_the_folder_that_the_explorer_was_started_with_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("0.5,0,0,0.5,0,0,0.5\n0.5,0,0,0.5,1,0,0.5\n")
    recipe = Recipe.from_dict({"generator": "ifs", "categories": {"folder": str(tmp_path)}})
    assert Limits().read(recipe.to_yaml(), [tmp_path]) == recipe
    with pytest.raises(ConfigError, match="is not allowed here"):
        Limits().read(recipe.to_yaml(), [tmp_path / "other"])


def test_ordinary_recipes_are_allowed() -> None:
    for name in ("ifs", "perlin", "colored-ifs"):
        assert Limits().read(Recipe.load(name).to_yaml()) == Recipe.load(name)
