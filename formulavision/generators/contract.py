"""The contract that a generator's author implements: parameters, categories, and how to draw an instance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from formulavision.generators.streams import generator_key, random_stream
from formulavision.util.config import Config

if TYPE_CHECKING:
    import torch

__all__ = ["CONTRACT_VERSION", "Canvas", "Category", "DeviceRenderer", "Generator", "Params"]

CONTRACT_VERSION = 1
"""Raised when a generator written for an older contract would no longer work."""


class Params(Config):
    """A generator's parameters: a pydantic model whose every field has a description.

    A unit goes into ``json_schema_extra={"unit": "pixels"}``, a range into ``ge``, ``gt``, ``le``, ``lt``.
    """


class Canvas(Config):
    """What is drawn on: a square of ``size`` x ``size`` pixels."""

    size: int = Field(256, ge=8, le=4096, description="width and height", json_schema_extra={"unit": "pixels"})
    padding: int = Field(
        6,
        ge=0,
        le=256,
        description="border that stays empty, where the formula has one",
        json_schema_extra={"unit": "pixels"},
    )
    channels: Literal[1, 3] = Field(1, description="1 draws in gray, 3 in colour")

    def model_post_init(self, context: Any) -> None:
        if self.size <= 2 * self.padding:
            raise ValueError(
                f"padding {self.padding} leaves nothing of size {self.size}: padding must be below size / 2"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of an image."""
        return (self.size, self.size, self.channels)


@dataclass(frozen=True, eq=False)
class Category:
    """One point of a generator's parameter space, which is one class label.

    Attributes:
        index: the label, from 0.
        name: the name of its folder in a store; the stem of its file where categories were read from files.
        parameters: float64 [rows, columns], the columns named by ``Generator.columns``; read-only, in every process.
    """

    index: int
    name: str
    parameters: NDArray[np.float64]

    def __post_init__(self) -> None:
        parameters = np.array(self.parameters, dtype=np.float64)
        parameters.setflags(write=False)
        object.__setattr__(self, "parameters", parameters)

    def __reduce__(self) -> tuple[Any, ...]:
        # An unpickled array could be written to.
        return Category, (self.index, self.name, self.parameters)


class DeviceRenderer(Protocol):
    """Draws instances on a device; it keeps there what it needs of the categories."""

    def __call__(self, labels: NDArray[np.int64], instances: NDArray[np.int64], out: torch.Tensor) -> None:
        """Draw into ``out``, on torch's current stream, without waiting for it.

        Each image must be the one that ``render_batch`` draws, whatever else is in the batch.

        Args:
            labels: int64 [n], which of the renderer's categories each image is of.
            instances: int64 [n].
            out: uint8 [n, size, size, channels] of the canvas, contiguous, on the device; it may hold anything.
        """


