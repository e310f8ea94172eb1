"""Stores of scenes and of recipes of several parts: what they hold, in every format, however they came about."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pebbles import Pebbles
from PIL import Image

from formulavision import Drawer, FormulaVisionError, Recipe, Scene, Store, export_data, generate, register, verify
from formulavision.recipes.targets import has_label, objects_target
from formulavision.storage import FORMATS, manifest, png
from formulavision.storage.formats import format as format_module
from formulavision.storage.formats import imagefolder
from formulavision.storage.manifest import MANIFEST, StoreLayout
from formulavision.util.errors import StoreError

pytestmark = [
    pytest.mark.usefixtures("redrawn_here"),
    # These libraries leave files for the garbage collector to close.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

register(Pebbles)
PARTS = [
    {"generator": {"name": "ifs", "dots": 1000, "weights": "table"}, "categories": 3},
    {"generator": {"name": "bezier"}, "categories": 2},
]
BACKGROUND = {"generator": {"name": "perlin", "grid": 3}, "categories": 2}
COMPOSED: dict[str, Any] = {
    "parts": PARTS,
    "scene": {"objects": [1, 6], "size": [0.2, 0.6], "background": BACKGROUND, "colors": "random"},
    "images": 20,
    "canvas": {"size": 48},
}
OWN = {"generator": "pebbles", "categories": 4, "scene": "own", "images": 20, "canvas": {"size": 32}}
MANY = {**OWN, "generator": {"name": "pebbles", "objects": 300}}
SCENES = {"composed": COMPOSED, "of its own": OWN, "of many objects": MANY}
SINGLE = {
    "parts": [{**part, "instances": count} for part, count in zip(PARTS, (7, 4), strict=True)],
    "canvas": {"size": 24},
}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_module, "SHARD_IMAGES", 8)
    monkeypatch.setattr(imagefolder, "FOLDER_SCENES", 8)


@pytest.fixture(params=FORMATS)
def format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


MOSTLY_PARQUET = pytest.mark.parametrize(
    "format", [pytest.param(name, marks=[] if name == "parquet" else pytest.mark.slow) for name in FORMATS]
)
"""For what is the same code in all formats."""


def contents(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# What they hold


@pytest.mark.parametrize("kind", SCENES)
def test_every_format_holds_the_scenes_that_the_recipe_draws(kind: str, format: str, tmp_path: Path) -> None:
    recipe = Recipe.from_dict(SCENES[kind])
    store = generate(recipe, tmp_path / "store", format=format)
    drawn = Drawer(recipe).draw_scenes(np.arange(20))
    assert (len(store), len(store.pieces)) == (20, 3)
    for index in (13, 0, 19, 7, 8, -1):
        stored, expected = store.scene(index), drawn[index]
        assert np.array_equal(stored.image, expected.image)
        assert np.array_equal(store.read(index), expected.image)
        assert (stored.object_map.dtype, stored.categories.dtype) == (np.uint16, np.int64)
        assert np.array_equal(stored.object_map, expected.object_map)
        assert np.array_equal(stored.categories, expected.categories)
    assert store.layout.category_names == [category.name for category in Drawer(recipe).categories]
    assert verify(store.path, sample=None).problems == []


def test_the_boxes_are_those_of_objects_that_are_visible_and_zeros_for_others(format: str, tmp_path: Path) -> None:
    recipe = Recipe.from_dict({**COMPOSED, "scene": {**COMPOSED["scene"], "objects": 12, "min_visible": 60}})
    store = generate(recipe, tmp_path / "store", format=format)
    hidden = 0
    for index in range(len(store)):
        scene, boxes = store.scene(index), store.boxes(index)
        assert boxes.shape == (12, 4)
        seen = has_label(scene, 60)
        assert np.array_equal(boxes[seen], objects_target(scene, 60).boxes)
        assert not boxes[~seen].any()
        hidden += int((~seen).sum())
    assert hidden > 0


@MOSTLY_PARQUET
def test_several_parts_without_a_scene(format: str, tmp_path: Path) -> None:
    recipe = Recipe.from_dict(SINGLE)
    store = generate(recipe, tmp_path / "store", format=format)
    images, labels = Drawer(recipe).draw_batch(range(29))
    assert [store.label(index) for index in range(29)] == labels.tolist()
    assert all(np.array_equal(store.read(index), images[index]) for index in range(29))
    assert [store.layout.name(index) for index in range(29)] == [Drawer(recipe).name(index) for index in range(29)]
    assert verify(store.path, sample=None).problems == []


def test_torchvision_reads_a_folder_of_several_parts(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    store = generate(Recipe.from_dict(SINGLE), tmp_path / "store", format="imagefolder")
    dataset = ImageFolder(str(store.path))
    assert dataset.classes == sorted(store.layout.category_names)
    assert len(dataset) == 29


def test_a_store_without_scenes_says_so(tmp_path: Path) -> None:
    store = generate(Recipe.from_dict(SINGLE), tmp_path / "store")
    with pytest.raises(StoreError, match=r"^[^\n]*holds images with a label each, no scenes[^\n]*$"):
        store.scene(0)
    scenes = generate(Recipe.from_dict(OWN), tmp_path / "scenes")
    with pytest.raises(StoreError, match="holds scenes, which have no label"):
        scenes.label(0)
    for index in (20, -21):
        with pytest.raises(IndexError):
            scenes.scene(index)


def test_a_format_that_holds_no_scenes_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagefolder.ImageFolder, "holds_scenes", False)
    with pytest.raises(StoreError, match="--format imagefolder: holds no scenes"):
        generate(Recipe.from_dict(OWN), tmp_path / "store", format="imagefolder")
    assert not (tmp_path / "store").exists()


def test_an_image_is_read_without_its_object_map(tmp_path: Path) -> None:
    store = generate(Recipe.from_dict(OWN), tmp_path / "store", format="imagefolder")
    images = [store.read(index) for index in range(20)]
    shutil.rmtree(tmp_path / "store" / "objects")
    assert all(np.array_equal(Store(store.path).read(index), images[index]) for index in range(20))
    with pytest.raises(StoreError, match=r"objects/00000/00000003\.png: No such file"):
        Store(store.path).scene(3)


@pytest.mark.parametrize("format", ["webdataset", "parquet"])
def test_reading_scenes_of_many_shards_keeps_few_files_open(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(format_module, "SHARD_IMAGES", 1)
    monkeypatch.setattr(Store, "OPEN_PIECES", 5)
    store = generate(Recipe.from_dict(OWN), tmp_path / "store", format=format)
    folder = Path("/proc/self/fd")
    before = len(list(folder.iterdir())) if folder.is_dir() else 0
    assert all(store.scene(index).image.any() for index in range(20))
    assert (len(list(folder.iterdir())) if folder.is_dir() else 0) - before <= 5


def test_scenes_without_an_object_are_kept(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(self: Pebbles, categories: Any, index: int) -> Scene:
        scene = real(self, categories, index)
        return scene if index % 3 else Scene(scene.image, np.zeros_like(scene.object_map), np.empty(0, np.int64))

    real = Pebbles.scene
    monkeypatch.setattr(Pebbles, "scene", empty)
    store = generate(Recipe.from_dict(OWN), tmp_path / "store", format=format)
    assert [len(store.scene(index).categories) for index in range(6)] == [0, 6, 6, 0, 6, 6]
    assert store.boxes(3).shape == (0, 4)
    export_data(store, tmp_path / "coco", to="coco")
    annotations = json.loads((tmp_path / "coco" / "annotations" / "instances_train.json").read_text())
    assert {one["image_id"] for one in annotations["annotations"]} == {i for i in range(20) if i % 3}


def test_a_shard_of_other_columns_is_told(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    store = generate(Recipe.from_dict(OWN), tmp_path / "store")
    file = store.path / store.manifest.pieces[0].path
    table = pq.read_table(file)
    for columns in (["objects", "boxes"], ["image", "objects"], ["boxes"]):
        pq.write_table(table.select(columns), file, compression="none", use_dictionary=False)
        with pytest.raises(StoreError, match=r"^[^\n]*train-00000-of-00003\.parquet: [^\n]*$"):
            Store(store.path).scene(0)


def test_a_folder_holds_a_thousand_scenes() -> None:
    layout = StoreLayout(category_names=["a"], size=8, channels=1, scenes=1_000_000, min_visible=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imagefolder, "FOLDER_SCENES", 1000)
        pieces = imagefolder.ImageFolder().plan(layout)
        files = imagefolder.ImageFolder().files(pieces[42], layout)
    assert len(pieces) == 1000
    assert pieces[42].path == "images/00042"
    assert len(files) == 2001
    assert {"images/00042/00042999.png", "objects/00042/00042000.png", "images/00042/metadata.jsonl"} < set(files)


# The same bytes


@pytest.mark.slow  # test_generation.py: workers take pieces in the same way, whatever is drawn
@MOSTLY_PARQUET
@pytest.mark.parametrize("recipe", [COMPOSED, SINGLE], ids=["scenes", "parts"])
def test_the_bytes_do_not_depend_on_the_number_of_workers(recipe: dict[str, Any], format: str, tmp_path: Path) -> None:
    generate(Recipe.from_dict(recipe), tmp_path / "one", format=format)
    generate(Recipe.from_dict(recipe), tmp_path / "two", format=format, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.usefixtures("cuda_is_the_cpu")
def test_scenes_that_a_device_draws_are_the_same_bytes(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.from_dict(OWN)
    generate(recipe, tmp_path / "cpu", format=format)
    with monkeypatch.context() as patch:
        patch.setattr("formulavision.recipes.drawing.own_scenes", None)
        generate(recipe, tmp_path / "cuda", format=format, device="cuda")
    assert contents(tmp_path / "cpu") == contents(tmp_path / "cuda")


def test_another_target_is_the_same_store(tmp_path: Path) -> None:
    store = generate(Recipe.from_dict({**OWN, "target": "labels"}), tmp_path / "store")
    before = contents(store.path)
    again = generate(Recipe.from_dict({**OWN, "target": "objects"}), tmp_path / "store")
    assert contents(store.path) == before
    assert again.recipe.target == "labels"
    assert verify(store.path, sample=None).ok


def test_manifests_say_no_more_than_their_stores_need(tmp_path: Path) -> None:
    for name, recipe, keys in (
        ("one", {"generator": "perlin", "categories": 2, "instances": 2, "canvas": {"size": 16}}, {"instance_names"}),
        ("parts", SINGLE, {"parts"}),
        ("scenes", OWN, {"scenes", "min_visible"}),
    ):
        store = generate(Recipe.from_dict(recipe), tmp_path / name)
        layout = json.loads((store.path / MANIFEST).read_text())["layout"]
        assert set(layout) == {"category_names", "size", "channels", *keys}


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        ({}, "exactly one of"),
        ({"instance_names": ["a"], "scenes": 3, "min_visible": 1}, "exactly one of"),
        ({"scenes": 3}, "min_visible belongs to scenes"),
        ({"instance_names": ["a"], "min_visible": 1}, "min_visible belongs to scenes"),
        ({"parts": [{"categories": 1, "instance_names": ["a"]}]}, "do not have all categories"),
        ({"parts": [{"categories": 2, "instance_names": ["a", "a"]}]}, "two names are the same"),
        ({"scenes": 0, "min_visible": 1}, "greater than or equal to 1"),
    ],
)
def test_layouts_that_contradict_themselves(layout: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        StoreLayout(category_names=["a", "b"], size=8, channels=1, **layout)


# Categories in files


@MOSTLY_PARQUET
def test_a_store_of_parts_needs_nothing_outside_of_it(format: str, tmp_path: Path) -> None:
    """Categories of a part and of the background were read from folders, one of them the store that is overwritten."""
    own = [np.array([[grid]]) for grid in (2.0, 4.0, 5.0)]
    for folder in ("part", "behind"):
        (tmp_path / folder).mkdir()
        for i, parameters in enumerate(own):
            np.savetxt(tmp_path / folder / f"field{i}.csv", [[*parameters[0], 1.0 + i]], delimiter=",")
    part = {"generator": {"name": "perlin"}, "categories": {"folder": str(tmp_path / "part")}, "object": "fill"}
    behind = {"generator": {"name": "perlin"}, "categories": {"folder": str(tmp_path / "behind"), "count": 2}}
    recipe = Recipe.from_dict(
        {
            "parts": [PARTS[1], part],
            "scene": {"objects": 2, "size": [0.5, 0.6], "background": behind},
            "images": 10,
            "canvas": {"size": 24},
        }
    )
    store = generate(recipe, tmp_path / "store", format=format)
    assert all(str(tmp_path).encode() not in file.read_bytes() for file in store.path.rglob("*") if file.is_file())
    before = contents(store.path)
    for folder in ("part", "behind"):
        shutil.rmtree(tmp_path / folder)
    path = store.path.rename(tmp_path / "moved")
    assert verify(path, sample=None).problems == []
    assert Store(path).layout.category_names == [
        "bezier-00000",
        "bezier-00001",
        *(f"perlin-field{i}" for i in range(3)),
    ]
    assert Recipe.load(path / "recipe.yaml").id == recipe.id
    generate(Recipe.load(path / "recipe.yaml"), path, format=format, overwrite=True, workers=2)
    assert contents(path) == before
    (path / MANIFEST).unlink()
    generate(recipe, path, format=format)
    assert contents(path) == before
    taken = {"generator": "perlin", "categories": {"folder": str(path / "categories-1.json")}, "instances": 2}
    assert Recipe.from_dict(taken).num_categories == 3


# Verify


def rewrite(store: Store, change: Callable[[Any], Any]) -> Path:
    """Write a store whose scene 11 is another one: as if a generator had drawn it so."""
    from formulavision.storage import piece_workers

    real = piece_workers.EncodedObjects.of

    def changed(scene: Any, min_visible: int) -> Any:
        changed.count += 1  # type: ignore[attr-defined]
        return change(real(scene, min_visible)) if changed.count == 12 else real(scene, min_visible)  # type: ignore[attr-defined]

    changed.count = 0  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(piece_workers.EncodedObjects, "of", changed)
        return generate(store.recipe, store.path, format=store.manifest.format, overwrite=True).path


def one_pixel_more(objects: Any) -> Any:
    object_map = png.decode_object_map(objects.png)
    object_map[0, 0] = 1 + object_map[0, 0] % len(objects.categories)
    return type(objects)(png.encode_object_map(object_map, len(objects.categories)), objects.categories, objects.boxes)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (one_pixel_more, "1 pixels of its object map differ from the formula's"),
        (lambda o: type(o)(o.png, (o.categories + 1) % 4, o.boxes), "its objects' categories differ"),
        (lambda o: type(o)(o.png, o.categories, o.boxes + 1), "its objects' boxes differ"),
        (lambda o: type(o)(o.png, o.categories + 4, o.boxes), "an object's category is none of 4"),
        (lambda o: type(o)(o.png, o.categories[:2], o.boxes[:2]), r"it shows object \d of 2"),
        (lambda o: type(o)(o.png[:-20], o.categories, o.boxes), "object map 00000011 is damaged"),
    ],
)
def test_verify_finds_what_the_formula_does_not_draw(
    change: Callable[[Any], Any], told: str, format: str, tmp_path: Path
) -> None:
    store = generate(Recipe.from_dict(OWN), tmp_path / "store", format=format)
    problems = verify(rewrite(store, change), sample=None).problems
    assert problems
    assert all("00000011" in problem for problem in problems)
    assert any(re.search(told, problem) for problem in problems), problems


def test_verify_finds_a_changed_pixel_of_an_image(tmp_path: Path) -> None:
    store = generate(Recipe.from_dict(OWN), tmp_path / "store", format="imagefolder")
    file = store.path / "images" / "00001" / "00000011.png"
    image = store.read(11)
    image[3, 4] += 1
    file.write_bytes(png.encode_png(image))
    problems = verify(store.path, sample=None).problems
    assert any(problem.startswith("00000011: 1 pixels differ from the formula's") for problem in problems)


def test_verify_names_a_damaged_piece(format: str, tmp_path: Path) -> None:
    store = generate(Recipe.from_dict(OWN), tmp_path / "store", format=format)
    files = [file for file in store.path.rglob("*") if file.suffix in (".parquet", ".tar", ".png", ".jsonl")]
    assert len(files) == (43 if format == "imagefolder" else 3)
    for file in files[:: 7 if format == "imagefolder" else 1]:
        content = file.read_bytes()
        for damaged in (content[: len(content) // 2], content[:9] + b"x" + content[10:], b""):
            file.write_bytes(damaged)
            problems = verify(store.path, sample=0).problems
            assert problems and all("\n" not in problem for problem in problems)
            assert str(file.parent if file.suffix in (".png", ".jsonl") else file) in problems[0]
        # Its images cannot be read, which is said once.
        assert file is not files[0] or len(verify(store.path, sample=None).problems) == 1
        file.write_bytes(content)
        file.unlink()
        assert f"{file}: is missing" in verify(store.path, sample=0).problems
        file.write_bytes(content)
    assert verify(store.path, sample=None).ok


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"scenes": 19}, "its pieces are not those of 19 images"),
        ({"min_visible": 3}, "other numbers of scenes and of visible pixels"),
        (
            {"scenes": None, "min_visible": None, "instance_names": list("abcde")},
            "other numbers of scenes|is not the|are not",
        ),
    ],
)
def test_a_layout_that_says_something_else_is_found(
    change: dict[str, Any], told: str, format: str, tmp_path: Path
) -> None:
    store = generate(Recipe.from_dict(OWN), tmp_path / "store", format=format)
    data = json.loads((store.path / MANIFEST).read_text())
    layout = {name: value for name, value in (data["layout"] | change).items() if value is not None}
    data |= {"layout": layout, "sha256": "0" * 64}
    head, zeros, tail = (json.dumps(data, indent=1) + "\n").rpartition("0" * 64)
    (store.path / MANIFEST).write_text(head + manifest._checksum((head + zeros + tail).encode()) + tail)
    try:
        problems = verify(store.path, sample=0).problems
    except FormulaVisionError as error:
        problems = [str(error)]
    assert any(re.search(told, problem) for problem in problems), problems


# Other programs


@pytest.mark.parametrize("kind", SCENES)
def test_hugging_face_datasets_read_parquet_with_their_defaults(kind: str, tmp_path: Path) -> None:
    import datasets

    store = generate(Recipe.from_dict(SCENES[kind]), tmp_path / "store")
    files = str(store.path / "data" / "*.parquet")
    for dataset in (
        datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "c")),
        datasets.load_dataset(str(store.path), split="train", cache_dir=str(tmp_path / "d")),
    ):
        assert dataset.features["object_categories"].feature.names == store.layout.category_names
        check_rows(store, dataset)


def check_rows(store: Store, rows: Any, image: str = "image", objects: str | None = "objects") -> None:
    count = 0
    for index, row in enumerate(rows):
        scene = store.scene(index)
        assert np.array_equal(np.asarray(row[image]), scene.image.squeeze())
        if objects is not None:
            assert np.array_equal(np.asarray(row[objects]), scene.object_map)
        assert row["object_categories"] == scene.categories.tolist()
        assert row["boxes"] == store.boxes(index).tolist()
        count += 1
    assert count == len(store)


@pytest.mark.parametrize("kind", SCENES)
def test_webdataset_reads_tar_shards(kind: str, tmp_path: Path) -> None:
    import webdataset

    store = generate(Recipe.from_dict(SCENES[kind]), tmp_path / "store", format="webdataset")
    tars = [str(path) for path in sorted(store.path.glob("*.tar"))]
    rows = [
        {"image": image, "objects": Image.open(io.BytesIO(objects)), **facts}
        for image, objects, facts in webdataset.WebDataset(tars, shardshuffle=False)
        .decode("pil", only=["png", "json"])
        .to_tuple("png", "objects.png", "json")
    ]
    if store.layout.channels == 1:
        rows = [{**row, "image": row["image"].convert("L")} for row in rows]
    check_rows(store, rows)


@pytest.mark.parametrize("kind", SCENES)
def test_hugging_face_datasets_read_folders_and_tar_shards(kind: str, tmp_path: Path) -> None:
    import datasets

    store = generate(Recipe.from_dict(SCENES[kind]), tmp_path / "folder", format="imagefolder")
    folder = datasets.load_dataset(
        "imagefolder", data_dir=str(store.path / "images"), split="train", cache_dir=str(tmp_path / "c")
    )
    # datasets reads folders in any order.
    check_rows(store, sorted(folder, key=lambda row: Path(row["image"].filename).name), objects=None)
    shards = generate(Recipe.from_dict(SCENES[kind]), tmp_path / "shards", format="webdataset")
    rows = datasets.load_dataset(
        "webdataset", data_files=str(shards.path / "*.tar"), split="train", cache_dir=str(tmp_path / "c")
    )
    check_rows(store, [{**row, **row["json"]} for row in rows], "png", "objects.png")


def test_files_are_plain_png(tmp_path: Path) -> None:
    store = generate(Recipe.from_dict(MANY), tmp_path / "store", format="imagefolder")
    for file in store.path.rglob("*.png"):
        with Image.open(file) as picture:
            assert picture.mode == ("L" if file.parts[-3] == "images" else "I;16")
