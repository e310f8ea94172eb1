"""What plugins may use is public: the generators that ship use nothing else, and one from the docs draws in colour."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import formulavision as fv
from formulavision import rendering

ROOT = Path(__file__).parents[2]
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
RIBBONS = ROOT / "tests" / "third_party" / "ribbons" / "formulavision_ribbons.py"


def public_names(module: str) -> set[str]:
    """``__all__`` of a module, read from its source: some need Triton to be imported."""
    if module == "formulavision":
        return {*dir(fv), "rendering"}
    if module == "formulavision.rendering":
        return set(dir(rendering))
    package, _, name = module.rpartition(".")
    if package != "formulavision.rendering" or name not in dir(rendering):
        return set()
    tree = ast.parse((ROOT / "formulavision" / "rendering" / f"{name}.py").read_text())
    lists = (
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return set(ast.literal_eval(next(lists)))


def used(file: Path) -> Iterator[tuple[str, str]]:
    """Module and name of all that a file takes from this package, by imports and as attributes of modules."""
    tree = ast.parse(file.read_text())
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                (alias.name, "a whole module") for alias in node.names if alias.name.startswith("formulavision.")
            )
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "formulavision":
            assert node.module is not None
            for alias in node.names:
                yield node.module, alias.name
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts = ast.unparse(node).split(".")
            module = ".".join([modules.get(parts[0], ""), *parts[1:-1]])
            if public_names(module):
                yield module, parts[-1]


@pytest.mark.parametrize("file", [*PLUGINS, RIBBONS], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_plugins_use_public_names_only(file: Path) -> None:
    assert [(module, name) for module, name in used(file) if name not in public_names(module)] == []


def test_the_check_sees_names_that_are_not_public(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(
        "from formulavision.recipes.drawing import Drawer\n"
        "from formulavision import rendering, Generator\n"
        "from formulavision.rendering import points\n"
        "from formulavision.rendering.kernels import kernel\n"
        "import formulavision.util\n"
        "rendering.polylines._draw_segment, points._bounds, rendering.kernel_digest, points.mark\n"
    )
    wrong = {name for module, name in used(tmp_path / "plugin.py") if name not in public_names(module)}
    assert wrong == {"Drawer", "kernel", "a whole module", "_draw_segment", "_bounds", "kernel_digest"}


@pytest.fixture
def ribbons() -> Iterator[Any]:
    specification = importlib.util.spec_from_file_location("formulavision_ribbons", RIBBONS)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    yield fv.register(module.Ribbons)
    fv.plugins().generators.pop("ribbons")


def test_the_generator_of_the_docs_draws_in_colour(ribbons: Any, tmp_path: Path) -> None:
    settings = {"generator": "ribbons", "categories": 3, "instances": 2, "canvas": {"size": 48}}
    recipe = fv.Recipe.from_dict(settings)
    store = fv.generate(recipe, tmp_path / "store")
    drawn = fv.Drawer(recipe).draw_batch(range(6))[0]
    assert drawn.shape == (6, 48, 48, 3) and all((store.read(i) == drawn[i]).all() for i in range(6))
    assert all(np.ptp(image.astype(int), axis=2).max() > 50 for image in drawn), "hues, not grays"
    assert len({image.tobytes() for image in drawn}) == 6
    assert fv.verify(store, sample=None).ok
    assert fv.FormulaDataset(recipe)[0][0].shape == (3, 48, 48)
    assert fv.preview(recipe, tmp_path / "sheet.png").stat().st_size > 1000
    gray = fv.Recipe.from_dict({**settings, "canvas": {"size": 48, "channels": 1}})
    assert fv.Drawer(gray).draw(0)[0].shape == (48, 48, 1)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("julia-2", "there is no generator 'julia-2' (its package is called formulavision-julia-2 by"),
        ("ifz", "there is no generator 'ifz' (did you mean 'ifs'?); installed: "),
        ("a package/../x", "there is no generator 'a package/../x'; installed: "),
    ],
)
def test_a_generator_that_is_missing_is_told_with_the_package_that_has_it(name: str, told: str) -> None:
    with pytest.raises(fv.PluginError) as caught:
        fv.plugins()[name]
    assert str(caught.value).startswith(told)
