from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import Places365

from formulavision.data.downstream import DownstreamSettings, open_downstream
from formulavision.util.errors import DownstreamError

Digest = Callable[[Path], tuple[str, str]]

CATEGORIES = ("/a/airfield", "/a/apartment_building/outdoor", "/z/zen_garden")


def photo(file: Path, value: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (value, value, value)).save(file)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """As torchvision keeps the small images: lists, ``data_256_standard/a/airfield/*.jpg`` and ``val_256/*.jpg``."""
    train, val = [], []
    for label, category in enumerate(CATEGORIES):
        for i in range(1, 4):
            train.append(f"{category}/{i:08d}.jpg {label}\n")
            photo(tmp_path / "data_256_standard" / f"{category[1:]}/{i:08d}.jpg", 80 * label + i)
    for i, label in enumerate((2, 0, 1, 0), 1):
        val.append(f"Places365_val_{i:08d}.jpg {label}\n")
        photo(tmp_path / "val_256" / f"Places365_val_{i:08d}.jpg", 80 * label + i)
    (tmp_path / "categories_places365.txt").write_text("".join(f"{c} {i}\n" for i, c in enumerate(CATEGORIES)))
    (tmp_path / "places365_train_standard.txt").write_text("".join(train))
    (tmp_path / "places365_val.txt").write_text("".join(val))
    return tmp_path


@pytest.fixture
def known(root: Path, digest: Digest, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision is told the digests of these lists."""
    monkeypatch.setattr(Places365, "_CATEGORIES_META", digest(root / "categories_places365.txt"))
    lists = {"train-standard": "places365_train_standard.txt", "val": "places365_val.txt"}
    monkeypatch.setattr(Places365, "_FILE_LIST_META", {split: digest(root / name) for split, name in lists.items()})


@pytest.mark.usefixtures("known")
def test_torchvision_reads_the_same_images_and_labels(root: Path) -> None:
    ours = open_downstream(f"places365:{root}")
    for side, split in ((ours.train, "train-standard"), (ours.test, "val")):
        theirs = Places365(str(root), split=split, small=True)
        assert (len(side), side.classes) == (len(theirs), [name[3:] for name in theirs.classes])
        for i, (image, label) in enumerate(side):
            assert label == theirs[i][1]
            np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), np.asarray(theirs[i][0]))


def test_large_images_are_read_where_there_are_no_small_ones(root: Path) -> None:
    (root / "data_256_standard").rename(root / "data_large_standard")
    (root / "val_256").rename(root / "val_large")
    data = open_downstream(f"places365:{root}")
    assert data.describe() == f"places365:{root}: 9 training and 4 test images of 3 classes"
    assert data.test[0][1] == 2


@pytest.mark.parametrize("listed", [("zen_garden", "airfield"), ("/z/zen_garden", "/a/airfield")])
def test_a_subset_is_listed_with_or_without_the_letter(root: Path, listed: tuple[str, ...]) -> None:
    data = open_downstream(DownstreamSettings(kind="places365", root=root, classes=listed))
    assert data.classes == ["zen_garden", "airfield"]
    assert [label for _, label in data.test] == [0, 1, 1]


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("categories_places365.txt", "/a/airfield 0\n/b/bar 2\n", "must number the classes from 0"),
        ("places365_val.txt", "Places365_val_00000001.jpg 365\n", "must hold images with labels from 0 to 2"),
        ("places365_val.txt", "Places365_val_00000001.jpg\n", "must hold a name and a number on each line"),
        ("places365_val.txt", "Places365_val_00000009.jpg 1\n", "Places365_val_00000009.jpg: No such file"),
    ],
)
def test_what_is_wrong_with_a_list_is_named(root: Path, name: str, text: str, named: str) -> None:
    (root / name).write_text(text)
    with pytest.raises(DownstreamError, match=named):
        open_downstream(f"places365:{root}")


def test_the_layout_is_named_where_it_is_not_met(tmp_path: Path) -> None:
    with pytest.raises(
        DownstreamError, match=r"is not there .*must hold categories_places365.txt, .*data_256_standard/"
    ):
        open_downstream(DownstreamSettings(kind="places365", root=tmp_path, download=False))


@pytest.mark.usefixtures("known")
def test_what_is_absent_is_downloaded_by_torchvision(
    root: Path, served: tuple[Path, str], digest: Digest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, address = served
    archives = {
        "filelist.tar": {name: name for name in (file.name for file in root.glob("*.txt"))},
        "train.tar": {"data_256_standard": "data_256"},  # which torchvision renames
        "val.tar": {"val_256": "val_256"},
    }
    for archive, content in archives.items():
        with tarfile.open(folder / archive, "w") as tar:
            for name, packed in content.items():
                tar.add(root / name, packed)
    monkeypatch.setattr(Places365, "_BASE_URL", address)
    monkeypatch.setattr(Places365, "_DEVKIT_META", {"standard": digest(folder / "filelist.tar")})
    images = {("train-standard", True): digest(folder / "train.tar"), ("val", True): digest(folder / "val.tar")}
    monkeypatch.setattr(Places365, "_IMAGES_META", images)
    fetched = open_downstream(DownstreamSettings(kind="places365", root=tmp_path / "kept", download=True)).identity()
    here = open_downstream(f"places365:{root}").identity()
    assert {**fetched, "name": ""} == {**here, "name": ""}
