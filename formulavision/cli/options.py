"""Options that several commands share, and the recipe or dataset that they stand for."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from formulavision.data.downstream import DownstreamSettings
    from formulavision.recipes.recipe import Recipe

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")]
Picture = Annotated[Path, typer.Option("--out", "-o", help="The PNG to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier output at --out.")]
RecipeName = Annotated[
    str | None,
    typer.Argument(
        metavar="RECIPE",
        help="Recipe: name of a generator (ifs), a file (YAML), the name of a recipe that ships (fractaldb-1k), or "
        "a store.",
        show_default=False,
    ),
]
Plugin = Annotated[
    str | None,
    typer.Option("--plugin", help="Name of a generator, as RECIPE: --plugin ifs; see 'formulavision plugins'."),
]
CategoryCount = Annotated[int | None, typer.Option("--categories", help="Number of categories.")]
CategoryFolder = Annotated[
    Path | None,
    typer.Option("--categories-from", help="Folder of category CSVs in the published layout, or a store or its URL."),
]
Instances = Annotated[int | None, typer.Option("--instances", help="Images per category.")]
Size = Annotated[int | None, typer.Option("--size", help="Width and height of the images in pixels.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of categories and instances.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Any setting, by its path: --set generator.fill_rate=0.1 (may be repeated).",
    ),
]
_DOWNSTREAM = typer.Option(
    "--downstream",
    help="A folder of images (PATH), imagenet:PATH, cifar10, cifar100, places365, voc2012, omniglot (or KIND:PATH, "
    "where it is), digits, or another of torchvision's: flowers102, food101, ...; for segmentation a folder with "
    "images/ and masks/ (PATH), voc2012-masks, oxfordiiitpet-masks, ade20k:PATH, cityscapes:PATH; "
    "for evaluate also corrupted:PATH (CIFAR-10-C, ImageNet-C)",
    show_default=False,
)
Downstream = Annotated[str, _DOWNSTREAM]
DownstreamOrResume = Annotated[str | None, _DOWNSTREAM]
DownstreamSet = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Any setting of the dataset: --set downstream.test_split=val (may be repeated).",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device", help="Device that draws: cpu, or cuda (a GPU; the CPU draws where the generator has no GPU code)."
    ),
]
Workers = Annotated[int, typer.Option("--workers", help="Number of worker processes; 0: one per core.")]


On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="ray[://auto|://HOST:PORT]",
        help="Compute on a cluster, by Ray. ray: the cluster of RAY_ADDRESS, or one that is started here; ray://auto: "
        "the cluster that this machine belongs to; ray://HOST:PORT: by Ray's client. All nodes must see --out.",
        show_default=False,
    ),
]
PerTask = Annotated[
    str,
    typer.Option(
        "--per-task",
        metavar="cpus=N,gpus=X,memory=SIZE",
        help="With --on: the part of a node that each task reserves: cpus=8,gpus=0.5,memory=16GB.",
        show_default=False,
    ),
]


def command_line(command: str, *arguments: object, **options: object) -> str:
    """A command as a user can type it. Options that are None are left out, those with a list are repeated."""
    words = [command, *arguments]
    for name, value in options.items():
        for each in value if isinstance(value, list) else [] if value is None else [value]:
            words += [f"--{name.replace('_', '-')}", each]
    return shlex.join(["formulavision", *map(str, words)])


def as_settings(values: Mapping[str, Any]) -> list[str]:
    """``path.to.key=value`` of each value that is not None, as ``--set`` takes it: text is written without quotes where
    YAML reads it as the same text."""
    return [f"{path}={_as_yaml(value)}" for path, value in values.items() if value is not None]


def _as_yaml(value: Any) -> str:
    """A value in one line of YAML."""
    from formulavision.util.config import parse_yaml
    from formulavision.util.errors import ConfigError

    with contextlib.suppress(ConfigError):
        if isinstance(value, str) and parse_yaml(value) == value:
            return value
    # JSON, in which what cannot be printed is escaped in YAML's way.
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def count_workers(workers: int) -> int:
    """The number of worker processes; 0 stands for one per core that this process may use.

    Raises:
        ConfigError: it is below 0.
    """
    from formulavision.util.errors import ConfigError
    from formulavision.util.machine import cores

    if workers < 0:
        raise ConfigError(f"--workers {workers}: must be 0 (one per core) or more")
    return workers or cores()


def make_downstream(text: str, settings: list[str] | None) -> tuple[DownstreamSettings, list[str]]:
    """The dataset that a command line stands for, and the settings that are not its: those without ``downstream.``.

    Raises:
        ConfigError: there is no such dataset, or a value is not allowed.
    """
    from formulavision.data.downstream import DownstreamSettings
    from formulavision.util.config import apply_settings, parse

    chosen = DownstreamSettings.from_text(text)
    own = [setting for setting in settings or [] if setting.startswith("downstream.")]
    others = [setting for setting in settings or [] if not setting.startswith("downstream.")]
    changes = apply_settings({}, own).get("downstream", {})
    return parse(DownstreamSettings, {**chosen.model_dump(), **changes}, "downstream"), others


def make_recipe(
    name: str | Path | None,
    plugin: str | None,
    *,
    categories: int | None = None,
    categories_from: Path | None = None,
    instances: int | None = None,
    size: int | None = None,
    seed: int | None = None,
    settings: list[str] | None = None,
) -> Recipe:
    """The recipe that a command line stands for: the named one or the plugin's, with the options laid over it.

    Raises:
        ConfigError: neither or both of name and plugin are given, or a value is not allowed.
    """
    from formulavision.recipes.recipe import Recipe, as_recipe
    from formulavision.util.errors import ConfigError
    from formulavision.util.remote import is_url

    if categories_from is not None and is_url(categories_from):
        from formulavision.storage.store import Store

        categories_from = Store(categories_from).recipe_folder
    values: dict[str, Any] = {
        "categories.count": categories,
        "categories.folder": None if categories_from is None else str(categories_from),
        "instances": instances,
        "canvas.size": size,
        "seed": seed,
    }
    changes = as_settings(values) + (settings or [])
    if (name is None) == (plugin is None):
        raise ConfigError("give one recipe: the name of a generator (see 'formulavision plugins'), or a recipe's file")
    if name is not None:
        return as_recipe(name, changes)
    return Recipe.from_dict({"generator": {"name": plugin}}, changes)


def refuse_beside(option: str, **given: object) -> None:
    """Refuse options that would be ignored beside another one.

    Args:
        given: their values; those that count as false were not given.

    Raises:
        ConfigError: one of them was given.
    """
    from formulavision.util.errors import ConfigError

    for name, value in given.items():
        if value:
            raise ConfigError(f"{option}: not together with --{name.replace('_', '-')}")
