"""The class of the generator ``ifs3d``: its categories, and how an instance follows from its number."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from formulavision import Category, ConfigError, Generator, WalkedStreams

from .parameters import Ifs3dParams

if TYPE_CHECKING:
    import torch

    from formulavision import DeviceRenderer

__all__ = ["Ifs3d", "in_ring"]

_VIEWS = 12
"""Number of views of a cloud."""
_DISTANCE, _ANGLE, _NEAR, _FAR = 4.0, 45.0, 1.0, 100.0
"""The camera: distance from the origin, degrees that an image covers, depths between which points are seen."""
_WHITE = 255
_MOST_TRANSFORMATIONS = 254
_LARGEST = 1_000_000
"""Largest magnitude of a coefficient in a category from a file."""
_DRAWS = 2
"""The last integer of the key of a cloud's random numbers."""


class Ifs3d(Generator):
    """Clouds of points of 3D iterated function systems (MV-FractalDB, ExFractalDB, 3D-OFDB), white on black.

    A category is a system of affine maps. Instance i is view i mod 12 of cloud i div 12; a cloud is an orbit of the
    system, with one parameter of all maps multiplied by a weight of the published table. Published clouds that diverge
    are not counted, so that such a category has fewer instances than others, and empty images behind its last one.
    """

    name = "ifs3d"
    version = 1
    Params = Ifs3dParams
    columns = (*"abcdefghi", "x", "y", "z", "p")
    category_params = frozenset({"random", "max_transformations", "variance"})
    default_instances = 1740

    params: Ifs3dParams
    _streams: WalkedStreams | None = None
    """The stream of the clouds of all categories, where they share one and are known."""

    # Categories ------------------------------------------------------------------------------------------------------

    @property
    def is_published(self) -> bool:
        return self.params.random == "published"

    def categories_are_independent(self) -> bool:
        return not self.is_published

    def category(self, index: int) -> Float64[np.ndarray, "n 13"]:
        from .search import independent_search

        return independent_search(self.stream(index), self.params.max_transformations, self.params.variance)

    def categories(self, count: int) -> Iterator[Any]:
        from .search import published_search

        if not self.is_published:
            yield from (self.category(index) for index in range(count))
            return
        if self.seed >= 2**32:
            raise ConfigError(f"seed: {self.seed} is not allowed: the published search takes seeds below 2^32")
        found = published_search(self.seed, self.params.max_transformations, self.params.variance)
        for _ in range(count):
            yield next(found)

    def check_category(self, parameters: Float64[np.ndarray, "n 13"]) -> None:
        if len(parameters) > _MOST_TRANSFORMATIONS:
            raise ValueError(f"have {len(parameters)} transformations, not {_MOST_TRANSFORMATIONS} at most")
        if np.abs(parameters[:, :12]).max() > _LARGEST:
            raise ValueError(f"a to i, x, y and z must be from -{_LARGEST:,} to {_LARGEST:,}")
        p = parameters[:, 12]
        if p.min() < 0 or abs(p.sum() - 1) > 0.02:
            raise ValueError(f"p must be probabilities: not negative, and 1 in sum, which is {p.sum():g}")

    def before_drawing(self, categories: Sequence[Category]) -> None:
        from .published import walked_clouds

        if self.is_published:
            seed = self.params.cloud_seed
            self._streams = walked_clouds(self.name, self.version, seed, self._table, self._seen, categories)

    # Instances -------------------------------------------------------------------------------------------------------

    def max_instances(self) -> int | None:
        return _VIEWS * len(self._seen) if self.is_published else None

    def instance_name(self, instance: int) -> str:
        """Number of the cloud and of its view, as the published files have them."""
        return f"{instance // _VIEWS:05d}_{instance % _VIEWS:03d}"

    def shared_work(self, instances: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Views of the same cloud share its points."""
        return instances // _VIEWS

    def render(self, category: Category, instance: int) -> UInt8[np.ndarray, "size size channels"]:
        out = np.zeros((1, *self.canvas.shape), np.uint8)
        self.render_batch(category, np.array([instance]), out)
        return out[0]

    def render_batch(
        self, category: Category, instances: Int64[np.ndarray, " n"], out: UInt8[np.ndarray, "n size size channels"]
    ) -> None:
        from formulavision.rendering.points_3d import draw_points

        numbers, views = np.divmod(instances, _VIEWS)
        for number in np.unique(numbers).tolist():
            own = np.flatnonzero(numbers == number)
            points = self.cloud(category, number)
            for i, matrix in zip(own, self.matrices([category] * len(own), numbers[own], views[own]), strict=True):
                plane = out[i, :, :, 0] if self.canvas.channels == 1 else np.zeros(out.shape[1:3], np.uint8)
                draw_points(points, matrix, _WHITE, plane)
                if self.canvas.channels == 3:
                    out[i] = plane[:, :, None]

    def matrices(
        self, categories: Sequence[Category], numbers: Int64[np.ndarray, " n"], views: Int64[np.ndarray, " n"]
    ) -> Float32[np.ndarray, "n 4 4"]:
        """What the cameras of some views make of a point, for ``rendering.points_3d``.

        Args:
            categories: of each view.
            numbers: of each view's cloud.
            views: number of each view of its cloud.
        """
        from formulavision.rendering.points_3d import cameras, combined, perspective

        if self.params.views == "ring":
            toward, up = in_ring(views, self._turns(categories, numbers, views))
        else:
            toward, up = self.random_directions(categories, numbers * _VIEWS + views)
        return combined(cameras(toward, up, _DISTANCE), perspective(_ANGLE, _NEAR, _FAR))

    def device_renderer(self, categories: Sequence[Category], device: torch.device) -> DeviceRenderer | None:
        from formulavision.rendering.triton_support import runs_on

        if self.is_published or not runs_on(device):
            return None
        from .clouds_on_device import Ifs3dRenderer

        draws = functools.partial(self.uniforms, last=_DRAWS)
        return Ifs3dRenderer(_VIEWS, _WHITE, self._table[self._seen], draws, self.matrices, categories, device)

    def cloud(self, category: Category, number: int) -> Float32[np.ndarray, "3 points"]:
        """The points of a cloud of a category, from about -1 to 1; none where the orbit diverges.

        With ``random: published`` clouds that diverge have no number, and numbers behind the last cloud have no points.
        """
        from . import clouds

        if self.is_published:
            _, rows = self._written(category)
            if number >= len(rows):
                return np.empty((3, 0), np.float32)
            row = number = int(rows[number])
        else:
            row = self._seen[number % len(self._seen)]
        return clouds.cloud(np.array(category.parameters), self._table[row], self._draws(category, number))

    def _written(self, category: Category) -> tuple[int, Int64[np.ndarray, " clouds"]]:
        """Number of published clouds of all categories before, and rows of the table of the category's own."""
        from .published import written_clouds

        if self._streams is None or category.index * len(self._table) >= self._streams.length:
            raise ConfigError(
                f"random: published needs the categories before {category.name} to draw it: call "
                "generator.before_drawing(categories) first, as Drawer does"
            )
        return written_clouds(self._streams, category.index, len(self._table))

    @functools.cached_property
    def _table(self) -> Float64[np.ndarray, "rows 12"]:
        """The rows of the table of weights that are used."""
        from .clouds import weight_table

        return weight_table(self.params.table, published=self.is_published)[: self.params.rows]

    @functools.cached_property
    def _seen(self) -> Int64[np.ndarray, " seen"]:
        """Rows of the table whose clouds have views."""
        return np.arange(self.params.rows) if self.params.seen is None else np.array(self.params.seen)

    # Random numbers --------------------------------------------------------------------------------------------------

    def _draws(self, category: Category, number: int) -> Float64[np.ndarray, " draws"]:
        from . import clouds, published

        if not self.is_published:
            return self.stream(category.index, number, _DRAWS).random(clouds.POINTS + 1)
        assert self._streams is not None  # asked for before
        image = category.index * len(self._table) + number
        checkpoint = self._streams.checkpoint(image)
        return published.cloud_draws(checkpoint["state"][:-2].copy(), image - int(checkpoint["image"]))

    def _turns(
        self, categories: Sequence[Category], numbers: Int64[np.ndarray, " n"], views: Int64[np.ndarray, " n"]
    ) -> Float64[np.ndarray, " n"]:
        """Degrees by which views of clouds are turned in the ring."""
        from . import published

        if not self.is_published:
            fractions = self.uniforms(_indices(categories), numbers, _VIEWS, last=3).reshape(-1, _VIEWS)
            return -np.pi + (np.pi + np.pi) * fractions[np.arange(len(views)), views]
        different = {category.index: category for category in categories}
        before = {index: self._written(category)[0] for index, category in different.items()}
        clouds = [
            before[category.index] + number for category, number in zip(categories, numbers.tolist(), strict=True)
        ]
        turns = {cloud: published.turns(self.params.view_seed, cloud) for cloud in set(clouds)}
        return np.array([turns[cloud][view] for cloud, view in zip(clouds, views.tolist(), strict=True)])

    def random_directions(
        self, categories: Sequence[Category], instances: Int64[np.ndarray, " n"]
    ) -> tuple[Float32[np.ndarray, "n 3"], Float32[np.ndarray, "n 3"]]:
        """Directions in which cameras look, all alike, and directions at right angles to them that are up."""
        draws = self.uniforms(_indices(categories), instances, 2).reshape(-1, 2)
        height, angle = 2 * draws[:, 0] - 1, 2 * np.pi * draws[:, 1]
        flat, east, north = np.sqrt(1 - height * height), np.cos(angle), np.sin(angle)
        toward, up = (flat * east, height, flat * north), (-height * east, flat, -height * north)
        return np.stack(toward, axis=1).astype(np.float32), np.stack(up, axis=1).astype(np.float32)


def _indices(categories: Sequence[Category]) -> Int64[np.ndarray, " n"]:
    return np.array([category.index for category in categories], np.int64)


def in_ring(
    views: Int64[np.ndarray, " n"], turns: Float64[np.ndarray, " n"]
) -> tuple[Float32[np.ndarray, "n 3"], Float32[np.ndarray, "n 3"]]:
    """Directions in which cameras of the ring look, and those that are up, as the published program computes them.

    Args:
        views: numbers of the cameras, a twelfth of a turn each.
        turns: degrees by which each is turned, beside 30.
    """
    from formulavision.rendering.points_3d import turned

    matrices = np.tile(np.eye(3, dtype=np.float32), (len(views), 1, 1))
    for angles in (2 * np.pi * views / _VIEWS, np.full(len(views), np.radians(30)), np.radians(turns)):
        matrices = turned(matrices, angles)
    return matrices[:, :, 0], matrices[:, :, 1]
