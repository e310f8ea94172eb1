"""``plugins new``: writes a package with a generator that works, its test, a README and a CI file."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tempfile
from importlib.metadata import distributions
from importlib.resources import files
from os import PathLike
from pathlib import Path

from formulavision.generators.registry import plugins
from formulavision.testing.digests import write_digests
from formulavision.util.errors import ConfigError
from formulavision.util.files import write_text
from formulavision.util.shipped import shipped_configs

__all__ = ["new_plugin"]

_NAME = re.compile(r"[a-z]([a-z0-9_-]{0,38}[a-z0-9])?")
"""A generator's name that is also allowed as the end of a package's name."""

_FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "@module@.py": "generator.txt",
    "tests/test_@module@.py": "test.txt",
    "README.md": "README.md.txt",
    ".github/workflows/tests.yml": "ci.txt",
    ".gitignore": "gitignore.txt",
}
"""The files of the package, with their templates."""


def new_plugin(name: str, folder: str | PathLike[str] = ".") -> Path:
    """Write a package with a new generator.

    Args:
        name: of the generator; the package is ``formulavision-NAME``.
        folder: where the package's folder ``formulavision-NAME`` is made.

    Returns:
        The package's folder.

    Raises:
        ConfigError: the name is not allowed or taken, or the folder exists.
    """
    _check_name(name)
    target = Path(folder) / f"formulavision-{name}"
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target}: exists: remove it, or choose another name")
    module = _module(name)
    words = {"@name@": name, "@module@": module, "@class@": "".join(map(str.capitalize, re.split("[-_]+", name)))}
    texts = {path: files("formulavision.testing").joinpath("template", file).read_text(encoding="utf-8")
             for path, file in _FILES.items()}  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-plugin-") as temporary:
        package = Path(temporary) / target.name
        for path, text in texts.items():
            for word, value in words.items():
                path, text = path.replace(word, value), text.replace(word, value)
            (package / path).parent.mkdir(parents=True, exist_ok=True)
            write_text(package / path, text)
        _write_first_digests(package, name, module)
        shutil.move(package, target)
    return target


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"name: {name!r} is not allowed: must be lower-case letters, digits, '-' and '_', at most 40, with a "
            "letter first and no '-' or '_' last"
        )
    found = plugins()
    taken = {entry: entry_of.origin for entry, entry_of in found.generators.items()}
    taken |= dict.fromkeys((problem.partition(" ")[0] for problem in found.problems), "a plugin that cannot be loaded")
    taken |= dict.fromkeys(shipped_configs(), "a recipe or comparison that ships")
    package = _canonical(f"formulavision-{name}")
    if any(_canonical(distribution.name or "") == package for distribution in distributions()):
        taken.setdefault(name, f"the package {package}")
    if importlib.util.find_spec(_module(name)) is not None:
        taken.setdefault(name, f"the module {_module(name)}")
    if name in taken:
        raise ConfigError(f"name: '{name}' is taken by {taken[name]}: choose another one")


def _module(name: str) -> str:
    return f"formulavision_{name.replace('-', '_')}"


def _canonical(package: str) -> str:
    """A package's name as installers compare it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _write_first_digests(package: Path, name: str, module: str) -> None:
    specification = importlib.util.spec_from_file_location(module, package / f"{module}.py")
    assert specification is not None and specification.loader is not None
    code = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(code)
    (generator,) = (cls for cls in vars(code).values() if getattr(cls, "name", None) == name)
    write_digests(generator, package / "tests" / "digests.json")
    shutil.rmtree(package / "__pycache__", ignore_errors=True)
