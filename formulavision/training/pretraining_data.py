"""The images of a pre-training run: opened, described for settings.yaml, and opened again from there."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formulavision.training.settings import TrainSettings
from formulavision.util.errors import ConfigError
from formulavision.util.remote import is_url

if TYPE_CHECKING:
    from formulavision.data.datasets import FormulaDataset
    from formulavision.data.items import ImageDataset
    from formulavision.data.mixtures import Mixture, MixtureImages
    from formulavision.recipes.recipe import Recipe, RecipeLike

__all__ = ["held_out_images", "open_data", "read_data", "recorded_data"]


def read_data(data: Any, settings: TrainSettings) -> Any:
    """The recipe or the mixture that the data are or name, with the target of the settings; other data as they are."""
    from formulavision.data.mixtures import Mixture, as_mixture, is_mixture_file, is_store, load_mixture
    from formulavision.recipes.recipe import Recipe, as_recipe

    where = "data"
    if is_mixture_file(data):
        where, data = f"{data}: mixture", load_mixture(Path(data))
    if isinstance(data, list | tuple | Mixture) and not _is_list_of_images(data):
        try:
            return as_mixture(data, target=settings.target)
        except ConfigError as error:
            raise error.under(where) from None
    names_a_store = isinstance(data, str | PathLike) and is_store(data)
    if names_a_store or not isinstance(data, Recipe | str | PathLike | Mapping):
        return data
    return as_recipe(data, [f"target={settings.target}"] if settings.target is not None else [])


def _is_list_of_images(data: Any) -> bool:
    """Whether a list is a dataset itself: its items are pairs of an image and a label, or mappings of them."""
    return isinstance(data, list | tuple) and any(
        isinstance(item, tuple | list) or (isinstance(item, Mapping) and item.keys() & {"image", "img"})
        for item in data[:1]
    )


def recorded_data(recorded: Mapping[str, Any]) -> Recipe | str | list[dict[str, Any]]:
    """The data of a run that is resumed, from their entry in settings.yaml.

    Raises:
        ConfigError: the store is missing, or the data were an object of a Python program.
    """
    from formulavision.recipes.recipe import Recipe

    if "mixture" in recorded:
        return [
            ({"store": part["store"]} if "store" in part else {"recipe": part["recipe"]}) | {"share": part.get("share")}
            for part in recorded["mixture"]
        ]
    if "dataset" not in recorded and "store" in recorded:
        store: str = recorded["store"]
        if not is_url(store) and not Path(store).is_dir():
            raise ConfigError(f"data: {store}: does not exist: the run was started on this store: give its path")
        return store
    if "dataset" not in recorded and "recipe" in recorded:
        return Recipe.from_dict(recorded["recipe"])
    raise ConfigError("data: is missing: the run was started on a dataset of a Python program: give it again")


def open_data(
    data: RecipeLike | ImageDataset | Any, settings: TrainSettings, show_progress: bool
) -> tuple[ImageDataset, dict[str, Any]]:
    """The dataset to pre-train on, and its entry in settings.yaml."""
    from formulavision.data.mixtures import Mixture

    if settings.mixing is not None:
        raise ConfigError("mixing: is for fine-tuning alone: leave it out of pre-training")
    data = read_data(data, settings)
    opened = _open_mixture if isinstance(data, Mixture) else _open_one
    dataset, description = opened(data, settings, show_progress)
    if dataset.num_classes < 2:
        raise ConfigError(f"data: has {dataset.num_classes} class: a model is trained to distinguish at least 2")
    return dataset, {"images": len(dataset), "classes": dataset.num_classes, **description}


def _open_one(data: Any, settings: TrainSettings, show_progress: bool) -> tuple[ImageDataset, dict[str, Any]]:
    from formulavision.data.datasets import FormulaDataset, RecipeDataset, StoredDataset
    from formulavision.data.downstream.datasets import DatasetImages, as_images, is_dataset, refuse_random
    from formulavision.data.downstream.images import LabelledImages
    from formulavision.data.items import has_tensors
    from formulavision.recipes.recipe import Recipe
    from formulavision.storage import Store

    if isinstance(data, Store):
        data = data.root
    if isinstance(data, str | PathLike):
        dataset: Any = StoredDataset(data, target=settings.target)
    elif isinstance(data, Recipe):
        dataset = _formula_dataset(data, settings, show_progress)
    elif isinstance(data, RecipeDataset):
        dataset = data.for_training()
    elif hasattr(data, "num_classes") and hasattr(data, "classes") and is_dataset(data) and has_tensors(data):
        dataset = data
        refuse_random(DatasetImages(data, type(data).__name__))
    elif is_dataset(data):
        dataset = as_images(data)
    else:
        raise ConfigError(
            f"data: a {type(data).__name__} is not allowed: must be a recipe (or its file, a mapping, a generator's "
            "name), a store, or a dataset of images and labels"
        )
    description: dict[str, Any] = {}
    if isinstance(dataset, StoredDataset):
        root = dataset.store.root
        description["store"] = str(root.resolve() if isinstance(root, Path) else root)
        # As the manifest has it: a store can be trained on without the generator that drew it.
        description["recipe"] = dataset.store.manifest.recipe
    elif isinstance(recipe := getattr(dataset, "recipe", None), Recipe):
        description["recipe"] = recipe.to_dict()
    elif isinstance(dataset, LabelledImages):
        description["digest"] = dataset.digest()
    if "recipe" in description and type(dataset) not in (FormulaDataset, StoredDataset):
        # A class of the user's own, whose images may be others than those of its recipe or store.
        description["dataset"] = type(dataset).__name__
    return dataset, description


def _open_mixture(
    mixture: Mixture, settings: TrainSettings, show_progress: bool
) -> tuple[MixtureImages, dict[str, Any]]:
    from formulavision.data.datasets import FormulaDataset
    from formulavision.data.mixtures import MixtureImages
    from formulavision.recipes.categories import tell_of_equals

    parts: list[Any] = []
    described = []
    for part in mixture.parts:
        dataset, description = _open_one(part.store or part.recipe, settings, show_progress)
        parts.append(dataset)
        described.append({**description, **part.share_given()})
    drawn = [part for part in parts if isinstance(part, FormulaDataset)]
    found = [category for part in drawn for category in part.drawer.categories]
    tell_of_equals([part.recipe for part in drawn], found, "mixture")
    return MixtureImages(parts, mixture.shares), {"mixture": described}


def _formula_dataset(recipe: Recipe, settings: TrainSettings, show_progress: bool) -> FormulaDataset:
    """The recipe's images, drawn on demand; categories that are not cached are searched here."""
    from formulavision.data.datasets import FormulaDataset
    from formulavision.util.progress import progress_bars

    count = recipe.num_categories
    with progress_bars(show=show_progress) as bars:
        return FormulaDataset(
            recipe,
            target=settings.target,
            workers=settings.workers or 1,
            progress=lambda found: bars.categories(found, count),
        )


def held_out_images(dataset: Any, settings: TrainSettings, show_progress: bool) -> ImageDataset | None:
    """Instances of the dataset's categories to validate on, where the settings ask for them."""
    from formulavision.data.datasets import FormulaDataset, StoredDataset
    from formulavision.data.mixtures import MixtureImages

    if not settings.held_out:
        return None
    if isinstance(dataset, MixtureImages):
        return dataset.held_out(lambda part: held_out_images(part, settings, show_progress))
    if isinstance(dataset, StoredDataset):
        same = settings.model_copy(update={"target": dataset.target})
        return _formula_dataset(dataset.recipe, same, show_progress).held_out(settings.held_out, fresh=False)
    if not isinstance(dataset, FormulaDataset):
        raise ConfigError(f"held_out: is {settings.held_out}: must be 0: only a recipe can draw more images")
    return dataset.held_out(settings.held_out, fresh=settings.fresh and dataset.endless)
