"""The stages of a comparison, each with a folder that is named after everything that determines its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from formulavision.comparison.arms import REMOTE, Arm
from formulavision.comparison.config import PROBE, ComparisonSettings
from formulavision.training.settings import NEUTRAL, PREPROCESSING
from formulavision.util.config import identity

if TYPE_CHECKING:
    from formulavision.data.labels import LabelSettings
    from formulavision.training.settings import TrainSettings

__all__ = ["STORES", "Digest", "Finetuning", "Pretraining", "Probing", "Stage", "key_of", "plan"]

STORES = "_stores"
"""Where among the stages the stores are: no arm has such a name."""

# Where, by how many processes and how fast a stage is computed changes no more of its result than rounding; what
# pre-training is validated on, nothing of its weights.
_NOT_IN_THE_KEY = {
    *("device", "devices", "workers", "draw_on", "compile", "channels_last", "checkpoint_minutes"),
    "held_out",
}


@dataclass(frozen=True)
class Pretraining:
    """Pre-training of one arm with one seed.

    Attributes:
        store: folder of the stored dataset to train from; None: images are drawn on demand.
    """

    arm: str
    seed: int
    source: Arm
    settings: TrainSettings
    folder: Path
    store: Path | None

    @property
    def labels(self) -> LabelSettings | None:
        """Other labels than the images' own; None where none is replaced."""
        return _relabelled(self.source)


@dataclass(frozen=True)
class Stage:
    """One row of the results: an arm's weights, evaluated on one downstream with one seed.

    Attributes:
        freeze: the layers that fine-tuning leaves as they are; of a probe its name (``linear-probe``).
        folder: where its files are.
        start: what the model starts from: a stage of this comparison, somebody's checkpoint, or None for scratch.
        content: hash of what the arm is, but for seed, downstream and frozen layers: the same arm in another
            comparison, on another machine, has the same.
    """

    arm: str
    downstream: str
    freeze: str
    seed: int
    folder: Path
    start: Pretraining | str | None
    content: str


@dataclass(frozen=True)
class Finetuning(Stage):
    """Fine-tuning and evaluation."""

    settings: TrainSettings


@dataclass(frozen=True)
class Probing(Stage):
    """Evaluation of frozen features.

    Attributes:
        settings: those of fine-tuning that features depend on; of these, what is not set is the checkpoint's own.
        method: ``linear`` or ``knn``.
    """

    settings: TrainSettings
    method: Literal["linear", "knn"]


class Digest(Protocol):
    """Tells a real dataset from others by its content."""

    def __call__(self, settings: Any, /, *, train_only: bool = False) -> str:
        """A hash of the dataset with these settings, or of its training side alone."""


def plan(settings: ComparisonSettings, runs: Path, digest: Digest) -> list[Finetuning | Probing]:
    """The rows of a comparison in the order in which they are computed, arm by arm.

    Args:
        settings: of the comparison.
        runs: the folder that the stages' folders are in, of this comparison alone or of several.
        digest: of a real dataset, by its settings.

    Probes of a checkpoint have one row, of the first seed: they do not depend on it.

    A stage's folder is named after a hash of its settings and of the stage before it, so that a stage that is there
    is the right one, a changed configuration computes what the change touches, and taking the change back costs
    nothing. Arms with the same content share their stages.

    Raises:
        ConfigError: the device of a stage is not there, or cannot compute in its precision.
    """
    planner = _Planner(settings, runs, digest)
    return [row for name in settings.variants for seed in settings.seeds for row in planner.rows(name, seed)]


def key_of(folder: Path) -> str:
    """The hash at the end of a stage's folder, by which it is known, whichever arm it was made for."""
    return folder.name.rpartition("-")[2]


