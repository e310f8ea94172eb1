"""Labels other than a formula's own: partly replaced at random, or clusters of a model's features (the paper's section
4.3 (i), figure 5 and table 7). Importable without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from formulavision.generators.streams import Stream, random_stream
from formulavision.util.config import Config
from formulavision.util.errors import ConfigError
from formulavision.util.indices import positions

if TYPE_CHECKING:
    import torch

    from formulavision.data.datasets import InstanceNumbers
    from formulavision.data.items import ImageDataset
    from formulavision.data.loading import DrawnImages, Key
    from formulavision.recipes.drawing import Drawer

__all__ = ["LabelSettings", "NoisyCategories", "Relabelled", "label_noise", "relabel"]

_SAME_IN_EVERY_EPOCH = -1

KEPT = -1
"""Stands in place of a new label where the image keeps its own."""


class LabelSettings(Config):
    """Labels for pre-training: exactly one of ``noise`` and ``clusters``."""

    noise: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of the images whose label is drawn at random from all classes (figure 5)",
    )
    clusters: int | None = Field(
        default=None,
        ge=2,
        le=1_000_000,
        description="labels are this many clusters of the model's own features, found anew before every epoch "
        "(DeepCluster, table 7)",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of the replaced labels, or of the clusters")

    @model_validator(mode="after")
    def _check(self) -> LabelSettings:
        if (self.noise is None) == (self.clusters is None):
            raise ValueError("must be either noise, a share from 0 to 1, or clusters, a number from 2")
        return self


def label_noise(labels: NDArray[np.int64], share: float, num_classes: int, *, seed: int) -> NDArray[np.int64]:
    """Labels of which some are replaced at random (the paper's figure 5).

    Each image is chosen independently with probability ``share``. A chosen image gets a label drawn uniformly from all
    classes, which may be its own. With a share of 1, labels are independent of the images. The label of image i depends
    on (seed, i) alone, not on the other images. The images chosen with one share are also chosen with a larger one.

    Args:
        labels: int64 [n], from 0.
        share: from 0 (no label is replaced) to 1.
        num_classes: new labels are from 0 to ``num_classes`` - 1.
        seed: seed of the choice and of the new labels.

    Returns:
        int64 [n].

    Raises:
        ConfigError: the share is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share: {share} is not allowed: must be from 0 to 1")
    replacements = _replacements(len(labels), share, num_classes, seed, _SAME_IN_EVERY_EPOCH)
    return np.where(replacements == KEPT, labels, replacements)


def _replacements(length: int, share: float, num_classes: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """New labels, or KEPT, int64 [length]; the new label of an image does not depend on the length."""
    uniform = random_stream(seed, Stream.LABEL_NOISE, 1 + epoch).random((length, 2))
    return np.where(uniform[:, 0] < share, (uniform[:, 1] * num_classes).astype(np.int64), KEPT)


class NoisyCategories:
    """Categories of a scene's objects, of which some are replaced at random.

    Each object is chosen independently with probability ``share``, and gets a category drawn uniformly from all, which
    may be its own. The category of an object depends on (seed, epoch, scene, object) alone.

    Args:
        share: from 0 to 1.
        num_categories: number of categories.
        seed: seed of the choice and of the new categories.
    """

    def __init__(self, share: float, num_categories: int, *, seed: int) -> None:
        self.share = share
        self.num_categories = num_categories
        self.seed = seed

    def __call__(self, epoch: int, scene: int, categories: NDArray[np.int64]) -> NDArray[np.int64]:
        """New categories, int64 [objects], of a scene in an epoch from 0; -1: the same in every epoch."""
        from formulavision.rendering.random import uniform_streams  # imports numba

        numbers = np.arange(len(categories))
        counters = np.stack([np.full_like(numbers, 1 + epoch), np.full_like(numbers, scene), 1 + numbers], 1)
        chosen, new = uniform_streams((self.seed, Stream.LABEL_NOISE), counters, 2).reshape(-1, 2).T
        return np.where(chosen < self.share, (new * self.num_categories).astype(np.int64), categories)


def relabel(source: ImageDataset, settings: LabelSettings) -> ImageDataset:
    """The images of a dataset with other labels: :class:`Relabelled`, or scenes with :class:`NoisyCategories`.

    Raises:
        ConfigError: clusters, and the images are scenes; or as of :class:`Relabelled`.
    """
    from formulavision.data.datasets import RecipeDataset
    from formulavision.data.mixtures import MixtureImages

    if not (isinstance(source, RecipeDataset | MixtureImages) and source.has_scenes):
        return Relabelled(source, settings)
    if settings.noise is None:
        raise ConfigError("labels.clusters: the images are scenes of several objects, which belong to no one cluster")
    return source.with_categories(NoisyCategories(settings.noise, source.num_categories, seed=settings.seed))


class Relabelled:
    """The images of a dataset with other labels.

    With noise, images have the labels of :func:`label_noise`; the label of a fresh image depends on (seed, epoch,
    index). With clusters, images have the labels that were last given to :meth:`replace`. Before that the labels are
    -1, which loss functions refuse. With clusters no image is fresh, because clusters are assigned by index.

    Args:
        source: the images.
        settings: noise or clusters.

    Raises:
        ConfigError: the images have another target than one class; or there are more clusters than images.

    Attributes:
        clusters: the number of clusters; None where labels are noisy.
        classes: the source's, or "cluster 0" and on.
    """

    def __init__(self, source: ImageDataset, settings: LabelSettings) -> None:
        from formulavision.data.items import target_of
        from formulavision.data.mixtures import MixtureImages, is_endless

        target = target_of(source)
        if target != "class":
            what = "noise" if settings.noise is not None else "clusters"
            raise ConfigError(f"labels.{what}: the images have the target '{target}': they must have one class each")
        self.source = source
        self.settings = settings
        self.clusters = settings.clusters
        self.classes: Sequence[str]
        if self.clusters is not None:
            if self.clusters > len(source):
                raise ConfigError(
                    f"labels.clusters: {self.clusters} is not allowed: there are {len(source)} images only"
                )
            self.classes = [f"cluster {i}" for i in range(self.clusters)]
            import torch

            # Shared, so that loader workers, which live through all epochs, see each epoch's labels.
            self._labels: torch.Tensor = torch.full((len(source),), KEPT).share_memory_()
        else:
            self.classes = source.classes
            self._noise = self._replacements(_SAME_IN_EVERY_EPOCH)
            self._fresh = (_SAME_IN_EVERY_EPOCH, self._noise)
            parts = source.parts if isinstance(source, MixtureImages) else [source]
            self._are_endless = np.repeat([is_endless(part) for part in parts], [len(part) for part in parts])

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[torch.Tensor, int]]:
        indices = positions(indices, len(self)).tolist()
        fetch = getattr(self.source, "__getitems__", None)
        items = fetch(indices) if fetch else [self.source[index] for index in indices]
        if self.clusters is not None:
            return [(image, int(self._labels[index])) for (image, _), index in zip(items, indices, strict=True)]
        return [_noisy(item, self._noise[index]) for item, index in zip(items, indices, strict=True)]

    @property
    def endless(self) -> bool:
        """Whether there are fresh images."""
        return self.clusters is None and getattr(self.source, "endless", False)

    def fresh_items(self, keys: Sequence[Key]) -> list[tuple[torch.Tensor, int]]:
        """The source's fresh images for each (epoch, index), with noisy labels."""
        items = cast("DrawnImages", self.source).fresh_items(keys)
        return [_noisy(item, self._fresh_noise(*key)) for item, key in zip(items, keys, strict=True)]

    @property
    def drawer(self) -> Drawer | None:
        """The drawer of the source's images; None where they are not drawn."""
        return getattr(self.source, "drawer", None)

    def find_instances(self, keys: Sequence[Key], *, fresh: bool) -> InstanceNumbers:
        """The numbers of the source's items for each (epoch, index), with these labels."""
        _, categories, instances = cast("DrawnImages", self.source).find_instances(keys, fresh=fresh)
        indices = np.array([index for _, index in keys], np.int64)
        if self.clusters is not None:
            return self._labels.numpy()[indices], categories, instances
        noise = np.array([self._fresh_noise(*key) for key in keys], np.int64) if fresh else self._noise[indices]
        return np.where(noise == KEPT, categories, noise), categories, instances

    def _fresh_noise(self, epoch: int, index: int) -> np.int64:
        if not self._are_endless[index]:  # a store's image comes again, and keeps its label
            return self._noise[index]
        if self._fresh[0] != epoch:
            self._fresh = (epoch, self._replacements(epoch))
        return self._fresh[1][index]

    @property
    def labels(self) -> NDArray[np.int64]:
        """A copy of the clusters' labels, int64 [n]."""
        return self._labels.numpy().copy()

    def replace(self, labels: NDArray[np.int64]) -> None:
        """Give all images new labels: numbers of clusters from 0, int64 [n]. Running loader workers see them, too."""
        self._labels.numpy()[:] = labels

    def _replacements(self, epoch: int) -> NDArray[np.int64]:
        assert self.settings.noise is not None
        return _replacements(len(self), self.settings.noise, self.num_classes, self.settings.seed, epoch)


def _noisy(item: tuple[Any, int], replacement: np.int64) -> tuple[Any, int]:
    image, label = item
    return image, label if replacement == KEPT else int(replacement)
