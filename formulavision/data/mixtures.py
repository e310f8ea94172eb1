"""Mixtures: several recipes and stores as one dataset with shares. Importable without torch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from formulavision.generators.registry import plugins
from formulavision.generators.streams import Stream, random_stream
from formulavision.recipes.recipe import Recipe, as_recipe, folders_beside
from formulavision.recipes.targets import Target
from formulavision.storage import Store
from formulavision.util.config import Config, load_yaml, parse, user_path
from formulavision.util.errors import ConfigError, StoreError
from formulavision.util.indices import positions
from formulavision.util.remote import folder_of, is_url
from formulavision.util.shipped import shipped_configs

if TYPE_CHECKING:
    from formulavision.data.datasets import Item, RecipeDataset, ReplaceCategories

__all__ = [
    "Mixture",
    "MixtureImages",
    "MixturePart",
    "as_mixture",
    "images_of_epoch",
    "is_endless",
    "is_mixture_file",
    "is_store",
    "load_mixture",
    "mixture_beside",
]

_FILE = "mixture"
"""The only key of a mixture's file."""


def _read_recipe(value: Any) -> Any:
    return value if value is None else as_recipe(value)


def _read_store(value: Any) -> Any:
    if isinstance(value, Store):
        value = value.root
    if value is None:
        return None
    return str(folder_of(value)) if is_url(value) else user_path(value).absolute()


class MixturePart(Config):
    """A part of a mixture: a recipe, whose images are drawn on demand, or a store."""

    recipe: Annotated[Recipe, BeforeValidator(_read_recipe)] | None = Field(
        default=None, description="a recipe, the path of its YAML file, or the name of a generator"
    )
    store: Annotated[Path | str, BeforeValidator(_read_store)] | None = Field(
        default=None, description="a store's folder or fsspec URL"
    )
    share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of this part's images in an epoch; parts without share divide the rest by their images",
    )

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, data: Any) -> Any:
        if isinstance(data, Store):
            return {"store": data}
        if isinstance(data, str | PathLike):
            return {"store" if is_store(data) else "recipe": data}
        if isinstance(data, Recipe) or (isinstance(data, Mapping) and not data.keys() & cls.model_fields.keys()):
            return {"recipe": data}
        if not isinstance(data, Mapping | cls):
            raise ConfigError(
                f": a {type(data).__name__} is not allowed: must be a recipe (or its file, a mapping, a generator's "
                "name), a store, or a mapping of recipe or store, and share"
            )
        return data

    @model_validator(mode="after")
    def _one_source(self) -> MixturePart:
        if (self.recipe is None) == (self.store is None):
            raise ConfigError("recipe: must be given, or store in its place" if self.recipe is None else
                              "store: is not allowed beside recipe: a part has one of them")  # fmt: skip
        return self

    @property
    def written(self) -> Mapping[str, Any]:
        """The plain values of the recipe; of a store those in its manifest."""
        if self.recipe is not None:
            return self.recipe.to_dict()
        assert self.store is not None
        return Store(self.store).manifest.recipe

    def share_given(self) -> dict[str, float]:
        """The share as an entry of plain values; empty where there is none."""
        return {} if self.share is None else {"share": self.share}

    @property
    def recipe_id(self) -> str:
        """The id of the recipe; of a store that in its manifest."""
        if self.recipe is not None:
            return self.recipe.id
        assert self.store is not None
        return Store(self.store).manifest.recipe_id

    @property
    def images(self) -> int:
        """Number of the recipe's or the store's images."""
        if self.recipe is not None:
            return len(self.recipe)
        assert self.store is not None
        return Store(self.store).layout.images

    def kind(self, target: Target | None) -> dict[str, Any]:
        """The properties of the images that all parts of a mixture have in common.

        Args:
            target: in place of a store's own.

        Raises:
            StoreError: there is no store at the path, or it is not complete.
        """
        if self.recipe is not None:
            canvas = self.recipe.canvas
            return {"target": self.recipe.target, "size": canvas.size, "channels": canvas.channels}
        assert self.store is not None
        store = Store(self.store)
        own = target or store.manifest.recipe.get("target", "class")
        return {"target": own, "size": store.layout.size, "channels": store.layout.channels}


