"""Every public object says in one line what it is."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

import formulavision as fv
from formulavision.comparison import ComparisonSettings
from formulavision.data.mixtures import as_mixture

RECIPE = {"generator": {"name": "perlin", "grid": 2}, "categories": 2, "instances": 2,
          "canvas": {"size": 16, "padding": 0}}  # fmt: skip
SPECIAL = {"Generator", "Params", "DeviceRenderer", "DeviceScenes", "ImageDataset", "Progress", "RecipeDataset",
           "LightningClassifier", "Task"}  # fmt: skip
"""Classes to subclass, protocols, and a torch module, which lists its layers as any other."""


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An instance of each public class."""
    root = tmp_path_factory.mktemp("objects")
    drawer = fv.Drawer(RECIPE)
    store = fv.generate(RECIPE, root / "store")
    training = {"model": "test_resnet", "epochs": 1, "batch_size": 4, "crop": 32, "milestones": [], "workers": 0}
    run = fv.pretrain(store, out=root / "run", settings=training, show_progress=False)
    checkpoint = fv.load_checkpoint(run)
    metrics: dict[str, Any] = {"metric": "top-1 accuracy", "score": 0.5, "top1": 0.5, "topk": 1.0, "k": 2, "loss": 0.7,
                               "per_class": [0.5, 0.5], "confusion": np.ones((2, 2), np.int64),
                               "pixel_accuracy": None}  # fmt: skip
    tested: dict[str, Any] = {**metrics, "images": 4, "classes": ["a", "b"], "seconds": 1.0, "folder": root}
    digits = {"kind": "digits", "train_per_class": 5}
    settings = ComparisonSettings.of(
        {"name": "mine", "arms": {"scratch": None, "perlin": {"recipe": RECIPE}}, "downstreams": {"d": digits}}, None
    )
    computed = fv.Provenance(machine="a CPU", versions={"torch": "2.9"})
    result = fv.Result("perlin", "d", "none", 0, 0.5, "top-1 accuracy", computed=computed)
    facts = fv.ArmFacts(
        content="0", origin="perlin", scratch=False, base="perlin", recipe=fv.Recipe.from_dict(RECIPE).to_dict()
    )
    findings = fv.Findings(
        name="mine", size="full", model="resnet18", data="on-demand", arms={"perlin": facts}, downstreams={"d": "0"},
        freezes=["none"], results=[result, fv.Result("scratch", "d", "none", 0)],
    )  # fmt: skip
    opened = fv.open_downstream(digits)
    made: list[Any] = [
        drawer, store, run, checkpoint, settings, computed, result, facts, findings, opened, opened.train,
        fv.DeviceDrawer(drawer, torch.device("cpu")), fv.FormulaDataset(RECIPE), fv.StoredDataset(store),
        fv.FormulaDataModule(RECIPE, training), fv.MixturePart(store=store.path), as_mixture([RECIPE, store]),
        fv.Comparison(settings, root, findings), settings.arms["perlin"], drawer.recipe, drawer.recipe.canvas,
        drawer.recipe.generator, drawer.recipe.categories, drawer.categories[1], fv.plugins(), fv.plugins()["perlin"],
        fv.Metrics(**metrics), fv.Evaluation(**tested), fv.LabelSettings(noise=0.25), fv.DownstreamSettings(**digits),
        fv.MixingSettings(recipe=fv.Recipe.from_dict(RECIPE)),
        fv.Probe(**tested, method="knn", train_images=4, draws=[0.5], spread=None, penalty=None),
        fv.FormulaScore("perlin", 2, 4, 0.5, None, 0.5, -2.0, 0.0, 6.5),
        fv.CorruptionEvaluation({"fog": [0.5] * 5}, {"fog": [0.1] * 5}, ["fog"], False, 4, 1.0, root),
        fv.ClassDifference("a", 4, 0.5, 0.25, 0.25, 0.5), fv.TrainSettings(epochs=3), fv.verify(store),
        fv.bench(RECIPE, seconds=0.001), fv.Loaded(["a"], [], [], []),
        drawer.recipe.all_parts[0], fv.SceneSettings(objects=(2, 3)),
        fv.SceneBatch(np.zeros((1, 8, 8, 1), np.uint8), np.zeros((1, 8, 8), np.uint16), [np.array([3])]),
        fv.Scene(np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8), np.uint16), np.array([3, 4])),
        fv.WalkedStreams("rcdb", {}, streams=2, length=9, stretch=3, start=np.zeros, walk=lambda state, images: state),
    ]  # fmt: skip
    return {type(each).__name__: each for each in made}


def public_classes() -> list[str]:
    classes = [name for name in dir(fv) if isinstance(getattr(fv, name), type)]
    return [name for name in classes if name not in SPECIAL and not issubclass(getattr(fv, name), Exception)]


@pytest.mark.parametrize("name", public_classes())
def test_a_public_object_says_in_one_line_what_it_is(name: str, objects: dict[str, Any]) -> None:
    told = repr(objects[name])
    assert told.startswith(f"{name}(") and " at 0x" not in told
    assert "\n" not in told and 12 < len(told) < 400, told


def test_lines_hold_the_facts(objects: dict[str, Any]) -> None:
    identity = objects["Recipe"].id
    assert repr(objects["Recipe"]) == (
        f"Recipe(perlin: 2 categories x 2 images of 16 x 16, gray, seed 1, id {identity})"
    )
    assert repr(objects["TrainSettings"]) == "TrainSettings(epochs=3)"
    assert repr(objects["Canvas"]) == "Canvas(size=16, padding=0)"
    assert repr(objects["Drawer"].generator) == "Perlin(PerlinParams(grid=2), Canvas(size=16, padding=0), seed=1)"
    assert repr(objects["Result"]) == "Result(perlin on d, frozen: none, seed 0: top-1 accuracy 50.00%)"
    assert repr(objects["Findings"]) == "Findings(mine: 1 arm, 1 of 2 results)"
    assert repr(objects["ComparisonSettings"]) == "ComparisonSettings(mine: 2 arms, 1 downstream, 1 seed)"
    assert repr(objects["Downstream"]) == "Downstream(digits: 50 training and 450 test images of 10 classes)"
    assert {"bezier", "ifs", "perlin"} <= set(re.findall(r"[\w-]+", repr(objects["Registry"])))
