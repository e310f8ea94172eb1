"""The plan of a comparison: a flat list of stages, each known by its content. What cannot run is refused.

The name of a stage's folder ends with the stage's key: a hash of its settings and of the stage before it. So a stage
that is done is found again, a changed configuration computes only the stages that the change concerns, and arms with
the same content share their stages.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from formulavision.comparison.arms import REMOTE, Arm, Variant
from formulavision.comparison.settings import PROBE, ComparisonSettings
from formulavision.data.downstream import Downstream, DownstreamSettings, open_downstream
from formulavision.data.downstream.folder import check_outside
from formulavision.data.downstream.opening import count_shared
from formulavision.recipes.recipe import Recipe
from formulavision.storage.jobs import Share
from formulavision.training.settings import NEUTRAL, PREPROCESSING, Precision, TrainSettings
from formulavision.util.config import identity
from formulavision.util.errors import CheckpointError, ConfigError, DownstreamError

if TYPE_CHECKING:
    import torch

    from formulavision.data.labels import LabelSettings

__all__ = [
    "Datasets",
    "Finetuning",
    "Generation",
    "Pretraining",
    "Probing",
    "ResultStage",
    "Stage",
    "check_models",
    "key_of",
    "of_job",
    "plan_stages",
]

_STORES = "_stores"
"""Folder of the stores among the folders of the arms: no arm has such a name."""

# Device, number of processes and speed change a stage's result by rounding only. The images that pre-training is
# validated on do not change its weights.
_NOT_IN_THE_KEY = {
    *("device", "devices", "workers", "draw_on", "compile", "channels_last", "checkpoint_minutes"),
    "held_out",
}


# Stages --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a comparison, which writes one folder.

    Attributes:
        arm: the first arm that the stage is computed for.
        folder: for its files; its name ends with the key.
    """

    arm: str
    folder: Path

    @property
    def key(self) -> str:
        """Hash of everything that determines the stage's result."""
        return key_of(self.folder)

    @property
    def needs(self) -> tuple[Stage, ...]:
        """Stages that must be done before this one."""
        return ()


@dataclass(frozen=True, kw_only=True)
class Generation(Stage):
    """Generates the store of a recipe."""

    recipe: Recipe

    def __str__(self) -> str:
        return f"store of {self.arm}"


@dataclass(frozen=True, kw_only=True)
class Pretraining(Stage):
    """Pre-trains one arm with one seed.

    Attributes:
        stores: generate the images to train from, of the recipe or of each recipe of a mixture; none if they are drawn
            on demand, or are real.
    """

    seed: int
    source: Arm
    settings: TrainSettings
    stores: tuple[Generation, ...]

    @property
    def needs(self) -> tuple[Stage, ...]:
        return self.stores

    @property
    def labels(self) -> LabelSettings | None:
        """Labels in place of the images' own; None if no label is replaced."""
        return _replaced_labels(self.source)

    def __str__(self) -> str:
        return f"pre-training of {self.arm}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class ResultStage(Stage):
    """A stage with a result: it evaluates an arm's weights on one downstream with one seed.

    Attributes:
        freeze: layers that fine-tuning does not change; for a probe its name (``linear-probe``).
        start: source of the weights: a stage of this comparison, a checkpoint, or None for training from scratch.
        settings: of fine-tuning; for a probe, only those that features depend on.
        content: hash of the arm without seed, downstream and frozen layers. It is the same for the same arm in another
            comparison or on another machine.
        tuned: hash of the settings of fine-tuning without seed and the usual preprocessing.
    """

    downstream: str
    freeze: str
    seed: int
    start: Pretraining | str | None
    settings: TrainSettings
    content: str
    tuned: str

    @property
    def needs(self) -> tuple[Stage, ...]:
        return (self.start,) if isinstance(self.start, Pretraining) else ()


@dataclass(frozen=True, kw_only=True)
class Finetuning(ResultStage):
    """Fine-tunes and evaluates."""

    def __str__(self) -> str:
        return f"{self.arm} on {self.downstream}, frozen: {self.freeze}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Probing(ResultStage):
    """Evaluates frozen features.

    Preprocessing that is not set in ``settings`` is the checkpoint's own.
    """

    method: Literal["linear", "knn"]

    def __str__(self) -> str:
        return f"{self.arm} on {self.downstream}, {self.method} probe, seed {self.seed}"


def key_of(folder: Path) -> str:
    """Key of a stage: the end of its folder's name. The folder may be named after another arm."""
    return folder.name.rpartition("-")[2]


# The plan ------------------------------------------------------------------------------------------------------------


Digest = Callable[..., str]
"""Hash of a real dataset by its settings; with ``train_only=True`` of its training images only."""


