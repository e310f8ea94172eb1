"""A run's folder: it explains itself, and says whether it is complete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formulavision.training.settings import TrainSettings
from formulavision.training.state import (
    CLASSES,
    LAST_CHECKPOINT,
    PREVIOUS_CHECKPOINT,
    RESULT,
    SETTINGS,
    read_result,
    read_settings,
    write_settings,
)
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError, FolderError
from formulavision.util.folders import OwnedFolder, State

__all__ = ["Row", "Run", "check_folder", "check_same_settings", "claim", "is_complete", "run_folder"]

Row = dict[str, float | None]
"""One epoch of a run: the columns of metrics.csv."""

_OURS = (
    *(SETTINGS, CLASSES, RESULT, LAST_CHECKPOINT.as_posix(), PREVIOUS_CHECKPOINT.as_posix()),
    *("metrics.csv", "tensorboard/events.out.tfevents.*", "logs/", "model.safetensors", "config.json", "README.md"),
)
"""All that a run writes into its folder; what else is put there is never removed."""

_FREE_TO_CHANGE = {
    *(f"settings.{name}" for name in ("workers", "device", "devices", "draw_on", "compile", "channels_last")),
    *(f"settings.{name}" for name in ("checkpoint_minutes", "held_out")),
    "checkpoint.name",
    "data.store",
    "downstream.name",
}
"""What a resumed run may have otherwise: where things are, who computes them and how fast, and what it is validated on;
not what is trained."""


@dataclass(frozen=True)
class Run:
    """A complete run.

    Attributes:
        folder: where it is.
        kind: ``pretrain`` or ``finetune``.
        history: a row an epoch, as in metrics.csv.
        seconds: time of all epochs, validation included.
        images_per_second: images trained on a second of training, validation not included.
        final: the last row of the history.
        class_names: the classes in the order of the head's outputs.
        settings: the content of settings.yaml.
        frozen: names of the parameters that were not trained.
        parameters: number of the model's parameters.
        weights_sha256: of model.safetensors; None where version 0.1 wrote the run.
    """

    folder: Path
    kind: str
    history: list[Row]
    seconds: float
    images_per_second: float
    final: Row
    class_names: list[str]
    settings: dict[str, Any]
    frozen: list[str]
    parameters: int
    weights_sha256: str | None

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read a complete run.

        Raises:
            ConfigError: there is no run in the folder, or it is unfinished.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder")
        if not (folder / SETTINGS).is_file():
            raise ConfigError(f"{folder}: is not a run's folder: it holds no {SETTINGS}")
        if not is_complete(folder):
            raise ConfigError(f"{folder}: the run is unfinished: run it again with --resume first")
        result = read_result(folder)
        settings, names = read_settings(folder)
        try:
            return cls(
                folder=folder,
                kind=result["kind"],
                history=result["history"],
                seconds=result["seconds"],
                images_per_second=result["images_per_second"],
                final=result["final"],
                class_names=names,
                settings=settings,
                frozen=result["frozen"],
                parameters=result["parameters"],
                weights_sha256=result.get("weights_sha256"),
            )
        except KeyError as error:
            raise ConfigError(f"{folder / RESULT}: is damaged: {error} is missing") from None


def is_complete(folder: Path) -> bool:
    """Whether a run came to its end: run.json is written last."""
    return (folder / RESULT).is_file()


def run_folder(out: Path) -> OwnedFolder:
    """The folder of a run, as its writers see it."""
    return OwnedFolder(out, "run", last=RESULT)


def check_folder(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse an output folder that something else is in, before any work is done.

    Raises:
        ConfigError: it holds a run, finished or not, that the caller wants neither resumed nor overwritten, or other
            files; or both ``resume`` and ``overwrite`` are set.
    """
    if resume and overwrite:
        raise ConfigError("resume and overwrite exclude each other: choose one")
    state = run_folder(out).state()
    if resume or overwrite:
        return
    if state is State.COMPLETE:
        raise FolderError(f"{out}: holds a complete run: give another --out, or --overwrite")
    if state is State.UNFINISHED:
        raise FolderError(f"{out}: holds an unfinished run: go on with it by --resume, or --overwrite it")


@contextmanager
def claim(
    out: Path, settings: Mapping[str, Any], class_names: Sequence[str], *, resume: bool, overwrite: bool = False
) -> Iterator[None]:
    """The folder for a run of ``settings`` by this process alone: new, emptied, or checked to be of the same settings.

    Raises:
        ConfigError: the folder is refused as by :func:`check_folder`, another process trains there, the run to be
            resumed has other settings, or the folder cannot be written.
    """
    check_folder(out, resume=resume, overwrite=overwrite)
    with run_folder(out).writing({}, _OURS, overwrite=overwrite):
        # Again: another process may have had the folder until now.
        check_folder(out, resume=resume, overwrite=overwrite)
        try:
            if (out / SETTINGS).is_file():
                recorded, names = read_settings(out)
                longer = check_same_settings(recorded, settings)
                if names != list(class_names):
                    raise ConfigError(f"resume: the data's classes are others than in {out / CLASSES}")
                # It is unfinished again, if it was not so: longer, or damaged.
                (out / RESULT).unlink(missing_ok=True)
                if longer:
                    write_settings(out, settings, class_names)
            elif (out / LAST_CHECKPOINT).exists():
                raise ConfigError(f"{out / SETTINGS}: is missing: restore it, or start over with --overwrite")
            else:
                write_settings(out, settings, class_names)
            (out / LAST_CHECKPOINT).parent.mkdir(exist_ok=True)
        except OSError as error:
            raise FolderError(f"{error.filename or out}: cannot be written: {error.strerror or error}") from None
        yield


def check_same_settings(recorded: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Refuse to go on with a run by other settings than its own, but for more epochs.

    Args:
        recorded: the content of its settings.yaml.
        settings: what is asked for now.

    Returns:
        Whether the run is to be longer than it was.

    Raises:
        ConfigError: names each difference that matters.
    """
    # As it is read now: settings that are younger than the run have their defaults.
    read = parse(TrainSettings, recorded["settings"], "settings").model_dump(mode="json")
    old, new = _flat({**recorded, "settings": read}), _flat(settings)
    before, now = old.get("settings.epochs", 0), new.get("settings.epochs", 0)
    if now > before and old.get("settings.schedule") == "cosine":
        raise ConfigError(
            f"resume: settings.epochs is {now} and was {before} in the run, whose cosine schedule ends with it: "
            "a longer run has other learning rates from its first step: start it in another --out"
        )
    if now < before:
        raise ConfigError(f"epochs: is {now} and was {before} in the run: it can be raised, not lowered")
    differences = [
        f"resume: {key} is {new.get(key, 'absent')} and was {old.get(key, 'absent')} in the run"
        for key in sorted({*old, *new} - _FREE_TO_CHANGE)
        if old.get(key) != new.get(key) and key != "settings.epochs"
    ]
    if differences:
        raise ConfigError(*differences)
    return bool(now > before)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            result.update(_flat(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return result
