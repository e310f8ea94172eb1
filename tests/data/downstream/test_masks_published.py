"""Small made-up folders with the layouts of published datasets, and other readers of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import Cityscapes, OxfordIIITPet, VOCSegmentation

from formulavision.data.downstream import DownstreamSettings, open_downstream
from formulavision.util.errors import ConfigError, DownstreamError


def save_image(path: Path, seed: int, size: tuple[int, int] = (10, 7)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)).save(path)


def save_mask(path: Path, values: list[int], seed: int = 0, size: tuple[int, int] = (10, 7)) -> None:
    """A mask in which each of the values occurs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.resize(np.random.default_rng(seed).permutation(values), size[::-1]).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def raw(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(path)).astype(int)


def mapped(values: np.ndarray[Any, Any], table: dict[int, int]) -> np.ndarray[Any, Any]:
    return np.vectorize(lambda value: table.get(value, 255))(values)


# Pascal VOC 2012 ------------------------------------------------------------------------------------------------------


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    base = tmp_path / "VOCdevkit" / "VOC2012"
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, names in (("train", ["2007_000032", "2007_000039"]), ("val", ["2007_000033"])):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            seed = int(name[-2:])
            save_image(base / "JPEGImages" / f"{name}.jpg", seed)
            values = np.resize(np.random.default_rng(seed).permutation([*range(21), 255]), (7, 10)).astype(np.uint8)
            # The published files have the colour map of the development kit: index 1 is (128, 0, 0), and so on.
            mask = Image.fromarray(values).convert("P")
            mask.putpalette([channel for i in range(256) for channel in (i * 37 % 256, i * 91 % 256, i * 13 % 256)])
            mask.putdata(values.reshape(-1).tolist())
            (base / "SegmentationClass").mkdir(exist_ok=True)
            mask.save(base / "SegmentationClass" / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize("split", ["train", "val"])
def test_voc_2012_is_read_as_torchvision_reads_it(voc: Path, split: str) -> None:
    data = open_downstream(f"voc2012-masks:{voc}")
    assert (data.num_classes, data.classes[0], data.classes[15], data.classes[20]) == (
        *(21, "background", "person", "tvmonitor"),
    )
    side = data.train if split == "train" else data.test
    for (image, mask), (theirs, target) in zip(side, VOCSegmentation(str(voc), "2012", split), strict=True):
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), np.asarray(theirs))
        np.testing.assert_array_equal(mask.numpy(), np.asarray(target))
    assert sorted(np.unique(data.train[0][1].numpy())) == [*range(21), 255]
    base = open_downstream(f"voc2012-masks:{voc / 'VOCdevkit' / 'VOC2012'}")
    assert base.train.digest() == data.train.digest()


