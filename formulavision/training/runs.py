"""A run's folder: which files are in it, how damage to them is found, and which run may go on in it.

settings.yaml ends with digests of itself and of classes.json, run.json holds digests of itself and of the weights, and
checkpoints are zip archives with a CRC-32 of every part. These find damage, not malice: nothing is unpickled but
tensors and plain values.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formulavision.training.settings import TrainSettings
from formulavision.util.config import WRITTEN_OUT, dump_yaml, load_yaml, parse
from formulavision.util.errors import ConfigError, FolderError, FormulaVisionError
from formulavision.util.files import json_digest, not_a_folder, write_json, write_text
from formulavision.util.folders import MARKER, Marker, OwnedFolder, State
from formulavision.util.text import counted, read_csv

if TYPE_CHECKING:
    import torch

__all__ = [
    "BEST_WEIGHTS",
    "CLASSES",
    "LAST_CHECKPOINT",
    "METRICS",
    "PREVIOUS_CHECKPOINT",
    "RESULT",
    "SETTINGS",
    "WEIGHTS",
    "EpochMetrics",
    "Run",
    "check_folder",
    "check_same_settings",
    "claim",
    "damaged_part",
    "file_digest",
    "find_checkpoint",
    "is_complete",
    "own_class",
    "read_metrics",
    "read_result",
    "read_settings",
    "recipe_id",
    "score_of",
    "unit_of",
    "when",
    "write_result",
    "write_settings",
]

SETTINGS = "settings.yaml"
CLASSES = "classes.json"
RESULT = "run.json"
WEIGHTS = "model.safetensors"
BEST_WEIGHTS = "model_best.safetensors"
LAST_CHECKPOINT = Path("checkpoints/last.ckpt")
PREVIOUS_CHECKPOINT = Path("checkpoints/previous.ckpt")

_OURS = (
    *(SETTINGS, CLASSES, RESULT, LAST_CHECKPOINT.as_posix(), PREVIOUS_CHECKPOINT.as_posix(), "metrics.csv", "logs/"),
    *(
        "tensorboard/events.out.tfevents.*",
        "tensorboard/hparams.yaml",
        WEIGHTS,
        BEST_WEIGHTS,
        "config.json",
        "README.md",
    ),
)
"""All files that a run writes into its folder; other files in it are never removed."""

_FREE_TO_CHANGE = {
    *(f"settings.{name}" for name in ("workers", "device", "devices", "draw_on", "compile", "channels_last")),
    *(f"settings.{name}" for name in ("checkpoint_minutes", "held_out")),
    "checkpoint.name",
    "precision",
    "downstream.name",
}
"""Entries of settings.yaml that may differ when a run is resumed: paths, devices, speed, and the validation images.
They do not change what is trained. The path of a store may differ, too (:func:`_same_images`). The precision is the
run's own, by the setting."""

_SEAL = re.compile(r"# sha256 of classes\.json: ([0-9a-f]{64})\n# sha256 of all above: ([0-9a-f]{64})\n\Z")
_PARTS = {"state_dict", "optimizer_states", "lr_schedulers", "callbacks", "loops", "global_step", "steps_per_epoch"}
"""Entries that each of our checkpoints has."""

_OVERWRITE = "restore it from a copy, or start over with --overwrite"
_WRITTEN_AGAIN = "--resume writes it again from the last checkpoint"

EpochMetrics = dict[str, float | None]
"""Metrics of one epoch of a run, by the columns of metrics.csv."""

METRICS = {
    "accuracy": "accuracy",
    "map": "mean average precision",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
}
"""Metrics in words, by their names in the columns ``train_NAME`` and ``validation_NAME`` of metrics.csv."""
_SCORES = ("map", "miou", "accuracy")
"""Metrics by which models are compared; of a run's columns the first one that is there."""


def when(metrics: EpochMetrics) -> tuple[str, int]:
    """The moment of a row of metrics: ``epoch`` or, in a run of steps, ``step``, and its number, from 1."""
    unit = "step" if "step" in metrics else "epoch"
    return unit, round(metrics[unit] or 0)


