"""Formula-driven datasets for PyTorch: drawn on demand, or read from a store."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from os import PathLike
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from formulavision.recipes.drawing import Drawer
from formulavision.recipes.recipe import Recipe, RecipeLike
from formulavision.storage import Store
from formulavision.util.errors import ConfigError
from formulavision.util.indices import positions

__all__ = ["FormulaDataset", "InstanceNumbers", "RecipeDataset", "StoredDataset"]

Item = tuple[Any, Any]
"""An image and its label."""
InstanceNumbers = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Of images to be drawn: the label in training, the category, and the instance of that category; int64 [n] each."""

_OWN = -1
"""Stands for an epoch where a dataset has the recipe's own instances."""


class RecipeDataset(Dataset[Item]):
    """A recipe's images, map-style, with the attributes of torchvision's datasets: index -> (image, label).

    The image is a uint8 tensor [channels, size, size], or what ``transform`` makes of it; the label is an int, or what
    ``target_transform`` makes of it. Any sampler and any number of workers can be used. Indices are those of a list:
    negative ones count from the end, others that are not there raise IndexError, and an index that is no whole number
    raises TypeError.

    Args:
        classes: names of the categories, in the order of the labels.
        transform: called with each image. It may be replaced later, as by timm's ``create_loader``.
        target_transform: called with each label.
        pil: whether images are PIL images in RGB, as of torchvision's ``ImageFolder``, and not tensors: for transforms
            that take no tensors, such as torchvision's ``ToTensor`` and those of timm's ``create_transform``.

    Attributes:
        classes: names of the categories, in the order of the labels.
        transform, target_transform, pil: as above.
    """

    def __init__(
        self,
        classes: Sequence[str],
        transform: Callable[[Any], Any] | None,
        target_transform: Callable[[Any], Any] | None,
        pil: bool,
    ) -> None:
        self.classes = list(classes)
        self.transform = transform
        self.target_transform = target_transform
        self.pil = pil

    @property
    def recipe(self) -> Recipe:
        """The recipe of the images."""
        raise NotImplementedError

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The label of each category, by its name."""
        return {name: label for label, name in enumerate(self.classes)}

    @cached_property
    def targets(self) -> list[int]:
        """The labels of all images, before ``target_transform``."""
        return np.repeat(np.arange(len(self.classes)), len(self) // len(self.classes)).tolist()

    def for_training(self) -> Self:
        """The dataset as ``pretrain`` takes it: the recipe's own instances, whatever epoch was set.

        Raises:
            ConfigError: items are not (uint8 tensor, int).
        """
        if self.pil or self.transform or self.target_transform:
            raise ConfigError(
                "data: has a transform or gives PIL images, and pretrain prepares images itself: give the dataset "
                "without transform, target_transform and pil"
            )
        return self

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Item:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """The items of a batch, which a DataLoader asks for at once."""
        raise NotImplementedError

    def _sizes(self) -> str:
        return f"{len(self.classes):,} classes x {len(self) // len(self.classes):,} images"

    def _items(self, images: NDArray[np.uint8], labels: list[int]) -> list[Item]:
        """Items from images, uint8 [n, h, w, c]; tensors share the images' memory."""
        made: Iterable[Any]
        if self.pil:
            made = (Image.fromarray(image.repeat(3 // image.shape[2], axis=2)) for image in images)
        else:
            made = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).unbind(0)
        if self.transform is not None:
            made = map(self._transformed, made)
        changed: Iterable[Any] = labels if self.target_transform is None else map(self.target_transform, labels)
        return list(zip(made, changed, strict=True))

    def _transformed(self, image: Any) -> Any:
        assert self.transform is not None
        try:
            return self.transform(image)
        except Exception as error:
            given = "PIL images in RGB (pil=True)" if self.pil else "uint8 tensors [c, h, w]; pil=True: PIL images"
            error.add_note(f"{type(self).__name__} calls its transform with {given}")
            raise


class FormulaDataset(RecipeDataset):
    """Draws images on demand, without storage: the same pixels as a store of the recipe.

    An item is (uint8 tensor [channels, size, size], label), or what ``transform`` and ``target_transform`` make of it::

        to_float = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.2], [0.2])])
        loader = DataLoader(FormulaDataset("ifs", transform=to_float), batch_size=64, shuffle=True, num_workers=2)

    Args:
        recipe: the recipe, the path of its file, a mapping, or the name of a generator, with its defaults.
        transform: called with each image. It may be replaced later, as by timm's ``create_loader``.
        target_transform: called with each label.
        pil: whether images are PIL images in RGB, as of torchvision's ``ImageFolder``, and not tensors: for transforms
            that take no tensors, such as torchvision's ``ToTensor`` and those of timm's ``create_transform``.
        workers: processes to search categories with.
        progress: called with the number of categories found so far.

    Raises:
        ConfigError: the file holds no valid recipe.
        PluginError: the generator raised.
    """

    def __init__(
        self,
        recipe: RecipeLike,
        *,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        pil: bool = False,
        workers: int = 1,
        progress: Callable[[int], None] = lambda found: None,
    ) -> None:
        self.drawer = Drawer(recipe, workers=workers, progress=progress)
        super().__init__([category.name for category in self.drawer.categories], transform, target_transform, pil)
        # Of each category, the dataset has ``_count`` instances from ``_first`` on.
        self._first, self._count = 0, self.recipe.num_instances
        self._endless = self.drawer.generator.max_instances() is None
        self._epoch = torch.tensor(_OWN).share_memory_()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._epoch.share_memory_()

    def __copy__(self) -> Self:
        copied = type(self).__new__(type(self))
        copied.__setstate__({**self.__dict__, "_epoch": self._epoch.clone()})
        return copied

    def __repr__(self) -> str:
        size = self.recipe.canvas.size
        facts = f"{self._sizes()} of {size} x {size}, recipe {self.recipe.id}"
        return f"FormulaDataset({self.recipe.generator_names}: {facts})"

    @property
    def recipe(self) -> Recipe:
        return self.drawer.recipe

    def __len__(self) -> int:
        return len(self.classes) * self._count

    def set_epoch(self, epoch: int | None) -> None:
        """Draw new instances, those that pre-training draws in this epoch with ``settings.fresh``.

        If the recipe has n instances of each category, its instance i becomes instance (1 + epoch) n + i. Call it
        before the loader is iterated over, as ``set_epoch`` of a ``DistributedSampler``. The epoch is in shared memory,
        so that a loader's workers see it, also persistent ones. Where a category has a finite number of instances, the
        images stay the recipe's own.

        Args:
            epoch: from 0; None: the recipe's own instances again.

        Raises:
            ConfigError: the epoch is below 0.
        """
        if epoch is not None and epoch < 0:
            raise ConfigError(f"epoch: {epoch} is not allowed: must be at least 0, or None")
        if self._endless:
            self._epoch.fill_(_OWN if epoch is None else epoch)

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        epoch = int(self._epoch)
        keys = [(epoch, index) for index in positions(indices, len(self)).tolist()]
        return self._draw(self.find_instances(keys, fresh=epoch != _OWN))

    @property
    def endless(self) -> bool:
        """Whether each epoch can have new images: a category has no limit of instances, and none are held out."""
        return self._endless

    def for_training(self) -> Self:
        return super().for_training()._part(self._first, self._count, endless=self._endless)

    def _part(self, first: int, count: int, *, endless: bool) -> Self:
        part = copy.copy(self)
        part.__dict__.pop("targets", None)
        part._first, part._count, part._endless = first, count, endless
        part._epoch.fill_(_OWN)
        return part

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
                f"held_out: is {count}: a category of '{self.recipe.generator_names}' has {most} different instances, "
                f"of which the recipe takes {own}"
            )
        return self._part(first, count, endless=False)

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
        return self._items(self.drawer.draw_instances(categories, instances), labels.tolist())


class StoredDataset(RecipeDataset):
    """Reads the images of a store.

    An item is (uint8 tensor [channels, size, size], label), or what ``transform`` and ``target_transform`` make of it.

    Args:
        path: the store, or its folder.
        transform, target_transform, pil: as of :class:`FormulaDataset`.

    Raises:
        StoreError: there is no store at ``path``, it is not complete, or (while reading) an image is damaged.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        pil: bool = False,
    ) -> None:
        self.store = Store(path)
        super().__init__(self.store.layout.category_names, transform, target_transform, pil)

    def __repr__(self) -> str:
        # The recipe may be of a generator that is not installed here.
        size = self.store.layout.size
        return f"StoredDataset({str(self.store.path)!r}: {self._sizes()} of {size} x {size})"

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
        return self._items(images, [self.store.label(index) for index in indices])
