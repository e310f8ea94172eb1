"""A store whose writers are killed, or two at once: it goes on to the same bytes, and foreign files stay."""

from __future__ import annotations

import ast
import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cases import slow
from crash_points import contents, kill_everywhere, killed_before

from formulavision import Recipe, generate, verify
from formulavision.storage import FORMATS
from formulavision.storage.formats import format as format_module
from formulavision.storage.formats import imagefolder
from formulavision.util.errors import FolderError

RECIPE = Recipe.from_dict(
    {
        "generator": {"name": "perlin", "grid": 2},
        "categories": 2,
        "instances": 2,
        "canvas": {"size": 8, "padding": 0},
    }
)
OTHER = Recipe.from_dict({**RECIPE.to_dict(), "seed": 9})
PART = {"generator": {"name": "perlin", "grid": 2}, "categories": 1}
SCENES = Recipe.from_dict(
    {
        "parts": [{**PART, "object": "fill"}] * 2,
        "scene": {"objects": [1, 3], "size": [0.4, 0.6], "background": PART},
        "images": 4,
        "canvas": {"size": 24, "padding": 0},
    }
)
PARTS = Recipe.from_dict({"parts": [{**PART, "instances": n} for n in (1, 3)], "canvas": {"size": 8, "padding": 0}})
FOREIGN = ("thesis.tex", "data/thesis.tex", "00000/thesis.tex", ".incomplete.txt")
FOREIGN_IN_SCENES = ("images/holiday.png", "images/00000/holiday.png", "objects/thesis.tex", "categories-0.json.bak")


def repeated(state: str) -> Any:
    """A state that is tried for other stores already."""
    return pytest.param(state, marks=pytest.mark.slow)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_module, "SHARD_IMAGES", 2)
    monkeypatch.setattr(imagefolder, "FOLDER_SCENES", 2)


def add_foreign(root: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    for name in names:
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_text(name)
    return {name: name.encode() for name in names}


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(
    ("format", "state"),
    [
        *(("parquet", state) for state in ("new", "resumed", "overwritten", "overwritten unfinished")),
        ("imagefolder", "resumed"),
        ("imagefolder", "overwritten unfinished"),
        ("webdataset", "overwritten"),
        *slow(
            ("imagefolder", "new"),
            ("imagefolder", "overwritten"),
            ("webdataset", "new"),
            ("webdataset", "resumed"),
            ("webdataset", "overwritten unfinished"),
        ),
    ],
)
def test_a_store_that_is_killed_anywhere(tmp_path: Path, format: str, state: str) -> None:
    kill_stores(tmp_path, format, state, RECIPE, OTHER, FOREIGN)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(
    "state",
    ["resumed", "overwritten unfinished", *(pytest.param(s, marks=pytest.mark.slow) for s in ("new", "overwritten"))],
)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.slow
def test_a_store_of_scenes_that_is_killed_anywhere(tmp_path: Path, format: str, state: str) -> None:
    other = OTHER if state == "overwritten" else PARTS
    kill_stores(tmp_path, format, state, SCENES, other, (*FOREIGN, *FOREIGN_IN_SCENES))


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("state", ["overwritten", repeated("resumed")])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.slow
def test_a_store_of_several_parts_that_is_killed_anywhere(tmp_path: Path, format: str, state: str) -> None:
    kill_stores(tmp_path, format, state, PARTS, SCENES, (*FOREIGN, *FOREIGN_IN_SCENES))


def kill_stores(
    tmp_path: Path, format: str, state: str, recipe: Recipe, other: Recipe, foreign: tuple[str, ...]
) -> None:
    """Kill the writer of a store everywhere; ``other`` is in the folder before, where it is overwritten."""
    generate(recipe, tmp_path / "whole", format=format)
    root, overwrite = tmp_path / "store", state.startswith("overwritten")
    whole = contents(tmp_path / "whole")
    before: dict[str, bytes] = {}

    def fresh() -> None:
        first = other if overwrite else recipe
        if state == "overwritten":
            generate(first, root, format=format)
        elif state != "new":
            assert killed_before(30, lambda: generate(first, root, format=format), root)
        if state != "new":
            whole.update(add_foreign(root, foreign))
        before.update(contents(root))

    def write(overwrite: bool) -> None:
        generate(recipe, root, format=format, overwrite=overwrite)

    def plain_start() -> None:
        if overwrite and before.items() <= contents(root).items():
            with pytest.raises(FolderError, match="of another recipe"):
                write(overwrite=False)
            write(overwrite=True)
        else:
            write(overwrite=False)

    ways_on = {"a plain start": plain_start, "--overwrite": lambda: write(overwrite=True)}
    first = (FORMATS.index(format) + len(state)) % 3  # other points in each test
    total = kill_everywhere(lambda: write(overwrite), root, fresh=fresh, ways_on=ways_on, whole=whole, first=first)
    assert total > 20


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("format", FORMATS)
def test_the_recipe_of_an_overwritten_store_is_removed_after_its_images(tmp_path: Path, format: str) -> None:
    root = tmp_path / "store"
    for number in itertools.count():
        generate(PARTS, root, format=format)
        if not killed_before(number, lambda: generate(root, root, format=format, overwrite=True), root):
            break
        images = [path for path in root.rglob("*") if path.suffix in (".png", ".parquet", ".tar")]
        assert not images or Recipe.load(root).id == PARTS.id, f"killed before operation {number}"
    assert number > 20


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from crash_points import killed_before
from test_killed_stores import RECIPE
from formulavision import generate
out = Path(sys.argv[3])
killed_before(int(sys.argv[2]), lambda: generate(RECIPE, out, format="imagefolder"), out, for_good=True)
"""


@pytest.mark.usefixtures("redrawn_here")
@pytest.mark.parametrize("number", [40, pytest.param(5, marks=pytest.mark.slow)])  # 5: a repeat, earlier
def test_a_process_that_is_killed_for_good(tmp_path: Path, number: int) -> None:
    root, here = tmp_path / "store", Path(__file__).parent
    command = [sys.executable, "-c", PROGRAM, str(here.parent / "helpers"), str(number), str(root)]
    assert subprocess.run(command, cwd=here).returncode == 9
    assert not (root / "manifest.json").exists()
    shutil.copytree(root, tmp_path / "copy")
    for folder, overwrite in ((root, False), (tmp_path / "copy", True)):
        generate(RECIPE, folder, format="imagefolder", overwrite=overwrite)
        assert verify(folder, sample=None).ok
    assert contents(root) == contents(tmp_path / "copy")


WRITER = """
import sys
from formulavision import FormulaVisionError, Recipe, generate
recipe = Recipe.from_dict({"generator": {"name": "perlin", "grid": 3}, "instances": 60,
                           "canvas": {"size": 16, "padding": 0}})
print("ready", flush=True)
for line in sys.stdin:
    folder, format = line.split()
    told = ""
    try:
        generate(recipe, folder, format=format)
    except FormulaVisionError as error:
        told = str(error)
    print(ascii(told), flush=True)
"""
"""For each line, a folder and a format, it generates a store there, and prints the error as a literal; '' for none."""


@pytest.fixture(scope="module")
def writers() -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that are ready to write stores."""
    command = [sys.executable, "-c", WRITER]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.stdout.readline() for process in both if process.stdout] == ["ready\n"] * 2
    yield both
    for process in both:
        process.communicate(timeout=300)