def test_voc_2012_that_is_absent_or_lacks_a_mask_is_named(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(DownstreamError, match=r"must hold VOCdevkit/VOC2012/ with JPEGImages/, SegmentationClass/"):
        open_downstream(DownstreamSettings(kind="voc2012-masks", root=tmp_path / "nowhere", download=False))
    (voc / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000039.png").unlink()
    with pytest.raises(DownstreamError, match=r"SegmentationClass/2007_000039.png: No such file"):
        open_downstream(f"voc2012-masks:{voc}")


# ADE20k ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    base = tmp_path / "ADEChallengeData2016"
    for split, name in (("training", "ADE_train_0000000"), ("validation", "ADE_val_0000000")):
        for number in range(1, 3):
            save_image(base / "images" / split / f"{name}{number}.jpg", number, (20, 12))
            save_mask(base / "annotations" / split / f"{name}{number}.png", list(range(151)), number, (20, 12))
    return tmp_path


def test_ade20k_has_150_classes_and_ignores_0(ade: Path) -> None:
    data = open_downstream(f"ade20k:{ade}")
    assert (len(data.train), len(data.test), data.num_classes) == (2, 2, 150)
    assert data.classes[:2] == ["1", "2"]
    values = raw(ade / "ADEChallengeData2016" / "annotations" / "training" / "ADE_train_00000001.png")
    np.testing.assert_array_equal(data.train[0][1].numpy(), np.where(values == 0, 255, values - 1))
    unnamed = data.train.digest()
    lines = ["Idx\tRatio\tTrain\tVal\tName", "1\t0.1576\t11664\t1172\twall", "2\t0.1072\t6046\t612\tbuilding, edifice"]
    lines += [f"{value}\t0\t0\t0\tthing {value}, other" for value in range(3, 151)]
    (ade / "ADEChallengeData2016" / "objectInfo150.txt").write_text("\n".join(lines) + "\n")
    named = open_downstream({"kind": "ade20k", "root": ade / "ADEChallengeData2016"})
    assert named.classes[:3] == ["wall", "building", "thing 3"] and len(named.classes) == 150
    assert named.train.digest() == unnamed


@pytest.mark.parametrize("text", ["", "a\tb\n", "Idx\tName\n1\twall\n"])
def test_a_list_of_ade20k_s_classes_that_is_not_one_is_named(ade: Path, text: str) -> None:
    (ade / "ADEChallengeData2016" / "objectInfo150.txt").write_text(text)
    with pytest.raises(DownstreamError, match=r"objectInfo150.txt: must hold a line of titles with Name, and 150"):
        open_downstream(f"ade20k:{ade}")


def test_the_value_151_is_no_class_of_ade20k(ade: Path) -> None:
    save_mask(ade / "ADEChallengeData2016/annotations/validation/ADE_val_00000002.png", [151], size=(20, 12))
    with pytest.raises(DownstreamError, match="holds the value 151, which is no class: classes are 1 to 150, ignored"):
        open_downstream(f"ade20k:{ade}")


# Cityscapes -----------------------------------------------------------------------------------------------------------

# From the benchmark's labels.py: id -> train id.
TRAIN_IDS = dict(
    zip([7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33], range(19), strict=True)
)


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    for split, city in (("train", "aachen"), ("train", "ulm"), ("val", "munster"), ("test", "berlin")):
        for frame in range(2):
            name = f"{city}_00000{frame}_000019"
            save_image(tmp_path / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", frame, (16, 8))
            folder = tmp_path / "gtFine" / split / city
            save_mask(folder / f"{name}_gtFine_labelIds.png", list(range(34)), frame, (16, 8))
            save_image(folder / f"{name}_gtFine_color.png", frame)
            save_mask(folder / f"{name}_gtFine_instanceIds.png", [1], frame)
            (folder / f"{name}_gtFine_polygons.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("split", ["train", "val"])
def test_cityscapes_has_the_19_classes_of_its_benchmark(cityscapes: Path, split: str) -> None:
    data = open_downstream(f"cityscapes:{cityscapes}")
    assert data.classes[:3] == ["road", "sidewalk", "building"] and data.classes[18] == "bicycle"
    side = data.train if split == "train" else data.test
    theirs = Cityscapes(str(cityscapes), split=split, mode="fine", target_type="semantic")
    by_image = dict(zip(theirs.images, theirs, strict=True))
    assert len(side) == len(theirs)
    for number, (image, mask) in enumerate(side):
        reference, target = by_image[str(cityscapes / side.source.names[number].decode())]  # type: ignore[attr-defined]
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), np.asarray(reference))
        np.testing.assert_array_equal(mask.numpy(), mapped(np.asarray(target).astype(int), TRAIN_IDS))


def test_train_ids_of_cityscapes_are_read_where_they_were_written(cityscapes: Path) -> None:
    before = open_downstream(f"cityscapes:{cityscapes}")
    masks = [mask.numpy() for _, mask in before.train]
    for file in (cityscapes / "gtFine" / "train").rglob("*labelIds.png"):
        values = mapped(raw(file), TRAIN_IDS).astype(np.uint8)
        Image.fromarray(values).save(str(file).replace("labelIds", "labelTrainIds"))
    after = open_downstream(f"cityscapes:{cityscapes}")
    assert all(name.endswith(b"labelTrainIds.png") for name in after.train.masks.names)  # type: ignore[attr-defined]
    assert all(name.endswith(b"labelIds.png") for name in after.test.masks.names)  # type: ignore[attr-defined]
    for mask, (_, now) in zip(masks, after.train, strict=True):
        np.testing.assert_array_equal(mask, now.numpy())
    next((cityscapes / "gtFine" / "train").rglob("ulm*labelTrainIds.png")).unlink()
    with pytest.raises(DownstreamError, match=r"ulm_.*labelTrainIds.png: No such file"):
        open_downstream(f"cityscapes:{cityscapes}")


# Oxford-IIIT Pet ------------------------------------------------------------------------------------------------------


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    base = tmp_path / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    for split, names in (("trainval", ["Abyssinian_100", "yorkshire_terrier_9"]), ("test", ["Abyssinian_201"])):
        lines = [f"{name} {1 if name[0] == 'A' else 37} {1 if name[0] == 'A' else 2} 1\n" for name in names]
        (base / "annotations" / f"{split}.txt").write_text("".join(lines))
        for seed, name in enumerate(names):
            save_image(base / "images" / f"{name}.jpg", seed)
            save_mask(base / "annotations" / "trimaps" / f"{name}.png", [1, 2, 3], seed)
    return tmp_path


@pytest.mark.parametrize("split", ["trainval", "test"])
def test_pets_are_foreground_and_background_and_their_outline_is_ignored(pets: Path, split: str) -> None:
    data = open_downstream(f"oxfordiiitpet-masks:{pets}")
    assert data.classes == ["background", "pet"]
    side = data.train if split == "trainval" else data.test
    theirs = OxfordIIITPet(str(pets), split, "segmentation")
    for (image, mask), (reference, trimap) in zip(side, theirs, strict=True):
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), np.asarray(reference))
        np.testing.assert_array_equal(mask.numpy(), mapped(np.asarray(trimap).astype(int), {1: 1, 2: 0}))


