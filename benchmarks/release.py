"""What a release needs, tried: sources and wheel are built and checked, installed, and run; a table in Markdown.

    pip install build twine uv
    python benchmarks/release.py --python 3.11 --python 3.12 --python 3.13 --out docs/results/release/README.md

For each ``--python`` (a version or a path, as uv finds it) the wheel and its dependencies are installed from PyPI into
a new environment, where ``formulavision doctor`` and ``formulavision compare quickstart`` run. For the other versions
that ``pyproject.toml`` names, and for each extra, wheels of all dependencies are resolved and not installed. Last, the
lowest dependencies that ``pyproject.toml`` allows are installed and run. Needs the network and about 10 GB of disk.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from formulavision.util.machine import cores, processor
from formulavision.util.version import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SHOWN = ("torch", "numba", "numpy", "timm", "lightning", "pyarrow")
SHORT = ("--set", "seeds=[0]", "--set", "pretrain.epochs=1", "--set", "finetune.epochs=1")
Row = tuple[str, str, str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", default=[], help="a Python to install and run on; several times")
    parser.add_argument("--short", action="store_true", help="one seed and one epoch of the quickstart")
    parser.add_argument("--constraints", type=Path, help="a file of upper bounds, as pip's --constraint")
    parser.add_argument("--out", type=Path, help="the table's file; without it, the table is printed")
    chosen = parser.parse_args()
    if chosen.constraints:
        os.environ["UV_CONSTRAINT"] = str(chosen.constraints.resolve())
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for row in steps(Path(folder), chosen.python, chosen.short):
            print(*row, sep=" | ", flush=True)
            rows.append(row)
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    command = " ".join(["python", "benchmarks/release.py", *sys.argv[1:]])
    page = PAGE.format(version=__version__, command=command, table=table, machine=f"{cores()} cores of {processor()}")
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(page, encoding="utf-8")
    else:
        print(page)
    if any(row[3].startswith("fails") for row in rows):
        raise SystemExit(1)


PAGE = """# Release checks

Version {version}, {machine}.

    {command}

"run" means that it was installed and run here; "resolved" means that PyPI has a wheel of every dependency for this
version of Python on Linux (x86-64), and that nothing was installed.

| step | Python | how | result |
| --- | --- | --- | --- |
{table}
"""


def steps(folder: Path, pythons: list[str], short: bool) -> Iterator[Row]:
    wheel = build(folder)
    yield "sdist; wheel from the sdist", platform.python_version(), "run", "`twine check --strict` passes"
    for python in pythons:
        version, result = tried(partial(installed_and_run, folder, python, wheel, short=short))
        yield f"install, `doctor`, quickstart{' (one epoch)' if short else ''}", version or python, "run", result
    named = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", text)]
    for extra in ("", "explore", "s3", "ray", "loggers"):
        for version in named:
            step = f"wheels of all dependencies{f' with `[{extra}]`' if extra else ''}"
            yield step, version, "resolved", tried(partial(resolved, folder, version, extra))[1]
    python = pythons[0] if pythons else sys.executable
    # The dependencies of the wheel are direct ones of pyproject.toml only.
    direct = ("--resolution=lowest-direct", "--requirement", str(ROOT / "pyproject.toml"))
    version, result = tried(partial(installed_and_run, folder, python, wheel, *direct, short=True))
    yield "lowest direct dependencies, `doctor`, quickstart (one epoch)", version, "run", result


def tried(step: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    """The Python and the result of a step, or the last line of what went wrong."""
    try:
        return step()
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout or str(error)).strip().splitlines()
        return "", f"fails: {lines[-1]}"


def build(folder: Path) -> Path:
    """The path of the wheel, built from the sdist of the tracked files."""
    tracked = run("git", "-C", str(ROOT), "ls-files", "-z").split("\0")
    for name in filter(None, tracked):
        (folder / "sources" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "sources" / name)
    run(sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(folder / "sources"))
    files = sorted((folder / "dist").iterdir())
    run(sys.executable, "-m", "twine", "check", "--strict", *map(str, files))
    return next(file for file in files if file.suffix == ".whl")


def installed_and_run(folder: Path, python: str, wheel: Path, *options: str, short: bool = False) -> tuple[str, str]:
    environment = folder / f"environment-{len(list(folder.glob('environment-*')))}"
    run("uv", "venv", "--python", python, str(environment))
    run("uv", "pip", "install", "--python", str(environment), *options, str(wheel))
    program, outside = environment / "bin" / "formulavision", folder / f"{environment.name}-runs"
    outside.mkdir()
    facts = run(str(program), "doctor", cwd=outside)
    begin = time.monotonic()
    printed = run(str(program), "compare", "quickstart", *(SHORT if short else []), cwd=outside)
    seconds = time.monotonic() - begin
    rows = dict(line.split(maxsplit=1) for line in facts.splitlines() if len(line.split()) > 1)
    versions = ", ".join(f"{name} {rows[name].strip()}" for name in SHOWN if name in rows)
    said = "" if short else "; " + first_sentence(printed)
    shutil.rmtree(environment)
    return rows["Python"].split(",")[0], f"no problem found; {seconds:.0f} s{said}; {versions}"


def resolved(folder: Path, version: str, extra: str) -> tuple[str, str]:
    out = folder / "resolved.txt"
    options = ["--extra", extra] if extra else []
    command = ["uv", "pip", "compile", "--quiet", "--only-binary", ":all:", "--no-annotate", "--no-header"]
    system = ["--python-version", version, "--python-platform", "x86_64-manylinux_2_28"]
    run(*command, *system, *options, "--output-file", str(out), str(ROOT / "pyproject.toml"))
    packages = dict(line.split("==") for line in out.read_text().splitlines() if "==" in line)
    out.unlink()
    shown = ", ".join(f"{name} {packages[name]}" for name in SHOWN if name in packages)
    return version, f"{len(packages)} packages; {shown}"


def first_sentence(printed: str) -> str:
    """The comparison's first result in words, on one line."""
    found = re.search(r"[^.\n]*top-1[^\n]*(?:\n[^\n]+)*?\.", printed)
    return " ".join(found[0].split()) if found else "finished"


def run(*command: str, cwd: Path | None = None) -> str:
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
