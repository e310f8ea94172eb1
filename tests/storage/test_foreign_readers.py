"""Stores as the field's own readers see them, each with its defaults: the values that were drawn."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from formulavision import Drawer, Recipe, generate
from formulavision.cli import app
from formulavision.recipes.sheets import contact_sheet, preview

# These libraries leave files for the garbage collector to close.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

GENERATORS: dict[str, dict[str, Any]] = {
    "two gray values": {"generator": {"name": "ifs", "dots": 2000, "weights": "table"}},
    "many gray values": {"generator": {"name": "perlin"}},
    "gray lines": {"generator": {"name": "bezier"}, "seed": 3},
    "colours": {"generator": {"name": "ifs", "dots": 2000, "weights": "table"}, "canvas": {"size": 40, "channels": 3}},
}
RECIPES = {
    name: Recipe.from_dict({"categories": 3, "instances": 8, "canvas": {"size": 40}, "seed": 2, **recipe})
    for name, recipe in GENERATORS.items()
}
Seen = list[tuple[bytes, tuple[int, ...], int]]


class Stores:
    """A recipe in the three formats, and what its images are."""

    def __init__(self, recipe: Recipe, root: Path) -> None:
        for format in ("imagefolder", "webdataset", "parquet"):
            generate(recipe, root / format, format=format)
        self.folder, self.shards, self.parquet = root / "imagefolder", root / "webdataset", root / "parquet"
        drawn, labels = Drawer(recipe).draw_batch(range(len(recipe)))
        rgb = np.broadcast_to(drawn, (*drawn.shape[:3], 3))
        self.pixels = seen(zip(drawn, labels, strict=True))
        self.rgb = seen(zip(rgb, labels, strict=True))

    @property
    def files(self) -> list[tuple[Path, int]]:
        return [(path, int(path.parent.name)) for path in self.folder.rglob("*.png")]

    @property
    def tars(self) -> list[str]:
        return [str(path) for path in sorted(self.shards.glob("*.tar"))]


def seen(pairs: Iterable[tuple[Any, Any]]) -> Seen:
    """Pixels, their shape (a gray image's third axis is left out, as many readers do) and labels, in no order."""
    rows = []
    for image, label in pairs:
        pixels = np.asarray(image)
        assert pixels.dtype == np.uint8
        pixels = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
        rows.append((pixels.tobytes(), pixels.shape, int(label)))
    return sorted(rows)


@pytest.fixture(scope="module", params=RECIPES)
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return Stores(RECIPES[request.param], tmp_path_factory.mktemp("stores"))


# Folders of files


def test_pillow_and_numpy(stores: Stores) -> None:
    assert seen((np.asarray(Image.open(path)), label) for path, label in stores.files) == stores.pixels


def test_torchvision_image_folder(stores: Stores) -> None:
    from torchvision.datasets import ImageFolder

    dataset = ImageFolder(str(stores.folder))
    assert dataset.classes == ["00000", "00001", "00002"]
    assert seen(dataset) == stores.rgb


@pytest.mark.filterwarnings("ignore:.*TorchVision are deprecated:DeprecationWarning")
def test_torchvision_decode_image(stores: Stores) -> None:
    from torchvision.io import decode_image

    assert seen((decode_image(str(path)).permute(1, 2, 0), label) for path, label in stores.files) == stores.pixels


def test_timm_folder(stores: Stores) -> None:
    from timm.data import create_dataset

    assert seen(create_dataset("folder", root=str(stores.folder))) == stores.rgb


def test_hugging_face_image_folder(stores: Stores, tmp_path: Path) -> None:
    import datasets

    dataset = datasets.load_dataset("imagefolder", data_dir=str(stores.folder), split="train", cache_dir=str(tmp_path))
    assert seen((row["image"], row["label"]) for row in dataset) == stores.pixels


def test_opencv(stores: Stores) -> None:
    import cv2

    read: list[Any] = [(cv2.imread(str(path)), label) for path, label in stores.files]
    assert seen((bgr[:, :, ::-1], label) for bgr, label in read) == stores.rgb
    unchanged: list[Any] = [(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), label) for path, label in stores.files]
    assert seen((bgr[..., ::-1] if bgr.ndim == 3 else bgr, label) for bgr, label in unchanged) == stores.pixels


def test_imageio(stores: Stores) -> None:
    import imageio.v2
    import imageio.v3

    for read in (imageio.v3.imread, imageio.v2.imread):
        assert seen((read(path), label) for path, label in stores.files) == stores.pixels


# Tar shards


