"""The contract of a generator: :class:`Generator` is the class to subclass, with parameters, canvas and categories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8, UInt16
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from formulavision.generators.streams import generator_key, random_stream
from formulavision.util.config import Config

if TYPE_CHECKING:
    import torch

__all__ = [
    "CONTRACT_VERSION",
    "Canvas",
    "Category",
    "DeviceRenderer",
    "DeviceScenes",
    "Generator",
    "Params",
    "Scene",
    "render_each",
]

CONTRACT_VERSION = 1
"""Increased when generators that were written for an older contract stop working."""


class Params(Config):
    """A generator's parameters: a pydantic model. Every field needs a default and a description.

    ``ge``, ``gt``, ``le`` and ``lt`` give a range, ``json_schema_extra={"unit": "pixels"}`` a unit. A field that is
    added to a published generator also needs ``"neutral": value`` there: the value that draws what was drawn before
    the field existed, so that the ids of existing recipes stay.
    """


class Canvas(Config):
    """The square that is drawn on: ``size`` x ``size`` pixels, gray or in colour."""

    size: int = Field(default=256, ge=8, le=4096, description="width and height", json_schema_extra={"unit": "pixels"})
    padding: int = Field(
        default=6,
        ge=0,
        le=256,
        description="border that stays empty, where the formula has one",
        json_schema_extra={"unit": "pixels"},
    )
    channels: Literal[1, 3] = Field(default=1, description="1 draws in gray, 3 in colour")

    def model_post_init(self, context: Any) -> None:
        if self.size <= 2 * self.padding:
            raise ValueError(
                f"padding {self.padding} leaves nothing of size {self.size}: padding must be below size / 2"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of an image."""
        return (self.size, self.size, self.channels)


@dataclass(frozen=True, eq=False, repr=False)
class Category:
    """One point of a generator's parameter space, which is one class label.

    Attributes:
        index: the label, from 0.
        name: the name of its folder in a store, such as ``00042``; the file's stem where it was read from a file.
        parameters: read-only; ``Generator.columns`` names the columns.
    """

    index: int
    name: str
    parameters: Float64[np.ndarray, "rows columns"]

    def __post_init__(self) -> None:
        parameters = np.array(self.parameters, dtype=np.float64)
        parameters.setflags(write=False)
        object.__setattr__(self, "parameters", parameters)

    def __repr__(self) -> str:
        rows, columns = self.parameters.shape
        return f"Category({self.index}, {self.name!r}, parameters: {rows} x {columns})"

    def __reduce__(self) -> tuple[Any, ...]:
        # By the constructor: an array that is unpickled alone would be writable.
        return Category, (self.index, self.name, self.parameters)


class Scene(NamedTuple):
    """One image that holds several objects, each an instance of a category.

    Attributes:
        image: uint8 [size, size, channels].
        object_map: uint16 [size, size]: 0 is background, k is a pixel where object k is visible, from 1.
        categories: int64 [objects]: the category of object k, at k - 1, as a position in the list of categories (which
            is its label). Objects that others hide are in the list, too.
    """

    image: UInt8[np.ndarray, "size size channels"]
    object_map: UInt16[np.ndarray, "size size"]
    categories: Int64[np.ndarray, " objects"]

    def __repr__(self) -> str:
        height, width = self.object_map.shape
        return f"Scene({height} x {width}, objects of the categories {self.categories.tolist()[:20]})"


@runtime_checkable
class DeviceRenderer(Protocol):
    """Draws instances of a list of categories on a device; see :meth:`Generator.device_renderer`.

    That of a generator with ``draws_masks`` also takes ``masks``, uint8 [n, size, size] on the device, or None.
    """

    def __call__(
        self,
        labels: Int64[np.ndarray, " n"],
        instances: Int64[np.ndarray, " n"],
        out: UInt8[torch.Tensor, "n size size channels"],
    ) -> None:
        """Draw a batch into ``out``, on torch's current stream, without waiting for the device.

        Each image must have the pixels that ``render_batch`` draws, whatever else is in the batch.

        Args:
            labels: the category of each image, as a position in the renderer's list of categories.
            instances: the instance of each image.
            out: images of the canvas, contiguous, on the device; the content is undefined.
        """


