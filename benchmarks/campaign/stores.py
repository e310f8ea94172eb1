"""Trials of stores: killed, crashed at every file operation, mutated, written twice at once."""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaign.trial import Ended, Process, Trial, cli, contents, damage, difference, kept, run, tail, wrong_end

MARKER = ".formulavision"
FORMATS = ("parquet", "webdataset", "imagefolder")
FOREIGN = ("thesis.tex", "data/mine.txt", "00000/mine.txt", ".hidden/mine")


def settings(format: str, *, tiny: bool = False, other: bool = False) -> list[str]:
    """Options of a recipe that a core draws in about a second, in several pieces; ``tiny``: in no time."""
    categories, instances = (3, 4) if tiny else (6, 60) if format == "imagefolder" else (6, 2100)
    recipe = ["--plugin", "ifs", "--set", "generator.dots=1000", "--size", "32", "--seed", "2" if other else "1"]
    return [*recipe, "--categories", str(categories), "--instances", str(instances), "--format", format]


def small_shards(call: Callable[[], None]) -> Callable[[], None]:
    """A command whose stores have several pieces of few images."""

    def with_small_shards() -> None:
        from formulavision.storage.formats import format as format_module

        assert format_module.SHARD_IMAGES
        format_module.SHARD_IMAGES = 4
        call()

    return with_small_shards


def generate(out: Path, format: str, *options: str, tiny: bool = False, other: bool = False) -> Callable[[], None]:
    call = cli("generate", *settings(format, tiny=tiny, other=other), "--workers", "1", *options, "--out", out)
    return small_shards(call) if tiny else call


def verify(store: Path, *, tiny: bool = False) -> Callable[[], None]:
    call = cli("verify", store)
    return small_shards(call) if tiny else call


def whole(format: str, *, tiny: bool = False, other: bool = False) -> Path:
    """A complete store that nothing interrupted, and that is verified."""

    def make(folder: Path) -> None:
        store = folder / "store"
        for call in (generate(store, format, tiny=tiny, other=other), verify(store, tiny=tiny)):
            ended = run(call, folder / "made", timeout=300)
            assert wrong_end(ended, 0) is None, wrong_end(ended, 0)

    return kept(f"store-{format}-{tiny}-{other}", make) / "store"


def place_foreign(out: Path, random: random.Random) -> dict[str, bytes]:
    """Put files of somebody else into a folder."""
    placed: dict[str, bytes] = {}
    for name in random.sample(FOREIGN, random.randint(0, 2)):
        path = out / name
        if path.parent == out or path.parent.is_dir() or name.startswith("."):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(placed.setdefault(name, random.randbytes(20)))
    return placed


def lost_foreign(out: Path, placed: dict[str, bytes]) -> str | None:
    lost = [name for name, content in placed.items() if _read(out / name) != content]
    return f"somebody else's file is gone or changed: {', '.join(lost)}" if lost else None


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def continued(
    out: Path, again: Callable[..., Callable[[], None]], expected: dict[str, str], placed: dict[str, bytes],
    before: dict[str, str] | None, overwrite: bool,
) -> str | None:  # fmt: skip
    """Whether a folder whose writer was killed goes on to the expected contents.

    Args:
        again: makes the command from more options.
        before: contents of another store that the killed command was to replace. A plain start may refuse that one,
            as long as it is untouched.
        overwrite: go on by ``--overwrite`` instead of a plain start.
    """
    ended = run(again("--overwrite") if overwrite else again(), out)
    if not overwrite and before is not None and ended.status == 2:
        if flaw := wrong_end(ended, 2):
            return f"plain start: {flaw}"
        # What was being written under another name is of no worth to anybody.
        left, old = ({k: v for k, v in c.items() if ".partial" not in k} for c in (contents(out, *placed), before))
        if flaw := difference(left, old):
            return f"the plain start is refused and the replaced store is damaged: {flaw}\n{tail(ended)}"
        overwrite = True
        ended = run(again("--overwrite"), out)
    if flaw := wrong_end(ended, 0):
        return f"{'--overwrite' if overwrite else 'plain start'}: {flaw}"
    if flaw := difference(contents(out, *placed), expected):
        return f"after {'--overwrite' if overwrite else 'a plain start'}: {flaw}"
    return lost_foreign(out, placed)


# Killed at random moments --------------------------------------------------------------------------------------------


