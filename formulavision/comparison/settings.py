"""The configuration of a comparison: arms x downstreams x frozen layers x seeds, read and checked in full."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from formulavision.comparison.arms import (
    IMAGE_SIZE,
    REMOTE,
    Arm,
    Dataset,
    Training,
    Variant,
    expand,
    flatten_sweep,
    laid_over,
    swept_names,
)
from formulavision.data.downstream.settings import KINDS
from formulavision.data.mixtures import mixture_beside
from formulavision.generators.registry import plugins
from formulavision.training.settings import LoggerName, TrainSettings, without_other_unit
from formulavision.util.config import Config, apply_settings, did_you_mean, dump_yaml, load_yaml, parse, user_path
from formulavision.util.errors import ConfigError
from formulavision.util.shipped import shipped_configs
from formulavision.util.text import counted

__all__ = ["FULL", "PICTURES", "PROBE", "ComparisonSettings", "PictureKind", "at_size"]

PictureKind = Literal["filters", "grad-cam", "predictions", "classes"]
PICTURES: tuple[PictureKind, ...] = ("filters", "grad-cam", "predictions", "classes")

PROBE = "-probe"
"""Ending of a probe's name. The name stands in place of frozen layers, because a probe freezes all layers."""

FULL = "full"
"""Name of the file without a size."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_NOT_IN_PRETRAINING = "pretrain.mixing: is for fine-tuning alone: leave it out"
_NOT_IN_FINE_TUNING = "finetune.held_out: is for pre-training alone: leave it out"


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("a name must be letters, digits, '.', '_' and '-'")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    return value


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _no_repetition(values: list[Any]) -> list[Any]:
    repeated = next((entry for entry in values if values.count(entry) > 1), None)
    if repeated is not None:
        raise ValueError(f"{repeated!r} is listed twice")
    return values


def _allowed(settings: dict[str, Any]) -> dict[str, Any]:
    parse(TrainSettings, settings)
    return settings


Name = Annotated[str, AfterValidator(_name)]
Percent = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(gt=0, le=1)]
Different = AfterValidator(_no_repetition)
SweptValues = Annotated[list[Any], Field(min_length=1), Different]


class ComparisonSettings(Config):
    """A comparison: every arm is fine-tuned on every downstream, with every choice of frozen layers and every seed."""

    name: Annotated[str, AfterValidator(_not_blank)] = Field(default="comparison", description="title of the report")
    note: Annotated[str, AfterValidator(_one_line)] = Field(
        default="", description="caveat that appears with the results: in the table, the report and results.json"
    )
    size: str = Field(default=FULL, description="size of the experiment: one of the sizes in the file")
    arms: dict[Name, Arm] = Field(min_length=1, description="arms, in the order of the table")
    downstreams: dict[Name, Dataset] = Field(
        min_length=1, description="real datasets to fine-tune and evaluate on: name -> kind, root, train_per_class, ..."
    )
    model: str = Field(default="resnet18", description="timm name of the architecture")
    pretrain: Annotated[Training, AfterValidator(_allowed)] = Field(
        default_factory=dict, description="training settings of pre-training"
    )
    finetune: Annotated[Training, AfterValidator(_allowed)] = Field(
        default_factory=dict, description="training settings of fine-tuning"
    )
    finetuning: bool = Field(default=True, description="whether to fine-tune; false: probes only")
    freeze: Annotated[list[str], Different] = Field(
        default=["none"], min_length=1, description="layers that fine-tuning does not change"
    )
    probes: Annotated[list[Literal["linear", "knn"]], Different] = Field(
        default_factory=list, description="evaluations of frozen pre-trained features, besides fine-tuning"
    )
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Different] = Field(
        default=[0], min_length=1, description="seeds of training; results are averaged over them"
    )
    data: Literal["on-demand", "stored"] = Field(
        default="on-demand",
        description="draw images while training, or generate each recipe's store first and train from it",
    )
    loggers: Annotated[list[LoggerName], Different] = Field(
        default=["tensorboard"], description="where training is logged"
    )
    sweep: Annotated[dict[str, SweptValues], BeforeValidator(flatten_sweep)] = Field(
        default_factory=dict,
        description="settings to vary, one at a time: generator.fill_rate: [0.05, 0.1]; each value is an arm",
    )
    paper: dict[str, dict[str, Percent]] = Field(
        default_factory=dict, description="the paper's numbers in per cent: downstream -> ARM or ARM/FROZEN -> number"
    )
    against: str | None = Field(
        default=None, description="baseline: the arm that the others are compared with; unset: training from scratch"
    )
    reach: Annotated[list[Share], Different, AfterValidator(sorted)] | None = Field(
        default=None, description="accuracies, 0 to 1, for the table of first epochs; unset: chosen from the results"
    )
    pictures: list[PictureKind] = Field(
        default=list(PICTURES), description="pictures in the report; true: all, false: none"
    )

    @field_validator("downstreams", mode="before")
    @classmethod
    def _roots_are_set(cls, value: Any) -> Any:
        problems = [
            f"{name}.root: is missing; say --set downstreams.{name}.root=/path"
            for name, dataset in _mapping(value).items()
            if isinstance(dataset, Mapping)
            and dataset.get("kind") in ("folder", "masks")
            and dataset.get("root") is None
        ]
        if problems:
            raise ConfigError(*problems)
        return value

    @field_validator("pictures", mode="before")
    @classmethod
    def _all_or_none(cls, value: Any) -> Any:
        return (list(PICTURES) if value else []) if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _check(self) -> ComparisonSettings:
        if not (self.finetuning or self.probes):
            raise ConfigError("finetuning: is off, and there are no probes: nothing would be evaluated")
        if self.probes and all(dataset.target == "semantic" for dataset in self.downstreams.values()):
            raise ConfigError(
                "probes: all downstreams have masks, and a probe needs one class or several labels an image"
            )
        problems = [*self._problems_of_training(), *self._needless_decoders(), *self._wrong_names()]
        if problems:
            raise ConfigError(*problems)
        return self

    def _problems_of_training(self) -> Iterator[str]:
        """Problems of the settings of single arms and points of a sweep, over those of the comparison."""
        if "mixing" in self.pretrain:
            yield _NOT_IN_PRETRAINING
        if self.finetune.get("held_out"):
            yield _NOT_IN_FINE_TUNING
        for variant in self.variants.values():
            if "mixing" in variant.arm.pretrain:
                yield f"arms.{variant.base}.{_NOT_IN_PRETRAINING}"
            if variant.arm.finetune.get("held_out"):
                yield f"arms.{variant.base}.{_NOT_IN_FINE_TUNING}"
            try:
                parse(TrainSettings, laid_over(self.pretrain, variant.arm.pretrain), "pretrain")
                parse(TrainSettings, laid_over(self.finetune, variant.arm.finetune), "finetune")
            except ConfigError as error:
                at = f"sweep.{variant.path}: {variant.base} at {variant.value}: "
                prefix = f"arms.{variant.base}." if variant.path is None else at
                yield from (f"{prefix}{problem}" for problem in error.problems)

    def _needless_decoders(self) -> Iterator[str]:
        with_masks = {name for name, arm in self.arms.items() if arm.target == "semantic"}
        if not any(each.target == "semantic" for each in self.downstreams.values()):
            tunings = {"": self.finetune, **{f"arms.{name}.": arm.finetune for name, arm in self.arms.items()}}
            for at in [at for at, finetune in tunings.items() if "decoder" in finetune]:
                yield f"{at}finetune.decoder: no downstream has masks: leave it out"
        if "decoder" in self.pretrain and not with_masks:
            yield "pretrain.decoder: no arm is pre-trained on masks: leave it out"
        for name, arm in self.arms.items():
            if "decoder" in arm.pretrain and name not in with_masks:
                yield f"arms.{name}.pretrain.decoder: the arm is not pre-trained on masks: leave it out"

    def _wrong_names(self) -> Iterator[str]:
        if self.against is not None and self.against not in self.variants:
            yield f"against: there is no arm '{self.against}'{did_you_mean(self.against, self.variants)}"
        # The paper's number for an arm stays in the file if a sweep takes the arm's place.
        arms = [*self.variants, *self.arms]
        for downstream, numbers in self.paper.items():
            if downstream not in self.downstreams:
                yield f"paper.{downstream}: there is no such downstream{did_you_mean(downstream, self.downstreams)}"
            for key in numbers:
                arm, slash, treatment = key.partition("/")
                if arm not in arms:
                    yield f"paper.{downstream}.{key}: there is no such arm{did_you_mean(arm, arms)}"
                elif slash and treatment not in self.treatments:
                    hint = did_you_mean(treatment, self.treatments)
                    yield f"paper.{downstream}.{key}: no frozen layers and no probe are called '{treatment}'{hint}"

    # What follows from it --------------------------------------------------------------------------------------------

    @cached_property
    def variants(self) -> dict[str, Variant]:
        """The arms as they run, by name: each as it is or, if sweeps change it, at each of their points."""
        return expand(self.arms, self.sweep, self.finetune)

    @property
    def treatments(self) -> list[str]:
        """Evaluations of each arm's weights: fine-tuning with these layers frozen, or a probe (``linear-probe``)."""
        return [*(self.freeze if self.finetuning else ()), *(f"{probe}{PROBE}" for probe in self.probes)]

    def baseline(self, name: str) -> str | None:
        """Name of the arm that an arm is compared with; None for the baseline itself, and if there is no baseline.

        It is ``against`` or, if that is unset, the arm that trains from scratch; of several, the one with the same
        settings of fine-tuning, or the first that no sweep changes.
        """
        if self.against is not None:
            return self.against if self.against != name else None
        own = self.variants[name]
        scratch = [v for v in self.variants.values() if v.arm.from_scratch]
        unswept = next((v for v in scratch if v.path is None), None)
        found = next((v for v in scratch if v.arm.finetune == own.arm.finetune), unswept)
        return None if found is None or own.arm.from_scratch else found.name

    def pretrain_settings(self, name: str, seed: int) -> TrainSettings:
        """Pre-training settings of an arm as it runs; a decoder is for arms with masks.

        The target of scenes is set: one store of scenes serves all targets, and it is not part of a recipe's id.
        """
        arm = self.variants[name].arm
        scenes = arm.recipe.is_scene if arm.recipe is not None else arm.mixture is not None and arm.target != "class"
        own = {"target": arm.target} if scenes else {}
        given = {**laid_over(self.pretrain, arm.pretrain), **own}
        return self._train_settings(given, seed, decodes=arm.target == "semantic")

    def finetune_settings(self, name: str, seed: int, *, target: str = "class") -> TrainSettings:
        """Fine-tuning settings of an arm as it runs: the same for all arms, except for swept settings, its own, and the
        preprocessing of a checkpoint.

        If the size of images is not set, it is that of pre-training. It is always set in the result, so that it is not
        taken from a checkpoint.

        Args:
            target: of the downstream; a decoder is for masks.
        """
        arm = self.variants[name].arm
        given = laid_over({**self.finetune, **arm.preprocessing}, arm.finetune)
        if not given.keys() & IMAGE_SIZE:
            given |= {key: value for key, value in self.pretrain.items() if key in IMAGE_SIZE}
        decodes = target == "semantic"
        settings = self._train_settings(given, seed, decodes=decodes)
        return self._train_settings({**given, **settings.model_dump(include=IMAGE_SIZE)}, seed, decodes=decodes)

    def _train_settings(self, settings: Mapping[str, Any], seed: int, *, decodes: bool) -> TrainSettings:
        given = {name: value for name, value in settings.items() if decodes or name != "decoder"}
        return parse(TrainSettings, {"model": self.model, **given, "seed": seed})

    def with_sweep(self, values: Mapping[str, Any]) -> ComparisonSettings:
        """The comparison with another sweep. ``against`` and the paper's numbers for points that only the old sweep has
        are left out.

        Args:
            values: path of a setting -> its values, as in ``sweep``.

        Raises:
            ConfigError: a setting is unknown, no arm has it, or a value is not allowed.
        """
        points: dict[str, list[Any]] = {}
        for path, several in flatten_sweep(values).items():
            if not isinstance(several, list | tuple | range):
                raise ConfigError(f"sweep.{path}: {several!r} is not allowed: must be a list of values")
            points[path] = [value.item() if isinstance(value, np.generic) else value for value in several]
        old = self.to_dict()
        arms = {name: arm.to_dict(resolved=False) for name, arm in self.arms.items()}
        new = {**old, "arms": arms, "sweep": points}
        if ("arm", self.against) in _names(old) - _names(new):
            del new["against"]
        return parse(ComparisonSettings, _without_removed_numbers(new, old))

    # YAML both ways --------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path, settings: Iterable[str] = (), *, size: str | None = None) -> ComparisonSettings:
        """Read a comparison from a YAML file, at one of its sizes.

        Relative paths in the file start at the file's folder, those in ``settings`` at the working directory.

        Args:
            path: the file, or the name of a comparison that ships (``quickstart``, ``paper/table-9``).
            settings: ``path.to.key=value`` replaces a setting, ``path.to.key=null`` removes one.
            size: one of the file's ``sizes``; ``full`` or None: the file without a size.

        Raises:
            ConfigError: the file cannot be read, or something in it is unknown, missing, mistyped or out of range.
        """
        path = Path(path)
        if not user_path(path).exists():
            shipped = shipped_configs()
            if path.as_posix() not in shipped and not path.suffix:
                if path.as_posix() in plugins().generators:
                    raise ConfigError(
                        f"{path}: is a generator, not a comparison: formulavision preview {path} --out FILE"
                    )
                ends_so = next((name for name in shipped if name.endswith(f"/{path}")), path.as_posix())
                raise ConfigError(
                    f"{path}: no such file, and no comparison of this name{did_you_mean(ends_so, shipped)}"
                )
            path = shipped.get(path.as_posix(), path)
        try:
            data = load_yaml(path)
            if "generator" in data and "arms" not in data:
                raise ConfigError(f"is a recipe, not a comparison: formulavision generate {path} --out FOLDER")
            return cls._read(_beside(path.parent, data), settings, size)
        except ConfigError as error:
            problems = (p if p.startswith((str(path), "--set ")) else f"{path}: {p}" for p in error.problems)
            raise ConfigError(*problems) from None

    @classmethod
    def of(cls, config: ComparisonSettings | Mapping[str, Any] | str | Path, size: str | None) -> ComparisonSettings:
        """The comparison itself, or the one in a file or in a mapping, at one of its sizes.

        Raises:
            ConfigError: as for :meth:`load`; or the comparison itself is given, and was read at another size.
        """
        if isinstance(config, str | Path):
            return cls.load(config, size=size)
        if isinstance(config, ComparisonSettings):
            if size not in (None, config.size):
                raise ConfigError(f"size: is '{size}', and the comparison was read at '{config.size}': read it again")
            return config
        return cls._read(config, (), size)

    @classmethod
    def _read(cls, data: Mapping[str, Any], settings: Iterable[str], size: str | None) -> ComparisonSettings:
        settings = list(settings)
        own = apply_settings({}, settings)
        if "size" in own:
            raise ConfigError("size: is no setting: a size is chosen by --size, in Python by size=")
        sized = _without_other_units(at_size(data, size), own)
        chosen = apply_settings(sized, settings, null_removes=True)
        return parse(cls, _without_removed_numbers(chosen, data))

    def __repr__(self) -> str:
        parts = [counted(len(self.variants), "arm"), counted(len(self.downstreams), "downstream"),
                 counted(len(self.seeds), "seed")]  # fmt: skip
        return f"ComparisonSettings({self.name}: {', '.join(parts)})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values only; parsing them gives the same comparison back."""
        data = self.model_dump(mode="json", exclude_none=True, exclude={"arms"})
        defaults = {"probes": [], "loggers": ["tensorboard"]}
        data = {key: value for key, value in data.items() if value not in ({}, "") and defaults.get(key) != value}
        data["pictures"] = self.pictures or False
        # Numbers that the file leaves open may follow from what is swept.
        arms = {name: arm.to_dict(resolved=not self.sweep) for name, arm in self.arms.items()}
        return {"name": data.pop("name"), "size": data.pop("size"), "arms": arms, **data}

    def to_yaml(self) -> str:
        return dump_yaml(self.to_dict())