@dataclass(frozen=True, repr=False)
class Mixture:
    """Several recipes and stores as one dataset: :func:`as_mixture` reads it.

    Attributes:
        parts: have images of one size, of as many channels, with one target.
        target: that of the images.
    """

    parts: tuple[MixturePart, ...]
    target: Target

    def __repr__(self) -> str:
        parts = [part.recipe.facts() if part.recipe is not None else f"store {part.store}" for part in self.parts]
        return f"Mixture({len(parts)} parts, target {self.target}: {'; '.join(parts)})"

    @property
    def shares(self) -> list[float | None]:
        """The share of each part, as it is given."""
        return [part.share for part in self.parts]

    def check_clusters(self, clusters: int | None) -> None:
        """Refuse clusters as labels where the mixture has shares.

        Raises:
            ConfigError: the mixture has shares, and there is a number of clusters.
        """
        if clusters is not None and any(self.shares):
            raise ConfigError(
                "labels.clusters: must be unset for a mixture with shares: clusters are drawn equally often"
            )

    def identity(self) -> list[dict[str, Any]]:
        """What decides the images, as plain values for hashing: without paths."""
        stored = [{"stored": True} if part.store is not None else {} for part in self.parts]
        return [
            {"recipe": part.recipe_id, **more, **part.share_given()}
            for part, more in zip(self.parts, stored, strict=True)
        ]

    def to_list(self) -> list[dict[str, Any]]:
        """Plain values only; :func:`as_mixture` reads them."""
        return [
            {"recipe": part.recipe.to_dict(), **part.share_given()}
            if part.recipe is not None
            else {"store": str(part.store), **part.share_given()}
            for part in self.parts
        ]


def as_mixture(parts: Mixture | Sequence[Any], *, target: Target | None = None) -> Mixture:
    """The mixture of a list.

    Args:
        parts: recipes (or their files, mappings, names of generators), stores (or their paths), and mappings of
            ``recipe`` or ``store``, and ``share``.
        target: of all images, in place of their own.

    Raises:
        ConfigError: there is no part, one is wrong or its store is missing, their images differ in size, channels or
            target, the shares do not add up to 1, or one is less than an image an epoch.
    """
    if isinstance(parts, Mixture):
        parts = parts.parts
    if not parts:
        raise ConfigError(": is an empty list: give recipes and stores")
    read = [parse(MixturePart, part, str(number)) for number, part in enumerate(parts)]
    kinds: list[dict[str, Any]] = []
    for number, part in enumerate(read):
        try:
            if target is not None and part.recipe is not None:
                recipe = as_recipe(part.recipe, [f"target={target}"])
                read[number] = part = part.model_copy(update={"recipe": recipe})
            kinds.append(part.kind(target))
        except (ConfigError, StoreError) as error:
            problem = error if isinstance(error, ConfigError) else ConfigError(f"store: {error}")
            raise problem.under(str(number)) from None
        for name, value in kinds[-1].items():
            if value != kinds[0][name]:
                raise ConfigError(
                    f"{number}: its images have the {name} {value}, and those of the first part {kinds[0][name]}: must "
                    "be equal"
                )
    stated = sum(part.share or 0.0 for part in read)
    if any(part.share is None for part in read):
        if stated >= 1:
            raise ConfigError(f": the shares add up to {stated:g} and leave nothing for the parts without share")
    elif abs(stated - 1) > 1e-6:
        raise ConfigError(f": the shares add up to {stated:g}, must be 1 where every part has one")
    if stated:
        _portions([part.images for part in read], [part.share for part in read])
    return Mixture(tuple(read), kinds[0]["target"])


def load_mixture(file: Path) -> list[Any]:
    """The list in a mixture's file, its relative paths resolved from the file's folder.

    Raises:
        ConfigError: the file holds something else beside the list.
    """
    file = user_path(file)
    content = load_yaml(file)
    if unknown := next((key for key in content if key != _FILE), None):
        raise ConfigError(f"{file}: {unknown}: is not allowed beside {_FILE}: its recipes have their own settings")
    if not isinstance(content[_FILE], list):
        raise ConfigError(f"{file}: {_FILE}: must be a list of recipes and stores")
    return mixture_beside(file.parent, content[_FILE])


