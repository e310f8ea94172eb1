"""The file of digests: pixels that change need a new version; new parameters need their neutral value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faulty
import numpy as np
import pytest
from pydantic import Field

from formulavision import Generator
from formulavision.testing import run_checks, write_digests
from formulavision.util.errors import ConfigError


class NewParams(faulty.SquareParams):
    edge: bool = Field(True, description="an edge", json_schema_extra={"neutral": False})


class NewParamsWithoutNeutral(faulty.SquareParams):
    edge: bool = Field(False, description="an edge")


class NewDefault(faulty.SquareParams):
    side: float = Field(0.25, ge=0.1, le=0.5, description="side of the square")


def other_pixel(self: Any, category: Any, instance: int) -> Any:
    image = faulty.Squares.render(self, category, instance)
    image[-1, -1] ^= 1
    return image


def changed(**attributes: Any) -> type[Generator]:
    return type("Changed", (faulty.Squares,), {"name": "squares", **attributes})


def problems(generator: type[Generator], file: Path) -> list[str]:
    return next(check.problems for check in run_checks(generator, digests=file) if "version" in check.title)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_digests(faulty.Squares, tmp_path / "digests.json")
    return tmp_path / "digests.json"


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks before that of the version start no process."""
    from formulavision.testing import checking

    for title in ("an image is the same in another process", "every parameter can be drawn at the ends of its range"):
        monkeypatch.setitem(checking._CHECKS, title, lambda checker, notes: [])


@pytest.mark.parametrize(
    ("generator", "told"),
    [
        (faulty.Squares, ""),
        (changed(render=other_pixel), "images changed, and the version is still 1: raise it to 2"),
        (changed(render=other_pixel, version=2), "has no digests of version 2: formulavision plugins check squares"),
        (changed(Params=NewDefault), ""),
        (changed(Params=NewParams), ""),
        (changed(Params=NewParamsWithoutNeutral), "recipes of this version got other ids"),
        (changed(background=3), ""),
    ],
)
def test_changes_of_a_generator(generator: type[Generator], told: str, file: Path) -> None:
    found = problems(generator, file)
    assert found == [] if not told else told in found[0], found


def test_a_parameter_that_is_gone_is_told(file: Path) -> None:
    data = json.loads(file.read_text())
    for entry in data["images"]:
        entry["recipe"]["generator"]["gone"] = 1
    file.write_text(json.dumps(data))
    assert "a recipe of this version is refused now" in problems(faulty.Squares, file)[0]


def test_a_version_that_is_lowered_is_told(tmp_path: Path) -> None:
    write_digests(changed(version=3), tmp_path / "digests.json")
    assert "versions only grow" in problems(faulty.Squares, tmp_path / "digests.json")[0]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"images": [1]}', '{"images": [{"recipe": {}}]}', "\x00"])
def test_a_file_of_something_else_is_told_and_not_written_over(content: str, tmp_path: Path) -> None:
    path = tmp_path / "digests.json"
    path.write_text(content)
    assert "is not a file of digests" in problems(faulty.Squares, path)[0]
    with pytest.raises(ConfigError, match="is not written again"):
        write_digests(faulty.Squares, path)
    assert path.read_text() == content


def test_digests_are_written_again_for_a_new_version_only(file: Path) -> None:
    before = file.read_bytes()
    write_digests(faulty.Squares, file)
    assert file.read_bytes() == before
    with pytest.raises(ConfigError, match=r"is not written again: .* images changed"):
        write_digests(changed(render=other_pixel), file)
    assert file.read_bytes() == before
    write_digests(changed(render=other_pixel, version=2), file)
    assert problems(changed(render=other_pixel, version=2), file) == []


def test_masks_count_as_pixels(tmp_path: Path) -> None:
    write_digests(faulty.Masked, tmp_path / "digests.json")

    class Masked(faulty.Masked):
        name = faulty.Masked.name

        def mask(self, image: Any) -> Any:
            return np.ones(image.shape[:2], bool)

    assert "images changed" in problems(Masked, tmp_path / "digests.json")[0]
