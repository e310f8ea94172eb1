"""One file, several sizes of its experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from formulavision.comparison import ComparisonSettings
from formulavision.comparison.settings import at_size
from formulavision.util.errors import ConfigError


def write(folder: Path, data: dict[str, Any]) -> Path:
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def test_mappings_merge_and_lists_and_values_replace_and_null_removes() -> None:
    data = {"model": "resnet50", "seeds": [0, 1], "arms": {"a": {}, "b": {}}, "finetune": {"epochs": 90, "crop": 224}}
    overlay = {"model": "resnet18", "seeds": [0], "arms": {"b": None, "c": {}}, "finetune": {"epochs": 2}}
    assert at_size({**data, "sizes": {"smoke": overlay}}, "smoke") == {
        "model": "resnet18",
        "seeds": [0],
        "arms": {"a": {}, "c": {}},
        "finetune": {"epochs": 2, "crop": 224},
        "size": "smoke",
    }


def test_without_a_size_the_file_is_as_it_stands(small: dict[str, Any], tmp_path: Path) -> None:
    file = write(tmp_path, {**small, "sizes": {"smoke": {"seeds": [5]}}})
    assert ComparisonSettings.load(file) == ComparisonSettings.load(file, size="full")
    assert ComparisonSettings.load(file).size == "full"
    assert ComparisonSettings.load(file).seeds == [0]
    smoke = ComparisonSettings.load(file, size="smoke")
    assert (smoke.size, smoke.seeds) == ("smoke", [5])


def test_settings_of_the_command_line_lie_over_the_size(small: dict[str, Any], tmp_path: Path) -> None:
    file = write(tmp_path, {**small, "sizes": {"smoke": {"finetune": {"epochs": 1}}}})
    assert ComparisonSettings.load(file, ["finetune.epochs=7"], size="smoke").finetune["epochs"] == 7


@pytest.mark.parametrize("size", [None, "smoke"])
def test_null_on_the_command_line_removes_as_in_a_size(small: dict[str, Any], tmp_path: Path, size: str | None) -> None:
    small |= {"paper": {"digits": {"broken": 70.0}}, "against": "scratch", "seeds": [1]}
    file = write(tmp_path, {**small, "sizes": {"smoke": {"arms": {"more": {}}}}})
    removed = ["arms.broken=null", "against=null", "finetune.milestones=null", "seeds=null"]
    settings = ComparisonSettings.load(file, removed, size=size)
    assert list(settings.arms) == ["scratch", "stripes", *(["more"] if size else [])]
    assert (settings.paper, settings.against, settings.seeds) == ({"digits": {}}, None, [0])
    assert "milestones" not in settings.finetune


@pytest.mark.parametrize("setting", ["arms.brokn=null", "finetune.gamma=null", "reach=~", "arms.new.recipe="])
def test_null_that_removes_what_is_not_there_is_refused(small: dict[str, Any], tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ComparisonSettings.load(write(tmp_path, small), [setting])
    assert caught.value.problems == (f"--set {setting}: null removes a setting, and this one is not there",)


def test_an_empty_arm_in_the_file_trains_from_scratch(small: dict[str, Any], tmp_path: Path) -> None:
    small["arms"] = {"scratch": None, "other": {}}
    arms = ComparisonSettings.load(write(tmp_path, small)).arms
    assert [arm.from_scratch for arm in arms.values()] == [True, True]


def test_an_unknown_size_lists_those_there_are(small: dict[str, Any], tmp_path: Path) -> None:
    file = write(tmp_path, {**small, "sizes": {"gpu": {}, "smoke": {}}})
    with pytest.raises(ConfigError) as caught:
        ComparisonSettings.load(file, size="smok")
    (problem,) = caught.value.problems
    assert problem == f"{file}: sizes: there is no 'smok' (did you mean 'smoke'?) (known: full, gpu, smoke)"


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"full": {}}, "sizes.full: is the name of the file without a size"),
        (["smoke"], "sizes: must be a mapping"),
        ({"smoke": {"arms": {"nobody": None}}}, "sizes.smoke.arms.nobody: null removes a setting, and this one is not"),
    ],
)
def test_wrong_sizes_are_refused(small: dict[str, Any], sizes: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        at_size({**small, "sizes": sizes}, "smoke")
    assert caught.value.problems[0].startswith(message)


def test_the_papers_numbers_for_what_a_size_leaves_out_are_left_out(small: dict[str, Any], tmp_path: Path) -> None:
    small["downstreams"]["more"] = {"kind": "digits"}
    small["paper"] = {
        "digits": {"scratch": 80.0, "broken": 70.0, "stripes": 90.0, "stripes/conv1": 60.0},
        "more": {"scratch": 50.0},
    }
    small["freeze"] = ["none", "conv1"]
    smoke = {"arms": {"broken": None}, "downstreams": {"more": None}, "freeze": ["none"]}
    file = write(tmp_path, {**small, "sizes": {"smoke": smoke}})
    assert ComparisonSettings.load(file, size="smoke").paper == {"digits": {"scratch": 80.0, "stripes": 90.0}}


def test_a_number_for_what_no_size_has_is_a_mistake(small: dict[str, Any], tmp_path: Path) -> None:
    small["paper"] = {"digits": {"strips": 90.0}}
    file = write(tmp_path, {**small, "sizes": {"smoke": {}}})
    with pytest.raises(ConfigError, match=r"paper\.digits\.strips: there is no such arm"):
        ComparisonSettings.load(file, size="smoke")


def test_the_paths_of_a_size_start_at_the_file_too(small: dict[str, Any], tmp_path: Path) -> None:
    smoke = {"downstreams": {"digits": {"kind": "folder", "root": "photographs"}}}
    del small["downstreams"]["digits"]["kind"]
    file = write(tmp_path, {**small, "sizes": {"smoke": smoke}})
    assert ComparisonSettings.load(file, size="smoke").downstreams["digits"].root == tmp_path / "photographs"