class Generator:
    """One family of formulas. Subclass it, name it, and implement ``category`` and ``render``.

    An instance of the class belongs to one recipe: ``self.params``, ``self.canvas`` and ``self.seed`` are its settings.

    Class attributes:
        name: what ``--plugin`` and recipes call it.
        version: raise it when any pixel of any image changes; recipes carry it and refuse another.
        Params: the parameters, a subclass of :class:`Params`.
        columns: names of the columns of a category's parameters.
        category_params: names of the parameters that the categories depend on (None: all of them). Found categories
            are cached under these.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    contract: ClassVar[int] = CONTRACT_VERSION
    Params: ClassVar[type[Params]] = Params
    columns: ClassVar[tuple[str, ...]] = ()
    category_params: ClassVar[frozenset[str] | None] = None

    default_instances: ClassVar[int] = 100

    def __init__(self, params: Any, canvas: Canvas, seed: int) -> None:
        self.params = params
        self.canvas = canvas
        self.seed = seed

    # Categories ------------------------------------------------------------------------------------------------------

    def default_categories(self) -> int:
        """How many categories a recipe has that names no number."""
        return self.max_categories() or 100

    def max_categories(self) -> int | None:
        """How many categories there can be; None: any number."""
        return None

    def category(self, index: int) -> ArrayLike:
        """Parameters of category ``index``, [columns] or [rows, columns], from (seed, index) alone."""
        raise NotImplementedError(f"{type(self).__name__} implements neither category() nor categories()")

    def categories_are_independent(self) -> bool:
        """Whether ``category(i)`` may be called for any i, in any process: then it is, and ``categories`` is not.

        Otherwise, and for a generator without ``category``, ``categories`` is iterated.
        """
        return True

    def categories(self, count: int) -> Iterator[ArrayLike]:
        """Parameters of the first ``count`` categories in order: override it where they come out of one stream."""
        return (self.category(index) for index in range(count))

    def check_category(self, parameters: NDArray[np.float64]) -> None:
        """Refuse parameters that no category can have. Override it where finite numbers alone do not do.

        Called once for each category, whether it was found by this generator or read from a file.

        Args:
            parameters: float64 [rows, columns], finite.

        Raises:
            ValueError: they make no category; the message says what is wrong.
        """

    # Instances -------------------------------------------------------------------------------------------------------

    def max_instances(self) -> int | None:
        """How many different instances a category has; None: any number."""
        return None

    def instance_name(self, instance: int) -> str:
        """What follows ``CATEGORY_`` in the name of the instance's file: no other instance's, without / \\ and dots."""
        return f"{instance:06d}"

    def shared_work(self, instances: NDArray[np.int64]) -> NDArray[np.int64]:
        """A number for each instance, int64 [n]: instances with the same one share work and are drawn together.

        Override it beside ``render_batch``, which then meets them in one batch, where that is not too large.
        """
        return instances

    def stream(self, *key: int) -> np.random.Generator:
        """A random stream of its own for up to three integers, such as a category's index in ``category``."""
        return random_stream(self.seed, generator_key(self.name), *key)

    def random(self, category: Category, instance: int) -> np.random.Generator:
        """The random stream of an instance, keyed by (seed, category, instance): all randomness of ``render``."""
        return self.stream(category.index, instance, 1)

    def uniforms(
        self, categories: NDArray[np.int64], instances: NDArray[np.int64], counts: ArrayLike
    ) -> NDArray[np.float64]:
        """The first numbers of many instances' random streams: ``self.random(category, instance).random(count)`` each.

        Args:
            categories, instances: int64 [n], of the instances; a category by its index.
            counts: int64 [n], or the same of all.

        Returns:
            float64 [sum of counts], stream after stream.
        """
        from formulavision.rendering.random import uniform_streams

        counters = np.stack([categories, instances, np.ones_like(instances)], axis=1)
        return uniform_streams((self.seed, generator_key(self.name)), counters, counts)

    def render(self, category: Category, instance: int) -> NDArray[np.uint8]:
        """Draw one instance: uint8 [size, size] or [size, size, channels] of the canvas."""
        raise NotImplementedError(f"{type(self).__name__} implements neither render() nor render_batch()")

    def render_batch(self, category: Category, instances: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Draw instances of one category into ``out``, uint8 [len(instances), size, size, channels].

        Override it for what instances share. They come in any order, and must get the pixels that drawing each alone
        gives. ``out`` holds zeros.
        """
        for i, instance in enumerate(instances):
            image = np.asarray(self.render(category, int(instance)))
            if image.dtype != np.uint8 or image.shape not in {self.canvas.shape, self.canvas.shape[:2]}:
                raise TypeError(f"render() returned {_flaw(image, self.canvas)}")
            out[i] = image if image.ndim == 3 else image[:, :, None]

    def device_renderer(self, categories: Sequence[Category], device: torch.device) -> DeviceRenderer | None:
        """What draws instances of these categories on a device; None, as here, has them drawn by ``render_batch`` and
        moved over.

        Override it where a formula is worth a GPU. It is the only method that may import torch.
        """
        return None


def _flaw(image: NDArray[Any], canvas: Canvas) -> str:
    """Why an array is no image of the canvas, and what to do about it."""
    if image.dtype == object:
        value = image[()] if image.ndim == 0 else image
        missing = ": is its 'return' missing?" if value is None else ""
        return f"{'None' if value is None else type(value).__name__}, not an image{missing}"
    hint = ""
    if image.dtype.kind in "bf":
        hint = ": multiply by 255 if its values are from 0 to 1, and use astype(np.uint8)"
    elif image.dtype != np.uint8:
        hint = ": use astype(np.uint8)"
    elif image.shape == canvas.shape[2:] + canvas.shape[:2]:
        hint = ": the channels come last"
    elif image.shape == (*canvas.shape[:2], 3):
        hint = ": canvas.channels=3 draws in colour"
    elif image.shape == (*canvas.shape[:2], 4):
        hint = ": leave the alpha channel out"
    elif image.shape[:2] != canvas.shape[:2]:
        hint = ": the image's height and width are self.canvas.size"
    return f"{image.dtype} {list(image.shape)}, not uint8 {list(canvas.shape)}{hint}"