def unit_of(histories: Iterable[Iterable[EpochMetrics]]) -> str:
    """The unit in which runs are counted: ``epoch``, ``step``, or ``epoch or step`` where they differ.

    That of runs without a row is ``epoch``.
    """
    return " or ".join(sorted({when(row)[0] for history in histories for row in history})) or "epoch"


def score_of(metrics: EpochMetrics, *, pretrained: bool = False) -> tuple[str, float, str]:
    """The score of an epoch: its metric in words, its value (0..1), and on which images (``test``, of pre-training
    ``held-out``, or ``training``)."""
    for prefix, images in (("validation", "held-out" if pretrained else "test"), ("train", "training")):
        for name in _SCORES:
            if (value := metrics.get(f"{prefix}_{name}")) is not None:
                return METRICS[name], value, images
    return METRICS["accuracy"], 0.0, "training"


@dataclass(frozen=True, repr=False)
class Run:
    """A complete run. It also stands for its folder, wherever a checkpoint or a path is taken.

    Attributes:
        folder: where it is.
        kind: ``pretrain`` or ``finetune``.
        history: the metrics of each epoch or, in a run of steps, of each interval, as in metrics.csv.
        seconds: time of all epochs, validation included.
        images_per_second: training images per second of training, validation not included.
        final: the metrics of the last epoch.
        classes: names of the classes, in the order of the head's outputs.
        settings: the content of settings.yaml.
        frozen: names of the parameters that were not trained.
        parameters: number of the model's parameters.
        weights_sha256: SHA-256 of model.safetensors; None where version 0.1 wrote the run.
        best_epoch: the epoch (in a run of steps: the row of the history), from 1, with the highest score on validation
            images (accuracy; of several labels mean average precision, of segmentation mIoU), the first one of several;
            its weights are model_best.safetensors. None where the run was not validated, or the file was lost while it
            was trained.
        best_sha256: SHA-256 of model_best.safetensors; None without it.
    """

    folder: Path
    kind: str
    history: list[EpochMetrics]
    seconds: float
    images_per_second: float
    final: EpochMetrics
    classes: list[str]
    settings: dict[str, Any]
    frozen: list[str]
    parameters: int
    weights_sha256: str | None
    best_epoch: int | None
    best_sha256: str | None

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        metric, score, images = score_of(self.final, pretrained=self.kind == "pretrain")
        unit, number = when(self.final)
        return (
            f"Run({str(self.folder)!r}, {self.kind}, {self.settings['settings']['model']}, "
            f"{counted(number, unit)}, {metric} {score:.2%} on {images} images)"
        )

    @property
    def target(self) -> str:
        """The target that the model learned: ``class``, ``labels`` or ``semantic``."""
        return self.settings["settings"].get("target") or "class"

    def weights_file(self, *, best: bool = False) -> Path:
        """The file of the last weights, or of those of the best epoch, whose checksum is compared.

        Raises:
            ConfigError: the file is missing or damaged, or no epoch was validated.
        """
        if best and self.best_epoch is None:
            raise ConfigError(f"{self.folder}: has no best weights: none of its epochs was validated")
        path = self.folder / (BEST_WEIGHTS if best else WEIGHTS)
        if not path.is_file() or (self.best_sha256 if best else self.weights_sha256) not in (None, file_digest(path)):
            raise _damaged(path, _OVERWRITE if best else _WRITTEN_AGAIN)
        return path

    def load_into(self, model: torch.nn.Module, *, best: bool = False) -> None:
        """Copy the trained weights into a model, in place: the module that the run was started with, or its like.

        Args:
            model: has the names and shapes of the run's tensors, the classification head included.
            best: take the weights of the epoch with the highest score on validation images, not the last ones.

        Raises:
            ConfigError: the weights are missing or damaged, or the model has other tensors.
        """
        from safetensors.torch import load_file

        path = self.weights_file(best=best)
        weights, own = load_file(path), model.state_dict()
        shapes, theirs = ({name: tensor.shape for name, tensor in each.items()} for each in (own, weights))
        wrong = [name for name in {**shapes, **theirs} if shapes.get(name) != theirs.get(name)]
        if wrong:
            raise ConfigError(f"model: {wrong[0]} is not as in {path}: give the model that the run was started with")
        model.load_state_dict(weights)

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read a complete run.

        Raises:
            ConfigError: the folder holds no run, or an unfinished or damaged one.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ConfigError(not_a_folder(folder))
        if not (folder / SETTINGS).is_file():
            marker = Marker.read(folder)
            held = (
                f"holds a {marker.kind}" if marker is not None and marker.kind != "run" else f"it holds no {SETTINGS}"
            )
            raise ConfigError(f"{folder}: is not a run's folder: {held}")
        if not is_complete(folder):
            raise ConfigError(f"{folder}: the run is unfinished: run it again with --resume first")
        result = {"weights_sha256": None, "best_epoch": None, "best_sha256": None, **read_result(folder)}
        settings, class_names = read_settings(folder)
        own: dict[str, Any] = {"folder": folder, "settings": settings, "classes": class_names}
        names = [field.name for field in fields(cls) if field.name not in own]
        missing = [name for name in names if name not in result]
        if missing:
            raise ConfigError(f"{folder / RESULT}: is damaged: '{missing[0]}' is missing")
        return cls(**own, **{name: result[name] for name in names})


