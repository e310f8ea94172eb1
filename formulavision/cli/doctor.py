"""``doctor``: what an installation has, in one table for bug reports."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import typer

_MORE_PACKAGES = (
    "triton",
    "segmentation-models-pytorch",
    "torchmetrics",
    "scipy",
    "pyarrow",
    "gradio",
    "s3fs",
    "ray",
    "noise",
)
"""Besides those that results depend on; the last ones come with extras."""
_VARIABLES = (
    "OMP_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMBA_CACHE_DIR",
    "CUDA_VISIBLE_DEVICES",
    "TRITON_INTERPRET",
    "FORMULAVISION_STORE_CACHE_GB",
)


def add_to(app: typer.Typer) -> None:
    app.command(rich_help_panel="Look")(doctor)


def doctor() -> None:
    """Show versions, devices, threads, caches, free space and plugins, and what is wrong with them: for bug reports.

    Exit status: 0 if nothing is wrong, else 1.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from formulavision.generators.registry import plugins
    from formulavision.util.console import STDERR, STDOUT
    from formulavision.util.text import counted

    table = Table(box=box.SIMPLE, show_header=False)
    with STDERR.status("looking at versions, devices, folders and plugins"):  # torch takes seconds to load
        groups = [list(group) for group in (_software(), _machine(), _devices(), _folders())]
        found = plugins()
    for group in groups:
        for name, fact in group:
            table.add_row(name, escape(fact))
        table.add_section()
    for name, entry in sorted(found.generators.items()):
        table.add_row(f"plugin {name}", escape(f"version {entry.generator.version}, from {entry.origin}"))
    table.add_section()
    problems = [*_unwritable(), *(f"plugin {name} is not loaded: {line}" for name, line in found.problems.items())]
    for problem in problems:
        table.add_row("problem", escape(problem))
    STDOUT.print(table)
    STDOUT.print(counted(len(problems), "problem") if problems else "no problem found")
    raise typer.Exit(bool(problems))


def _software() -> Iterator[tuple[str, str]]:
    from formulavision.util.machine import versions

    found = versions(*_MORE_PACKAGES)
    yield "Python", f"{found.pop('Python')}, {sys.executable}"
    yield from found.items()


def _machine() -> Iterator[tuple[str, str]]:
    from formulavision.util.machine import cores, processor

    yield "system", platform.platform()
    yield "processor", f"{processor()}, {os.cpu_count()} cores, of which {cores()} are for this process"


def _devices() -> Iterator[tuple[str, str]]:
    import torch

    from formulavision.training.fit import resolve_device, resolve_precision
    from formulavision.util.text import byte_size

    yield "threads of torch", str(torch.get_num_threads())
    for name in _VARIABLES:
        if name in os.environ:
            yield name, os.environ[name]
    yield "CUDA of torch", torch.version.cuda or "none: torch was built for CPUs"
    if not torch.cuda.device_count():
        yield "GPUs", "none"
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        yield f"cuda:{number}", f"{facts.name}, {byte_size(facts.total_memory)}, capability {facts.major}.{facts.minor}"
    device = resolve_device("auto")
    yield "training", f"on {device.type} in {resolve_precision('auto', device)} by default"


def _folders() -> Iterator[tuple[str, str]]:
    from formulavision.util.text import byte_size

    for name, folder in _named_folders().items():
        there = next(path for path in (folder, *folder.parents) if path.is_dir())
        used = f"{byte_size(_size(folder))} used, " if name == "cache" else ""
        yield name, f"{folder}, {used}{byte_size(shutil.disk_usage(there).free)} free"


def _size(folder: Path) -> int:
    """Bytes of the files in a folder; 0 if there is no such folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _named_folders() -> dict[str, Path]:
    from formulavision.util.files import cache_folder

    return {
        "cache": cache_folder().absolute(),
        "this folder": Path.cwd(),
        "temporary files": Path(tempfile.gettempdir()),
    }


def _unwritable() -> Iterator[str]:
    """Folders in which no file can be written."""
    for name, folder in _named_folders().items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            yield f"{name}: nothing can be written to {folder}: {error.strerror or error}"