def is_mixture_file(data: Any) -> bool:
    """Whether it is the path of a YAML file of a mixture: ``mixture: [...]``."""
    if not isinstance(data, str | PathLike) or is_url(data) or not user_path(Path(data)).is_file():
        return False
    return _FILE in load_yaml(user_path(Path(data)))


def is_store(path: str | PathLike[str]) -> bool:
    """Whether a path names a store, not a recipe's file or a generator."""
    if is_url(path):
        return True
    file = user_path(Path(path))
    recipe = file.is_file() or file.suffix in (".yaml", ".yml")
    return file.is_dir() or not (recipe or str(path) in plugins().generators or str(path) in shipped_configs())


def mixture_beside(folder: Path, parts: Sequence[Any]) -> list[Any]:
    """The parts in a file in ``folder``, with their relative paths resolved from the folder."""

    def beside(text: str) -> str:
        if is_url(text):
            return text
        path = folder / user_path(text)
        return text if not path.exists() and (text in plugins().generators or text in shipped_configs()) else str(path)

    def moved(part: Any, key: str | None = None) -> Any:
        if isinstance(part, str):
            return beside(part)
        if not isinstance(part, Mapping):
            return part
        if key is None and part.keys() & MixturePart.model_fields.keys():
            return {name: moved(value, name) for name, value in part.items()}
        return folders_beside(folder, part)

    return [moved(part) for part in parts]


# The images ----------------------------------------------------------------------------------------------------------


