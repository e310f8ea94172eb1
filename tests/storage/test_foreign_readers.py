"""Stores as the field's own readers see them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from formulavision import Drawer, Recipe, generate

# These libraries leave files for the garbage collector to close.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

RECIPE = Recipe.from_dict(
    {
        "generator": {"name": "ifs", "dots": 2000, "weights": "table"},
        "categories": 3,
        "instances": 8,
        "canvas": {"size": 40},
        "seed": 2,
    }
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stores")
    for format in ("imagefolder", "webdataset", "parquet"):
        generate(RECIPE, root / format, format=format)
    return root


@pytest.fixture(scope="module")
def expected() -> list[tuple[bytes, int]]:
    """Pixels as RGB, and labels, in no order."""
    images, labels = Drawer(RECIPE).draw_batch(range(len(RECIPE)))
    rgb = np.broadcast_to(images, (*images.shape[:3], 3))
    return sorted((image.tobytes(), label) for image, label in zip(rgb, labels.tolist(), strict=True))


def seen(pairs: object) -> list[tuple[bytes, int]]:
    return sorted((np.asarray(image.convert("RGB")).tobytes(), int(label)) for image, label in pairs)  # type: ignore[attr-defined]


def test_torchvision_reads_an_imagefolder(stores: Path, expected: list[tuple[bytes, int]]) -> None:
    from torchvision.datasets import ImageFolder

    dataset = ImageFolder(str(stores / "imagefolder"))
    assert dataset.classes == ["00000", "00001", "00002"]
    assert seen(dataset) == expected


def test_timm_reads_an_imagefolder(stores: Path, expected: list[tuple[bytes, int]]) -> None:
    from timm.data import create_dataset

    dataset = create_dataset("folder", root=str(stores / "imagefolder"))
    assert seen(dataset) == expected


def test_webdataset_reads_tar_shards(stores: Path, expected: list[tuple[bytes, int]]) -> None:
    import webdataset

    shards = [str(path) for path in sorted((stores / "webdataset").glob("*.tar"))]
    dataset = webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("png", "cls")
    assert seen(dataset) == expected


def test_timm_reads_tar_shards(stores: Path, expected: list[tuple[bytes, int]]) -> None:
    from timm.data import create_dataset

    dataset = create_dataset(
        "wds/", root=str(stores / "webdataset"), split="shard-{000000..000000}.tar", num_samples=24, is_training=False,
        batch_size=4,
    )  # fmt: skip
    assert seen(dataset) == expected


def test_hugging_face_datasets_read_parquet(stores: Path, expected: list[tuple[bytes, int]], tmp_path: Path) -> None:
    import datasets

    dataset = datasets.load_dataset(str(stores / "parquet"), split="train", cache_dir=str(tmp_path))
    assert dataset.features["label"].names == ["00000", "00001", "00002"]
    assert seen((row["image"], row["label"]) for row in dataset) == expected


def test_names_are_the_published_ones(stores: Path) -> None:
    names = {str(path.relative_to(stores / "imagefolder")) for path in (stores / "imagefolder").rglob("*.png")}
    assert "00002/00002_03_count_0_flip0.png" in names
    assert len(names) == 24


def test_a_two_valued_image_is_one_bit_a_pixel_and_reads_as_the_true_values(stores: Path) -> None:
    path = stores / "imagefolder" / "00000" / "00000_00_count_0_flip0.png"
    header = path.read_bytes()[:26]
    assert header[24:26] == bytes([1, 3]), "bit depth 1, colour type palette"
    assert set(np.unique(np.asarray(Image.open(path).convert("RGB")))) == {0, 127}
