"""The README's commands and code, run as they stand."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from formulavision.cli import app

README = (Path(__file__).parents[1] / "README.md").read_text()


def commands_below(marker: str) -> list[str]:
    """The commands of the code block behind a marker, without their comments."""
    block = README.partition(f"<!-- {marker} -->\n```sh\n")[2].partition("```")[0]
    return block.replace("\\\n", " ").splitlines()


@pytest.mark.slow
def test_the_tour_runs_from_top_to_bottom_in_shorter_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = commands_below("tour")
    assert len(lines) > 15
    for line in lines:
        program, *arguments = shlex.split(line.replace("--epochs 4", "--epochs 1"), comments=True)
        assert program == "formulavision"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{line}\n{result.output}"
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"sheet.png", "scores.png", "data", "runs", "filters.png", "heatmaps.png", "export"}


def test_the_first_python_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = README.partition("```python\n")[2].partition("```")[0]
    small = {
        '"categories": 100, "instances": 100': '"categories": 5, "instances": 4, "canvas": {"size": 32}',
        "1234": "13",
        'model="resnet18", settings={': 'model="resnet10t", settings={"crop": 32, ',
        "/path/to/my/images": "photographs",
    }
    for shown, used in small.items():
        assert code.count(shown) == 1
        code = code.replace(shown, used)
    code = code.replace('"epochs": 30', '"epochs": 1')
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images[:60], digits.target, strict=False)):
        file = tmp_path / "photographs" / str(label) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype(np.uint8)).save(file)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["image"].shape == (1, 32, 32) and names["label"] == 3
    assert [metrics["epoch"] for metrics in names["tuned"].history] == [1]
