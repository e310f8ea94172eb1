"""Scores of recipes, stores and datasets from their images alone, without training on them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike, fspath
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from torch.nn.functional import interpolate
from torch.utils.data import Subset

from formulavision.data.datasets import RecipeDataset
from formulavision.data.items import ImageDataset, target_of
from formulavision.data.resizing import to_square
from formulavision.evaluation.image_measures import (
    NATURAL_SLOPE,
    entropy,
    nearest_neighbour_accuracy,
    share_of_near_duplicates,
    spectrum_slope,
    spread_within,
)
from formulavision.evaluation.inference import extract_features
from formulavision.evaluation.probes import feature_settings
from formulavision.evaluation.progress import steps
from formulavision.generators.streams import Stream, random_stream
from formulavision.training.checkpoints import load_checkpoint
from formulavision.training.fit import new_model
from formulavision.training.pretraining_data import open_data
from formulavision.training.randomness import own_randomness
from formulavision.training.settings import TrainSettings
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError

__all__ = ["MEASURES", "FormulaScore", "score", "score_sheet"]

MEASURES = {
    "separability": "separability, random network",
    "given_separability": "separability, given network",
    "spread": "spread within categories",
    "slope": "slope of the spectrum",
    "duplicates": "near-duplicates between categories",
    "entropy": "entropy (bits)",
}
"""The measures of a :class:`FormulaScore` by their names, in words."""

_SIDE_OF_DUPLICATES = 32
"""Pixels to which images are averaged before they are compared: noise and a shift by a pixel count less."""
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)
"""Shares of red, green and blue in gray (ITU-R BT.601), as of Pillow."""


@dataclass(frozen=True)
class FormulaScore:
    """Measures of labelled images; None where one does not apply (see :func:`score`).

    Attributes:
        name: of the recipe or store.
        categories: number of categories that were measured.
        images: number of images that were measured.
        separability: share (0..1) of images whose nearest neighbour is of their category, by features of a random
            network (:func:`~formulavision.evaluation.image_measures.nearest_neighbour_accuracy`). None with one image
            a category.
        given_separability: the same by features of the given network; None without one.
        spread: share of the variance of the random network's features that lies within categories, intraclass
            compactness (:func:`~formulavision.evaluation.image_measures.spread_within`). None with one image a
            category.
        slope: of the power spectrum (:func:`~formulavision.evaluation.image_measures.spectrum_slope`); natural images
            have about -2. None where all images have one colour each.
        duplicates: share (0..1) of images with a near-duplicate in another category
            (:func:`~formulavision.evaluation.image_measures.share_of_near_duplicates`).
        entropy: mean of the images' entropies, bits (:func:`~formulavision.evaluation.image_measures.entropy`).
    """

    name: str
    categories: int
    images: int
    separability: float | None
    given_separability: float | None
    spread: float | None
    slope: float | None
    duplicates: float
    entropy: float

    @property
    def chance(self) -> float:
        """The separability of features without meaning: the share of an image's category among the other images."""
        return (self.images / self.categories - 1) / max(1, self.images - 1)

    def __repr__(self) -> str:
        measures = {name: value for name, value in asdict(self).items() if name in MEASURES and value is not None}
        told = ", ".join(f"{name} {value:.3g}" for name, value in measures.items())
        return f"{type(self).__name__}({self.name}, {self.images:,} images of {self.categories:,} categories: {told})"


