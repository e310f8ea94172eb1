"""Scores of recipes, stores and datasets from their images alone."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

import formulavision as fv
from formulavision.cli import app
from formulavision.evaluation import scoring
from formulavision.evaluation.image_measures import nearest_neighbour_accuracy

RECIPE: dict[str, Any] = {"generator": {"name": "perlin", "grid": 3}, "categories": 4, "instances": 6,
                          "canvas": {"size": 32, "padding": 0}}  # fmt: skip
PERLIN = fv.Recipe.from_dict(RECIPE)
SMALL: dict[str, Any] = {"images": 24, "crop": 16, "show_progress": False}


def test_measures_are_those_of_the_images_as_they_are_resized() -> None:
    found = fv.score(PERLIN, images=24, crop=32, show_progress=False)
    images = np.stack([image for image, _ in map(fv.Drawer(PERLIN).draw, range(24))])[..., 0]
    assert (found.name, found.categories, found.images) == ("perlin", 4, 24)
    counts = [np.bincount(image.ravel(), minlength=256) / 1024 for image in images]
    assert found.entropy == pytest.approx(np.mean([-(c[c > 0] * np.log2(c[c > 0])).sum() for c in counts]))
    model = scoring._random_network().eval()
    inputs = (torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1) / 255 - 0.2) / 0.5
    with torch.no_grad():
        values = StandardScaler().fit_transform(model(inputs).numpy())
    nearest = NearestNeighbors(n_neighbors=1, metric="cosine").fit(values).kneighbors(return_distance=False)[:, 0]
    assert found.separability == (nearest // 6 == np.arange(24) // 6).mean()


def test_a_score_is_the_same_each_time_and_of_a_store(tmp_path: Path) -> None:
    chosen = {**SMALL, "images": 8}
    first = fv.score(PERLIN, **chosen)
    assert fv.score(RECIPE, **chosen) == first
    store = fv.generate(PERLIN, tmp_path / "store", workers=1)
    assert fv.score(store, **chosen) == replace(first, name=str(tmp_path / "store"))
    assert fv.score(PERLIN, **chosen, seed=1) != first


def test_categories_are_taken_at_even_distances_and_images_shared_among_them() -> None:
    dataset = fv.FormulaDataset(PERLIN)
    sample, labels = scoring._sample(dataset, categories=2, images=7, seed=0)
    assert labels.tolist() == [0, 0, 0, 3, 3, 3]
    assert sorted(set(sample.indices)) == sample.indices
    assert [index // 6 for index in sample.indices] == labels.tolist()
    every, _ = scoring._sample(dataset, categories=99, images=999, seed=0)
    assert every.indices == list(range(24))
    few = scoring._sample(dataset, categories=4, images=4, seed=0)[1]
    assert few.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_one_image_a_category_has_no_separability_and_no_spread() -> None:
    found = fv.score({**RECIPE, "instances": 1}, **SMALL)
    assert (found.images, found.separability, found.spread) == (4, None, None)
    assert found.slope is not None and found.entropy > 1


def pictures(equal: bool) -> list[tuple[np.ndarray, int]]:
    """Noise of four categories; ``equal``: each category has the images of the others."""
    return [(np.random.default_rng(i % 10 if equal else i).integers(0, 256, (16, 16), dtype=np.uint8), i // 10)
            for i in range(40)]  # fmt: skip


def test_categories_with_the_same_images_are_duplicates_and_not_separable() -> None:
    equal, other = (fv.score(pictures(equal), **{**SMALL, "images": 40}) for equal in (True, False))
    assert equal.duplicates == 1 and other.duplicates == 0
    assert equal.separability == 0, "the nearest image is the copy in another category"
    assert other.separability is not None and other.separability < 0.5
    assert other.slope == pytest.approx(0, abs=0.3), "white noise"
    assert other.spread == pytest.approx(1, abs=0.1)


def test_a_given_network_sees_the_images_at_its_own_size(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", ["a", "b", "c"], seed=4)
    sizes = []
    real = scoring.extract_features

    def spy(model: torch.nn.Module, images: Any, settings: fv.TrainSettings, **how: Any) -> Any:
        sizes.append((settings.model, settings.crop))
        return real(model, images, settings, **how)

    monkeypatch.setattr(scoring, "extract_features", spy)
    found = fv.score(PERLIN, **SMALL, checkpoint=run)
    assert sizes == [("resnet18", 16), ("test_resnet", 32)]
    assert found.given_separability is not None and 0 <= found.given_separability <= 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"categories": 1}, "categories: 1 is not allowed: must be at least 2"),
        ({"images": 3}, "images: 3 is not allowed: must be at least 4"),
        ({"crop": 15}, "crop: 15 is not allowed: must be at least 16"),
        ({"crop": 5000}, "5000 is not allowed"),
        ({"data": {**RECIPE, "categories": 1}}, "data: has 1 class"),
        ({"data": {"parts": [{"generator": "perlin", "categories": 4, "object": "fill"}], "scene": {"objects": 2},
                   "images": 4, "canvas": {"size": 64, "padding": 1}}}, "several objects"),
        ({"data": "no-such"}, "no-such"),
        ({"checkpoint": "x.pth"}, "x.pth: no such file"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(arguments: dict[str, Any], told: str) -> None:
    data = arguments.pop("data", PERLIN)
    with pytest.raises(fv.FormulaVisionError, match=told) as error:
        fv.score(data, **{**SMALL, **arguments})
    assert "\n" not in str(error.value)


def test_labels_must_be_listed() -> None:
    class Unlisted:
        num_classes, classes = 2, ("a", "b")

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return torch.zeros(1, 16, 16, dtype=torch.uint8), index % 2

    with pytest.raises(fv.ConfigError, match="a Unlisted does not list its labels"):
        fv.score(Unlisted(), **SMALL)


# The command ---------------------------------------------------------------------------------------------------------


def command(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["score", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result.output


def test_the_command_writes_a_table_and_a_picture(tmp_path: Path) -> None:
    file = tmp_path / "three.yaml"
    file.write_text(fv.Recipe.from_dict({**RECIPE, "categories": 3}).to_yaml())
    store = tmp_path / "store"
    fv.generate(PERLIN, store, workers=1)
    output = command(
        file, store, "--images", 24, "--crop", 16, "--out", tmp_path / "a.png", "--csv", tmp_path / "a.csv"
    )
    assert "--categories 3 makes these recipes comparable" in output
    with (tmp_path / "a.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == [str(file), str(store)]
    expected = fv.score(store, **SMALL)
    assert float(rows[1]["separability"]) == expected.separability and rows[1]["given_separability"] == ""
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG" and picture.width == 1000


def test_a_name_of_a_generator_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fv.generate({**RECIPE, "categories": 2, "instances": 2}, "perlin", workers=1)
    (tmp_path / "bezier").mkdir()
    small = ("--images", 12, "--crop", 16, "--categories", 3, "--csv")
    command("perlin", "bezier", *small, "a.csv")
    command("./perlin", *small, "b.csv")
    counts = [
        [row["categories"] for row in csv.DictReader((tmp_path / name).read_text().splitlines())]
        for name in ("a.csv", "b.csv")
    ]
    assert counts == [["3", "3"], ["2"]]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["perlin", "no-such"], "no-such: no such file, and no generator of this name"),
        (["perlin", "{folder}"], "{folder}"),
        (["quickstart"], "is a comparison, not a recipe"),
        (["perlin", "--out", "{folder}"], "is a folder: name a file in it"),
        (["perlin", "--csv", "{there}"], "exists already"),
        (["perlin", "--out", "a.png", "--csv", "a.png"], "a.png: tables are written as CSV: name it a.csv"),
        (["perlin", "--out", "a", "--csv", "./a"], "--csv: is the file of --out, too"),
        (["{folder}", "--set", "seed=2"], "is a store, whose images are drawn"),
        (["perlin", "ifs", "--set", "scene.objects=2", "--set", "images=5"], "error: "),
        (["perlin", "--categories", "1"], "categories: 1 is not allowed"),
        (["perlin", "--checkpoint", "x.pth"], "x.pth: no such file"),
    ],
)
def test_the_command_refuses_in_one_line(arguments: list[str], told: str, tmp_path: Path) -> None:
    places = {"folder": str(tmp_path / "folder"), "there": str(tmp_path / "there.csv")}
    (tmp_path / "folder").mkdir()
    (tmp_path / "there.csv").write_text("mine")
    result = CliRunner().invoke(app, ["score", *(argument.format(**places) for argument in arguments)])
    assert result.exit_code == 2 and told.format(**places) in result.stderr, result.output
    assert len(result.stderr.strip().splitlines()) == 1 and not result.stdout
    assert (tmp_path / "there.csv").read_text() == "mine"


@pytest.mark.parametrize(("categories", "each"), [(2, 2), (50, 2), (20, 10)])
def test_chance_is_what_features_without_meaning_give(categories: int, each: int) -> None:
    random, labels = np.random.default_rng(0), np.repeat(np.arange(categories), each)
    found = [
        nearest_neighbour_accuracy(random.standard_normal((len(labels), 20)).astype(np.float32), labels)
        for _ in range(400)
    ]
    score = fv.FormulaScore("random", categories, len(labels), None, None, None, None, 0.0, 0.0)
    assert abs(np.mean(found) - score.chance) < 4 * np.std(found) / len(found) ** 0.5


def test_a_sheet_shows_what_does_not_apply_as_such() -> None:
    one = fv.FormulaScore("one image a category", 4, 4, None, None, None, None, 0.0, 6.5)
    sheet = fv.score_sheet([one, replace(one, name="a$b_$c.yaml", slope=-2.5, separability=0.5)])
    assert sheet.mode == "RGB" and sheet.width == 1000
    with pytest.raises(fv.ConfigError, match="scores: are none"):
        fv.score_sheet([])


def test_the_table_fits_on_a_narrow_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("formulavision.util.console.STDOUT._width", 80)
    result = CliRunner().invoke(app, ["score", "bezier", "--categories", "2", "--images", "4"])
    assert result.exit_code == 0, result.output
    assert "…" not in result.stdout and max(map(len, result.stdout.splitlines()[:8])) <= 80
