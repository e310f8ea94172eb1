"""Weights in files: nothing is unpickled but tensors and plain values."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from formulavision.training.runs import damaged_part
from formulavision.util.errors import CheckpointError

__all__ = ["Tensors", "load_content", "load_tensors"]

Tensors = dict[str, torch.Tensor]
"""Tensors by name."""

_SUFFIXES = (".safetensors", ".pth", ".pth.tar", ".pt", ".ckpt", ".bin")
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of names that torch.compile, FSDP and activation checkpointing add."""
_DEEPEST = 64
"""Levels of nesting that a checkpoint may have."""


def load_tensors(file: Path) -> Tensors:
    """All tensors of a file, named by the keys that lead to them, joined by dots (``model.conv1.weight``).

    Parts of names that torch's wrappers add are left out.

    Raises:
        CheckpointError: the file is not a checkpoint, is damaged, holds other objects or no tensors, or holds two
            different tensors of one name.
    """
    content = load_content(file)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file}: holds {type(content).__name__}, not weights by name")
    found: Tensors = {}
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, torch.Tensor):
            name = ".".join(part for part in ".".join(path).split(".") if part not in _WRAPPERS)
            if not _is_equal(found.setdefault(name, value), value):
                raise CheckpointError(
                    f"{file}: holds two different tensors that are both {name} without the parts of names that "
                    "torch.compile and FSDP add: save the weights of one model alone"
                )
            continue
        # An object that is there twice, or within itself, is read once.
        if not isinstance(value, Mapping | list | tuple) or id(value) in seen:
            continue
        if len(path) >= _DEEPEST:
            raise CheckpointError(f"{file}: is nested deeper than any checkpoint")
        seen.add(id(value))
        inner = value.items() if isinstance(value, Mapping) else enumerate(value)
        waiting += [((*path, str(key)), each) for key, each in reversed(list(inner))]
    if not found:
        raise CheckpointError(f"{file}: holds no weights")
    return found


def _is_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are one, or equal in type, shape and values."""
    return one is other or (one.dtype == other.dtype and torch.equal(one, other))


def load_content(file: Path) -> Any:
    """The content of a safetensors file or of a file of ``torch.save``.

    Raises:
        CheckpointError: it is not a checkpoint, it is damaged, or it holds Python objects besides tensors.
    """
    if not file.name.endswith(_SUFFIXES):
        raise CheckpointError(f"{file}: is not a checkpoint: its name must end in {', '.join(_SUFFIXES)}")
    if file.stat().st_size == 0:
        raise CheckpointError(f"{file}: is empty")
    damaged = CheckpointError(f"{file}: is not a checkpoint, or is truncated or damaged")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        if zipfile.is_zipfile(file) and (part := damaged_part(file)) is not None:
            raise CheckpointError(
                f"{file}: is damaged: the checksum of {part!r} in it is wrong (or "
                "torch.serialization.set_crc32_options was off where it was saved: save it again)"
            )
        with warnings.catch_warnings(), torch.serialization.safe_globals(_PLAIN_VALUES):
            warnings.filterwarnings("ignore", ".*(pickle protocol|TorchScript archive)")  # by whoever wrote the file
            return torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if "operand" in str(error):
            raise CheckpointError(f"{damaged}, or was not saved with torch's own pickle protocol, 2") from None
        if named is None:
            raise damaged from None
        raise CheckpointError(
            f"{file}: holds Python objects besides tensors, which are not unpickled ({named[1]}): where it was made, "
            "save the weights alone, by torch.save(model.state_dict(), FILE)"
        ) from None
    except Exception as error:  # damaged bytes lead to exceptions of many kinds
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{file}: is a TorchScript archive: save its weights alone, by torch.save(model.state_dict(), FILE)"
            ) from None
        raise damaged from None


class _NumpyType:
    """Replaces numpy.dtype while a file is read: it keeps the kind of number and the byte order, and calls nothing."""

    def __init__(self, code: str, *more: Any) -> None:
        self.code = code
        self.order: Any = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


def _number(kind: _NumpyType, content: bytes) -> Any:
    """A plain number in place of a numpy scalar, such as that of ``{"accuracy": np.float64(93.1)}``."""
    if not re.fullmatch(r"[biuf][1248]", kind.code):
        raise pickle.UnpicklingError(f"GLOBAL numpy.{kind.code}")
    return np.frombuffer(content, np.dtype(kind.code).newbyteorder(kind.order), count=1)[0].item()


_PLAIN_VALUES: list[Any] = [
    argparse.Namespace,  # options of timm's training script
    (_NumpyType, "numpy.dtype"),
    *((_number, f"numpy.{package}.multiarray.scalar") for package in ("core", "_core")),
]
"""Types that are read besides tensors; numpy's own classes are not called."""
