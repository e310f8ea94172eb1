"""Draws images of a store again, in another order and another process than they were drawn in, and compares them.

So an image that depends on anything but the recipe and its index is found: on what was drawn before, on a clock, on a
global random generator, on the process.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formulavision.generators.contract import Category
from formulavision.generators.registry import plugins
from formulavision.generators.streams import Stream, random_stream
from formulavision.recipes.drawing import Drawer
from formulavision.storage.store import Store
from formulavision.util.errors import FormulaVisionError, PluginError, StoreError

__all__ = ["redraw"]

Found = tuple[int, list[str]]

_ALONE = 100
"""Images that are drawn one by one; the others share work, as they did when they were written."""
_EXPLAINED = 3
"""Differing images whose cause is looked for."""


def redraw(
    store: Store, categories: list[Category], indices: NDArray[np.int64], *, damaged: set[int]
) -> Iterator[Found]:
    """Draw images again and compare them with the stored ones.

    Args:
        indices: int64 [n].
        damaged: numbers of the pieces whose files are known to be damaged, which explains what differs there.

    Yields:
        How many more were drawn, and what is wrong with them, one line each.

    Raises:
        PluginError: the generator raised.
        StoreError: the process that draws ended abruptly.
    """
    if len(indices) == 0:
        return
    job = store.path, categories, indices, damaged
    generator = plugins()[store.recipe.generator.name].generator
    file = getattr(sys.modules.get(generator.__module__), "__file__", None)
    if generator.__module__ == "__main__" or file is None:
        yield from _Redrawing(*job).run()  # this process alone knows the generator
    else:
        yield from _in_a_process((generator.name, generator.__module__, file, generator.__qualname__), job)


def _in_a_process(place: tuple[str, str, str, str], job: tuple[Any, ...]) -> Iterator[Found]:
    # Not one of multiprocessing's: it would run the user's script again, up to the call of verify.
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            process.stdin.write(pickle.dumps((place, job)))
            process.stdin.close()
            message: Any = None
            for line in process.stdout:
                message = json.loads(line)
                if isinstance(message, str):
                    raise PluginError(message)
                if isinstance(message, list):
                    yield message[0], message[1]
        except BrokenPipeError:
            message = None
        finally:
            process.kill()
    if message is UNKNOWN:
        yield from _Redrawing(*job).run()
    elif message is not DONE:
        raise StoreError(f"{job[0]}: the process that draws images again ended abruptly ({process.returncode})")


DONE, UNKNOWN = True, False
"""Last messages of the process that draws: all is drawn, or it does not find the generator."""


def main() -> None:
    """Read the job from standard input, write what is found to standard output, a line of JSON each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what becomes of the work
    place, job = pickle.load(sys.stdin.buffer)
    # Whatever a plugin prints goes to standard error.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)

        def say(message: Any) -> None:
            print(json.dumps(message), file=out, flush=True)

        try:
            say(_draw(say, place, job))
        except FormulaVisionError as error:
            say(str(error))


def _draw(say: Callable[[Any], None], place: tuple[str, str, str, str], job: tuple[Any, ...]) -> bool:
    name, module, file, path = place
    if name not in plugins().generators:
        # The other process registered it without a package.
        try:
            found = importlib.import_module(module)
        except ImportError:
            return UNKNOWN
        generator = getattr(found, path, None)
        if getattr(found, "__file__", None) != file or generator is None:
            return UNKNOWN
        plugins().add(generator)
    for problems in _Redrawing(*job).run():
        say(problems)
    return DONE


class _Redrawing:
    """Draws and compares, in this process."""

    def __init__(self, path: Path, categories: list[Category], indices: NDArray[np.int64], damaged: set[int]) -> None:
        self.store = Store(path)
        self.categories = categories
        self.indices = indices
        self.damaged = damaged
        self.explained = 0

    def drawer(self) -> Drawer:
        return Drawer(self.store.recipe, categories=self.categories)

    def run(self) -> Iterator[Found]:
        drawer = self.drawer()
        shuffled = random_stream(0, Stream.VERIFIED, 1).permutation(self.indices)
        alone = shuffled[:_ALONE].tolist()
        for index in alone:
            yield 1, self.problems(index, drawer.draw(index)[0])
        for batch in reversed(list(drawer.batches(np.sort(shuffled[_ALONE:])))):
            images, _ = drawer.draw_batch(batch[::-1])
            found = zip(batch[::-1].tolist(), images, strict=True)
            yield len(batch), [problem for index, image in found for problem in self.problems(index, image)]
        # Once more: if a store holds one image, it was the first that was drawn, and so it was here.
        yield 0, self.problems(alone[0], drawer.draw(alone[0])[0])

    def problems(self, index: int, drawn: NDArray[np.uint8]) -> list[str]:
        try:
            stored = self.store.read(index)
        except StoreError as error:
            return [str(error)]
        if np.array_equal(stored, drawn):
            return []
        pixels = int(np.any(stored != drawn, axis=-1).sum())
        self.explained += 1
        cause = f": {self.cause(index, stored, drawn)}" if self.explained <= _EXPLAINED else ""
        return [f"{self.store.layout.name(index)}: {pixels} pixels differ from the formula's{cause}"]

    def cause(self, index: int, stored: NDArray[np.uint8], drawn: NDArray[np.uint8]) -> str:
        """Why an image is drawn otherwise than it is stored, most likely."""
        manifest = self.store.manifest
        if index // manifest.pieces[0].count in self.damaged:
            return "its file is damaged"
        first, second = (self.drawer().draw(index)[0] for _ in range(2))
        others = self.drawer()
        for other in {0, max(index - 1, 0), min(index + 1, len(self.store) - 1), len(self.store) - 1} - {index}:
            others.draw(other)
        later = others.draw(index)[0]
        if not np.array_equal(first, second):
            return "it is drawn otherwise each time: by a clock, global random numbers, or by what was drawn before it"
        if np.array_equal(first, stored) or not np.array_equal(first, drawn) or not np.array_equal(first, later):
            return "it is drawn otherwise after other images: a generator must keep nothing that changes its images"
        origin, written = plugins()[self.store.recipe.generator.name].origin, manifest.generator_package
        if origin != written:
            return f"{written} wrote the store, and {origin}, which is installed, draws other pixels"
        return (
            f"{origin} drew other pixels then: they changed without a new version of the generator, or they depend on "
            "the day, the machine or the process"
        )