@pytest.mark.usefixtures("redrawn_here")
@pytest.mark.parametrize("format", ["imagefolder", "parquet"])
@pytest.mark.parametrize("offset", [0, 0.1, *slow(0.05, 0.3)])
def test_two_processes_that_write_one_store(
    writers: list[subprocess.Popen[str]], tmp_path: Path, offset: float, format: str
) -> None:
    for process, late in zip(writers, (0, offset), strict=True):
        assert process.stdin is not None
        time.sleep(late)
        process.stdin.write(f"{tmp_path / 'store'} {format}\n")
        process.stdin.flush()
    told = [ast.literal_eval(process.stdout.readline()) for process in writers if process.stdout]
    assert "" in told, "one of them wrote the store"
    for error in told:
        assert not error or "another process writes there (it holds .formulavision.lock)" in error
        assert "\n" not in error
    assert verify(tmp_path / "store", sample=None).ok


# Stores of version 0.1 ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("redrawn_here")
@pytest.mark.parametrize("state", ["complete", "unfinished"])
def test_a_store_of_version_0_1_is_read_and_never_changed(tmp_path: Path, state: str) -> None:
    """It has no marker, and a folder .incomplete with its recipe's id as long as it is unfinished."""
    root = tmp_path / "store"
    generate(RECIPE, root, format="webdataset")
    (root / ".formulavision").unlink()
    if state == "complete":
        assert verify(root, sample=None).ok
    else:
        (root / "manifest.json").unlink()
        (root / ".incomplete").mkdir()
        (root / ".incomplete/format").write_text("webdataset 1")
        (root / ".incomplete/id").write_text(RECIPE.id)
        (root / ".incomplete/recipe.yaml").write_text(RECIPE.to_yaml())
    before = contents(root)
    for overwrite in (False, True):
        with pytest.raises(FolderError, match=r"\(version 0\.1 wrote none\): give another --out$"):
            generate(RECIPE, root, format="webdataset", overwrite=overwrite)
    assert contents(root) == before
