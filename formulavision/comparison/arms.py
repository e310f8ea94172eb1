"""The rows of a comparison: where an arm's weights come from, and what a sweep makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from formulavision.recipes.recipe import Recipe
from formulavision.util.config import Config, did_you_mean, parse, user_path
from formulavision.util.errors import ConfigError

__all__ = ["REMOTE", "Arm", "Variant", "expand", "flatten_sweep", "swept_names"]

REMOTE = ("timm:", "torchvision:")
"""What a checkpoint begins with that is a published model's name and no path."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,119}")
_RECIPE = re.compile(r"(generator|canvas)\..+|categories(\..+)?|instances|seed")
_SWEEPABLE = "generator.*, canvas.*, categories, instances, seed, labels.*, pretrain.*, finetune.*, or arms.NAME.*"
_OF_AN_ARM = ("recipe.", "images.", "labels.", "pretrain.")


class Arm(Config):
    """One row of a comparison, by where its weights come from: one of recipe, images and checkpoint, or none."""

    recipe: Recipe | None = Field(
        None, description="formula to pre-train on: a recipe, or the path of a recipe's YAML file"
    )
    images: Any = Field(None, description="real images to pre-train on: a downstream's settings; its training side")
    checkpoint: str | None = Field(
        None,
        description="weights that were pre-trained elsewhere: a run's folder, a file, timm:NAME or torchvision:NAME",
    )
    labels: Any = Field(
        None, description="other labels than the images' own: {noise: 0.25}, a share replaced; or {clusters: 1000}"
    )
    pretrain: dict[str, Any] = Field(
        default_factory=dict, description="pre-training settings of this arm, over those of the comparison"
    )

    @field_validator("recipe", mode="before")
    @classmethod
    def _read_recipe(cls, value: Any) -> Any:
        if isinstance(value, str | Path):
            return Recipe.load(value)
        return Recipe.from_dict(value) if isinstance(value, dict) else value

    @field_validator("images", mode="before")
    @classmethod
    def _read_images(cls, value: Any) -> Any:
        return None if value is None else read_dataset(value, "")

    @field_validator("labels", mode="before")
    @classmethod
    def _read_labels(cls, value: Any) -> Any:
        if value is None:
            return None
        from formulavision.data.labels import LabelSettings

        return parse(LabelSettings, value)

    @field_validator("checkpoint", mode="before")
    @classmethod
    def _absolute(cls, value: Any) -> Any:
        if isinstance(value, Path) or (isinstance(value, str) and not value.startswith(REMOTE)):
            return str(user_path(value).absolute())
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Arm:
        given = [key for key in ("recipe", "images", "checkpoint") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ConfigError(f"{given[1]}: an arm has one source of weights, and this one has a {given[0]} already")
        for key in ("pretrain", "labels"):
            if getattr(self, key) and not self.pretrained_here:
                raise ConfigError(f"{key}: an arm without a recipe or images is not pre-trained here")
        return self

    @property
    def pretrained_here(self) -> bool:
        """Whether the comparison pre-trains this arm."""
        return self.recipe is not None or self.images is not None

    @property
    def from_scratch(self) -> bool:
        """Whether the arm starts from random weights."""
        return not self.pretrained_here and self.checkpoint is None

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, without what is not set."""
        data = self.model_dump(mode="json", exclude={"recipe"}, exclude_none=True)
        data = {key: value for key, value in data.items() if value != {}}
        return data if self.recipe is None else {"recipe": self.recipe.to_dict(), **data}


def read_dataset(value: Any, path: str) -> Any:
    """A downstream dataset's settings, with its root as an absolute path, from a mapping or a text.

    Raises:
        ConfigError: they are wrong; one line a problem, under ``path``.
    """
    from formulavision.data.downstream import DownstreamSettings

    settings = value if isinstance(value, DownstreamSettings) else parse(DownstreamSettings, value, path)
    return settings if settings.root is None else settings.model_copy(update={"root": settings.root.absolute()})


@dataclass(frozen=True)
class Variant:
    """An arm as it runs: as it stands in the file, or at one point of a sweep.

    Attributes:
        name: of the row: the arm's, or ``ARM-SETTING-VALUE``, the setting with its parents where two swept ones
            end alike.
        base: the arm's name in the file.
        finetune: fine-tuning settings of this point, over those of the comparison.
        path: the swept setting; None where nothing is swept.
        value: its value here.
    """

    name: str
    base: str
    arm: Arm
    finetune: dict[str, Any] = field(default_factory=dict)
    path: str | None = None
    value: Any = None


def flatten_sweep(value: Any) -> Any:
    """``{generator: {fill_rate: [...]}}`` as ``{generator.fill_rate: [...]}``; dotted keys stay as they are."""
    if not isinstance(value, Mapping):
        return value
    result: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            result.update({f"{key}.{rest}": values for rest, values in flatten_sweep(inner).items()})
        else:
            result[str(key)] = inner
    return result


def swept_names(arms: Iterable[str], sweep: Mapping[str, Iterable[Any]]) -> set[str]:
    """Names that arms have at the points of a sweep, where it touches them."""
    return {_swept_name(arm, path, value, sweep) for arm in arms for path, values in sweep.items() for value in values}


def _swept_name(arm: str, path: str, value: Any, sweep: Iterable[str]) -> str:
    """Name of an arm at a point of a sweep, from as much of the path as tells it from the others that are swept.

    ``fractaldb-fill_rate-0.05``; ``fractaldb-pretrain.learning_rate-0.1``, where ``finetune.learning_rate`` varies too.
    """
    others = [other for other in sweep if not other.startswith("arms.") or other.startswith(f"arms.{arm}.")]
    parts = path.split(".")
    ends = (".".join(parts[-length:]) for length in range(1, len(parts)))
    end = next((e for e in ends if not any(o != path and f".{o}".endswith(f".{e}") for o in others)), path)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{arm}-{end}-{text}"


def expand(arms: Mapping[str, Arm], sweep: Mapping[str, list[Any]]) -> dict[str, Variant]:
    """The arms as they run, in order: each as it is, or, where a sweep touches it, at each value instead.

    Raises:
        ConfigError: a swept setting is unknown, touches no arm, or has a value that does not fit.
    """
    touched = {path: dict(_touched(arms, path)) for path in sweep}
    result: dict[str, Variant] = {}
    problems: list[str] = []
    for base, arm in arms.items():
        points = [
            (path, inner[base], value) for path, inner in touched.items() if base in inner for value in sweep[path]
        ]
        if not points:
            result[base] = Variant(base, base, arm)
        for path, setting, value in points:
            try:
                variant = _at(base, arm, path, setting, value, _swept_name(base, path, value, sweep))
            except ConfigError as error:
                problems += [f"sweep.{path}: {base} at {value}: {problem}" for problem in error.problems]
                continue
            if variant.name in result or variant.name in arms:
                problems.append(f"sweep.{path}: there are two arms of the name '{variant.name}'")
            result[variant.name] = variant
    if problems:
        raise ConfigError(*problems)
    return result


def _touched(arms: Mapping[str, Arm], path: str) -> Iterator[tuple[str, str]]:
    """Which arms a swept setting touches, and what it is called inside the arm: ``recipe.generator.fill_rate``.

    Raises:
        ConfigError: it is nothing that can be swept, or touches no arm.
    """
    found = list(_matches(arms, path))
    if not found:
        raise ConfigError(f"sweep.{path}: no arm has this setting")
    yield from found


def _matches(arms: Mapping[str, Arm], path: str) -> Iterator[tuple[str, str]]:
    if path.startswith("arms."):
        # Names may hold dots themselves.
        name = max((n for n in arms if path.startswith(f"arms.{n}.")), key=len, default=None)
        if name is None:
            raise ConfigError(f"sweep.{path}: there is no such arm{did_you_mean(path.split('.')[1], arms)}")
        setting = path.removeprefix(f"arms.{name}.")
        if not setting.startswith(_OF_AN_ARM):
            raise ConfigError(f"sweep.{path}: must go on with {', '.join(_OF_AN_ARM)}")
        yield name, setting
        return
    for name, arm in arms.items():
        if path.startswith("finetune."):
            yield name, path
        elif _RECIPE.fullmatch(path):
            if arm.recipe is not None:
                yield name, f"recipe.{path}"
        elif path.startswith(("labels.", "pretrain.")):
            if arm.pretrained_here:
                yield name, path
        else:
            raise ConfigError(f"sweep.{path}: is nothing to sweep: must be {_SWEEPABLE}")


def _at(base: str, arm: Arm, path: str, setting: str, value: Any, name: str) -> Variant:
    """An arm at one point of a sweep, by its name there.

    Raises:
        ConfigError: the value does not fit.
    """
    if not isinstance(value, str | int | float):
        raise ConfigError("must be a number, a word, or true or false")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is no name of an arm: letters, digits, '.', '_', '+' and '-'")
    if setting.startswith("finetune."):
        return Variant(name, base, arm, {setting.partition(".")[2]: value}, path, value)
    data = arm.to_dict()
    if arm.recipe is not None:
        data["recipe"] = _open_recipe(arm.recipe, setting)
    *parents, last = setting.split(".")
    if setting == "recipe.categories":
        parents, last = ["recipe", "categories"], "count"
    node = data
    for key in parents:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise ConfigError(f"'{key}' holds a plain value, not settings")
    node[last] = value
    return Variant(name, base, parse(Arm, data), {}, path, value)


def _open_recipe(recipe: Recipe, setting: str) -> dict[str, Any]:
    """A recipe's settings, but for those that follow from the one that is about to be changed."""
    data = recipe.to_dict()
    if setting.startswith("recipe.generator."):
        for key in {"categories", "instances"} - recipe.model_fields_set:
            data.pop(key)
    if setting.startswith("recipe.categories"):
        data["categories"].pop("sha256", None)
    return data
