"""The arms of a comparison: the source of the weights of each, and the arms that a sweep makes of one."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from formulavision.data.downstream import DownstreamSettings
from formulavision.data.labels import LabelSettings
from formulavision.data.mixtures import Mixture, as_mixture
from formulavision.recipes.recipe import RecipeSetting
from formulavision.training.settings import PREPROCESSING, REMOTE, MixingSettings, TrainSettings, without_other_unit
from formulavision.util.config import Config, did_you_mean, parse, user_path
from formulavision.util.errors import ConfigError

__all__ = [
    "IMAGE_SIZE",
    "REMOTE",
    "Arm",
    "Dataset",
    "Training",
    "Variant",
    "expand",
    "flatten_sweep",
    "laid_over",
    "swept_names",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,119}")
_RECIPE = re.compile(r"(generator|canvas|scene)\..+|categories(\..+)?|instances|images|target|seed")
_SWEEPABLE = (
    "generator.*, canvas.*, categories, instances, scene.*, images, target, seed, labels.*, pretrain.*, finetune.*, "
    "or arms.NAME.*"
)
_OF_AN_ARM = ("recipe.", "images.", "labels.", "pretrain.", "finetune.")
IMAGE_SIZE = {"resize", "crop"}
_SET_ELSEWHERE = {"model": "model", "seed": "seeds"}


def _absolute_path(value: Any) -> Any:
    if isinstance(value, Path) or (isinstance(value, str) and not value.startswith(REMOTE)):
        return str(user_path(value).absolute())
    return value


def _absolute_root(settings: DownstreamSettings) -> DownstreamSettings:
    return settings if settings.root is None else settings.model_copy(update={"root": settings.root.absolute()})


def _training(settings: dict[str, Any]) -> dict[str, Any]:
    for key in _SET_ELSEWHERE.keys() & settings.keys():
        raise ConfigError(f"{key}: is set for the whole comparison, by '{_SET_ELSEWHERE[key]}'")
    mixing = settings.get("mixing")
    if not isinstance(mixing, Mapping) or "recipe" not in mixing:
        return settings
    recipe = parse(MixingSettings, {"recipe": mixing["recipe"]}, "mixing").recipe
    return {**settings, "mixing": {**mixing, "recipe": recipe.to_dict()}}


def _of_images(settings: dict[str, Any]) -> dict[str, Any]:
    for name in settings:
        if name in IMAGE_SIZE:
            raise ConfigError(f"{name}: is that of the comparison, the same for all arms: set it under finetune")
        if name not in PREPROCESSING:
            known = [each for each in PREPROCESSING if each not in IMAGE_SIZE]
            raise ConfigError(
                f"{name}: there is no such setting{did_you_mean(name, known)} (known: {', '.join(known)})"
            )
    if ("mean" in settings) != ("std" in settings):
        raise ConfigError(f"{'std' if 'mean' in settings else 'mean'}: is missing: mean and std belong together")
    parse(TrainSettings, settings)
    return settings


Training = Annotated[dict[str, Any], AfterValidator(_training)]
"""Some settings of training, as plain values. The model and the seed are those of the comparison."""

Dataset = Annotated[DownstreamSettings, AfterValidator(_absolute_root)]
"""A real dataset, its root as an absolute path."""


class Arm(Config):
    """An arm: a model whose weights are pre-trained on a recipe or on images, read from a checkpoint, or random."""

    recipe: RecipeSetting | None = Field(
        default=None,
        description="formula to pre-train on: a recipe, the path of its YAML file, or the name of a generator",
    )
    mixture: Annotated[Mixture, BeforeValidator(as_mixture)] | None = Field(
        default=None,
        description="several recipes and stores to pre-train on as one dataset: a list of them, each with its share",
    )
    images: Dataset | None = Field(
        default=None,
        description="real images to pre-train on: the training images of a downstream dataset, by its settings",
    )
    checkpoint: Annotated[str, BeforeValidator(_absolute_path)] | None = Field(
        default=None,
        description="weights that were pre-trained elsewhere: a run's folder, a file, timm:NAME or torchvision:NAME",
    )
    preprocessing: Annotated[dict[str, Any], AfterValidator(_of_images)] = Field(
        default_factory=dict,
        description="mean, std, interpolation and resize_mode of the checkpoint's training, where its file has none",
    )
    labels: LabelSettings | None = Field(
        default=None,
        description="labels in place of the images' own: {noise: 0.25}, a share is random; or {clusters: 1000}",
    )
    pretrain: Training = Field(
        default_factory=dict, description="pre-training settings of this arm, over those of the comparison"
    )
    finetune: Training = Field(
        default_factory=dict, description="fine-tuning settings of this arm, over those of the comparison"
    )

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("recipe"), list | tuple):
            return {("mixture" if key == "recipe" else key): value for key, value in data.items()}
        return {} if data is None else data

    @model_validator(mode="after")
    def _one_source(self) -> Arm:
        given = [key for key in ("recipe", "mixture", "images", "checkpoint") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ConfigError(f"{given[1]}: an arm has one source of weights, and this one has a {given[0]} already")
        if self.preprocessing and self.checkpoint is None:
            raise ConfigError(
                "preprocessing: is for an arm with a checkpoint: others have that of pretrain and finetune"
            )
        for key in ("pretrain", "labels"):
            if getattr(self, key) and not self.pretrained_here:
                raise ConfigError(f"{key}: an arm without a recipe, a mixture or images is not pre-trained here")
        if self.labels is not None and self.mixture is not None:
            self.mixture.check_clusters(self.labels.clusters)
        return self

    @property
    def pretrained_here(self) -> bool:
        """Whether the comparison pre-trains this arm."""
        return any(source is not None for source in (self.recipe, self.mixture, self.images))

    @property
    def target(self) -> str | None:
        """The target of the images that the arm is pre-trained on; None where it is not pre-trained here."""
        if self.recipe is not None:
            return self.recipe.target
        if self.mixture is not None:
            return self.mixture.target
        return None if self.images is None else self.images.target

    @property
    def from_scratch(self) -> bool:
        """Whether the arm starts from random weights."""
        return not self.pretrained_here and self.checkpoint is None

    def to_dict(self, *, resolved: bool = True) -> dict[str, Any]:
        """Plain values only, without settings that are not set.

        Args:
            resolved: whether the recipe's numbers of categories, instances and scenes are included if they are not set,
                but follow from the generator's parameters.
        """
        data = self.model_dump(mode="json", exclude={"recipe", "mixture"}, exclude_none=True)
        data = {key: value for key, value in data.items() if value != {}}
        if self.mixture is not None:
            return {"mixture": self.mixture.to_list(), **data}
        if self.recipe is None:
            return data
        recipe = self.recipe.to_dict()
        if not resolved:
            for key in {"categories", "instances", "images"} - self.recipe.model_fields_set:
                recipe.pop(key, None)
        return {"recipe": recipe, **data}


@dataclass(frozen=True)
class Variant:
    """An arm as it runs: as in the file, or at one point of a sweep.

    Attributes:
        name: the arm's name in the table: its name in the file, or ``ARM-SETTING-VALUE`` at a point of a sweep.
        base: the arm's name in the file.
        path: the swept setting; None if nothing is swept.
        value: its value here.
    """

    name: str
    base: str
    arm: Arm
    path: str | None = None
    value: Any = None


def flatten_sweep(value: Any) -> Any:
    """``{generator: {fill_rate: [...]}}`` as ``{generator.fill_rate: [...]}``; dotted keys stay as they are."""
    if not isinstance(value, Mapping):
        return {} if value is None else value
    result: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            result.update({f"{key}.{rest}": values for rest, values in flatten_sweep(inner).items()})
        else:
            result[str(key)] = inner
    return result


def swept_names(arms: Iterable[str], sweep: Mapping[str, Iterable[Any]]) -> set[str]:
    """Names of arms at the points of a sweep, if it changes them."""
    return {_swept_name(arm, path, value, sweep) for arm in arms for path, values in sweep.items() for value in values}


def _swept_name(arm: str, path: str, value: Any, sweep: Iterable[str]) -> str:
    """Name of an arm at a point of a sweep: the arm, the shortest end of the path that no other swept path has, the
    value.

    ``fractaldb-fill_rate-0.05``; ``fractaldb-pretrain.learning_rate-0.1``, if ``finetune.learning_rate`` varies too.
    """
    others = [other for other in sweep if not other.startswith("arms.") or other.startswith(f"arms.{arm}.")]
    parts = path.split(".")
    ends = (".".join(parts[-length:]) for length in range(1, len(parts)))
    end = next((e for e in ends if not any(o != path and f".{o}".endswith(f".{e}") for o in others)), path)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{arm}-{end}-{text}"


def laid_over(settings: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of training with an arm's own over them; a length in its own unit; those of mixing one by one."""
    merged = {**without_other_unit(settings, own), **own}
    if isinstance(settings.get("mixing"), Mapping) and isinstance(own.get("mixing"), Mapping):
        merged["mixing"] = {**settings["mixing"], **own["mixing"]}
    return merged


