"""A store that is proved right: whatever is wrong with it, verify says so, and why."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wayward
from typer.testing import CliRunner

from formulavision import FormulaVisionError, Generator, Recipe, Store, generate, plugins, verify
from formulavision.cli import app
from formulavision.recipes.categories import find_categories
from formulavision.recipes.category_files import CATEGORIES, read_folder, write_file, write_folder
from formulavision.storage import FORMATS, manifest
from formulavision.storage.card import CARD  # which users may edit
from formulavision.storage.formats import format as format_module
from formulavision.storage.manifest import MANIFEST, RECIPE
from formulavision.util.errors import ConfigError, StoreError
from formulavision.util.folders import MARKER

DATA = {"generator": {"name": "perlin", "grid": 2}, "instances": 6, "canvas": {"size": 16, "padding": 2}}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_module, "SHARD_IMAGES", 12)


@pytest.fixture(params=FORMATS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return generate(Recipe.from_dict(DATA), tmp_path / "store", format=request.param).path


def problems_of(path: Path, sample: int | None = 0) -> list[str]:
    """What verify finds, or says instead, a line each."""
    try:
        found = verify(path, sample=sample).problems
    except FormulaVisionError as error:
        found = [str(error)]
    assert all("\n" not in problem for problem in found)
    return found


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a manifest with all its checksums, as somebody would who wants it to pass."""
    data = json.loads((path / MANIFEST).read_text())
    change(data)
    data["sha256"] = "0" * 64
    head, zeros, tail = (json.dumps(data, indent=1) + "\n").rpartition("0" * 64)
    (path / MANIFEST).write_text(head + manifest._checksum((head + zeros + tail).encode()) + tail)


# Damage


def test_every_flipped_bit_is_found(store: Path) -> None:
    numbers = random.Random(store.name)
    files = sorted(file for file in store.rglob("*") if file.is_file() and file.name != CARD)
    assert problems_of(store) == []
    for _ in range(120):
        file = numbers.choice(files)
        content = file.read_bytes()
        bit = numbers.randrange(8 * len(content))
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        assert problems_of(store), f"bit {bit} of {file}"
        file.write_bytes(content)


def test_every_truncation_is_found(store: Path) -> None:
    numbers = random.Random(store.name)
    files = sorted(file for file in store.rglob("*") if file.is_file() and file.name != CARD)
    for file in [*numbers.choices(files, k=10), *(store / name for name in (MANIFEST, RECIPE, CATEGORIES))]:
        content = file.read_bytes()
        for size in {0, len(content) - 1, *(numbers.randrange(len(content)) for _ in range(4))}:
            file.write_bytes(content[:size])
            assert problems_of(store), f"{size} bytes of {file}"
        file.write_bytes(content + b"\n")
        assert problems_of(store), f"a line more in {file}"
        file.unlink()
        if file.name != MARKER:  # which readers do not need
            assert problems_of(store), f"without {file}"
        file.write_bytes(content)


@pytest.mark.parametrize("damage", ["a bit", "the end", "all"])
def test_damage_in_any_file_is_a_finding_of_the_command(store: Path, damage: str) -> None:
    """Status 1; 2 is for what the user must change in the command."""
    piece = store / Store(store).manifest.pieces[-1].path
    image_file = piece if piece.is_file() else next(piece.iterdir())
    for file in (image_file, *(store / name for name in (MANIFEST, RECIPE, CATEGORIES, MARKER))):
        content = file.read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        file.write_bytes({"a bit": flipped, "the end": content[:middle], "all": b""}[damage])
        result = CliRunner().invoke(app, ["verify", str(store), "--sample", "0"])
        assert (result.exit_code, "wrong: " in result.stdout, "error: " in result.stderr) == (1, True, False), file
        file.write_bytes(content)


def test_a_recipe_of_another_id_is_a_finding_of_the_command(store: Path) -> None:
    edit(store, lambda data: data.update(recipe_id="0" * 16))
    result = CliRunner().invoke(app, ["verify", str(store)])
    assert result.exit_code == 1 and "wrong: " in result.stdout and "has id" in result.stdout


