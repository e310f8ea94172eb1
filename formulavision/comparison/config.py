"""What a comparison compares: arms x downstreams x frozen layers x seeds, validated before anything slow starts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from formulavision.comparison.arms import REMOTE, Arm, Variant, expand, flatten_sweep, read_dataset
from formulavision.comparison.sizes import FULL, at_size, without_numbers_of_others
from formulavision.util.config import Config, apply_settings, did_you_mean, dump_yaml, load_yaml, parse, user_path
from formulavision.util.errors import ConfigError

if TYPE_CHECKING:
    from formulavision.training.settings import TrainSettings

__all__ = ["PICTURES", "PROBE", "ComparisonSettings", "Picture"]

Picture = Literal["filters", "grad-cam", "classes"]
PICTURES: tuple[Picture, ...] = ("filters", "grad-cam", "classes")

PROBE = "-probe"
"""What the name of a probe ends with where others say which layers were frozen: there, all of them are."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_SIZE = {"resize", "crop"}
_SET_ELSEWHERE = {"model": "model", "seed": "seeds"}


class ComparisonSettings(Config):
    """A comparison: every arm is fine-tuned on every downstream, with every choice of frozen layers and every seed."""

    name: str = Field("comparison", description="title of the report")
    size: str = Field(FULL, description="which of the file's sizes this is")
    arms: dict[str, Arm] = Field(min_length=1, description="rows of the table, in this order")
    downstreams: dict[str, Any] = Field(
        min_length=1, description="real datasets to fine-tune and evaluate on: name -> kind, root, train_per_class, ..."
    )
    model: str = Field("resnet18", description="timm name of the architecture")
    pretrain: dict[str, Any] = Field(default_factory=dict, description="training settings of pre-training")
    finetune: dict[str, Any] = Field(default_factory=dict, description="training settings of fine-tuning")
    finetuning: bool = Field(True, description="whether to fine-tune; false: probes only")
    freeze: list[str] = Field(["none"], min_length=1, description="layers that fine-tuning leaves as they are")
    probes: list[Literal["linear", "knn"]] = Field(
        default_factory=list, description="how to evaluate frozen pre-trained features, besides fine-tuning"
    )
    seeds: list[int] = Field([0], min_length=1, description="seeds of training; results are averaged over them")
    data: Literal["on-demand", "stored"] = Field(
        "on-demand", description="draw images while training, or generate each recipe's store first and train from it"
    )
    sweep: dict[str, list[Any]] = Field(
        default_factory=dict,
        description="settings to vary, one at a time: generator.fill_rate: [0.05, 0.1]; each value is an arm",
    )
    paper: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="the paper's numbers in per cent: downstream -> ARM or ARM/FROZEN -> number"
    )
    against: str | None = Field(
        None, description="the arm that the others are measured against; unset: the one that trains from scratch"
    )
    reach: list[float] | None = Field(
        None, description="accuracies, 0 to 1, whose first epoch is told; unset: chosen from the results"
    )
    pictures: list[Picture] = Field(
        list(PICTURES), description="what the report shows beside numbers; true: all of it, false: none"
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
        def read(name: str, settings: Any) -> Any:
            if isinstance(settings, Mapping) and settings.get("kind") == "folder" and settings.get("root") is None:
                raise ConfigError(f"{name}.root: is missing; say --set downstreams.{name}.root=/path")
            return read_dataset(settings, name)

        return _each(value, read)

    @field_validator("sweep", mode="before")
    @classmethod
    def _read_sweep(cls, value: Any) -> Any:
        return {} if value is None else flatten_sweep(value)

    @field_validator("pictures", mode="before")
    @classmethod
    def _all_or_none(cls, value: Any) -> Any:
        return (list(PICTURES) if value else []) if isinstance(value, bool) else value

    @field_validator("freeze", "seeds", "probes")
    @classmethod
    def _no_repetition(cls, value: list[Any]) -> list[Any]:
        return _unique(value)

    @field_validator("sweep")
    @classmethod
    def _different_values(cls, value: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for path, values in value.items():
            if not values:
                raise ConfigError(f"{path}: holds no values")
            try:
                _unique(values)
            except ValueError as error:
                raise ConfigError(f"{path}: {error}") from None
        return value

    @field_validator("reach")
    @classmethod
    def _shares(cls, value: list[float] | None) -> list[float] | None:
        for level in value or ():
            if not 0 < level <= 1:
                raise ValueError(f"{level} is not allowed: must be a share above 0 and at most 1")
        return None if value is None else sorted(_unique(value))

    @model_validator(mode="after")
    def _check_training(self) -> ComparisonSettings:
        if not (self.finetuning or self.probes):
            raise ConfigError("finetuning: is off, and there are no probes: nothing would be evaluated")
        problems: list[str] = []
        for path, settings in (("pretrain", self.pretrain), ("finetune", self.finetune)):
            problems += _problems_of(self.model, settings, path)
        for name, arm in self.arms.items():
            problems += _problems_of(self.model, arm.pretrain, f"arms.{name}.pretrain")
        if not problems:
            for variant in self.variants.values():
                if variant.path is not None:
                    at = f"sweep.{variant.path}: {variant.base} at {variant.value}"
                    swept = [
                        *_problems_of(self.model, {**self.pretrain, **variant.arm.pretrain}, "pretrain"),
                        *_problems_of(self.model, {**self.finetune, **variant.finetune}, "finetune"),
                    ]
                    problems += [f"{at}: {problem}" for problem in swept]
        problems = problems or [*self._problems_of_against(), *self._problems_of_paper()]
        if problems:
            raise ConfigError(*dict.fromkeys(problems))
        return self

    def _problems_of_against(self) -> Iterable[str]:
        if self.against is not None and self.against not in self.variants:
            yield f"against: there is no arm '{self.against}'{did_you_mean(self.against, self.variants)}"

    def _problems_of_paper(self) -> Iterable[str]:
        for downstream, numbers in self.paper.items():
            if downstream not in self.downstreams:
                yield f"paper.{downstream}: there is no such downstream{did_you_mean(downstream, self.downstreams)}"
            for row, number in numbers.items():
                arm, slash, freeze = row.partition("/")
                # The paper's number for an arm stays in the file while a sweep stands in the arm's place.
                known = [*self.variants, *self.arms]
                if arm not in known:
                    yield f"paper.{downstream}.{row}: there is no such arm{did_you_mean(arm, known)}"
                elif slash and freeze not in self.treatments:
                    yield (
                        f"paper.{downstream}.{row}: nothing here is frozen like '{freeze}'"
                        f"{did_you_mean(freeze, self.treatments)}"
                    )
                if not 0 <= number <= 100:
                    yield f"paper.{downstream}.{row}: {number} is not allowed: must be per cent"

    # What follows from it --------------------------------------------------------------------------------------------

    @cached_property
    def variants(self) -> dict[str, Variant]:
        """The arms as they run, by name: each as it is, or at each point of the sweeps that touch it."""
        return expand(self.arms, self.sweep)

    @property
    def treatments(self) -> list[str]:
        """What is done with each arm's weights: fine-tuned with these layers frozen, or probed (``linear-probe``)."""
        return [*(self.freeze if self.finetuning else ()), *(f"{probe}{PROBE}" for probe in self.probes)]

    def baseline(self, name: str) -> str | None:
        """The arm that an arm is measured against; None for that arm itself, and where there is none.

        It is ``against``, or training from scratch; where fine-tuning is swept, with the same setting of fine-tuning.
        """
        if self.against is not None:
            return self.against if self.against != name else None
        own = self.variants[name]
        scratch = [v for v in self.variants.values() if v.arm.from_scratch]
        found = next((v for v in scratch if v.finetune == own.finetune), next(iter(scratch), None))
        return None if found is None or own.arm.from_scratch else found.name

    def pretrain_settings(self, name: str, seed: int) -> TrainSettings:
        """Pre-training settings of an arm as it runs."""
        return _train_settings(self.model, {**self.pretrain, **self.variants[name].arm.pretrain}, seed)

    def finetune_settings(self, name: str, seed: int) -> TrainSettings:
        """Fine-tuning settings, which all arms share but for what is swept.

        The size of images is that of pre-training where it is not set, and the same for all arms, whatever they start
        from.
        """
        given = {**self.finetune, **self.variants[name].finetune}
        if not given.keys() & _SIZE:
            given |= {key: value for key, value in self.pretrain.items() if key in _SIZE}
        settings = _train_settings(self.model, given, seed)
        return _train_settings(self.model, {**given, **settings.model_dump(include=_SIZE)}, seed)

    # YAML both ways --------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path, settings: Iterable[str] = (), *, size: str | None = None) -> ComparisonSettings:
        """A comparison from a YAML file, at one of its sizes, with ``path.to.key=value`` settings laid over it.

        Relative paths in the file are looked for beside the file, those in ``settings`` from the working directory.

        Args:
            path: the file.
            settings: what is laid over it, last.
            size: one of the file's ``sizes``, or ``full``: the file without an overlay, as for None.

        Raises:
            ConfigError: the file cannot be read, or something in it is unknown, missing, mistyped or out of range.
        """
        path = Path(path)
        try:
            data = load_yaml(path)
            if isinstance(data.get("sizes"), Mapping):
                overlays = {name: _beside(inner, path.parent) for name, inner in data["sizes"].items()}
                data = {**data, "sizes": overlays}
            full = _beside(data, path.parent)
            sized = apply_settings(at_size(full, size), settings)
            return parse(cls, without_numbers_of_others(sized, full))
        except ConfigError as error:
            problems = (p if p.startswith((str(path), "--set ")) else f"{path}: {p}" for p in error.problems)
            raise ConfigError(*problems) from None

    def to_dict(self) -> dict[str, Any]:
        """Plain values only; parsing them gives the same comparison back."""
        data = self.model_dump(mode="json", exclude_none=True, exclude={"arms"})
        data = {key: value for key, value in data.items() if value != {} and (key, value) != ("probes", [])}
        data["pictures"] = self.pictures or False
        arms = {name: self._arm_to_dict(arm) for name, arm in self.arms.items()}
        return {"name": data.pop("name"), "size": data.pop("size"), "arms": arms, **data}

    def _arm_to_dict(self, arm: Arm) -> dict[str, Any]:
        data = arm.to_dict()
        if arm.recipe is not None and self.sweep:
            # What the file leaves open may follow from what is swept.
            for key in {"categories", "instances"} - arm.recipe.model_fields_set:
                del data["recipe"][key]
        return data

    def to_yaml(self) -> str:
        return dump_yaml(self.to_dict())


def _unique(values: list[Any]) -> list[Any]:
    repeated = next((entry for entry in values if values.count(entry) > 1), None)
    if repeated is not None:
        raise ValueError(f"{repeated!r} stands there twice")
    return values


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


def _beside(data: Any, folder: Path) -> Any:
    """``data`` with the relative paths of a configuration file made to start at the file's folder."""
    if not isinstance(data, dict):
        return data
    result = dict(data)
    for section, inside in (("arms", _arm_beside), ("downstreams", _dataset_beside)):
        if isinstance(data.get(section), dict):
            result[section] = {name: inside(inner, folder) for name, inner in data[section].items()}
    return result


def _arm_beside(arm: Any, folder: Path) -> Any:
    if not isinstance(arm, dict):
        return arm
    result = dict(arm)
    if isinstance(arm.get("checkpoint"), str) and not arm["checkpoint"].startswith(REMOTE):
        result["checkpoint"] = _anchored(folder, arm["checkpoint"])
    if "images" in arm:
        result["images"] = _dataset_beside(arm["images"], folder)
    recipe = arm.get("recipe")
    if isinstance(recipe, str):
        # Read now, so that --set arms.NAME.recipe.KEY=VALUE has something to be laid over.
        result["recipe"] = _recipe_beside(load_yaml(_anchored(folder, recipe)), Path(_anchored(folder, recipe)).parent)
    elif isinstance(recipe, dict):
        result["recipe"] = _recipe_beside(recipe, folder)
    return result


def _recipe_beside(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    result = dict(recipe)
    if isinstance(recipe.get("generator"), str):
        result["generator"] = {"name": recipe["generator"]}
    categories = recipe.get("categories")
    if isinstance(categories, dict) and isinstance(categories.get("folder"), str):
        result["categories"] = {**categories, "folder": _anchored(folder, categories["folder"])}
    return result


def _dataset_beside(settings: Any, folder: Path) -> Any:
    from formulavision.data.downstream.settings import KINDS

    if isinstance(settings, str) and ":" in settings:
        kind, _, root = settings.partition(":")
        return f"{kind}:{_anchored(folder, root)}"
    if isinstance(settings, str) and settings not in KINDS and Path(_anchored(folder, settings)).is_dir():
        return _anchored(folder, settings)
    if isinstance(settings, dict):
        paths = {key: settings[key] for key in ("root", "classes", "exclude") if isinstance(settings.get(key), str)}
        return {**settings, **{key: _anchored(folder, path) for key, path in paths.items()}}
    return settings


def _anchored(folder: Path, path: str) -> str:
    return str(folder / user_path(path))