class MixtureImages:
    """The images of several datasets, one after the other, and their categories likewise.

    Args:
        parts: datasets of recipes and stores with one target.
        shares: of the images of an epoch, as of :class:`MixturePart`; empty: each image is once in an epoch.

    Raises:
        ConfigError: a part's share of an epoch is less than one image; or the parts give a single class.

    Attributes:
        parts: the datasets; their labels are those of the mixture.
        classes: names of all categories, each after the number of its part and a dash.
        portions: images of each part in an epoch, with shares; None without.
    """

    def __init__(self, parts: Sequence[RecipeDataset], shares: Sequence[float | None] = ()) -> None:
        self._own = list(parts)
        lengths = [len(part) for part in parts]
        categories = [part.num_categories for part in parts]
        self._ends = list(accumulate(lengths))
        self.num_categories = sum(categories)
        firsts = zip(accumulate([0, *categories]), [0, *self._ends], strict=True)
        self.parts = [
            part.within_mixture(category, self.num_categories, index)
            for part, (category, index) in zip(parts, firsts, strict=False)
        ]
        self.target = parts[0].target
        names = [name for number, part in enumerate(parts) for name in _category_names(part, number)]
        self.classes = [*(["background"] if self.target in ("semantic", "objects") else []), *names]
        self.portions = _portions(lengths, shares) if any(share is not None for share in shares) else None

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def lengths(self) -> list[int]:
        """Number of images of each part."""
        return [len(part) for part in self.parts]

    @property
    def has_scenes(self) -> bool:
        """Whether all images are scenes of objects."""
        return all(part.has_scenes for part in self.parts)

    def with_categories(self, replace: ReplaceCategories) -> MixtureImages:
        """The same scenes, in which objects have other categories."""
        other = MixtureImages(self._own)
        other.parts = [part.with_categories(replace) for part in self.parts]
        other.portions = self.portions
        return other

    def held_out(self, hold_out: Callable[[RecipeDataset], Any]) -> MixtureImages:
        """The mixture of what ``hold_out`` makes of each part."""
        return MixtureImages([hold_out(part) for part in self._own])

    def __repr__(self) -> str:
        return f"MixtureImages({', '.join(map(repr, self._own))})"

    def __len__(self) -> int:
        """Number of images of all parts, which is that of an epoch."""
        return self._ends[-1]

    def __getitem__(self, index: int) -> Item:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        keys = [(0, index) for index in positions(indices, len(self)).tolist()]
        return self._gathered(keys, fresh=False)

    @property
    def endless(self) -> bool:
        """Whether each pass over some part can have new images."""
        return any(is_endless(part) for part in self.parts)

    def fresh_items(self, keys: Sequence[tuple[int, int]]) -> list[Item]:
        """The items for each (pass over the part, index): new ones of parts that can have new images."""
        return self._gathered(keys, fresh=True)

    def _gathered(self, keys: Sequence[tuple[int, int]], *, fresh: bool) -> list[Item]:
        found: dict[int, Item] = {}
        for part, places, own in self.divided(keys):
            dataset: Any = self.parts[part]
            new = fresh and is_endless(dataset)
            items = dataset.fresh_items(own) if new else dataset.__getitems__([index for _, index in own])
            found |= zip(places, items, strict=True)
        return [found[place] for place in range(len(keys))]

    def divided(self, keys: Sequence[tuple[int, int]]) -> Iterator[tuple[int, list[int], list[tuple[int, int]]]]:
        """The parts that have items of a batch: number of the part, places in the batch, keys in the part's indices."""
        numbers = [bisect_right(self._ends, index) for _, index in keys]
        for part in sorted(set(numbers)):
            places = [place for place, number in enumerate(numbers) if number == part]
            first = self._ends[part] - len(self.parts[part])
            yield part, places, [(keys[place][0], keys[place][1] - first) for place in places]

    def sample(self, count: int) -> list[int]:
        """Indices of at most ``count`` images, of each part in its portion, at even distances."""
        portions, lengths = self.portions or self.lengths, self.lengths
        chosen = []
        for end, length, portion in zip(self._ends, lengths, portions, strict=True):
            size = min(length, max(1, count * portion // len(self)))
            chosen += (end - length + np.arange(size) * length // size).tolist()
        return chosen


def is_endless(dataset: Any) -> bool:
    """Whether each pass over a dataset can have new images."""
    return bool(getattr(dataset, "endless", False))


def _category_names(part: RecipeDataset, number: int) -> list[str]:
    return [f"{number}-{name}" for name in part.classes[len(part.classes) - part.num_categories :]]


def _portions(lengths: Sequence[int], shares: Sequence[float | None]) -> list[int]:
    """Images of each part in an epoch, which has as many images as all parts together.

    Raises:
        ConfigError: a share is less than one image.
    """
    total = sum(lengths)
    rest = 1.0 - sum(share or 0.0 for share in shares)
    others = sum(length for length, share in zip(lengths, shares, strict=True) if share is None)
    whole = [share or rest * length / others for length, share in zip(lengths, shares, strict=True)]
    ends = [round(total * end) for end in accumulate(whole)]
    portions = [end - start for start, end in zip([0, *ends], [*ends[:-1], total], strict=False)]
    for number, portion in enumerate(portions):
        if portion < 1:
            raise ConfigError(
                f"{number}.share: {whole[number]:g} of the {total} images of an epoch is less than one image"
            )
    return portions


def images_of_epoch(
    lengths: Sequence[int], portions: Sequence[int], *, seed: int, epoch: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The images of an epoch of a mixture with shares, part after part.

    Through all epochs, a part's images come in passes: each pass has all of the part's images once, in an order of its
    own, and the next pass begins when all of them have been taken. So an image is never taken twice while another one
    of its part waits, and (pass, index) never occurs twice.

    Args:
        lengths: images of each part.
        portions: images of each part in an epoch.
        seed, epoch: what the choice depends on.

    Returns:
        The pass and the index of each image, int64 [n] each.
    """
    passes, indices, first = [], [], 0
    for number, (length, portion) in enumerate(zip(lengths, portions, strict=True)):
        start, end = epoch * portion, (epoch + 1) * portion
        for turn in range(start // length, -(-end // length)):
            order = random_stream(seed, Stream.MIXTURE, turn, number).permutation(length)
            taken = order[max(start - turn * length, 0) : end - turn * length]
            indices.append(first + taken)
            passes.append(np.full(len(taken), turn))
        first += length
    return np.concatenate(passes), np.concatenate(indices)
