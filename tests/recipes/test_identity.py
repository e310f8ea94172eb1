"""A recipe's id stays: whatever is added to generators, recipes and settings, as long as it is neutral."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, Field
from shipped_configs import CONFIGS, RECIPES, load

from formulavision import ConfigError, Drawer, Generator, Params, Recipe, Store, generate, plugins, verify
from formulavision.generators.contract import Canvas
from formulavision.recipes import categories
from formulavision.util.config import Config, identity, load_yaml

RECIPE_IDS = {
    "1p-frac": "ee7cfd3787fa13e7",
    "bezier-1024": "649330eab09684af",
    "colored-ifs-multi": "07871e48eedfd6bd",
    "colored-ifs-single": "873e2012579981a4",
    "dead-leaves": "ceda185d15fdf324",
    "exfractaldb-1k": "fbaa318d4fcc97c1",
    "fractaldb-1k": "30eb0412c7e88b5f",
    "mandelbulbvar-1k": "0820b39bced6516b",
    "moire-1k": "526589901933fcab",
    "mv-fractaldb": "78493644df299926",
    "ofdb-1k": "5d0786994d6ae4fc",
    "perlin-1296": "32d270b7237432ce",
    "rcdb-1k": "6c46bfbb38d2e64f",
    "segrcdb": "ab350b17cce4395d",
    "visualatom-1k": "1c11c1c3ecbf86f6",
}

COMPARISON_IDS = {
    "compare-cifar10-full": "060dd9c0c627cadb",
    "figure-1b-full": "f69555cb2aabf72b",
    "figure-1b-gpu": "9bd031e57c2c5c18",
    "figure-1b-cpu": "bb1f51e772d29e0f",
    "figure-1b-smoke": "9e310da3ed6ceea6",
    "figure-4-full": "543e8b08aa3d5f25",
    "figure-4-gpu": "8f32a58235d4eebf",
    "figure-4-cpu": "bbbbcc8b741b7982",
    "figure-4-smoke": "07378d0a30e9d7db",
    "figure-5-full": "6895e5149dbb46ea",
    "figure-5-gpu": "47144cd6b3250d90",
    "figure-5-cpu": "15d3314f2b82ab30",
    "figure-5-smoke": "0590b960da3e5d96",
    "figure-6-full": "ac15a48da7249c2e",
    "figure-6-gpu": "2e00d7c438c353e8",
    "figure-6-cpu": "ad761aa5a4dfbe84",
    "figure-6-smoke": "9e310da3ed6ceea6",
    "gray-and-color-full": "6288e408c64dca6c",
    "gray-and-color-gpu": "43833b5367b7a861",
    "gray-and-color-smoke": "347a7cce59099e83",
    "table-1-full": "fe59d1caf6128a2d",
    "table-1-gpu": "4e1f56ed3be8b657",
    "table-1-cpu": "ab6456fb3a093a13",
    "table-1-smoke": "8af96c6fd5e83507",
    "table-10-full": "f69555cb2aabf72b",
    "table-10-gpu": "9bd031e57c2c5c18",
    "table-10-cpu": "ad761aa5a4dfbe84",
    "table-10-smoke": "9e310da3ed6ceea6",
    "table-2-full": "8c90c22b680f5bb4",
    "table-2-gpu": "cf6d2bf64c70216f",
    "table-2-cpu": "ad8e1befbe870941",
    "table-2-smoke": "7d441c4d32327231",
    "table-3-full": "dc6f7a44df448d7c",
    "table-3-gpu": "5e2e5c6857d2f5b4",
    "table-3-smoke": "889b584dda41d625",
    "table-4-full": "abe0c746efcc4534",
    "table-4-gpu": "0b6b0ec3685c5284",
    "table-4-smoke": "de9615bc6de6b3ce",
    "table-5-full": "60b74319055a5d3e",
    "table-5-gpu": "e9b4b7bba195cb45",
    "table-5-smoke": "a6ad349e33994e37",
    "table-6-full": "ac15a48da7249c2e",
    "table-6-gpu": "2e00d7c438c353e8",
    "table-6-smoke": "9e310da3ed6ceea6",
    "table-7-full": "efd50fc52f25d95c",
    "table-7-gpu": "5808847e9e9c8cdb",
    "table-7-smoke": "7eb409713435c4ed",
    "table-8-full": "f69555cb2aabf72b",
    "table-8-gpu": "9bd031e57c2c5c18",
    "table-8-cpu": "bb1f51e772d29e0f",
    "table-8-smoke": "9e310da3ed6ceea6",
    "table-9-full": "a609c92b57a7486a",
    "table-9-gpu": "4756a5f7c6af003b",
    "table-9-cpu": "ad761aa5a4dfbe84",
    "table-9-smoke": "217578f1b1579fd5",
    "quickstart-full": "8a654e52e7d5d810",
    "half-hour-full": "77ecea3d983c1d8b",
    "labels-cifar10-full": "5ee71c6afce85b89",
    "labels-cifar10-small": "b5f215142045a4cc",
    "labels-cifar10-smoke": "c39c58b500df47e2",
    "robustness-cifar10-full": "2a4db5a9bd13d5cb",
    "robustness-cifar10-cpu": "4a64707d3b467b1b",
    "robustness-cifar10-smoke": "1a0286f96c98bf8c",
    "segmentation-camvid-full": "9f7299697f9b16bf",
    "segmentation-camvid-small": "2f9920f80c631e50",
    "segmentation-camvid-smoke": "61b21ffb1dacb7f4",
    "every-formula-full": "9f72b1d3c599c1e4",
    "every-formula-gpu": "9844a0344d2a3c73",
    "every-formula-cpu": "02c6ebb516b73345",
    "every-formula-smoke": "6f2a402700d40518",
    "1p-frac-perturbation-full": "2bd84b8248d757b5",
    "1p-frac-perturbation-gpu": "925bac732ecf6693",
    "1p-frac-perturbation-smoke": "e9d0e4f78a8807e1",
    "1p-frac-full": "f1de4d65484f4731",
    "1p-frac-gpu": "5792c3fca1c9b580",
    "1p-frac-cpu": "a9946e16091dc878",
    "1p-frac-cpu-vit": "a9946e16091dc878",
    "1p-frac-smoke": "3e8267cd3be9310b",
    "imagenet-1k-full": "5eaa18087f00b1e8",
    "imagenet-1k-gpu": "0bce9f16e6d059a0",
    "imagenet-1k-smoke": "46e6a67ac79efc45",
    "ofdb-full": "042dce90a4fab3c3",
    "ofdb-gpu": "8eb9dbe339c3f4bf",
    "ofdb-cpu": "be52492324768e8b",
    "ofdb-smoke": "525ec304b7b702d6",
    "rcdb-full": "48b6a9563e8e0bb3",
    "rcdb-gpu": "9b24174e52172cf5",
    "rcdb-smoke": "22cff380941ef81c",
    "segrcdb-full": "194fa8b4b90ba8eb",
    "segrcdb-gpu": "604fa9b1e853d553",
    "segrcdb-smoke": "73e94dd187110b38",
    "visual-atoms-full": "67ef560d611ad087",
    "visual-atoms-gpu": "d991324a26cbd112",
    "visual-atoms-smoke": "01af0fa97fb456c8",
}
"""A hash over the ids of all recipes of a comparison, at each of its sizes."""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_ids_of_the_published_recipes_are_known(path: Path) -> None:
    assert Recipe.load(path).id == RECIPE_IDS[path.stem]


@pytest.mark.parametrize("path", [path for path in CONFIGS if path not in RECIPES], ids=lambda path: path.stem)
def test_the_ids_of_the_comparisons_recipes_are_known(path: Path, tmp_path: Path) -> None:
    for size in ("full", *load_yaml(path).get("sizes", {})):
        variants = load(path, size, tmp_path).variants
        ids = {name: v.arm.recipe.id for name, v in variants.items() if v.arm.recipe is not None}
        mixed = {f"{name}, mixed": v.arm.finetune.get("mixing") for name, v in variants.items()}
        ids |= {name: Recipe.from_dict(mixing["recipe"]).id for name, mixing in mixed.items() if mixing is not None}
        digest = hashlib.sha256(json.dumps(ids, sort_keys=True).encode()).hexdigest()[:16]
        assert digest == COMPARISON_IDS[f"{path.stem}-{size}"]


@pytest.mark.parametrize(
    ("name", "number", "cache"),
    [
        ("ifs", "feac1addb267d84e", "ifs-4cb9aeb7f2f43d1a.npz"),
        ("bezier", "ae54a9395ff88ff4", "bezier-6082a28e4a377405.npz"),
        ("perlin", "224090725834f0a1", "perlin-1d68aadcac391a20.npz"),
        ("ifs3d", "53ff35023f980aa4", "ifs3d-39ec609330663b3d.npz"),
        ("visual-atoms", "b8942baa98186415", "visual-atoms-3dbcb7f34935912a.npz"),
        ("dead-leaves", "aa76773b9cbe0118", "dead-leaves-caf00635bd37e4e8.npz"),
        ("moire", "bf65926aff7d94e0", "moire-6aab4c25d3a4bf2f.npz"),
        ("mandelbulb", "cc6f08fad6402d97", "mandelbulb-77d73efd14977513.npz"),
    ],
)
def test_the_ids_and_cache_names_of_the_defaults_are_known(name: str, number: str, cache: str) -> None:
    recipe = Recipe.from_dict({"generator": name})
    assert recipe.id == number
    assert categories._cache_file(recipe.build()).name == cache


# A field that is added later


class Inner(Config):
    depth: int = Field(2, description="levels")


class LaterInner(Inner):
    twist: float = Field(0.0, description="turns", json_schema_extra={"neutral": 0.0})


class PlainInner(BaseModel):
    """Not one of ours: a plugin's author may nest any model."""

    depth: int = 2