# Sizes ---------------------------------------------------------------------------------------------------------------


def at_size(data: Mapping[str, Any], size: str | None) -> dict[str, Any]:
    """The settings of a file at one of its sizes.

    Of a size, mappings are merged into those of the file, lists and plain values replace them, and null removes a key.

    Raises:
        ConfigError: there is no such size, or it removes a key that is not there.
    """
    result = dict(data)
    sizes = result.pop("sizes", None) or {}
    if not isinstance(sizes, Mapping) or not all(isinstance(overlay, Mapping) for overlay in sizes.values()):
        raise ConfigError("sizes: must be a mapping of settings for each size")
    if sizes and "size" in result:
        raise ConfigError("size: is not allowed beside sizes: a size is chosen by --size, in Python by size=")
    if FULL in sizes:
        raise ConfigError(f"sizes.{FULL}: is the name of the file without a size: give this size another name")
    if size is None:
        return result
    known = [FULL, *sizes]
    if size not in known:
        raise ConfigError(f"sizes: there is no '{size}'{did_you_mean(size, known)} (known: {', '.join(known)})")
    if size != FULL:
        result = _merge(_without_other_units(result, sizes[size]), sizes[size], f"sizes.{size}")
    return {**result, "size": size}


def _without_other_units(under: Any, over: Any, key: str = "") -> Any:
    """Settings of a comparison without lengths of training that others give in the other unit."""
    if not (isinstance(under, Mapping) and isinstance(over, Mapping)):
        return under
    if key in ("pretrain", "finetune"):
        return without_other_unit(under, over)
    return {name: _without_other_units(value, over.get(name), name) for name, value in under.items()}


