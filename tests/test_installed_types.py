"""Types as editors and type checkers of a user see them: with the wheel installed, not the checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
from pathlib import Path

import formulavision as fv
import torch
from torch.utils.data import DataLoader, TensorDataset

recipe = fv.Recipe.load("ifs", ["categories=10", "instances=20", "canvas.size=64"])
store = fv.generate(recipe, "data/ifs", workers=2)
reveal_type(store)  # Store
reveal_type(store.read(0))  # ndarray[tuple[Any, ...], dtype[unsignedinteger[_8Bit]]]
reveal_type(fv.verify(store).problems)  # list[str]
reveal_type(fv.preview({"generator": "perlin"}, "sheet.png"))  # Path
reveal_type(fv.contact_sheet(Path("recipe.yaml")))  # Image
reveal_type(fv.bench("ifs").draw_ms)  # float

dataset = fv.FormulaDataset(recipe, transform=lambda image: image.float() / 255)
reveal_type(dataset.classes)  # list[str]
reveal_type(dataset.class_to_idx)  # dict[str, int]
reveal_type(dataset.targets)  # list[int]
reveal_type(fv.StoredDataset(store).recipe)  # Recipe
loader = DataLoader(dataset, batch_size=16, shuffle=True, num_workers=2)
for epoch in range(2):
    dataset.set_epoch(epoch)
    for images, labels in loader:
        print(images.shape, labels.shape)

settings: dict[str, object] = {"model": "resnet18", "epochs": 2}
run = fv.pretrain(recipe, out="runs/ifs", settings=settings)
reveal_type(run)  # Run
reveal_type(run.classes)  # list[str]
mine = TensorDataset(torch.zeros(8, 3, 32, 32), torch.arange(8) % 2)
tuned = fv.finetune(run, (mine, mine), out=Path("runs/mine"), settings=fv.TrainSettings(epochs=1))
reveal_type(tuned.history)  # list[dict[str, float | None]]
evaluation = fv.evaluate(tuned, (mine, mine))
reveal_type(evaluation)  # Evaluation
reveal_type(evaluation.score)  # float
reveal_type(fv.probe(run, "cifar10", method="knn").spread)  # float | None
reveal_type(fv.open_downstream({"kind": "cifar10"}).test.classes)  # list[str]
reveal_type(fv.load_checkpoint("timm:resnet18"))  # Checkpoint

comparison = fv.compare("quickstart.yaml", out="runs/quickstart", size="smoke")
reveal_type(comparison)  # Comparison
reveal_type(comparison.findings.results)  # list[Result]
for result in comparison.findings.results:
    reveal_type(result.score)  # float | None
try:
    fv.generate("ifz", "data/ifz")
except fv.ConfigError as error:
    reveal_type(error.problems)  # tuple[str, ...]


class Noise(fv.Generator):
    name = "noise"

    def category(self, index: int) -> list[float]:
        return [self.stream(index).uniform()]
"""
"""A user's script, which is not run. After each ``reveal_type`` stands the type that is revealed, without modules."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources, because a build leaves files in them."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("formulavision", "plugins", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(out), str(source)], check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment where the wheel is installed beside this one's packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "others.pth").write_text("\n".join(others) + "\n")
    return folder / "bin" / "python"


def test_the_wheel_has_the_types_and_the_stubs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    stubs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "formulavision").rglob("*.pyi")}
    assert stubs | {"formulavision/py.typed"} <= names


@pytest.mark.slow  # mypy reads torch, lightning and pydantic for a minute
def test_a_users_script_is_typed(python: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy comes with the extra lint")
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "--no-color-output"]
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([*command, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    found = dict(re.findall(r'^script.py:(\d+): note: Revealed type is "(.*)"$', done.stdout, re.MULTILINE))
    lines = enumerate(SCRIPT.splitlines(), 1)
    expected = {str(number): line.partition("  # ")[2] for number, line in lines if "reveal_type(" in line}
    without_modules = {number: re.sub(r"\b(?:\w+\.)+(?=\w)", "", kind) for number, kind in found.items()}
    assert "error:" not in done.stdout, done.stdout
    assert without_modules == expected
