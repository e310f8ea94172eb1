"""The random streams of the published program.

It takes numbers from four generators: numpy's in Python for jitter, windows, flips, blur and scenes; another that is
new for each background and gives its decay; numba's in compiled code for points, colours and backgrounds; numpy's
global one for patches. It seeds none of them.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, UInt8, UInt32
from numpy.typing import NDArray

from formulavision import Category, WalkedStreams
from formulavision.rendering import mersenne
from formulavision.rendering.diamond_square import side_of_field

from .choices import COLOR_NUMBERS, GROUND_NUMBERS, SceneChoices, choose_instance, choose_scene, decay_of
from .drawing import WHOLE, Background, Fractal, SceneObject, published_counts, spread_counts
from .parameters import ColoredIfsParams

__all__ = ["PublishedSource", "field_numbers", "published_background"]

_BETWEEN, _STRETCH = 16, 256
"""Numbers of images from a checkpoint to the next, and of a file of checkpoints."""
_MOST_HELD = 16
"""Largest number of categories whose checkpoints are held in memory."""
_STATE = np.dtype(
    [
        ("numba", "<u4", mersenne.WORDS),
        ("host", "<u4", mersenne.WORDS),
        ("random", "<u8", 4),
        ("buffer", "<u4", 2),
        ("steps", "<i8"),
        ("objects", "<i8"),
    ]
)
_CHECKPOINT = np.dtype([("image", "<i8"), ("state", _STATE)])
_64 = (1 << 64) - 1


def field_numbers(size: int) -> int:
    """How many numbers a background takes."""
    return side_of_field(size) ** 2 + GROUND_NUMBERS


def numbers(state: UInt32[np.ndarray, " 624"], count: int) -> Float64[np.ndarray, " count"]:
    """The next uniform random numbers of a stream, which is moved on behind them."""
    found = np.empty(count)
    mersenne.random_sample(state, found)
    return found


class Streams:
    """The generators between two images of the published program.

    Args:
        params: of the generator.
        size: of the canvas.
        state: an item of ``state()``.

    Attributes:
        random: numpy's in Python.
        steps: number of instances, or of steps of scenes, before.
        objects: number of colours of fractals that were drawn before.
    """

    def __init__(self, params: ColoredIfsParams, size: int, state: Any) -> None:
        self.params = params
        self.size = size
        self.numba, self.host = state["numba"].copy(), state["host"].copy()
        self.random = np.random.Generator(np.random.PCG64(0))
        low, high, increment_low, increment_high = state["random"].tolist()
        self.random.bit_generator.state = {
            "bit_generator": "PCG64",
            "state": {"state": low | high << 64, "inc": increment_low | increment_high << 64},
            "has_uint32": int(state["buffer"][0]),
            "uinteger": int(state["buffer"][1]),
        }
        self.steps, self.objects = int(state["steps"]), int(state["objects"])

    def state(self) -> NDArray[Any]:
        """The state, from which a copy goes on."""
        found: dict[str, Any] = dict(self.random.bit_generator.state)
        state, increment = found["state"]["state"], found["state"]["inc"]
        words = (state & _64, state >> 64, increment & _64, increment >> 64)
        buffer = (found["has_uint32"], found["uinteger"])
        return np.array((self.numba, self.host, words, buffer, self.steps, self.objects), _STATE)

    def pattern(self) -> UInt8[np.ndarray, "3 3"]:
        """The next patch, 1 for its chosen pixels."""
        found = np.zeros((3, 3), np.uint8)
        found[1, 1] = 1
        if self.params.patch:
            # As numpy's randint(0, 2, 9, dtype=bool): bits of one word, from the lowest on.
            found[:] = (int(mersenne.tempered(self.host[0])) >> np.arange(9).reshape(3, 3)) & 1
            mersenne.skip(self.host, 1)
        return found

    def points(self) -> Float64[np.ndarray, " points"]:
        """The next numbers for points."""
        return numbers(self.numba, self.params.points)

    def color(self) -> Float64[np.ndarray, " 3"]:
        """The next numbers for the colour of a fractal."""
        stream = self.numba
        if self.params.color_seed is not None:
            stream = mersenne.stream(self.params.color_seed)
            mersenne.skip(stream, 2 * COLOR_NUMBERS * self.objects)
        self.objects += 1
        return numbers(stream, COLOR_NUMBERS)

    # Steps without drawing -------------------------------------------------------------------------------------------

    def skip(self, *, fractals: int = 0, colors: int = 0) -> None:
        """Skip what fractals with backgrounds, and colours, take of the compiled code's numbers, and the patches."""
        count = fractals * (self.params.points + (field_numbers(self.size) if self.params.background else 0))
        count += COLOR_NUMBERS * colors if self.params.color_seed is None else 0
        mersenne.skip(self.numba, 2 * count)
        mersenne.skip(self.host, fractals if self.params.patch else 0)
        self.objects += colors

    def skip_instance(self, system: Float64[np.ndarray, "n 7"]) -> None:
        """Move on behind an instance."""
        choose_instance(self.random, self.params, system)
        self.skip(fractals=1, colors=1)
        self.steps += 1

    def skip_step(self) -> None:
        """Move on behind a step of scenes: a new fractal where it is its turn, then a scene after the warm-up."""
        if self.adds_fractal():
            self.skip(fractals=1)
        colors = len(self.choose_scene().objects) if self.steps >= self.params.warm_up else 0
        self.skip(colors=colors)
        self.steps += 1

    def adds_fractal(self) -> bool:
        """Whether the next step begins with a new fractal and background."""
        return self.steps < self.params.warm_up or (self.steps - self.params.warm_up) % self.params.period == 0

    def choose_scene(self) -> SceneChoices:
        """The choices of the step's scene; fractals and backgrounds are numbered in the order in which they came."""
        params = self.params
        count = params.warm_up + (self.steps - params.warm_up) // params.period + 1
        held = min(count, params.cache)
        found = choose_scene(self.random, params, self.size, held, held)

        def number(slot: int) -> int:
            """The newest in a slot of the cache, which is filled in turn."""
            return slot + (count - 1 - slot) // params.cache * params.cache

        objects = [each._replace(fractal=number(each.fractal)) for each in found.objects]
        return found._replace(background=number(found.background), objects=objects)


