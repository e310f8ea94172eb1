"""Stores at URLs: written and read there as in a folder, by several processes, from a cache of limited size."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from crash_points import contents
from typer.testing import CliRunner

from formulavision import (
    Drawer,
    FormulaVisionError,
    Recipe,
    Store,
    StoredDataset,
    export_data,
    generate,
    pretrain,
    verify,
)
from formulavision.cli import app
from formulavision.recipes.categories import find_categories
from formulavision.storage import FORMATS, piece_cache
from formulavision.storage.formats import find_format, imagefolder
from formulavision.storage.formats import format as format_module
from formulavision.storage.manifest import INCOMPLETE
from formulavision.util.errors import ConfigError, FolderError, RemoteError, StoreError
from formulavision.util.folders import MARKER
from formulavision.util.remote import RemoteFolder, folder_of

DATA: dict[str, Any] = {
    "generator": {"name": "perlin", "grid": 2},
    "categories": 3,
    "instances": 6,
    "canvas": {"size": 16, "padding": 2},
}
RECIPE = Recipe.from_dict(DATA)
OTHER = Recipe.from_dict(DATA, ["seed=2"])
SCENES = Recipe.from_dict(
    {"generator": "bezier", "categories": 3, "scene": {"objects": [1, 3]}, "images": 10, "canvas": {"size": 64}}
)
NewUrl = Callable[[], str]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_module, "SHARD_IMAGES", 4)
    monkeypatch.setattr(imagefolder, "FOLDER_SCENES", 4)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORMULAVISION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "stores"


@pytest.fixture(params=[pytest.param("s3", marks=pytest.mark.slow), "memory"])
def new_url(request: pytest.FixtureRequest) -> NewUrl:
    url: NewUrl = request.getfixturevalue(f"{request.param}_url")
    return url


def remote(url: str) -> RemoteFolder:
    folder = folder_of(url)
    assert isinstance(folder, RemoteFolder)
    return folder


def remote_contents(url: str) -> dict[str, bytes]:
    return remote(url).read_all(sorted(remote(url).sizes()))


def downloads(patch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that are downloaded from now on."""
    names: list[str] = []
    download = RemoteFolder.download

    def noted(self: RemoteFolder, wanted: Any, folder: Path) -> None:
        names.extend(wanted)
        download(self, wanted, folder)

    patch.setattr(RemoteFolder, "download", noted)
    return names


