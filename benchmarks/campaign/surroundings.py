"""Trials of the machine around: full disks, read-only folders, no home, no cache, few open files, damaged caches."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from campaign.stores import FORMATS, generate, settings, verify, whole
from campaign.training import complete, pretrain, weights
from campaign.trial import Ended, Trial, change_bytes, cli, contents, difference, kept, run, tail, wrong_end

MAY_MOUNT = os.geteuid() == 0 and shutil.which("mount") is not None
NOWHERE = "/proc/nowhere"
"""A place that nobody can write to, root included."""


@contextlib.contextmanager
def small_disk(place: Path, size: int) -> Iterator[None]:
    """A file system of ``size`` bytes in memory."""
    place.mkdir()
    mount("-t", "tmpfs", "-o", f"size={size}", "faults", place)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


# Full disks ----------------------------------------------------------------------------------------------------------


def full_disk(random: random.Random, seed: int, folder: Path) -> str | None:
    """With more room, the same command goes on to the same bytes."""
    kind, format = ("generate", "generate", "pretrain")[seed % 3], FORMATS[seed // 3 % 3]
    disk = folder / "disk"
    out = disk / "out"
    first = generate(out, format) if kind == "generate" else pretrain(out)
    again = first if kind == "generate" else pretrain(out, "--resume")
    if MAY_MOUNT and random.random() < 0.6:
        size = 4096 * random.randint(1, 1500 if kind == "generate" else 600)
        with small_disk(disk, size):
            ended = run(first, folder / "first")
            mount("-o", "remount,size=200M", disk)
            flaw = wrong_end(ended, 0, 2) or went_on(run(again, folder / "again"), out, kind, format)
        return flaw and f"{kind} {format}, a disk of {size} bytes: {flaw}"
    disk.mkdir()
    size = random.randrange(100_000, 3_000_000)
    ended = run(first, folder / "first", limits={resource.RLIMIT_FSIZE: size})
    flaw = wrong_end(ended, 0, 2) or went_on(run(again, folder / "again"), out, kind, format)
    return flaw and f"{kind} {format}, files of at most {size} bytes: {flaw}"


def went_on(ended: Ended, out: Path, kind: str, format: str) -> str | None:
    if flaw := wrong_end(ended, 0):
        return f"with more room: {flaw}"
    if kind == "generate":
        flaw = difference(contents(out), contents(whole(format)))
    else:
        flaw = None if weights(out) == weights(complete("pretrain")) else "its weights are others"
    return flaw and f"with more room: {flaw}"


# Read-only folders, and what is missing ------------------------------------------------------------------------------


def read_only(random: random.Random, seed: int, folder: Path) -> str | None:
    """What only reads works; what must write is refused in a line."""
    format = FORMATS[seed % 3]
    if MAY_MOUNT:
        place = folder / "disk"
        with small_disk(place, 100_000_000):
            shutil.copytree(whole(format, tiny=True), place / "store")
            shutil.copytree(complete("finetune"), place / "run")
            mount("-o", "remount,ro", place)
            return _read_only(random, format, place, folder)
    return _write_only_refused(Path(NOWHERE), format, folder)


def _read_only(random: random.Random, format: str, place: Path, folder: Path) -> str | None:
    reading: dict[str, Callable[[], None]] = {
        "verify": verify(place / "store", tiny=True),
        "pretrain": pretrain(folder / "run", "--set", "epochs=1", store=place / "store"),
        "evaluate": cli(
            "evaluate", "--checkpoint", place / "run", "--downstream", "digits", "--out", folder / "result"
        ),
        "export": cli("export", place / "run", "--out", folder / "export"),
        "generate": generate(place / "store", format, tiny=True),  # it is complete
    }
    name = random.choice(list(reading))
    if flaw := wrong_end(run(reading[name], folder / "reading"), 0):
        return f"{name} of a read-only {format} store or run: {flaw}"
    return _write_only_refused(place, format, folder)


def _write_only_refused(place: Path, format: str, folder: Path) -> str | None:
    writing: dict[str, Callable[[], None]] = {
        "generate": generate(place / "new", format),
        "overwrite": generate(place / "store", format, "--overwrite"),
        "pretrain": pretrain(place / "new"),
        "evaluate": cli(
            "evaluate", "--checkpoint", complete("finetune"), "--downstream", "digits", "--out", place / "new"
        ),
        "export": cli("export", complete("finetune"), "--out", place / "new"),
        "preview": cli("preview", "--plugin", "perlin", "--size", "32", "--out", place / "sheet.png"),
        "categories": cli("categories", "--plugin", "perlin", "--categories", "3", "--out", place / "new"),
    }
    for name, call in writing.items():
        if flaw := wrong_end(run(call, folder / "writing"), 2):
            return f"{name} into a read-only folder: {flaw}"
    return None


def missing(random: random.Random, seed: int, folder: Path) -> str | None:
    """No home, no cache that can be written, few open files: the same bytes, or one line."""
    kind = ("few files", "no home", "few files", "no cache", "few files", "no kernel cache")[seed % 6]
    format, out = FORMATS[seed // 6 % 3], folder / "out"
    variables: dict[str, str | None]
    if kind == "few files":
        most = random.randint(3, 60)
        kind = f"{most} open files"
        ended = run(generate(out, format), out, limits={resource.RLIMIT_NOFILE: most})
    elif kind == "no home":
        variables = {"HOME": None, "XDG_CACHE_HOME": None, "FORMULAVISION_CACHE": None}
        ended = run(cold(format, out), out, environment=variables)
    else:
        names = ["HOME", "XDG_CACHE_HOME", "FORMULAVISION_CACHE"] + ["NUMBA_CACHE_DIR"] * (kind == "no kernel cache")
        ended = run(cold(format, out), out, timeout=400, environment=dict.fromkeys(names, NOWHERE))
    flaw = wrong_end(ended, 0, *([2] if "files" in kind else []))
    if flaw is None and ended.status == 0:
        flaw = difference(contents(out), contents(whole(format)))
    return flaw and f"{kind}: {flaw}"


def cold(format: str, out: Path) -> list[str]:
    """generate, in a new interpreter."""
    arguments = [*settings(format), "--workers", "1", "--out", str(out)]
    return [sys.executable, "-m", "formulavision", "generate", *arguments]


def kernel_cache(random: random.Random, seed: int, folder: Path) -> str | None:
    """A file of the cache of compiled kernels is damaged: the images are the same, and the cache is repaired."""
    format, out = FORMATS[seed % 3], folder / "out"

    def in_cache(cache: Path) -> dict[str, str | None]:
        return {"NUMBA_CACHE_DIR": str(cache)}

    def make(target: Path) -> None:
        ended = run(cold("parquet", target / "out"), target / "x", timeout=500, environment=in_cache(target / "cache"))
        assert ended.status == 0, tail(ended)

    shutil.copytree(kept("kernels", make) / "cache", folder / "cache")
    files = sorted((folder / "cache").rglob("*.nbc"))
    damaged = random.sample(files, random.choice([1, 1, len(files)]))
    for path in damaged:
        path.write_bytes(change_bytes(random, path.read_bytes()))
    for time in ("first", "second"):
        ended = run(cold(format, out), out, timeout=400, environment=in_cache(folder / "cache"))
        if flaw := wrong_end(ended, 0) or difference(contents(out), contents(whole(format))):
            return f"{', '.join(path.name for path in damaged)}, {time} start after that: {flaw}"
        shutil.rmtree(out)
    return None


TRIALS = [
    Trial("full-disk", "generate and pretrain on a full disk, then with more room", 60, full_disk),
    Trial("read-only", "read-only folders: reading works, writing is refused", 20, read_only),
    Trial("missing", "no home, no writable cache, few open files", 36, missing),
    Trial("kernel-cache", "a damaged file in the cache of compiled kernels", 30, kernel_cache),
]
