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

from formulavision.generators.contract import Scene
from formulavision.recipes.drawing import Drawer
from formulavision.recipes.recipe import Recipe, RecipeLike, as_recipe, locate
from formulavision.recipes.targets import TARGETS, Objects, Target, scene_target
from formulavision.storage import Store
from formulavision.util.errors import ConfigError
from formulavision.util.indices import positions, whole
from formulavision.util.text import counted

__all__ = ["FormulaDataset", "InstanceNumbers", "RecipeDataset", "ReplaceCategories", "StoredDataset"]

Item = tuple[Any, Any]
"""An image and its target."""
InstanceNumbers = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Of images to be drawn: the label in training, the category, and the instance of that category; int64 [n] each."""

ReplaceCategories = Callable[[int, int, NDArray[np.int64]], NDArray[np.int64]]
"""New categories of a scene's objects, int64 [objects], from the epoch (-1: the recipe's own scenes, the same in every
epoch), the index of the scene, and its categories."""

_OWN = -1
"""Stands for an epoch where a dataset has the recipe's own images."""


class RecipeDataset(Dataset[Item]):
    """A recipe's images, map-style, with the attributes of torchvision's datasets: index -> (image, target).

    The image is a uint8 tensor [channels, size, size], or what ``transform`` makes of it. The target is, or
    ``target_transform`` makes of it:

    - ``class``: the label, an int;
    - ``labels``: int8 tensor [categories], 1 where the scene shows an object of the category;
    - ``semantic``: the class of each pixel [size, size], 0 for background and category + 1 elsewhere: uint8 up to 254
      categories, else int32;
    - ``objects``: what torchvision's detection models learn from: a mapping of ``boxes``, float32 [n, 4] (left, top,
      right, bottom), ``labels``, int64 [n] (category + 1), and ``masks``, uint8 [n, size, size].

    Any sampler and any number of workers can be used. Indices are those of a list: negative ones count from the end,
    others that are not there raise IndexError, and an index that is no whole number raises TypeError.

    Args:
        categories: names of the categories, in the order of the labels.
        target: class, labels, semantic or objects.
        min_visible: least number of visible pixels of an object that has a box, mask and label.
        transform: called with each image. It may be replaced later, as by timm's ``create_loader``.
        target_transform: called with each target.
        pil: whether images are PIL images in RGB, as of torchvision's ``ImageFolder``, and not tensors: for transforms
            that take no tensors, such as torchvision's ``ToTensor`` and those of timm's ``create_transform``.

    Attributes:
        classes: names of the categories, in the order of the labels; after ``background`` where the target is semantic
            or objects.
        target, transform, target_transform, pil: as above.
    """

    def __init__(
        self,
        categories: Sequence[str],
        target: Target,
        min_visible: int,
        transform: Callable[[Any], Any] | None,
        target_transform: Callable[[Any], Any] | None,
        pil: bool,
    ) -> None:
        if target in ("semantic", "objects") and "background" in categories:
            raise ConfigError(f"target: {target} has a class 'background' of its own: rename the category of that name")
        self.target = target
        self.classes = [*(["background"] if target in ("semantic", "objects") else []), *categories]
        self.num_categories = len(categories)
        self._first_category = self._first_index = 0
        self.min_visible = min_visible
        self.transform = transform
        self.target_transform = target_transform
        self.pil = pil
        self._replace: ReplaceCategories | None = None

    @property
    def has_scenes(self) -> bool:
        """Whether the images are scenes of objects."""
        raise NotImplementedError

    def with_categories(self, replace: ReplaceCategories) -> Self:
        """The same scenes, in which objects have other categories: label noise. Targets follow from these."""
        other = copy.copy(self)
        other._replace = replace
        return other

    def within_mixture(self, first_category: int, num_categories: int, first_index: int) -> Self:
        """The same images as a part of a mixture.

        Args:
            first_category: label of this dataset's first category in the mixture.
            num_categories: number of the mixture's categories.
            first_index: index of this dataset's first image in the mixture, which label noise depends on.
        """
        other = copy.copy(self)
        other.__dict__.pop("targets", None)
        other._first_category, other.num_categories, other._first_index = first_category, num_categories, first_index
        return other

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
        """The labels of all images, before ``target_transform``; not of scenes, whose targets are drawn with them.

        Raises:
            AttributeError: the images are scenes.
        """
        return (self._labels() + self._first_category).tolist()

    def _labels(self) -> NDArray[np.int64]:
        raise NotImplementedError

    def for_training(self) -> Self:
        """The dataset as ``pretrain`` takes it: the recipe's own instances, whatever epoch was set.

        Raises:
            ConfigError: items are not (uint8 tensor, target of the recipe).
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
        if self.has_scenes:
            return f"{len(self):,} scenes of {self.num_categories:,} categories, target {self.target}"
        if len(self) % self.num_categories:
            return f"{len(self):,} images of {self.num_categories:,} classes"
        return f"{counted(self.num_categories, 'class')} x {counted(len(self) // self.num_categories, 'image')}"

    def categories_of(self, epoch: int, index: int, drawn: NDArray[np.int64]) -> NDArray[np.int64]:
        """The categories of a scene's objects in training, int64 [objects]: those that are drawn, or in their place
        those of label noise.

        Args:
            epoch: from 0; -1 for the recipe's own scenes, which have the same categories in every epoch.
            index: of the scene in this dataset.
        """
        drawn = drawn + self._first_category
        return drawn if self._replace is None else self._replace(epoch, self._first_index + index, drawn)

    def _target(self, scene: Scene, epoch: int, index: int) -> Any:
        """The target of a scene, as tensors."""
        scene = scene._replace(categories=self.categories_of(epoch, index, scene.categories))
        target = scene_target(scene, self.target, self.num_categories, self.min_visible)
        if self.target == "class":
            return target
        if isinstance(target, Objects):
            numbers = target.numbers[:, None, None]
            return {
                "boxes": torch.from_numpy(target.boxes.astype(np.float32)),
                "labels": torch.from_numpy(target.categories + 1),
                "masks": torch.from_numpy((scene.object_map == numbers).astype(np.uint8)),
            }
        return torch.from_numpy(target.astype(np.int32) if target.dtype == np.uint16 else target)

    def _items(self, images: NDArray[np.uint8], labels: Sequence[Any]) -> list[Item]:
        """Items from images, uint8 [n, h, w, c], and their targets; tensors share the images' memory."""
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
    """Draws images on demand, without storage: the same pixels and targets as a store of the recipe.

    An item is (uint8 tensor [channels, size, size], target), or what ``transform`` and ``target_transform`` make of
    it; see :class:`RecipeDataset` for the targets of scenes::

        to_float = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.2], [0.2])])
        loader = DataLoader(FormulaDataset("ifs", transform=to_float), batch_size=64, shuffle=True, num_workers=2)

    Args:
        recipe: the recipe, the path of its file, a mapping, or the name of a generator, with its defaults.
        target: class, labels, semantic or objects; None: the recipe's.
        transform: called with each image. It may be replaced later, as by timm's ``create_loader``.
        target_transform: called with each target.
        pil: whether images are PIL images in RGB, as of torchvision's ``ImageFolder``, and not tensors: for transforms
            that take no tensors, such as torchvision's ``ToTensor`` and those of timm's ``create_transform``.
        workers: processes to search categories with.
        progress: called with the number of categories found so far.

    Raises:
        ConfigError: the file holds no valid recipe, or the recipe has no such target.
        PluginError: the generator raised.
    """

    def __init__(
        self,
        recipe: RecipeLike,
        *,
        target: Target | None = None,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        pil: bool = False,
        workers: int = 1,
        progress: Callable[[int], None] = lambda found: None,
    ) -> None:
        recipe = as_recipe(recipe, [] if target is None else [f"target={target}"])
        assert recipe.target is not None
        self.drawer = Drawer(recipe, workers=workers, progress=progress)
        names = [category.name for category in self.drawer.categories]
        super().__init__(names, recipe.target, recipe.min_visible, transform, target_transform, pil)
        # Of each category of a part, the dataset has ``_count`` instances from ``_first`` on; of scenes, so many.
        if recipe.is_scene:
            self._counts = np.array([len(recipe)], np.int64)
        else:
            self._counts = np.array([part.num_instances for part in recipe.all_parts], np.int64)
        self._firsts = np.zeros_like(self._counts)
        self._most = self._largest_numbers()
        self._endless = not self._most
        self._epoch = torch.tensor(_OWN).share_memory_()

    def _largest_numbers(self) -> dict[int, int]:
        """The number of instances of a part, or of scenes, where that is finite."""
        if self.recipe.is_scene:
            own = self.drawer.generator.max_scenes() if self.recipe.scene == "own" else None
            return {} if own is None else {0: own}
        numbers = [generator.max_instances() for generator in self.drawer.generators]
        return {part: number for part, number in enumerate(numbers) if number is not None}

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

    @property
    def has_scenes(self) -> bool:
        return self.recipe.is_scene

    def __len__(self) -> int:
        return int(self._counts @ self._multiples)

    @property
    def _multiples(self) -> NDArray[np.int64]:
        """How many categories have the images of each part; scenes have theirs once."""
        return np.ones(1, np.int64) if self.recipe.is_scene else self.recipe.categories_of_parts

    def _labels(self) -> NDArray[np.int64]:
        if self.recipe.is_scene:
            raise AttributeError("targets: the targets of scenes are drawn with their images: dataset[i][1]")
        return locate(np.arange(len(self)), self._multiples, self._counts)[0]

    def set_epoch(self, epoch: int | None) -> None:
        """Draw new images, those that pre-training draws in this epoch with ``settings.fresh``.

        If the recipe has n instances of each category, its instance i becomes instance (1 + epoch) n + i; likewise the
        n scenes of a recipe. Call it before the loader is iterated over, as ``set_epoch`` of a ``DistributedSampler``.
        The epoch is in shared memory, so that a loader's workers see it, also persistent ones. Where a category has a
        finite number of instances, or a published set of scenes ends, the images stay the recipe's own.

        Args:
            epoch: from 0; None: the recipe's own images again.

        Raises:
            ConfigError: the epoch is below 0.
            TypeError: the epoch is not a whole number.
        """
        epoch = None if epoch is None else whole(epoch)
        if epoch is not None and epoch < 0:
            raise ConfigError(f"epoch: {epoch} is not allowed: must be at least 0, or None")
        if self._endless:
            self._epoch.fill_(_OWN if epoch is None else epoch)

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        epoch = int(self._epoch)
        keys = [(epoch, index) for index in positions(indices, len(self)).tolist()]
        return self._draw(keys, fresh=epoch != _OWN)

    @property
    def endless(self) -> bool:
        """Whether each epoch can have new images: they have no limit, and none are held out."""
        return self._endless

    def for_training(self) -> Self:
        return super().for_training()._part(self._firsts, self._counts, endless=self._endless)

    def _part(self, firsts: NDArray[np.int64], counts: NDArray[np.int64], *, endless: bool) -> Self:
        part = copy.copy(self)
        part.__dict__.pop("targets", None)
        part._firsts, part._counts, part._endless = firsts, counts, endless
        part._epoch.fill_(_OWN)
        return part

    def held_out(self, count: int, *, fresh: bool) -> FormulaDataset:
        """A dataset of images that training does not draw.

        Args:
            count: number of instances of each category, or of scenes.
            fresh: whether training draws new images in every epoch; then the recipe's own are held out.

        Raises:
            ConfigError: there are fewer, or the scenes are a finite published set.
        """
        what = "scenes" if self.recipe.is_scene else "instances"
        if fresh and count > self._counts.min():
            raise ConfigError(
                f"held_out: is {count}, and must be at most the recipe's number of {what}, {self._counts.min()}"
            )
        firsts = np.zeros_like(self._counts) if fresh else self._counts
        for part, most in self._most.items():
            name, own = self.recipe.all_parts[part].generator.name, self._counts[part]
            if self.recipe.is_scene:
                raise ConfigError(
                    f"held_out: must be 0: the scenes of '{name}' are a finite published set, of {most} scenes"
                )
            if firsts[part] + count > most:
                raise ConfigError(
                    f"held_out: is {count}: a category of '{name}' has {most} different instances, of which the recipe "
                    f"takes {own}"
                )
        return self._part(firsts, np.full_like(self._counts, count), endless=False)

    def fresh_items(self, keys: Sequence[tuple[int, int]]) -> list[Item]:
        """New items for each (epoch, index), which neither the recipe nor another epoch has.

        If the recipe has n instances of each category, its instance i becomes instance (1 + epoch) n + i; likewise the
        n scenes of a recipe.
        """
        return self._draw(keys, fresh=True)

    def find_instances(self, keys: Sequence[tuple[int, int]], *, fresh: bool) -> InstanceNumbers:
        """The numbers of the items for each (epoch, index): of ``__getitems__``, or of ``fresh_items``."""
        epochs, indices = np.array(keys, dtype=np.int64).reshape(-1, 2).T
        labels, instances, part = locate(positions(indices, len(self)), self._multiples, self._counts)
        instances += self._firsts[part]
        instances = instances + (1 + epochs) * self._counts[part] if fresh else instances
        return labels + self._first_category, labels, instances

    def find_scenes(self, keys: Sequence[tuple[int, int]], *, fresh: bool) -> NDArray[np.int64]:
        """The numbers of the scenes for each (epoch, index): of ``__getitems__``, or of ``fresh_items``."""
        return self.find_instances(keys, fresh=fresh)[2]

    def _draw(self, keys: Sequence[tuple[int, int]], *, fresh: bool) -> list[Item]:
        if self.recipe.is_scene:
            batch = self.drawer.draw_scenes(self.find_scenes(keys, fresh=fresh))
            targets = [self._target(scene, *key) for scene, key in zip(batch, keys, strict=True)]
            return self._items(batch.images, targets)
        labels, categories, instances = self.find_instances(keys, fresh=fresh)
        return self._items(self.drawer.draw_instances(categories, instances), labels.tolist())