def score(
    data: Any,
    *,
    categories: int = 1000,
    images: int = 4000,
    crop: int = 64,
    checkpoint: str | PathLike[str] | None = None,
    seed: int = 0,
    show_progress: bool = True,
) -> FormulaScore:
    """Measure the images of a recipe or store: what can be known of it before a model is trained on it.

    Categories are taken at even distances; of each, images are chosen at random, the same on every machine. They are
    resized as pre-training does. Separability and spread need two images of a category, and are None for sets with one.
    The separability falls with the number of categories: compare recipes at the same number.

    The random network is timm's ResNet-18 with weights drawn from seed 0, whatever ``seed`` is: random convolutions
    tell textures and shapes apart without having seen any image (Saxe et al., "On Random Weights and Unsupervised
    Feature Learning", ICML 2011).

    Args:
        data: a recipe (or its file, a mapping, a generator's name), a store, or a dataset with one label an image.
        categories: number of categories, at most.
        images: number of images of all categories together, about: each has as many, and two at least.
        crop: side in pixels to which images are resized; the given network has its own.
        checkpoint: a network whose features are used, too, as of :func:`formulavision.load_checkpoint`
            (``timm:resnet50``, a run's folder); its head is not used.
        seed: seed of the choice of images.
        show_progress: whether progress is shown, on standard error.

    Raises:
        ConfigError: an argument is out of range, the recipe is wrong, or its images have no label each (scenes).
        CheckpointError: the checkpoint is none.
        StoreError: there is no complete store, or an image is damaged.
        PluginError: the generator raised.
    """
    for name, value, least in (("categories", categories, 2), ("images", images, 4), ("crop", crop, 16)):
        if value < least:
            raise ConfigError(f"{name}: {value} is not allowed: must be at least {least}")
    weights = given = None
    if checkpoint is not None:
        weights = load_checkpoint(checkpoint)
        given = feature_settings(weights, checkpoint, None)
    settings = parse(TrainSettings, {"model": "resnet18", "resize": crop, "crop": crop})
    console = Console(stderr=True, quiet=not show_progress)
    dataset, _ = open_data(data, settings, show_progress)
    sample, labels = _sample(dataset, categories, images, seed)
    pixels = _pixels(sample, labels, crop, console)
    shown = len(np.unique(labels))
    separability = given_separability = spread = None
    if len(labels) > shown:
        drawn = _Images(list(zip(pixels, labels.tolist(), strict=True)), range(len(labels)), dataset.classes)
        features = _features(_random_network(), drawn, settings, console)
        separability, spread = nearest_neighbour_accuracy(features, labels), spread_within(features, labels)
        if weights is not None and given is not None:
            network = new_model(given, 2)
            weights.load_into(network)
            features = _features(network, sample, given, console)
            given_separability = nearest_neighbour_accuracy(features, labels)
    gray = (pixels.permute(0, 2, 3, 1).numpy() @ _GRAY).round().astype(np.uint8)
    return FormulaScore(
        name=fspath(data) if isinstance(data, str | PathLike) else _name(dataset),
        categories=shown,
        images=len(labels),
        separability=separability,
        given_separability=given_separability,
        spread=spread,
        slope=spectrum_slope(gray),
        duplicates=share_of_near_duplicates(_averaged(pixels), labels),
        entropy=entropy(gray),
    )