def plan_stages(
    settings: ComparisonSettings, runs: Path, digest: Digest, *, auto: Precision | None = None
) -> list[Stage]:
    """The stages of a comparison, arm by arm, each behind those that it needs.

    Args:
        settings: of the comparison.
        runs: folder of the stages' folders, of this comparison alone or of several.
        digest: hash of a real dataset, by its settings.
        auto: what the precision ``auto`` stands for; None: for that of this device.

    Returns:
        Each store and each pre-training once. Each result has a stage of its own, also if two arms of the same content
        share its folder. Probes of a checkpoint have one result, of the first seed, because they do not depend on it.

    Raises:
        ConfigError: this machine lacks the device of a stage, or the device cannot compute in its precision.
    """
    planner = _Planner(settings, runs, digest, auto)
    result: list[Stage] = []
    earlier: set[str] = set()

    def add(stage: Stage) -> None:
        for before in stage.needs:
            if before.key not in earlier:
                earlier.add(before.key)
                add(before)
        result.append(stage)

    for name in settings.variants:
        for seed in settings.seeds:
            for stage in planner.result_stages(name, seed):
                add(stage)
    return result


def of_job(stages: list[Stage], share: Share) -> list[Stage]:
    """The results of one of N jobs, each behind the stages that it needs.

    Every N-th pre-training belongs to a job, with all results that start from it, so that no job waits for another; so
    does every N-th result that needs none. If there are more jobs than that, each result counts by itself.
    """
    results = [stage for stage in stages if isinstance(stage, ResultStage)]
    groups = {stage.start.key if isinstance(stage.start, Pretraining) else stage.key: 0 for stage in results}
    by_start = len(groups) >= share.count
    places: dict[str, int] = {}
    own: set[str] = set()
    for stage in results:
        group = stage.start.key if by_start and isinstance(stage.start, Pretraining) else stage.key
        if places.setdefault(group, len(places)) % share.count == share.number - 1:
            own |= {stage.key, *(needed.key for before in stage.needs for needed in (before, *before.needs))}
    return [stage for stage in stages if stage.key in own]


class _Planner:
    def __init__(self, settings: ComparisonSettings, runs: Path, digest: Digest, auto: Precision | None) -> None:
        self.settings = settings
        self.runs = runs
        self.digest = digest
        self.auto = auto
        self.folders = {key_of(folder): folder for folder in sorted(runs.glob("*/*-*"))}

    def result_stages(self, name: str, seed: int) -> Iterator[ResultStage]:
        settings, arm = self.settings, self.settings.variants[name].arm
        start, before = self._start(name, seed)
        seeded = arm.from_scratch or arm.pretrained_here or seed == settings.seeds[0]
        # Mean, deviation and resizing that are not set are the checkpoint's own. Of an arm, the decoder counts, too.
        whole = settings.finetune_settings(name, seed, target="semantic")
        left_out = set() if arm.from_scratch else _unset_preprocessing(whole)
        content = _key({"start": _without_seed(before), "settings": _without_seed(self._determining(whole, left_out))})
        tuned = _key(_without_seed(self._determining(whole, _usual_preprocessing(whole))))
        for downstream, dataset in settings.downstreams.items():
            training = settings.finetune_settings(name, seed, target=dataset.target)
            determining = self._determining(training, left_out)
            common: dict[str, Any] = {
                "arm": name, "downstream": downstream, "seed": seed, "start": start, "content": content, "tuned": tuned
            }  # fmt: skip
            images = self.digest(dataset)
            for freeze in settings.freeze if settings.finetuning else ():
                key = _key({"start": before, "settings": determining, "downstream": images, "freeze": freeze})
                folder = self._folder(name, downstream, key)
                yield Finetuning(folder=folder, freeze=freeze, settings=training, **common)
            features = _of_features(training, arm)
            seen = self._determining(features, leave_out=type(features).model_fields.keys() - features.model_fields_set)
            for method in settings.probes if seeded and dataset.target != "semantic" else ():
                key = _key({"start": before, "settings": seen, "downstream": images, "probe": method})
                folder = self._folder(name, f"{downstream}-{method}", key)
                yield Probing(folder=folder, freeze=f"{method}{PROBE}", settings=features, method=method, **common)

    def _start(self, name: str, seed: int) -> tuple[Pretraining | str | None, Any]:
        """Source of an arm's weights, and the content that determines it."""
        arm = self.settings.variants[name].arm
        if arm.checkpoint is not None:
            return arm.checkpoint, _content_of(arm.checkpoint)
        if arm.from_scratch:
            return None, None
        training = self.settings.pretrain_settings(name, seed)
        before: dict[str, Any] = {"settings": self._determining(training)}
        recipes = [arm.recipe] if arm.recipe is not None else []
        if arm.recipe is not None:
            before["recipe"] = arm.recipe.id
        elif arm.mixture is not None:
            before["mixture"] = arm.mixture.identity()
            recipes = [part.recipe for part in arm.mixture.parts if part.recipe is not None]
        elif arm.images is not None:
            before["images"] = self.digest(arm.images, train_only=True)
        labels = _replaced_labels(arm)
        if labels is not None:
            before["labels"] = identity(labels)
        stores: tuple[Generation, ...] = ()
        if self.settings.data == "stored" and recipes:
            stores = tuple(
                Generation(arm=name, folder=self.runs / _STORES / recipe.id, recipe=recipe) for recipe in recipes
            )
            # A store holds the same images in every epoch.
            before["settings"]["fresh"] = False
        folder = self._folder(name, "pretrain", _key(before))
        return Pretraining(arm=name, folder=folder, seed=seed, source=arm, settings=training, stores=stores), before

    def _folder(self, arm: str, what: str, key: str) -> Path:
        return self.folders.setdefault(key, self.runs / arm / f"{what}-{key}")

    def _determining(self, settings: TrainSettings, leave_out: Set[str] = frozenset()) -> dict[str, Any]:
        """Settings that determine a stage's result, with the precision of this device in place of ``auto``."""
        content = {key: value for key, value in identity(settings).items() if key not in _NOT_IN_THE_KEY | leave_out}
        if settings.mixing is not None:
            content["mixing"]["recipe"] = settings.mixing.recipe.id
        if content.get("decoder") == "fpn":
            del content["decoder"]  # the default: where it is unset, the runs are the same
        precision = self.auto if self.auto is not None and settings.precision == "auto" else _precision(settings)
        return {**content, "precision": precision}


