"""Requirements of a cluster's nodes before they draw: versions, the recipe's plugins, and the store's folder."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path

from formulavision.generators.new_process import Source
from formulavision.generators.registry import THIS_PROCESS, plugins
from formulavision.recipes.recipe import Recipe
from formulavision.storage.destinations import Destination
from formulavision.storage.manifest import INCOMPLETE
from formulavision.storage.own_categories import category_files
from formulavision.util.cluster import Cluster
from formulavision.util.errors import ClusterError, RemoteError
from formulavision.util.files import write_text
from formulavision.util.remote import AnyFolder, RemoteFolder
from formulavision.util.text import counted
from formulavision.util.version import __version__

__all__ = ["check_folder", "check_nodes", "sources_of"]

_SHIPPING = (
    "install it there, or ship it by Ray's runtime_env: pip install --no-deps --target plugins PACKAGE, then "
    "ray job submit --working-dir plugins -- formulavision ... (docs/clusters.md)"
)


def check_nodes(cluster: Cluster, recipe: Recipe, destination: Destination) -> None:
    """Refuse a cluster of which a node cannot draw the store. Within :meth:`Destination.writing`.

    Raises:
        ClusterError: a node lacks something, which is named.
    """
    if isinstance(destination.root, RemoteFolder):
        _refuse(cluster, [recipe], destination.root, destination.root, "")
        return
    folder = Path(destination.root, INCOMPLETE)
    folder.mkdir(exist_ok=True)
    try:
        check_folder(cluster, [recipe], destination.root, folder / "nodes.txt")
    finally:
        if not any(folder.iterdir()):
            folder.rmdir()


def check_folder(cluster: Cluster, recipes: Iterable[Recipe], folder: Path, file: Path) -> None:
    """Refuse a cluster of which a node has another version, lacks a plugin, or does not see a folder.

    Args:
        file: a file in the folder that this process may write. It is removed again.

    Raises:
        ClusterError: a node lacks something, which is named.
    """
    token = secrets.token_hex(16)
    write_text(file, token)
    try:
        _refuse(cluster, recipes, folder, file, token)
    finally:
        file.unlink(missing_ok=True)


def sources_of(recipe: Recipe) -> list[Source]:
    """Where other processes import the recipe's generators from."""
    parts = {part.generator.name: part for part in (*recipe.all_parts, *(part for _, part in category_files(recipe)))}
    return [Source.of(part.generator.generator) for part in parts.values()]


def _refuse(cluster: Cluster, recipes: Iterable[Recipe], folder: AnyFolder, file: AnyFolder, token: str) -> None:
    """Refuse a cluster of which a node has another version, lacks a plugin, or does not see a folder or a URL.

    Args:
        file: a file in the folder; of a URL, the same.
        token: the file's content.

    Raises:
        ClusterError: a node lacks something, which is named.
    """
    sources = {source.name: source for recipe in recipes for source in sources_of(recipe)}
    needed = [(source, plugins()[name].package, plugins()[name].package_version) for name, source in sources.items()]
    problems = cluster.on_every_node(_problem, __version__, needed, folder, file, token)
    if problems:
        more = f"; {len(problems) - 1} more of {counted(cluster.nodes, 'node')} too" if len(problems) > 1 else ""
        raise ClusterError(f"on: {problems[0]}{more}")


def _problem(
    version: str, needed: list[tuple[Source, str, str]], folder: AnyFolder, file: AnyFolder, token: str
) -> str | None:
    """What this node lacks, in words."""
    if version != __version__:
        return f"has formulavision {__version__}, this process {version}: install the same"
    for source, package, package_version in needed:
        if not source.register():
            where = "of this process, which no other can import" if package == THIS_PROCESS else f"({package})"
            return f"lacks the generator '{source.name}' {where}: {_SHIPPING}"
        found = plugins()[source.name]
        if package != THIS_PROCESS and found.package_version != package_version:
            return f"has {found.origin}, this process {package} {package_version}: install the same"
    if isinstance(file, RemoteFolder):
        try:
            file.is_empty()
        except RemoteError as error:
            return f"cannot read {error}"
        return None
    try:
        seen = file.read_text() == token
    except OSError:
        seen = False
    return None if seen else f"does not see {folder}: give a folder that all nodes see, or a URL (s3://BUCKET/FOLDER)"