def test_webdataset(stores: Stores) -> None:
    import webdataset

    for decoder, expected in (("pil", stores.rgb), ("rgb8", stores.rgb)):
        dataset = webdataset.WebDataset(stores.tars, shardshuffle=False).decode(decoder).to_tuple("png", "cls")
        assert seen(dataset) == expected, decoder


def test_timm_tar_shards(stores: Stores) -> None:
    from timm.data import create_dataset

    dataset = create_dataset(
        "wds/", root=str(stores.shards), split="shard-{000000..000000}.tar", num_samples=24, is_training=False,
        batch_size=4,
    )  # fmt: skip
    assert seen(dataset) == stores.rgb


# Parquet files


def test_hugging_face_datasets(stores: Stores, tmp_path: Path) -> None:
    import datasets

    dataset = datasets.load_dataset(str(stores.parquet), split="train", cache_dir=str(tmp_path))
    assert dataset.features["label"].names == ["00000", "00001", "00002"]
    for format in (None, "numpy", "torch"):
        rows = dataset.with_format(format)
        pairs = [(np.asarray(row["image"]), row["label"]) for row in rows]
        if format == "torch":  # channels first
            pairs = [(pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels, label) for pixels, label in pairs]
        assert seen(pairs) == stores.pixels, format


def test_pandas_and_opencv(stores: Stores) -> None:
    import cv2
    import pandas

    table = pandas.read_parquet(stores.parquet / "data")
    rows = [(cv2.imdecode(np.frombuffer(image["bytes"], np.uint8), cv2.IMREAD_COLOR_RGB), label) for image, label in
            zip(table["image"], table["label"], strict=True)]  # fmt: skip
    assert seen(rows) == stores.rgb


# Files


@pytest.mark.filterwarnings("ignore:.*TorchVision are deprecated:DeprecationWarning")
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_contact_sheet_is_a_plain_file(recipe: str, tmp_path: Path) -> None:
    from torchvision.io import decode_image

    sheet = np.asarray(contact_sheet(Drawer(RECIPES[recipe]), categories=2, instances=2))
    file = preview(RECIPES[recipe], tmp_path / "sheet.png", categories=2, instances=2)
    assert np.array_equal(np.asarray(Image.open(file)), sheet)
    assert np.array_equal(decode_image(str(file)).permute(1, 2, 0), sheet)


def test_the_command_writes_plain_files_unless_told_and_warns_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    for options, depth in (([], 8), (["--png", "compact"], 1)):
        out = tmp_path / str(depth)
        arguments = [
            "--plugin",
            "ifs",
            "--categories",
            "1",
            "--instances",
            "1",
            "--size",
            "40",
            "--format",
            "imagefolder",
        ]
        result = CliRunner().invoke(app, ["generate", *arguments, "--out", str(out), *options])
        assert result.exit_code == 0, result.output
        assert [path.read_bytes()[24] for path in out.rglob("*.png")] == [depth]
    help_text = " ".join(CliRunner().invoke(app, ["generate", "--help"]).output.replace("│", " ").split())
    assert "torchvision's decode_image and Hugging Face datasets read wrong values" in help_text


def test_names_are_the_published_ones(tmp_path: Path) -> None:
    generate(RECIPES["two gray values"], tmp_path / "store", format="imagefolder")
    names = {str(path.relative_to(tmp_path / "store")) for path in (tmp_path / "store").rglob("*.png")}
    assert "00002/00002_03_count_0_flip0.png" in names
    assert len(names) == 24


def test_every_file_is_plain_8_bit_gray_or_rgb(stores: Stores) -> None:
    for path, _ in stores.files:
        with Image.open(path) as picture:
            assert picture.mode == ("RGB" if stores.pixels == stores.rgb else "L")
        assert path.read_bytes()[24:29] in (bytes([8, 0, 0, 0, 0]), bytes([8, 2, 0, 0, 0]))


def test_other_numbers_of_classes_in_torchvision_are_told(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    perlin, bezier = ({"generator": name, "categories": 2, "instances": 1} for name in ("perlin", "bezier"))
    for parts, is_told in (([perlin, bezier], True), ([bezier, perlin], False)):
        notes: list[str] = []
        progress = SimpleNamespace(categories=lambda *_: None, images=lambda *_: None, note=notes.append)
        recipe = Recipe.from_dict({"parts": parts, "canvas": {"size": 32}})
        store = generate(recipe, tmp_path / str(is_told), format="imagefolder", progress=progress)
        classes = ImageFolder(str(store.path)).classes
        assert (classes != store.layout.category_names) is is_told
        assert any("torchvision's ImageFolder, give these classes other numbers" in note for note in notes) is is_told
