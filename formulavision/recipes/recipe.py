"""The recipe: a few hundred bytes of YAML that define every image of a dataset."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from jaxtyping import Int64
from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo, field_validator, model_validator

from formulavision.generators.contract import Canvas, Generator
from formulavision.generators.failures import ask_for_number
from formulavision.generators.registry import plugins
from formulavision.recipes.parts import Categories, GeneratorSettings, Part
from formulavision.recipes.scenes import SceneSettings
from formulavision.recipes.targets import MAX_CATEGORIES, Target
from formulavision.util.config import (
    WRITTEN_OUT,
    Config,
    apply_settings,
    did_you_mean,
    dump_yaml,
    identity,
    load_yaml,
    parse,
    user_path,
)
from formulavision.util.errors import ConfigError, RemoteError
from formulavision.util.files import cache_folder
from formulavision.util.indices import positions
from formulavision.util.remote import RemoteFolder, folder_of, is_url
from formulavision.util.shipped import shipped_configs
from formulavision.util.text import counted

__all__ = ["Recipe", "RecipeLike", "RecipeSetting", "as_recipe", "folders_beside", "locate"]

_SHORT = ("generator", "categories", "instances")
"""Settings of the only part of a recipe, which stand side by side with the recipe's."""
_DEFAULT_SCENES = 10_000


