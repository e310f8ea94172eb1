"""Runs on mixtures of recipes and stores."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from comparing_runs import comparable, same, stopped_and_resumed
from pair import Pair
from typer.testing import CliRunner

import formulavision as fv
from formulavision.cli import app
from formulavision.data.mixtures import as_mixture
from formulavision.training import Run, pretrain
from formulavision.util.errors import ConfigError

CANVAS = {"size": 32, "padding": 0}
PERLIN = {"generator": {"name": "perlin", "grid": 2}, "categories": 2, "instances": 12, "canvas": CANVAS}
MOIRE = {"generator": "moire", "categories": 2, "instances": 8, "canvas": CANVAS}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fv.generate(MOIRE, tmp_path_factory.mktemp("mixture") / "store").path


def mixed(store: Path) -> list[Any]:
    return [{"recipe": PERLIN, "share": 0.3}, {"store": store, "share": 0.7}]


@pytest.fixture(scope="module")
def whole(store: Path, small: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("mixture") / "whole"
    return pretrain(mixed(store), out=out, settings=small | {"workers": 0}, show_progress=False)


@pytest.mark.parametrize(
    ("stops", "workers"), [([2, 2], 1), *(pytest.param([n], n % 3, marks=pytest.mark.slow) for n in range(1, 6))]
)
def test_a_run_on_a_mixture_resumes_exactly(
    whole: Run, store: Path, small: Any, tmp_path: Path, stops: list[int], workers: int
) -> None:
    settings = small | {"workers": workers, "checkpoint_minutes": 0}
    run = stopped_and_resumed(mixed(store), tmp_path / "run", settings, stops)
    assert same(run.folder, whole.folder) and comparable(run) == comparable(whole)


@pytest.mark.slow
def test_two_processes_train_on_the_mixture_of_one(pair: Pair, store: Path, small: Any, tmp_path: Path) -> None:
    settings = {**small, "learning_rate": 0.005, "channels_last": False}
    one = pretrain(mixed(store), out=tmp_path / "one", settings=settings, show_progress=False)
    two = pair(pretrain, mixed(store), out=tmp_path / "two", settings=settings, show_progress=False)
    unlike = pretrain([PERLIN, store], out=tmp_path / "unlike", settings=settings, show_progress=False)
    losses = [[row["train_loss"] for row in run.history] for run in (one, two, unlike)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3) != losses[2]


def test_the_run_names_its_parts_and_resumes_from_what_it_recorded(
    whole: Run, store: Path, small: Any, tmp_path: Path
) -> None:
    data = whole.settings["data"]
    assert (data["images"], data["classes"]) == (40, 4)
    perlin, moire = data["mixture"]
    assert perlin["share"] == 0.3 and perlin["recipe"]["generator"]["name"] == "perlin" and "store" not in perlin
    assert moire["store"] == str(store) and moire["recipe"]["generator"]["name"] == "moire"
    card = (whole.folder / "README.md").read_text()
    assert "pre-trained on images drawn by 'perlin' and 'moire'" in card and str(store.parent) not in card
    text = card.partition("is this mixture.")[2].partition("```yaml")[2].partition("```")[0]
    assert [part["share"] for part in yaml.safe_load(text)["mixture"]] == [0.3, 0.7]
    assert as_mixture(yaml.safe_load(text)["mixture"]).parts[1].recipe_id == fv.Store(store).recipe.id

    moved = tmp_path / "moved"
    shutil.copytree(store, moved)
    out = tmp_path / "run"
    shutil.copytree(whole.folder, out)
    longer = {"epochs": 3}
    run = pretrain(out=out, settings=longer, resume=True, show_progress=False)
    assert len(run.history) == 3
    again = pretrain(mixed(moved), out=out, settings={"epochs": 4}, resume=True, show_progress=False)
    assert len(again.history) == 4, "the path of a store may change"
    for other in ([{"recipe": PERLIN, "share": 0.5}, {"store": moved, "share": 0.5}], [PERLIN, moved],
                  [{"recipe": {**PERLIN, "seed": 3}, "share": 0.3}, {"store": moved, "share": 0.7}],
                  [{"recipe": PERLIN, "share": 0.3}, {"recipe": MOIRE, "share": 0.7}], mixed(moved)[::-1]):  # fmt: skip
        with pytest.raises(ConfigError, match=r"resume: data\.mixture\.[01]\..* in the run"):
            pretrain(other, out=out, resume=True, show_progress=False)


@pytest.mark.parametrize("mixture", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_run_on_a_store_at_a_url_goes_on_from_what_it_recorded(mixture: bool, small: Any, tmp_path: Path) -> None:
    url = f"memory://mixture-runs-{mixture}/store"
    fv.generate(MOIRE, url)
    settings = small | {"epochs": 1, "milestones": [], "workers": 0}
    pretrain([PERLIN, url] if mixture else url, out=tmp_path / "run", settings=settings, show_progress=False)
    run = pretrain(out=tmp_path / "run", settings={"epochs": 2}, resume=True, show_progress=False)
    assert len(run.history) == 2


def test_held_out_images_are_of_all_parts(store: Path, small: Any, tmp_path: Path) -> None:
    settings = small | {"epochs": 1, "milestones": [], "held_out": 2, "workers": 0}
    run = pretrain(mixed(store), out=tmp_path / "run", settings=settings, show_progress=False)
    assert run.final["validation_accuracy"] is not None
    module = fv.FormulaDataModule(mixed(store), {"held_out": 2})
    assert module.validation is not None and len(module.validation) == 8
    assert [module.validation[index][1] for index in range(8)] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_one_class_a_part_is_enough(small: Any) -> None:
    module = fv.FormulaDataModule([{**PERLIN, "categories": 1}, {**MOIRE, "categories": 1}])
    assert module.num_classes == 2
    with pytest.raises(ConfigError, match="has 1 class"):
        fv.FormulaDataModule([{**PERLIN, "categories": 1}])


@pytest.mark.slow
def test_clusters_of_a_mixture(store: Path, small: Any, tmp_path: Path) -> None:
    labels = {"clusters": 3}
    with pytest.raises(ConfigError, match=r"labels.clusters: must be unset for a mixture with shares"):
        pretrain(mixed(store), out=tmp_path / "run", settings=small, labels=labels, show_progress=False)
    settings = small | {"epochs": 1, "milestones": [], "workers": 0}
    run = pretrain([PERLIN, store], out=tmp_path / "run", settings=settings, labels=labels, show_progress=False)
    assert run.settings["data"]["labels"]["clusters"] == 3


def test_a_file_and_its_list_are_one_run(whole: Run, store: Path, small: Any, tmp_path: Path) -> None:
    file = tmp_path / "mixture.yaml"
    file.write_text(
        yaml.safe_dump({"mixture": [{"recipe": PERLIN, "share": 0.3}, {"store": str(store), "share": 0.7}]})
    )
    options = [word for name, value in small.items() for word in ("--set", f"{name}={value}")]
    arguments = ["pretrain", "--recipe", str(file), "--set", "workers=0", *options, "--out", str(tmp_path / "run")]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    assert same(tmp_path / "run", whole.folder)
    told = CliRunner().invoke(app, [*arguments, "--overwrite", "--size", "64"])
    assert told.exit_code == 2
    assert "--size: the recipes of a mixture have their own settings" in " ".join(told.output.split())
    file.write_text("mixture: [perlin, nowhere/store]\n")
    with pytest.raises(ConfigError, match=r"mixture\.yaml: mixture\.1\.store: .*nowhere/store"):
        pretrain(file, out=tmp_path / "none", show_progress=False)


def test_a_list_of_images_with_labels_is_a_dataset_as_before(small: Any, tmp_path: Path) -> None:
    import numpy as np

    images = [(np.full((32, 32), 60 * (index % 2), np.uint8), index % 2) for index in range(32)]
    settings = small | {"epochs": 1, "milestones": [], "workers": 0}
    run = pretrain(images, out=tmp_path / "run", settings=settings, show_progress=False)
    assert run.settings["data"]["images"] == 32 and "digest" in run.settings["data"]