def expand(arms: Mapping[str, Arm], sweep: Mapping[str, list[Any]], finetune: Mapping[str, Any]) -> dict[str, Variant]:
    """The arms as they run, in order: each as it is or, if a sweep changes it, at each value instead.

    Args:
        finetune: fine-tuning settings of the comparison, where a sweep of an arm's begins.

    Raises:
        ConfigError: a swept setting is unknown, no arm has it, or a value is not allowed.
    """
    settings = {path: _settings_in_arms(arms, path) for path in sweep}
    result: dict[str, Variant] = {}
    problems: list[str] = []
    for base, arm in arms.items():
        points = [(path, value) for path in sweep if base in settings[path] for value in sweep[path]]
        if not points:
            result[base] = Variant(base, base, arm)
        for path, value in points:
            name = _swept_name(base, path, value, sweep)
            if name in result or name in arms:
                problems.append(f"sweep.{path}: there are two arms of the name '{name}'")
            try:
                point = Variant(name, base, arm, path=path, value=value)
                result[name] = _at_point(point, settings[path][base], finetune)
            except ConfigError as error:
                problems += [f"sweep.{path}: {base} at {value}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(*problems)
    return result


def _settings_in_arms(arms: Mapping[str, Arm], path: str) -> dict[str, str]:
    """Name of each arm that a swept path changes -> the setting inside the arm: ``recipe.generator.fill_rate``.

    Raises:
        ConfigError: the path cannot be swept, or no arm has this setting.
    """
    if path.startswith("arms."):
        # Names may hold dots themselves.
        name = max((n for n in arms if path.startswith(f"arms.{n}.")), key=len, default=None)
        if name is None:
            raise ConfigError(f"sweep.{path}: there is no such arm{did_you_mean(path.split('.')[1], arms)}")
        setting = path.removeprefix(f"arms.{name}.")
        if not setting.startswith(_OF_AN_ARM):
            raise ConfigError(f"sweep.{path}: must continue with one of {', '.join(_OF_AN_ARM)}")
        return {name: setting}
    if path.startswith("finetune."):
        found = dict.fromkeys(arms, path)
    elif _RECIPE.fullmatch(path):
        found = {name: f"recipe.{path}" for name, arm in arms.items() if arm.recipe is not None}
    elif path.startswith(("labels.", "pretrain.")):
        found = {name: path for name, arm in arms.items() if arm.pretrained_here}
    else:
        raise ConfigError(f"sweep.{path}: cannot be swept: must be {_SWEEPABLE}")
    if not found:
        raise ConfigError(f"sweep.{path}: no arm has this setting")
    return found


def _at_point(point: Variant, setting: str, finetune: Mapping[str, Any]) -> Variant:
    """An arm with one of its settings at the point's value.

    Raises:
        ConfigError: the value is not allowed.
    """
    if not isinstance(point.value, str | int | float):
        raise ConfigError("must be a number, a word, or true or false")
    if not _NAME.fullmatch(point.name):
        raise ConfigError(f"'{point.name}' cannot name an arm: must be letters, digits, '.', '_', '+' and '-'")
    data = copy.deepcopy(point.arm.to_dict(resolved=False))
    if setting.startswith("finetune.mixing."):
        common = {"mixing": finetune["mixing"]} if "mixing" in finetune else {}
        data["finetune"] = copy.deepcopy(laid_over(common, data.get("finetune", {})))
    if setting.startswith("recipe.categories"):
        data["recipe"].get("categories", {}).pop("sha256", None)
    *parents, last = f"{setting}.count".split(".") if setting == "recipe.categories" else setting.split(".")
    node = data
    for key in parents:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise ConfigError(f"'{key}' holds a plain value, not settings")
    if setting in (f"pretrain.{last}", f"finetune.{last}"):
        data[parents[0]] = laid_over(node, {last: point.value})
    else:
        node[last] = point.value
    return replace(point, arm=parse(Arm, data))
