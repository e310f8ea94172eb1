from __future__ import annotations

import pytest

from formulavision.util.files import is_system_leftover


@pytest.mark.parametrize(
    "name",
    [
        *(".DS_Store", "._00000.png", "Icon\r", "Thumbs.db", "thumbs.db", "desktop.ini", "@eaDir", "#recycle"),
        *(".nfs000000000a1b2c3d", ".Trash-1000", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__MACOSX"),
    ],
)
def test_what_operating_systems_leave_behind_is_known(name: str) -> None:
    assert is_system_leftover(name)


@pytest.mark.parametrize(
    "name", ["00000", "Thumbs", "DS_Store", ".incomplete", "Thumbs.db.png", "x.DS_Store", "recycle", "nfs", "", "Icon"]
)
def test_other_names_are_not(name: str) -> None:
    assert not is_system_leftover(name)