@runtime_checkable
class DeviceScenes(Protocol):
    """Draws scenes of a list of categories on a device; see :meth:`Generator.device_scenes`."""

    def __call__(
        self,
        indices: Int64[np.ndarray, " n"],
        out: UInt8[torch.Tensor, "n size size channels"],
        object_maps: Int32[torch.Tensor, "n size size"],
    ) -> Sequence[Int64[np.ndarray, " objects"]]:
        """Draw scenes into ``out`` and their object maps, on torch's current stream, without waiting for the device.

        Each scene must be the one that ``scene`` gives, whatever else is in the batch.

        Args:
            indices: the number of each scene.
            out, object_maps: contiguous, on the device; the content is undefined.

        Returns:
            The categories of each scene's objects, as of :class:`Scene`.
        """


class Generator:
    """One family of formulas. Subclass it, name it, and implement ``category`` and ``render``.

    An instance of the class belongs to one recipe, and has its settings: ``self.params``, ``self.canvas``,
    ``self.seed``. It must keep nothing that changes images: an image depends on the recipe and its index alone.

    Class attributes:
        name: the generator's name for ``--plugin`` and recipes: lower-case letters, digits, ``-`` and ``_``.
        version: increase it when any pixel of any image, mask or object map changes, or ``min_visible``; a recipe
            refuses to be drawn by another version.
        contract: the version of this contract that the generator was written for.
        Params: the parameters, a subclass of :class:`Params`.
        columns: names of the columns of a category's parameters, for CSV files.
        published_names: other names in files of ``name,value`` lines, such as the published program writes, each with
            the column that it means. A value that is no column of the generator is left out.
        category_params: names of the parameters that the categories depend on; None: all. The cache of found
            categories ignores the others.
        default_instances: number of instances per category in a recipe that states none.
        default_channels: ``canvas.channels`` of a recipe that states none: 1 (gray), or 3 for a generator that draws in
            colour.
        background: gray level, 0 to 255, of pixels where an image has nothing. In a scene, an object is where its image
            differs from the background.
        draws_masks: the generator says itself where the object is: ``render`` returns (image, mask), and
            ``render_batch`` also takes ``masks``.
        fills_canvas: images have no background, so that their object is the whole square. A scene takes such objects
            only from a part that says ``object: fill``.
        min_visible: in the generator's own scenes (:meth:`scene`), objects with fewer visible pixels have no box, mask
            or label.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    contract: ClassVar[int] = CONTRACT_VERSION
    Params: ClassVar[type[Params]] = Params
    columns: ClassVar[tuple[str, ...]] = ()
    published_names: ClassVar[Mapping[str, str]] = {}
    default_instances: ClassVar[int] = 100
    default_channels: ClassVar[Literal[1, 3]] = 1

    background: int = 0
    category_params: frozenset[str] | None = None
    draws_masks: ClassVar[bool] = False
    fills_canvas: ClassVar[bool] = False
    min_visible: ClassVar[int] = 1

    def __init__(self, params: Any, canvas: Canvas, seed: int) -> None:
        self.params = params
        self.canvas = canvas
        self.seed = seed

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.params!r}, {self.canvas!r}, seed={self.seed})"

    # Categories ------------------------------------------------------------------------------------------------------

    def default_categories(self) -> int:
        """Number of categories in a recipe that states none."""
        return self.max_categories() or 100

    def max_categories(self) -> int | None:
        """Maximum number of categories; None: unlimited."""
        return None

    def category(self, index: int) -> ArrayLike:
        """Parameters of category ``index``: numbers [columns] or [rows, columns].

        They must follow from the seed and the index alone (``self.stream(index)``), so that the first k of N
        categories are the same for every N, and categories can be searched in parallel.
        """
        raise NotImplementedError(f"{type(self).__name__} implements neither category() nor categories()")

    def categories_are_independent(self) -> bool:
        """Whether ``category`` may be called for any index, in any process.

        If False, and for a generator without ``category``, ``categories`` is iterated instead.
        """
        return True

    def categories(self, count: int) -> Iterator[ArrayLike]:
        """Parameters of the first ``count`` categories, in order.

        Override it where each category depends on those before it, and return False from
        ``categories_are_independent``.
        """
        return (self.category(index) for index in range(count))

    def check_category(self, parameters: Float64[np.ndarray, "rows columns"]) -> None:
        """Refuse invalid parameters. Called once for each category, found or read from a user's file.

        Override it where not all finite numbers are valid.

        Args:
            parameters: the category's parameters, finite.

        Raises:
            ValueError: the parameters are invalid; the message says why.
        """

    def check_categories(self, categories: Sequence[Category]) -> None:
        """Refuse categories that cannot be drawn together. Called once for those read from a user's files.

        Override it where images depend on the list of categories, as those of published programs may.

        Raises:
            ValueError: they cannot be drawn; the message says why, and begins with the name of a category.
        """

    # Instances -------------------------------------------------------------------------------------------------------

    def max_instances(self) -> int | None:
        """Maximum number of instances per category; None: unlimited."""
        return None

    def instance_name(self, instance: int) -> str:
        """The last part of an instance's file name, ``CATEGORY_PART.png``: unique, without ``/``, ``\\`` and dots."""
        return f"{instance:06d}"

    def before_drawing(self, categories: Sequence[Category]) -> None:
        """Take note of all categories. Called once, in every process that draws, before anything is drawn.

        Override it where an image depends on the categories before its own, as in a published program that draws all
        of them from one random stream. It must not depend on those behind: the first k of N categories have the same
        images for every N. Long work belongs into the first drawing: many generators are built that draw little.

        Args:
            categories: all categories of the recipe's part, in order.
        """

    def shared_work(self, instances: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Group ids: instances with equal ids share intermediate results.

        Override it together with ``render_batch``: ``generate`` passes the instances of a group to it in one batch, as
        far as the batch size allows.

        Args:
            instances: numbers of the instances.
        """
        return instances

    def stream(self, *key: int) -> np.random.Generator:
        """A random stream for a key of up to three integers, such as the index in ``category``.

        Different keys give independent streams; the same key gives the same numbers on every machine.
        """
        return random_stream(self.seed, generator_key(self.name), *key)

    def random(self, category: Category, instance: int) -> np.random.Generator:
        """The random stream of an instance, keyed by (seed, category, instance). ``render`` must use no other."""
        return self.stream(category.index, instance, 1)

    def uniforms(
        self,
        categories: Int64[np.ndarray, " n"],
        instances: Int64[np.ndarray, " n"],
        counts: ArrayLike,
        *,
        last: int = 1,
    ) -> Float64[np.ndarray, " numbers"]:
        """The first random numbers of many instances, each ``self.random(category, instance).random(count)``.

        Args:
            categories: the index of each instance's category (``Category.index``).
            instances: the number of each instance.
            counts: how many random numbers of each instance, int64 [n], or one number for all.
            last: the last integer of the streams' keys: 1 for those of ``random``, others for ``stream``.

        Returns:
            The random numbers from 0 to below 1, instance after instance.
        """
        from formulavision.rendering.random import uniform_streams

        counters = np.empty((len(instances), 3), np.int64)
        counters[:, 0], counters[:, 1], counters[:, 2] = categories, instances, last
        return uniform_streams((self.seed, generator_key(self.name)), counters, counts)

    def render(self, category: Category, instance: int) -> NDArray[np.uint8] | tuple[NDArray[np.uint8], NDArray[Any]]:
        """Draw one instance: uint8 [size, size] or [size, size, channels] of the canvas.

        With ``draws_masks``: (image, mask). The mask is [size, size], boolean or uint8, and not 0 where the object is.
        """
        raise NotImplementedError(f"{type(self).__name__} implements neither render() nor render_batch()")

    def render_batch(
        self, category: Category, instances: Int64[np.ndarray, " n"], out: UInt8[np.ndarray, "n size size channels"]
    ) -> None:
        """Draw instances of one category into ``out``.

        Override it where instances share work. They come in any order, and each image must have the pixels that
        ``render`` gives, whatever else is in the batch. With ``draws_masks`` it has a fourth argument, ``masks=None``:
        where it is an array, zeros, uint8 [n, size, size], it gets a 1 at each pixel of the object.

        Args:
            instances: numbers of the instances.
            out: zeros; the images are drawn into it.
        """
        render_each(self, category, instances, out, None)

    def device_renderer(self, categories: Sequence[Category], device: torch.device) -> DeviceRenderer | None:
        """A function that draws instances of these categories on a device, such as a GPU.

        None, the default, lets ``render_batch`` draw on the CPU. Override it where a formula is worth a GPU. It and
        ``device_scenes`` are the only methods that may import torch.
        """
        return None

    # Scenes ----------------------------------------------------------------------------------------------------------

    def scene(self, categories: Sequence[Category], index: int) -> Scene:
        """Draw a scene of the generator's own. Implement it for formulas that draw several objects in one go.

        Recipes with ``scene: own`` draw it; a mapping in ``scene`` has FormulaVision compose single objects instead.

        Args:
            categories: the recipe's categories.
            index: number of the scene. The image must depend on it, the seed and the categories alone.
        """
        raise NotImplementedError(f"{type(self).__name__} has no scenes of its own")

    def max_scenes(self) -> int | None:
        """Maximum number of the generator's own scenes; None: unlimited."""
        return None

    def device_scenes(self, categories: Sequence[Category], device: torch.device) -> DeviceScenes | None:
        """A function that draws scenes of these categories on a device; None, the default: ``scene`` draws them."""
        return None


def render_each(
    generator: Generator,
    category: Category,
    instances: Int64[np.ndarray, " n"],
    out: UInt8[np.ndarray, "n size size channels"],
    masks: UInt8[np.ndarray, "n size size"] | None,
) -> None:
    """Draw instances of one category one by one, by ``generator.render``.

    Args:
        out, masks: zeros; the images are drawn into them. Masks are None where they are not wanted.

    Raises:
        TypeError: ``render`` returned something else than images and masks of the canvas.
    """
    canvas = generator.canvas
    for i, instance in enumerate(instances):
        drawn: Any = generator.render(category, int(instance))
        if generator.draws_masks:
            if not (isinstance(drawn, tuple) and len(drawn) == 2):
                raise TypeError(f"render() returned a {type(drawn).__name__}: with draws_masks it is (image, mask)")
            drawn, mask = drawn
            mask = np.asarray(mask)
            if mask.shape != canvas.shape[:2] or mask.dtype not in (bool, np.uint8):
                raise TypeError(
                    f"render() returned the mask {mask.dtype} {list(mask.shape)}, not bool or uint8 "
                    f"{list(canvas.shape[:2])}"
                )
            if masks is not None:
                masks[i] = mask != 0
        if isinstance(drawn, tuple):
            raise TypeError("render() returned a tuple: of a generator with draws_masks = True it is (image, mask)")
        image = np.asarray(drawn)
        if image.dtype != np.uint8 or image.shape not in {canvas.shape, canvas.shape[:2]}:
            raise TypeError(f"render() returned {_problem(image, canvas)}")
        out[i] = image if image.ndim == 3 else image[:, :, None]


def _problem(image: NDArray[Any], canvas: Canvas) -> str:
    """Why an array is no image of the canvas, and how to mend it."""
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
