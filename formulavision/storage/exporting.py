"""``export_data``: writes a store of scenes as COCO instances, or as images with semantic masks, for other programs.

Both have the images as ``images/{train,val,test}/NAME.png``. COCO has ``annotations/instances_{train,val,test}.json``,
with run-length encoded masks (https://cocodataset.org/#format-data). Masks are ``masks/{train,val,test}/NAME.png``; the
lines of ``classes.txt`` name the values 0, 1, 2 ...: the layout of mmsegmentation's ``BaseSegDataset``
(``img_path="images/train", seg_map_path="masks/train", img_suffix=".png", seg_map_suffix=".png"``) and of our own
downstream datasets of kind ``masks``.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from formulavision.generators.contract import Scene
from formulavision.recipes.targets import MAX_CATEGORIES_8, semantic_target
from formulavision.rendering.compositing import measure_objects
from formulavision.storage.png import encode_gray, encode_png
from formulavision.storage.run_lengths import encode_masks
from formulavision.storage.store import Store
from formulavision.util.config import did_you_mean
from formulavision.util.errors import ConfigError, StoreError
from formulavision.util.files import atomic_write, flush_everything, partial_path, write_errors, write_text
from formulavision.util.folders import OwnedFolder, State

__all__ = ["EXPORTS", "export_data"]

EXPORTS = ("coco", "masks")
_CLASSES, _README = "classes.txt", "README.md"
_HOW = {
    "coco": "COCO instances, category ids from 1, masks as compressed run lengths. pycocotools reads the annotations; "
    'torchvision reads both: CocoDetection("images/train", "annotations/instances_train.json").',
    "masks": "A mask has the name of its image; the lines of classes.txt name the values 0, 1, 2, ... mmsegmentation: "
    'img_path="images/train", seg_map_path="masks/train", img_suffix=".png", seg_map_suffix=".png". FormulaVision: '
    "--downstream with this folder, if there are scenes in val or test.",
}
"""How other programs read an export."""
_DEEP_MASKS = (
    "A mask has the name of its image; the lines of classes.txt name the values 0, 1, 2, ... of its 16 bits. Programs "
    "that read masks of 8 bits, such as mmsegmentation and FormulaVision's --downstream, do not read these."
)


def export_data(
    store: Store | str | PathLike[str],
    out: str | PathLike[str],
    *,
    to: str,
    val: int = 0,
    test: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write a store of scenes in a layout of other programs. The same call again completes an interrupted export.

    Objects with fewer visible pixels than the recipe's ``min_visible`` have no annotation, and are background in masks.

    Args:
        store: a store of scenes, or its folder.
        out: the folder to write: new, empty, or an unfinished export of the same store.
        to: coco: COCO instances, category ids from 1. masks: semantic masks, 8-bit PNG, 0 background and then the
            categories; above 254 categories 16-bit PNG.
        val, test: numbers of scenes for ``val`` and ``test``, from the end of the store; the others are ``train``.
        overwrite: remove the files of an export that is in the folder. Other files stay.
        progress: called with the number of scenes that are done, and their total.

    Returns:
        The folder.

    Raises:
        ConfigError: there is no such layout, or ``val`` and ``test`` leave no scene for training.
        StoreError: there is no store, it holds no scenes, or one of them is damaged.
        FolderError: the folder holds something else, another process writes there, or it cannot be written.
    """
    store, root = store if isinstance(store, Store) else Store(store), Path(out)
    if to not in EXPORTS:
        raise ConfigError(f"--to {to}: there is no such layout{did_you_mean(to, EXPORTS)}; known: {', '.join(EXPORTS)}")
    if store.layout.scenes is None:
        raise StoreError(f"{store.root}: holds images with a label each, no scenes: its recipe has no 'scene'")
    store.check_sizes()
    splits = _divide(len(store), val, test)
    if to == "masks":
        _check_names(store.layout.category_names)
    folder = OwnedFolder(root, "data export", last=_README)
    identity = {"recipe": store.manifest.recipe_id, "layout": to, "division": f"{val} val, {test} test"}
    ours = list(_files(store, splits, to))
    with write_errors(root), folder.writing(identity, ours, overwrite=overwrite) as state:
        if state is not State.COMPLETE or not _is_whole(store, root, splits, to):
            write = _write_coco if to == "coco" else _write_masks
            write(store, root, splits, lambda done: progress(done, len(store)))
            how = _HOW[to]
            if to == "masks" and len(store.layout.category_names) > MAX_CATEGORIES_8:
                how = _DEEP_MASKS
            write_text(
                root / _README, f"FormulaVision exported the scenes of recipe {store.manifest.recipe_id}.\n{how}\n"
            )
    return root


_PNG_END = b"IEND\xaeB`\x82"


def _divide(scenes: int, val: int, test: int) -> dict[str, range]:
    """The scenes of each split that has any."""
    for name, count in (("val", val), ("test", test)):
        if count < 0:
            raise ConfigError(f"{name}: {count} is not allowed: must be 0 or more scenes")
    if val + test >= scenes:
        raise ConfigError(f"val, test: {val + test:,} of {scenes:,} scenes leave none for training")
    ends = {"train": scenes - val - test, "val": scenes - test, "test": scenes}
    starts = (0, ends["train"], ends["val"])
    return {name: range(start, end) for (name, end), start in zip(ends.items(), starts, strict=True) if start < end}


