from __future__ import annotations

import pickle
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

import formulavision as fv
from formulavision.data.downstream import open_downstream
from formulavision.util.errors import DownstreamError

MakeFolder = Callable[..., Path]


@pytest.mark.parametrize("test", ["test", "val"])
def test_a_folder_gives_its_images_with_the_labels_of_their_subfolders(
    tmp_path: Path, test: str, make_folder: MakeFolder
) -> None:
    data = open_downstream(f"folder:{make_folder(tmp_path, test=test)}")
    assert data.classes == ["cat", "dog"] and data.num_classes == 2
    assert (len(data.train), len(data.test)) == (6, 4)
    image, label = data.train[4]
    assert (image.dtype, image.shape, label) == (torch.uint8, (3, 6, 9), 1)
    assert [channel.unique().tolist() for channel in image] == [[11], [12], [13]]
    assert data.describe() == f"folder:{tmp_path}: 6 training and 4 test images of 2 classes"


def test_gray_palette_transparent_and_16_bit_images_become_rgb(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path)
    for mode in ("L", "P", "RGBA", "1", "LA", "CMYK", "I;16"):
        suffix = "tif" if mode == "CMYK" else "png"
        Image.new(mode, (5, 5)).save(tmp_path / "train" / "cat" / f"{mode.replace(';', '')}.{suffix}")
    data = open_downstream(f"folder:{tmp_path}")
    assert {data.train[i][0].shape[0] for i in range(len(data.train))} == {3}


def test_other_files_and_hidden_ones_are_left_alone(tmp_path: Path, make_folder: MakeFolder) -> None:
    make_folder(tmp_path)
    (tmp_path / "train" / "notes.txt").write_text("x")
    (tmp_path / "train" / "cat" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "train" / "cat" / "._0000.png").write_bytes(b"")
    (tmp_path / "train" / ".cache").mkdir()
    assert len(open_downstream(f"folder:{tmp_path}").train) == 6


def remove(*names: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        for name in names:
            shutil.rmtree(root / name)

    return damage


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)

    return damage


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (remove("."), "no such folder"),
        (remove("train"), "has no train/"),
        (remove("train/cat", "train/dog"), "train: holds no classes"),
        (remove("train/dog"), "holds the one class 'cat'"),
        (remove("train/dog", "train/cat", "test/dog", "test/cat"), "train: holds no classes"),
        (write("Training/0.png", b"x"), "holds Training/ and train/, which stand for the same"),
        (write("test/eel/0.png", b""), "class 'eel' has images in test/ only"),
        (write("train/cat/zero.png", b""), r"zero.png: is empty \(0 bytes\)"),
        (write("train/cat/text.jpg", b"no picture at all"), "text.jpg: is not an image that can be read"),
        (remove("test/dog"), "holds the one class"),
        (lambda root: (root / "train/cat/self").symlink_to("self"), "train/cat/self: Too many levels of symbolic"),
        (lambda root: (root / "train/self").symlink_to("self"), "train/self: Too many levels of symbolic"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named_in_one_line(
    tmp_path: Path, damage: Callable[[Path], None], named: str, make_folder: MakeFolder
) -> None:
    root = make_folder(tmp_path / "data")
    damage(root)
    with pytest.raises(DownstreamError, match=named) as caught:
        open_downstream(f"folder:{root}")
    assert "\n" not in str(caught.value) and str(root) in str(caught.value)


def test_a_store_is_told_from_a_folder_of_images(tmp_path: Path) -> None:
    recipe = {"generator": "perlin", "categories": 2, "instances": 2, "canvas": {"size": 16, "padding": 0}}
    fv.generate(recipe, out=tmp_path / "store")
    with pytest.raises(DownstreamError, match="it is a store, which is for pre-training: --data"):
        open_downstream(f"folder:{tmp_path / 'store'}")


def test_a_class_of_one_side_only_is_named(tmp_path: Path, make_folder: MakeFolder) -> None:
    root = make_folder(tmp_path)
    shutil.copytree(root / "test" / "dog", root / "test" / "eel")
    with pytest.raises(DownstreamError, match="class 'eel' has images in test/ only"):
        open_downstream(f"folder:{root}")


def test_an_image_that_fails_only_in_decoding_is_named_when_it_is_read(tmp_path: Path, make_folder: MakeFolder) -> None:
    root = make_folder(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = root / "train" / "cat" / "0000.png"
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:5000])
    data = open_downstream(f"folder:{root}")
    with pytest.raises(DownstreamError, match=r"0000.png: cannot be decoded"):
        data.train[0]


def test_a_dataset_goes_through_pickle_to_workers(tmp_path: Path, make_folder: MakeFolder) -> None:
    data = open_downstream(f"folder:{make_folder(tmp_path)}")
    again = pickle.loads(pickle.dumps(data.train))
    assert all(torch.equal(again[i][0], data.train[i][0]) and again[i][1] == data.train[i][1] for i in range(6))


