"""The files that a run goes on from, and how damage to them is found.

settings.yaml ends with digests of itself and of classes.json, run.json holds digests of itself and of the weights, and
checkpoints are zip archives that hold a CRC-32 of every part. That finds damage, not malice: nothing is unpickled but
tensors and plain values.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from formulavision.util.config import dump_yaml, load_yaml
from formulavision.util.errors import ConfigError
from formulavision.util.files import write_text
from formulavision.util.folders import MARKER

__all__ = [
    "CLASSES",
    "LAST_CHECKPOINT",
    "PREVIOUS_CHECKPOINT",
    "RESULT",
    "SETTINGS",
    "file_digest",
    "find_checkpoint",
    "read_result",
    "read_settings",
    "write_json",
    "write_result",
    "write_settings",
]

SETTINGS = "settings.yaml"
CLASSES = "classes.json"
RESULT = "run.json"
LAST_CHECKPOINT = Path("checkpoints/last.ckpt")
PREVIOUS_CHECKPOINT = Path("checkpoints/previous.ckpt")

_SEAL = re.compile(r"# sha256 of classes\.json: ([0-9a-f]{64})\n# sha256 of all above: ([0-9a-f]{64})\n\Z")
_PARTS = {"state_dict", "optimizer_states", "lr_schedulers", "callbacks", "loops", "global_step", "steps_per_epoch"}
"""What a checkpoint of ours has at least."""


# What a run does -----------------------------------------------------------------------------------------------------


def write_settings(folder: Path, settings: Mapping[str, Any], class_names: Sequence[str]) -> None:
    """Write classes.json and, after it, settings.yaml, which says that there is a run."""
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
        if _is_of_this_version(folder):
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


# What came out of it -------------------------------------------------------------------------------------------------


def write_result(folder: Path, content: Mapping[str, Any]) -> None:
    """Write run.json, which makes the run complete."""
    whole = {**content, "weights_sha256": file_digest(folder / "model.safetensors")}
    write_json({**whole, "sha256": _digest(json.dumps(whole).encode())}, folder / RESULT)


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
    if digest != _digest(json.dumps(content).encode()) and (digest is not None or _is_of_this_version(folder)):
        raise _damaged(path, _WRITTEN_AGAIN)
    return content


# What it goes on from ------------------------------------------------------------------------------------------------


def find_checkpoint(folder: Path, tell: Callable[[str], None]) -> Path | None:
    """The checkpoint that a run goes on from: the last one or, where that is damaged, the one before it, which is told.

    None where none has been written yet.

    Raises:
        ConfigError: none of those that are there can be read.
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
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return False
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return isinstance(content, dict) and content.keys() >= _PARTS
    except PermissionError:
        raise
    except Exception:  # whatever damage to names, sizes and offsets leads to
        return False


# ----------------------------------------------------------------------------------------------------------------------

_OVERWRITE = "restore it from a copy, or start over with --overwrite"
_WRITTEN_AGAIN = "--resume writes it again from the last checkpoint"


def _damaged(path: Path, advice: str = _OVERWRITE) -> ConfigError:
    return ConfigError(f"{path}: is damaged: {advice}")


def write_json(content: Any, path: Path) -> None:
    """Write JSON so that the file is there whole or not at all."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _is_of_this_version(folder: Path) -> bool:
    """Version 0.1 wrote neither digests nor a marker."""
    return (folder / MARKER).is_file()