def _check_names(names: list[str]) -> None:
    """Refuse names that readers of ``classes.txt`` take for something else."""
    for name in names:
        if name == "background" or "#" in name or name != name.strip() or not name.isprintable():
            raise ConfigError(f"--to masks: category {name!r} cannot be a line of {_CLASSES}: rename its CSV file")


def _files(store: Store, splits: dict[str, range], to: str) -> Iterator[str]:
    """The files of an export, as names or patterns of a marker's list."""
    yield _README
    for split, indices in splits.items():
        ends = [store.layout.name(indices[0]), store.layout.name(indices[-1])]
        start = os.path.commonprefix(ends)  # noqa: RUF071
        yield f"images/{split}/{start}*.png"
        yield f"masks/{split}/{start}*.png" if to == "masks" else _annotations(split)
    if to == "masks":
        yield _CLASSES


def _is_whole(store: Store, root: Path, splits: dict[str, range], to: str) -> bool:
    """Whether no file of a complete export was removed or cut since."""
    for split, indices in splits.items():
        names = [f"{store.layout.name(index)}.png" for index in indices]
        folders = [root / kind / split for kind in (("images", "masks") if to == "masks" else ("images",))]
        if not all(_ends_with(folder / name, _PNG_END) for folder in folders for name in names):
            return False
        if to == "coco" and not _ends_with(root / _annotations(split), b"]}\n"):
            return False
    return to == "coco" or (root / _CLASSES).is_file()


def _ends_with(file: Path, end: bytes) -> bool:
    if not file.is_file() or file.stat().st_size < len(end):
        return False
    with file.open("rb") as content:
        content.seek(-len(end), os.SEEK_END)
        return content.read() == end


def _annotations(split: str) -> str:
    return f"annotations/instances_{split}.json"


def _write_masks(store: Store, root: Path, splits: dict[str, range], progress: Callable[[int], None]) -> None:
    names = store.layout.category_names
    for split, index, scene in _scenes(store, root, splits, progress):
        mask = semantic_target(scene, len(names), store.layout.min_visible or 0)
        _write(root / "masks" / split / f"{store.layout.name(index)}.png", encode_gray(mask))
    flush_everything()
    write_text(root / _CLASSES, "".join(f"{name}\n" for name in ["background", *names]))


def _write_coco(store: Store, root: Path, splits: dict[str, range], progress: Callable[[int], None]) -> None:
    for split, indices in splits.items():
        with atomic_write(root / _annotations(split)) as file:
            written = _scenes(store, root, {split: indices}, progress)
            _write_instances(file, store, indices, (scene for _, _, scene in written))
    flush_everything()


def _write_instances(file: BinaryIO, store: Store, indices: range, scenes: Iterator[Scene]) -> None:
    """Write COCO's file, an annotation a line, so that no more than a scene is in memory."""
    layout = store.layout
    categories = [
        {"id": label, "name": name, "supercategory": "formula"} for label, name in enumerate(layout.category_names, 1)
    ]
    info = {"description": f"FormulaVision recipe {store.manifest.recipe_id}"}
    file.write(f'{{"info": {json.dumps(info)}, "licenses": [], "categories": {json.dumps(categories)},\n'.encode())
    images = (
        {"id": index, "file_name": f"{layout.name(index)}.png", "width": layout.size, "height": layout.size}
        for index in indices
    )
    _write_list(file, "images", images)
    file.write(b",\n")
    annotations = itertools.chain.from_iterable(
        _annotate(index, scene, layout.min_visible or 0) for index, scene in zip(indices, scenes, strict=True)
    )
    _write_list(file, "annotations", ({"id": number, **annotation} for number, annotation in enumerate(annotations, 1)))
    file.write(b"}\n")


def _write_list(file: BinaryIO, name: str, items: Iterator[dict[str, Any]]) -> None:
    file.write(f'"{name}": ['.encode())
    for number, item in enumerate(items):
        file.write(b",\n" if number else b"\n")
        file.write(json.dumps(item).encode())
    file.write(b"]")


def _annotate(index: int, scene: Scene, min_visible: int) -> Iterator[dict[str, Any]]:
    """COCO's annotations of a scene, without their ids."""
    objects = len(scene.categories)
    boxes, pixels = measure_objects(scene.object_map, objects)
    counts = encode_masks(scene.object_map, objects)
    for k in np.flatnonzero(pixels >= max(1, min_visible)).tolist():
        left, top, right, bottom = boxes[k].tolist()
        yield {
            "image_id": index,
            "category_id": int(scene.categories[k]) + 1,
            "segmentation": {"size": list(scene.object_map.shape), "counts": counts[k]},
            "area": int(pixels[k]),
            "bbox": [left, top, right - left, bottom - top],
            "iscrowd": 0,
        }


def _scenes(
    store: Store, root: Path, splits: dict[str, range], progress: Callable[[int], None]
) -> Iterator[tuple[str, int, Scene]]:
    """Split, index and scene of each scene; its image is written before."""
    for split, indices in splits.items():
        for index in indices:
            scene = store.scene(index)
            # Some programs read wrong values from compact PNGs.
            png = store.encoded(index) if store.manifest.png == "plain" else encode_png(scene.image)
            _write(root / "images" / split / f"{store.layout.name(index)}.png", png)
            yield split, index, scene
            progress(index + 1)


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. It is flushed with all others, which is faster than one by one."""
    partial = partial_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(content)
    partial.replace(path)
