from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from PIL import Image

from formulavision.data.downstream import DownstreamSettings, open_downstream
from formulavision.data.downstream.torchvision_sets import TORCHVISION
from formulavision.util.errors import DownstreamError


@pytest.mark.parametrize("kind", TORCHVISION)
def test_torchvision_has_the_dataset_and_takes_the_arguments(kind: str) -> None:
    from torchvision import datasets

    name, *sides = TORCHVISION[kind]
    parameters = inspect.signature(getattr(datasets, name)).parameters
    assert {"root", "download", *(key for side in sides for key in side)} <= set(parameters)


@pytest.mark.parametrize("kind", TORCHVISION)
def test_an_absent_dataset_is_named_in_one_line_where_download_is_off(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DownstreamError, match=f"{kind}: is not there") as caught:
        open_downstream(DownstreamSettings(kind=kind, root=tmp_path, download=False))
    assert "\n" not in str(caught.value)


def test_food101_in_its_own_layout(tmp_path: Path) -> None:
    base = tmp_path / "food-101"
    meta: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for label, name in enumerate(("apple_pie", "baklava")):
        (base / "images" / name).mkdir(parents=True)
        for i, side in enumerate(("train", "train", "test")):
            Image.new("RGB", (9, 9), (50 * label, i, 0)).save(base / "images" / name / f"{i}.jpg")
            meta[side].setdefault(name, []).append(f"{name}/{i}")
    (base / "meta").mkdir()
    for side, names in meta.items():
        (base / "meta" / f"{side}.json").write_text(json.dumps(names))
    data = open_downstream(DownstreamSettings(kind="food101", root=tmp_path, download=False, train_per_class=1))
    assert (data.classes, len(data.train), len(data.test)) == (["apple_pie", "baklava"], 2, 2)
    assert [int(data.test[i][0][0].float().mean().round()) for i in range(2)] == [0, 50]
    assert [data.test[i][1] for i in range(2)] == [0, 1]


def test_gtsrb_in_its_own_layout(tmp_path: Path) -> None:
    base = tmp_path / "gtsrb"
    for name in ("00000", "00001"):
        (base / "GTSRB" / "Training" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(base / "GTSRB" / "Training" / name / "0.ppm")
    (base / "GTSRB" / "Final_Test" / "Images").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(base / "GTSRB" / "Final_Test" / "Images" / "0.ppm")
    (base / "GT-final_test.csv").write_text("Filename;ClassId\n0.ppm;1\n")
    data = open_downstream(DownstreamSettings(kind="gtsrb", root=tmp_path, download=False))
    assert (len(data.train), data.test[0][1], data.classes) == (2, 1, ["0", "1"])
