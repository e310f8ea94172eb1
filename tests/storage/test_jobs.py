"""Jobs of a scheduler: any number of them, in any order, at once, killed and repeated, make the bytes of one run."""

from __future__ import annotations

import hashlib
import os
import random
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from cases import slow
from typer.testing import CliRunner

from formulavision import FormulaVisionError, Recipe, Store, generate, verify
from formulavision.cli import app
from formulavision.storage.formats import format as format_module
from formulavision.storage.manifest import INCOMPLETE
from formulavision.util.folders import MARKER
from formulavision.util.remote import folder_of
from formulavision.util.text import counted

DATA: dict[str, Any] = {
    "generator": {"name": "perlin", "grid": 2},
    "instances": 6,
    "canvas": {"size": 16, "padding": 2},
}
RECIPE = Recipe.from_dict(DATA)


class Notes:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def categories(self, found: int, total: int) -> None:
        pass

    def images(self, done: int, total: int) -> None:
        assert done <= total

    def note(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_module, "SHARD_IMAGES", 4)


def contents(root: Path) -> dict[str, str]:
    """Digests of a store's files; the marker lists the same files in the order in which they were noted."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != MARKER)
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("format", ["parquet", *slow("imagefolder", "webdataset")])
def test_jobs_in_any_order_make_the_store_of_one_run(tmp_path: Path, format: str) -> None:
    whole = generate(RECIPE, tmp_path / "whole", format=format)
    order = [1, 2, 3, 2]
    random.Random(format).shuffle(order)
    notes = Notes()
    for number in order:
        assert generate(RECIPE, tmp_path / "jobs", format=format, job=f"{number}/3", progress=notes) is None
    assert notes.lines[-1].endswith("has ended; all pieces are written") and len(notes.lines) == 4
    with pytest.raises(FormulaVisionError, match="not complete"):
        Store(tmp_path / "jobs")
    store = generate(RECIPE, tmp_path / "jobs", format=format, finish=True)
    assert contents(store.path) == contents(whole.path)
    assert verify(store.path, sample=None).problems == []
    assert generate(RECIPE, tmp_path / "jobs", format=format, job="1/3", progress=notes) is None
    assert notes.lines[-1].endswith("is complete already: its jobs have nothing to do")
    assert contents(store.path) == contents(whole.path)


@pytest.mark.slow
def test_a_run_without_jobs_draws_what_they_left(tmp_path: Path) -> None:
    whole = generate(RECIPE, tmp_path / "whole")
    generate(RECIPE, tmp_path / "jobs", job="2/3", workers=2)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "jobs").rglob("*.parquet")}
    store = generate(RECIPE, tmp_path / "jobs")
    assert contents(store.path) == contents(whole.path)
    assert {path: path.stat().st_mtime_ns for path in before} == before and len(before) < len(store.pieces)


def test_jobs_that_are_missing_are_named(tmp_path: Path) -> None:
    generate(RECIPE, tmp_path / "jobs", job="1/3")
    with pytest.raises(FormulaVisionError, match=r"pieces are missing, of jobs 2/3, 3/3"):
        generate(RECIPE, tmp_path / "jobs", finish=True)
    generate(RECIPE, tmp_path / "jobs", job="3/3")
    # A piece that was cut after its job had ended is missing again.
    cut = sorted((tmp_path / "jobs").rglob("*.parquet"))[0]
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(FormulaVisionError, match=r"pieces are missing, of jobs 1/3, 2/3"):
        generate(RECIPE, tmp_path / "jobs", finish=True)


def job(root: Path, number: int, count: int, killed: int | None = None) -> None:
    """A job in a process of its own, which is killed after some pieces."""
    if killed is not None:
        from formulavision.storage import piece_workers

        write, left = piece_workers.PieceWriter.write, [killed]

        def dying(self: Any, piece: Any) -> Any:
            if not left[0]:
                os._exit(9)
            left[0] -= 1
            return write(self, piece)

        piece_workers.PieceWriter.write = dying  # type: ignore[method-assign]
    generate(RECIPE, root, job=f"{number}/{count}")


def test_jobs_at_once_twice_and_killed(tmp_path: Path) -> None:
    context = get_context("fork")
    root = tmp_path / "jobs"
    killed = context.Process(target=job, args=(root, 1, 2, 1))
    killed.start()
    killed.join()
    assert killed.exitcode == 9
    (root / INCOMPLETE / f"000003.{'0' * 16}.partial").mkdir()
    together = [context.Process(target=job, args=(root, *which)) for which in ((1, 2), (2, 2), (2, 2))]
    for process in together:
        process.start()
    for process in together:
        process.join()
        assert process.exitcode == 0
    assert len(list((root / INCOMPLETE).glob("*.lock"))) == 1  # of the killed one
    store = generate(RECIPE, root, finish=True)
    assert contents(store.path) == contents(generate(RECIPE, tmp_path / "whole").path)
    assert not (root / INCOMPLETE).exists()


@pytest.mark.parametrize("settings", [{}, {"finish": True}, *slow({"overwrite": True})], ids=str)
def test_nobody_tidies_up_while_a_job_draws(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from formulavision.storage.piece_workers import PieceWriter

    root, write = tmp_path / "jobs", PieceWriter.write
    asked: list[Any] = []

    def writing(self: Any, piece: Any) -> Any:
        if not asked:
            asked.append(piece)
            before = contents(root)
            with pytest.raises(FormulaVisionError, match=r"job 1/2 draws there: wait until it has ended"):
                generate(RECIPE, root, **settings)
            assert contents(root) == before
            generate(RECIPE, root, job="2/2")  # which may draw beside it
        return write(self, piece)

    monkeypatch.setattr(PieceWriter, "write", writing)
    generate(RECIPE, root, job="1/2")
    assert asked
    assert verify(generate(RECIPE, root, finish=True).path).problems == []


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "-1/2", "1/2/3", "a/b", "", "1/9999999999"])
def test_a_job_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(FormulaVisionError, match=r"job: '.*' is not allowed: must be .*: 1/8 to 8/8"):
        generate(RECIPE, tmp_path / "jobs", job=text)
    assert not (tmp_path / "jobs").exists()


def test_jobs_that_contradict_the_others_are_refused(tmp_path: Path) -> None:
    generate(RECIPE, tmp_path / "jobs", job="1/3")
    before = contents(tmp_path / "jobs")
    for told, recipe, settings in (
        ("job: 1/4: 3 jobs began to draw", RECIPE, {"job": "1/4"}),
        ("of another recipe", Recipe.from_dict(DATA, ["seed=2"]), {"job": "2/3"}),
        ("of another format", RECIPE, {"job": "2/3", "format": "webdataset"}),
        ("job: not together with overwrite", RECIPE, {"job": "2/3", "overwrite": True}),
        ("job: not together with finish", RECIPE, {"job": "2/3", "finish": True}),
        ("finish: not together with overwrite", RECIPE, {"finish": True, "overwrite": True}),
    ):
        with pytest.raises(FormulaVisionError, match=told):
            generate(recipe, tmp_path / "jobs", **settings)
        assert contents(tmp_path / "jobs") == before


@pytest.mark.parametrize("place", ["{}/typo", "memory://bucket/typo"])
def test_what_no_job_has_begun_cannot_be_finished(tmp_path: Path, place: str) -> None:
    out = place.format(tmp_path)
    with pytest.raises(FormulaVisionError, match="typo: holds no store that jobs have begun: is --out right"):
        generate(RECIPE, out, finish=True)
    root = folder_of(out)
    assert not (root.exists() if isinstance(root, Path) else root.sizes())


@pytest.mark.slow
def test_the_command_says_what_is_missing_and_what_is_complete(tmp_path: Path) -> None:
    numbers = ["--size", "16", "--categories", "4", "--instances", "6"]
    command = ["generate", "perlin", *numbers, "--out", str(tmp_path / "store")]
    done = CliRunner().invoke(app, [*command, "--job", "1/2"])
    assert done.exit_code == 0 and "job 1/2 has ended; 3 of 6 pieces are missing, of job 2/2" in done.output
    done = CliRunner().invoke(app, [*command, "--finish"])
    assert done.exit_code == 2 and "3 of 6 pieces are missing, of job 2/2" in done.output
    assert "job 2/2 has ended; all pieces are written" in CliRunner().invoke(app, [*command, "--job", "2/2"]).output
    done = CliRunner().invoke(app, [*command, "--finish"])
    assert done.exit_code == 0 and "complete" in done.output


@pytest.mark.parametrize("format", ["imagefolder", *slow("parquet", "webdataset")])
def test_a_plan_has_the_pieces_of_the_store(tmp_path: Path, format: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ["--plugin", "perlin", "--categories", "3", "--instances", "5", "--size", "32"]
    out = ["--out", str(tmp_path / "store"), "--format", format]
    planned = CliRunner().invoke(app, ["generate", *recipe, *out, "--plan", "--job", "1/2"])
    assert planned.exit_code == 0 and not list(tmp_path.iterdir())
    done = generate(Recipe.from_dict({"generator": "perlin", "categories": 3, "instances": 5, "canvas": {"size": 32}}),
                    tmp_path / "store", format=format)  # fmt: skip
    pieces = len(done.pieces)
    assert f"store: {counted(pieces, 'piece')} of {format}, 15 images, about" in planned.output
    share = (pieces + 1) // 2
    assert f"job 1/2: {counted(share, 'piece')} of {format}, " in planned.output
    assert "hours of a core" in planned.output