def _replaced_labels(arm: Arm) -> LabelSettings | None:
    # An arm of figure 5 has no noise, and is the same training as without it.
    return None if arm.labels is None or arm.labels.noise == 0 else arm.labels


def _precision(settings: TrainSettings) -> str:
    """The precision of training; for ``auto`` that of this device.

    Raises:
        ConfigError: this machine has no such device, or the device cannot compute in this precision.
    """
    from formulavision.training.fit import resolve_device, resolve_precision

    return resolve_precision(settings.precision, resolve_device(settings.device))


def _unset_preprocessing(settings: TrainSettings) -> set[str]:
    return {"mean", "std", *NEUTRAL} - settings.model_fields_set


def _usual_preprocessing(settings: TrainSettings) -> set[str]:
    usual = type(settings)()
    return {name for name in {"mean", "std", *NEUTRAL} if getattr(settings, name) == getattr(usual, name)}


def _of_features(training: TrainSettings, arm: Arm) -> TrainSettings:
    """Settings of a probe: preprocessing is that of fine-tuning or, if it is not set, of the checkpoint."""
    names = {"model", *PREPROCESSING, "precision", "device"}
    names = names | {"seed"} if arm.from_scratch else names - _unset_preprocessing(training)
    return TrainSettings(**{name: getattr(training, name) for name in names})


def _without_seed(content: Any) -> Any:
    """Content of a stage without its seed of training. The seed of its labels stays: another one is another arm."""
    if not isinstance(content, Mapping):
        return content
    settings = {key: value for key, value in content.get("settings", content).items() if key != "seed"}
    return {**content, "settings": settings} if "settings" in content else settings


