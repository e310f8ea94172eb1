"""Random streams of published sets: walked once, with the states to begin from kept in the user's cache folder.

An original program draws all images of a process from one random stream, so the random numbers of an image are known
only after those of all images before it. A walk reads a stream without drawing, and notes the state where images
begin. With several processes the original had several streams, which are walked in parallel.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from formulavision.util.errors import FolderError
from formulavision.util.files import atomic_write, cache_folder
from formulavision.util.folders import locked

__all__ = ["WalkedStreams"]

_MOST_HELD = 128
"""Largest number of stretches that are held in memory."""
_LONG_S = 10
"""A walk that takes more seconds says so."""
T = TypeVar("T")


class WalkedStreams:
    """The streams of a published set, and the checkpoints along them.

    Images are numbered over all streams: stream i has the images i x length to (i + 1) x length - 1. A stream is walked
    stretch by stretch, and each stretch becomes a file in the cache folder, so a walk that is interrupted goes on with
    the stretch that is missing.

    Args:
        name: the generator's name, for the folder's.
        settings: everything that the walk depends on, as JSON can write it.
        streams: number of streams: of processes of the original program.
        length: number of images of a stream.
        stretch: number of images of a stretch.
        words: mean number of random words of an image: by it the cost of a walk is stated before it starts.
        start: gives the state at the beginning of a stream, by the number of the stream.
        walk: gives checkpoints along a number of images, from a state on, which it may change: an array with the fields
            ``image``, int64, counted from the state; ``state``, where the image begins; and any others. The first is of
            image 0; the last is that of the image behind, and its state is the walk's end. It is called in several
            threads at once.
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, object],
        *,
        streams: int,
        length: int,
        stretch: int,
        words: float = 0.0,
        start: Callable[[int], NDArray[Any]],
        walk: Callable[[NDArray[Any], int], NDArray[Any]],
    ) -> None:
        key = json.dumps([dict(settings), streams, length, stretch], sort_keys=True)
        self.name = f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        self.streams = streams
        self.length = length
        self.stretch = stretch
        self.words = words
        self.start = start
        self.walk = walk
        self._held: dict[tuple[int, int], NDArray[Any]] = {}

    def __repr__(self) -> str:
        return f"WalkedStreams({self.name}, {self.streams} x {self.length} images)"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_held": {}}

    def checkpoint(self, image: int) -> np.void:
        """The last checkpoint at or before an image. The stream is walked up to there first, where it was not yet.

        Raises:
            FolderError: the cache folder cannot be written.
        """
        stream, place = divmod(image, self.length)
        checkpoints = self._checkpoints(stream, place // self.stretch)
        found: np.void = checkpoints[np.searchsorted(checkpoints["image"], image, side="right") - 1]
        return found

    def walked(self, images: int, take: Callable[[NDArray[Any]], T]) -> Iterator[T]:
        """Walk the streams as far as the first ``images`` need it, in parallel.

        Args:
            images: number of images.
            take: what is wanted of the checkpoints of a stretch.

        Yields:
            What ``take`` returned, stretch after stretch, in the order of the images.

        Raises:
            FolderError: the cache folder cannot be written.
        """
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        lengths = [min(self.length, images - first) for first in range(0, images, self.length)]
        stretches = [-(-length // self.stretch) for length in lengths]
        self._state_cost(stretches, images, cores)
        threads = ThreadPoolExecutor(cores)
        try:
            for first in range(0, len(stretches), cores):
                group = list(enumerate(stretches))[first : first + cores]
                taken = {
                    (stream, number): threads.submit(lambda *place: take(self._checkpoints(*place)), stream, number)
                    for number in range(max(count for _, count in group))
                    for stream, count in group
                    if number < count
                }
                yield from (taken[stream, number].result() for stream, count in group for number in range(count))
        finally:
            threads.shutdown(cancel_futures=True)

    def _state_cost(self, stretches: list[int], images: int, cores: int) -> None:
        """Say how long the walk will take, where that is long."""
        places = [(stream, number) for stream, count in enumerate(stretches) for number in range(count)]
        missing = sum(not self._file(*place).exists() for place in places)
        share = missing / len(places)
        seconds = share * images * self.words * _seconds_per_word() / min(cores, len(stretches)) if self.words else 0.0
        if seconds > _LONG_S:
            self._say(f"{share * images * self.words:.1e} random words, about {seconds:,.0f} s on {cores} cores")

    def _say(self, cost: str) -> None:
        logging.getLogger("formulavision").warning(
            f"the random streams of the published set are walked first, once: {cost}; states are kept in "
            f"{self._folder}, and a walk that is interrupted goes on"
        )

    def _checkpoints(self, stream: int, number: int) -> NDArray[Any]:
        """The checkpoints of a stretch, by its number in the stream."""
        held = self._held.get((stream, number))
        if held is None:
            held = self._read(stream, number)
            if held is None:
                held = self._walk_to(stream, number)
            if len(self._held) >= _MOST_HELD:
                self._held.clear()
            self._held[stream, number] = held
        return held

    def _walk_to(self, stream: int, number: int) -> NDArray[Any]:
        """Walk a stream from the last stretch that is known to the end of a stretch."""
        try:
            with locked(self._folder / f"{stream:05d}.lock", lambda: None):
                first, before = number, None
                while first > 0 and (before := self._read(stream, first - 1)) is None:
                    first -= 1
                found, started, said = before, time.monotonic(), False
                for next_number in range(first, number + 1):
                    state = self.start(stream) if found is None else found["state"][-1].copy()
                    found = self._read(stream, next_number)  # another process may have walked it meanwhile
                    if found is None:
                        start = next_number * self.stretch
                        found = self.walk(state, min(self.stretch, self.length - start))
                        found["image"] += stream * self.length + start
                        with atomic_write(self._file(stream, next_number)) as file:
                            np.savez(file, states=found)  # a zip archive, whose checksum tells of damage
                    taken = time.monotonic() - started
                    rest = taken / (next_number - first + 1) * (number - next_number)
                    if taken > 1 and rest > _LONG_S and not said:
                        self._say(f"about {rest:,.0f} s more")
                        said = True
        except OSError as error:
            raise FolderError(
                f"{self._folder}: the states of a published set's random streams cannot be kept there "
                f"({error.strerror or error}): set FORMULAVISION_CACHE to a folder that can be written"
            ) from None
        assert found is not None
        return found

    def _read(self, stream: int, number: int) -> NDArray[Any] | None:
        try:
            with np.load(self._file(stream, number), allow_pickle=False) as kept:
                return np.asarray(kept["states"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None  # missing or damaged: it is walked again

    @property
    def _folder(self) -> Path:
        return cache_folder() / "streams" / self.name

    def _file(self, stream: int, number: int) -> Path:
        return self._folder / f"{stream:05d}-{number:05d}.npz"


def _seconds_per_word() -> float:
    """Time that this machine takes to walk over a random word of CPython's module ``random``."""
    from formulavision.rendering import python_random

    state, words = python_random.seeded(0), 1 << 22
    python_random.skip(state, words)  # compiles
    started = time.perf_counter()
    python_random.skip(state, words)
    return (time.perf_counter() - started) / words
