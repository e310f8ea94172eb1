from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from formulavision.data.downstream import DownstreamSettings, open_downstream
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("cifar11", r"'cifar11': there is no such folder or dataset \(did you mean 'cifar10'"),
        ("folder", "root: is missing"),
        ("imagenet", r"root: is missing: which folder\? \(imagenet:/path\)"),
        ("", "'': there is no such folder or dataset"),
        (__file__, "is a file: give a folder"),
    ],
)
def test_a_wrong_name_is_refused(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        open_downstream(text)


def test_a_name_may_carry_its_root() -> None:
    settings = DownstreamSettings.from_text("cifar10:/data/c10")
    assert (settings.kind, settings.root) == ("cifar10", Path("/data/c10"))
    assert DownstreamSettings.model_validate("cifar10:/data/c10") == settings


def test_classes_are_read_from_a_file_or_a_list(tmp_path: Path) -> None:
    listed = "n01440764  # tench\n\n  apartment_building/outdoor\n# two of them\n"
    (tmp_path / "classes.txt").write_text(listed, encoding="utf-8-sig")  # as Windows' editors write it
    by_file = DownstreamSettings.model_validate({"kind": "digits", "classes": str(tmp_path / "classes.txt")})
    assert by_file.classes == ("n01440764", "apartment_building/outdoor")
    assert DownstreamSettings.model_validate({"kind": "digits", "classes": [1, "2"]}).classes == ("1", "2")
    assert DownstreamSettings.model_validate(by_file.model_dump(mode="json")) == by_file


@pytest.mark.parametrize(
    ("classes", "named"),
    [
        ("nowhere.txt", r"classes: nowhere.txt: No such file or directory: must be a text file with one class a line"),
        (["cat"], r"classes: .* at least 2"),
        (["cat", "dog", "cat"], r"classes: names 'cat' more than once"),
        ([True, "dog"], r"classes.*valid string"),
    ],
)
def test_a_wrong_choice_of_classes_is_refused(classes: object, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse(DownstreamSettings, {"kind": "digits", "classes": classes})


def test_opening_settings_import_no_torch() -> None:
    code = (
        "import sys, formulavision.data.downstream; assert not {'torch', 'torchvision', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
