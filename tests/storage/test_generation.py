"""Stores: complete or saying that they are not, the same bytes however they came about."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from discs import Discs
from slow_generator import installed

from formulavision import (
    Category,
    ConfigError,
    DamagedStoreError,
    Drawer,
    FormulaVisionError,
    Generator,
    PluginError,
    Recipe,
    Store,
    generate,
    plugins,
    register,
    verify,
)
from formulavision.storage import FORMATS
from formulavision.storage.formats import find_format
from formulavision.storage.formats import format as format_module
from formulavision.storage.generation import Silent
from formulavision.util.errors import FolderError, StoreError

RECIPE = {
    "generator": {"name": "perlin", "grid": 3},
    "instances": 20,
    "canvas": {"size": 24},
    "seed": 3,
}


pytestmark = pytest.mark.usefixtures("redrawn_here")


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.from_dict(RECIPE)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_module, "SHARD_IMAGES", 40)


def contents(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_holds_the_images_that_the_recipe_draws(recipe: Recipe, tmp_path: Path, format: str) -> None:
    store = generate(recipe, tmp_path / "store", format=format)
    images, labels = Drawer(recipe).draw_batch(range(len(recipe)))
    order = np.random.default_rng(0).permutation(len(recipe)).tolist()
    assert len(store) == 180
    assert all(np.array_equal(store.read(i), images[i]) for i in order)
    assert [store.label(i) for i in order] == labels[order].tolist()


@pytest.mark.parametrize(
    ("format", "workers"),
    [
        ("imagefolder", 3),
        # Repeats: the number of workers and the format have to do with each other in no line of the code.
        pytest.param("imagefolder", 2, marks=pytest.mark.slow),
        pytest.param("webdataset", 2, marks=pytest.mark.slow),
        pytest.param("webdataset", 3, marks=pytest.mark.slow),
        pytest.param("parquet", 2, marks=pytest.mark.slow),
        pytest.param("parquet", 3, marks=pytest.mark.slow),
    ],
)
def test_the_bytes_do_not_depend_on_the_number_of_workers(
    recipe: Recipe, tmp_path: Path, format: str, workers: int
) -> None:
    assert len(generate(recipe, tmp_path / "one", format=format).pieces) >= workers
    generate(recipe, tmp_path / "many", format=format, workers=workers)
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("format", FORMATS)
def test_an_interrupted_run_says_so_and_goes_on_to_the_same_bytes(
    recipe: Recipe, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from formulavision.storage import piece_workers

    generate(recipe, tmp_path / "whole", format=format)
    drawn: list[str] = []

    def interrupt_at_100(image: np.ndarray, png: str) -> bytes:
        drawn.append("")
        if len(drawn) == 101:
            raise Interrupted
        return encode(image, png)

    encode = piece_workers.encode_png
    monkeypatch.setattr(piece_workers, "encode_png", interrupt_at_100)
    with pytest.raises(Interrupted):
        generate(recipe, tmp_path / "store", format=format)
    with pytest.raises(FormulaVisionError, match="is not complete"):
        Store(tmp_path / "store")
    assert not list((tmp_path / "store").rglob("manifest.json"))

    resumed_from: list[int] = []

    class Watch(Silent):
        def images(self, done: int, total: int) -> None:
            resumed_from.append(done)

    generate(recipe, tmp_path / "store", format=format, progress=Watch())
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert resumed_from[0] > 40, "pieces that were finished are not drawn again"


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> bool:
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return met


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads the children of a process from /proc")
def test_a_run_that_is_stopped_and_then_killed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    environment = installed(tmp_path)
    command = [sys.executable, "-m", "formulavision", "generate", "--plugin", "slow", "--categories", "100",
               "--instances", "2", "--size", "16", "--format", "imagefolder"]  # fmt: skip
    store = tmp_path / "store"

    def begin() -> subprocess.Popen[str]:
        """The command, until it has written another piece."""
        before = len(list(store.glob("000*")))
        process = subprocess.Popen(
            [*command, "--workers", "2", "--out", str(store)],
            env={**environment, "SLOW": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert wait_for(lambda: len(list(store.glob("000*"))) > before)
        return process

    process = begin()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "stopped; what is finished is kept: run the same command again to go on"
    assert "Traceback" not in errors
    assert (store / ".incomplete").is_dir()

    process = begin()
    children = children_of(process.pid)
    process.kill()
    process.communicate()
    assert len(children) >= 2
    assert wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children)), "workers end with it"
    assert not (store / "manifest.json").exists()

    for more in (["--workers", "2", "--out", str(store)], ["--workers", "1", "--out", str(tmp_path / "whole")]):
        subprocess.run([*command, *more], env=environment, capture_output=True, check=True)
    assert contents(store) == contents(tmp_path / "whole")


def test_a_complete_store_is_left_as_it_is(recipe: Recipe, tmp_path: Path) -> None:
    generate(recipe, tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    generate(recipe, tmp_path / "store")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == before


def test_another_recipes_store_is_overwritten_only_when_asked(recipe: Recipe, tmp_path: Path) -> None:
    generate(recipe, tmp_path / "store")
    other = Recipe.from_dict(RECIPE, ["seed=4"])
    with pytest.raises(FormulaVisionError, match=r"holds a store of another recipe: .* --overwrite"):
        generate(other, tmp_path / "store")
    assert Store(tmp_path / "store").manifest.recipe_id == recipe.id
    assert generate(other, tmp_path / "store", overwrite=True).manifest.recipe_id == other.id


@pytest.mark.parametrize(
    ("fails", "error"),
    [
        ("find_categories", KeyboardInterrupt()),
        ("find_categories", ConfigError("categories: are not found")),
        ("find_background", ConfigError("categories: are not found")),
        ("layout_of", PluginError("'perlin' failed in instance_name()")),
    ],
)
def test_a_store_is_overwritten_only_when_all_is_known_that_is_written(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, error: BaseException
) -> None:
    generate(recipe, tmp_path / "store")
    before = contents(tmp_path / "store")

    def fail(*arguments: object, **settings: object) -> None:
        raise error

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(f"formulavision.storage.generation.{fails}", fail)
        generate(tmp_path / "store", tmp_path / "store", format="webdataset", overwrite=True)
    assert contents(tmp_path / "store") == before
    generate(tmp_path / "store", tmp_path / "store", format="webdataset", overwrite=True)
    assert verify(tmp_path / "store", sample=None).ok


def test_a_name_that_no_file_can_have_leaves_the_old_store(recipe: Recipe, tmp_path: Path) -> None:
    store = generate(recipe, tmp_path / "store")
    before = contents(tmp_path / "store")
    content = (tmp_path / "store" / "categories.json").read_text()
    (tmp_path / "categories.json").write_text(content.replace('"00000"', r'"a\\b"'))
    with pytest.raises(ConfigError, match=r"must not contain a backslash"):
        generate({**RECIPE, "categories": {"folder": str(tmp_path)}}, tmp_path / "store", overwrite=True)
    assert contents(tmp_path / "store") == before and verify(store).ok


@pytest.mark.parametrize("format", FORMATS)
def test_an_overwritten_store_is_read_anew(recipe: Recipe, tmp_path: Path, format: str) -> None:
    before = generate(recipe, tmp_path / "store", format=format).read(5)
    other = Recipe.from_dict(RECIPE, ["seed=4"])
    after = generate(other, tmp_path / "store", format=format, overwrite=True).read(5)
    assert not np.array_equal(before, after)
    assert verify(tmp_path / "store").ok


@pytest.mark.parametrize("format", FORMATS)
def test_an_open_store_that_is_overwritten_gives_no_images_of_the_other(
    recipe: Recipe, tmp_path: Path, format: str
) -> None:
    store = generate(recipe, tmp_path / "store", format=format)
    before = store.read(100)
    store._open.clear()
    generate(recipe, tmp_path / "store", format=format, overwrite=True)
    assert np.array_equal(Store(tmp_path / "store").read(100), before) and np.array_equal(store.read(100), before)
    store._open.clear()
    generate(Recipe.from_dict(RECIPE, ["seed=4"]), tmp_path / "store", format=format, overwrite=True)
    with pytest.raises(StoreError, match="another store was written there since it was opened: open it again"):
        store.read(100)
    (tmp_path / "store" / "manifest.json").unlink()
    with pytest.raises(StoreError):
        store.read(100)


@pytest.mark.parametrize("share", [None, "2/2"])
def test_categories_that_change_before_a_store_is_whole_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: str | None
) -> None:
    class Shifted(Generator):
        name = "shifted"
        shift = 0.0

        def category(self, index: int) -> list[float]:
            return [index + self.shift]

        def render(self, category: Category, instance: int) -> np.ndarray:
            return np.full((24, 24), int(10 * category.parameters[0, 0]), np.uint8)

    plugins().generators.pop("shifted", None)
    register(Shifted)
    shifted: Any = {"generator": "shifted", "categories": 4, "instances": 20, "canvas": {"size": 24, "padding": 0}}
    out = tmp_path / "store"
    again: Callable[[], Any] = partial(generate, shifted, out)
    if share is None:
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr("formulavision.storage.destinations.LocalDestination.finish", _interrupt)
            again()
    else:
        generate(shifted, out, job="1/2")
        again = partial(generate, shifted, out, job=share)
    before = contents(out)
    monkeypatch.setattr(Shifted, "shift", 0.5)
    with pytest.raises(FolderError, match=r"categories\.json: another writer, .* wrote other categories of"):
        again()
    assert contents(out) == before
    monkeypatch.setattr(Shifted, "shift", 0.0)
    again()
    assert verify(generate(shifted, out), sample=None).ok


def _interrupt(*arguments: object) -> None:
    raise Interrupted


def test_a_piece_that_went_missing_before_the_end_is_drawn_again(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def fail(*arguments: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("formulavision.storage.destinations.LocalDestination.finish", fail)
        generate(recipe, tmp_path / "store", format="webdataset")
    (tmp_path / "store" / "shard-000001.tar").unlink()
    (tmp_path / "store" / ".incomplete" / "000002.json").write_text("{")
    generate(recipe, tmp_path / "store", format="webdataset")
    assert verify(tmp_path / "store", sample=None).ok


@pytest.mark.parametrize("format", ["webdataset", "parquet"])
def test_reading_many_shards_keeps_few_files_open(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    monkeypatch.setattr(format_module, "SHARD_IMAGES", 6)
    monkeypatch.setattr(Store, "OPEN_PIECES", 5)
    store = generate(recipe, tmp_path / "store", format=format)
    images, _ = Drawer(recipe).draw_batch(range(len(recipe)))
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    assert all(np.array_equal(store.read(i), images[i]) for i in range(len(store)))
    assert len(store.manifest.pieces) == 30
    after = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    assert after - before <= 5


def test_a_store_is_read_without_the_generator_that_drew_it(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from formulavision import StoredDataset, plugins

    generate(recipe, tmp_path / "store")
    monkeypatch.delitem(plugins().generators, "perlin")
    assert StoredDataset(tmp_path / "store")[7][1] == 0


def test_a_folder_that_is_no_store_is_never_overwritten(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FormulaVisionError, match="is not empty, and has no file"):
        generate(recipe, tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_full_disk_is_told_in_one_line_and_keeps_what_was_written(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from formulavision.storage import pieces

    real, calls = pieces.flush_everything, []

    def full_at_the_third() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "store"))
        real()

    told = "No space left on device; what was written so far is kept"
    with monkeypatch.context() as patch, pytest.raises(FormulaVisionError, match=told):
        patch.setattr(pieces, "flush_everything", full_at_the_third)
        generate(recipe, tmp_path / "store", format="imagefolder")
    generate(recipe, tmp_path / "store", format="imagefolder")
    assert verify(tmp_path / "store", sample=None).ok


@pytest.mark.parametrize("workers", [0, -1, 100_000])
def test_a_number_of_workers_that_makes_no_sense_is_refused(recipe: Recipe, tmp_path: Path, workers: int) -> None:
    with pytest.raises(ConfigError, match="workers:"):
        generate(recipe, tmp_path / "store", workers=workers)
    assert not (tmp_path / "store").exists()


def test_a_large_canvas_is_generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 images share an orbit, 30 fit into a batch, and 35 are drawn before they are written."""
    from formulavision.storage import piece_workers

    monkeypatch.setattr(piece_workers, "_WINDOW_BYTES", 35 * 512 * 512)
    generator = {"name": "ifs", "dots": 1000, "weights": "table", "weight_interval": 0}
    recipe = Recipe.from_dict({"generator": generator, "categories": 1, "instances": 40, "canvas": {"size": 512}})
    assert Drawer(recipe).batch_size == 30
    store = generate(recipe, tmp_path / "store")
    images, _ = Drawer(recipe).draw_batch(range(40))
    assert all(np.array_equal(store.read(i), images[i]) for i in range(40))