# Written as in a folder ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("redrawn_here")
@pytest.mark.parametrize("recipe", [RECIPE, SCENES], ids=["images", "scenes"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_store_at_a_url_has_the_files_of_a_local_one(
    tmp_path: Path, new_url: NewUrl, format: str, recipe: Recipe
) -> None:
    local = generate(recipe, tmp_path / "store", format=format)
    url = new_url()
    store = generate(recipe, url, format=format)
    files = contents(tmp_path / "store")
    assert set(remote_contents(url)) == set(files)
    assert {name for name, content in remote_contents(url).items() if content != files[name]} <= {MARKER}
    assert len(store) == len(local) and str(store.root) == url and store.recipe.id == recipe.id
    for index in range(len(local)):
        assert np.array_equal(store.read(index), local.read(index))
        if recipe is SCENES:
            assert np.array_equal(store.scene(index).object_map, local.scene(index).object_map)
            assert np.array_equal(store.boxes(index), local.boxes(index))
        else:
            assert store.label(index) == local.label(index)
    result = verify(url, sample=None)
    assert result.problems == [] and result.images == len(local) and result.pieces == len(local.pieces)
    again = generate(recipe, url, format=format)  # complete already
    assert again.manifest == store.manifest


def test_jobs_in_any_order_make_the_store_of_one_run(tmp_path: Path, new_url: NewUrl) -> None:
    generate(RECIPE, tmp_path / "whole")
    url = new_url()
    assert generate(RECIPE, url, job="3/3") is None
    with pytest.raises(ConfigError, match="job: 2/4: 3 jobs began to draw"):
        generate(RECIPE, url, job="2/4")
    with pytest.raises(FolderError, match="of another recipe: give another --out"):
        generate(OTHER, url, job="1/3")
    assert generate(RECIPE, url, job="1/3") is None
    with pytest.raises(StoreError, match=r"pieces are missing, of job 2/3"):
        generate(RECIPE, url, finish=True)
    with pytest.raises(StoreError, match="is not complete"):
        Store(url)
    assert generate(RECIPE, url, job="2/3") is None
    assert generate(RECIPE, url, job="1/3") is None  # twice
    generate(RECIPE, url, finish=True)
    whole, found = contents(tmp_path / "whole"), remote_contents(url)
    del whole[MARKER], found[MARKER]
    assert found == whole


@pytest.mark.usefixtures("redrawn_here")
def test_an_s3_server_holds_a_store(s3_url: NewUrl) -> None:
    """What needs a server of its own: files that are created once, listings, concurrent downloads."""
    url = s3_url()
    generate(RECIPE, url, job="2/2")
    with pytest.raises(FolderError, match="of another recipe: give another --out"):
        generate(OTHER, url)
    generate(RECIPE, url)
    assert verify(url, sample=None).problems == []


@pytest.mark.slow
def test_worker_processes_write_to_a_server(tmp_path: Path, s3_url: NewUrl) -> None:
    url = s3_url()
    generate(RECIPE, url, workers=2)
    whole = contents(generate(RECIPE, tmp_path / "whole").path)
    assert remote_contents(url)["manifest.json"] == whole["manifest.json"]


def test_a_killed_run_goes_on(tmp_path: Path, new_url: NewUrl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each request that writes, the run is killed; the next run draws no piece again that is recorded."""
    whole = contents(generate(RECIPE, tmp_path / "whole").path)
    writes = {name: getattr(RemoteFolder, name) for name in ("create", "write", "upload", "remove_folder")}
    left = drawn = 0

    class Killed(BaseException):
        pass

    def killing(name: str) -> Any:
        def write(self: RemoteFolder, *arguments: Any) -> Any:
            nonlocal left, drawn
            left -= 1
            if left < 0:
                raise Killed
            drawn += name == "upload"
            return writes[name](self, *arguments)

        return write

    for name in writes:
        monkeypatch.setattr(RemoteFolder, name, killing(name))
    url = new_url()
    for budget in range(4, 60, 3):
        left = budget
        try:
            generate(RECIPE, url)
            break
        except Killed:
            continue
    pieces = len(Store(url).pieces)
    assert pieces < drawn <= pieces + 6
    found = remote_contents(url)
    del whole[MARKER], found[MARKER]
    assert found == whole


def test_a_job_that_ends_after_the_store_is_complete_leaves_it_right(memory_url: NewUrl) -> None:
    url = memory_url()
    generate(RECIPE, url)
    remote(url).write(f"{INCOMPLETE}/000001.json", b"{}")
    assert verify(url, sample=0).ok
    generate(RECIPE, url)
    assert not any(name.startswith(INCOMPLETE) for name in remote(url).sizes())


def test_a_job_whose_store_is_completed_before_its_end_says_so(
    memory_url: NewUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process completes the store between the list of the job's records and their content."""
    url, read_all = memory_url(), RemoteFolder.read_all
    told: list[str] = []
    notes = SimpleNamespace(categories=lambda *_: None, images=lambda *_: None, note=told.append)
    generate(RECIPE, url, job="2/2")

    def late(self: RemoteFolder, names: Sequence[str]) -> dict[str, bytes]:
        if len(remote(url).sizes()) > pieces:
            monkeypatch.setattr(RemoteFolder, "read_all", read_all)
            generate(RECIPE, url)
        return read_all(self, names)

    pieces = len(remote(url).sizes()) + 2
    monkeypatch.setattr(RemoteFolder, "read_all", late)
    generate(RECIPE, url, job="1/2", progress=notes)
    assert told[-1] == "job 1/2 has ended; the store is complete"
    assert verify(url, sample=0).ok


def test_what_systems_leave_in_a_bucket_is_not_of_the_store(
    memory_url: NewUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, sizes = memory_url(), RemoteFolder.sizes
    generate(RECIPE, url)
    for name in ("@eaDir/x", "data/.DS_Store", "data/@eaDir/y"):
        remote(url).write(name, b"left")
    # A console of object storage makes folders as empty files.
    monkeypatch.setattr(RemoteFolder, "sizes", lambda self: {**sizes(self), "": 0, "data": 0})
    assert verify(url, sample=0).problems == []


def test_what_is_there_is_never_overwritten(new_url: NewUrl) -> None:
    url = new_url()
    remote(url).write("mine.txt", b"mine")
    for overwrite in (False, True):
        with pytest.raises(FolderError, match=r"holds other files, and no .formulavision of a store"):
            generate(RECIPE, url, overwrite=overwrite)
    assert remote_contents(url) == {"mine.txt": b"mine"}
    url = new_url()
    generate(RECIPE, url, overwrite=True)
    before = remote_contents(url)
    for recipe, settings, told in (
        (RECIPE, {"overwrite": True}, "none is overwritten on object storage: give another --out"),
        (OTHER, {}, "holds a store of another recipe: give another --out"),
        (OTHER, {"format": "webdataset", "png": "compact"}, "of another recipe and another format and another png"),
    ):
        with pytest.raises(FolderError, match=told):
            generate(recipe, url, **settings)
    assert remote_contents(url) == before


def test_two_writers_with_different_recipes_cannot_both_claim(
    memory_url: NewUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other recipe's writer comes between the question whether there is a claim, and the claim."""
    url, create = memory_url(), RemoteFolder.create

    def late(self: RemoteFolder, name: str, content: bytes) -> bool:
        monkeypatch.setattr(RemoteFolder, "create", create)
        generate(OTHER, url)
        return create(self, name, content)

    monkeypatch.setattr(RemoteFolder, "create", late)
    with pytest.raises(FolderError, match="of another recipe"):
        generate(RECIPE, url)
    assert Store(url).manifest.recipe_id == OTHER.id


# Read through a cache -------------------------------------------------------------------------------------------------


def test_each_piece_is_downloaded_once(memory_url: NewUrl, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = generate(RECIPE, memory_url())
    names = downloads(monkeypatch)
    order = np.random.default_rng(0).permutation(len(store))
    for dataset in (StoredDataset(store), StoredDataset(store.root), StoredDataset(str(store.root))):
        for _ in range(2):
            dataset.__getitems__(order.tolist())
    assert sorted(names) == sorted(piece.path for piece in store.pieces)
    assert not list(empty_cache.glob("*.partial")) and not list(empty_cache.glob("*.lock"))


def test_the_cache_keeps_its_limit(memory_url: NewUrl, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = RECIPE, OTHER
    stores = [generate(recipe, memory_url()) for recipe in recipes]
    images = [Drawer(recipe).draw_batch(range(len(recipe)))[0] for recipe in recipes]
    most = max(piece.bytes for store in stores for piece in store.manifest.pieces)
    limit = max(store.manifest.bytes for store in stores) + most // 2
    limit_cache(monkeypatch, limit)
    stores = [Store(store.root) for store in stores]
    names = downloads(monkeypatch)
    for index in np.random.default_rng(0).permutation(2 * len(RECIPE)).tolist():
        which, index = divmod(index, len(RECIPE))
        assert np.array_equal(stores[which].read(index), images[which][index])
        assert 0 < cached_bytes(empty_cache) <= limit
    assert len(names) > sum(len(store.pieces) for store in stores)
    limit_cache(monkeypatch, 100)
    with pytest.raises(ConfigError, match=r"FORMULAVISION_STORE_CACHE_GB: the cache may have .*, and one piece"):
        Store(stores[0].root).read(0)
    for text in ("none", "0", "-1", "inf", "nan"):
        monkeypatch.setenv("FORMULAVISION_STORE_CACHE_GB", text)
        with pytest.raises(ConfigError, match=r"FORMULAVISION_STORE_CACHE_GB: '.*' is not allowed"):
            Store(stores[0].root)


def limit_cache(patch: pytest.MonkeyPatch, limit: int) -> None:
    patch.setenv("FORMULAVISION_STORE_CACHE_GB", f"{limit / 1e9:.12f}")


def cached_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


@pytest.mark.parametrize("recipe", [RECIPE, SCENES], ids=["images", "scenes"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_store_that_is_larger_than_the_cache_is_read_by_ranges(
    tmp_path: Path, memory_url: NewUrl, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, format: str, recipe: Recipe
) -> None:
    local, url = generate(recipe, tmp_path / "store", format=format), memory_url()
    limit = generate(recipe, url, format=format).manifest.bytes - 1
    limit_cache(monkeypatch, limit)
    names = downloads(monkeypatch)
    for store in (Store(url), Store(url)):
        for index in np.random.default_rng(0).permutation(len(store)).tolist():
            assert np.array_equal(store.read(index), local.read(index))
            if recipe is SCENES:
                scene = store.scene(index)
                assert np.array_equal(scene.object_map, local.scene(index).object_map)
                assert np.array_equal(scene.categories, local.scene(index).categories)
                assert np.array_equal(store.boxes(index), local.boxes(index))
            assert 0 < cached_bytes(empty_cache) <= limit
    pieces = [name for piece in local.pieces for name in find_format(format).files(piece, local.layout)]
    assert sorted(names) == sorted(pieces)  # each once, for its ranges


@pytest.mark.usefixtures("redrawn_here")
def test_the_recipe_of_a_store_stays_when_pieces_leave_the_cache(
    tmp_path: Path, memory_url: NewUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    categories = generate(RECIPE, tmp_path / "categories").path
    read = {**DATA, "categories": {"count": 3, "folder": str(categories)}}
    for recipe in (RECIPE, Recipe.from_dict(read)):
        store = generate(recipe, memory_url())
        images = Drawer(recipe).draw_batch(range(len(recipe)))[0]
        limit_cache(monkeypatch, max(piece.bytes for piece in store.manifest.pieces))
        assert verify(store, sample=None).problems == []
        store = Store(store.root)
        drawn = store.recipe
        for piece in store.pieces:
            store.download_again(piece)
        assert np.array_equal(Drawer(drawn).draw_batch(range(len(drawn)))[0], images)


@pytest.mark.parametrize("format", FORMATS)
def test_a_piece_that_left_the_cache_is_downloaded_again(memory_url: NewUrl, empty_cache: Path, format: str) -> None:
    store = generate(RECIPE, memory_url(), format=format)
    before = [store.read(index) for index in range(len(store))]
    for folder in empty_cache.iterdir():
        shutil.rmtree(folder)
    assert all(np.array_equal(store.read(index), image) for index, image in enumerate(before))


def test_what_a_killed_process_left_in_the_cache_is_removed(memory_url: NewUrl, empty_cache: Path) -> None:
    store = generate(RECIPE, memory_url())
    left = empty_cache / f"{'0' * 24}-000001-1000.{'0' * 16}.partial"
    left.mkdir(parents=True)
    store.read(0)
    assert not left.exists()


def test_what_another_process_removes_from_the_cache_at_the_same_time_is_gone(
    memory_url: NewUrl, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = generate(RECIPE, memory_url())
    left = empty_cache / f"{'0' * 24}-000001-1000.{'0' * 16}.partial"
    left.mkdir(parents=True)

    def other_was_first(place: Path) -> bool:
        shutil.rmtree(left)
        return True

    monkeypatch.setattr(piece_cache, "_is_left_behind", other_was_first)
    store.read(0)


@pytest.mark.parametrize("format", FORMATS)
def test_a_piece_whose_ranges_another_reader_has_just_noted_is_read(
    memory_url: NewUrl, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    """The other reader removes the piece at its end, after this one has found it in the cache."""
    store = generate(RECIPE, memory_url(), format=format)
    limit_cache(monkeypatch, store.manifest.bytes - 1)
    kind, found, noted = type(find_format(format)), threading.Event(), threading.Event()
    locate, failed = kind.locate, []

    def slow(self: Any, *arguments: Any) -> Any:
        if threading.current_thread().name == "second":
            found.set()
            noted.wait(2)
        else:
            found.wait(2)
        return locate(self, *arguments)

    def read() -> None:
        try:
            Store(store.root).read(0)
        except FormulaVisionError as error:
            failed.append(str(error))
        if threading.current_thread().name == "first":
            noted.set()

    monkeypatch.setattr(kind, "locate", slow)
    threads = [threading.Thread(target=read, name=name) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_new_store_at_an_old_url_is_read_anew(memory_url: NewUrl) -> None:
    url = memory_url()
    first = generate(RECIPE, url).read(3)
    remote(url).remove_folder("")
    assert not np.array_equal(generate(OTHER, url).read(3), first)


@pytest.mark.usefixtures("redrawn_here")
@pytest.mark.parametrize("format", FORMATS)
def test_damage_is_told_with_its_url(memory_url: NewUrl, format: str) -> None:
    url = memory_url()
    store = generate(RECIPE, url, format=format)
    assert verify(url, sample=0).ok  # and its pieces are in the cache
    folder = remote(url)
    names = sorted(each for each in folder.sizes() if each.endswith((".parquet", ".tar", ".png")))
    content = folder.read(names[0])
    assert content is not None
    folder.write(names[0], content[:-1] + b"x")
    folder.write("recipe.yaml", b"generator: perlin")
    folder.write("foreign.txt", b"")
    problems = verify(url, sample=0).problems
    told = ("the file is damaged", "recipe.yaml: its bytes are not", "foreign.txt: does not belong to the store")
    assert all(any(each in problem for problem in problems) for each in told)
    assert all(problem.startswith(url) for problem in problems if "recipe" not in problem)
    folder.write("recipe.yaml", (store.recipe_folder / "recipe.yaml").read_bytes())
    folder.remove_folder(names[0])
    assert any(f"{url}/{names[0]}: is missing" in problem for problem in verify(url, sample=0).problems)
    with pytest.raises(StoreError, match=r"is damaged: .* is missing"):
        store.check_sizes()


@pytest.mark.slow
def test_a_store_at_a_url_is_trained_on_and_exported(tmp_path: Path, s3_url: NewUrl) -> None:
    settings = {"model": "test_resnet", "epochs": 1, "batch_size": 8, "crop": 32, "milestones": [], "workers": 2}
    url = s3_url()
    generate(RECIPE, url)
    generate(RECIPE, tmp_path / "store")
    runs = [
        pretrain(data, out=tmp_path / name, settings=settings, show_progress=False)
        for name, data in (("remote", url), ("local", tmp_path / "store"))
    ]
    assert runs[0].settings["data"]["store"] == url
    weights = [(run.folder / "model.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1]
    scenes = s3_url()
    generate(SCENES, scenes)
    local = generate(SCENES, tmp_path / "scenes")
    export_data(scenes, tmp_path / "a", to="coco", val=2)
    export_data(local, tmp_path / "b", to="coco", val=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


# Bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://", "s3://: names no folder: write s3://BUCKET/FOLDER"),
        ("gs://bucket/store", "gs:// needs a package that is not installed: Please install gcsfs"),
        ("nosuch://bucket/store", "Protocol not known: nosuch"),
        ("simplecache::s3://bucket/store", "names no folder"),
        ("memory://nothing/there", "is not a store: no manifest.json"),
    ],
)
def test_a_url_without_a_store_is_told_in_one_line(url: str, told: str) -> None:
    with pytest.raises(FormulaVisionError, match=told) as caught:
        Store(url)
    assert "\n" not in str(caught.value)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, **settings: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    for work in (lambda: Store("s3://bucket/x"), lambda: generate(RECIPE, "s3://bucket/x")):
        with pytest.raises(RemoteError, match=r"needs a package that is not installed: s3fs: pip install formulav"):
            work()


@pytest.mark.parametrize("url", ["hf://datasets/user/name", "https://example.org/store"])
def test_file_systems_that_cannot_create_once_are_only_read(url: str) -> None:
    with pytest.raises(ConfigError, match="is read, not written: write to a folder, or to s3://"):
        generate(RECIPE, url)


@pytest.mark.usefixtures("redrawn_here")
@pytest.mark.parametrize("name", ["run[1]", "run?", "ru*", "run[!2]"])
def test_urls_that_file_systems_take_for_patterns_are_only_read(tmp_path: Path, new_url: NewUrl, name: str) -> None:
    folder = new_url()
    generate(RECIPE, f"{folder}/run1", job="1/2")
    before = remote_contents(f"{folder}/run1")
    with pytest.raises(ConfigError, match=r"is not allowed in a URL that is written, .* a pattern"):
        generate(RECIPE, f"{folder}/{name}")
    assert remote_contents(f"{folder}/run1") == before
    generate(RECIPE, tmp_path / "store")
    names = sorted(contents(tmp_path / "store"))
    remote(f"{folder}/{name}").upload(tmp_path / "store", names)
    assert verify(f"{folder}/{name}", sample=None).ok
    assert Recipe.load(f"{folder}/{name}").id == RECIPE.id


def test_only_stores_are_written_to_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    size = ["--size", "16", "--categories", "2"]
    for root in ("s3://bucket", f"file://{tmp_path}"):
        for command in (
            ["preview", "perlin", *size, "--out", f"{root}/sheet.png"],
            ["categories", "perlin", *size, "--out", f"{root}/categories"],
            ["pretrain", "--plugin", "perlin", *size, "--model", "test_resnet", "--out", f"{root}/run"],
        ):
            done = CliRunner().invoke(app, command)
            assert done.exit_code == 2 and "is a URL: only stores are written there" in done.output, done.output
    assert list(tmp_path.rglob("*")) == [tmp_path / "here"]


def test_file_urls_and_paths_of_urls_are_understood(tmp_path: Path, memory_url: NewUrl) -> None:
    generate(RECIPE, f"file://{tmp_path}/store")
    assert Store(tmp_path / "store").path == tmp_path / "store"
    url = memory_url()
    generate(RECIPE, Path(url))
    assert str(Store(url).root) == url and folder_of(Path(url)) == folder_of(f"{url}/")
    with pytest.raises(StoreError, match="is no folder of this machine"):
        _ = Store(url).path
    assert folder_of(Path("a:/b")) == Path("a:/b")


def test_the_commands_take_urls(memory_url: NewUrl) -> None:
    url = memory_url()
    numbers = ["--size", "16", "--categories", "2", "--instances", "6"]
    done = CliRunner().invoke(app, ["generate", "perlin", *numbers, "--out", url, "--workers", "2"])
    assert done.exit_code == 0 and f"formulavision verify {url}" in done.output
    done = CliRunner().invoke(app, ["verify", url, "--sample", "0"])
    assert done.exit_code == 0 and f"{url}: 3 of 3 pieces read" in done.output


def test_the_categories_of_a_store_at_a_url_draw_another_recipe(tmp_path: Path, new_url: NewUrl) -> None:
    url = new_url()
    generate(RECIPE, url)
    given = ["--plugin", DATA["generator"]["name"], "--categories-from", url, "--size", "24", "--instances", "2"]
    done = CliRunner().invoke(app, ["generate", *given, "--out", str(tmp_path / "store")])
    assert done.exit_code == 0, done.output
    drawn, first = Store(tmp_path / "store"), Store(url)
    for one, other in zip(find_categories(drawn.recipe), find_categories(first.recipe), strict=True):
        assert one.name == other.name and np.array_equal(one.parameters, other.parameters)
    nowhere = CliRunner().invoke(app, ["preview", *given[:3], new_url(), "--out", str(tmp_path / "x.png")])
    assert nowhere.exit_code == 2 and nowhere.output.count("\n") == 1 and "Traceback" not in nowhere.output
