from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from formulavision.data.downstream import DownstreamSettings, open_downstream
from formulavision.data.downstream.masks import MaskedImages
from formulavision.util.errors import ConfigError, DownstreamError

NAMES = ["sky", "road", "car"]
SIZE = (9, 6)


def mask_of(seed: int, size: tuple[int, int] = SIZE, classes: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, classes, size[::-1]).astype(np.uint8)


def save_image(path: Path, seed: int = 0, size: tuple[int, int] = SIZE, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)).save(path, **options)


def save_mask(path: Path, values: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write(root: Path, split: str, names: str = "abc") -> None:
    for seed, name in enumerate(names):
        save_image(root / "images" / split / f"{name}.jpg", seed)
        save_mask(root / "masks" / split / f"{name}.png", mask_of(seed))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, names in (("train", "abc"), ("val", "de"), ("test", "fghi")):
        write(tmp_path, split, names)
    (tmp_path / "classes.txt").write_text("sky\nroad  # also tracks\n\ncar\n")
    return tmp_path


def open_masks(root: Path, **settings: Any) -> Any:
    return open_downstream(DownstreamSettings(kind="masks", root=root, **settings))


def test_a_folder_of_images_and_masks_gives_both_of_each_name(root: Path) -> None:
    data = open_downstream(root)
    assert (data.target, data.classes, data.num_classes, data.multi_label) == ("semantic", NAMES, 3, False)
    assert data.describe() == (f"masks:{root}: 3 training and 4 test images of 3 classes, with masks (tested on test/)")
    for index, (image, mask) in enumerate(data.train):
        assert (image.dtype, image.shape, mask.dtype, mask.shape) == (torch.uint8, (3, 6, 9), torch.uint8, (6, 9))
        np.testing.assert_array_equal(mask.numpy(), mask_of(index))


def test_the_tested_part_can_be_chosen_and_falls_back_to_val_without_test_masks(root: Path) -> None:
    assert len(open_masks(root, test_split="validation").test) == 2
    for name in "fghi":
        (root / "masks" / "test" / f"{name}.png").unlink()
    (root / "masks" / "test").rmdir()
    data = open_masks(root)
    assert (len(data.test), data.note) == (2, "")
    with pytest.raises(DownstreamError, match=r"masks: has no test/: .* must hold images/train/ and masks/train/"):
        open_masks(root, test_split="test")


def test_parts_have_their_usual_names_and_images_may_lie_deeper(tmp_path: Path) -> None:
    for split in ("Training", "validation"):
        save_image(tmp_path / "images" / split / "street" / "one.two.jpeg")
        save_mask(tmp_path / "masks" / split / "street" / "one.two.png", mask_of(0))
    data = open_masks(tmp_path, classes=NAMES)
    assert (len(data.train), len(data.test), data.classes) == (1, 1, NAMES)


def test_classes_come_from_the_settings_before_the_folder_s_file(root: Path, tmp_path: Path) -> None:
    assert open_masks(root, classes=["a", "b", "c"]).classes == ["a", "b", "c"]
    other = tmp_path / "names"
    other.write_text("x\ny\nz\n")
    assert open_masks(root, classes=other).classes == ["x", "y", "z"]


@pytest.mark.parametrize("ignored", [0, 1, 2, 3, 255])
def test_the_ignored_value_becomes_255_and_takes_no_place_among_the_classes(root: Path, ignored: int) -> None:
    names = ["zero", "one", "two"]
    (root / "classes.txt").write_text("\n".join(names))
    if ignored > 2:
        raw = mask_of(0)
        raw[0] = ignored
        save_mask(root / "masks" / "train" / "a.png", raw)
    raw = np.asarray(Image.open(root / "masks" / "train" / "a.png"))
    data = open_masks(root, ignored=ignored)
    mask = data.train[0][1].numpy()
    assert data.classes == [name for value, name in enumerate(names) if value != ignored]
    assert ((mask == 255) == (raw == ignored)).all() and (mask == 255).any()
    for value, name in enumerate(names):
        if value != ignored:
            assert (mask[raw == value] == data.classes.index(name)).all()


def sub_byte_png(values: np.ndarray[Any, Any], bits: int) -> bytes:
    """A gray PNG file of 1, 2 or 4 bits a pixel, which Pillow does not write."""
    packed = [
        np.packbits(((row[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8).reshape(-1)).tobytes()
        for row in values
    ]
    height, width = values.shape
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in packed))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def as_palette(values: np.ndarray[Any, Any]) -> bytes:
    """Colours in an order other than that of the indices: reading colours, or gray, would give other classes."""
    indexed = Image.new("P", values.shape[::-1])
    indexed.putdata(values.reshape(-1).tolist())
    indexed.putpalette([200, 10, 10, 0, 0, 0, 10, 200, 10] + [7] * (3 * 253))
    return png(indexed)


def png(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


WAYS: dict[str, Callable[[np.ndarray[Any, Any]], bytes]] = {
    "gray": lambda values: png(Image.fromarray(values)),
    "palette": as_palette,
    "palette of 2 bits": lambda values: png(Image.open(io.BytesIO(as_palette(values))), bits=2),
    "transparent palette": lambda values: png(Image.open(io.BytesIO(as_palette(values))), transparency=1),
    "16 bits": lambda values: png(Image.fromarray(values.astype(np.uint16))),
    "4 bits": lambda values: sub_byte_png(values, 4),
    "2 bits": lambda values: sub_byte_png(values, 2),
}


@pytest.mark.parametrize("way", WAYS)
def test_masks_of_any_depth_and_palettes_are_read_as_class_values(root: Path, way: str) -> None:
    (root / "masks" / "train" / "a.png").write_bytes(WAYS[way](mask_of(0)))
    np.testing.assert_array_equal(open_masks(root).train[0][1].numpy(), mask_of(0))


def test_masks_of_one_bit_hold_the_values_0_and_1(root: Path) -> None:
    values = mask_of(3, classes=2)
    (root / "masks" / "train" / "a.png").write_bytes(sub_byte_png(values, 1))
    np.testing.assert_array_equal(open_masks(root).train[0][1].numpy(), values)


def test_values_above_255_can_be_ignored(root: Path) -> None:
    values = mask_of(0).astype(np.uint16)
    values[2] = 65535
    save_mask(root / "masks" / "train" / "a.png", values)
    mask = open_masks(root, ignored=65535).train[0][1].numpy()
    assert (mask[2] == 255).all() and (np.delete(mask, 2, 0) == np.delete(mask_of(0), 2, 0)).all()


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    save_image(path, exif=exif)


def remove(*files: Path) -> None:
    for file in files:
        file.unlink()


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no masks": (lambda r: remove(*(r / "masks" / "train").iterdir()), r"masks/train: holds no masks"),
    "no images": (lambda r: remove(*(r / "images" / "test").iterdir()), r"images/test: holds no images"),
    "no mask": (
        lambda r: remove(r / "masks" / "train" / "b.png"),
        r"images/train/b.jpg: has no mask masks/train/b\.\*$",
    ),
    "no image": (
        lambda r: remove(r / "images" / "test" / "f.jpg", r / "images" / "test" / "g.jpg"),
        r"masks/test/f.png: has no image images/test/f\.\*, and 1 more like it",
    ),
    "two images": (
        lambda r: save_image(r / "images" / "train" / "a.png"),
        r"images/train/a.png: a.jpg has the same name: remove one",
    ),
    "size": (
        lambda r: save_mask(r / "masks" / "test" / "g.png", mask_of(0, (6, 9))),
        r"masks/test/g.png: has 6 x 9 pixels, its image .*images/test/g.jpg 9 x 6: both must be equal",
    ),
    "turned": (
        lambda r: turned(r / "images" / "train" / "a.jpg"),
        r"masks/train/a.png: has 9 x 6 pixels, its image .*images/train/a.jpg 6 x 9: both must be equal",
    ),
    "value": (
        lambda r: save_mask(r / "masks" / "train" / "c.png", mask_of(0) + 2),
        r"masks/train/c.png: holds the value 3, which is no class: classes are 0 to 2, ignored is 255",
    ),
    "value of 16 bits": (
        lambda r: save_mask(r / "masks" / "train" / "c.png", mask_of(0).astype(np.uint16) + 256),
        r"masks/train/c.png: holds the value 256, which is no class",
    ),
    "jpeg": (
        lambda r: Image.fromarray(mask_of(0)).save(r / "masks" / "train" / "a.png", "JPEG"),
        r"masks/train/a.png: is a JPEG file, whose compression changes values: masks must be PNG files",
    ),
    "colours": (
        lambda r: save_image(r / "masks" / "train" / "a.png"),
        r"masks/train/a.png: has colours \(RGB\), and must have one class value a pixel",
    ),
    "empty file": (lambda r: (r / "masks" / "train" / "a.png").write_bytes(b""), r"a.png: is empty \(0 bytes\)"),
    "cut file": (
        lambda r: (r / "masks" / "train" / "a.png").write_bytes(png(Image.fromarray(mask_of(0)))[:50]),
        r"masks/train/a.png: ",
    ),
    "no names": (
        lambda r: (r / "classes.txt").unlink(),
        r"has no class names: name the values 0, 1, 2 \.\.\., one a line, in .*classes.txt or in a file that ",
    ),
    "one name": (lambda r: (r / "classes.txt").write_text("sky"), r"classes names 1 classes: must be 2 to 255"),
    "name twice": (lambda r: (r / "classes.txt").write_text("a\nb\na"), r"classes names a name more than once"),
    "undivided": (lambda r: (r / "images" / "train").rename(r / "images" / "street"), r"images: has no train/"),
    "one part": (
        lambda r: [(r / "masks" / s).rename(r / "masks" / f"my{s}") for s in ("val", "test")],
        r"masks: has no val/",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_folder_that_cannot_be_used_is_named_in_one_line(root: Path, what: str) -> None:
    damage, message = BAD[what]
    damage(root)
    with pytest.raises(DownstreamError, match=message) as caught:
        open_masks(root)
    assert "\n" not in str(caught.value)


def test_a_folder_without_masks_is_named(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "train" / "a.jpg")
    with pytest.raises(DownstreamError, match=r"masks: no such folder: .* must hold images/ and masks/"):
        open_masks(tmp_path)
    with pytest.raises(DownstreamError, match="no such folder"):
        open_masks(tmp_path / "nowhere")


def test_kind_folder_does_not_take_images_and_masks_for_two_classes(root: Path) -> None:
    with pytest.raises(DownstreamError, match=f"holds images/ and masks/, .* give masks:{root}"):
        open_downstream(f"folder:{root}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "masks", "root": "x", "train_per_class": 3}, "train_per_class: is not for masks"),
        ({"kind": "masks", "root": "x", "exclude": ["sky"]}, "exclude: is not for masks"),
        ({"kind": "cityscapes", "root": "x", "classes": ["road", "car"]}, "classes: is not for masks"),
        ({"kind": "masks", "root": "x", "test_share": 0.2}, "test_share: is for kind folder"),
        ({"kind": "ade20k", "root": "x", "test_split": "val"}, "test_split: is for kind folder"),
        ({"kind": "folder", "root": "x", "ignored": 11}, "ignored: is for kind masks"),
        ({"kind": "masks"}, r"root: is missing: which folder\? \(masks:/path\)"),
        ({"kind": "masks", "root": "x", "ignored": 65536}, "ignored"),
        ({"kind": "mask", "root": "x"}, "did you mean 'masks'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_downstream(settings)


def test_a_digest_follows_masks_names_and_the_ignored_value_wherever_the_folder_lies(root: Path) -> None:
    first = open_masks(root).train.digest()
    assert open_masks(root).train.digest() == first
    moved = root.with_name("moved")
    root.rename(moved)
    assert open_masks(moved).train.digest() == first
    assert open_masks(moved, ignored=3).train.digest() != first
    assert open_masks(moved, classes=["a", "b", "c"]).train.digest() != first
    save_mask(moved / "masks" / "train" / "a.png", mask_of(77))
    assert open_masks(moved).train.digest() != first


def test_a_part_has_the_chosen_images_with_their_masks(root: Path) -> None:
    part = open_masks(root).train.part(np.array([2, 0]))
    assert isinstance(part, MaskedImages)
    for (_, mask), seed in zip(part, (2, 0), strict=True):
        np.testing.assert_array_equal(mask.numpy(), mask_of(seed))


def test_a_mask_that_changes_after_it_was_checked_is_named_when_it_is_read(root: Path) -> None:
    data = open_masks(root)
    save_mask(root / "masks" / "train" / "b.png", mask_of(0) + 9)
    with pytest.raises(DownstreamError, match=r"masks/train/b.png: holds the value 9, which is no class"):
        data.train[1]
    save_mask(root / "masks" / "train" / "b.png", mask_of(0, (5, 5)))
    with pytest.raises(DownstreamError, match=r"masks/train/b.png: has 5 x 5 pixels"):
        data.train[1]


@pytest.mark.slow
def test_camvid_is_read_whole(shared_data: Path, tmp_path: Path) -> None:
    archive = shared_data / "camvid-240x180.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    names = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
    data = open_masks(tmp_path / "camvid", classes=names, ignored=11)
    assert (len(data.train), len(data.test)) == (367, 233)
    assert len(open_masks(tmp_path / "camvid", classes=names, ignored=11, test_split="val").test) == 101
    seen = np.zeros(256, np.int64)
    for image, mask in data.train:
        assert (image.shape, mask.shape) == ((3, 180, 240), (180, 240))
        seen += np.bincount(mask.numpy().reshape(-1), minlength=256)
    assert np.flatnonzero(seen).tolist() == [*range(11), 255]
    raw = np.asarray(Image.open(tmp_path / "camvid" / data.train.masks.names[5].decode()))
    np.testing.assert_array_equal(data.train[5][1].numpy(), np.where(raw == 11, 255, raw))
    with pytest.raises(DownstreamError, match="holds the value 11, which is no class: classes are 0 to 10"):
        open_masks(tmp_path / "camvid", classes=names)