@pytest.mark.parametrize("made", [[], ["manifest.txt"]])
def test_a_folder_that_is_no_store_is_no_finding(tmp_path: Path, made: list[str]) -> None:
    for name in made:
        (tmp_path / "store").mkdir()
        (tmp_path / "store" / name).touch()
    assert CliRunner().invoke(app, ["verify", str(tmp_path / "store")]).exit_code == 2


def test_a_damaged_file_is_named_as_the_cause(store: Path) -> None:
    piece = store / Store(store).manifest.pieces[-1].path
    file = sorted(piece.iterdir())[-1] if piece.is_dir() else piece
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert any("the file is damaged" in problem for problem in problems_of(store))


def test_an_image_of_another_size_is_refused_by_the_reader(tmp_path: Path) -> None:
    from formulavision.storage.png import encode_png

    path = generate(Recipe.from_dict(DATA), tmp_path / "store", format="imagefolder").path
    file = min(path.glob("00000/*.png"))
    file.write_bytes(encode_png(np.zeros((1, 1, 1), np.uint8)))
    with pytest.raises(StoreError, match=r"00000_000000 is damaged: it has shape \[1, 1, 1\]"):
        Store(path).read(0)


# Manifests that were made to pass


def nested(depth: int) -> dict[str, Any]:
    return {"deeper": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m["layout"].update(instance_names=[]), "instance_names"),
        (lambda m: m["layout"].update(category_names=[]), "category_names"),
        (lambda m: m["layout"].update(category_names=["../a", "b", "c", "d"]), "category_names"),
        (lambda m: m["layout"].update(instance_names=["x"] * 6), "two names are the same"),
        (lambda m: m["layout"].update(size=17), "its layout says 17 pixels"),
        (lambda m: m["layout"].update(size=-1), "layout.size"),
        (lambda m: m["layout"].update(channels=3), "and 3 channels"),
        (lambda m: m["layout"]["category_names"].reverse(), "names of its categories differ"),
        (lambda m: m["layout"]["instance_names"].reverse(), "names of its instances differ"),
        (lambda m: m.update(pieces=[]), "pieces"),
        (lambda m: m["pieces"].pop(), "its pieces are not those"),
        (lambda m: m["pieces"].reverse(), "its pieces are not those"),
        (lambda m: m.update(recipe=nested(300)), "no such setting"),
        (lambda m: m["recipe"].update(generator=nested(300)), "generator"),
        (lambda m: m["recipe"].update(categories=[]), "categories"),
        (lambda m: m["pieces"][0].update(path="elsewhere"), "elsewhere"),
        (lambda m: m.update(recipe_id="0" * 16), "has id"),
        (lambda m: m["recipe"].update(seed=5), "has id"),
        (lambda m: m.update(recipe={}), "generator"),
        (lambda m: m.update(format="zip"), "zip"),
        (lambda m: m["files"].pop(CATEGORIES), f"{CATEGORIES}: does not belong to the store"),
        (lambda m: m.update(pieces=3), "pieces"),
        (lambda m: m.update(more=1), "more"),
    ],
)
def test_a_manifest_that_says_something_else_is_found(store: Path, change: Callable[[Any], Any], told: str) -> None:
    edit(store, lambda data: None)
    assert problems_of(store) == []
    edit(store, change)
    assert any(told in problem for problem in problems_of(store))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, '"\ud800"'])
def test_a_manifest_that_is_none_is_told_in_one_line(store: Path, text: str) -> None:
    (store / MANIFEST).write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(StoreError, match=r"^[^\n]*manifest\.json: is damaged[^\n]*$"):
        Store(store)


@pytest.mark.usefixtures("redrawn_here")
def test_a_recipe_that_names_its_generator_alone_is_drawn_again(store: Path) -> None:
    edit(store, lambda m: m["recipe"].update(generator={"name": "perlin", "grid": 2}))
    assert problems_of(store, None) == []


def test_a_recipe_file_that_says_something_else_is_found(store: Path) -> None:
    file = store / RECIPE
    file.write_text(file.read_text().replace("seed: 1", "seed: 2"))
    edit(store, lambda m: m["files"].update(manifest.file_checksums(store, [RECIPE])))
    assert problems_of(store) == [f"{file}: is not the recipe of {MANIFEST}"]