def _merge(under: Mapping[str, Any], over: Mapping[str, Any], path: str) -> dict[str, Any]:
    result = dict(under)
    for key, value in over.items():
        if value is None:
            if key not in result:
                raise ConfigError(f"{path}.{key}: null removes a setting, and this one is not there")
            del result[key]
        elif isinstance(value, Mapping):
            result[key] = _merge(_mapping(result.get(key)), value, f"{path}.{key}")
        else:
            result[key] = value
    return result


def _without_removed_numbers(data: dict[str, Any], full: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` without the paper's numbers for arms, frozen layers and downstreams that only ``full`` has.

    A number for a name that neither has is a mistake. It stays, so that it is refused.
    """
    if not isinstance(data.get("paper"), Mapping):
        return data
    removed = _names(full) - _names(data)
    paper = dict(data["paper"])
    for downstream, numbers in data["paper"].items():
        if ("downstream", downstream) in removed:
            del paper[downstream]
        elif isinstance(numbers, Mapping):
            parts = {key: str(key).partition("/") for key in numbers}
            gone = {key for key, (arm, _, frozen) in parts.items() if {("arm", arm), ("frozen", frozen)} & removed}
            paper[downstream] = {key: number for key, number in numbers.items() if key not in gone}
    return {**data, "paper": paper}


def _names(data: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Names of arms, downstreams and frozen layers (or probes) in a configuration that is not checked yet."""
    sweep = flatten_sweep(_mapping(data.get("sweep")))
    arms = set(_mapping(data.get("arms")))
    arms |= swept_names(arms, {path: values for path, values in sweep.items() if isinstance(values, list)})
    freeze, probes = (value if isinstance(value, list) else [] for value in (data.get("freeze"), data.get("probes")))
    frozen = {*map(str, freeze or ["none"]), *(f"{probe}{PROBE}" for probe in probes)}
    names = {"arm": arms, "downstream": _mapping(data.get("downstreams")), "frozen": frozen}
    return {(kind, name) for kind, each in names.items() for name in each}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


# Paths in a file -----------------------------------------------------------------------------------------------------


def _beside(folder: Path, value: Any, keys: tuple[str, ...] = ()) -> Any:
    """A value of a file in ``folder``, with its relative paths resolved from the folder.

    Args:
        keys: of the value, from the outermost.
    """
    inside = keys[2:] if keys[:1] == ("sizes",) else keys
    match inside:
        case (
            ("arms", _, "recipe", *of_recipe)
            | ("finetune", "mixing", "recipe", *of_recipe)
            | ("arms", _, "finetune", "mixing", "recipe", *of_recipe)
        ):
            inside = ("recipe", *of_recipe)
    match inside, value:
        case (("recipe",), str()):
            # Read now, so that --set arms.NAME.recipe.KEY=VALUE can change it.
            file = folder / user_path(value)
            if not file.exists():
                if value in plugins().generators:
                    return {"generator": {"name": value}}
                file = shipped_configs().get(value, file)
            return _beside(file.parent, load_yaml(file), keys)
        case (("arms", _, "mixture") | ("recipe",), list()):
            return mixture_beside(folder, value)
        case (("recipe", "generator"), str()):
            return {"name": value}
        case (("arms", _, "checkpoint"), str()):
            return value if value.startswith(REMOTE) else str(folder / user_path(value))
        case (("arms", _, "images") | ("downstreams", _), str()):
            return _dataset_beside(folder, value)
        case (
            ("recipe", "categories", "folder")
            | ("recipe", "parts", _, "categories", "folder")
            | ("recipe", "scene", "background", "categories", "folder")
            | ("arms", _, "images", "root" | "classes" | "exclude")
            | ("downstreams", _, "root" | "classes" | "exclude"),
            str(),
        ):
            return str(folder / user_path(value))
        case (_, dict()):
            return {key: _beside(folder, inner, (*keys, key)) for key, inner in value.items()}
        case (("recipe", "parts"), list()):
            return [_beside(folder, part, (*keys, str(number))) for number, part in enumerate(value)]
    return value


def _dataset_beside(folder: Path, text: str) -> str:
    """A real dataset written as one word: ``cifar10``, ``folder:/path``, or a folder's path."""
    if ":" in text:
        kind, _, root = text.partition(":")
        return f"{kind}:{folder / user_path(root)}"
    path = folder / user_path(text)
    return str(path) if text not in KINDS and path.is_dir() else text
