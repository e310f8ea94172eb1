"""A part of a recipe: a generator with its parameters, and the categories that the recipe takes from it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, ValidationInfo, model_serializer, model_validator

from formulavision.generators.contract import Canvas, Generator, Params
from formulavision.generators.failures import ask_for_number, blamed
from formulavision.generators.registry import plugins
from formulavision.recipes.category_files import check_digest, digest, holds_categories, read_folder
from formulavision.util.config import Config, identity, parse, user_path
from formulavision.util.errors import ConfigError, PluginError

__all__ = ["Categories", "GeneratorSettings", "Part", "category_prefixes", "check_names"]


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

    @property
    def generator(self) -> type[Generator]:
        """The class of the generator."""
        return plugins()[self.name].generator

    def build(self, canvas: Canvas, seed: int) -> Generator:
        """The generator, ready to draw on a canvas."""
        with blamed(self.name, "in __init__()"):
            return self.generator(self.params, canvas, seed)


class Categories(Config):
    """Source of the categories: the generator finds the first ``count``, or they are read from a folder.

    A folder is a store, or holds one CSV a category: a table in the published FractalDB layout (one row a
    transformation), or ``name,value`` lines, as RCDB writes them; the files' stems are the categories' names. The
    recipe holds a digest of the parameters, so that it still defines every image. A recipe with the digest and without
    the folder can be read, but not drawn.
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


class Part(Config):
    """A generator, and the categories that a recipe takes from it.

    Without a scene, the parts' images stand one after the other. In a scene, ``share`` is the probability that an
    object comes from the part; parts that state none share the rest, in proportion to their categories.
    """

    generator: GeneratorSettings
    categories: Categories = Categories()
    instances: int | None = Field(
        default=None, ge=1, le=10_000_000, description="images a category; only without a scene"
    )
    share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="probability that an object of a scene comes from this part",
        json_schema_extra={"neutral": None},
    )
    object: Literal["shape", "fill"] = Field(
        default="shape",
        description="the object that a scene takes from an image. shape: where it differs from the background; fill: "
        "the whole square, which generators that fill their canvas need",
        json_schema_extra={"neutral": "shape"},
    )

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, data: Any) -> Any:
        return {"generator": data} if isinstance(data, str) else data

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
    def draws_single_images(self) -> bool:
        """Whether the generator draws images of one category, and not only scenes of its own."""
        generator = self.generator.generator
        return (generator.render, generator.render_batch) != (Generator.render, Generator.render_batch)

    def resolved(self, canvas: Canvas, seed: int, *, in_scene: bool) -> Part:
        """The part with the numbers of its categories and instances, which defaults and the generator decide.

        Raises:
            ConfigError: a number is too large, or the folder of categories is not the part's.
            PluginError: the generator raised.
        """
        generator = self.generator.build(canvas, seed)
        categories = self._resolved_categories(generator)
        if in_scene:
            if self.instances is not None:
                raise ConfigError("instances: is not allowed with a scene: images is the number of scenes")
            return self.model_copy(update={"categories": categories})
        most = ask_for_number(generator, "max_instances")
        instances = self.instances or min(generator.default_instances, most or generator.default_instances)
        if most is not None and instances > most:
            raise ConfigError(
                f"instances: {instances} is not allowed: '{generator.name}' has {most} different images a category here"
            )
        return self.model_copy(update={"categories": categories, "instances": instances})

    def _resolved_categories(self, generator: Generator) -> Categories:
        given = self.categories
        if given.folder is not None:
            return _read_categories(given, given.folder, generator)
        if given.sha256 is not None:
            if given.count is None:
                raise ConfigError("categories.count: is missing beside categories.sha256")
            return given
        most = ask_for_number(generator, "max_categories")
        count = given.count or ask_for_number(generator, "default_categories")
        assert count is not None
        if most is not None and count > most:
            raise ConfigError(f"categories.count: {count} is not allowed: '{generator.name}' has {most} here")
        return given.model_copy(update={"count": count})

    def identity(self) -> dict[str, Any]:
        """What decides the part's images, as plain values for hashing."""
        content = identity(self)
        settings = self.generator
        content["generator"] = {"name": settings.name, "version": settings.version, **identity(settings.params)}
        own = content["categories"].items()
        content["categories"] = {key: value for key, value in own if key != "folder" and value is not None}
        return content


def _read_categories(given: Categories, folder: Path, generator: Generator) -> Categories:
    """The folder's categories with their number and digest, the folder as an absolute path."""
    try:
        folder = user_path(folder).absolute()
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


def category_prefixes(parts: Sequence[Part]) -> list[str]:
    """What stands before the names of each part's categories, so that no two categories have one name.

    Nothing for a single part; else the generator's name, with a number where several parts have the same one.

    Raises:
        ConfigError: two parts have the same prefix, as a second part of ``ifs`` and one of a generator ``ifs2``.
    """
    if len(parts) == 1:
        return [""]
    names = [part.generator.name for part in parts]
    numbers = {name: itertools.count(1) for name in names}
    prefixes = [f"{name}{next(numbers[name]) if names.count(name) > 1 else ''}-" for name in names]
    check_names(parts, enumerate(f"{prefix}..." for prefix in prefixes))
    return prefixes


def check_names(parts: Sequence[Part], names: Iterable[tuple[int, str]]) -> None:
    """Refuse equal names in two parts.

    Args:
        names: pairs of a part's number and a name.

    Raises:
        ConfigError: a name is there twice.
    """
    owners: dict[str, int] = {}
    for part, name in names:
        if (first := owners.setdefault(name, part)) != part:
            one, other = (f"parts.{number} ({parts[number].generator.name})" for number in (first, part))
            raise ConfigError(f"{one} and {other}: have categories of one name, {name}: give one a recipe of its own")