class Recipe(Config):
    """A formula-driven dataset: index -> (image, target) for ``len(recipe)`` indices.

    Without a scene, index i is instance i mod ``instances`` of category i div ``instances``, which is its label;
    several parts stand one after the other. With a scene, index i is scene i. ``Recipe.load("ifs")`` is a generator's
    recipe with its defaults; ``Recipe.load("recipe.yaml")`` reads a file.

    A recipe of one part has its settings side by side (``generator``, ``categories``, ``instances``), and no ``parts``;
    ``all_parts`` lists the part or parts of any recipe.
    """

    generator: GeneratorSettings | None = None
    categories: Categories = Categories()
    instances: int | None = Field(default=None, ge=1, le=10_000_000, description="images a category")
    parts: tuple[Part, ...] = Field(
        default=(),
        description="several generators in one recipe, in place of generator, categories and instances",
        json_schema_extra={"neutral": []},
    )
    scene: SceneSettings | Literal["own"] | None = Field(
        default=None,
        description="several objects an image: how to compose them, or own for scenes of the generator's own",
        json_schema_extra={"neutral": None},
    )
    images: int | None = Field(
        default=None, ge=1, le=1_000_000_000, description="number of scenes", json_schema_extra={"neutral": None}
    )
    target: Target | None = Field(
        default=None,
        description="what a model learns from an image; not part of the recipe's id",
        json_schema_extra={"neutral": None},
    )
    canvas: Canvas = Canvas()
    seed: int = Field(default=1, ge=0, lt=2**63, description="seed of categories, instances and scenes")

    if not TYPE_CHECKING:

        def __new__(cls, *given: Any, **settings: Any) -> Recipe:
            if given:
                raise ConfigError(f"Recipe: takes settings by name: Recipe.load({given[0]!r}) takes a name or a file")
            return super().__new__(cls)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        """Write a list of one part side by side."""
        if not isinstance(data, dict) or not data.get("parts"):
            return data
        beside = [name for name in _SHORT if data.get(name)]
        if beside:
            raise ConfigError(f"{beside[0]}: is not allowed beside parts, which have their own")
        parts = data["parts"]
        if isinstance(parts, list | tuple) and len(parts) == 1 and isinstance(parts[0], dict):
            (part,) = parts
            if part.get("generator") and not set(part) - {*_SHORT}:
                return {name: value for name, value in data.items() if name != "parts"} | part
        return data

    @field_validator("scene", mode="before")
    @classmethod
    def _one_of_two(cls, value: Any, info: ValidationInfo) -> Any:
        if value in ("own", None) or isinstance(value, SceneSettings):
            return value
        if not isinstance(value, dict):
            raise ConfigError(f": {value!r} is not allowed: must be own, or settings such as {{objects: [1, 8]}}")
        return parse(SceneSettings, value, context=info.context)

    @model_validator(mode="after")
    def _resolve(self) -> Recipe:
        # The model is frozen, but here settings that were not given get their values.
        if self.generator is None and not self.parts:
            raise ConfigError("generator: is missing")
        self._resolve_canvas()
        parts = self._resolve_parts()
        if len(parts) > 1 or parts[0].object != "shape":
            self._set(parts=parts)
        else:
            self._set(generator=parts[0].generator, parts=())
            self._set(categories=parts[0].categories, instances=parts[0].instances)
        if self.scene is not None:
            self._set(**self._resolve_scene())
        elif self.images is not None:
            raise ConfigError("images: is the number of scenes; without a scene, instances is the images a category")
        self._set(target=self._resolve_target())
        return self

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _only_part(self) -> Part:
        assert self.generator is not None
        # Its values are validated already, and drawing asks for the part of every image.
        return Part.model_construct(generator=self.generator, categories=self.categories, instances=self.instances)

    def _resolve_canvas(self) -> None:
        """Channels that were not given: what the generators and a background's have by default, or 3 where a scene
        colours its objects."""
        if "channels" in self.canvas.model_fields_set:
            return
        parts = list(self.all_parts)
        if isinstance(self.scene, SceneSettings) and self.scene.background is not None:
            parts.append(self.scene.background)
        wanted = [part.generator.generator.default_channels for part in parts]
        if isinstance(self.scene, SceneSettings) and self.scene.colors == "random":
            wanted.append(3)
        self._set(canvas=self.canvas.model_copy(update={"channels": max(wanted)}))

    def _resolve_parts(self) -> tuple[Part, ...]:
        parts, in_scene = [], self.scene is not None
        for number, part in enumerate(self.all_parts):
            try:
                if self.scene != "own" and not part.draws_single_images:
                    raise ConfigError(f"generator: '{part.generator.name}' draws scenes of its own only: scene: own")
                parts.append(part.resolved(self.canvas, self.seed, in_scene=in_scene))
                if not in_scene and (part.share is not None or part.object != "shape"):
                    raise ConfigError(f"{'object' if part.share is None else 'share'}: is not allowed without a scene")
            except ConfigError as error:
                raise error.under(f"parts.{number}") if self.parts else error from None
        if self.is_scene:
            shares = _shares(parts)
            parts = [
                part.model_copy(update={"share": share if len(parts) > 1 else None})
                for part, share in zip(parts, shares, strict=True)
            ]
        return tuple(parts)

    def _resolve_scene(self) -> dict[str, Any]:
        """The scene and the number of images, checked."""
        if self.scene == "own":
            if len(self.all_parts) > 1:
                raise ConfigError("scene: own is not allowed with several parts: one generator draws its own scenes")
            generator = self.build()
            if type(generator).scene is Generator.scene:
                raise ConfigError(
                    f"scene: own is not allowed: '{generator.name}' has no scenes of its own; a mapping, such as "
                    "{objects: [1, 8]}, composes its images"
                )
            most = ask_for_number(generator, "max_scenes")
            images = self.images or min(most or _DEFAULT_SCENES, _DEFAULT_SCENES)
            if most is not None and images > most:
                raise ConfigError(f"images: {images} is not allowed: '{generator.name}' has {most} scenes here")
            every = ask_for_number(generator, "max_categories")
            if most is not None and every is not None and self.num_categories < every:
                raise ConfigError(
                    f"categories: {self.num_categories} is not allowed: scenes of '{generator.name}' have objects of "
                    f"all {every} categories here"
                )
            return {"images": images}
        scene = self.scene
        assert isinstance(scene, SceneSettings)
        for number, part in enumerate(self.all_parts):
            if part.generator.generator.fills_canvas and part.object == "shape":
                where, name = f"parts.{number}.object" if self.parts else "generator", part.generator.name
                raise ConfigError(
                    f"{where}: images of '{name}' have no background, so an object has no shape: "
                    f"parts: [{{generator: {name}, object: fill}}] takes them as squares"
                )
        try:
            scene.sides(self.canvas)
            if scene.background is not None:
                try:
                    behind = scene.background.resolved(self.canvas, self.seed, in_scene=True)
                except ConfigError as error:
                    raise error.under("background") from None
                scene = scene.model_copy(update={"background": behind})
        except ConfigError as error:
            raise error.under("scene") from None
        for number, part in enumerate(self.all_parts):
            self._check_canvases(part, scene, f"parts.{number}" if self.parts else "")
        if scene.background is not None:
            self._check_canvases(scene.background, scene, "scene.background")
        return {"scene": scene, "images": self.images or _DEFAULT_SCENES}

    def _check_canvases(self, part: Part, scene: SceneSettings, path: str) -> None:
        """Refuse a part that cannot draw on one of the scene's canvases, before anything is written."""
        for canvas in scene.canvases(self.canvas):
            try:
                part.generator.build(canvas, self.seed)
            except ConfigError as error:
                how = f"the scene needs it at {canvas.size} pixels{', in gray' if scene.colors == 'random' else ''}"
                told = ConfigError(*(f"{problem} ({how})" for problem in error.problems))
                raise (told.under(path) if path else told) from None

    def _resolve_target(self) -> Target:
        if self.scene is None:
            if self.target not in (None, "class"):
                raise ConfigError(
                    f"target: {self.target} is not allowed without a scene: 'scene: {{objects: 1}}' draws one object "
                    "an image"
                )
            return "class"
        target = self.target or "semantic"
        if target == "class" and not (isinstance(self.scene, SceneSettings) and self.scene.objects == (1, 1)):
            raise ConfigError(
                "target: class is not allowed with scenes of several objects: must be labels, semantic or objects"
            )
        if target == "semantic" and self.num_categories > MAX_CATEGORIES:
            raise ConfigError(
                f"target: semantic is not allowed with {self.num_categories:,} categories: masks have 16 bits, for "
                f"{MAX_CATEGORIES:,} of them: must be labels or objects"
            )
        return target

    def __len__(self) -> int:
        if self.images is not None:
            return self.images
        return sum(part.num_categories * part.num_instances for part in self.all_parts)

    def __repr__(self) -> str:
        return f"Recipe({self.facts()}, seed {self.seed}, id {self.id})"

    __str__ = __repr__

    def facts(self) -> str:
        """The recipe in a line: what it draws, how many, and their size."""
        size, kind = self.canvas.size, "gray" if self.canvas.channels == 1 else "colour"
        pixels = f"{size} x {size}, {kind}"
        drawn = [f"{part.num_categories:,} {part.generator.name}" for part in self.all_parts]
        if self.scene is None:
            sizes = [
                f"{part.generator.name}: {counted(part.num_categories, 'category')} x "
                + counted(part.num_instances, "image")
                for part in self.all_parts
            ]
            return f"{'; '.join(sizes)} of {pixels}"
        if isinstance(self.scene, SceneSettings):
            low, high = self.scene.objects
            holds = f"{low:,} to {high:,} objects" if low < high else counted(low, "object")
        else:
            holds = "objects"
        return f"{len(self):,} scenes of {pixels}, with {holds} of {' and '.join(drawn)} categories"

    @property
    def is_scene(self) -> bool:
        """Whether an image is a scene of several objects."""
        return self.scene is not None

    @property
    def all_parts(self) -> tuple[Part, ...]:
        """The parts, one or more, in whichever form the recipe was written."""
        return self.parts or (self._only_part(),)

    @property
    def generator_names(self) -> str:
        """The names of the parts' generators, each once, as in ``ifs, bezier``."""
        return ", ".join(dict.fromkeys(part.generator.name for part in self.all_parts))

    @property
    def num_categories(self) -> int:
        """Categories of all parts. Labels run over the parts: those of the first part come first."""
        return sum(part.num_categories for part in self.all_parts)

    @property
    def num_instances(self) -> int:
        """Images a category; only of a recipe of one part without a scene."""
        (part,) = self.all_parts
        return part.num_instances

    @property
    def min_visible(self) -> int:
        """Least number of visible pixels of an object that has a box, mask and label."""
        if isinstance(self.scene, SceneSettings):
            return self.scene.min_visible
        return self.all_parts[0].generator.generator.min_visible

    def locate(self, indices: Int64[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Label and instance of each index of a recipe without a scene.

        Args:
            indices: below the length; negative ones count from the end.

        Returns:
            The labels and the instances, int64 [n] each.

        Raises:
            IndexError: there is no such index.
        """
        if self.is_scene:
            raise ConfigError("scene: an index is a scene of several objects, not an instance of a category")
        counts = np.array([part.num_instances for part in self.all_parts], np.int64)
        labels, instances, _ = locate(positions(indices, len(self)), self.categories_of_parts, counts)
        return labels, instances

    @property
    def categories_of_parts(self) -> Int64[np.ndarray, " parts"]:
        """The number of categories of each part."""
        return np.array([part.num_categories for part in self.all_parts], np.int64)

    @property
    def id(self) -> str:
        """16 hexadecimal digits that identify the images. They depend neither on the path of the categories' folder, on
        the target, nor on settings that were added later and have their neutral value."""
        content = identity(self)
        content.pop("target", None)
        if self.parts:
            for name in _SHORT:
                del content[name]
            content["parts"] = [part.identity() for part in self.parts]
        else:
            content |= self._only_part().identity()
        if isinstance(self.scene, SceneSettings) and self.scene.background is not None:
            content["scene"]["background"] = self.scene.background.identity()
        if isinstance(self.scene, SceneSettings) and any(
            ask_for_number(part.generator.build(self.canvas, self.seed), "max_instances") for part in self.all_parts
        ):
            content["scene"]["instances"] = "random"  # once, they were counted modulo the largest number
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def build(self) -> Generator:
        """The generator of a recipe of one part, ready to draw."""
        (part,) = self.all_parts
        return part.generator.build(self.canvas, self.seed)

    # YAML both ways --------------------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, data: Any, settings: Iterable[str] = ()) -> Recipe:
        """A recipe from a mapping, with ``path.to.key=value`` settings laid over it.

        A mapping that names the generator's version was written out in full, as recipes in stores are. A setting that
        it lacks was added later and gets its neutral value, which draws what was drawn then; in other mappings it has
        its default.

        Raises:
            ConfigError: something is unknown, missing, of a wrong type or out of range.
        """
        if not isinstance(data, dict):
            raise ConfigError(f"a recipe must be a mapping of settings, not {type(data).__name__}")
        if isinstance(data.get("generator"), str):
            data = {**data, "generator": {"name": data["generator"]}}
        if isinstance(data.get("categories"), int) and data["categories"] is not True:
            data = {**data, "categories": {"count": data["categories"]}}
        data = apply_settings(data, settings)
        generators = [part.get("generator") for part in _mappings_of_parts(data)]
        written_out = any(isinstance(generator, dict) and "version" in generator for generator in generators)
        return parse(cls, data, context=WRITTEN_OUT if written_out else None)

    @classmethod
    def load(cls, path: str | PathLike[str], settings: Iterable[str] = ()) -> Recipe:
        """A recipe from a YAML file; or, by name, that of a generator with its defaults, or one that ships.

        A relative ``categories.folder`` is looked for beside the file.

        Args:
            path: of the file, or of a store, or their ``file://`` URL; or the URL of a store or of a recipe's
                repository, such as ``hf://USER/NAME``. Text that is no file's path may be the name of a generator
                (``ifs``), or of a recipe that ships (``fractaldb-1k``); a store of such a name is ``./ifs``.
            settings: laid over it, as ``path.to.key=value``.

        Raises:
            ConfigError: the file cannot be read, or what it says is not a recipe; or there is no such name.
        """
        if is_url(path):
            path = _fetch(path)
        if isinstance(path, str) and not user_path(path).is_file():
            generators, shipped = plugins().generators, shipped_configs()
            if path in generators:
                return cls.from_dict({"generator": path}, settings)
            if path not in shipped and not Path(path).suffix and not user_path(path).exists():
                hint = did_you_mean(path, [*generators, *shipped])
                raise ConfigError(f"recipe: {path}: no such file, and no generator of this name{hint}")
            path = shipped.get(path, path)
        path = user_path(Path(path))
        if (of_store := user_path(path / "recipe.yaml")).is_file():
            path = of_store
        data = load_yaml(path)
        if "arms" in data:
            raise ConfigError(f"{path}: is a comparison, not a recipe: formulavision compare {path}")
        if "mixture" in data:
            raise ConfigError(f"{path}: is a mixture of recipes, not a recipe: formulavision pretrain --recipe {path}")
        settings = list(settings)
        try:
            return cls.from_dict(folders_beside(path.parent, data), settings)
        except ConfigError as error:
            raise ConfigError(*(f"{path}: {problem}" for problem in error.problems)) from None

    def to_dict(self) -> dict[str, Any]:
        """Plain values only; ``Recipe.from_dict`` gives the same recipe back."""
        data = self.model_dump(mode="json")
        for name in ("parts", "scene", "images") if self.scene is None else ("parts",):
            if not data[name]:
                del data[name]
        if self.scene is None:
            del data["target"]
        if self.parts:
            for name in _SHORT:
                del data[name]
        for part in _mappings_of_parts(data):
            part["categories"] = {key: value for key, value in part["categories"].items() if value is not None}
            for name in ("instances", "share", "object"):
                if part.get(name, "shape") in (None, "shape"):
                    part.pop(name, None)
        return data

    def portable(self) -> dict[str, Any]:
        """Plain values without the folder of categories: equal on every machine; readable there, but not drawable."""
        data = self.to_dict()
        for part in _mappings_of_parts(data):
            part["categories"].pop("folder", None)
        return data

    def to_yaml(self) -> str:
        return dump_yaml(self.to_dict())


RecipeLike = Recipe | str | PathLike[str] | Mapping[str, Any]
"""Public functions take a recipe, the path of its file, a mapping, or the name of a generator."""


def _fetch(url: str | PathLike[str]) -> Path:
    """A copy of the recipe at a URL, and of its categories, in the cache folder.

    Raises:
        RemoteError: the file system does not answer, or has no recipe there.
    """
    folder = folder_of(url)
    assert isinstance(folder, RemoteFolder)
    names = [name for name in folder.sizes() if re.fullmatch(r"recipe\.yaml|categories[^/]*\.json", name)]
    if "recipe.yaml" not in names:
        raise RemoteError(f"{folder}: holds no recipe.yaml")
    copy = cache_folder() / "recipes" / hashlib.sha256(folder.url.encode()).hexdigest()[:16]
    folder.download(names, copy)
    return copy / "recipe.yaml"


def as_recipe(recipe: RecipeLike, settings: Iterable[str] = ()) -> Recipe:
    """The recipe itself, or the one in a file, in a mapping, or of a generator with its defaults.

    Args:
        recipe: text and paths are as of :meth:`Recipe.load`.
        settings: laid over it, as ``path.to.key=value``.

    Raises:
        ConfigError: there is no such file or generator, it is not a recipe, or it is none of these.
    """
    if isinstance(recipe, Recipe):
        return Recipe.from_dict(recipe.to_dict(), settings) if (settings := list(settings)) else recipe
    if isinstance(recipe, Mapping):
        return Recipe.from_dict(dict(recipe), settings)
    if isinstance(recipe, str | PathLike):
        return Recipe.load(recipe, settings)
    raise ConfigError(
        f"recipe: a {type(recipe).__name__} is not allowed: must be a Recipe, the path of its file, a mapping, or the "
        "name of a generator"
    )


def folders_beside(folder: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's plain values in a file in ``folder``, with relative folders of categories resolved from it."""
    copied = apply_settings(data, ())
    for part in _mappings_of_parts(copied):
        categories = part.get("categories")
        if isinstance(categories, dict) and isinstance(categories.get("folder"), str):
            part["categories"] = {**categories, "folder": str(folder / user_path(categories["folder"]))}
    return copied


def _read_setting(value: Any) -> Recipe:
    try:
        return as_recipe(value)
    except ConfigError as error:
        if isinstance(value, Mapping):
            raise
        # The problem is about the setting as a whole.
        raise ConfigError(*(f": {problem.removeprefix('recipe: ')}" for problem in error.problems)) from None


RecipeSetting = Annotated[Recipe, BeforeValidator(_read_setting), PlainSerializer(Recipe.to_dict)]
"""A recipe as one of several settings, given as :data:`RecipeLike`."""


def locate(
    indices: Int64[np.ndarray, " n"], categories: Int64[np.ndarray, " parts"], counts: Int64[np.ndarray, " parts"]
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Label, position among the label's images, and part of each index, where parts stand one after the other.

    Args:
        indices: from 0.
        categories: number of categories of each part.
        counts: number of images of each of the part's categories.
    """
    if len(counts) == 1:
        return *np.divmod(indices, counts[0]), np.zeros_like(indices)
    sizes = categories * counts
    part = np.searchsorted(np.cumsum(sizes), indices, side="right")
    labels, positions = np.divmod(indices - (np.cumsum(sizes) - sizes)[part], counts[part])
    return labels + (np.cumsum(categories) - categories)[part], positions, part


def _mappings_of_parts(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The mappings in a recipe's plain values that have a generator and categories: parts, and a scene's background.

    In the short form, the recipe's own mapping is that of its only part.
    """
    parts, scene = data.get("parts"), data.get("scene")
    found = [*(parts if isinstance(parts, list) else []), scene.get("background") if isinstance(scene, dict) else None]
    yield from (part for part in ([] if parts else [data]) + found if isinstance(part, dict))


def _shares(parts: Sequence[Part]) -> list[float]:
    """The share of each part: what it states, or of what others leave, in proportion to its categories.

    Raises:
        ConfigError: the shares that are stated leave nothing, or too much.
    """
    stated = sum(part.share or 0.0 for part in parts)
    others = sum(part.num_categories for part in parts if part.share is None)
    rest = 1.0 - stated
    if others and rest <= 1e-6:
        raise ConfigError(f"parts: the shares add up to {stated:g} and leave nothing for the parts without share")
    if not others and abs(rest) > 1e-6:
        raise ConfigError(f"parts: the shares add up to {stated:g}, must be 1 where every part has one")
    return [part.share or rest * part.num_categories / others for part in parts]