def kill_generate(random: random.Random, seed: int, folder: Path) -> str | None:
    format, workers = FORMATS[seed % 3], 1 + seed // 3 % 2
    out = folder / "out"
    replaced = random.choice([None, None, None, "same", "other"])
    placed: dict[str, bytes] = {}
    before = None
    if replaced:
        shutil.copytree(whole(format, other=replaced == "other"), out)
        before = contents(out)
        placed = place_foreign(out, random)
    expected = contents(whole(format))
    arguments = ["generate", *settings(format), "--workers", str(workers), "--out", str(out)]
    kinds = []
    for attempt in range(random.choice([1, 1, 2, 3])):
        # What was to be replaced may be untouched still.
        replace = replaced and (attempt == 0 or contents(out, *placed) == before or random.random() < 0.5)
        options = ["--overwrite"] if replace else []
        # A new interpreter now and then: its start can be interrupted as well.
        cold = random.random() < 0.1
        command = [sys.executable, "-m", "formulavision", *arguments, *options]
        process = Process(command if cold else cli(*arguments, *options), folder / "killed.log")
        wait_until(random, process, out, most_files=len(expected), seconds=2.0 * workers + 3.0 * cold, cold=cold)
        kinds.append(kill(random, process))
        ended = process.wait()
        if flaw := wrong_interruption(ended, kinds[-1]):
            return f"{format}, {workers} workers, {kinds[-1].name}{', cold' if cold else ''}: {flaw}"
        if not placed and (out / MARKER).is_file():  # before that, the folder is nobody's
            placed = place_foreign(out, random)

    # Workers of a process that was killed may be at work still.
    flaw = continued(out, functools.partial(cli, *arguments), expected, placed, before, overwrite=random.random() < 0.3)
    process.end_group()
    return flaw and f"{format}, {workers} workers, {[k.name for k in kinds]}, replaced: {replaced}: {flaw}"


def kill(random: random.Random, process: Process) -> signal.Signals:
    """Kill a command in one of the ways in which it happens."""
    kind = random.choice(
        [signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGTERM, signal.SIGINT]
    )
    # Ctrl-C goes to all processes of a terminal, a container's end to the first or to all.
    process.kill(kind, group=kind == signal.SIGINT or random.random() < 0.3)
    return kind


def wait_until(
    random: random.Random, process: Process, out: Path, *, most_files: int, seconds: float, cold: bool = False
) -> None:
    """Wait for a random time, or for a random number of files in ``out``, or for the process's end."""
    start = time.monotonic()
    end = start + random.uniform(0.3 if cold else 0.0, seconds)
    files = random.randint(1, most_files + 3) if random.random() < 0.5 else None
    while process.running() and time.monotonic() < (start + 20 if files else end):
        if files and sum(len(names) for _, _, names in os.walk(out)) >= files:
            break
        time.sleep(0.001)


def wrong_interruption(ended: Ended, kind: signal.Signals) -> str | None:
    # It may have come before the command had set its handlers, or after its end.
    return None if kind == signal.SIGKILL else wrong_end(ended, 0, 130, 128 + kind, -kind)


# Killed before every file operation ----------------------------------------------------------------------------------

CRASHED = 99
WRITING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}


