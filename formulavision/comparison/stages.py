"""The stages of a comparison, each with a folder that is named after everything that determines its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formulavision.comparison.config import Arm, ComparisonSettings
from formulavision.recipe import Recipe

if TYPE_CHECKING:
    from formulavision.training.settings import TrainSettings

__all__ = ["Finetuning", "Pretraining", "plan"]

# Where and by how many processes a stage is computed makes it faster, not another experiment.
_NOT_IN_THE_KEY = {"device", "devices", "workers"}


@dataclass(frozen=True)
class Pretraining:
    """Pre-training of one arm with one seed.

    Attributes:
        store: folder of the stored dataset to train from; None: images are drawn on demand.
    """

    arm: str
    seed: int
    recipe: Recipe
    settings: TrainSettings
    folder: Path
    store: Path | None


@dataclass(frozen=True)
class Finetuning:
    """Fine-tuning and evaluation of one arm on one downstream: a row of the results.

    Attributes:
        start: what the model starts from: a stage of this comparison, somebody's checkpoint, or None for scratch.
    """

    arm: str
    downstream: str
    freeze: str
    seed: int
    settings: TrainSettings
    folder: Path
    start: Pretraining | Path | None


def plan(settings: ComparisonSettings, out: Path) -> list[Finetuning]:
    """The rows of a comparison in the order in which they are computed, arm by arm.

    A stage's folder is named after a hash of its settings and of the stage before it, so that a stage that is there
    is the right one, a changed configuration computes what the change touches, and taking the change back costs
    nothing.
    """
    return [row for name, arm in settings.arms.items() for row in _rows(settings, name, arm, out)]


def _rows(settings: ComparisonSettings, name: str, arm: Arm, out: Path) -> Iterator[Finetuning]:
    for seed in settings.seeds:
        start: Pretraining | Path | None = arm.checkpoint
        before: Any = _content_of(arm.checkpoint) if arm.checkpoint is not None else None
        if arm.recipe is not None:
            training = settings.pretrain_settings(name, seed)
            before = _key({"recipe": arm.recipe.id, "settings": _determining(training)})
            store = out / "stores" / arm.recipe.id if settings.data == "stored" else None
            start = Pretraining(name, seed, arm.recipe, training, out / "runs" / name / f"pretrain-{before}", store)
        training = settings.finetune_settings(seed)
        for downstream, dataset in settings.downstreams.items():
            content = {
                "start": before,
                "settings": _determining(training),
                "downstream": dataset.model_dump(mode="json", exclude={"download"}),
            }
            for freeze in settings.freeze:
                key = _key({**content, "freeze": freeze})
                folder = out / "runs" / name / f"{downstream}-{key}"
                yield Finetuning(name, downstream, freeze, seed, training, folder, start)


def _determining(settings: TrainSettings) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude=_NOT_IN_THE_KEY)


def _key(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _content_of(checkpoint: Path) -> str:
    """Digest of a checkpoint's weights: of the file, or of the run's."""
    file = checkpoint / "model.safetensors" if checkpoint.is_dir() else checkpoint
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
