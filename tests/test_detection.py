"""Detection with torchvision: the code of docs/detection.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torchvision.models.detection import FasterRCNN

import formulavision as fv

# pycocotools, with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

DOCUMENT = Path(__file__).parents[1] / "docs" / "detection.md"
SCENES = {
    "generator": {"name": "bezier"},
    "categories": 3,
    "scene": {"objects": [1, 3], "size": [0.4, 0.8]},
    "images": 4,
    "canvas": {"size": 64, "padding": 0},
}
SMALL = {
    "model": "resnet10t",
    "epochs": 1,
    "batch_size": 4,
    "resize": 64,
    "crop": 64,
    "milestones": [1],
    "device": "cpu",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and its export."""
    folder = tmp_path_factory.mktemp("detection")
    (folder / "scenes.yaml").write_text(yaml.safe_dump(SCENES))
    fv.generate(folder / "scenes.yaml", folder / "store")
    fv.export_data(folder / "store", folder / "coco", to="coco")
    return folder


def examples(run: fv.Run) -> list[str]:
    """The document's code on a run, at a size for a test."""
    return [
        block.replace("runs/scenes", str(run.folder)).replace("= 256, 20", "= 64, 3").replace("els=256", "els=16")
        for block in re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.parametrize("target", ["semantic", pytest.param("class", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_an_encoder_is_trained_in_mask_r_cnn_on_an_exported_store(
    prepared: Path, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared)
    data: Any = {**SCENES, "target": target}
    if target == "class":
        data = {"generator": "bezier", "categories": 3, "instances": 2, "canvas": {"size": 64}}
    run = fv.pretrain(data, out=tmp_path / "run", settings=SMALL, show_progress=False)
    build, train, draw = examples(run)
    names: dict[str, Any] = {}
    exec(build, names)
    model, kept = names["model"], fv.load_checkpoint(run).state
    prefix = "encoder." if target == "semantic" else ""
    own = {name.removeprefix("backbone.body."): value for name, value in model.state_dict().items()}
    torch.testing.assert_close(own["layer2.0.conv1.weight"], kept[f"{prefix}layer2.0.conv1.weight"])
    torch.testing.assert_close(own["bn1.running_mean"], kept[f"{prefix}bn1.running_mean"])
    assert (list(model.transform.image_mean), list(model.transform.image_std)) == ([0.2] * 3, [0.5] * 3)
    exec(train, names)
    assert torch.isfinite(names["loss"]) and names["losses"].keys() >= {"loss_mask", "loss_box_reg", "loss_objectness"}
    trained = {name.removeprefix("backbone.body."): value for name, value in model.state_dict().items()}
    assert not torch.equal(trained["layer2.0.conv1.weight"], kept[f"{prefix}layer2.0.conv1.weight"])
    exec(draw, names)
    assert all(torch.isfinite(loss) for loss in names["losses"].values())
    with torch.no_grad():
        (found,) = model.eval()([torch.rand(3, 64, 64)])
    assert found["masks"].shape[1:] == (1, 64, 64) and len(found["boxes"]) == len(found["labels"])


def test_faster_r_cnn_takes_the_same_arguments(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prepared)
    run = fv.pretrain({**SCENES, "target": "labels"}, out=tmp_path / "run", settings=SMALL, show_progress=False)
    build, train, _ = examples(run)
    names: dict[str, Any] = {}
    exec(build.replace("MaskRCNN", "FasterRCNN"), names)
    assert isinstance(names["model"], FasterRCNN)
    exec(train, names)
    assert torch.isfinite(names["loss"])


def test_the_number_of_classes_is_that_of_the_labels(prepared: Path) -> None:
    drawn = fv.FormulaDataset(prepared / "scenes.yaml", target="objects")
    labels = torch.cat([drawn[index][1]["labels"] for index in range(len(drawn))])
    assert labels.min() >= 1 and labels.max() <= SCENES["categories"]  # type: ignore[operator]
