"""Configuration files that ship with the package, by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["shipped_configs"]


def shipped_configs() -> dict[str, Path]:
    """The files by their names, without ``.yaml``: ``quickstart``, ``fractaldb-1k``, ``paper/table-9``, ..."""
    folder = Path(str(files("formulavision_configs")))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}