def crash_at(operation: int, call: Callable[[], object], folder: Path) -> Callable[[], int]:
    """``call``, killed before its ``operation``-th change of files in ``folder``; 0 counts them and prints the number.

    Python announces every operation before it is done (audit events).
    """

    def crashing() -> int:
        count = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if event == "open":
                path, _, flags = arguments
                if not (flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or not _inside(path, folder):
                    return
            elif event not in WRITING or not _inside(arguments[0], folder):
                return
            count += 1
            if count == operation:
                os._exit(CRASHED)

        sys.addaudithook(hook)
        try:
            call()
        finally:
            if not operation:
                print(f"operations: {count}")
        return 0

    return crashing


def _inside(path: Any, folder: Path) -> bool:
    # Relative names are those of open folders, as shutil.rmtree removes them.
    text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
    return text.startswith(str(folder)) or (text != "" and not text.startswith("/"))


STATES = ("new", "resumed", "overwrite complete", "overwrite unfinished")


def state_of(format: str, state: str, out: Path) -> tuple[str, ...]:
    """Bring ``out`` into a state; returns the options of the command that is then crashed."""
    if state == "new":
        return ()
    if state == "overwrite complete":
        shutil.copytree(whole(format, tiny=True, other=True), out)
        return ("--overwrite",)
    other = state == "overwrite unfinished"

    def crash(folder: Path) -> None:
        inner = folder / "out"
        ended = run(crash_at(20, generate(inner, format, tiny=True, other=other), inner), folder / "crash")
        assert ended.status == CRASHED, tail(ended)

    shutil.copytree(kept(f"unfinished-{format}-{other}", crash) / "out", out)
    return ("--overwrite",) if other else ()


def operations(format: str, state: str) -> int:
    """Number of file operations of a command in a state."""

    def count(folder: Path) -> None:
        out = folder / "out"
        options = state_of(format, state, out)
        ended = run(crash_at(0, generate(out, format, *options, tiny=True), out), out)
        (folder / "count").write_text(ended.output.rpartition("operations: ")[2])

    return int((kept(f"operations-{format}-{state.replace(' ', '-')}", count) / "count").read_text())


def crash_trials() -> int:
    """Number of trials that reach every operation of every format and state."""
    return len(FORMATS) * len(STATES) * max(operations(format, state) for format in FORMATS for state in STATES)


def crash_generate(random: random.Random, seed: int, folder: Path) -> str | None:
    # Only the operations of this format and state are counted. Neighbouring seeds kill at operations far from each
    # other, so that few seeds try early and late ones.
    pairs = [(format, state) for state in STATES for format in FORMATS]
    format, state = pairs[seed % len(pairs)]
    operation = 1 + seed // len(pairs) * 1009 % operations(format, state)
    out, copy = folder / "out", folder / "copy"
    options = state_of(format, state, out)
    before = contents(out) if options else None
    placed = place_foreign(out, random) if (out / MARKER).is_file() else {}
    ended = run(crash_at(operation, generate(out, format, *options, tiny=True), out), out)
    where = f"{format}, {state}, before operation {operation}"
    if ended.status not in (0, CRASHED):
        return f"{where}: {wrong_end(ended, CRASHED)}"
    expected = contents(whole(format, tiny=True))
    for overwrite in (False, True):
        shutil.rmtree(copy, ignore_errors=True)
        if out.exists():
            shutil.copytree(out, copy)
        again = functools.partial(generate, copy, format, tiny=True)
        if flaw := continued(copy, again, expected, placed, before, overwrite):
            return f"{where}: {flaw}"
    return None


# Mutated -------------------------------------------------------------------------------------------------------------


def mutate_store(random: random.Random, seed: int, folder: Path) -> str | None:
    format = FORMATS[seed % 3]
    out = folder / "store"
    shutil.copytree(whole(format, tiny=True), out)
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    # One of the small files that describe the store, as often as one of the many that hold images.
    small = [path for path in files if path.parent == out and path.suffix in {".json", ".yaml"}]
    path = random.choice(small if random.random() < 0.4 else files)
    what = damage(random, out, path)
    verified = run(verify(out, tiny=True), out)
    if flaw := wrong_end(verified, 0, 1, 2):
        return f"{format}, {what}: verify: {flaw}"
    read = run(lambda: read_all(out), out)
    flaw = wrong_end(read, 0, 2)
    right = pixels(whole(format, tiny=True))
    if flaw is None and verified.status == 0 and read.output != right:
        flaw = f"verify is content, and the store reads otherwise: {tail(read)}"
    return flaw and f"{format}, {what}: {flaw}"


def read_all(store: Path) -> int:
    """Print a digest of all images, labels, names and recipes, by public functions; status 2 for one of our errors."""
    import hashlib

    from formulavision import FormulaVisionError, Recipe, StoredDataset

    try:
        dataset = StoredDataset(store)
        recipes = dataset.recipe.id, Recipe.load(store / "recipe.yaml").id
        total = hashlib.sha256(str((len(dataset), dataset.classes, recipes)).encode())
        for image, label in (dataset[i] for i in range(len(dataset))):
            total.update(str((label, image.shape)).encode() + image.numpy().tobytes())
    except FormulaVisionError as error:
        print(f"error: {' '.join(str(error).split())}")
        return 2
    print(total.hexdigest())
    return 0


def pixels(store: Path) -> str:
    def make(folder: Path) -> None:
        (folder / "digest").write_text(run(lambda: read_all(store), folder / "x").output)

    return (kept(f"pixels-{store.parent.name}", make) / "digest").read_text()


# Written by two at once ----------------------------------------------------------------------------------------------


def two_writers(random: random.Random, seed: int, folder: Path) -> str | None:
    format = FORMATS[seed % 3]
    out = folder / "out"
    overwrite = random.random() < 0.2
    if overwrite:
        shutil.copytree(whole(format), out)
    options = ["--overwrite"] if overwrite else []
    call = cli("generate", *settings(format), "--workers", str(random.choice([1, 1, 1, 2])), *options, "--out", out)
    processes = []
    for name in ("a", "b"):
        processes.append(Process(call, folder / f"{name}.log"))
        time.sleep(random.uniform(0, 0.2))
    ends = [process.wait() for process in processes]
    for process in processes:
        process.end_group()
    flaws = [flaw for ended in ends if (flaw := wrong_end(ended, 0, 2))]
    if not flaws and all(ended.status for ended in ends):
        flaws = ["both are refused\n" + "\n".join(map(tail, ends))]
    flaw = flaws[0] if flaws else difference(contents(out), contents(whole(format)))
    return flaw and f"{format}, overwrite: {overwrite}: {flaw}"


TRIALS = [
    Trial(
        "kill-generate", "generate killed at random moments, 3 formats, 1 and 2 workers", 300, kill_generate, short=1
    ),
    Trial(
        "crash-generate",
        "generate killed before every file operation, new, resumed, overwriting",
        crash_trials,
        crash_generate,
    ),
    Trial("mutate-store", "a file of a store changed, cut, extended, deleted, swapped", 1000, mutate_store, short=1),
    Trial("two-writers", "two generates into one folder at once", 60, two_writers, short=1),
]
