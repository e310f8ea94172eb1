"""Formula-driven datasets for PyTorch: drawn on demand, or read from a store."""

from __future__ import annotations

import copy
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

__all__ = ["FormulaDataset", "InstanceNumbers", "RecipeDataset", "StoredDataset"]

Item = tuple[Tensor, int]
InstanceNumbers = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Of images to be drawn: the label in training, the category, and the instance of that category; int64 [n] each."""


class RecipeDataset(Dataset[Item]):
    """A recipe's images, map-style: index -> (uint8 tensor [channels, size, size], label).

    Any sampler and any number of workers can be used. Indices are those of a list: negative ones count from the end,
    others that are not there raise IndexError, and an index that is no whole number raises TypeError.

    Attributes:
        class_names: names of the categories, in the order of the labels.
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
        """The items of a batch, which a DataLoader asks for at once."""
        raise NotImplementedError


class FormulaDataset(RecipeDataset):
    """Draws images on demand, without storage: the same pixels as a store of the recipe.

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
        # Of each category, the dataset has ``_count`` instances from ``_first`` on.
        self._first, self._count = 0, self.recipe.num_instances

    @property
    def recipe(self) -> Recipe:
        return self.drawer.recipe

    def __len__(self) -> int:
        return len(self.class_names) * self._count

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        return self._draw(self.find_instances([(0, index) for index in positions(indices, len(self))], fresh=False))

    @property
    def endless(self) -> bool:
        """Whether the number of a category's instances has no limit."""
        return self.drawer.generator.max_instances() is None

    def held_out(self, count: int, *, fresh: bool) -> FormulaDataset:
        """A dataset of instances that training does not draw.

        Args:
            count: number of instances of each category.
            fresh: whether training draws new instances in every epoch; then the recipe's own are held out.

        Raises:
            ConfigError: a category has fewer instances.
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
        others = copy.copy(self)
        others._first, others._count = first, count
        return others

    def fresh_items(self, keys: Sequence[tuple[int, int]]) -> list[Item]:
        """New items for each (epoch, index), which neither the recipe nor another epoch has.

        If the recipe has n instances of each category, its instance i becomes instance (1 + epoch) n + i.
        """
        return self._draw(self.find_instances(keys, fresh=True))

    def find_instances(self, keys: Sequence[tuple[int, int]], *, fresh: bool) -> InstanceNumbers:
        """The numbers of the items for each (epoch, index): of ``__getitems__``, or of ``fresh_items``."""
        epochs, indices = np.array(keys, dtype=np.int64).reshape(-1, 2).T
        labels, instances = np.divmod(positions(indices, len(self)), self._count)
        instances += self._first
        return labels, labels, instances + (1 + epochs) * self._count if fresh else instances

    def _draw(self, numbers: InstanceNumbers) -> list[Item]:
        labels, categories, instances = numbers
        return _items(self.drawer.draw_instances(categories, instances), labels.tolist())


class StoredDataset(RecipeDataset):
    """Reads the images of a store.

    Args:
        path: the store's folder.

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
    """Items from images, uint8 [n, h, w, c]; their tensors share the images' memory."""
    batch = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return list(zip(batch.unbind(0), labels, strict=True))
