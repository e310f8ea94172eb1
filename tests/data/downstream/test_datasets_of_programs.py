"""Map-style datasets that a Python program hands over."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from datasets import DatasetDict
from PIL import Image, ImageOps
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset, random_split
from torchvision.datasets import FakeData, ImageFolder
from torchvision.transforms import v2

from formulavision import FormulaDataset
from formulavision.data.downstream import Downstream, DownstreamSettings, open_downstream
from formulavision.data.downstream.datasets import as_images
from formulavision.data.downstream.opening import open_for_run
from formulavision.util.errors import ConfigError, DownstreamError


class Pictures:
    """Images of one colour, as whatever ``make`` makes of them; label i mod 3."""

    classes = ("red", "green", "blue")

    def __init__(self, make: Any = Image.fromarray, count: int = 30) -> None:
        self.make = make
        self.count = count
        self.targets = [i % 3 for i in range(count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        pixels = np.zeros((6, 8, 3), np.uint8)
        pixels[..., index % 3] = 100 + index
        return self.make(pixels), index % 3


def chw(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


@pytest.mark.parametrize("make", [Image.fromarray, np.asarray, chw, lambda p: chw(p) / 255, v2.ToImage()])
def test_images_of_any_usual_type_are_read_alike(make: Any) -> None:
    images = as_images(Pictures(make))
    assert images.classes == ["red", "green", "blue"] and len(images) == 30
    for index in (0, 4, 29):
        image, label = images[index]
        assert (image.dtype, tuple(image.shape), label) == (torch.uint8, (3, 6, 8), index % 3)
        assert image[:, 2, 2].tolist() == [100 + index if channel == label else 0 for channel in range(3)]


def test_gray_images_become_rgb() -> None:
    values = np.arange(48, dtype=np.uint8).reshape(6, 8)
    for image in (Image.fromarray(values), values, torch.from_numpy(values)[None], torch.from_numpy(values)):
        assert (as_images([(image, 0), (image, 1)])[1][0].numpy() == values).all()


@pytest.mark.parametrize(
    ("mode", "format"),
    [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("L", "PNG"), ("RGB", "TIFF")],
)
def test_photographs_are_turned_upright(tmp_path: Path, mode: str, format: str) -> None:
    # The second is what torchvision's ImageFolder gives: convert() keeps the orientation.
    exif = Image.Exif()
    exif[274] = 6
    pixels = np.zeros((6, 8), np.uint8)
    pixels[:, 4:] = 255
    Image.fromarray(pixels).convert(mode).save(tmp_path / "a", format, exif=exif)
    for opened in (Image.open(tmp_path / "a"), Image.open(tmp_path / "a").convert("RGB")):
        image, _ = as_images([(opened, 0), (opened, 1)])[1]
        assert image.shape == (3, 8, 6) and image[:, :4].max() < 20 and image[:, 4:].min() > 235
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "a"))
    assert as_images([(upright, 0), (upright, 1)])[1][0].shape == (3, 8, 6)
    for name in ("cat", "dog"):
        (tmp_path / "folder" / name).mkdir(parents=True)
        for i in range(2):
            shutil.copy(tmp_path / "a", tmp_path / "folder" / name / f"{i}.{format.lower()}")
    assert torch.equal(open_downstream(tmp_path / "folder").train[0][0], image)  # turned once, as there


def test_a_pair_is_opened_as_it_is_divided(tmp_path: Path) -> None:
    data = open_downstream((Pictures(), Pictures(count=9)))
    assert (data.describe(), data.classes) == (
        "Pictures: 30 training and 9 test images of 3 classes", ["red", "green", "blue"],
    )  # fmt: skip
    assert data.identity()["test_digest"] != data.identity()["train_digest"]
    assert data.identity() == open_downstream([Pictures(), Pictures(count=9)]).identity()
    assert open_downstream(data) is data


def test_one_dataset_is_divided_by_class() -> None:
    data = open_downstream(Pictures())
    assert [len(data.test.showing(label)) for label in range(3)] == [2, 2, 2]
    assert set(data.train.indices) | set(data.test.indices) == set(range(30)) and len(data.train) == 24
    assert open_downstream(Pictures()).identity() == data.identity()


def test_parts_of_datasets_have_their_labels_and_classes() -> None:
    pictures: Any = Pictures()
    first, second = random_split(pictures, [20, 10], torch.Generator().manual_seed(0))
    data = open_downstream((first, Subset(second, range(5))))
    assert data.classes == ["red", "green", "blue"]
    assert data.train.labels.tolist() == [i % 3 for i in first.indices]
    assert [data.test[i][1] for i in range(5)] == [i % 3 for i in second.indices[:5]]
    joined = as_images(ConcatDataset([pictures, Subset(pictures, range(9))]))
    assert len(joined) == 39 and joined.classes == ["0", "1", "2"]
    tensors = as_images(TensorDataset(torch.zeros(4, 3, 5, 5, dtype=torch.uint8), torch.tensor([0, 1, 1, 3])))
    assert tensors.labels.tolist() == [0, 1, 1, 3] and tensors.num_classes == 4


def hugging_faces(image: str = "image", label: str = "label", count: int = 30) -> datasets.Dataset:
    pixels = [Pictures()[i][0] for i in range(count)]
    features = datasets.Features({"id": datasets.Value("int32"), image: datasets.Image(),
                                  label: datasets.ClassLabel(names=list(Pictures.classes))})  # fmt: skip
    columns = {"id": list(range(count)), image: pixels, label: [i % 3 for i in range(count)]}
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.mark.parametrize("columns", [("image", "label"), ("img", "labels")])
@pytest.mark.parametrize("format", [None, "numpy", "torch"])
def test_hugging_faces_datasets_are_read(columns: tuple[str, str], format: str | None) -> None:
    ours, theirs = as_images(Pictures()), as_images(hugging_faces(*columns).with_format(format))
    assert theirs.classes == ours.classes and theirs.labels.tolist() == ours.labels.tolist()
    assert all(torch.equal(ours[i][0], theirs[i][0]) for i in range(30)) and theirs.digest() == ours.digest()


@pytest.mark.parametrize("names", [("train", "test"), ("train", "validation"), ("training", "Test"), ("train",)])
def test_a_mapping_of_datasets_is_its_training_and_test_images(names: tuple[str, ...]) -> None:
    both: Any = (hugging_faces(), hugging_faces(count=9)) if len(names) == 2 else hugging_faces()
    splits = dict(zip(names, both if len(names) == 2 else [both], strict=True))
    for given in (splits, DatasetDict(splits)):
        data = open_downstream(given)
        assert data.identity() == open_downstream(both).identity()
    unlabelled = hugging_faces(count=3).map(lambda item: {"label": -1})
    if "validation" in names:
        assert open_downstream({**splits, "test": unlabelled}).describe() == data.describe()
    with_others = {"unsupervised": hugging_faces(count=3), **splits}
    assert open_downstream(with_others).describe() == data.describe()


def test_columns_of_hugging_faces_datasets_may_be_renamed() -> None:
    data = hugging_faces("picture", "fine_label")
    with pytest.raises(DownstreamError, match=r"columns id, picture, fine_label: .* rename_column\(\)"):
        open_downstream(data)
    data = data.rename_column("picture", "image").rename_column("fine_label", "label")
    parts = data.train_test_split(0.2, seed=1, stratify_by_column="label")
    assert open_downstream(parts).describe() == "Dataset: 24 training and 6 test images of 3 classes"
    assert as_images(Subset(data, range(9))).classes == ["red", "green", "blue"]


def test_formula_driven_datasets_are_downstreams_too() -> None:
    recipe = {"generator": "perlin", "categories": 2, "instances": 4, "canvas": {"size": 16, "padding": 0}}
    data = open_downstream((FormulaDataset(recipe), FormulaDataset(recipe).held_out(2, fresh=False)))
    assert data.describe() == "FormulaDataset: 8 training and 4 test images of 2 classes"
    as_pil = as_images(FormulaDataset(recipe, pil=True))
    assert all(torch.equal(as_pil[i][0], data.train[i][0]) for i in range(8))


@pytest.mark.parametrize("labels", [torch.tensor([0, 1, 1]), np.array([0, 1, 1], np.uint8), [np.int32(0), 1, 1]])
def test_labels_of_any_integer_type_are_read(labels: Any) -> None:
    data = [(np.zeros((4, 4), np.uint8), label) for label in labels]
    assert as_images(data).labels.tolist() == [0, 1, 1]


def test_a_comparison_takes_datasets_by_name_or_folder() -> None:
    from formulavision.comparison import ComparisonSettings

    for given in (Pictures(), (Pictures(), Pictures())):
        told = rf"downstreams.mine: a {type(given).__name__} is not allowed here: must be the name of a dataset"
        with pytest.raises(ConfigError, match=told):
            ComparisonSettings.of({"name": "x", "arms": {"scratch": None}, "downstreams": {"mine": given}}, None)


def test_labels_are_those_of_the_items() -> None:
    class Renamed(Pictures):
        def __getitem__(self, index: int) -> tuple[Any, Any]:
            image, label = super().__getitem__(index)
            return image, 2 - label

    assert as_images(Renamed()).labels.tolist() == [2 - i % 3 for i in range(30)]


def test_labels_of_a_rare_class_that_are_changed_are_those_of_the_items() -> None:
    class Merged(Pictures):
        """Item 77 alone has the class 2, and is given out as class 0."""

        def __init__(self) -> None:
            super().__init__(count=100)
            self.targets = [2 if i == 77 else i % 2 for i in range(100)]

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            return super().__getitem__(index)[0], self.targets[index] % 2

    assert as_images(Merged()).labels.tolist() == [0 if i == 77 else i % 2 for i in range(100)]


@pytest.mark.parametrize("part", [False, True])
def test_labels_that_torchvision_transforms_are_read(tmp_path: Path, part: bool) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(30):
            Image.new("RGB", (8, 8), (i, 2, 3)).save(tmp_path / name / f"{i}.png")
    calls = iter(range(10_000))
    data: Any = ImageFolder(str(tmp_path), target_transform=lambda label: 0 if next(calls) % 5 == 0 else label)
    data = Subset(data, range(60)) if part else data
    assert as_images(data).labels.tolist().count(1) < 30


def test_torchvisions_datasets_are_read(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.new("RGB", (8, 8), (i, 2, 3)).save(tmp_path / name / f"{i}.png")
    train, tensors = ImageFolder(str(tmp_path)), ImageFolder(str(tmp_path), transform=v2.PILToTensor())
    data = open_downstream((train, Subset(tensors, range(2, 10))))
    assert data.classes == ["cat", "dog"]
    assert all(torch.equal(data.train[i + 2][0], data.test[i][0]) for i in range(8))
    assert as_images(FakeData(6, (3, 8, 8), 4)).labels.tolist() == [FakeData(6, (3, 8, 8), 4)[i][1] for i in range(6)]


class Renamed(Pictures):
    classes = ("green", "red", "blue")


class Fewer(Pictures):
    classes = ("red", "green")  # type: ignore[assignment]


class Broken(Pictures):
    def __init__(self, item: Any) -> None:
        super().__init__()
        self.item = item

    def __getitem__(self, index: int) -> Any:
        return self.item(*super().__getitem__(index)) if callable(self.item) else self.item


FLIP = v2.RandomHorizontalFlip()


def uneven(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.arange(8, dtype=np.uint8) + np.asarray(image)[..., 0])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (Broken(lambda image, label: image), "item 0 is Image: an item must be"),
        (Broken({"image": 1, "label": 2}), r"item 0 is int64 \[\]: must be a PIL image"),
        (Broken({"picture": 1, "label": 2}), r"item 0 has the columns picture, label: must have image and label"),
        (Broken({"image": 1, "fine_label": 2}), r"item 0 has the columns image, fine_label: must have image and label"),
        (DatasetDict({"test": Pictures(), "other": Pictures()}), "has the parts test, other: must have train"),
        ((Pictures(), Renamed()), r"Renamed: the test images have other classes .*'green' where those have 'red'"),
        ((Pictures(), Fewer()), r"Fewer: the test images have other classes .*'None' where those have 'blue'"),
        (Broken(lambda image, label: ("a.png", label)), "item 0 is <U5"),
        (Broken(lambda image, label: (image, "cat")), "label of type str"),
        (Broken(lambda image, label: (image, 0.5)), "label of type float"),
        (Broken(lambda image, label: (image, torch.eye(3)[label])), "label of type Tensor"),
        (Broken(lambda image, label: (image, label - 1)), "labels count from 0"),
        (Broken(lambda image, label: (v2.functional.to_dtype(v2.functional.to_image(image), torch.float32) * 9, label)),
         "float32 .* from 0 to 900: .*leave out Normalize"),
        (Broken(lambda image, label: (np.zeros((4, 4), np.uint16), label)), "uint16"),
        (Broken(lambda image, label: (np.zeros((4, 4, 7), np.uint8), label)), r"uint8 \[4, 4, 7\]"),
        (Broken(lambda image, label: (torch.rand(3, 8, 8), label)), "differs when it is read again"),
        (Broken(lambda image, label: (FLIP(uneven(image)), label)), "differs when it is read again"),
        (Broken(lambda image, label: 1 / 0), "cannot be read .ZeroDivisionError"),
        (Subset(as_images(Pictures()), [3, 30]), r"Subset: item 1 cannot be read \(IndexError"),  # type: ignore[arg-type]
        ([(Pictures()[i][0], 10**9 if i == 3 else i % 2) for i in range(9)],
         "list: item 3 has the label 1000000000, and there are 9 items: labels count from 0"),
        (Broken(lambda image, label: (image, 0)), "all items have the label 0: there must be at least two classes"),
        ((Broken(lambda image, label: (image, 1)), Pictures()), "all items have the label 1"),
        (Pictures(count=0), "is empty"),
        ([], "is empty"),
        ((Pictures(), Broken(lambda image, label: (image, 3))), "has the label 3: the training images have 3 classes"),
    ],
)  # fmt: skip
def test_items_that_cannot_be_used_are_named(data: Any, told: str) -> None:
    with pytest.raises(DownstreamError, match=told) as refused:
        open_downstream(data)
    assert "\n" not in str(refused.value)


def test_tensors_with_gradients_are_images(tmp_path: Path) -> None:
    kept = [(torch.full((3, 4, 4), 0.2 * i, requires_grad=True), i % 2) for i in range(4)]
    image, _ = open_downstream((kept, kept[1:])).test[0]
    assert image.unique().tolist() == [51]


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter([])


@pytest.mark.parametrize("data", [None, 3, Stream(), object(), {1, 2}, iter([1])])
def test_what_is_no_dataset_is_refused_by_its_type(data: Any) -> None:
    with pytest.raises(ConfigError, match=f"downstream: a {type(data).__name__} is not allowed: must be a name"):
        open_downstream(data)


def test_names_paths_and_mappings_are_taken(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.new("RGB", (8, 8), (i, 2, 3)).save(tmp_path / name / f"{i}.png")
    whole: Downstream = open_downstream(str(tmp_path))
    for given in (
        tmp_path,
        {"kind": "folder", "root": str(tmp_path)},
        DownstreamSettings(kind="folder", root=tmp_path),
    ):
        assert open_downstream(given).identity() == whole.identity()
    with pytest.raises(ConfigError, match=r"downstream\.kind: is missing"):
        open_downstream({})
    with pytest.raises(ConfigError, match="was a dataset of a Python program: give the dataset again"):
        open_downstream({"kind": "python"})


class Named(FakeData):
    """Four classes by label, of which three have names."""

    classes = ("red", "green", "blue")


def test_a_label_beyond_the_named_classes_is_refused() -> None:
    named = Named(16, (3, 16, 16), 4)
    with pytest.raises(DownstreamError, match=r"Named: item \d+ has the label 3, and the dataset has 3 classes"):
        open_downstream((named, FakeData(8, (3, 16, 16), 3)))


@pytest.mark.parametrize("features", [torch.zeros(30, 4), {"label": 1}, "label", None])
def test_an_attribute_of_the_name_features_makes_no_table(features: Any) -> None:
    pictures = Pictures()
    pictures.features = features  # type: ignore[attr-defined]
    images = as_images(pictures)
    assert images.labels.tolist() == [i % 3 for i in range(30)] and images.classes == ["red", "green", "blue"]


def test_training_images_are_no_test_images() -> None:
    train, test = FakeData(16, (3, 16, 16), 4), FakeData(16, (3, 16, 16), 4, random_offset=1)
    with pytest.raises(DownstreamError, match="FakeData: the test images are the training images"):
        open_downstream((train, FakeData(16, (3, 16, 16), 4)))
    recorded = open_downstream((train, test)).identity()
    run = SimpleNamespace(folder=Path("run"), classes=list("0123"), settings={"downstream": recorded})
    assert open_for_run((train, test), run).test.digest() == recorded["test_digest"]
    with pytest.raises(DownstreamError, match="the test images are those that run was trained on"):
        open_for_run((test, train), run)


# Several labels, and masks -------------------------------------------------------------------------------------------

SCENES = {
    "generator": "bezier", "categories": 4, "scene": {"objects": [1, 3]}, "images": 6, "canvas": {"size": 64}
}  # fmt: skip


class Masked:
    """An image of numbers, and what ``make`` makes of a mask."""

    def __init__(self, make: Any, shape: tuple[int, int] = (6, 8), classes: int = 2) -> None:
        self.classes: tuple[str, ...] = tuple(f"class {number}" for number in range(classes))
        self.make = make
        self.shape = shape

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        mask = np.full(self.shape, 255, np.uint8)
        mask[:, :4] = index % 2
        return np.full((6, 8, 3), index, np.uint8), self.make(mask)


@pytest.mark.parametrize("target", ["labels", "semantic"])
@pytest.mark.slow
def test_our_own_scenes_are_a_pair(target: Any) -> None:
    train, test = (FormulaDataset(SCENES, target=target), FormulaDataset({**SCENES, "seed": 2}, target=target))
    opened = open_downstream((train, test))
    assert opened.target == target and opened.train.classes == train.classes
    for index in (0, 5):
        assert torch.equal(opened.test[index][1], test[index][1])
    assert open_downstream((test, train)).train.digest() != opened.train.digest()
    with pytest.raises(DownstreamError, match=r"is not divided: give a pair \(training, test\)"):
        open_downstream(train)


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy, Image.fromarray, lambda mask: np.int64(mask)])
def test_masks_of_any_usual_type_are_read_alike(make: Any) -> None:
    images = as_images(Masked(make))
    image, mask = images[1]
    assert images.target == "semantic" and image.shape == (3, 6, 8)
    assert mask.dtype == torch.uint8 and mask.tolist() == [[1] * 4 + [255] * 4] * 6


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        (Masked(np.asarray, shape=(5, 8)), "item 0 has a mask of 8 x 5 pixels, and its image 8 x 6: sizes must be eq"),
        (Masked(lambda mask: mask % 254 + 1), "has the value 2 in its mask, and there are 2 classes: 255 is ignored"),
        (Masked(lambda mask: mask / 255), r"item 0 has the mask float64 \[6, 8\]: must be whole numbers \[h, w\]"),
        (Masked(lambda mask: Image.fromarray(mask).convert("RGB")), r"has a mask in colours \(RGB\)"),
        (Masked(np.asarray, classes=256), "Masked: has 256 classes of masks, and there may be 255: 255 is ignored"),
        (Masked(lambda mask: mask[0, :3]), r"item 0 has the labels uint8 \[3\]: must be 2 numbers, 1, 0 or -1"),
    ],
)
def test_wrong_masks_and_labels_are_told(dataset: Any, told: str) -> None:
    with pytest.raises(DownstreamError, match=told):
        as_images(dataset)


def test_masks_need_names_of_classes() -> None:
    unnamed = Masked(np.asarray)
    unnamed.classes = ()
    with pytest.raises(DownstreamError, match="item 0 has a mask: the dataset must name its classes in 'classes'"):
        as_images(unnamed)
