from __future__ import annotations

import inspect
import json
import pickle
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from formulavision.downstream import DownstreamSettings, open_downstream
from formulavision.downstream_torchvision import TORCHVISION
from formulavision.errors import ConfigError, DownstreamError


def make_folder(root: Path, *, test: str = "test", classes: tuple[str, ...] = ("cat", "dog"), images: int = 3) -> Path:
    for side, count in (("train", images), (test, 2)):
        for label, name in enumerate(classes):
            (root / side / name).mkdir(parents=True)
            for i in range(count):
                value = 10 * label + i
                Image.new("RGB", (8 + i, 6), (value, value + 1, value + 2)).save(root / side / name / f"{i:04d}.png")
    return root


# Folders -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", ["test", "val"])
def test_a_folder_gives_its_images_with_the_labels_of_their_subfolders(tmp_path: Path, test: str) -> None:
    data = open_downstream(f"folder:{make_folder(tmp_path, test=test)}")
    assert data.class_names == ["cat", "dog"] and data.num_classes == 2
    assert (len(data.train), len(data.test)) == (6, 4)
    image, label = data.train[4]
    assert (image.dtype, image.shape, label) == (torch.uint8, (3, 6, 9), 1)
    assert [channel.unique().tolist() for channel in image] == [[11], [12], [13]]
    assert data.describe() == f"folder:{tmp_path}: 6 training and 4 test images of 2 classes"


def test_gray_palette_transparent_and_16_bit_images_become_rgb(tmp_path: Path) -> None:
    make_folder(tmp_path)
    for mode in ("L", "P", "RGBA", "1", "LA", "CMYK", "I;16"):
        suffix = "tif" if mode == "CMYK" else "png"
        Image.new(mode, (5, 5)).save(tmp_path / "train" / "cat" / f"{mode.replace(';', '')}.{suffix}")
    data = open_downstream(f"folder:{tmp_path}")
    assert {data.train[i][0].shape[0] for i in range(len(data.train))} == {3}


def test_other_files_and_hidden_ones_are_left_alone(tmp_path: Path) -> None:
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


