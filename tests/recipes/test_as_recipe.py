"""Public functions take a recipe, its file, a mapping or a generator's name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import formulavision as fv
from formulavision.cli import app
from formulavision.data.mixtures import as_mixture, is_mixture_file, is_store, load_mixture
from formulavision.recipes.recipe import as_recipe
from formulavision.util.errors import ConfigError

DATA: dict[str, Any] = {
    "generator": {"name": "perlin", "grid": 2}, "categories": 2, "instances": 2, "canvas": {"size": 16, "padding": 0},
}  # fmt: skip


FORMS: dict[str, Callable[[Path], Any]] = {
    "a recipe": lambda folder: fv.Recipe.from_dict(DATA),
    "a mapping": lambda folder: DATA,
    "a mapping that cannot be changed": lambda folder: MappingProxyType(DATA),
    "a mapping with all values": lambda folder: fv.Recipe.from_dict(DATA).to_dict(),
    "a path": lambda folder: folder / "recipe.yaml",
    "the text of a path": lambda folder: str(folder / "recipe.yaml"),
    "a URL of this machine": lambda folder: f"file://{folder}/recipe.yaml",
    "a URL of this machine as a path": lambda folder: Path(f"file://{folder}/recipe.yaml"),
}
TRAINING = {"model": "test_resnet", "epochs": 1, "batch_size": 4, "crop": 16, "resize": 16, "milestones": []}
FUNCTIONS: dict[str, Callable[[Any, Path], int]] = {
    "generate": lambda form, out: len(fv.generate(form, out / "store")),
    "preview": lambda form, out: 4 * fv.preview(form, out / "sheet.png").is_file(),
    "contact_sheet": lambda form, out: 4 * (fv.contact_sheet(form).width > 100),
    "find_categories": lambda form, out: 2 * len(fv.find_categories(form)),
    "Drawer": lambda form, out: len(fv.Drawer(form)),
    "FormulaDataset": lambda form, out: len(fv.FormulaDataset(form)),
    "FormulaDataModule": lambda form, out: len(fv.FormulaDataModule(form, TRAINING).train),
    "bench": lambda form, out: len(fv.bench(form, seconds=0.001).recipe),
    "pretrain": lambda form, out: fv.pretrain(
        form, out=out / "run", settings=TRAINING, show_progress=False
    ).settings["data"]["images"],
    "compare": lambda form, out: len(arm_of(form)),
}  # fmt: skip


def arm_of(recipe: Any) -> fv.Recipe:
    """The recipe of a comparison's arm."""
    arms = {"scratch": None, "mine": {"recipe": recipe}}
    settings = fv.ComparisonSettings.of({"name": "x", "arms": arms, "downstreams": {"digits": "digits"}}, None)
    found = settings.arms["mine"].recipe
    assert found is not None
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(fv.Recipe.from_dict(DATA).to_yaml())
    return tmp_path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_recipe(form: str, folder: Path) -> None:
    assert as_recipe(FORMS[form](folder)).id == as_recipe(DATA).id


def test_the_folder_of_a_store_is_its_recipe(tmp_path: Path) -> None:
    data = {**DATA, "generator": "ifs", "canvas": {"size": 16}}
    store = fv.generate(data, tmp_path / "store")
    again = fv.generate(str(tmp_path / "store"), tmp_path / "again")
    assert fv.Recipe.load(tmp_path / "store").id == fv.Recipe.from_dict(data).id
    assert all(np.array_equal(again.read(i), store.read(i)) for i in range(4))
    assert fv.Recipe.load(tmp_path / "store", ["instances=5"]).instances == 5


def test_a_url_of_this_machine_is_taken_where_its_path_is(tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    fv.generate({**DATA, "generator": "ifs"}, f"{url}/store")
    recipe = fv.Recipe.load(tmp_path / "store")
    assert [fv.Recipe.load(f"{url}/{name}").id for name in ("store", "store/")] == [recipe.id] * 2
    read = {**DATA, "generator": "ifs", "categories": {"folder": f"{url}/store"}}
    assert as_recipe(read).categories.folder == tmp_path / "store"
    (tmp_path / "mixture.yaml").write_text(f"mixture: [{url}/store/recipe.yaml, {{store: '{url}/store'}}]")
    assert is_mixture_file(f"{url}/mixture.yaml") and is_store(f"{url}/store")
    assert not is_store(f"{url}/store/recipe.yaml")
    assert len(load_mixture(Path(f"{url}/mixture.yaml"))) == 2
    given = ["--categories-from", f"{url}/store", "--size", "16", "--instances", "2"]
    for out, command, status in (
        ("drawn", ["generate", f"{url}/store"], 0),
        ("read", ["generate", "--plugin", "ifs", *given], 0),
        ("score.png", ["score", f"{url}/store"], 0),
        ("nothing", ["generate", f"{url}/nowhere"], 2),
    ):
        done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / out)])
        assert done.exit_code == status and "Traceback" not in done.output, done.output


