"""Weights to start from: a run's folder or a file, read without unpickling anything, and matched to a model."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from formulavision.errors import CheckpointError
from formulavision.training.freezing import head_prefixes, is_head
from formulavision.training.runs import Run

__all__ = ["Checkpoint", "Loaded", "load_checkpoint"]

State = dict[str, torch.Tensor]

_CONTAINERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "model.", "backbone.")
_FITS = 0.9
"""Share of the model's tensors that a checkpoint must have, and share of its own that the model must take."""


@dataclass(frozen=True)
class Loaded:
    """What became of a checkpoint's tensors.

    Attributes:
        loaded: names of those copied as they are.
        reshaped: names of those resampled to the model's shape (position embeddings for another image size).
        skipped: names in the file that the model did not take: its head, and what it does not have.
        missing: names in the model that the file does not have, besides the head.
    """

    loaded: list[str]
    reshaped: list[str]
    skipped: list[str]
    missing: list[str]

    def describe(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for word in ("reshaped", "skipped", "missing"):
            names = getattr(self, word)
            if names:
                shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
                parts.append(f"{len(names)} {word} ({shown})")
        return ", ".join(parts)


@dataclass(frozen=True)
class Checkpoint:
    """Weights read from a run or a file.

    Attributes:
        path: where they were read from.
        state: tensors by name, without the prefixes of wrappers.
        run: the run, where the path is a run's folder.
        sha256: digest of the file.
    """

    path: Path
    state: State
    run: Run | None
    sha256: str

    @property
    def model(self) -> str | None:
        """The timm name of the model, where a run tells it."""
        return self.run.settings["settings"]["model"] if self.run else None

    def load_into(self, model: torch.nn.Module, *, head: bool = False) -> Loaded:
        """Copy the weights into a timm model.

        Args:
            head: copy the classification head too; otherwise the model keeps its own.

        Raises:
            CheckpointError: the weights are those of another architecture.
        """
        own = model.state_dict()
        prefixes = () if head else head_prefixes(model)
        wanted = {name: tensor for name, tensor in own.items() if not is_head(name, prefixes)}
        state, reshaped = self._resampled(model, wanted)
        for name, tensor in wanted.items():
            if name in state and state[name].shape != tensor.shape:
                raise CheckpointError(
                    f"{self.path}: {name} is {list(state[name].shape)} and must be {list(tensor.shape)}: "
                    f"these are the weights of another architecture than {type(model).__name__} as asked for"
                )
        taken = {name: state[name] for name in wanted if name in state}
        skipped = [name for name in state if name not in taken]
        # Counters of batches, which some formats leave out, say nothing about how well it fits.
        missing = [n for n in wanted if n not in taken and not n.endswith("num_batches_tracked")]
        foreign = [name for name in skipped if not is_head(name, head_prefixes(model))]
        if len(taken) < _FITS * (len(taken) + len(missing)) or len(taken) < _FITS * (len(taken) + len(foreign)):
            raise CheckpointError(
                f"{self.path}: does not fit the model: has {len(taken)} of its {len(taken) + len(missing)} tensors "
                f"and {len(foreign)} others (such as {(foreign or missing)[0]}): give the name of its model"
            )
        model.load_state_dict({**own, **taken})
        return Loaded([n for n in taken if n not in reshaped], reshaped, skipped, missing)

    def _resampled(self, model: torch.nn.Module, wanted: State) -> tuple[State, list[str]]:
        """The state with position embeddings resampled by timm's own filter, where one is needed and there is one."""
        differing = [n for n, t in wanted.items() if n in self.state and self.state[n].shape != t.shape]
        resample = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        if not resample or not differing or any("pos_embed" not in name for name in differing):
            return self.state, []
        return dict(resample(dict(self.state), model)), differing


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read weights from a run's folder, a ``.safetensors`` file, or a ``.pth``, ``.pt`` or ``.ckpt`` file.

    Nothing is unpickled but tensors and plain values (``torch.load(weights_only=True)``).

    Raises:
        CheckpointError: there is nothing, it is not a checkpoint, it is truncated, or its run is unfinished.
    """
    path = Path(path)
    run = None
    file = path
    if path.is_dir():
        try:
            run = Run.load(path)
        except ValueError as error:
            raise CheckpointError(str(error)) from None
        file = path / "model.safetensors"
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file" if not path.is_dir() else f"{path}: holds no model.safetensors")
    state = _clean(_read(file), file)
    with file.open("rb") as stream:
        return Checkpoint(path, state, run, hashlib.file_digest(stream, "sha256").hexdigest())


def _read(file: Path) -> Any:
    suffixes = (".safetensors", ".pth", ".pt", ".ckpt")
    if file.suffix not in suffixes:
        raise CheckpointError(f"{file}: is not a checkpoint: its name must end in {', '.join(suffixes)}")
    if file.stat().st_size == 0:
        raise CheckpointError(f"{file}: is empty")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # of files that others wrote
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise CheckpointError(
                f"{file}: holds Python objects besides tensors, which are not unpickled: save its state_dict() instead"
            ) from None
        raise CheckpointError(f"{file}: is not a checkpoint, or is truncated or damaged") from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError, json.JSONDecodeError):
        raise CheckpointError(f"{file}: is not a checkpoint, or is truncated or damaged") from None


def _clean(content: Any, file: Path) -> State:
    for key in _CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: holds {type(content).__name__}, not weights by name")
    state = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if not state:
        raise CheckpointError(f"{file}: holds no weights")
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            # Where only some names begin so, it is a part of the model and no wrapper around it.
            if all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
                stripped = True
    return state
