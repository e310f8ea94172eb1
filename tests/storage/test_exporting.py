"""Exports of scenes: what COCO's, mmsegmentation's and our own readers find in them is what the scenes hold."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import slow
from crash_points import contents, kill_everywhere
from pebbles import Pebbles
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from typer.testing import CliRunner

from formulavision import ConfigError, Recipe, Store, export_data, generate, register
from formulavision.cli import app
from formulavision.recipes.targets import objects_target, semantic_target
from formulavision.util.errors import FolderError, StoreError

register(Pebbles)
OWN: dict[str, Any] = {"generator": "pebbles", "categories": 4, "scene": "own", "images": 12, "canvas": {"size": 32}}
COMPOSED: dict[str, Any] = {
    "parts": [
        {"generator": {"name": "ifs", "dots": 1000, "weights": "table"}, "categories": 3},
        {"generator": "bezier", "categories": 2},
    ],
    "scene": {"objects": [1, 20], "min_visible": 15, "background": {"generator": "perlin", "categories": 1}},
    "images": 12,
    "canvas": {"size": 61, "channels": 3},
}
RECIPES = {
    "composed": COMPOSED,
    "of its own": OWN,
    "of many objects": {**OWN, "generator": {"name": "pebbles", "objects": 300}},
    "of many categories": {**OWN, "categories": 255, "generator": {"name": "pebbles", "objects": 40}},
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    root = tmp_path_factory.mktemp("stores")
    recipes = {name: Recipe.from_dict(recipe) for name, recipe in RECIPES.items()}
    return {name: generate(recipe, root / name) for name, recipe in recipes.items()}


# COCO


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("kind", RECIPES)
def test_pycocotools_reads_each_object_of_each_scene(stores: dict[str, Store], kind: str, tmp_path: Path) -> None:
    store = stores[kind]
    assert export_data(store, tmp_path / "out", to="coco") == tmp_path / "out"
    read = COCO(str(tmp_path / "out" / "annotations" / "instances_train.json"))
    names = store.layout.category_names
    assert {category["id"]: category["name"] for category in read.loadCats(read.getCatIds())} == dict(
        enumerate(names, 1)
    )
    assert sorted(read.getImgIds()) == list(range(12))
    assert min(read.getAnnIds()) == 1
    for index in range(12):
        scene = store.scene(index)
        objects = objects_target(scene, store.layout.min_visible or 0)
        annotations = read.loadAnns(read.getAnnIds(imgIds=index))
        assert [annotation["category_id"] - 1 for annotation in annotations] == objects.categories.tolist()
        for annotation, number, box in zip(annotations, objects.numbers, objects.boxes, strict=True):
            mask = np.asfortranarray(scene.object_map == number, np.uint8)
            encoded = coco_mask.encode(mask)
            assert annotation["segmentation"] == {"size": encoded["size"], "counts": encoded["counts"].decode()}
            assert np.array_equal(read.annToMask(annotation), mask)
            assert annotation["area"] == mask.sum() == coco_mask.area(encoded)
            left, top, right, bottom = box.tolist()
            assert annotation["bbox"] == [left, top, right - left, bottom - top] == coco_mask.toBbox(encoded).tolist()
            assert annotation["iscrowd"] == 0


@pytest.mark.parametrize("kind", ["composed", "of its own"])
def test_torchvision_reads_images_and_objects(stores: dict[str, Store], kind: str, tmp_path: Path) -> None:
    from torchvision.datasets import CocoDetection

    store = stores[kind]
    export_data(store.path, str(tmp_path / "out"), to="coco", val=3, test=2)
    first = {"train": 0, "val": 7, "test": 10}
    for split, count in (("train", 7), ("val", 3), ("test", 2)):
        dataset = CocoDetection(
            str(tmp_path / "out" / "images" / split), str(tmp_path / "out" / "annotations" / f"instances_{split}.json")
        )
        assert len(dataset) == count
        for position, (image, objects) in enumerate(dataset):
            scene = store.scene(first[split] + position)
            assert np.array_equal(np.asarray(image), np.broadcast_to(scene.image, (*scene.image.shape[:2], 3)))
            assert len(objects) == len(objects_target(scene, store.layout.min_visible or 0).numbers)
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    splits = {index: "train" if index < 7 else "val" if index < 10 else "test" for index in range(12)}
    assert files == {f"images/{split}/{index:08d}.png" for index, split in splits.items()}


def test_no_more_than_a_few_scenes_are_in_memory(
    stores: dict[str, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[Any]] = []
    most = 0
    read = Store.scene

    def watched(self: Store, index: int) -> Any:
        nonlocal most
        scene = read(self, index)
        alive.append(weakref.ref(scene.object_map))
        most = max(most, sum(reference() is not None for reference in alive))
        return scene

    monkeypatch.setattr(Store, "scene", watched)
    for to in ("coco", "masks"):
        export_data(stores["of its own"], tmp_path / to, to=to)
    assert len(alive) == 24
    assert most <= 2


# Masks


@pytest.mark.parametrize("kind", RECIPES)
def test_masks_are_images_of_class_values_under_their_images_names(
    stores: dict[str, Store], kind: str, tmp_path: Path
) -> None:
    store = stores[kind]
    names = store.layout.category_names
    export_data(store, tmp_path / "out", to="masks", test=2)
    assert (tmp_path / "out" / "classes.txt").read_text().splitlines() == ["background", *names]
    for index in range(12):
        split = "train" if index < 10 else "test"
        scene = store.scene(index)
        mask = Image.open(tmp_path / "out" / "masks" / split / f"{index:08d}.png")
        assert mask.mode == ("L" if len(names) <= 254 else "I;16")
        values = np.asarray(mask)
        assert np.array_equal(values, semantic_target(scene, len(names), store.layout.min_visible or 0))
        image = np.asarray(Image.open(tmp_path / "out" / "images" / split / f"{index:08d}.png"))
        assert np.array_equal(image, scene.image.squeeze())


def test_mmsegmentation_pairs_images_and_masks(stores: dict[str, Store], tmp_path: Path) -> None:
    """As its BaseSegDataset does: the end of an image's path is replaced by that of its mask, below another folder."""
    export_data(stores["composed"], tmp_path / "out", to="masks", val=4)
    pairs = 0
    for split, count in (("train", 8), ("val", 4)):
        images = sorted((tmp_path / "out" / "images" / split).rglob("*.png"))
        masks = [Path(str(path).replace("/images/", "/masks/")[: -len(".png")] + ".png") for path in images]
        assert len(images) == count and all(path.is_file() for path in masks)
        values = np.unique([np.asarray(Image.open(path)) for path in masks])
        assert set(values.tolist()) <= set(range(6))
        pairs += len(masks)
    assert pairs == len(list((tmp_path / "out" / "masks").rglob("*.png"))) == 12


