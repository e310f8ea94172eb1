"""Facts of the machine that results depend on: processor, cores, and versions of packages."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from pathlib import Path

__all__ = ["cores", "processor", "versions"]

_PACKAGES = ("formulavision", "torch", "torchvision", "timm", "lightning", "numpy", "numba")
_CPUINFO = Path("/proc/cpuinfo")


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def processor() -> str:
    """The processor's name."""
    lines = _CPUINFO.read_text(encoding="utf-8").splitlines() if _CPUINFO.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def versions(*more: str) -> dict[str, str]:
    """Versions of Python, of the packages that results depend on, and of ``more`` packages, by name."""
    found = {"Python": platform.python_version()}
    for package in (*_PACKAGES, *more):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