def test_a_generator_is_meant_by_its_name_beside_a_store_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fv.generate(DATA, tmp_path / "perlin")
    assert fv.Recipe.load("perlin").id == fv.Recipe.from_dict({"generator": "perlin"}).id
    assert fv.Recipe.load("./perlin").id == fv.Recipe.load(Path("perlin")).id == fv.Recipe.from_dict(DATA).id
    (tmp_path / "bezier").mkdir()
    assert fv.Recipe.load("bezier").all_parts[0].generator.name == "bezier"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_public_functions_take_every_form(function: str, folder: Path) -> None:
    forms = list(FORMS)[::3] if function in ("bench", "pretrain") else FORMS  # which take a second each
    for i, form in enumerate(forms):
        assert FUNCTIONS[function](FORMS[form](folder), folder / str(i)) == 4


def test_every_public_function_that_takes_a_recipe_is_in_the_table() -> None:
    public = {name: getattr(fv, name) for name in dir(fv)}
    takers = {
        name
        for name, made in public.items()
        if (inspect.isfunction(made) or (inspect.isclass(made) and not issubclass(made, Exception)))
        and "RecipeLike" in str(inspect.signature(made))
    }
    # explore serves a page until it is stopped: tests/explorer. push needs a Hub: tests/training/test_hub.py.
    assert takers == FUNCTIONS.keys() - {"compare"} | {"explore", "push"}


def test_the_home_folder_is_known_where_a_shell_has_not_replaced_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (folder / "mixture.yaml").write_text("mixture: [recipe.yaml, {recipe: {generator: perlin, canvas: {size: 16}}}]\n")
    assert as_recipe("~/recipe.yaml").id == fv.Recipe.load(Path("~/recipe.yaml")).id == as_recipe(DATA).id
    assert is_mixture_file("~/mixture.yaml") and is_mixture_file(Path("~/mixture.yaml"))
    first, second = as_mixture(load_mixture(Path("~/mixture.yaml"))).parts
    assert first.recipe == as_recipe(DATA) and second.recipe == as_recipe("perlin", ["canvas.size=16"])
    (folder / "plain").write_text((folder / "recipe.yaml").read_text())
    assert not is_store("~/plain")


def test_names_of_generators_and_of_recipes_that_ship_are_taken(tmp_path: Path) -> None:
    perlin = fv.Recipe.from_dict({"generator": {"name": "perlin"}})
    assert perlin == as_recipe("perlin") == fv.Recipe.load("perlin") == arm_of("perlin")
    assert fv.Recipe.load("perlin", ["seed=3"]).seed == 3
    assert fv.Recipe.load("fractaldb-1k") == as_recipe("fractaldb-1k") == arm_of("fractaldb-1k")
    arms = {"perlin": {"recipe": "perlin"}, "shipped": {"recipe": "fractaldb-1k"}}
    comparison = {"name": "x", "arms": arms, "downstreams": {"digits": "digits"}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(comparison))
    read = fv.ComparisonSettings.load(tmp_path / "c.yaml", ["arms.perlin.recipe.seed=4"]).arms
    assert read["shipped"].recipe == as_recipe("fractaldb-1k")
    assert read["perlin"].recipe == as_recipe("perlin", ["seed=4"])


def test_a_recipe_called_with_a_name_says_how_to_make_one() -> None:
    told = r"Recipe: takes settings by name: Recipe.load\('ifs'\) takes a name or a file"
    recipe: Any = fv.Recipe
    with pytest.raises(ConfigError, match=told):
        recipe("ifs")


def test_a_store_is_taken_where_its_path_is(tmp_path: Path) -> None:
    store = fv.generate(DATA, tmp_path / "store")
    assert fv.verify(store, sample=None).images == len(fv.StoredDataset(store)) == len(fv.Store(store)) == 4


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
