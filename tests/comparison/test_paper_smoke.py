"""Every experiment of the papers runs, at its smallest size: the shape of its result, not its values."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from formulavision.comparison import ComparisonSettings, compare
from formulavision.recipes import categories

CONFIGS = Path(__file__).parents[2] / "configs"
EXPERIMENTS = [*sorted((CONFIGS / "paper").glob("*.yaml")), *sorted((CONFIGS / "field").glob("*.yaml"))]
REPEATS = {
    "figure-1b": "arms of table-9 on other downstreams",
    "figure-4": "a sweep of a recipe's setting, which tests/comparison/test_arms.py runs",
    "figure-5": "labels with noise, which tests/comparison/test_arms.py runs",
    "gray-and-color": "arms of other recipes, as in table-9",
    "table-1": "arms of other recipes, as in table-9",
    "table-2": "a sweep of a recipe's setting, which tests/comparison/test_arms.py runs",
    "table-3": "a sweep of a recipe's setting, which tests/comparison/test_arms.py runs",
    "table-4": "a sweep of a recipe's setting, which tests/comparison/test_arms.py runs",
    "table-5": "a sweep of a recipe's setting, which tests/comparison/test_arms.py runs",
    "table-6": "arms of table-7 and table-9",
    "table-8": "frozen layers, which tests/comparison/test_compare.py runs",
    "1p-frac": "settings by a preset, which tests/training/test_presets.py trains",
    "1p-frac-perturbation": "a sweep of a recipe's setting, which tests/comparison/test_arms.py runs",
    "every-formula": "arms of other recipes, as in table-9",
    "imagenet-1k": "arms of other recipes, as in table-9",
    "ofdb": "settings by a preset, which tests/training/test_presets.py trains",
    "rcdb": "settings by a preset, which tests/training/test_presets.py trains",
    "segrcdb": "arms with masks, which tests/comparison/test_arms_of_scenes.py runs",
    "visual-atoms": "settings by a preset, which tests/training/test_presets.py trains",
}
"""Experiments that take the same way through the code as another one: they are slow. ``tests/test_configs.py`` reads
the files of all experiments at all sizes."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of stages for all experiments, as a user would share them."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in REPEATS else [])
        for path in EXPERIMENTS
    ],
)
def test_an_experiment_runs_at_the_smoke_size(
    path: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(categories, "_CACHE_WORTH_S", 0)  # the experiments search for the same categories
    settings = ComparisonSettings.load(path, size="smoke")

    result = compare(settings, out=tmp_path / "out", runs=runs, show_progress=False)

    assert result.failures == {}
    assert [(row.arm, row.downstream, row.freeze, row.seed) for row in result.results] == [
        (arm, downstream, treatment, seed)
        for arm in settings.variants
        for seed in settings.seeds
        for downstream in settings.downstreams
        for treatment in settings.treatments
    ]
    assert all(row.score is not None and 0 <= row.score <= 1 for row in result.results)
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(result.results)
    for name in ("results.md", "report.html", "comparison.yaml"):
        assert (tmp_path / "out" / name).stat().st_size > 0
