from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from formulavision.util.files import PARTIAL, atomic_write, is_system_leftover, partial_path


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


@pytest.mark.skipif(os.name == "nt", reason="has no permissions of this kind")
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_have_ordinary_permissions(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "file") as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_no_two_writers_share_a_partial_file() -> None:
    names = {partial_path(Path("data/part.bin")) for _ in range(100)}
    assert len(names) == 100
    assert {PARTIAL.sub("", path.as_posix()) for path in names} == {"data/part.bin"}