def score_sheet(scores: Sequence[FormulaScore]) -> Image.Image:
    """A picture of scores: a panel for each measure with a bar for each recipe; a dashed line is natural images' slope.

    Returns:
        An RGB image.

    Raises:
        ConfigError: there are no scores.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not scores:
        raise ConfigError("scores: are none: there is nothing to show")
    shown = [name for name in MEASURES if any(getattr(each, name) is not None for each in scores)]
    rows = -(-len(shown) // 2)
    figure = Figure(figsize=(10, rows * (1 + 0.28 * len(scores))), layout="constrained")
    FigureCanvasAgg(figure)
    places = np.arange(len(scores))
    panels = figure.subplots(rows, 2, squeeze=False, sharey=True)
    for axes, name in zip(panels.flat, shown, strict=False):
        values = [getattr(each, name) for each in scores]
        axes.barh(places, [0 if value is None else value for value in values], color="#0072B2")
        for place, value in zip(places, values, strict=True):
            axes.annotate(" –" if value is None else f" {value:.3g} ", (value or 0, place), va="center",
                          ha="right" if (value or 0) < 0 else "left", fontsize="small")  # fmt: skip
        if name == "slope":
            axes.axvline(NATURAL_SLOPE, color="#D55E00", linestyle="--", linewidth=1)
        axes.margins(x=0.15)
        axes.set_title(MEASURES[name] + (f" (natural images: {NATURAL_SLOPE:g})" if name == "slope" else ""))
        axes.set_yticks(places, [each.name[-40:] for each in scores], parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    panels[0, 0].invert_yaxis()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100, facecolor="white")
    return Image.open(content).convert("RGB")


# Images --------------------------------------------------------------------------------------------------------------


class _Images(Subset[Any]):
    """Some items of a dataset, or of a list, with the classes of their labels."""

    def __init__(self, items: Any, indices: Sequence[int], classes: Sequence[str]) -> None:
        super().__init__(items, indices)
        self.classes = classes


def _name(dataset: ImageDataset) -> str:
    return dataset.recipe.generator_names if isinstance(dataset, RecipeDataset) else type(dataset).__name__


def _sample(dataset: ImageDataset, categories: int, images: int, seed: int) -> tuple[_Images, NDArray[np.int64]]:
    """Images of categories at even distances, grouped by category, and their labels.

    Raises:
        ConfigError: images have no label each.
    """
    scenes = isinstance(dataset, RecipeDataset) and dataset.has_scenes
    if scenes or target_of(dataset) != "class":
        raise ConfigError(
            "data: an image has several objects, labels or a mask: score measures images with one category each; a "
            "recipe of scenes without its 'scene' has them"
        )
    known: Any = dataset.targets if isinstance(dataset, RecipeDataset) else getattr(dataset, "labels", None)
    if known is None:
        raise ConfigError(f"data: a {type(dataset).__name__} does not list its labels: give it 'labels', int64 [n]")
    labels = np.asarray(known, np.int64)
    order = np.argsort(labels, kind="stable")
    there, firsts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    chosen = np.linspace(0, len(there) - 1, min(categories, len(there))).round().astype(int)
    each = max(2, images // len(chosen))
    parts = []
    for place in chosen.tolist():
        stream = random_stream(seed, Stream.SCORED, int(there[place]))
        own = stream.choice(counts[place], min(each, counts[place]), replace=False)
        parts.append(order[firsts[place] + np.sort(own)])
    indices = np.concatenate(parts)
    return _Images(dataset, indices.tolist(), dataset.classes), labels[indices]


def _pixels(sample: _Images, labels: NDArray[np.int64], crop: int, console: Console) -> torch.Tensor:
    """The images at the size that they are measured at, uint8 [n, 3, crop, crop]."""
    result = torch.empty((len(sample), 3, crop, crop), dtype=torch.uint8)
    groups = np.split(np.arange(len(labels)), np.flatnonzero(np.diff(labels)) + 1)
    with steps(console, f"drawing {len(sample):,} images of {len(groups):,} categories", len(groups)) as advance:
        for group in groups:
            for position, (image, _) in zip(group, sample.__getitems__(group.tolist()), strict=True):
                result[position] = to_square(image, crop, crop, "squash", "bilinear", (0, 0, 0))
            advance()
    return result


def _averaged(pixels: torch.Tensor) -> NDArray[np.uint8]:
    """Images for the comparison with each other, uint8 [n, side, side, 3]."""
    side = min(_SIDE_OF_DUPLICATES, pixels.shape[-1])
    small = torch.cat([interpolate(part.float(), side, mode="area") for part in pixels.split(256)])
    return small.round().byte().permute(0, 2, 3, 1).numpy()


# Features ------------------------------------------------------------------------------------------------------------


def _random_network() -> torch.nn.Module:
    """timm's ResNet-18 with the weights of seed 0. Residual branches do not begin at zero, as they do in training."""
    with own_randomness():
        torch.manual_seed(0)
        return timm.create_model("resnet18", num_classes=0, zero_init_last=False)


def _features(model: torch.nn.Module, images: Any, settings: TrainSettings, console: Console) -> NDArray[np.float32]:
    found: NDArray[np.float32] = extract_features(model, images, settings, console=console).values.numpy()
    return found