@pytest.mark.parametrize("split", ["val", "test"])
def test_our_own_downstreams_read_masks(stores: dict[str, Store], split: str, tmp_path: Path) -> None:
    from formulavision import open_downstream

    store = stores["composed"]
    export_data(store, tmp_path / "out", to="masks", **{split: 3})  # type: ignore[arg-type]
    opened = open_downstream(str(tmp_path / "out"))
    assert list(opened.train.classes) == ["background", *store.layout.category_names]
    assert (len(opened.train), len(opened.test)) == (9, 3)
    for index in range(12):
        side, position = (opened.train, index) if index < 9 else (opened.test, index - 9)
        image, mask = side[position]
        scene = store.scene(index)
        assert np.array_equal(image.numpy().transpose(1, 2, 0), scene.image)
        assert np.array_equal(mask.numpy(), semantic_target(scene, 5, 15))


def test_names_that_a_list_of_classes_cannot_hold_are_refused(tmp_path: Path) -> None:
    for name in ("a#1", "background", " a"):
        folder = tmp_path / f"cats {name}"
        folder.mkdir()
        np.savetxt(folder / f"{name}.csv", [[70.0]], delimiter=",")
        store = generate(Recipe.from_dict({**OWN, "categories": {"folder": str(folder)}}), tmp_path / f"store {name}")
        with pytest.raises(ConfigError, match=r"^--to masks: category '[^\n]*' cannot be a line of classes\.txt"):
            export_data(store, tmp_path / "out", to="masks")
        assert not (tmp_path / "out").exists()
        export_data(store, tmp_path / f"coco {name}", to="coco")


