"""A store's card, ``README.md``, as Hugging Face shows it beside a dataset: recipe, columns, and how to load it.

A card, of a store or of a model, ends with a digest of itself. A card of a store that was edited, or a README.md of the
user's own, is never replaced.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from formulavision.recipes.recipe import Recipe
from formulavision.storage.manifest import StoreLayout
from formulavision.util.config import dump_yaml

__all__ = ["CARD", "ON_THE_HUB", "SHEET", "is_own_card", "sealed", "store_card"]

CARD = "README.md"
SHEET = "contact-sheet.png"
ON_THE_HUB = (SHEET, ".gitattributes")
"""Files that a store has on the Hub, besides its own."""

_SEAL = "<!-- sha256 of the text above: {} -->\n"
_TASKS = {"class": "image-classification", "labels": "image-classification"}
_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M",
          10**8: "10M<n<100M", 10**9: "100M<n<1B"}  # fmt: skip
"""Hugging Face's names of sizes, by the number of images that they are below."""

_IMAGES_OF = {"parquet": "data/*.parquet", "webdataset": "*.tar", "imagefolder": "*/*.png"}
"""Files of images that ``datasets`` read, by format."""

_COLUMNS = {
    "parquet": {"image": "the image, PNG", "label": "the category, by its name"},
    "webdataset": {"png": "the image", "cls": "the number of the category", "__key__": "the name of the image"},
    "imagefolder": {"image": "the image, PNG", "label": "the category, the name of the folder"},
}
_SCENE_COLUMNS = {
    "parquet": {"image": "the scene, PNG", "objects": "the object map: 0 is background, k the k-th object"},
    "webdataset": {"__key__": "the name of the scene", "png": "the scene", "json": "`object_categories` and `boxes`",
                   "objects.png": "the object map: 0 is background, k the k-th object"},
    "imagefolder": {"image": "the scene, PNG"},
}  # fmt: skip
_OBJECT_COLUMNS = {"object_categories": "the category of each object", "boxes": "the box of each object"}


def store_card(recipe: Recipe, layout: StoreLayout, store_format: str | None, *, sheet: bool = False) -> str:
    """The text of a store's card, or of a recipe's. It depends on the arguments alone.

    Args:
        recipe: of the store.
        layout: of the store.
        store_format: parquet, webdataset or imagefolder; None: there is a recipe alone.
        sheet: whether a contact sheet lies beside the card.
    """
    from jinja2 import Environment, StrictUndefined  # slow to import

    scenes = layout.scenes is not None
    columns = dict((_SCENE_COLUMNS if scenes else _COLUMNS).get(store_format or "", {}))  # none of a user's own format
    if scenes and store_format in ("parquet", "imagefolder"):
        columns |= _OBJECT_COLUMNS
    generators = recipe.generator_names.split(", ")
    header: dict[str, Any] = {
        "license": "unknown",
        "pretty_name": f"{' and '.join(generators)} {recipe.id[:12]}",
        "size_categories": [next((size for below, size in _SIZES.items() if layout.images < below), "n>1T")],
        "task_categories": [_TASKS.get(str(recipe.target), "image-segmentation")],
        "tags": ["formula-driven-supervised-learning", "formulavision", "synthetic", *generators],
    }
    if store_format in _IMAGES_OF:
        files = "images/**" if scenes and store_format == "imagefolder" else _IMAGES_OF[store_format]
        # `datasets` cache what they read of a local folder by this name, and not by the files.
        header["configs"] = [
            {"config_name": f"recipe-{recipe.id[:12]}", "data_files": [{"split": "train", "path": files}]}
        ]
    template = Path(__file__).with_name("store_card.md.j2").read_text(encoding="utf-8")
    cards = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    return sealed(cards.from_string(template).render(
        header=dump_yaml(header), generators=generators, recipe=dump_yaml(recipe.portable()), recipe_id=recipe.id,
        layout=layout, columns=columns, sheet=SHEET if sheet else None,
    ))  # fmt: skip


def sealed(text: str) -> str:
    """The text of a card with its digest, by which :func:`is_own_card` knows it."""
    return text + _SEAL.format(hashlib.sha256(text.encode()).hexdigest())


def is_own_card(content: bytes) -> bool:
    """Whether the content of a README.md is a card that FormulaVision wrote and nobody edited."""
    text, seal = content[: -len(_SEAL.format("0" * 64))], content[-len(_SEAL.format("0" * 64)) :]
    return (
        re.fullmatch(_SEAL.format("[0-9a-f]{64}").encode(), seal) is not None
        and seal == _SEAL.format(hashlib.sha256(text).hexdigest()).encode()
    )
