"""The sdist and the wheel: what they hold, and what a user of the installed wheel gets, as opposed to the checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from formulavision.util.version import __version__

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


PACKAGES = {"formulavision": "formulavision", "plugins": "formulavision_plugins", "configs": "formulavision_configs"}
"""Folders of the checkout, and the packages as which they are installed."""
BESIDE = ("CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, because a build leaves files in them."""
    folder = tmp_path_factory.mktemp("source")
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BESIDE:
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def sdist(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(out)], cwd=sources, check=True, capture_output=True)
    return next(out.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist as package indexes and distributions build it."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(out), str(sdist)], check=True, capture_output=True)
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


def files_of_packages() -> set[str]:
    """Every file of the packages, by its path in the checkout."""
    files = (path for folder in PACKAGES for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    facts = {name for name in names if name.startswith(f"formulavision-{__version__}.dist-info/")}
    expected = {f"{PACKAGES[name.partition('/')[0]]}/{name.partition('/')[2]}" for name in files_of_packages()}
    assert {"formulavision/py.typed", "formulavision/__init__.pyi", "formulavision_configs/quickstart.yaml"} <= expected
    assert names - facts == expected
    inside = {name.partition("/")[2] for name in facts}
    assert inside == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}


def test_the_sdist_holds_what_the_wheel_is_built_from_and_nothing_else(sdist: Path) -> None:
    with tarfile.open(sdist) as file:
        names = {member.name.partition("/")[2] for member in file if member.isfile()}
    written = {name for name in names if name.startswith("formulavision.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert names - written == files_of_packages() | set(BESIDE)


def test_the_version_has_one_source(wheel: Path) -> None:
    facts = zipfile.ZipFile(wheel).read(f"formulavision-{__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {__version__}\n" in facts
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.slow  # the quickstart of docs/tutorial.md, one epoch each; benchmarks/release.py runs all of it
def test_the_installed_wheel_runs_the_quickstart(python: Path, tmp_path: Path) -> None:
    program = [str(python), "-m", "formulavision"]
    shorter = [f"--set={setting}" for setting in ("seeds=[0]", "pretrain.epochs=1", "finetune.epochs=1")]
    where = subprocess.run(
        [str(python), "-c", "import formulavision; print(formulavision.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert Path(where.strip()).is_relative_to(python.parents[1])
    subprocess.run([*program, "compare", "quickstart", *shorter], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "runs" / "quickstart" / "report.html").is_file()


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


def test_the_release_workflow_tries_the_pythons_that_the_classifiers_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r":: (3\.\d+)$", "\n".join(project["classifiers"]), re.MULTILINE)
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    assert workflow["jobs"]["try"]["strategy"]["matrix"]["python"] == named
    assert project["requires-python"] == f">={named[0]}"


def test_the_dockerfile_copies_what_the_package_is_built_from() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert set(copied) == {*PACKAGES, *BESIDE}
    left_out = (ROOT / ".dockerignore").read_text().splitlines()
    assert not set(copied) & set(left_out)