def test_categories_that_the_generator_does_not_find_are_found(store: Path) -> None:
    file = store / CATEGORIES
    file.write_text(file.read_text().replace("[[2.0, 1.0]]", "[[2.0, 1.5]]"))
    edit(store, lambda m: m["files"].update(manifest.file_checksums(store, [CATEGORIES])))
    (problem,) = problems_of(store)
    assert "category 00002 is not the one that 'perlin' finds here" in problem


def test_labels_and_names_inside_of_shards_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from formulavision.storage import piece_workers

    sample = piece_workers.Sample
    for what, wrong in (
        ("labels", lambda name, label, png: sample(name, 1 - label % 2, png)),
        ("images", lambda name, label, png: sample(name.replace("_", "-"), label, png)),
    ):
        monkeypatch.setattr(piece_workers, "Sample", wrong)
        for format in ("parquet", "webdataset"):
            path = generate(Recipe.from_dict(DATA), tmp_path / f"{format}-{what}", format=format).path
            assert any(what in problem for problem in problems_of(path))


def test_class_names_inside_of_parquet_files_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from formulavision.storage.formats import parquet

    real = parquet._schema
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "_schema", lambda names: real([*reversed(names)]))
        path = generate(Recipe.from_dict(DATA), tmp_path / "store").path
    assert any("class names are not the store's" in problem for problem in problems_of(path))


# Files


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", "._manifest.json", "@eaDir", ".nfs00ab"])
def test_what_operating_systems_leave_behind_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from formulavision.storage import piece_workers

    def litter(path: Path) -> None:
        for folder in [path, *(entry for entry in path.rglob("*") if entry.is_dir())]:
            if name == "@eaDir":
                (folder / name).mkdir(exist_ok=True)
                (folder / name / "SYNOFILE_THUMB_M.png").write_bytes(b"x")
            else:
                (folder / name).write_bytes(b"x")

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    recipe = Recipe.from_dict(DATA)
    for format in FORMATS:
        path = tmp_path / format
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("formulavision.storage.destinations.LocalDestination.finish", stop)
            generate(recipe, path, format=format)
        litter(path)
        with monkeypatch.context() as patch:
            patch.setattr(piece_workers.PieceWriter, "write", stop)  # all pieces are there
            generate(recipe, path, format=format)
        result = verify(path, sample=0)
        assert result.problems == []
        assert result.pieces == len(result.store.manifest.pieces)
        assert [Store(path).read(i).shape for i in (0, 23)] == [(16, 16, 1)] * 2


@pytest.mark.parametrize(
    "name", ["more.txt", "data/more.parquet", "data/deeper/more", "00001/00001_000099.png", ".git/x"]
)
def test_strangers_are_named_and_stop_nothing(store: Path, name: str) -> None:
    (store / name).parent.mkdir(parents=True, exist_ok=True)
    (store / name).write_bytes(b"x")
    result = verify(store, sample=0)
    assert any("does not belong to the store" in problem for problem in result.problems)
    assert result.pieces == len(result.store.manifest.pieces)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    path = generate(Recipe.from_dict(DATA), tmp_path / "store", format="imagefolder").path
    (path / "00001" / "00001_000003.png").unlink()
    assert f"{path}/00001/00001_000003.png: is missing" in problems_of(path)


# Generators that break their promise

QUICK_CAUSES = ("counting", "tossing", "hashing")


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Generator]], Recipe]:
    def register(generator: type[Generator]) -> Recipe:
        plugins().add(generator)
        monkeypatch.setitem(plugins().generators, generator.name, plugins()[generator.name])
        return Recipe.from_dict({"generator": generator.name, "canvas": {"size": 16}})

    return register


