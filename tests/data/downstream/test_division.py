"""A dataset without test images is divided; a run is tested on no image that it was trained on, or it is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

from formulavision.data.downstream import Downstream, DownstreamSettings, open_downstream, open_for_run
from formulavision.util.config import parse
from formulavision.util.errors import DownstreamError


def fill(root: Path, *folders: str, images: int = 20, first: int = 0) -> Path:
    for label, folder in enumerate(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + images):
            Image.new("RGB", (8, 6), (i, label, 3)).save(root / folder / f"{i:03d}.png")
    return root


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    return fill(tmp_path / "birds", "wren", "robin")


def settings(root: Path, **given: Any) -> DownstreamSettings:
    return parse(DownstreamSettings, {"kind": "folder", "root": str(root), **given})


def run_on(data: Downstream) -> Any:
    return SimpleNamespace(folder=Path("runs/ft"), classes=data.classes, settings={"downstream": data.identity()})


def for_run(opened: Any, trained: Downstream) -> Downstream:
    """Opened for a run that was trained on a dataset."""
    return open_for_run(opened, run_on(trained))


def names(data: Downstream, side: str) -> set[str]:
    images = getattr(data, side)
    return {images.source.path(int(i)) for i in images.indices}


@pytest.mark.parametrize("division", [{"test_share": 0.5}, {"test_seed": 3}, {"test_share": 0.1, "test_seed": 7}, {}])
@pytest.mark.parametrize("part", [{}, {"train_per_class": 5, "subset_seed": 2}, {"classes": ["wren", "robin"]}])
def test_what_is_left_out_is_the_runs_and_is_told(birds: Path, division: dict[str, Any], part: dict[str, Any]) -> None:
    trained = open_downstream(settings(birds, **division, **part))
    found = for_run(settings(birds, **part), trained)
    assert names(found, "test") == names(trained, "test")
    assert ("divided as for runs/ft" in found.describe()) == bool(division)
    assert (
        for_run(str(birds), open_downstream(settings(birds, **division))).test.digest() == trained.test.digest() or part
    )


@pytest.mark.parametrize(
    ("trained", "asked", "seen"),
    [
        ({}, {"test_share": 0.5}, "12 of the 20"),
        ({"test_share": 0.1}, {"test_share": 0.2}, "4 of the 8"),
        ({"test_share": 0.1}, {"test_share": 0.2, "test_per_class": 1}, None),
        ({"train_per_class": 1}, {"test_share": 0.9}, "2 of the 36"),
        ({}, {"test_seed": 1}, "7 of the 8"),
        ({"test_seed": 2}, {"test_seed": 1}, r"\d of the 8"),
        ({"test_share": 0.4}, {"test_share": 0.2}, ""),
        ({}, {"test_share": 0.2}, ""),
        ({}, {"test_per_class": 2}, ""),
    ],
)
def test_test_images_that_were_trained_on_are_counted_and_refused(
    birds: Path, trained: dict[str, Any], asked: dict[str, Any], seen: str | None
) -> None:
    before, asked_for = open_downstream(settings(birds, **trained)), settings(birds, **asked)
    both = names(before, "train") & names(open_downstream(asked_for), "test")
    for given in (asked_for, open_downstream(asked_for)):
        if both:
            with pytest.raises(DownstreamError, match=f"runs/ft was trained on {seen or ''}.*: leave out test_share"):
                for_run(given, before)
        else:
            assert names(for_run(given, before), "test") == names(open_downstream(asked_for), "test")
            assert "trained on some" not in for_run(given, before).note
    assert bool(both) == bool(seen) or seen is None


def test_of_a_folder_that_has_changed_it_is_told_that_nobody_knows(birds: Path) -> None:
    trained = open_downstream(settings(birds, test_share=0.3))
    fill(birds, "wren", "robin", images=13, first=20)
    found = for_run(str(birds), trained)
    assert found.note.endswith("runs/ft had other test images, and may have been trained on some of these")
    assert "30%" in found.note
    images = names(trained, "train") & names(found, "test")
    assert images, "a folder that grows may bring an image of the training side to the test side"


def test_of_another_folder_with_these_classes_it_is_told_too(birds: Path, tmp_path: Path) -> None:
    trained = open_downstream(settings(birds, train_per_class=15))
    found = for_run(str(fill(tmp_path / "others", "wren", "robin", images=6)), trained)
    assert "may have been trained on some" in found.note
    other_classes = for_run(str(fill(tmp_path / "trees", "oak", "elm", images=6)), trained)
    assert "trained" not in other_classes.note


def test_a_moved_folder_is_the_same(birds: Path, tmp_path: Path) -> None:
    run = run_on(open_downstream(settings(birds, test_share=0.4, test_seed=1)))
    moved = birds.rename(tmp_path / "moved")
    assert "divided as for" in open_for_run(str(moved), run).note
    with pytest.raises(DownstreamError, match="was trained on"):
        open_for_run(settings(moved, test_share=0.9), run)


def test_folders_that_have_test_images_are_opened_as_ever(tmp_path: Path) -> None:
    fill(tmp_path / "flat", "wren", "robin")
    whole = fill(tmp_path / "both", "train/wren", "train/robin", "test/wren", "test/robin")
    divided, split = open_downstream(settings(tmp_path / "flat", test_share=0.4)), open_downstream(str(whole))
    assert for_run(str(whole), divided).identity() == split.identity()
    assert "may have been trained" in for_run(str(tmp_path / "flat"), split).note
    assert open_for_run("digits", None).note == ""
    assert for_run("digits", open_downstream("digits")).identity() == open_downstream("digits").identity()


def test_train_alone_is_divided_as_for_the_run(tmp_path: Path) -> None:
    root = fill(tmp_path, "train/wren", "train/robin")
    trained = open_downstream(settings(root, test_seed=5))
    assert names(for_run(str(root), trained), "test") == names(trained, "test")
    with pytest.raises(DownstreamError, match="was trained on"):
        for_run(settings(root, test_share=0.6), trained)


def test_datasets_of_programs_that_grow_are_told() -> None:
    items = [(np.full((4, 4, 3), i, np.uint8), i % 2) for i in range(40)]
    trained = open_downstream(Subset(items, range(30)))  # type: ignore[arg-type]
    assert for_run(Subset(items, range(30)), trained).note == trained.note  # type: ignore[arg-type]
    assert "may have been trained on some" in for_run(items, trained).note
    pair = for_run((items[:20], items[20:]), trained)
    assert pair.note == "", "a pair has test images of its own"


# The functions that take a run


def test_every_function_that_takes_a_run_keeps_to_its_division(
    birds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from formulavision import evaluate, finetune, grad_cam_sheet, probe

    torch.manual_seed(0)
    how = {"model": "test_resnet", "epochs": 1, "batch_size": 8, "resize": 36, "crop": 32, "device": "cpu"}
    run = finetune(None, settings(birds, test_share=0.4, test_seed=9), out=tmp_path / "ft", settings=how)
    test = open_downstream(settings(birds, test_share=0.4, test_seed=9)).test.digest()
    calls: dict[str, Callable[[Any], Any]] = {
        "evaluate": lambda data: evaluate(run.folder, data),
        "probe": lambda data: probe(run.folder, data, method="knn", out=tmp_path / "probe"),
        "sheet": lambda data: grad_cam_sheet({"run": run.folder}, data, count=1),
        "finetune": lambda data: finetune(run.folder, data, out=tmp_path / "again", settings=how, overwrite=True),
    }
    for name, call in calls.items():
        capsys.readouterr()
        found = call(str(birds))
        if name != "sheet":
            assert f"divided as for {run.folder}" in capsys.readouterr().out.replace("\n", ""), name
        if name == "finetune":
            assert found.settings["downstream"]["test_digest"] == test
        with pytest.raises(DownstreamError, match=r"was trained on 22 of the 38 test images"):
            call(settings(birds, test_share=0.99))