def own_class(settings: Mapping[str, Any]) -> str | None:
    """The class of a user's module that a run trains; None where the model is timm's.

    Args:
        settings: the content of settings.yaml.
    """
    return settings["module"]["class"] if "module" in settings else None


def is_complete(folder: Path) -> bool:
    """Whether a run came to its end: run.json is written last."""
    return (folder / RESULT).is_file()


# Who may write into the folder ---------------------------------------------------------------------------------------


def check_folder(out: Path, *, resume: bool, overwrite: bool) -> State:
    """Refuse an output folder that holds something else, before any work is done.

    Returns:
        The folder's state. It is new, too, where ``--overwrite`` was killed while it removed a run: files of that run
        that are left must not be resumed from.

    Raises:
        ConfigError: it holds a run, finished or not, which is to be neither resumed nor overwritten, or other files; or
            both ``resume`` and ``overwrite`` are set.
    """
    if resume and overwrite:
        raise ConfigError("resume and overwrite exclude each other: choose one")
    state = _owned(out).state()
    if resume or overwrite:
        return state
    if state is State.COMPLETE:
        raise FolderError(f"{out}: holds a complete run: give another --out, or --overwrite")
    if state is State.UNFINISHED:
        raise FolderError(f"{out}: holds an unfinished run: go on with it by --resume, or --overwrite it")
    return state


def _owned(out: Path) -> OwnedFolder:
    return OwnedFolder(out, "run", last=RESULT)


@contextmanager
def claim(
    out: Path, settings: Mapping[str, Any], class_names: Sequence[str], *, resume: bool, overwrite: bool = False
) -> Iterator[None]:
    """Hold the folder for a run of ``settings``: it is new, emptied, or checked to have the same settings.

    Args:
        settings: the content of settings.yaml.

    Raises:
        ConfigError: :func:`check_folder` refuses the folder, another process trains there, the run to be resumed has
            other settings, or the folder cannot be written.
    """
    check_folder(out, resume=resume, overwrite=overwrite)
    with _owned(out).writing({}, _OURS, overwrite=overwrite):
        # Again: another process may have had the folder until now.
        check_folder(out, resume=resume, overwrite=overwrite)
        try:
            _begin(out, settings, class_names)
        except OSError as error:
            raise FolderError(f"{error.filename or out}: cannot be written: {error.strerror or error}") from None
        yield


def _begin(out: Path, settings: Mapping[str, Any], class_names: Sequence[str]) -> None:
    (out / LAST_CHECKPOINT).parent.mkdir(exist_ok=True)
    if not (out / SETTINGS).is_file():
        if (out / LAST_CHECKPOINT).exists():
            raise ConfigError(f"{out / SETTINGS}: is missing: restore it, or start over with --overwrite")
        write_settings(out, settings, class_names)
        return
    recorded, names = read_settings(out)
    longer = check_same_settings(recorded, settings)
    if names != list(class_names):
        raise ConfigError(f"resume: the data's classes are others than in {out / CLASSES}")
    # A complete run that gets more epochs, or is damaged, is unfinished again.
    (out / RESULT).unlink(missing_ok=True)
    if longer:
        _owned(out).keep_only(_OURS)  # evaluations are of the weights that it had
        write_settings(out, settings, class_names)


