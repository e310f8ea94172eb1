"""What the documents say is what the project does."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
from typer.main import get_command

import formulavision
from formulavision import SceneSettings
from formulavision.cli import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, str]]:
    found = []
    for path in DOCUMENTS:
        for block in blocks(path, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                found += [(path.name, part) for part in re.findall(r"formulavision (?!plugin-)[a-z][^#&]*", line)]
    return found


def test_the_architecture_says_where_everything_is() -> None:
    rooms = (ROOT / "docs" / "architecture.md").read_text().partition("## The rooms")[2].partition("## Decisions")[0]
    files = [path for folder in ("formulavision", "plugins") for path in (ROOT / folder).glob("*/**/*.py")]
    # A kind of dataset has a file of its name; a GPU's twin has the name of its kernel.
    named = [p.name for p in files if p.parent.name != "downstream" and not p.stem.endswith(("_triton", "_on_device"))]
    assert len(named) > 90
    assert [name for name in named if name != "__init__.py" and f"{name}`" not in rooms] == []


@pytest.mark.parametrize(
    ("document", "language", "files"),
    [
        ("writing-a-generator.md", "toml", ["third_party/rings/pyproject.toml"]),
        (
            "writing-a-generator.md",
            "python",
            [
                "third_party/rings/formulavision_rings.py",
                "third_party/ribbons/formulavision_ribbons.py",
                "third_party/coins/formulavision_coins.py",
            ],
        ),
        ("drawing-on-a-gpu.md", "python", ["helpers/discs.py", "generators/test_discs.py"]),
    ],
)
def test_the_tutorials_code_is_what_the_tests_run(document: str, language: str, files: list[str]) -> None:
    shown = blocks(ROOT / "docs" / document, language)
    assert shown == [(ROOT / "tests" / file).read_text() for file in files]


def test_the_settings_of_scenes_are_listed_with_their_defaults() -> None:
    listed = (ROOT / "docs" / "scenes.md").read_text().partition("| setting of `scene`")[2].partition("\n\n")[0]
    settings = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]+)`? \|", listed, re.MULTILINE))
    shown = {name: json.loads(value) if value[0] in "[0123456789ntf" else value for name, value in settings.items()}
    assert shown == SceneSettings().model_dump(mode="json")


@pytest.mark.parametrize(("document", "command"), commands())
def test_commands_in_the_documents_exist_with_their_options(document: str, command: str) -> None:
    group = get_command(app)
    _, name, *arguments = command.split()
    assert name in group.commands, f"{document}: {command}"  # type: ignore[attr-defined]
    found = group.commands[name]  # type: ignore[attr-defined]
    if inner := getattr(found, "commands", {}).get(arguments[0] if arguments else ""):
        found = inner
    known = {option for parameter in found.params for option in parameter.opts}
    used = {argument for argument in arguments if argument.startswith("--")}
    assert used <= known, f"{document}: {command}"
    one = group.commands[name]  # type: ignore[attr-defined]
    takes_arguments = hasattr(one, "commands") or any(not p.opts[0].startswith("-") for p in one.params)
    assert takes_arguments or not arguments or arguments[0].startswith(("-", "[")), f"{document}: {command}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_inside_the_project_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_every_page_stands_in_the_navigation_of_the_site() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md") if path.name != "results.md"]
    assert [page.as_posix() for page in pages if f"{page.as_posix()}\n" not in navigation] == []


def test_the_reference_of_python_has_every_public_name_once_and_those_of_the_readme_first() -> None:
    specification = importlib.util.spec_from_file_location("reference", ROOT / "benchmarks" / "reference.py")
    assert specification is not None and specification.loader is not None
    reference = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(reference)
    entries = [line.strip() for line in reference.public_names() if line.startswith((":::", "##"))]
    names = [entry.rpartition(".")[2] for entry in entries if entry.startswith(":::")]
    assert sorted(names) == sorted(name for name in vars(formulavision)["__all__"] if not name.startswith("_"))
    readme = re.findall(r"\bfv\.(\w+)", "\n".join(blocks(ROOT / "README.md", "python")))
    of_the_readme = set(readme)
    assert len(of_the_readme) > 10 and set(names[:15]) >= of_the_readme
    assert names[:2] == list(dict.fromkeys(readme))[:2] == ["Recipe", "FormulaDataset"]
    headings = [entry for entry in entries if entry.startswith("##")]
    assert len(headings) > 5 and entries[0] == headings[0]


def test_the_settings_of_training_are_listed_as_they_are() -> None:
    from formulavision.training.settings import TrainSettings

    def shown(value: object) -> str:
        if isinstance(value, tuple):
            return ", ".join(map(str, value))
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    default, fields = TrainSettings(), TrainSettings.model_fields.items()
    rows = [f"| `{name}` | {shown(getattr(default, name))} | {field.description} |" for name, field in fields]
    listed = (ROOT / "docs" / "training-settings.md").read_text().partition("## Settings\n")[2].splitlines()
    assert [line for line in listed if line.startswith("| `")] == rows
