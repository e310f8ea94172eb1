"""Streams of published sets are walked once, and their checkpoints are found again."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from formulavision import FolderError, WalkedStreams
from formulavision.generators import walked_streams
from formulavision.util.files import cache_folder

CHECKPOINT = np.dtype([("image", "<i8"), ("state", "<i8", 1)])
STREAMS, LENGTH, STRETCH, EVERY = 3, 25, 10, 4


def start(stream: int) -> NDArray[Any]:
    return np.array([1000 * stream])


def walk(calls: list[tuple[int, int]] | None, state: NDArray[Any], images: int) -> NDArray[Any]:
    """Each image takes one number of a stream that counts up; every fourth image has a checkpoint."""
    if calls is not None:
        calls.append((int(state[0]), images))
    numbers = [*range(0, images, EVERY), images]
    return np.array([(n, state + n) for n in numbers], CHECKPOINT)


def streams(calls: list[tuple[int, int]] | None = None, **settings: Any) -> WalkedStreams:
    sizes = {"streams": STREAMS, "length": LENGTH, "stretch": STRETCH}
    return WalkedStreams("counting", settings, **sizes, start=start, walk=partial(walk, calls))


def files() -> list[Path]:
    return sorted((cache_folder() / "streams").rglob("*.npz"))


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORMULAVISION_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("order", [range(75), range(74, -1, -1), np.random.default_rng(0).permutation(75)])
def test_a_checkpoint_is_the_last_one_at_or_before_the_image(order: Any) -> None:
    found = streams()
    for image in map(int, order):
        stream, place = divmod(image, LENGTH)
        expected = place - place % STRETCH % EVERY
        checkpoint = found.checkpoint(image)
        assert checkpoint["image"] == stream * LENGTH + expected
        assert checkpoint["state"] == 1000 * stream + expected


def test_a_stretch_is_walked_once() -> None:
    calls: list[tuple[int, int]] = []
    for _ in range(2):
        walked = streams(calls)
        for image in range(75):
            walked.checkpoint(image)
    assert sorted(calls) == [(1000 * s + n, size) for s in range(3) for n, size in ((0, 10), (10, 10), (20, 5))]


def test_an_image_needs_its_own_stream_alone() -> None:
    calls: list[tuple[int, int]] = []
    streams(calls).checkpoint(40)
    assert calls == [(1000, 10), (1010, 10)]


@pytest.mark.parametrize(("images", "stretches"), [(1, 1), (10, 1), (11, 2), (25, 3), (26, 4), (75, 9)])
def test_all_streams_are_walked_as_far_as_the_first_images_need(images: int, stretches: int) -> None:
    firsts = list(streams().walked(images, lambda checkpoints: int(checkpoints["image"][0])))
    assert firsts == [0, 10, 20, 25, 35, 45, 50, 60, 70][:stretches]
    assert len(files()) == stretches


def test_a_walk_that_was_interrupted_goes_on() -> None:
    calls: list[tuple[int, int]] = []
    walked = streams(calls).walked(75, len)
    next(walked)
    del walked
    done = len(calls)
    list(streams(calls).walked(75, len))
    assert 1 <= done <= 9
    assert Counter(calls).most_common(1)[0][1] == 1 and len(calls) == 9


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"no array at all"])
def test_a_damaged_file_is_walked_again(damage: bytes) -> None:
    list(streams().walked(75, len))
    before = files()[1].read_bytes()
    files()[1].write_bytes(damage)
    assert streams().checkpoint(19)["image"] == 18
    assert files()[1].read_bytes() == before


def test_other_settings_are_other_streams() -> None:
    names = {streams(size=size).name for size in (0, 1, 2)}
    assert len(names) == 3


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FORMULAVISION_CACHE", str(tmp_path / "file"))
    with pytest.raises(FolderError, match="set FORMULAVISION_CACHE to a folder that can be written"):
        streams().checkpoint(3)


def test_threads_and_processes_share_the_walks() -> None:
    shared = streams()
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.extend(int(shared.checkpoint(i)["state"][0]) for i in range(75)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(found).most_common(1)[0][1] % 4 == 0 and len(found) == 300
    copy = pickle.loads(pickle.dumps(shared))
    assert copy.checkpoint(74)["image"] == 74
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_image_of, [74, 0]) == [74, 0]


def _image_of(image: int) -> int:
    return int(streams().checkpoint(image)["image"])


def test_the_cost_of_a_long_walk_is_stated_before_it_starts(caplog: pytest.LogCaptureFixture) -> None:
    long = WalkedStreams(
        "counting", {}, streams=3, length=25, stretch=10, words=1e11, start=start, walk=partial(walk, [])
    )
    assert len(list(long.walked(75, len))) == 9
    assert [record.message[:64] for record in caplog.records] == [
        "the random streams of the published set are walked first, once: "
    ]
    assert "7.5e+12 random words" in caplog.text and str(cache_folder()) in caplog.text
    list(long.walked(75, len))
    list(streams().walked(75, len))
    assert len(caplog.records) == 1


def test_a_long_walk_to_an_image_says_how_long_it_will_take(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(walked_streams, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    far = WalkedStreams("counting", {}, streams=1, length=100, stretch=10, start=start, walk=partial(walk, []))
    far.checkpoint(15)  # a second stretch that begins after 6 s takes 6 s more
    assert caplog.records == []
    far.checkpoint(95)
    (record,) = caplog.records
    assert "walked first, once: about 42 s more; states are kept in" in record.message
