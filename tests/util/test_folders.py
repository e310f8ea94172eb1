"""Owned folders: what is not ours stays, and no crash, second writer or damaged marker leaves a folder stuck."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from formulavision.util.errors import ConfigError, FolderError, StoreError
from formulavision.util.folders import LOCK, MARKER, Marker, OwnedFolder, State, adding, locked

IDENTITY = {"recipe": "1"}
OURS = ("last.json", "a.txt", "data/part-*.bin", "data/index", "logs/", "runs/one/.formulavision")


def owned(root: Path) -> OwnedFolder:
    return OwnedFolder(root, "store", last="last.json")


def tree(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())


def fill(root: Path, names: Iterable[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def whole(root: Path) -> OwnedFolder:
    """A complete folder with all sorts of files."""
    folder = owned(root)
    with folder.writing(IDENTITY, OURS):
        fill(root, ["a.txt", "data/part-1.bin", "data/part-2.bin", "data/index", "logs/deep/er.txt", "last.json"])
        with OwnedFolder(root / "runs/one", "run", last="run.json").writing({}, ["run.json", "w.bin"]):
            fill(root / "runs/one", ["run.json", "w.bin"])
    return folder


def test_a_folder_is_new_unfinished_and_complete(tmp_path: Path) -> None:
    folder = owned(tmp_path / "store")
    assert folder.state() is State.NEW
    assert not folder.root.exists(), "looking changes nothing"
    with folder.writing(IDENTITY, OURS) as state:
        assert state is State.NEW
        assert folder.state() is State.NEW
        fill(folder.root, ["a.txt"])
        assert folder.state() is State.UNFINISHED
        fill(folder.root, ["last.json"])
        assert folder.state() is State.COMPLETE
    assert tree(folder.root) == [MARKER, "a.txt", "last.json"]


def test_the_marker_is_the_same_however_often_the_folder_is_resumed(tmp_path: Path) -> None:
    for name, times in (("one", 1), ("three", 3)):
        for _ in range(times):
            with owned(tmp_path / name).writing(IDENTITY, OURS):
                owned(tmp_path / name).add(["more", "a.txt"])
                fill(tmp_path / name, ["a.txt"])
    assert (tmp_path / "one" / MARKER).read_bytes() == (tmp_path / "three" / MARKER).read_bytes()


def test_the_marker_tells_a_stranger_what_it_is(tmp_path: Path) -> None:
    content = json.loads((whole(tmp_path / "store").root / MARKER).read_text())
    assert "--overwrite removes" in content["about"]
    assert (content["kind"], content["identity"], content["ours"]) == ("store", IDENTITY, list(OURS))


# What is not ours ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", ["manifest.json", "settings.yaml", "comparison.yaml", "data/thesis.tex", ".secret"])
def test_a_foreign_folder_is_refused_and_stays_as_it_is(tmp_path: Path, there: str) -> None:
    fill(tmp_path, [there])
    for overwrite in (False, True):
        with (
            pytest.raises(FolderError, match=r"is not empty, and has no file \.formulavision .*: give another --out$"),
            owned(tmp_path).writing(IDENTITY, OURS, overwrite=overwrite),
        ):
            pass
    assert tree(tmp_path) == [there]


def test_a_refused_folder_is_a_wrong_option_and_a_wrong_store(tmp_path: Path) -> None:
    fill(tmp_path, ["x"])
    for kind in (ConfigError, StoreError):
        with pytest.raises(kind, match="give another --out"):
            owned(tmp_path).state()


@pytest.mark.parametrize("there", [[], [LOCK], [f"{MARKER}.0123456789abcdef.partial"], [".DS_Store"]])
def test_a_folder_that_a_crash_or_a_file_browser_left_empty_is_new(tmp_path: Path, there: list[str]) -> None:
    fill(tmp_path, there)
    with owned(tmp_path).writing(IDENTITY, OURS) as state:
        assert state is State.NEW
    assert tree(tmp_path) == [name for name in there if name == ".DS_Store"] + [MARKER]


def test_a_file_and_another_kind_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, ["file"])
    with pytest.raises(FolderError, match="file: is a file: give another --out"):
        owned(tmp_path / "file").state()
    whole(tmp_path / "store")
    with (
        pytest.raises(FolderError, match="holds a store, not a run"),
        OwnedFolder(tmp_path / "store", "run", last="run.json").writing({}, [], overwrite=True),
    ):
        pass


FOREIGN = [
    *("thesis.tex", "data/thesis.tex", "data/part-1.txt", "data/deep/er/part-1.bin", "runs/thesis.tex"),
    *("runs/one/thesis.tex", "runs/two/run.json", "data/part-1.bin.partial", "more/a.txt"),
]


def test_overwriting_removes_our_files_and_nothing_else(tmp_path: Path) -> None:
    folder = whole(tmp_path / "store")
    fill(folder.root, [*FOREIGN, "data/part-3.bin.0123456789abcdef.partial"])
    with folder.writing({"recipe": "2"}, OURS, overwrite=True) as state:
        assert state is State.NEW
    assert tree(folder.root) == sorted([MARKER, *FOREIGN])
    assert all((folder.root / name).read_text() == name for name in FOREIGN)
    assert not (folder.root / "logs").exists()


def test_what_is_emptied_is_gone(tmp_path: Path) -> None:
    folder = whole(tmp_path / "store")
    with folder.writing({"recipe": "2"}, OURS, overwrite=True):
        pass
    assert [path.name for path in folder.root.iterdir()] == [MARKER]


def test_a_folder_in_place_of_our_file_stays_and_so_does_a_file_in_place_of_our_folder(tmp_path: Path) -> None:
    folder = whole(tmp_path / "store")
    (folder.root / "a.txt").unlink()
    fill(folder.root, ["a.txt/thesis.tex"])
    (folder.root / "logs/deep/er.txt").unlink()
    (folder.root / "logs/deep").rmdir()
    (folder.root / "logs").rmdir()
    fill(folder.root, ["logs"])
    with folder.writing(IDENTITY, [], overwrite=True):
        assert tree(folder.root) == [MARKER, LOCK, "a.txt/thesis.tex", "logs"]


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege there")
@pytest.mark.parametrize("link", ["a.txt", "data/index", "data", "logs", "logs/link", "runs", "runs/one"])
def test_a_symbolic_link_is_not_followed(tmp_path: Path, link: str) -> None:
    folder = whole(tmp_path / "store")
    outside = tmp_path / "outside"
    path = folder.root / link
    if path.is_dir():
        path.rename(outside)
    else:
        fill(tmp_path, ["outside"])
        path.unlink(missing_ok=True)
    path.symlink_to(outside)
    before = tree(outside)
    with folder.writing({"recipe": "2"}, [], overwrite=True):
        pass
    assert tree(outside) == before
    assert outside.exists()


def test_a_folder_may_itself_be_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    folder = whole(tmp_path / "link")
    with folder.writing(IDENTITY, [], overwrite=True):
        pass
    assert tree(tmp_path / "real") == [MARKER]


@pytest.mark.parametrize("there", ["new.txt", "data/part-9.bin", "extra/note"])
def test_a_file_that_is_in_the_way_is_not_replaced(tmp_path: Path, there: str) -> None:
    root = tmp_path / "store"
    with owned(root).writing(IDENTITY, ["last.json"]):
        pass
    fill(root, [there])
    ours = ["new.txt", "data/part-*.bin", "extra/"]
    for overwrite in (False, True):
        with (
            pytest.raises(FolderError, match="is in the way and not FormulaVision's: move it"),
            owned(root).writing(IDENTITY, ours, overwrite=overwrite),
        ):
            pass
    assert (root / there).read_text() == there


def test_files_that_come_later_are_recorded(tmp_path: Path) -> None:
    folder = whole(tmp_path / "store")
    for place in ("", "probe/"):
        with adding(folder.root / place, ["evaluation.json"]):
            fill(folder.root, [f"{place}evaluation.json"])
    fill(folder.root, ["probe/thesis.tex"])
    with folder.writing(IDENTITY, [], overwrite=True):
        pass
    assert tree(folder.root) == [MARKER, "probe/thesis.tex"]
    with adding(tmp_path / "elsewhere", ["evaluation.json"]):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_files_that_came_later_are_removed_alone(tmp_path: Path) -> None:
    folder = whole(tmp_path / "store")
    before = tree(folder.root)
    with adding(folder.root / "probe/", ["evaluation.json"]):
        fill(folder.root, ["probe/evaluation.json", "thesis.tex"])
    with folder.writing(IDENTITY, []):
        folder.keep_only(OURS)
    assert tree(folder.root) == sorted([*before, "thesis.tex"])


# Identity and crashes ------------------------------------------------------------------------------------------------


def test_another_content_is_refused_unless_it_is_overwritten(tmp_path: Path) -> None:
    folder = whole(tmp_path / "store")
    for what in ("a store", "an unfinished store"):
        with (
            pytest.raises(FolderError, match=f"holds {what} of another recipe: give another --out, or --overwrite"),
            folder.writing({"recipe": "2"}, OURS),
        ):
            pass
        (folder.root / "last.json").unlink(missing_ok=True)


def test_an_overwrite_that_was_stopped_leaves_a_new_folder(tmp_path: Path) -> None:
    folder = whole(tmp_path / "store")
    marker = Marker.read(folder.root)
    assert marker is not None
    discarded = Marker(marker.kind, marker.last, marker.identity, marker.ours, discarded=True)
    for overwrite in (False, True):
        folder = whole(tmp_path / str(overwrite))
        (folder.root / MARKER).write_text(discarded.text())
        assert folder.state() is State.NEW
        with folder.writing({"recipe": "2"}, OURS, overwrite=overwrite) as state:
            assert state is State.NEW
        assert tree(folder.root) == [MARKER]


def test_partial_files_of_killed_writers_are_removed_by_the_next(tmp_path: Path) -> None:
    folder = whole(tmp_path / "store")
    left = [f"{name}.0123456789abcdef.partial" for name in (MARKER, "a.txt", "data/part-7.bin", "data/thesis")]
    fill(folder.root, left)
    before = tree(folder.root)
    with folder.writing(IDENTITY, OURS) as state:
        assert state is State.COMPLETE
    assert set(before) - set(tree(folder.root)) == set(left[:3])


# Markers -------------------------------------------------------------------------------------------------------------


def test_every_flipped_bit_and_every_cut_of_a_marker_is_told(tmp_path: Path) -> None:
    folder = whole(tmp_path / "store")
    path = folder.root / MARKER
    content = path.read_bytes()
    for place in range(len(content)):
        for damaged in (
            content[:place],
            content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :],
        ):
            path.write_bytes(damaged)
            with pytest.raises(FolderError) as told:
                folder.state()
            assert "is damaged, so nothing in its folder is changed" in str(told.value) or "newer" in str(told.value)
            assert "\n" not in str(told.value)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "1", "[" * 100_000, '{"version": 1}', "\xff"])
def test_what_is_no_marker_is_told_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / MARKER).write_text(text, encoding="latin-1")
    with (
        pytest.raises(FolderError, match="is damaged, so nothing in its folder is changed: give another --out"),
        owned(tmp_path).writing(IDENTITY, OURS, overwrite=True),
    ):
        pass
    assert tree(tmp_path) == [MARKER]


def test_a_marker_of_a_newer_version_is_told(tmp_path: Path) -> None:
    folder = whole(tmp_path / "store")
    content = {**json.loads((folder.root / MARKER).read_text()), "version": 2, "kind": ["store"]}
    (folder.root / MARKER).write_text(json.dumps(content))
    with pytest.raises(FolderError, match="a newer version of FormulaVision wrote it: upgrade, or give another --out"):
        folder.state()


@pytest.mark.parametrize("name", ["../thesis.tex", "/etc/thesis.tex", "a/../../thesis.tex", ".", "", MARKER, "../x/"])
def test_a_marker_that_lists_what_is_outside_is_damaged(tmp_path: Path, name: str) -> None:
    """A folder may come from somebody else."""
    fill(tmp_path, ["thesis.tex"])
    (tmp_path / "store").mkdir()
    for marker in (Marker("store", "last.json", IDENTITY, (name,)), Marker("store", name, IDENTITY)):
        (tmp_path / "store" / MARKER).write_text(marker.text())
        with (
            pytest.raises(FolderError, match="is damaged"),
            owned(tmp_path / "store").writing(IDENTITY, [], overwrite=True),
        ):
            pass


# Locks ---------------------------------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from formulavision.util.folders import OwnedFolder
with OwnedFolder(Path(sys.argv[1]), "store", last="last.json").writing({"recipe": "1"}, ["a.txt"]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_refused_until_the_first_one_ends_however_it_ends(tmp_path: Path) -> None:
    folder = owned(tmp_path / "store")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, folder.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == b"held\n"
    for overwrite in (False, True):
        with (
            pytest.raises(FolderError, match=r"another process writes there \(it holds \.formulavision\.lock\)"),
            folder.writing(IDENTITY, OURS, overwrite=overwrite),
        ):
            pass
    assert folder.state() is State.NEW, "looking needs no lock"
    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    assert (folder.root / LOCK).exists()
    with folder.writing(IDENTITY, OURS):
        pass
    assert tree(folder.root) == [MARKER]


def test_a_writer_within_a_folder_that_is_overwritten_is_not_disturbed(tmp_path: Path) -> None:
    folder = whole(tmp_path / "store")
    with (
        locked(folder.root / "runs/one" / LOCK, lambda: None),
        pytest.raises(FolderError, match="runs/one: another process writes there"),
        folder.writing(IDENTITY, OURS, overwrite=True),
    ):
        pass
    assert (folder.root / "runs/one/run.json").is_file()


def test_a_lock_that_nobody_holds_is_had_at_once_and_leaves_nothing_behind(tmp_path: Path) -> None:
    lock = tmp_path / "stages/one.lock"
    for _ in range(2):
        with locked(lock, pytest.fail):
            assert lock.is_file()
        assert list(lock.parent.iterdir()) == []


def test_who_waits_for_a_lock_has_it_after_the_first_is_done(tmp_path: Path) -> None:
    lock, waits, order = tmp_path / "one.lock", threading.Event(), []

    def second() -> None:
        with locked(lock, waits.set):
            order.append("second")

    with locked(lock, pytest.fail):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(60)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]
    assert not lock.exists()


def test_of_many_that_wait_for_a_lock_one_has_it_at_a_time(tmp_path: Path) -> None:
    lock, inside, most = tmp_path / "one.lock", [], []

    def work() -> None:
        for _ in range(20):
            with locked(lock, lambda: None):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 120