class StoredDataset(RecipeDataset):
    """Reads the images of a store.

    An item is (uint8 tensor [channels, size, size], target), or what ``transform`` and ``target_transform`` make of
    it; see :class:`RecipeDataset` for the targets of scenes.

    Args:
        path: the store, its folder, or its fsspec URL.
        target: class, labels, semantic or objects; None: that of the store's recipe. A store of scenes has them all.
        transform, target_transform, pil: as of :class:`FormulaDataset`.

    Raises:
        StoreError: there is no store at ``path``, it is not complete, or (while reading) an image is damaged.
        ConfigError: the store has no such target.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        target: Target | None = None,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        pil: bool = False,
    ) -> None:
        self.store = Store(path)
        layout, written = self.store.layout, self.store.manifest.recipe
        if target is not None:
            # The recipe may be of a generator that is not installed here, so it is not built to check the target.
            scene = written.get("scene")
            single = isinstance(scene, dict) and scene.get("objects") == [1, 1]
            allowed = (TARGETS if single else TARGETS[1:]) if self.has_scenes else TARGETS[:1]
            if target not in allowed:
                raise ConfigError(f"target: '{target}' is not allowed for this store: must be {', '.join(allowed)}")
        own: Target = target or written.get("target", "class")
        super().__init__(layout.category_names, own, layout.min_visible or 1, transform, target_transform, pil)

    def __repr__(self) -> str:
        # The recipe may be of a generator that is not installed here.
        size = self.store.layout.size
        return f"StoredDataset({str(self.store.root)!r}: {self._sizes()} of {size} x {size})"

    @property
    def recipe(self) -> Recipe:
        return self.store.recipe

    @property
    def has_scenes(self) -> bool:
        return self.store.layout.scenes is not None

    def __len__(self) -> int:
        return len(self.store)

    def _labels(self) -> NDArray[np.int64]:
        if self.has_scenes:
            raise AttributeError("targets: the targets of scenes are read with their images: dataset[i][1]")
        firsts = self.store.layout.first_of_categories()
        return np.searchsorted(firsts, np.arange(len(self)), side="right") - 1

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        layout = self.store.layout
        indices = positions(indices, len(self)).tolist()
        images = np.empty((len(indices), layout.size, layout.size, layout.channels), np.uint8)
        targets = []
        for image, index in zip(images, indices, strict=True):
            if self.has_scenes:
                scene = self.store.scene(index)
                image[:] = scene.image
                targets.append(self._target(scene, _OWN, index))
            else:
                image[:] = self.store.read(index)
                targets.append(self._first_category + self.store.label(index))
        return self._items(images, targets)