@pytest.mark.parametrize("length", [43, 44, 45, 89])
def test_long_names_in_tar_shards(tmp_path: Path, length: int) -> None:
    """A tar's header has room for 100 bytes: with the instance and the suffix, a stem of 44 fills it to the last."""
    (tmp_path / "c").mkdir()
    np.savetxt(tmp_path / "c" / f"{'x' * length}.csv", [[3, 4]], delimiter=",")
    data = {**RECIPE, "generator": "perlin", "categories": {"folder": str(tmp_path / "c")}}
    store = generate(Recipe.from_dict(data), tmp_path / "store", format="webdataset")
    assert np.array_equal(store.read(7), Drawer(store.recipe).draw(7)[0])


@pytest.mark.parametrize(
    ("format", "name"), [("webdataset", "x" * 120), ("imagefolder", "x" * 245), ("imagefolder", "é" * 125)]
)
def test_a_name_that_is_too_long_is_told_before_a_store_is_overwritten(
    recipe: Recipe, tmp_path: Path, format: str, name: str
) -> None:
    generate(recipe, tmp_path / "store", format=format)
    before = contents(tmp_path / "store")
    content = (tmp_path / "store" / "categories.json").read_text()
    (tmp_path / "categories.json").write_text(content.replace("00003", name))
    data = {**RECIPE, "categories": {"folder": str(tmp_path)}}
    with pytest.raises(StoreError, match=f"name is too long for --format {format}: use parquet"):
        generate(data, tmp_path / "store", format=format, overwrite=True)
    assert contents(tmp_path / "store") == before
    assert len(generate(data, tmp_path / "store", format="parquet", overwrite=True)) == len(recipe)