def test_a_list_of_no_pets_is_named(pets: Path) -> None:
    (pets / "oxford-iiit-pet" / "annotations" / "test.txt").write_text("# nothing\n\n")
    with pytest.raises(DownstreamError, match=r"test.txt: lists no images"):
        open_downstream(f"oxfordiiitpet-masks:{pets}")


# All ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ade20k", "cityscapes"])
def test_what_lacks_its_folders_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DownstreamError, match=f"no such folder: {tmp_path} must hold"):
        open_downstream(f"{kind}:{tmp_path}")
    with pytest.raises(ConfigError, match="root: is missing: which folder"):
        open_downstream(kind)


@pytest.mark.parametrize(
    ("kind", "damaged"),
    [
        ("ade", lambda root: next(root.rglob("ADE_val_00000001.png"))),
        ("cityscapes", lambda root: next(root.rglob("munster_000001*labelIds.png"))),
        ("pets", lambda root: next(root.rglob("trimaps/Abyssinian_201.png"))),
        ("voc", lambda root: next(root.rglob("SegmentationClass/2007_000033.png"))),
    ],
)
def test_a_mask_of_another_size_is_named(
    kind: str, damaged: Callable[[Path], Path], request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue(kind)
    file = damaged(root)
    save_mask(file, [1], size=(3, 3))
    name = {"ade": "ade20k", "pets": "oxfordiiitpet-masks", "voc": "voc2012-masks"}.get(kind, kind)
    with pytest.raises(DownstreamError, match=f"{file.name}: has 3 x 3 pixels, its image .* both must be equal"):
        open_downstream(f"{name}:{root}")
