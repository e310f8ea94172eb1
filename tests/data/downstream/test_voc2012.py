from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import VOCDetection
from torchvision.datasets.voc import DATASET_YEAR_DICT

from formulavision.data.downstream import DownstreamSettings, open_downstream
from formulavision.data.downstream.voc2012 import CLASSES
from formulavision.util.errors import DownstreamError

# Of each image its objects, and whether they are difficult to recognise.
TRAIN = {
    "2008_000002": [("tvmonitor", False)],
    "2008_000008": [("horse", False), ("person", False), ("person", True)],
    "2008_000015": [("bottle", True), ("person", False)],
    "2008_000019": [("dog", False)],
}
VAL = {"2008_000003": [("train", False), ("person", True)], "2008_000007": [("boat", False)]}

Objects = dict[str, list[tuple[str, bool]]]


def write(base: Path, split: str, images: Objects) -> None:
    for name, objects in images.items():
        Image.new("RGB", (30, 20), (int(name[-3:]) * 10, 90, 30)).save(base / "JPEGImages" / f"{name}.jpg")
        xml = "".join(
            f"<object><name>{what}</name><difficult>{int(hard)}</difficult></object>" for what, hard in objects
        )
        text = f"<annotation><folder>VOC2012</folder><filename>{name}.jpg</filename>{xml}</annotation>"
        (base / "Annotations" / f"{name}.xml").write_text(text)
    lists = base / "ImageSets" / "Main"
    (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in images))
    for what in CLASSES:
        lines = []
        for name, objects in images.items():
            hard = [difficult for kind, difficult in objects if kind == what]
            state = -1 if not hard else 0 if all(hard) else 1
            lines.append(f"{name} {state:2d}\n")  # the published lists are aligned so
        (lists / f"{what}_{split}.txt").write_text("".join(lines))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """As the published archive unpacks: ``VOCdevkit/VOC2012/`` with annotations, lists and JPEGs."""
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (base / name).mkdir(parents=True)
    write(base, "train", TRAIN)
    write(base, "val", VAL)
    return tmp_path


def states(label: torch.Tensor, names: list[str]) -> dict[str, int]:
    return {name: state for name, state in zip(names, label.tolist(), strict=True) if state}


def test_an_image_has_all_its_classes_and_difficult_ones_are_not_counted(root: Path) -> None:
    data = open_downstream(f"voc2012:{root}")
    assert data.multi_label and data.classes == CLASSES and data.num_classes == 20
    assert data.describe() == f"voc2012:{root}: 4 training and 2 test images of 20 classes, several an image"
    image, label = data.train[1]
    assert (image.dtype, image.shape) == (torch.uint8, (3, 20, 30))
    assert (label.dtype, label.shape) == (torch.int8, (20,))
    assert states(label, data.classes) == {"horse": 1, "person": 1}
    assert states(data.train[2][1], data.classes) == {"bottle": -1, "person": 1}
    assert states(data.test[0][1], data.classes) == {"train": 1, "person": -1}


@pytest.mark.parametrize("split", ["train", "val"])
def test_torchvision_reads_the_same_images_and_objects(root: Path, split: str) -> None:
    ours = open_downstream(f"voc2012:{root}")
    side = ours.train if split == "train" else ours.test
    theirs = VOCDetection(str(root), year="2012", image_set=split)
    for (image, label), (reference, annotation) in zip(side, theirs, strict=True):
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), np.asarray(reference))
        objects = annotation["annotation"]["object"]
        present = {found["name"] for found in objects if found["difficult"] == "0"}
        difficult = {found["name"] for found in objects} - present
        assert states(label, ours.classes) == dict.fromkeys(present, 1) | dict.fromkeys(difficult, -1)


def test_the_year_s_folder_itself_may_be_the_root(root: Path) -> None:
    base = root / "VOCdevkit" / "VOC2012"
    same = open_downstream(f"voc2012:{base}").identity()
    assert same["train_digest"] == open_downstream(f"voc2012:{root}").identity()["train_digest"]


def test_a_subset_of_classes_keeps_all_images_as_examples_of_absence(root: Path) -> None:
    data = open_downstream(DownstreamSettings(kind="voc2012", root=root, classes=("person", "dog")))
    assert [label.tolist() for _, label in data.train] == [[0, 0], [1, 0], [1, 0], [0, 1]]


def test_a_cut_has_n_images_that_show_each_class(root: Path) -> None:
    settings = DownstreamSettings(kind="voc2012", root=root, classes=("person", "horse"), train_per_class=1)
    chosen = [open_downstream(settings.model_copy(update={"subset_seed": seed})).train for seed in range(8)]
    assert {tuple(side.indices.tolist()) for side in chosen} == {(1,), (1, 2)}
    assert all((side.labels == 1).any(axis=0).all() for side in chosen)
    with pytest.raises(DownstreamError, match="train_per_class is 3: class 'person' has only 2 images"):
        open_downstream(settings.model_copy(update={"train_per_class": 3}))


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("cat_val.txt", "2008_000003 -1\n", "cat_val.txt: does not list the images that aeroplane_val.txt lists"),
        ("cat_val.txt", "2008_000003 2\n2008_000007 -1\n", "cat_val.txt: must hold an image and 1, 0 or -1 a line"),
        ("cat_val.txt", None, "cat_val.txt: No such file or directory"),
    ],
)
def test_what_is_wrong_with_a_list_is_named(root: Path, name: str, text: str | None, named: str) -> None:
    file = root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Main" / name
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(DownstreamError, match=named):
        open_downstream(f"voc2012:{root}")


def test_a_missing_image_is_named(root: Path) -> None:
    (root / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2008_000007.jpg").unlink()
    with pytest.raises(DownstreamError, match=r"2008_000007.jpg: No such file"):
        open_downstream(f"voc2012:{root}")


def test_the_layout_is_named_where_it_is_not_met(tmp_path: Path) -> None:
    with pytest.raises(
        DownstreamError, match=r"must hold VOCdevkit/VOC2012/ with JPEGImages/ and ImageSets/Main/<class>"
    ):
        open_downstream(DownstreamSettings(kind="voc2012", root=tmp_path, download=False))


def test_what_is_absent_is_downloaded_by_torchvision(
    root: Path,
    served: tuple[Path, str],
    digest: Callable[[Path], tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder, address = served
    with tarfile.open(folder / "trainval.tar", "w") as tar:
        tar.add(root / "VOCdevkit", "VOCdevkit")
    name, md5 = digest(folder / "trainval.tar")
    published = DATASET_YEAR_DICT["2012"] | {"url": address + name, "filename": name, "md5": md5}
    monkeypatch.setitem(DATASET_YEAR_DICT, "2012", published)
    fetched = open_downstream(DownstreamSettings(kind="voc2012", root=tmp_path / "kept", download=True)).identity()
    assert {**fetched, "name": ""} == {**open_downstream(f"voc2012:{root}").identity(), "name": ""}


def test_a_failed_download_says_what_to_put_there_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = DATASET_YEAR_DICT["2012"] | {"url": "http://127.0.0.1:9/nobody_listens_there.tar"}
    monkeypatch.setitem(DATASET_YEAR_DICT, "2012", published)
    with pytest.raises(DownstreamError, match=r"\(as VOCdevkit/VOC2012/ with .*could not be downloaded in ") as caught:
        open_downstream(DownstreamSettings(kind="voc2012", root=tmp_path / "kept", download=True))
    assert "\n" not in str(caught.value) and "Connection refused" in str(caught.value)