@pytest.mark.parametrize("to", ["coco", "masks"])
@pytest.mark.parametrize("format", ["webdataset", "imagefolder"])
def test_an_export_depends_neither_on_the_format_nor_on_the_encoding(
    stores: dict[str, Store], format: str, to: str, tmp_path: Path
) -> None:
    export_data(stores["of its own"], tmp_path / "plain", to=to)
    two_values = {**OWN, "generator": {"name": "pebbles", "objects": 1}}
    for recipe in (OWN, two_values):
        for encoding in ("plain", "compact"):
            store = generate(Recipe.from_dict(recipe), tmp_path / "store", format=format, png=encoding, overwrite=True)
            export_data(store, tmp_path / encoding, to=to, overwrite=True)
        assert contents(tmp_path / "plain") == contents(tmp_path / "compact")
        assert all(file.read_bytes()[24:26] == b"\x08\x00" for file in (tmp_path / "compact" / "images").rglob("*.png"))


# The folder


@pytest.mark.parametrize(
    ("to", "state"), [("masks", "new"), ("coco", "overwritten"), *slow(("coco", "new"), ("masks", "overwritten"))]
)
def test_an_export_that_is_killed_anywhere(stores: dict[str, Store], to: str, state: str, tmp_path: Path) -> None:
    store, root = stores["of its own"], tmp_path / "out"
    export_data(store, tmp_path / "whole", to=to, test=5)
    whole = contents(tmp_path / "whole")
    foreign = {f"{folder}holiday.png": b"x" for folder in ("", "images/", "images/train/", "masks/test/")}

    def fresh() -> None:
        if state == "overwritten":
            export_data(stores["composed"], root, to="masks", val=2)
            for name, content in foreign.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(content)
            whole.update(foreign)

    def write(overwrite: bool) -> None:
        export_data(store, root, to=to, test=5, overwrite=overwrite)

    ways_on = {"--overwrite": lambda: write(True)} | ({"again": lambda: write(False)} if state == "new" else {})
    total = kill_everywhere(lambda: write(state == "overwritten"), root, fresh=fresh, ways_on=ways_on, whole=whole)
    assert total > 50


