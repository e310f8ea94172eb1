"""What a comparison compares: arms x downstreams x frozen layers x seeds, validated before anything slow starts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from formulavision.config import Config, apply_settings, load_yaml, parse
from formulavision.errors import ConfigError
from formulavision.recipe import Recipe

if TYPE_CHECKING:
    from formulavision.training.settings import TrainSettings

__all__ = ["Arm", "ComparisonSettings"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_SET_ELSEWHERE = {"model": "model", "seed": "seeds"}


class Arm(Config):
    """One row of a comparison: a recipe, somebody's checkpoint, or neither: training from scratch."""

    recipe: Recipe | None = Field(
        None, description="images to pre-train on: a recipe, or the path of a recipe's YAML file"
    )
    checkpoint: Path | None = Field(None, description="a checkpoint or run folder that was pre-trained elsewhere")
    pretrain: dict[str, Any] = Field(
        default_factory=dict, description="pre-training settings of this arm, over those of the comparison"
    )

    @field_validator("recipe", mode="before")
    @classmethod
    def _read_recipe(cls, value: Any) -> Any:
        if isinstance(value, str | Path):
            return Recipe.load(value)
        return Recipe.from_dict(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _one_source(self) -> Arm:
        if self.recipe is not None and self.checkpoint is not None:
            raise ConfigError("checkpoint: an arm has a recipe or a checkpoint, not both")
        if self.pretrain and self.recipe is None:
            raise ConfigError("pretrain: an arm without a recipe is not pre-trained here")
        return self

    @property
    def from_scratch(self) -> bool:
        """Whether the arm starts from random weights."""
        return self.recipe is None and self.checkpoint is None


class ComparisonSettings(Config):
    """A comparison: every arm is fine-tuned on every downstream, with every choice of frozen layers and every seed."""

    name: str = Field("comparison", description="title of the report")
    arms: dict[str, Arm] = Field(min_length=1, description="rows of the table, in this order")
    downstreams: dict[str, Any] = Field(
        min_length=1, description="real datasets to fine-tune and evaluate on: name -> kind, root, train_per_class, ..."
    )
    model: str = Field("resnet18", description="timm name of the architecture")
    pretrain: dict[str, Any] = Field(default_factory=dict, description="training settings of pre-training")
    finetune: dict[str, Any] = Field(default_factory=dict, description="training settings of fine-tuning")
    freeze: list[str] = Field(["none"], min_length=1, description="layers that fine-tuning leaves as they are")
    seeds: list[int] = Field([0], min_length=1, description="seeds of training; results are averaged over them")
    data: Literal["on-demand", "stored"] = Field(
        "on-demand", description="draw images while training, or generate each recipe's store first and train from it"
    )

    @field_validator("name")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty")
        return value

    @field_validator("arms", mode="before")
    @classmethod
    def _read_arms(cls, value: Any) -> Any:
        return _each(value, lambda name, arm: parse(Arm, {} if arm is None else arm, name))

    @field_validator("downstreams", mode="before")
    @classmethod
    def _read_downstreams(cls, value: Any) -> Any:
        from formulavision.downstream import DownstreamSettings

        def read(name: str, settings: Any) -> Any:
            if isinstance(settings, Mapping) and settings.get("kind") == "folder" and settings.get("root") is None:
                raise ConfigError(f"{name}.root: is missing; say --set downstreams.{name}.root=/path")
            return parse(DownstreamSettings, settings, name)

        return _each(value, read)

    @field_validator("freeze", "seeds")
    @classmethod
    def _no_repetition(cls, value: list[Any]) -> list[Any]:
        repeated = next((entry for entry in value if value.count(entry) > 1), None)
        if repeated is not None:
            raise ValueError(f"{repeated!r} stands there twice")
        return value

    @model_validator(mode="after")
    def _check_training(self) -> ComparisonSettings:
        problems: list[str] = []
        for path, settings in (("pretrain", self.pretrain), ("finetune", self.finetune)):
            problems += _problems_of(self.model, settings, path)
        for name, arm in self.arms.items():
            problems += _problems_of(self.model, arm.pretrain, f"arms.{name}.pretrain")
        if problems:
            raise ConfigError(*problems)
        return self

    def pretrain_settings(self, arm: str, seed: int) -> TrainSettings:
        """Pre-training settings of an arm."""
        return _train_settings(self.model, {**self.pretrain, **self.arms[arm].pretrain}, seed)

    def finetune_settings(self, seed: int) -> TrainSettings:
        """Fine-tuning settings, which all arms share."""
        return _train_settings(self.model, self.finetune, seed)

    # YAML both ways --------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path, settings: Iterable[str] = ()) -> ComparisonSettings:
        """A comparison from a YAML file, with ``path.to.key=value`` settings laid over it.

        Relative paths in the file are looked for beside the file, those in ``settings`` from the working directory.

        Raises:
            ConfigError: the file cannot be read, or something in it is unknown, missing, mistyped or out of range.
        """
        path = Path(path)
        try:
            data = _beside(load_yaml(path), path.parent)
            return parse(cls, apply_settings(data, settings))
        except ConfigError as error:
            problems = (p if p.startswith((str(path), "--set ")) else f"{path}: {p}" for p in error.problems)
            raise ConfigError(*problems) from None

    def to_dict(self) -> dict[str, Any]:
        """Plain values only; parsing them gives the same comparison back."""
        data = self.model_dump(mode="json", exclude_none=True, exclude={"arms"})
        arms = {}
        for name, arm in self.arms.items():
            arms[name] = {key: value for key, value in arm.model_dump(mode="json", exclude={"recipe"}).items() if value}
            if arm.recipe is not None:
                arms[name]["recipe"] = arm.recipe.to_dict()
        return {"name": data.pop("name"), "arms": arms, **data}

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


def _each(value: Any, read: Any) -> Any:
    """A mapping's values read one by one, so that the problems of all of them are told at once."""
    if not isinstance(value, Mapping):
        return value
    result, problems = {}, []
    for name, inner in value.items():
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            problems.append(f"{name}: a name must be letters, digits, '.', '_' and '-'")
            continue
        try:
            result[name] = read(name, inner)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return result


def _problems_of(model: str, settings: Mapping[str, Any], path: str) -> list[str]:
    problems = [
        f"{path}.{key}: is set for the whole comparison, by '{where}'"
        for key, where in _SET_ELSEWHERE.items()
        if key in settings
    ]
    try:
        if not problems:
            _train_settings(model, settings, 0, path)
    except ConfigError as error:
        problems += error.problems
    return problems


def _train_settings(model: str, settings: Mapping[str, Any], seed: int, path: str = "") -> TrainSettings:
    from formulavision.training.settings import TrainSettings

    return parse(TrainSettings, {"model": model, **settings, "seed": seed}, path)


def _beside(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """``data`` with the relative paths of a configuration file made to start at the file's folder."""

    def anchored(settings: Any, key: str) -> Any:
        value = settings.get(key) if isinstance(settings, dict) else None
        return {**settings, key: str(folder / Path(value).expanduser())} if isinstance(value, str) else settings

    result = dict(data)
    for section, key in (("arms", "checkpoint"), ("downstreams", "root")):
        if isinstance(data.get(section), dict):
            result[section] = {name: anchored(settings, key) for name, settings in data[section].items()}
    for arm in result["arms"].values() if isinstance(result.get("arms"), dict) else ():
        recipe = arm.get("recipe") if isinstance(arm, dict) else None
        if isinstance(recipe, str):
            # Read now, so that --set arms.NAME.recipe.KEY=VALUE has something to be laid over.
            arm["recipe"] = _recipe_file(folder / Path(recipe).expanduser())
        elif isinstance(recipe, dict):
            arm["recipe"] = {**recipe, "categories": anchored(recipe.get("categories"), "folder")}
            if recipe.get("categories") is None:
                arm["recipe"].pop("categories")
    return result


def _recipe_file(path: Path) -> dict[str, Any]:
    data = load_yaml(path)
    categories = data.get("categories")
    if isinstance(categories, dict) and isinstance(categories.get("folder"), str):
        folder = path.parent / Path(categories["folder"]).expanduser()
        data["categories"] = {**categories, "folder": str(folder)}
    return data
