"""The configurations under ``configs/``."""

from __future__ import annotations

from pathlib import Path

from formulavision.comparison import ComparisonSettings
from formulavision.util.config import load_yaml

__all__ = ["CONFIGS", "FOLDER", "RECIPES", "load"]

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(FOLDER.rglob("*.yaml"))
RECIPES = [path for path in CONFIGS if "arms" not in load_yaml(path)]


def load(path: Path, size: str, root: Path) -> ComparisonSettings:
    """The comparison, with every folder of real images that a user has to name."""
    data = load_yaml(path)
    overlay = data.get("sizes", {}).get(size, {})
    settings = []
    for section, inside in (("arms", "images."), ("downstreams", "")):
        there = {**data[section], **overlay.get(section, {})}
        for name in [name for name, inner in there.items() if inner is not None]:
            dataset = {**(data[section].get(name) or {}), **(there[name] or {})}
            dataset = dataset.get("images", {}) if inside else dataset
            if dataset.get("kind") in ("folder", "masks", "imagenet", "places365", "ade20k", "cityscapes"):
                settings.append(f"{section}.{name}.{inside}root={root}")
    return ComparisonSettings.load(path, settings, size=size)