@pytest.mark.parametrize(
    "generator",
    [
        # Another process draws for each of them, which takes seconds: one of each cause is quick, and so are all of
        # them without a store, in test_checking.py.
        pytest.param(generator, id=generator.name, marks=[] if generator.name in QUICK_CAUSES else pytest.mark.slow)
        for generator in wayward.WAYWARD
    ],
)
def test_images_that_depend_on_more_than_recipe_and_index_are_found(
    known: Callable[[type[Generator]], Recipe], tmp_path: Path, generator: type[Generator]
) -> None:
    path = generate(known(generator), tmp_path / "store").path
    problems = problems_of(path, sample=None)
    assert any("pixels differ from the formula's: " in problem for problem in problems)
    causes = {
        "counting": "after other images",
        "remembering": "after other images",
        "tossing": "otherwise each time",
        "looking-at-the-clock": "otherwise each time",
        "counting-in-its-module": "otherwise each time",
        "hashing": "the day, the machine or the process",
    }
    assert causes[generator.name] in problems[0]


def test_the_only_image_of_a_store_is_drawn_twice(known: Callable[[type[Generator]], Recipe], tmp_path: Path) -> None:
    data = {**known(wayward.Counting).to_dict(), "categories": 1, "instances": 1}
    assert problems_of(generate(Recipe.from_dict(data), tmp_path / "store").path, sample=None)


def test_a_generator_that_only_this_process_knows_is_verified_here(
    known: Callable[[type[Generator]], Recipe], tmp_path: Path
) -> None:
    class Notebook(wayward.Counting):
        name = "notebook"
        __module__ = "__main__"

    assert problems_of(generate(known(Notebook), tmp_path / "store").path, sample=None)


def test_a_generator_that_ends_its_process_is_told(known: Callable[[type[Generator]], Recipe], tmp_path: Path) -> None:
    path = generate(known(wayward.Leaving), tmp_path / "store").path
    Path(tmp_path / "sitecustomize.py").write_text("import wayward\nwayward.Leaving.leaves = True\n")
    sys.path.insert(0, str(tmp_path))
    try:
        (problem,) = problems_of(path, sample=None)
    finally:
        sys.path.remove(str(tmp_path))
    assert "ended abruptly" in problem or "SystemExit" in problem