def test_a_complete_export_is_left_as_it_is_and_others_are_refused(stores: dict[str, Store], tmp_path: Path) -> None:
    store, out = stores["of its own"], tmp_path / "out"
    export_data(store, out, to="masks", val=2)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    export_data(store, out, to="masks", val=2)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    for other, settings, which in (
        (store, {"to": "coco", "val": 2}, "layout"),
        (store, {"to": "masks"}, "division"),
        (stores["composed"], {"to": "masks", "val": 2}, "recipe"),
        (store, {"to": "coco"}, "layout and another division"),
    ):
        with pytest.raises(FolderError, match=f"holds a data export of another {which}: .*--overwrite"):
            export_data(other, out, **settings)
    with pytest.raises(FolderError, match="holds a store, not a data export"):
        export_data(store, store.path, to="coco", overwrite=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    with pytest.raises(FolderError, match="is not empty"):
        export_data(store, tmp_path / "thesis", to="coco", overwrite=True)


@pytest.mark.parametrize("to", ["masks", "coco"])
def test_an_export_from_which_something_was_removed_is_completed(
    stores: dict[str, Store], tmp_path: Path, to: str
) -> None:
    out = export_data(stores["of its own"], tmp_path / "out", to=to, val=2)
    files = [path for path in out.rglob("*") if path.is_file() and path.suffix and path.name != "README.md"]
    whole = {path: path.read_bytes() for path in files}
    chosen = {path.suffix + str(path.parent): path for path in files}
    assert len(chosen) == (5 if to == "masks" else 3)
    for path in chosen.values():
        path.unlink()
        export_data(stores["of its own"], out, to=to, val=2)
        assert {path: path.read_bytes() for path in files} == whole
    for path in (*out.glob("annotations/*.json"), *(path for path in chosen.values() if path.suffix == ".png")):
        path.write_bytes(whole[path][:-3])
        export_data(stores["of its own"], out, to=to, val=2)
        assert path.read_bytes() == whole[path]


def test_a_damaged_scene_is_told(tmp_path: Path) -> None:
    store = generate(Recipe.from_dict(OWN), tmp_path / "store", format="imagefolder")
    file = store.path / "objects" / "00000" / "00000007.png"
    file.write_bytes(file.read_bytes()[:60].ljust(file.stat().st_size, b"\0"))
    with pytest.raises(StoreError, match="object map 00000007 is damaged"):
        export_data(store, tmp_path / "out", to="coco")
    assert not (tmp_path / "out" / "annotations" / "instances_train.json").exists()


# The command


def test_the_command_writes_and_says_how_to_read_it(stores: dict[str, Store], tmp_path: Path) -> None:
    path = str(stores["of its own"].path)
    for to, told in (("coco", "CocoDetection("), ("masks", 'seg_map_path="masks/train"')):
        result = CliRunner().invoke(app, ["export-data", path, "--to", to, "--out", str(tmp_path / to)])
        assert result.exit_code == 0, result.output
        assert told in (tmp_path / to / "README.md").read_text()
    annotations = json.loads((tmp_path / "coco" / "annotations" / "instances_train.json").read_text())
    assert len(annotations["images"]) == 12


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--to", "coc"], "--to coc: there is no such layout (did you mean 'coco'?); known: coco, masks"),
        (["--to", "coco", "--val", "-1"], "val: -1 is not allowed: must be 0 or more scenes"),
        (["--to", "coco", "--val", "8", "--test", "4"], "val, test: 12 of 12 scenes leave none for training"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_written(
    stores: dict[str, Store], arguments: list[str], told: str, tmp_path: Path
) -> None:
    path = str(stores["of its own"].path)
    result = CliRunner().invoke(app, ["export-data", path, "--out", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 2
    assert result.stderr.strip().splitlines() == [f"error: {told}"]
    assert not (tmp_path / "out").exists()


def test_ctrl_c_ends_an_export_in_one_line_and_the_same_command_completes_it(
    stores: dict[str, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["export-data", str(stores["of its own"].path), "--to", "coco", "--out", str(tmp_path / "out")]
    read = Store.scene

    def interrupted(self: Store, index: int) -> Any:
        if index == 7:
            raise KeyboardInterrupt
        return read(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "scene", interrupted)
        result = CliRunner().invoke(app, command)
    assert (result.exit_code, result.stderr.strip().splitlines()[-1]) == (130, "stopped")
    assert not (tmp_path / "out" / "annotations" / "instances_train.json").exists()
    assert CliRunner().invoke(app, command).exit_code == 0
    export_data(stores["of its own"], tmp_path / "whole", to="coco")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_store_without_scenes_is_refused(tmp_path: Path) -> None:
    recipe = {"generator": "perlin", "categories": 2, "instances": 2, "canvas": {"size": 16}}
    store = generate(Recipe.from_dict(recipe), tmp_path / "store")
    for path in (store.path, tmp_path / "absent"):
        result = CliRunner().invoke(app, ["export-data", str(path), "--to", "coco", "--out", str(tmp_path / "out")])
        assert result.exit_code == 2
        assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
