"""The commands that evaluate, from a run's folder to their files."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from formulavision.cli import app


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two fine-tuned runs, evaluated."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        run = folder / f"ft{seed}"
        small = ["--model", "test_resnet", "--epochs", "1", "--crop", "32", "--set", "device=cpu", "--seed", seed]
        assert invoke("finetune", "--downstream", "digits", "--train-per-class", "5", *small, "--out", run)[0] == 0
        code, output = invoke("evaluate", "--checkpoint", run, "--downstream", "digits")
        assert code == 0 and "top-1" in output and "predictions.npz" in output
    return folder


def test_probe_says_where_its_files_are(runs: Path, tmp_path: Path) -> None:
    code, output = invoke("probe", "--checkpoint", runs / "ft1", "--downstream", "digits", "--method", "knn",
                          "--shots", "3", "--out", tmp_path / "probe")  # fmt: skip
    assert code == 0, output
    assert "30 training images" in output and "over 5 draws" in output and str(tmp_path / "probe") in output
    assert (tmp_path / "probe" / "evaluation.json").is_file()


def test_a_resumed_finetune_suggests_an_evaluation_on_the_images_of_its_run(runs: Path) -> None:
    code, output = invoke("finetune", "--out", runs / "ft1", "--resume")
    assert code == 0, output
    evaluate = f"next: formulavision evaluate --checkpoint {runs / 'ft1'} --downstream digits"
    assert f"{evaluate} --set downstream.train_per_class=5\n" in output


def test_filters_and_heat_maps_are_pictures(runs: Path, tmp_path: Path) -> None:
    code, output = invoke("filters", "--checkpoint", runs / "ft1", "--out", tmp_path / "filters.png")
    assert code == 0 and f"written to {tmp_path / 'filters.png'}" in output
    arms = [f"--checkpoint={name}={runs / name}" for name in ("ft1", "ft2")]
    code, output = invoke("grad-cam", *arms, "--downstream", "digits", "--count", "2", "--out", tmp_path / "maps.png")
    assert code == 0, output
    for name in ("filters", "maps"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.format == "PNG" and picture.mode == "RGB"


def test_per_class_shows_where_the_first_is_better_and_writes_all(runs: Path, tmp_path: Path) -> None:
    code, output = invoke("per-class", runs / "ft1", runs / "ft2", "--out", tmp_path / "differences.csv")
    assert code == 0, output
    with (tmp_path / "differences.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    better = [row["class"] for row in rows if float(row["difference"]) > 0]
    assert len(rows) == 10 and 0 < len(better) < 10
    assert f"is better than {runs / 'ft2'} on {len(better)} of 10 classes" in output
    shown = [line.split()[0] for line in output.splitlines() if line.strip().endswith(tuple("0123456789"))]
    assert shown == better


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["filters", "--checkpoint", "x.pth", "--out", "{there}"], "exists already: give another --out"),
        (["filters", "--checkpoint", "x.pth", "--out", "{folder}"], "is a folder: name a file in it"),
        (["filters", "--checkpoint", "{folder}/x.pth", "--out", "{folder}/f.png"], "x.pth: no such file"),
        (["grad-cam", "--checkpoint", "runs/ft", "--downstream", "digits", "--out", "{folder}/m.png"],
         "--checkpoint runs/ft: must read NAME=FOLDER"),
        (["grad-cam", "--checkpoint=a=b", "--checkpoint=a=c", "--downstream", "digits", "--out", "{folder}/m.png"],
         "there is another 'a'"),
        (["per-class", "{folder}", "{folder}"], "the folder must be one that evaluate wrote into"),
        (["probe", "--checkpoint", "x.pth", "--downstream", "digits", "--method", "svm"], "must be linear or knn"),
        (["probe", "--checkpoint", "x.pth", "--downstream", "digits", "--set", "crp=3"], "x.pth: no such file"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(tmp_path: Path, arguments: list[str], told: str) -> None:
    there = tmp_path / "there.png"
    there.write_bytes(b"keep")
    code, output = invoke(*(a.format(there=there, folder=tmp_path) for a in arguments))
    assert code == 2 and output.startswith("error: ") and told in output
    assert output.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.png"] and there.read_bytes() == b"keep"
