"""Formula-driven datasets for PyTorch: drawn on demand, or read from a store, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from formulavision.drawing import Drawer
from formulavision.recipe import Recipe
from formulavision.storage import Store

__all__ = ["FormulaDataset", "ImageDataset", "StoredDataset"]

Item = tuple[Tensor, int]


class ImageDataset(Dataset[Item]):
    """Map-style, with any sampler and any number of workers: index -> (uint8 [channels, size, size], label).

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
        recipe: the recipe, or the path of its YAML file.
        workers: processes to search categories with.
        progress: called with the number of categories found so far.

    Raises:
        ConfigError: the file holds no valid recipe.
        PluginError: the generator raised.
    """

    def __init__(
        self, recipe: Recipe | str | Path, *, workers: int = 1, progress: Callable[[int], None] = lambda found: None
    ) -> None:
        self.drawer = Drawer(
            recipe if isinstance(recipe, Recipe) else Recipe.load(recipe), workers=workers, progress=progress
        )
        self.class_names = [category.name for category in self.drawer.categories]

    @property
    def recipe(self) -> Recipe:
        return self.drawer.recipe

    def __len__(self) -> int:
        return len(self.drawer)

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        images, labels = self.drawer.draw_batch(indices)
        return [(_to_tensor(image), label) for image, label in zip(images, labels.tolist(), strict=True)]


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
        return [(_to_tensor(self.store.read(int(i))), self.store.label(int(i))) for i in indices]


def _to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """uint8 [h, w, c] to [c, h, w], in memory of its own that may be written to."""
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))