def test_a_folder_is_checked_at_thousands_of_images_a_second(tmp_path: Path, make_folder: MakeFolder) -> None:
    root = make_folder(tmp_path)
    for i in range(2000):
        shutil.copy(root / "train" / "cat" / "0000.png", root / "train" / "dog" / f"copy{i}.png")
    started = time.process_time()
    open_downstream(f"folder:{root}")
    assert time.process_time() - started < 2


@pytest.mark.slow
def test_the_real_cifar10_opens_from_its_folder(shared_data: Path, tmp_path: Path) -> None:
    archive = shared_data / "cifar10-jpeg.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no {archive.name}")
    subprocess.run(["tar", "xJf", archive, "-C", tmp_path, "test/bird", "test/cat"], check=True)
    (tmp_path / "train").symlink_to("test")
    data = open_downstream(f"folder:{tmp_path}")
    assert data.classes == ["bird", "cat"]
    assert np.bincount(data.test.labels).tolist() == [1000, 1000]
    assert {data.test[i][0].shape for i in range(0, 2000, 100)} == {(3, 32, 32)}


def test_torchvision_reads_the_same_images_and_labels(tmp_path: Path, make_folder: MakeFolder) -> None:
    root = make_folder(tmp_path)
    (root / "train" / "cat" / "deeper").mkdir()
    Image.new("RGB", (4, 4), (9, 8, 7)).save(root / "train" / "cat" / "deeper" / "9.png")
    ours = open_downstream(f"folder:{root}")
    for side in ("train", "test"):
        theirs = ImageFolder(str(root / side))
        expected = {(np.asarray(image).tobytes(), label) for image, label in theirs}
        images = getattr(ours, side)
        assert {(image.permute(1, 2, 0).numpy().tobytes(), label) for image, label in images} == expected
        assert (images.classes, len(images)) == (theirs.classes, len(theirs))


def test_headers_are_looked_at_in_a_sample_and_sizes_in_a_larger_one(
    tmp_path: Path, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(tmp_path, images=9)
    monkeypatch.setattr("formulavision.data.downstream.files.ImageFiles.checked", 2)
    (root / "train" / "cat" / "0004.png").write_bytes(b"no image")
    data = open_downstream(f"folder:{root}")
    with pytest.raises(DownstreamError, match=r"0004.png: cannot be decoded"):
        data.train[4]
    monkeypatch.setattr("formulavision.data.downstream.files._SIZES", 35)
    (root / "train" / "cat" / "0004.png").write_bytes(b"")
    with pytest.raises(DownstreamError, match=r"0004.png: is empty"):
        open_downstream(f"folder:{root}")


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path, make_folder: MakeFolder) -> None:
    root = make_folder(tmp_path)
    (root / "train" / "cat" / "gone.png").symlink_to(tmp_path / "nothing.png")
    with pytest.raises(DownstreamError, match=r"gone.png: No such file or directory: replace or remove it"):
        open_downstream(f"folder:{root}")


def test_other_pixels_in_files_of_the_same_size_are_other_images(tmp_path: Path) -> None:
    def write(root: Path, value: int) -> Path:
        for side in ("train", "test"):
            for name in ("cat", "dog"):
                (root / side / name).mkdir(parents=True)
                for i in range(3):
                    Image.new("RGB", (8, 8), (value, i, 0)).save(root / side / name / f"{i}.bmp")
        return root

    digests = [open_downstream(f"folder:{write(tmp_path / str(v), v)}").train.digest() for v in (1, 2)]
    assert digests[0] != digests[1]


def test_of_many_files_some_hundred_are_read_to_tell_them_from_others(
    tmp_path: Path, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(tmp_path, images=9)
    data = open_downstream(f"folder:{root}")
    monkeypatch.setattr("formulavision.data.downstream.files._CONTENTS", 5)
    read: list[int] = []

    def noted(self: Any, index: int) -> bytes:
        read.append(int(index))
        return b""

    monkeypatch.setattr(type(data.train.source), "_bytes", noted)
    data.train.digest()
    assert read == [0, 4, 8, 13, 17]


def test_the_identity_is_of_the_content_and_not_of_the_place(tmp_path: Path, make_folder: MakeFolder) -> None:
    def identity(root: Path) -> dict[str, object]:
        found = open_downstream(f"folder:{root}").identity()
        return {key: value for key, value in found.items() if key != "name"}

    first = make_folder(tmp_path / "first")
    shutil.copytree(first, tmp_path / "second")
    before = identity(first)
    assert identity(tmp_path / "second") == before
    (first / "test" / "cat" / "0000.png").rename(first / "test" / "cat" / "other.png")
    after = identity(first)
    assert after["test_digest"] != before["test_digest"] and after["train_digest"] == before["train_digest"]
    (tmp_path / "second" / "train" / "cat").rename(tmp_path / "second" / "train" / "cow")
    (tmp_path / "second" / "test" / "cat").rename(tmp_path / "second" / "test" / "cow")
    assert identity(tmp_path / "second")["test_digest"] != before["test_digest"]
