from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, Literal

import pytest
from pydantic import Field, field_validator, model_validator

import formulavision as fv
from formulavision.training import TrainSettings
from formulavision.util.config import WRITTEN_OUT, Config, parse


class Tile(Config):
    size: int = Field(default=8, ge=2)
    border: int = Field(default=1, json_schema_extra={"neutral": 0})


class Wall(Config):
    tiles: tuple[Tile, ...] = ()
    first: Tile | None = None

    @field_validator("first", mode="before")
    @classmethod
    def _by_size(cls, value: Any) -> Any:
        return Tile(size=value) if isinstance(value, int) else value


class House(Config):
    wall: Wall = Wall()
    floor: Any = None

    @model_validator(mode="before")
    @classmethod
    def _with_floor(cls, data: Any) -> Any:
        return {**data, "floor": Wall(first=data["floor"])} if "floor" in data else data


@pytest.mark.parametrize(
    ("construct", "told"),
    [
        (lambda: fv.Recipe(generator="ifs", seed=-1), "seed: -1 is not allowed: must be greater than or equal to 0"),
        (lambda: fv.Canvas(size=2), "size: 2 is not allowed: must be greater than or equal to 8"),
        (lambda: fv.Canvas(size=10), "padding 6 leaves nothing of size 10: padding must be below size / 2"),
        (lambda: fv.Canvas(sise=64), "sise: there is no such setting (did you mean 'size'?)"),  # type: ignore[call-arg]
        (lambda: fv.Recipe(), "generator: is missing"),
        (lambda: TrainSettings(epochs=0), "epochs: 0 is not allowed: must be greater than or equal to 1"),
        (lambda: Wall(first=1), "first.size: 1 is not allowed: must be greater than or equal to 2"),
        (lambda: House(floor=1), "first.size: 1 is not allowed: must be greater than or equal to 2"),
    ],
)
def test_constructors_raise_the_same_errors_as_files(construct: Callable[[], Any], told: str) -> None:
    with pytest.raises(fv.ConfigError) as caught:
        construct()
    assert str(caught.value) == told


def test_a_constructor_names_the_generator_that_does_not_exist() -> None:
    with pytest.raises(fv.ConfigError, match=r"^generator\.name: there is no generator 'isf' \(did you mean 'ifs'\?\)"):
        fv.Recipe(generator="isf")


def test_a_constructor_reports_all_problems() -> None:
    with pytest.raises(fv.ConfigError) as caught:
        fv.Recipe(generator="ifs", seed=-1, canvas={"size": 2})
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["canvas.size", "seed"]


def test_settings_that_a_validator_constructs_keep_the_path_of_their_errors() -> None:
    with pytest.raises(fv.ConfigError) as caught:
        parse(House, {"wall": {"tiles": [{}, {"size": 0}], "first": 1}}, "house")
    assert caught.value.problems == (
        "house.wall.tiles.1.size: 0 is not allowed: must be greater than or equal to 2",
        "house.wall.first.size: 1 is not allowed: must be greater than or equal to 2",
    )


def test_nested_settings_that_were_written_out_get_their_neutral_values() -> None:
    assert parse(Wall, {"tiles": [{"size": 4}]}, context=WRITTEN_OUT).tiles[0].border == 0
    assert parse(Wall, {"tiles": [{"size": 4}]}).tiles[0].border == 1


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_settings_are_equal_after_copying_and_pickling(copied: Callable[[Any], Any]) -> None:
    recipe = fv.Recipe(generator="ifs", canvas=fv.Canvas(size=64))
    assert copied(recipe) == recipe
    assert copied(recipe).id == recipe.id


class Chosen(Config):
    channels: Literal[1, 3] = 1
    rows: tuple[Literal[0, 1], ...] = ()
    sides: dict[str, Literal[1, 2, 3]] | None = None
    bit: Literal[0, 1] | None = None
    workers: int | Literal["auto"] = 1
    switch: Literal[True, "auto"] = True
    download: bool | None = None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"channels": True}, "channels: True is not allowed: must be 1 or 3"),
        ({"channels": "1"}, "channels: '1' is not allowed: must be 1 or 3"),
        ({"rows": [0, False]}, "rows: False is not allowed: must be 0 or 1"),
        ({"sides": {"left": True}}, "sides: True is not allowed: must be 1, 2 or 3"),
        ({"bit": False}, "bit: False is not allowed: must be 0 or 1"),
        ({"workers": "3"}, "workers: '3' is not allowed: must be a valid integer or 'auto'"),
        ({"workers": True}, "workers: True is not allowed: must be a valid integer or 'auto'"),
        ({"switch": 1}, "switch: 1 is not allowed: must be True or 'auto'"),
        ({"download": 1}, "download: 1 is not allowed: must be true or false"),
        ({"download": "yes"}, "download: 'yes' is not allowed: must be true or false"),
    ],
)
def test_booleans_numbers_and_text_do_not_replace_each_other(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(fv.ConfigError) as caught:
        parse(Chosen, settings)
    assert str(caught.value) == told


@pytest.mark.parametrize(
    "settings",
    [
        {"channels": 3}, {"rows": [0, 1]}, {"sides": {"left": 2}}, {"bit": 0}, {"bit": None}, {"workers": "auto"},
        {"workers": 3}, {"switch": "auto"}, {"switch": True}, {"download": False}, {"download": None},
    ],
)  # fmt: skip
def test_a_choice_is_taken_as_it_is_written(settings: dict[str, Any]) -> None:
    chosen = parse(Chosen, settings)
    assert chosen.model_dump(mode="json", include=set(settings)) == settings


def test_the_channels_of_a_canvas_are_no_boolean() -> None:
    with pytest.raises(fv.ConfigError, match=r"^canvas\.channels: True is not allowed: must be 1 or 3$"):
        fv.Recipe.from_dict({"generator": "ifs", "canvas": {"channels": True}})