def empty_class(root: Path) -> None:
    (root / "train" / "eel").mkdir()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (remove("."), "no such folder"),
        (remove("train"), "has no train/"),
        (remove("test"), r"has no val/ or test/"),
        (remove("train/cat", "train/dog"), "train: holds no classes"),
        (remove("train/dog"), "holds the one class 'cat'"),
        (empty_class, "eel: holds no images"),
        (write("test/eel/0.png", b""), r"0.png: is empty \(0 bytes\)"),
        (write("train/cat/zero.png", b""), r"zero.png: is empty \(0 bytes\)"),
        (write("train/cat/text.jpg", b"no picture at all"), "text.jpg: is not an image that can be read"),
        (remove("test/dog"), "holds the one class"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named_in_one_line(
    tmp_path: Path, damage: Callable[[Path], None], named: str
) -> None:
    root = make_folder(tmp_path / "data")
    damage(root)
    with pytest.raises(DownstreamError, match=named) as caught:
        open_downstream(f"folder:{root}")
    assert "\n" not in str(caught.value) and str(root) in str(caught.value)


def test_a_class_of_one_side_only_is_named(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    shutil.copytree(root / "test" / "dog", root / "test" / "eel")
    with pytest.raises(DownstreamError, match="class 'eel' is in test/ only"):
        open_downstream(f"folder:{root}")


def test_an_image_that_fails_only_in_decoding_is_named_when_it_is_read(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = root / "train" / "cat" / "0000.png"
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:5000])
    data = open_downstream(f"folder:{root}")
    with pytest.raises(DownstreamError, match=r"0000.png: cannot be decoded"):
        data.train[0]


def test_a_dataset_goes_through_pickle_to_workers(tmp_path: Path) -> None:
    data = open_downstream(f"folder:{make_folder(tmp_path)}")
    again = pickle.loads(pickle.dumps(data.train))
    assert all(torch.equal(again[i][0], data.train[i][0]) and again[i][1] == data.train[i][1] for i in range(6))


def test_a_folder_is_checked_at_thousands_of_images_a_second(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    for i in range(2000):
        shutil.copy(root / "train" / "cat" / "0000.png", root / "train" / "dog" / f"copy{i}.png")
    started = time.perf_counter()
    open_downstream(f"folder:{root}")
    assert time.perf_counter() - started < 2


# Subsets -------------------------------------------------------------------------------------------------------------


def test_a_subset_has_n_images_a_class_chosen_by_its_seed() -> None:
    def chosen(**given: int) -> list[int]:
        data = open_downstream(DownstreamSettings(kind="digits", **given))  # type: ignore[arg-type]
        return data.train.indices.tolist()

    some = DownstreamSettings(kind="digits", train_per_class=7, test_per_class=3)
    data = open_downstream(some)
    assert Counter(data.train.labels.tolist()) == dict.fromkeys(range(10), 7)
    assert Counter(data.test.labels.tolist()) == dict.fromkeys(range(10), 3)
    assert chosen(train_per_class=7) == data.train.indices.tolist()
    assert chosen(train_per_class=7, subset_seed=1) != chosen(train_per_class=7)
    assert set(chosen(train_per_class=7)) < set(chosen(train_per_class=9))


def test_more_images_than_there_are_is_refused() -> None:
    with pytest.raises(DownstreamError, match=r"train_per_class is 500: class '\d' has only \d+ images"):
        open_downstream(DownstreamSettings(kind="digits", train_per_class=500))


# Digits, and names ----------------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_scaled_to_bytes_and_split_without_overlap() -> None:
    data = open_downstream("digits")
    reference = load_digits()
    for side in (data.train, data.test):
        for i in (0, 50, len(side) - 1):
            image, label = side[i]
            which = side.indices[i]
            assert (image.shape, label) == ((3, 8, 8), reference.target[which])
            assert torch.equal(image[0], image[2])
            np.testing.assert_allclose(image[0].numpy(), reference.images[which] * 255 / 16, atol=0.51)
    assert sorted([*data.train.indices, *data.test.indices]) == list(range(1797))
    shares = np.bincount(data.test.labels) / np.bincount(reference.target)
    assert shares.min() > 0.24 and shares.max() < 0.26


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("cifar11", r"kind: 'cifar11' is not allowed: .*did you mean 'cifar10'"),
        ("folder", "root: is missing"),
        ("", "kind: '' is not allowed"),
    ],
)
def test_a_wrong_name_is_refused(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        open_downstream(text)


def test_a_name_may_carry_its_root() -> None:
    settings = DownstreamSettings.from_text("cifar10:/data/c10")
    assert (settings.kind, settings.root) == ("cifar10", Path("/data/c10"))
    assert DownstreamSettings.model_validate("cifar10:/data/c10") == settings


# torchvision ---------------------------------------------------------------------------------------------------------


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
    assert (data.class_names, len(data.train), len(data.test)) == (["apple_pie", "baklava"], 2, 2)
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
    assert (len(data.train), data.test[0][1], data.class_names) == (2, 1, ["0", "1"])


# Real data -----------------------------------------------------------------------------------------------------------


def test_the_real_cifar10_opens_from_its_folder(shared_data: Path, tmp_path: Path) -> None:
    archive = shared_data / "cifar10-jpeg.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no {archive.name}")
    subprocess.run(["tar", "xJf", archive, "-C", tmp_path, "test"], check=True)
    shutil.copytree(tmp_path / "test", tmp_path / "train")
    data = open_downstream(f"folder:{tmp_path}")
    assert data.class_names[:3] == ["airplane", "automobile", "bird"]
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.test[9999][0].shape == (3, 32, 32)
