"""The recipe: a few hundred bytes of YAML that define every image of a dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, SerializeAsAny, ValidationInfo, model_serializer, model_validator

from formulavision.generators.contract import Canvas, Generator, Params
from formulavision.generators.failures import ask_for_number, blamed
from formulavision.generators.registry import plugins
from formulavision.recipes.category_files import check_digest, digest, holds_categories, read_folder
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
from formulavision.util.errors import ConfigError, PluginError
from formulavision.util.shipped import shipped_configs

__all__ = ["Categories", "GeneratorSettings", "Recipe", "RecipeLike", "as_recipe"]


class GeneratorSettings(Config):
    """Name, pixel version and parameters of a generator, in YAML side by side in one mapping."""

    name: str
    version: int
    params: SerializeAsAny[Params]

    @model_validator(mode="before")
    @classmethod
    def _look_up(cls, data: Any, info: ValidationInfo) -> Any:
        if isinstance(data, str):
            data = {"name": data}
        if not isinstance(data, dict) or ("params" in data and isinstance(data["params"], Params)):
            return data
        settings = dict(data)
        name = settings.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError("name: is missing: which generator?")
        try:
            generator = plugins()[name].generator
        except PluginError as error:
            raise ConfigError(f"name: {error}") from None
        version = settings.pop("version", generator.version)
        if version != generator.version:
            raise ConfigError(
                f"version: {version!r} of '{name}' draws other pixels than version {generator.version}, which is "
                f"installed ({plugins()[name].origin})"
            )
        with blamed(name, "while its parameters were checked"):
            params = parse(generator.Params, settings, context=info.context)
        return {"name": name, "version": version, "params": params}

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, **self.params.model_dump(mode="json")}


class Categories(Config):
    """Source of the categories: the generator finds the first ``count``, or they are read from a folder.

    A folder is a store, or holds one CSV a category in the published FractalDB layout (one row a transformation); the
    files' stems are the categories' names. The recipe holds a digest of the parameters, so that it still defines every
    image. A recipe with the digest and without the folder can be read, but not drawn.
    """

    count: int | None = Field(default=None, ge=1, le=10_000_000, description="number of categories")
    folder: Path | None = Field(default=None, description="folder of CSV files, one a category, or a store")
    sha256: str | None = Field(default=None, description="digest of the parameters read from the folder")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, data: Any) -> Any:
        if isinstance(data, int) and not isinstance(data, bool):
            return {"count": data}
        if not isinstance(data, Mapping | Categories):
            raise ValueError(f"{repr(data)[:60]} is not allowed: must be a number, or a mapping with count or folder")
        return data


class Recipe(Config):
    """A formula-driven dataset: index -> (image, label) for ``len(recipe)`` indices.

    Index i is instance i mod ``instances`` of category i div ``instances``, which is its label.
    ``Recipe.load("ifs")`` is a generator's recipe with its defaults; ``Recipe.load("recipe.yaml")`` reads a file.
    """

    generator: GeneratorSettings
    categories: Categories = Categories()
    instances: int | None = Field(default=None, ge=1, le=1_000_000, description="images a category")
    canvas: Canvas = Canvas()
    seed: int = Field(default=1, ge=0, lt=2**63, description="seed of categories and instances")

    if not TYPE_CHECKING:

        def __new__(cls, *given: Any, **settings: Any) -> Recipe:
            if given:
                raise ConfigError(f"Recipe: takes settings by name: Recipe.load({given[0]!r}) takes a name or a file")
            return super().__new__(cls)

    @model_validator(mode="after")
    def _resolve(self) -> Recipe:
        # The model is frozen, but here settings that were not given get their values.
        if "channels" not in self.canvas.model_fields_set:
            channels = plugins()[self.generator.name].generator.default_channels
            object.__setattr__(self, "canvas", self.canvas.model_copy(update={"channels": channels}))
        generator = self.build()
        if self.categories.folder is not None:
            resolved = self._read_categories(generator)
        elif self.categories.sha256 is not None:
            if self.categories.count is None:
                raise ConfigError("categories.count: is missing beside categories.sha256")
            resolved = self.categories
        else:
            most = ask_for_number(generator, "max_categories")
            count = self.categories.count or ask_for_number(generator, "default_categories")
            assert count is not None
            if most is not None and count > most:
                raise ConfigError(f"categories.count: {count} is not allowed: '{generator.name}' has {most} here")
            resolved = self.categories.model_copy(update={"count": count})
        most = ask_for_number(generator, "max_instances")
        instances = self.instances or min(generator.default_instances, most or generator.default_instances)
        if most is not None and instances > most:
            raise ConfigError(
                f"instances: {instances} is not allowed: '{generator.name}' has {most} different images a category here"
            )
        object.__setattr__(self, "categories", resolved)
        object.__setattr__(self, "instances", instances)
        return self

    def _read_categories(self, generator: Generator) -> Categories:
        """The folder's categories with their number and digest, the folder as an absolute path."""
        given = self.categories
        assert given.folder is not None
        try:
            folder = user_path(given.folder).absolute()
        except ConfigError as error:
            raise ConfigError(f"categories.folder: {error}") from None
        if given.count is not None and given.sha256 is not None and not holds_categories(folder):
            # Without its categories the recipe can be read, but not drawn.
            return given.model_copy(update={"folder": folder})
        parameters = read_folder(folder, generator)
        count = given.count or len(parameters)
        if count > len(parameters):
            raise ConfigError(f"categories.count: {count} is not allowed: the folder holds {len(parameters)}")
        first = dict(list(parameters.items())[:count])
        sha256 = digest(first) if given.sha256 is None else given.sha256
        check_digest(folder, first, sha256)
        return given.model_copy(update={"folder": folder, "count": count, "sha256": sha256})

    def __len__(self) -> int:
        return self.num_categories * self.num_instances

    def __repr__(self) -> str:
        size, kind = self.canvas.size, "gray" if self.canvas.channels == 1 else "colour"
        return (
            f"Recipe({self.generator.name}: {self.num_categories:,} categories x {self.num_instances:,} images of "
            f"{size} x {size}, {kind}, seed {self.seed}, id {self.id})"
        )

    __str__ = __repr__

    @property
    def num_categories(self) -> int:
        assert self.categories.count is not None
        return self.categories.count

    @property
    def num_instances(self) -> int:
        """Images a category."""
        assert self.instances is not None
        return self.instances

    @property
    def id(self) -> str:
        """16 hexadecimal digits that identify the images. They depend neither on the path of the categories' folder nor
        on settings that were added later and have their neutral value."""
        settings = self.generator
        content = identity(self)
        content["generator"] = {"name": settings.name, "version": settings.version, **identity(settings.params)}
        own = content["categories"].items()
        content["categories"] = {key: value for key, value in own if key != "folder" and value is not None}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def build(self) -> Generator:
        """The generator of this recipe, ready to draw."""
        settings = self.generator
        generator = plugins()[settings.name].generator
        with blamed(settings.name, "in __init__()"):
            return generator(settings.params, self.canvas, self.seed)

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
        generator = data.get("generator")
        written_out = isinstance(generator, dict) and "version" in generator
        return parse(cls, data, context=WRITTEN_OUT if written_out else None)

    @classmethod
    def load(cls, path: str | PathLike[str], settings: Iterable[str] = ()) -> Recipe:
        """A recipe from a YAML file; or, by name, that of a generator with its defaults, or one that ships.

        A relative ``categories.folder`` is looked for beside the file.

        Args:
            path: of the file. Text that is no path of a file is the name of a generator (``ifs``), or of a recipe that
                ships (``fractaldb-1k``).
            settings: laid over it, as ``path.to.key=value``.

        Raises:
            ConfigError: the file cannot be read, or what it says is not a recipe; or there is no such name.
        """
        if isinstance(path, str) and not user_path(path).exists():
            generators, shipped = plugins().generators, shipped_configs()
            if path in generators:
                return cls.from_dict({"generator": path}, settings)
            if path not in shipped and not Path(path).suffix:
                hint = did_you_mean(path, [*generators, *shipped])
                raise ConfigError(f"recipe: {path}: no such file, and no generator of this name{hint}")
            path = shipped.get(path, path)
        path = Path(path)
        data = load_yaml(path)
        if "arms" in data:
            raise ConfigError(f"{path}: is a comparison, not a recipe: formulavision compare {path}")
        settings = list(settings)
        categories = data.get("categories")
        if isinstance(categories, dict) and isinstance(categories.get("folder"), str):
            data["categories"] = {**categories, "folder": str(path.parent / user_path(categories["folder"]))}
        try:
            return cls.from_dict(data, settings)
        except ConfigError as error:
            raise ConfigError(*(f"{path}: {problem}" for problem in error.problems)) from None

    def to_dict(self) -> dict[str, Any]:
        """Plain values only; ``Recipe.from_dict`` gives the same recipe back."""
        data = self.model_dump(mode="json")
        data["categories"] = {key: value for key, value in data["categories"].items() if value is not None}
        return data

    def portable(self) -> dict[str, Any]:
        """Plain values without the folder of categories: equal on every machine; readable there, but not drawable."""
        data = self.to_dict()
        data["categories"].pop("folder", None)
        return data

    def to_yaml(self) -> str:
        return dump_yaml(self.to_dict())


RecipeLike = Recipe | str | PathLike[str] | Mapping[str, Any]
"""Public functions take a recipe, the path of its file, a mapping, or the name of a generator."""


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