def test_the_longest_name_of_a_file_is_taken(recipe: Recipe, tmp_path: Path) -> None:
    generate(recipe, tmp_path / "store")
    content = (tmp_path / "store" / "categories.json").read_text()
    (tmp_path / "categories.json").write_text(content.replace("00003", "x" * 244))  # and _000000.png
    data = {**RECIPE, "categories": {"folder": str(tmp_path)}}
    generate(data, tmp_path / "long", format="imagefolder")
    assert verify(tmp_path / "long").ok


def test_parquet_with_dictionaries_is_told(recipe: Recipe, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    store = generate(recipe, tmp_path / "store")
    shard = tmp_path / "store" / store.manifest.pieces[0].path
    pq.write_table(pq.read_table(shard), shard, compression="none")
    with pytest.raises(
        FormulaVisionError, match="in a dictionary, as an earlier version wrote them: generate it again"
    ):
        Store(tmp_path / "store").read(0)


# On a device


@pytest.fixture
def discs(cuda_is_the_cpu: None) -> Recipe:
    register(Discs)
    return Recipe.from_dict({**RECIPE, "generator": "discs", "categories": 9})


@pytest.fixture
def worker_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker process does, done where the tests' devices and generators are known."""
    from formulavision.storage import piece_workers

    def pool(workers: int, start: Callable[..., None], *arguments: Any) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, initializer=start, initargs=arguments)

    monkeypatch.setattr(piece_workers, "worker_pool", pool)
    monkeypatch.setattr(Discs, "categories_are_independent", lambda self: False)  # the search has a pool of its own


