"""The ways in which people lay out a folder of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from formulavision.data.downstream import Downstream, DownstreamSettings, open_downstream
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError, DownstreamError


def fill(root: Path, *folders: str, images: int = 3, suffix: str = "png") -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(images):
            Image.new("RGB", (8, 6), (i, 2, 3)).save(root / folder / f"{i:03d}.{suffix}", "PNG")
    return root


def opened(root: Path, **settings: object) -> Downstream:
    return open_downstream(parse(DownstreamSettings, {"kind": "folder", "root": str(root), **settings}))


def files(data: Downstream, side: str) -> set[str]:
    images = getattr(data, side)
    return {images.source.path(int(i)) for i in images.indices}


# Divided folders


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
@pytest.mark.parametrize("test", ["test", "Testing", "val", "VALID", "Validation"])
def test_the_usual_names_of_the_parts_are_known_in_any_case(tmp_path: Path, train: str, test: str) -> None:
    fill(tmp_path, f"{train}/cat", f"{train}/dog", images=4)
    fill(tmp_path, f"{test}/cat", f"{test}/dog", images=2)
    data = opened(tmp_path)
    assert (len(data.train), len(data.test), data.classes, data.note) == (8, 4, ["cat", "dog"], "")


def test_the_tested_part_can_be_chosen_and_is_told(tmp_path: Path) -> None:
    fill(tmp_path, "train/cat", "train/dog", images=4)
    fill(tmp_path, "valid/cat", "valid/dog", images=3)
    fill(tmp_path, "test/cat", "test/dog", images=2)
    for choice, count, name in [(None, 4, "test"), ("test", 4, "test"), ("val", 6, "valid"), ("Valid", 6, "valid")]:
        data = opened(tmp_path, test_split=choice)
        assert len(data.test) == count
        assert data.describe().endswith(f"(tested on {name}/)")
    with pytest.raises(ConfigError, match="test_split: 'train' is not allowed"):
        opened(tmp_path, test_split="train")


@pytest.mark.parametrize("unlabelled", ["test", "test/unknown", "test/images"])
def test_a_labelled_part_is_tested_on_where_the_test_images_have_no_labels(tmp_path: Path, unlabelled: str) -> None:
    fill(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog")
    fill(tmp_path, unlabelled, images=5)
    data = opened(tmp_path)
    assert len(data.test) == 6 and data.note == "tested on val/"


def test_a_test_set_without_labels_alone_is_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "train/cat", "train/dog", images=5)
    fill(tmp_path, "test")
    data = opened(tmp_path)
    assert (len(data.train), len(data.test)) == (8, 2)
    assert "20% of each class put aside" in data.describe()


@pytest.mark.parametrize(
    ("folders", "settings", "told"),
    [
        (["train/cat", "train/dog", "test/cow", "test/eel"], {}, "class 'cat' has images in train/ only"),
        (["train/cat", "train/dog", "Training/cat"], {}, "holds Training/ and train/"),
        (["train/cat", "train/dog", "val/cat", "val/dog"], {"test_split": "test"}, "has no test/ beside train/"),
        (
            ["train/cat", "train/dog", "val/cat", "val/dog"],
            {"test_share": 0.1},
            "test_share is for a folder without test images",
        ),
        (["cat", "dog"], {"test_split": "val"}, "test_split is for a folder with these"),
        (["val/cat", "val/dog", "test/cat"], {}, "has no train/"),
        (["test/cat", "test/dog"], {}, "has no train/"),
        (["train", "test"], {}, "train: holds no classes"),
        (["cat"], {}, "holds the one class 'cat'"),
        ([], {}, "holds no classes"),
        (["cat", "dog"], {"classes": ["cat", "dgo"]}, "has no class 'dgo' .did you mean 'dog'"),
        (["cat", "dog"], {"exclude": ["dgo"]}, "has no class 'dgo' .did you mean 'dog'"),
        (["cat", "dog"], {"exclude": ["dog"]}, "holds the one class 'cat'"),
    ],
)
def test_what_cannot_be_divided_is_named(
    tmp_path: Path, folders: list[str], settings: dict[str, object], told: str
) -> None:
    fill(tmp_path, *folders)
    with pytest.raises(DownstreamError, match=told) as refused:
        opened(tmp_path, **settings)
    assert "\n" not in str(refused.value)


# Flat folders


def test_a_flat_folder_is_divided_by_class_always_alike(tmp_path: Path) -> None:
    fill(tmp_path / "a", "cat", images=50)
    fill(tmp_path / "a", "dog", images=3)
    fill(tmp_path / "a", "train", images=10)  # as a class of vehicles
    data = opened(tmp_path / "a")
    assert data.classes == ["cat", "dog", "train"]
    assert [len(data.test.showing(label)) for label in range(3)] == [10, 1, 2]
    assert [len(data.train.showing(label)) for label in range(3)] == [40, 2, 8]
    assert not files(data, "train") & files(data, "test")
    assert len(files(data, "train") | files(data, "test")) == 63
    digest = data.identity()["test_digest"]
    (tmp_path / "a").rename(tmp_path / "b")
    assert opened(tmp_path / "b").identity()["test_digest"] == digest
    assert opened(tmp_path / "b", test_seed=1).identity()["test_digest"] != digest
    more = opened(tmp_path / "b", test_share=0.5)
    assert len(more.test) == 32 and files(opened(tmp_path / "b"), "test") < files(more, "test")


def test_new_images_leave_the_others_where_they_are(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog", images=40)
    before = files(opened(tmp_path), "test")
    fill(tmp_path, "cat", images=44)
    after = files(opened(tmp_path), "test")
    assert len(before & after) >= len(before) - 4


@pytest.mark.parametrize(("share", "count"), [(0.001, 1), (0.999, 9), (0.25, 2), (0.5, 5)])
def test_each_side_has_an_image_of_each_class(tmp_path: Path, share: float, count: int) -> None:
    fill(tmp_path, "cat", "dog", images=10)
    assert len(opened(tmp_path, test_share=share).test) == 2 * count


def test_a_class_of_one_image_cannot_be_divided(tmp_path: Path) -> None:
    fill(fill(tmp_path, "cat"), "dog", images=1)
    with pytest.raises(DownstreamError, match=r"class .dog. has one image: it must have two"):
        opened(tmp_path)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, "half"])
def test_a_share_is_between_0_and_1(tmp_path: Path, share: object) -> None:
    with pytest.raises(ConfigError, match="test_share: "):
        opened(tmp_path, test_share=share)


def test_the_division_is_for_folders(tmp_path: Path) -> None:
    for name, value in [("test_split", "val"), ("test_share", 0.3), ("test_seed", 1)]:
        with pytest.raises(ConfigError, match=f"{name}: is for kind folder: digits has test images of its own"):
            parse(DownstreamSettings, {"kind": "digits", name: value})


# What is left out


def test_what_systems_leave_behind_and_empty_folders_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog")
    fill(tmp_path, "train/@eaDir", "train/cat/@eaDir", "__MACOSX/train/cat", ".cache/x")
    for empty in ("train/eel", "val/eel", "train/fox", "test"):
        (tmp_path / empty).mkdir()
    for junk in ("train/.DS_Store", "train/cat/Thumbs.db", "val/dog/._000.png"):
        (tmp_path / junk).write_bytes(b"x")
    data = opened(tmp_path)
    assert (data.classes, len(data.train), len(data.test)) == (["cat", "dog"], 6, 6)
    assert "skipped" not in data.describe()


def test_classes_and_exclude_apply_before_the_checks(tmp_path: Path) -> None:
    fill(tmp_path, "train/cat", "train/dog", "train/eel", "val/cat", "val/dog", "val/fox")
    (tmp_path / "train" / "eel" / "000.png").write_bytes(b"")
    for settings in ({"classes": ["dog", "cat"]}, {"classes": ["dog", "cat"], "exclude": ["eel"]}):
        assert opened(tmp_path, **settings).classes == ["dog", "cat"]
    fill(tmp_path, "val/eel")
    (tmp_path / "val" / "fox").rename(tmp_path / "train" / "fox")
    with pytest.raises(DownstreamError, match="empty"):
        opened(tmp_path, exclude=["fox"])
    assert opened(tmp_path, exclude=["eel", "fox"]).classes == ["cat", "dog"]
    (tmp_path / "out.txt").write_text("eel\nfox # too\n")
    assert opened(tmp_path, exclude=str(tmp_path / "out.txt")).classes == ["cat", "dog"]


def test_classes_of_any_dataset_can_be_excluded() -> None:
    data = open_downstream(parse(DownstreamSettings, {"kind": "digits", "exclude": ["0", 9]}))
    assert data.classes == [str(digit) for digit in range(1, 9)]
    assert set(data.train.labels.tolist()) == set(range(8))
    for settings, told in [
        ({"exclude": ["ten"]}, "has no class 'ten'"),
        ({"exclude": [str(digit) for digit in range(9)]}, "leaves 1 of 10 classes"),
        ({"exclude": ["1"], "classes": ["1", "2"]}, "'1' is in classes and in exclude"),
    ]:
        with pytest.raises(DownstreamError, match=told):
            open_downstream(parse(DownstreamSettings, {"kind": "digits", **settings}))


def test_files_that_are_no_images_are_counted_in_one_line(tmp_path: Path) -> None:
    fill(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog")
    fill(tmp_path, "train/cat", images=100, suffix="jfif")
    fill(tmp_path, "train/dog", suffix="PNM")
    for i, name in enumerate(("a.txt", "b.txt", "c.TXT", "d.csv", "README")):
        (tmp_path / "train" / ("cat", "dog")[i % 2] / name).write_text("x")
    data = opened(tmp_path)
    assert len(data.train) == 109
    assert data.describe().endswith("(5 files skipped: no images (.txt, .csv, without a suffix))")


def test_every_suffix_that_pil_reads_is_read() -> None:
    from formulavision.data.downstream.files import _suffixes

    usual = {".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".apng", ".gif", ".bmp", ".webp", ".tif", ".tiff",
             ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico"}  # fmt: skip
    assert usual <= _suffixes()
    assert not {".txt", ".csv", ".json", ".pdf", ".mpg", ".h5", ".npy", ".xml"} & _suffixes()


# Names


@pytest.mark.parametrize("write", [str, lambda path: f"folder:{path}", lambda path: f"{path}/"])
def test_a_path_that_exists_is_a_folder(tmp_path: Path, write: Callable[[Path], str]) -> None:
    root = fill(tmp_path / "a:b", "cat", "dog")
    data = open_downstream(write(root))
    assert (data.settings.kind, data.settings.root, len(data.train)) == ("folder", root, 4)


def test_a_relative_path_is_a_folder_and_a_known_name_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fill(tmp_path, "birds/cat", "birds/dog", "digits/cat", "digits/dog"))
    assert len(open_downstream("birds").train) == 4
    assert open_downstream("digits").num_classes == 10
    assert open_downstream("./digits").num_classes == 2
    assert DownstreamSettings.model_validate("birds").kind == "folder"


@pytest.mark.parametrize("text", ["/data/none", "./none", "a/b", "none/"])
def test_a_path_that_does_not_exist_is_no_unknown_kind(text: str) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        DownstreamSettings.from_text(text)


# Downloads


@pytest.mark.parametrize(
    ("kind", "size"),
    [("places365", "25 GB"), ("voc2012", "2 GB"), ("food101", "5 GB"), ("stl10", "2.64 GB"), ("svhn", "247 MB")],
)
def test_a_large_download_has_to_be_allowed(
    kind: str, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(*arguments: object, **keywords: object) -> None:
        raise AssertionError("downloads")

    for function in ("download_and_extract_archive", "download_url"):
        for module in ("utils", "places365", "voc", "food101", "stl10", "svhn"):
            monkeypatch.setattr(f"torchvision.datasets.{module}.{function}", fetched, raising=False)
    with pytest.raises(DownstreamError, match=rf"{kind}: is not there .*{size}; 'download: true'"):
        open_downstream(DownstreamSettings(kind=kind, root=tmp_path))
    with pytest.raises(DownstreamError, match=r"downloads|could not be downloaded"):
        open_downstream(DownstreamSettings(kind=kind, root=tmp_path, download=True))


def test_the_size_of_every_download_is_known() -> None:
    from formulavision.data.downstream.settings import KINDS
    from formulavision.data.downstream.torchvision_sets import may_download

    fetched = set(KINDS) - {"folder", "imagenet", "digits", "masks", "ade20k", "cityscapes", "corrupted"}
    unasked = {kind for kind in fetched if may_download(kind, None)}
    assert unasked == {"cifar10", "cifar100", "fashionmnist", "kmnist", "mnist", "omniglot"}