class PublishedSource:
    """The images and scenes of the published program.

    Each category has streams of its own: all seeds but ``decay_seed`` are higher by its number. Scenes have one run.

    Args:
        params: of the generator.
        size: of the canvas.
        version: name and version of the generator, for the folder of the streams' states.
    """

    def __init__(self, params: ColoredIfsParams, size: int, version: str) -> None:
        self.params = params
        self.size = size
        self.version = version
        self._held: dict[tuple[int, bytes], WalkedStreams] = {}
        self._fractals: dict[tuple[int, bytes], tuple[Int32[np.ndarray, "b b"], UInt8[np.ndarray, "3 3"]]] = {}
        self._ahead: dict[WalkedStreams, tuple[int, Streams]] = {}
        """An image, and the streams where it begins: those behind the last image, for whoever draws one by one."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fractals": {}, "_ahead": {}}

    def instance(self, category: Category, instance: int) -> tuple[Fractal, Background | None, float]:
        """An instance: its fractal, its background, and sigma of its blur."""
        system = category.parameters
        walked = self._walked(category.index, system)
        streams = self._at(walked, instance, lambda passed: passed.skip_instance(system))
        choices = choose_instance(streams.random, self.params, system)
        counts = published_counts(choices.system, streams.points(), choices.window, self.size)
        fractal = Fractal(spread_counts(counts, streams.pattern(), choices.flips), streams.color())
        background = self._background(streams)
        streams.steps += 1
        self._ahead[walked] = instance + 1, streams
        return fractal, background, choices.sigma

    def scene(self, categories: Sequence[Category], index: int) -> tuple[list[SceneObject], Background | None, float]:
        """A scene: its objects from the lowest to the highest, its background, and sigma of its blur.

        Fractal k of the program's cache is of category k, modulo their number.
        """
        streams = self._at_step(self.params.warm_up + index)
        if streams.adds_fractal():
            streams.skip(fractals=1)
        choices = streams.choose_scene()
        objects = []
        for chosen in choices.objects:
            label = chosen.fractal % len(categories)
            counts, pattern = self._cached(chosen.fractal, categories[label].parameters)
            fractal = Fractal(spread_counts(counts, pattern, chosen.flips), streams.color())
            objects.append(SceneObject(label, fractal, chosen.side, chosen.row, chosen.column))
        before = self._at_fractal(choices.background)
        mersenne.skip(before.numba, 2 * self.params.points)
        return objects, self._background(before), choices.sigma

    def _cached(
        self, fractal: int, system: Float64[np.ndarray, "n 7"]
    ) -> tuple[Int32[np.ndarray, "bordered bordered"], UInt8[np.ndarray, "3 3"]]:
        """Counts and patch of a fractal in the program's cache; as many as it has are kept, for the next scenes."""
        key = (fractal, system.tobytes())
        found = self._fractals.get(key)
        if found is None:
            streams = self._at_fractal(fractal)
            counts = published_counts(system, streams.points(), WHOLE, self.size // 2).copy()
            found = counts, streams.pattern()
            if len(self._fractals) >= self.params.cache:
                self._fractals.clear()
            self._fractals[key] = found
        return found

    def _background(self, streams: Streams) -> Background | None:
        if not self.params.background:
            return None
        return published_background(streams.numba, self.params.decay_seed, self.size)

    # Places in the streams -------------------------------------------------------------------------------------------

    def _at_fractal(self, fractal: int) -> Streams:
        """The streams where a fractal and a background of scenes are drawn for the cache."""
        late = fractal - self.params.warm_up
        return self._at_step(fractal if late < 0 else self.params.warm_up + late * self.params.period)

    def _at_step(self, step: int) -> Streams:
        return self._at(self._walked(-1, None), step, Streams.skip_step)

    def _at(self, walked: WalkedStreams, image: int, skip: Callable[[Streams], None]) -> Streams:
        checkpoint = walked.checkpoint(image)
        begins = int(checkpoint["image"])
        ahead = self._ahead.pop(walked, None)  # taken away, since another thread may draw, too
        if ahead is not None and begins <= ahead[0] <= image:
            begins, streams = ahead
        else:
            streams = Streams(self.params, self.size, checkpoint["state"])
        for _ in range(image - begins):
            skip(streams)
        return streams

    def _walked(self, category: int, system: Float64[np.ndarray, "n 7"] | None) -> WalkedStreams:
        """The streams of a category's instances; of scenes for no system."""
        key = (category, b"" if system is None else system.tobytes())
        if key not in self._held:
            if len(self._held) >= _MOST_HELD:
                self._held.clear()
                self._ahead.clear()
            settings = {
                "version": self.version,
                "size": self.size,
                "params": self.params.model_dump(),
                "category": category,
                "system": hashlib.sha256(key[1]).hexdigest(),
            }
            self._held[key] = WalkedStreams(
                self.version,
                settings,
                streams=1,
                length=2**40,
                stretch=_STRETCH,
                start=functools.partial(_start, self.params, max(category, 0)),
                walk=functools.partial(_walk, self.params, self.size, system),
            )
        return self._held[key]


def _start(params: ColoredIfsParams, ahead: int, stream: int) -> NDArray[Any]:
    """The streams at their beginning, with all seeds raised by ``ahead``; their number is always 0."""
    state = np.zeros((), _STATE)
    state["numba"] = mersenne.stream((params.numba_seed + ahead) % 2**32)
    state["host"] = mersenne.stream((params.host_seed + ahead) % 2**32)
    streams = Streams(params, 0, state)
    streams.random = np.random.default_rng(params.generator_seed + ahead)
    return streams.state()


def _walk(
    params: ColoredIfsParams, size: int, system: Float64[np.ndarray, "n 7"] | None, state: Any, images: int
) -> NDArray[Any]:
    """Checkpoints along the instances of a system, or along the steps of scenes."""
    streams = Streams(params, size, state)
    numbers_of_images = [*range(0, images, _BETWEEN), images]
    found, before = np.empty(len(numbers_of_images), _CHECKPOINT), 0
    for checkpoint, number in zip(found, numbers_of_images, strict=True):
        for _ in range(number - before):
            if system is None:
                streams.skip_step()
            else:
                streams.skip_instance(system)
        checkpoint["image"], checkpoint["state"], before = number, streams.state(), number
    return found


def published_background(stream: UInt32[np.ndarray, " 624"], decay_seed: int, size: int) -> Background:
    """The next background of the compiled code's stream, which is moved on behind it."""
    draws = numbers(stream, field_numbers(size))
    decay = decay_of(np.random.default_rng(decay_seed))
    return Background(draws[:-GROUND_NUMBERS], draws[-GROUND_NUMBERS:], decay)