def _key(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _content_of(checkpoint: str) -> dict[str, Any]:
    """Hash of a checkpoint's weights, or the name of a published model; and the preprocessing that comes with it."""
    from formulavision.training.checkpoints import load_preprocessing
    from formulavision.training.runs import file_digest

    # The size of images is the comparison's. Neutral values were not recorded in older keys.
    own = {
        name: value
        for name, value in load_preprocessing(checkpoint).items()
        if name not in {"resize", "crop"} and NEUTRAL.get(name) != value
    }
    if checkpoint.startswith(REMOTE):
        return {"checkpoint": checkpoint, "preprocessing": own}
    path = Path(checkpoint)
    content: dict[str, Any] = {"checkpoint": file_digest(path / "model.safetensors" if path.is_dir() else path)}
    if own:
        content["normalisation"] = [list(own.pop("mean")), list(own.pop("std"))]
    return {**content, **own}


# Real datasets -------------------------------------------------------------------------------------------------------


class Datasets:
    """The real datasets of a comparison, opened once each: its downstreams, and images that arms are pre-trained on.

    Raises:
        DownstreamError: one of them cannot be used.
    """

    def __init__(self, settings: ComparisonSettings) -> None:
        self._opened: dict[DownstreamSettings, Downstream] = {}
        self._digests: dict[tuple[DownstreamSettings, bool], str] = {}
        named = [(f"downstreams.{name}", dataset) for name, dataset in settings.downstreams.items()]
        named += [(f"arms.{v.base}.images", v.arm.images) for v in settings.variants.values() if v.arm.images]
        for path, dataset in named:
            try:
                if dataset not in self._opened:
                    self._opened[dataset] = open_downstream(dataset)
            except DownstreamError as error:
                raise DownstreamError(f"{path}: {error}") from None
        for path, images in named[len(settings.downstreams) :]:
            for name, dataset in settings.downstreams.items():
                tested = self._opened[dataset].test
                if seen := count_shared(self._opened[images].train, tested):
                    raise DownstreamError(
                        f"{path}: {seen:,} of the {len(tested):,} test images of downstreams.{name} would be "
                        "pre-trained on: give both the same test_share and test_seed"
                    )

    def __getitem__(self, settings: DownstreamSettings) -> Downstream:
        return self._opened[settings]

    def check_outside(self, *folders: Path) -> None:
        """Check that no folder to write into is among the images; see :func:`formulavision.data.downstream.folder`."""
        for dataset, folder in itertools.product(self._opened, folders):
            check_outside(folder, dataset)

    def digest(self, settings: DownstreamSettings, *, train_only: bool = False) -> str:
        """Hash of a dataset's kind, classes and images. It does not depend on the dataset's place.

        Args:
            settings: of the dataset.
            train_only: hash the training images only.
        """
        key = settings, train_only
        if key not in self._digests:
            opened = self._opened[settings]
            sides = [opened.train] if train_only else [opened.train, opened.test]
            content = " ".join([settings.kind, *(side.digest() for side in sides)])
            self._digests[key] = hashlib.sha256(content.encode()).hexdigest()[:16]
        return self._digests[key]


# Models --------------------------------------------------------------------------------------------------------------


def check_models(settings: ComparisonSettings) -> None:
    """Build every model: a name, an image size, frozen layers, a checkpoint, a device or a logger that does not fit is
    refused.

    Published models are checked by name, and downloaded when their arm runs.

    Raises:
        ConfigError: one line a problem.
    """
    from formulavision.training.loggers import NamedLoggers

    NamedLoggers(tuple(settings.loggers))  # a logger that is not installed is refused
    problems = list(_problems_of_fine_tuning(settings))
    if not problems:
        problems = [problem for v in settings.variants.values() for problem in _problems_of_start(settings, v)]
    if problems:
        raise ConfigError(*dict.fromkeys(problems))


def _problems_of_fine_tuning(settings: ComparisonSettings) -> Iterator[str]:
    from formulavision.training import freeze

    # One arm of each setting of fine-tuning.
    chosen = {str(sorted(v.arm.finetune.items())): v for v in settings.variants.values()}
    targets = dict.fromkeys(dataset.target for dataset in settings.downstreams.values())
    for variant, target in itertools.product(chosen.values(), targets):
        for spec in settings.freeze if settings.finetuning else ["none"]:
            try:
                freeze(_built(settings.finetune_settings(variant.name, settings.seeds[0], target=target), target), spec)
            except ConfigError as error:
                for problem in error.problems:
                    name = problem.partition(":")[0].partition(".")[0]
                    own = name in variant.arm.finetune and variant.path is None
                    at = f"arms.{variant.base}.finetune" if own else "finetune"
                    elsewhere = name in ("model", "freeze")
                    yield from [problem] if elsewhere else ConfigError(problem).under(at).problems


def _problems_of_start(settings: ComparisonSettings, variant: Variant) -> Iterator[str]:
    from formulavision.training import load_checkpoint
    from formulavision.training.checkpoints import load_preprocessing
    from formulavision.training.models import build_model

    arm, seed = variant.arm, settings.seeds[0]
    path = f"arms.{variant.base}" + ("" if variant.path is None else f" at {variant.path} {variant.value}")
    try:
        if arm.pretrained_here:
            assert arm.target is not None
            _built(settings.pretrain_settings(variant.name, seed), arm.target)
        elif arm.checkpoint is not None and arm.checkpoint.startswith(REMOTE):
            load_preprocessing(arm.checkpoint)
        elif arm.checkpoint is not None:
            # Not on the meta device: the weights are to be copied into it.
            model = build_model(settings.finetune_settings(variant.name, seed), num_classes=2)
            load_checkpoint(arm.checkpoint).load_into(model)
    except CheckpointError as error:
        yield f"{path}.checkpoint: {error}"
    except ConfigError as error:
        yield from error.under(f"{path}.pretrain").problems


def _built(training: TrainSettings, target: str) -> torch.nn.Module:
    """The model of a training on a target, without memory for its weights; settings and device are checked."""
    import torch

    from formulavision.training.models import build_model
    from formulavision.training.tasks import for_target

    _precision(training)
    with torch.device("meta"):
        return build_model(for_target(training, target), num_classes=2)