def check_same_settings(recorded: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Refuse to resume a run with other settings than its own, except for more epochs or steps.

    Recipes are compared by their id, and settings that are younger than the run count at their neutral value: a run is
    not refused because FormulaVision has learned a new option since.

    Args:
        recorded: the content of the run's settings.yaml.
        settings: the same for the settings that are given now.

    Returns:
        Whether the run gets more epochs than it had.

    Raises:
        ConfigError: names each difference that matters.
    """
    own = parse(TrainSettings, recorded["settings"], "settings", context=WRITTEN_OUT).model_dump(mode="json")
    old = _flat({**recorded, "settings": _by_recipe_id(own)})
    new = _flat({**settings, "settings": _by_recipe_id(settings["settings"])})
    unit = "epochs" if old.get("settings.steps") is None else "steps"
    before, now = (settings.get(f"settings.{unit}") or 0 for settings in (old, new))
    if now > before and old.get("settings.schedule") == "cosine":
        raise ConfigError(
            f"resume: settings.{unit} is {now} and was {before} in the run, whose cosine schedule ends with it: "
            "a longer run has other learning rates from its first step: start it in another --out"
        )
    if now > before and unit == "steps" and before % old["settings.interval"]:
        raise ConfigError(
            f"resume: steps is {now} and was {before} in the run: it can be raised only where it is a multiple of "
            f"interval, {old['settings.interval']}"
        )
    if now < before:
        raise ConfigError(f"{unit}: is {now} and was {before} in the run: it can be raised, not lowered")
    same = tuple(_same_images(recorded.get("data", {}), settings.get("data", {})))
    differences = [
        f"resume: {key} is {new.get(key, 'absent')} and was {old.get(key, 'absent')} in the run{_about_store(key, old)}"
        for key in sorted({*old, *new} - _FREE_TO_CHANGE - {f"settings.{unit}"})
        if old.get(key) != new.get(key) and not key.startswith(same)
    ]
    if differences:
        raise ConfigError(*differences)
    return bool(now > before)


def _by_recipe_id(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which mixing is one value, with its recipe's id in place of the recipe."""
    mixing = settings.get("mixing")
    if mixing is None:
        return dict(settings)
    return {**settings, "mixing": str({**mixing, "recipe": recipe_id(mixing["recipe"])})}


def _same_images(recorded: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "data.") -> Iterator[str]:
    """Beginnings of the keys that may differ: of recipes with one id, which draw the same images, and paths of stores.

    Args:
        recorded, given: the data of the run, and those that are given now; of a mixture, one part of them.
    """
    if "recipe" in recorded and "recipe" in given:
        own = recipe_id(recorded["recipe"])
        if own is not None and own == recipe_id(given["recipe"]):
            yield f"{prefix}recipe."
    if "store" in recorded and "store" in given:
        yield f"{prefix}store"
    for number, pair in enumerate(zip(recorded.get("mixture", ()), given.get("mixture", ()), strict=False)):
        yield from _same_images(*pair, f"{prefix}mixture.{number}.")


def _about_store(key: str, recorded: Mapping[str, Any]) -> str:
    """The end of the line about a store that only the run, or only what is given now, has."""
    if not re.fullmatch(r"data\.(mixture\.\d+\.)?store", key):
        return ""
    return f", whose images are {'read from this' if key in recorded else 'not read from a'} store"


def recipe_id(recipe: Mapping[str, Any]) -> str | None:
    """The id of a recipe's plain values; None where its generator, in this version, is not installed."""
    from formulavision.recipes.recipe import Recipe

    try:
        return Recipe.from_dict(dict(recipe)).id
    except FormulaVisionError:
        return None


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in settings.items():
        if f"{prefix}{key}" == "data.mixture":
            value = {str(number): part for number, part in enumerate(value)}
        if isinstance(value, Mapping):
            result.update(_flat(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return result


# settings.yaml and classes.json --------------------------------------------------------------------------------------


def write_settings(folder: Path, settings: Mapping[str, Any], class_names: Sequence[str]) -> None:
    """Write classes.json and, after it, settings.yaml, which marks the folder as a run's."""
    write_json(list(class_names), folder / CLASSES)
    text = f"{dump_yaml(dict(settings))}# sha256 of classes.json: {file_digest(folder / CLASSES)}\n"
    write_text(folder / SETTINGS, f"{text}# sha256 of all above: {_digest(text.encode())}\n")


def read_settings(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The content of settings.yaml, and the names of the classes.

    Raises:
        ConfigError: one of the files is missing or damaged.
    """
    path = folder / SETTINGS
    content = path.read_bytes().decode(errors="replace")
    seal = _SEAL.search(content)
    if seal is None:
        if _has_digests(folder):
            raise _damaged(path)
    elif _digest(content[: seal.start(2) - len("# sha256 of all above: ")].encode()) != seal[2]:
        raise _damaged(path)
    elif not (folder / CLASSES).is_file() or file_digest(folder / CLASSES) != seal[1]:
        raise _damaged(folder / CLASSES)
    try:
        names = json.loads((folder / CLASSES).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise _damaged(folder / CLASSES) from None
    return load_yaml(path), names


# run.json ------------------------------------------------------------------------------------------------------------


def write_result(folder: Path, content: Mapping[str, Any]) -> None:
    """Write run.json, which makes the run complete."""
    whole = {**content, "weights_sha256": file_digest(folder / WEIGHTS)}
    write_json({**whole, "sha256": json_digest(whole)}, folder / RESULT)


def read_metrics(folder: Path) -> list[EpochMetrics]:
    """The rows of metrics.csv, also of a run that is going on; none where there is no file, or it is damaged."""
    try:
        rows = read_csv(folder / "metrics.csv")
        return [{name: float(text) if text else None for name, text in row.items()} for row in rows]
    except (OSError, ValueError):
        return []


def read_result(folder: Path) -> dict[str, Any]:
    """The content of run.json.

    Raises:
        ConfigError: it is damaged.
    """
    path = folder / RESULT
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        raise _damaged(path, _WRITTEN_AGAIN) from None
    digest = content.pop("sha256", None)
    if digest != json_digest(content) and (digest is not None or _has_digests(folder)):
        raise _damaged(path, _WRITTEN_AGAIN)
    return content


# Checkpoints ---------------------------------------------------------------------------------------------------------


def find_checkpoint(folder: Path, tell: Callable[[str], None]) -> Path | None:
    """The checkpoint to resume from: the last one or, where it is damaged, the one before it, which ``tell`` is told.

    None where none has been written yet.

    Raises:
        ConfigError: all checkpoints of the run are damaged.
    """
    last, previous = folder / LAST_CHECKPOINT, folder / PREVIOUS_CHECKPOINT
    there = [path for path in (last, previous) if path.is_file()]
    sound = next((path for path in there if _is_sound(path)), None)
    if there and sound is None:
        raise _damaged(there[0], _OVERWRITE if len(there) == 1 else f"and so is {previous.name}; {_OVERWRITE}")
    if sound == previous and last.is_file():
        tell(f"{last}: is damaged: the run goes back to the checkpoint before it, {previous.name}")
    return sound


def _is_sound(path: Path) -> bool:
    import torch

    try:
        if damaged_part(path) is not None:
            return False
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return isinstance(content, dict) and content.keys() >= _PARTS
    except PermissionError:
        raise
    except Exception:  # damaged names, sizes and offsets lead to exceptions of many kinds
        return False


def damaged_part(path: Path) -> str | None:
    """Name of the first part of a ``torch.save`` file whose CRC-32 is wrong, which ``torch.load`` does not compare.

    None where all are right.
    """
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def _damaged(path: Path, advice: str = _OVERWRITE) -> ConfigError:
    return ConfigError(f"{path}: is damaged: {advice}")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _has_digests(folder: Path) -> bool:
    """Whether the run's files hold digests: version 0.1 wrote neither these nor a marker."""
    return (folder / MARKER).is_file()