class LaterPlainInner(PlainInner):
    twist: float = Field(0.0, json_schema_extra={"neutral": 0.0})


class StripesParams(Params):
    width: int = Field(3, ge=1, description="width", json_schema_extra={"unit": "pixels"})
    inner: Inner = Field(Inner(), description="settings of their own")
    layers: tuple[Inner, ...] = Field((Inner(),), description="several of them")
    plain: PlainInner = Field(PlainInner(), description="a model of another kind")


class LaterParams(StripesParams):
    # The new default is another one than what was drawn before.
    shift: int = Field(1, ge=0, description="shift", json_schema_extra={"unit": "pixels", "neutral": 0})
    inner: LaterInner = Field(LaterInner(), description="settings of their own")
    layers: tuple[LaterInner, ...] = Field((LaterInner(),), description="several of them")
    plain: LaterPlainInner = Field(LaterPlainInner(), description="a model of another kind")


class Stripes(Generator):
    name = "stripes"
    Params: ClassVar[type[Params]] = StripesParams

    def category(self, index):  # type: ignore[no-untyped-def]
        return [self.stream(index).uniform(1, 9)]

    def render(self, category, instance):  # type: ignore[no-untyped-def]
        import numpy as np

        rows = np.arange(self.canvas.size) + getattr(self.params, "shift", 0)
        return np.uint8(np.repeat((rows // self.params.width + instance)[:, None] * 40, self.canvas.size, axis=1))


class LaterStripes(Stripes):
    Params = LaterParams


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    def choose(generator: type[Generator]) -> None:
        monkeypatch.delitem(plugins().generators, "stripes", raising=False)
        plugins().add(generator)
        monkeypatch.setitem(plugins().generators, "stripes", plugins()["stripes"])  # so that it leaves with the test

    plugins().generators.pop("stripes", None)
    return choose


DATA = {"generator": {"name": "stripes", "width": 4}, "categories": 2, "instances": 3, "canvas": {"size": 16}}


def test_a_neutral_parameter_leaves_ids_stores_and_cached_categories(install: Any, tmp_path: Path) -> None:
    install(Stripes)
    before = Recipe.from_dict({**DATA, "canvas": {"size": 16, "padding": 2}})
    generate(before, tmp_path / "store")
    images = Drawer(before).draw_batch(range(6))[0]
    written = before.to_dict()
    (tmp_path / "recipe.yaml").write_text(before.to_yaml())
    cached = categories._cache_file(before.build())

    install(LaterStripes)
    for after in (
        Recipe.from_dict(written),
        Recipe.load(tmp_path / "recipe.yaml"),
        Recipe.from_dict({**DATA, "canvas": {"size": 16, "padding": 2}}, ["generator.shift=0"]),
        Store(tmp_path / "store").recipe,
    ):
        assert after.build().params.shift == 0
        assert after.id == before.id
        assert Recipe.from_dict(after.to_dict()) == after
        assert (Drawer(after).draw_batch(range(6))[0] == images).all()
        assert categories._cache_file(after.build()) == cached
    assert verify(tmp_path / "store", sample=None).problems == []
    assert generate(after, tmp_path / "store").manifest.recipe_id == before.id


@pytest.mark.parametrize(
    "setting",
    [
        "generator.shift=1",
        "generator.inner.twist=0.5",
        "generator.layers=[{depth: 2, twist: 0.5}]",
        "generator.plain.twist=0.5",
    ],
)
def test_a_value_that_is_not_neutral_is_another_recipe(install: Any, setting: str) -> None:
    install(Stripes)
    written = Recipe.from_dict(DATA)
    install(LaterStripes)
    assert Recipe.from_dict(written.to_dict(), [setting]).id != written.id


def test_a_recipe_by_hand_has_the_new_default(install: Any) -> None:
    install(Stripes)
    before = Recipe.from_dict(DATA)
    install(LaterStripes)
    after = Recipe.from_dict(DATA)
    assert after.build().params.shift == 1
    assert after.id != before.id


def test_an_unfinished_store_goes_on_with_a_generator_that_got_a_parameter(
    install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    install(Stripes)
    recipe = Recipe.from_dict(DATA)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("formulavision.storage.destinations.LocalDestination.finish", stop)
        generate(recipe, tmp_path / "store")
    install(LaterStripes)
    generate(Recipe.from_dict(DATA, ["generator.shift=0"]), tmp_path / "store")
    assert verify(tmp_path / "store", sample=None).ok


def test_a_neutral_field_of_the_canvas_leaves_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    class LaterCanvas(Canvas):
        background: int = Field(0, ge=0, le=255, description="level", json_schema_extra={"neutral": 0})

    class LaterRecipe(Recipe):
        canvas: LaterCanvas = LaterCanvas()
        frame: str | None = Field(None, description="frame", json_schema_extra={"neutral": None})

    data = {"generator": "perlin", "canvas": {"size": 32}}
    assert LaterRecipe.from_dict(data).id == Recipe.from_dict(data).id
    assert LaterRecipe.from_dict(data, ["canvas.background=9"]).id != Recipe.from_dict(data).id
    assert LaterRecipe.from_dict(data, ["frame=own"]).id != Recipe.from_dict(data).id


def test_a_changed_default_changes_no_recipe_that_was_written_out(install: Any) -> None:
    class OtherDefault(StripesParams):
        width: int = Field(7, ge=1, description="width", json_schema_extra={"unit": "pixels"})

    class OtherStripes(Stripes):
        Params = OtherDefault

    install(Stripes)
    recipe = Recipe.from_dict({**DATA, "generator": "stripes"})
    install(OtherStripes)
    assert Recipe.from_dict(recipe.to_dict()).id == recipe.id


def test_sets_have_one_identity_in_every_process() -> None:
    class WithSet(Config):
        names: frozenset[str] = frozenset()

    letters = [chr(97 + i) for i in range(20)]
    assert identity(WithSet(names=frozenset(letters))) == {"names": letters}


def test_a_neutral_value_that_is_not_allowed_is_told_when_it_is_needed(install: Any) -> None:
    class WrongParams(StripesParams):
        shift: int = Field(1, ge=0, description="shift", json_schema_extra={"neutral": -1})

    class WrongStripes(Stripes):
        Params = WrongParams

    install(Stripes)
    written = Recipe.from_dict(DATA).to_dict()
    install(WrongStripes)
    with pytest.raises(ConfigError, match="shift: -1 is not allowed"):
        Recipe.from_dict(written)
