"""Every file under configs/ says what it does, and is valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from formulavision import Recipe
from formulavision.comparison import ComparisonSettings
from formulavision.config import load_yaml

CONFIGS = sorted((Path(__file__).parents[1] / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_opens_with_what_it_is_and_the_command(path: Path) -> None:
    header = path.read_text().split("\n\n")[0]
    assert header.startswith("# ")
    assert "#   formulavision " in header


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_valid(path: Path, tmp_path: Path) -> None:
    if "arms" not in load_yaml(path):
        assert len(Recipe.load(path)) > 0
        return
    roots = [
        f"downstreams.{name}.root={tmp_path}"
        for name, downstream in load_yaml(path)["downstreams"].items()
        if downstream["kind"] == "folder"
    ]
    assert ComparisonSettings.load(path, roots).arms


@pytest.mark.parametrize(
    ("name", "images"), [("fractaldb-1k", 1_000_000), ("bezier-1024", 1_024_000), ("perlin-1296", 1_296_000)]
)
def test_the_papers_datasets_have_the_papers_sizes(name: str, images: int) -> None:
    assert len(Recipe.load(Path(__file__).parents[1] / "configs" / f"{name}.yaml")) == images