@pytest.mark.usefixtures("worker_in_a_thread")
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_device_draws_are_the_same_bytes(
    discs: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, workers: int
) -> None:
    generate(discs, tmp_path / "cpu", format=format)
    monkeypatch.setattr(Discs, "render", None)
    generate(discs, tmp_path / "cuda", format=format, device="cuda", workers=workers)
    assert contents(tmp_path / "cpu") == contents(tmp_path / "cuda")


class Notes:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def categories(self, found: int, total: int) -> None:
        pass

    def images(self, done: int, total: int) -> None:
        pass

    def note(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.usefixtures("cuda_is_the_cpu")
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_where_the_generator_cannot_draw_there_it_is_told_once_and_the_cpu_draws(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(plugins()["perlin"].generator, "device_renderer", Generator.device_renderer)
    notes = Notes()
    generate(recipe, tmp_path / "cpu", progress=notes)
    generate(recipe, tmp_path / "cuda", device="cuda", workers=workers, progress=notes)
    assert notes.lines == ["perlin draws on the CPU only"]
    assert contents(tmp_path / "cpu") == contents(tmp_path / "cuda")


@pytest.mark.usefixtures("worker_in_a_thread")
def test_a_worker_that_cannot_prepare_to_draw_is_told_in_one_line(
    discs: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, calls = Discs.device_renderer, []

    def fail_in_the_worker(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError("the GPU is full")
        return prepare(*arguments)

    monkeypatch.setattr(Discs, "device_renderer", fail_in_the_worker)
    with pytest.raises(
        FormulaVisionError, match=r"'discs' .* failed while preparing to draw on cpu: MemoryError: the GPU"
    ):
        generate(discs, tmp_path / "store", device="cuda", workers=2)
    generate(discs, tmp_path / "store", device="cuda", workers=2)
    assert verify(tmp_path / "store", sample=None).ok


def test_a_store_that_was_begun_on_one_device_is_finished_on_another(
    discs: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def fail(*arguments: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr("formulavision.storage.destinations.LocalDestination.finish", fail)
        with pytest.raises(Interrupted):
            generate(discs, tmp_path / "store", device="cuda")
    (tmp_path / "store" / ".incomplete" / "000001.json").unlink()
    assert verify(generate(discs, tmp_path / "store").path, sample=None).ok


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(
    recipe: Recipe, tmp_path: Path, device: str
) -> None:
    with pytest.raises(ConfigError, match=f"device: '{device}' is not"):
        generate(recipe, tmp_path / "store", device=device)
    assert not (tmp_path / "store").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("plugin", ["ifs", "bezier", "perlin"])
def test_worker_processes_draw_on_a_gpu(tmp_path: Path, plugin: str) -> None:
    recipe = Recipe.from_dict({"generator": plugin, "categories": 4, "instances": 50, "canvas": {"size": 64}})
    generate(recipe, tmp_path / "cpu", format="imagefolder")
    generate(recipe, tmp_path / "cuda", format="imagefolder", device="cuda", workers=2)
    assert contents(tmp_path / "cpu") == contents(tmp_path / "cuda")


# Verify


def test_verify_finds_a_right_store_right(recipe: Recipe, tmp_path: Path) -> None:
    generate(recipe, tmp_path / "store", format="webdataset")
    result = verify(tmp_path / "store", sample=None)
    assert (result.problems, result.images, result.pieces) == ([], 180, 5)


def test_verify_names_an_image_that_the_formula_did_not_draw(recipe: Recipe, tmp_path: Path) -> None:
    from formulavision.storage.png import encode_png

    generate(recipe, tmp_path / "store", format="imagefolder")
    image = tmp_path / "store" / "00004" / "00004_000007.png"
    image.write_bytes(encode_png(255 - Store(tmp_path / "store").read(87)))
    problems = verify(tmp_path / "store", sample=None).problems
    assert any(p.startswith("00004/00004_000007: ") and "pixels differ" in p for p in problems)
    assert any("00004" in p and ("checksum" in p or "bytes" in p) for p in problems)


@pytest.mark.parametrize("format", FORMATS)
def test_verify_names_a_truncated_piece(recipe: Recipe, tmp_path: Path, format: str) -> None:
    store = generate(recipe, tmp_path / "store", format=format)
    target = tmp_path / "store" / store.manifest.pieces[1].path
    victim = sorted(target.glob("*.png"))[3] if target.is_dir() else target
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    problems = verify(tmp_path / "store", sample=None).problems
    assert problems
    assert all(target.name in problem or victim.stem in problem for problem in problems)


@pytest.mark.parametrize("format", ["parquet", "webdataset"])
@pytest.mark.parametrize("left", [0, 100, 5000])
def test_a_shard_that_is_cut_while_it_is_read_is_named(recipe: Recipe, tmp_path: Path, format: str, left: int) -> None:
    """A process that reads from a mapped file would be ended by the operating system (SIGBUS)."""
    generate(recipe, tmp_path / "store", format=format)
    store = Store(tmp_path / "store")
    store.read(0)
    shard = tmp_path / "store" / store.pieces[0].path
    os.truncate(shard, left)
    with pytest.raises(FormulaVisionError, match=rf"{shard.name}: is cut short: ends before byte [\d,]+: verify"):
        store.read(39)


def test_verify_names_a_missing_piece(recipe: Recipe, tmp_path: Path) -> None:
    store = generate(recipe, tmp_path / "store", format="webdataset")
    (tmp_path / "store" / store.manifest.pieces[2].path).unlink()
    problems = verify(tmp_path / "store", sample=10).problems
    assert any("shard-000002.tar: is missing" in problem for problem in problems)


def test_verify_names_what_is_no_part_of_the_store(recipe: Recipe, tmp_path: Path) -> None:
    generate(recipe, tmp_path / "store")
    (tmp_path / "store" / "00099").mkdir()
    assert any("00099: does not belong to the store" in problem for problem in verify(tmp_path / "store").problems)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_damaged_store_is_not_called_complete(format: str, damage: str, tmp_path: Path) -> None:
    recipe = {"generator": "perlin", "categories": 2, "instances": 3, "canvas": {"size": 16, "padding": 0}}
    store = generate(recipe, tmp_path / "store", format=format)
    assert generate(recipe, tmp_path / "store", format=format).manifest == store.manifest
    file = tmp_path / "store" / find_format(format).files(store.pieces[0], store.layout)[0]
    file.unlink() if damage == "missing" else file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        DamagedStoreError, match=r"(is missing|has another size); 'formulavision verify' tells all of it"
    ):
        generate(recipe, tmp_path / "store", format=format)
    assert verify(generate(recipe, tmp_path / "store", format=format, overwrite=True)).ok
