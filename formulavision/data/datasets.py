"""Formula-driven datasets for PyTorch: drawn on demand, or read from a store, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from formulavision.recipes.drawing import Drawer
from formulavision.recipes.recipe import Recipe, RecipeLike, as_recipe
from formulavision.storage import Store
from formulavision.util.errors import ConfigError
from formulavision.util.indices import positions

__all__ = ["FormulaDataset", "ImageDataset", "StoredDataset"]

Item = tuple[Tensor, int]
Places = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


class ImageDataset(Dataset[Item]):
    """Map-style, with any sampler and any number of workers: index -> (uint8 [channels, size, size], label).

    Indices are those of a list: negative ones count from the end, others that are not there raise IndexError, and what
    is no whole number raises TypeError.

    Attributes:
        class_names: names of the labels, in their order.
    """

    class_names: list[str]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def recipe(self) -> Recipe:
        """The recipe of the images."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Item:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """A batch at once, which a DataLoader asks for."""
        raise NotImplementedError


class FormulaDataset(ImageDataset):
    """Draws what it is asked for: no storage, the same pixels as a store of the recipe.

    Args:
        recipe: the recipe, the path of its file, a mapping, or the name of a generator, with its defaults.
        workers: processes to search categories with.
        progress: called with the number of categories found so far.

    Raises:
        ConfigError: the file holds no valid recipe.
        PluginError: the generator raised.
    """

    def __init__(
        self, recipe: RecipeLike, *, workers: int = 1, progress: Callable[[int], None] = lambda found: None
    ) -> None:
        self.drawer = Drawer(as_recipe(recipe), workers=workers, progress=progress)
        self.class_names = [category.name for category in self.drawer.categories]

    @property
    def recipe(self) -> Recipe:
        return self.drawer.recipe

    def __len__(self) -> int:
        return len(self.drawer)

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        images, labels = self.drawer.draw_batch(indices)
        return _items(images, labels.tolist())

    @property
    def endless(self) -> bool:
        """Whether a category has more instances than any recipe asks for."""
        return self.drawer.generator.max_instances() is None

    def held_out(self, count: int, *, fresh: bool) -> HeldOut:
        """Instances of each category that training does not draw.

        Args:
            count: of each category.
            fresh: whether training draws new images in every epoch; the recipe's own are held out then.

        Raises:
            ConfigError: there are not so many.
        """
        own, most = self.recipe.num_instances, self.drawer.generator.max_instances()
        first = 0 if fresh else own
        if fresh and count > own:
            raise ConfigError(f"held_out: is {count}, and must be at most the recipe's number of instances, {own}")
        if most is not None and first + count > most:
            raise ConfigError(
                f"held_out: is {count}: a category of '{self.recipe.generator.name}' has {most} different instances, "
                f"of which the recipe takes {own}"
            )
        return HeldOut(self.drawer, first, count)

    def fresh_items(self, keys: Sequence[tuple[int, int]]) -> list[Item]:
        """Items of (epoch, index): of each epoch its own, which neither the recipe nor another epoch has.

        Where the recipe has n instances, its instance i is instance (1 + epoch) n + i of the category here.
        """
        _, labels, instances = self.places(keys, fresh=True)
        return _items(self.drawer.draw_instances(labels, instances), labels.tolist())

    def places(self, keys: Sequence[tuple[int, int]], *, fresh: bool) -> Places:
        """Where the items of (epoch, index) are: those of ``__getitems__``, or ``fresh_items``, to be drawn elsewhere.

        Returns:
            What each image is labelled in training, the category that it is of, and its instance there: int64 [n] each.
        """
        epochs, indices = np.array(keys, dtype=np.int64).reshape(-1, 2).T
        count = self.recipe.num_instances
        labels, instances = np.divmod(positions(indices, len(self)), count)
        return labels, labels, instances + (1 + epochs) * count if fresh else instances


class HeldOut(ImageDataset):
    """Instances of a recipe's categories from number ``first`` on, ``count`` of each, drawn on demand."""

    def __init__(self, drawer: Drawer, first: int, count: int) -> None:
        self.drawer = drawer
        self.first = first
        self.count = count
        self.class_names = [category.name for category in drawer.categories]

    @property
    def recipe(self) -> Recipe:
        return self.drawer.recipe

    def __len__(self) -> int:
        return len(self.class_names) * self.count

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        _, labels, instances = self.places([(0, index) for index in positions(indices, len(self))], fresh=False)
        return _items(self.drawer.draw_instances(labels, instances), labels.tolist())

    def places(self, keys: Sequence[tuple[int, int]], *, fresh: bool) -> Places:
        """Where the items of (epoch, index) are, in every epoch the same ones."""
        indices = np.array(keys, dtype=np.int64).reshape(-1, 2)[:, 1]
        labels, instances = np.divmod(positions(indices, len(self)), self.count)
        return labels, labels, instances + self.first


class StoredDataset(ImageDataset):
    """Reads a store.

    Raises:
        StoreError: there is no store at ``path``, it is not complete, or (while reading) an image is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.store = Store(path)
        self.class_names = self.store.layout.category_names

    @property
    def recipe(self) -> Recipe:
        return self.store.recipe

    def __len__(self) -> int:
        return len(self.store)

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        layout = self.store.layout
        indices = positions(indices, len(self)).tolist()
        images = np.empty((len(indices), layout.size, layout.size, layout.channels), np.uint8)
        for image, index in zip(images, indices, strict=True):
            image[:] = self.store.read(index)
        return _items(images, [self.store.label(index) for index in indices])


def _items(images: NDArray[np.uint8], labels: list[int]) -> list[Item]:
    """Items from images, uint8 [n, h, w, c], which share memory that may be written to."""
    batch = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return list(zip(batch.unbind(0), labels, strict=True))
