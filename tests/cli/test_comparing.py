"""``compare`` and ``report`` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from formulavision.cli import app
from formulavision.comparison import Comparison
from formulavision.comparison.results import Findings


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What ``compare`` was called with, which runs nothing."""
    import formulavision.comparison

    seen: dict[str, Any] = {}

    def fake(config: Any = None, *, out: Any, **settings: Any) -> Comparison:
        seen.update(settings, config=config, out=out)
        empty = Findings(name="", size="", model="", data="", arms={}, downstreams={}, freezes=[], results=[])
        return Comparison(config, out or Path(), empty)

    monkeypatch.setattr(formulavision.comparison, "compare", fake)
    return seen


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "table-9.yaml"
    data = {
        "arms": {"scratch": {}},
        "downstreams": {"digits": {"kind": "digits"}},
        "sizes": {"gpu": {"model": "resnet34"}, "smoke": {"finetune": {"epochs": 1}}},
    }
    file.write_text(yaml.safe_dump(data))
    return file


def test_where_it_writes_says_what_it_is(config: Path, called: dict[str, Any]) -> None:
    assert run("compare", config).exit_code == 0
    assert called["out"] == Path("runs/table-9")
    assert run("compare", config, "--size", "full").exit_code == 0
    assert called["out"] == Path("runs/table-9")
    assert run("compare", config, "--size", "smoke").exit_code == 0
    assert called["out"] == Path("runs/table-9-smoke")
    assert called["config"].finetune == {"epochs": 1}


def test_its_options_reach_the_function(config: Path, called: dict[str, Any], tmp_path: Path) -> None:
    options = ("--out", tmp_path / "out", "--runs", tmp_path / "pool", "--overwrite", "--set", "seeds=[3]")
    assert run("compare", config, "--size", "gpu", *options).exit_code == 0
    assert (called["out"], called["runs"], called["overwrite"]) == (tmp_path / "out", tmp_path / "pool", True)
    assert (called["config"].model, called["config"].seeds) == ("resnet34", [3])


def test_a_sweep_can_be_asked_for_on_the_command_line(config: Path, called: dict[str, Any]) -> None:
    assert run("compare", config, "--set", "sweep.finetune.learning_rate=[0.1, 0.01]").exit_code == 0
    assert list(called["config"].variants) == ["scratch-learning_rate-0.1", "scratch-learning_rate-0.01"]


def test_a_downstream_stands_in_place_of_a_file(called: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    settings = ("--set", "downstream.test_split=val")
    assert run("compare", "--downstream", tmp_path / "pets", "--minutes", "3", *settings).exit_code == 0
    assert (called["config"], called["minutes"], called["out"]) == (None, 3, None)
    assert (called["downstream"].root, called["downstream"].test_split) == (tmp_path / "pets", "val")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a comparison, or --downstream"),
        (("quickstart", "--downstream", "digits"), "give a comparison, or --downstream"),
        (("quickstart", "--minutes", "3"), "--minutes: is for --downstream"),
        (("--downstream", "digits", "--set", "seeds=[0]"), "--set seeds=[0]: is not of the dataset"),
        (("--downstream", "nowhere"), "no such folder or dataset; datasets are folder, digits"),
        (("--downstream", "/no/where"), "no such folder"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    result = run("compare", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_a_folder_of_images_in_place_of_a_file_is_answered_with_the_option_for_it(tmp_path: Path) -> None:
    result = run("compare", tmp_path)
    assert result.exit_code == 2
    assert (
        f"for images: formulavision compare --downstream {tmp_path}" in result.stderr and result.stderr.count("\n") == 1
    )


def test_an_unknown_size_is_answered_with_those_there_are(config: Path) -> None:
    result = run("compare", config, "--size", "tiny")
    assert result.exit_code == 2
    assert "sizes: there is no 'tiny' (known: full, gpu, smoke)" in result.stderr


def test_help_teaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = run("compare", "--help").output
    for word in ("--size", "--runs", "sweep.generator.fill_rate", "formulavision report"):
        assert word in text


def test_a_report_of_what_is_no_comparison_is_refused(tmp_path: Path) -> None:
    result = run("report", tmp_path, tmp_path / "other", "--out", tmp_path / "joined")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path}: holds no results.json")
    assert not (tmp_path / "joined").exists()