class _Planner:
    def __init__(self, settings: ComparisonSettings, runs: Path, digest: Digest) -> None:
        self.settings = settings
        self.runs = runs
        self.digest = digest
        self.folders = {key_of(folder): folder for folder in sorted(runs.glob("*/*-*"))}

    def rows(self, name: str, seed: int) -> list[Finetuning | Probing]:
        settings, arm = self.settings, self.settings.variants[name].arm
        start, before = self._start(name, seed)
        training = settings.finetune_settings(name, seed)
        # Where mean, deviation and resizing are not set, they are the checkpoint's own.
        determining = _determining(training, leave_out=set() if arm.from_scratch else _unset_preprocessing(training))
        features = _of_features(training, arm)
        seen = _determining(features, leave_out=type(features).model_fields.keys() - features.model_fields_set)
        seeded = arm.from_scratch or arm.pretrained_here or seed == settings.seeds[0]
        content = _key({"start": _without_seed(before), "settings": _without_seed(determining)})
        result: list[Finetuning | Probing] = []
        for downstream, dataset in settings.downstreams.items():
            where = self.digest(dataset)
            for freeze in settings.freeze if settings.finetuning else ():
                key = _key({"start": before, "settings": determining, "downstream": where, "freeze": freeze})
                folder = self._folder(name, downstream, key)
                result.append(Finetuning(name, downstream, freeze, seed, folder, start, content, training))
            for method in settings.probes if seeded else ():
                key = _key({"start": before, "settings": seen, "downstream": where, "probe": method})
                folder = self._folder(name, f"{downstream}-{method}", key)
                freeze = f"{method}{PROBE}"
                result.append(Probing(name, downstream, freeze, seed, folder, start, content, features, method))
        return result

    def _start(self, name: str, seed: int) -> tuple[Pretraining | str | None, Any]:
        """What an arm starts from, and what determines that."""
        arm = self.settings.variants[name].arm
        if arm.checkpoint is not None:
            return arm.checkpoint, _content_of(arm.checkpoint)
        if not arm.pretrained_here:
            return None, None
        training = self.settings.pretrain_settings(name, seed)
        before: dict[str, Any] = {"settings": _determining(training)}
        store = None
        if arm.recipe is not None:
            before["recipe"] = arm.recipe.id
            if self.settings.data == "stored":
                store = self.runs / STORES / arm.recipe.id
                # In every epoch the same images, as a store holds them.
                before["settings"]["fresh"] = False
        else:
            before["images"] = self.digest(arm.images, train_only=True)
        if _relabelled(arm) is not None:
            before["labels"] = identity(arm.labels)
        folder = self._folder(name, "pretrain", _key(before))
        return Pretraining(name, seed, arm, training, folder, store), before

    def _folder(self, arm: str, what: str, key: str) -> Path:
        return self.folders.setdefault(key, self.runs / arm / f"{what}-{key}")


def _relabelled(arm: Arm) -> LabelSettings | None:
    # No noise is an arm of figure 5, and the same training as without it.
    return None if arm.labels is None or arm.labels.noise == 0 else arm.labels


def _determining(settings: TrainSettings, leave_out: Set[str] = frozenset()) -> dict[str, Any]:
    """Settings that a stage's result depends on, with the precision that ``auto`` stands for on this device."""
    from formulavision.training.fit import resolve_device, resolve_precision

    content = {key: value for key, value in identity(settings).items() if key not in _NOT_IN_THE_KEY | leave_out}
    return {**content, "precision": resolve_precision(settings.precision, resolve_device(settings.device))}


def _without_neutral(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if NEUTRAL.get(name) != value}


def _unset_preprocessing(settings: TrainSettings) -> set[str]:
    return {"mean", "std", *NEUTRAL} - settings.model_fields_set


def _of_features(training: TrainSettings, arm: Arm) -> TrainSettings:
    """Settings of a probe: images are seen as in fine-tuning, so all that says how is set, but a checkpoint's own."""
    from formulavision.training.settings import TrainSettings

    names = {"model", *PREPROCESSING, "precision", "device"}
    names = names | {"seed"} if arm.from_scratch else names - _unset_preprocessing(training)
    return TrainSettings(**{name: getattr(training, name) for name in names})


def _without_seed(content: Any) -> Any:
    """Content of a stage, whatever its seed of training; another seed of its labels is another arm."""
    if not isinstance(content, Mapping):
        return content
    settings = {key: value for key, value in content.get("settings", content).items() if key != "seed"}
    return {**content, "settings": settings} if "settings" in content else settings


def _key(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _content_of(checkpoint: str) -> dict[str, Any]:
    """A digest of a checkpoint's weights, of a published model its name; and the preprocessing that comes with it."""
    from formulavision.training.checkpoints import load_preprocessing

    # The size of images is the comparison's.
    preprocessing = {k: v for k, v in load_preprocessing(checkpoint).items() if k not in {"resize", "crop"}}
    own = _without_neutral(preprocessing)
    if checkpoint.startswith(REMOTE):
        return {"checkpoint": checkpoint, "preprocessing": own}
    path = Path(checkpoint)
    file = path / "model.safetensors" if path.is_dir() else path
    with file.open("rb") as stream:
        content: dict[str, Any] = {"checkpoint": hashlib.file_digest(stream, "sha256").hexdigest()}
    if own:
        content["normalisation"] = [list(own.pop("mean")), list(own.pop("std"))]
    return {**content, **own}