def test_another_version_of_the_plugin_is_named_as_the_cause(
    known: Callable[[type[Generator]], Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = generate(known(wayward.Leaving), tmp_path / "store").path

    class Changed(wayward.Leaving):
        __module__ = "__main__"

        def level(self, category: Any, instance: int) -> int:
            return instance + 1

    monkeypatch.delitem(plugins().generators, "leaving")
    plugins().add(Changed, "formulavision-wayward", "2.0")
    monkeypatch.setitem(plugins().generators, "leaving", plugins()["leaving"])
    assert "this process wrote the store, and formulavision-wayward 2.0, which is installed" in problems_of(path, 1)[0]


# A store carries its categories


def own_categories(tmp_path: Path) -> Recipe:
    data = {"generator": {"name": "ifs", "dots": 1000}, "categories": 3, "instances": 4, "canvas": {"size": 16}}
    folder = write_folder(find_categories(Recipe.from_dict({**data, "seed": 5})), tmp_path / "cats")
    (folder / "00001.csv").rename(folder / "fern.csv")
    return Recipe.from_dict({**data, "categories": {"folder": str(folder)}})


@pytest.mark.usefixtures("redrawn_here")
@pytest.mark.parametrize("format", FORMATS)
def test_a_store_needs_nothing_outside_of_it(tmp_path: Path, format: str) -> None:
    from formulavision import FormulaDataset, StoredDataset

    recipe = own_categories(tmp_path)
    path = generate(recipe, tmp_path / "store", format=format).path
    assert all(str(tmp_path).encode() not in file.read_bytes() for file in path.rglob("*") if file.is_file())
    shutil.rmtree(tmp_path / "cats")
    path = path.rename(tmp_path / "moved")
    assert verify(path, sample=None).problems == []
    stored = StoredDataset(path)
    assert stored.classes == ["00000", "00002", "fern"]
    drawn = FormulaDataset(stored.recipe)
    assert all(bool((stored[i][0] == drawn[i][0]).all()) for i in range(len(drawn)))
    assert len(drawn.held_out(2, fresh=False)) == 6
    assert stored.recipe.id == Recipe.load(path / RECIPE).id == recipe.id
    assert generate(Recipe.load(path / RECIPE), path, format=format).path == path
    again = generate(Recipe.load(path / RECIPE), path, format=format, overwrite=True)
    assert verify(again.path, sample=None).ok


@pytest.mark.usefixtures("redrawn_here")
@pytest.mark.parametrize("format", FORMATS)
def test_an_unfinished_store_goes_on_without_the_folder_of_its_categories(
    tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from formulavision.storage import piece_workers

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    recipe = own_categories(tmp_path)
    whole = generate(recipe, tmp_path / "whole", format=format)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(piece_workers.PieceWriter, "write", stop)
        generate(recipe, tmp_path / "store", format=format)
    shutil.rmtree(tmp_path / "cats")
    resumed = generate(recipe, tmp_path / "store", format=format)
    assert (resumed.path / MANIFEST).read_bytes() == (whole.path / MANIFEST).read_bytes()
    assert verify(resumed.path, sample=None).ok


def test_the_same_command_goes_on_without_the_folder_of_its_categories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from formulavision.storage import piece_workers

    def stop(*arguments: object) -> None:
        raise StoreError("stopped")

    own_categories(tmp_path)
    settings = ["--plugin", "ifs", "--set", "generator.dots=1000", "--instances", "4", "--size", "16", "--workers", "1"]
    command = ["generate", *settings, "--categories-from", str(tmp_path / "cats"), "--out", str(tmp_path / "store")]
    with monkeypatch.context() as patch:
        patch.setattr(piece_workers.PieceWriter, "write", stop)
        assert CliRunner().invoke(app, command).exit_code == 2
    shutil.rmtree(tmp_path / "cats")
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 0, ended.output
    assert "the categories are read from" in ended.output
    assert verify(tmp_path / "store", sample=None).ok
    assert CliRunner().invoke(app, [*command[:-1], str(tmp_path / "other")]).exit_code == 2


def test_categories_that_changed_since_the_recipe_was_made_are_refused(tmp_path: Path) -> None:
    recipe = own_categories(tmp_path)
    (tmp_path / "cats" / "00000.csv").write_bytes((tmp_path / "cats" / "fern.csv").read_bytes())
    with pytest.raises(ConfigError, match="holds other categories than the recipe was made with"):
        generate(recipe, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_recipe_with_a_digest_and_no_folder_is_read_and_not_drawn(tmp_path: Path) -> None:
    recipe = own_categories(tmp_path)
    portable = Recipe.from_dict(recipe.portable())
    assert portable.id == recipe.id
    with pytest.raises(ConfigError, match=r"categories\.folder: is missing"):
        find_categories(portable)


def test_a_store_is_a_folder_of_categories(tmp_path: Path) -> None:
    path = generate(Recipe.from_dict(DATA), tmp_path / "store").path
    taken = Recipe.from_dict({**DATA, "seed": 9, "categories": {"folder": str(path), "count": 3}})
    assert [c.name for c in find_categories(taken)] == ["00000", "00001", "00002"]


def test_ten_thousand_categories_take_little(tmp_path: Path) -> None:
    recipe = Recipe.from_dict({"generator": {"name": "perlin", "grid": 100}})
    write_file(find_categories(recipe), recipe.build(), tmp_path)
    assert (tmp_path / CATEGORIES).stat().st_size < 400_000
    assert len(read_folder(tmp_path, recipe.build())) == 10_000


@pytest.mark.usefixtures("redrawn_here")
def test_a_store_of_the_first_version_is_read_and_verified(store: Path) -> None:
    def as_it_was(data: dict[str, Any]) -> None:
        for key in ("files", "sha256"):
            del data[key]

    data = json.loads((store / MANIFEST).read_text())
    as_it_was(data)
    (store / MANIFEST).write_text(json.dumps(data, indent=1) + "\n")
    (store / CATEGORIES).unlink()
    assert problems_of(store, None) == []
    file = store / RECIPE
    file.write_text(file.read_text().replace("size: 16", "size: 18"))
    assert problems_of(store) == [f"{file}: is not the recipe of {MANIFEST}"]
