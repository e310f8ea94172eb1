"""``push`` and ``pull``: stores, runs and recipes as repositories of the Hugging Face Hub, by huggingface_hub."""

from __future__ import annotations

import glob
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike, fspath
from os.path import lexists
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from formulavision.recipes.categories import find_categories
from formulavision.recipes.recipe import RecipeLike, as_recipe
from formulavision.recipes.sheets import contact_sheet
from formulavision.storage.card import CARD, SHEET, is_own_card, store_card
from formulavision.storage.destinations import write_recipe
from formulavision.storage.formats import find_format
from formulavision.storage.manifest import INCOMPLETE, MANIFEST, RECIPE, layout_of
from formulavision.storage.own_categories import find_background
from formulavision.storage.store import Store
from formulavision.storage.verification import find_damage
from formulavision.training.runs import RESULT, SETTINGS, Run
from formulavision.util.errors import ConfigError, FolderError, FormulaVisionError, RemoteError, StoreError, one_line
from formulavision.util.files import write_png
from formulavision.util.folders import LOCK, MARKER, Marker, OwnedFolder, State

__all__ = ["fetch", "pull", "push"]

_NAME = re.compile(r"hf://(?:(dataset|model)s/)?([\w.-]+/[\w.-]+)/?")
_LOGIN = "log in by 'hf auth login', or set HF_TOKEN"


def push(source: Store | Run | RecipeLike, url: str, *, private: bool = False) -> str:
    """Upload a store or a recipe as a dataset, or a run's model as a model, with a card.

    Args:
        source: a store, a complete run, or the folder of one; or a recipe, its file or its name.
        url: ``hf://USER/NAME``. The repository is made if there is none. Files of an earlier store in it are replaced,
            also all ``data/*.parquet`` and ``shard-*.tar``; other files, and a README.md that was edited, stay.
        private: make a new repository private.

    Returns:
        The address of the repository's page.

    Raises:
        ConfigError: the URL names no repository of this kind, there is no token, or the source is none of these.
        StoreError: the store is not complete, or damaged.
        RemoteError: the Hub does not answer, or refuses.
    """
    from huggingface_hub import HfApi, get_token

    asked, repository = _read_url(url)
    if get_token() is None:
        raise ConfigError(f"{url}: there is no token for the Hub: {_LOGIN}")
    with TemporaryDirectory(prefix="formulavision-") as temporary:
        folder = Path(temporary) / "repository"
        kind = _lay_out(source, folder)
        if asked not in (None, kind):
            raise ConfigError(f"{url}: is the name of a {asked}, and {kind}s are pushed to hf://{kind}s/{repository}")
        api = HfApi()
        with _told(url):
            page = str(api.create_repo(repository, repo_type=kind, private=private or None, exist_ok=True))
            readme = _read(api, repository, kind, CARD)
            if readme is not None and not is_own_card(readme):
                (folder / CARD).unlink()
            earlier = _earlier_files(kind, _read(api, repository, kind, MARKER), url)
            api.upload_folder(
                repo_id=repository, repo_type=kind, folder_path=folder, ignore_patterns=[LOCK],
                delete_patterns=earlier, commit_message="Upload by formulavision push",
            )  # fmt: skip
    return page


def pull(url: str, out: str | Path) -> Path:
    """Download a repository of the Hub into a new folder; a store's files are compared with their checksums.

    Args:
        url: ``hf://USER/NAME``, a dataset or, where there is none of this name, a model; ``hf://models/USER/NAME``.
        out: the folder, which must be new or empty. An interrupted download lies in ``OUT.partial``, and is continued
            by the same call, as long as the repository does not change.

    Returns:
        The folder.

    Raises:
        ConfigError: the URL names no repository.
        FolderError: the folder holds something, or ``OUT.partial`` is not of this download.
        StoreError: the store there is damaged or not complete.
        RemoteError: there is no such repository, it is gated, or the Hub does not answer.
    """
    return fetch(url, out)[0]


def fetch(url: str, out: str | Path) -> tuple[Path, str]:
    """As :func:`pull`. Returns the folder and the kind of the repository: dataset or model."""
    from huggingface_hub import HfApi

    asked, repository = _read_url(url)
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FolderError(f"{out}: is not empty: give another --out")
    api = HfApi()
    with _told(url):
        kind, commit = _find(api, asked, repository)
    partial = out.with_name(f"{out.absolute().name}.partial")
    with _told(url), _downloading(partial, f"{kind}s/{repository}", commit) as files:
        api.snapshot_download(
            repository, repo_type=kind, revision=commit, local_dir=files, ignore_patterns=[".gitattributes"]
        )
        shutil.rmtree(files / ".cache", ignore_errors=True)  # of the download
        if (files / MANIFEST).exists() or (files / INCOMPLETE).exists():
            _refuse_damage(Store(files), url)
        if out.exists():
            out.rmdir()
        files.rename(out)
    return out, kind


def _find(api: Any, asked: str | None, repository: str) -> tuple[str, str]:
    """The kind of the repository, and its last commit."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    # snapshot_download takes the files of an interrupted download for the repository where it does not find that.
    try:
        return asked or "dataset", str(api.repo_info(repository, repo_type=asked or "dataset").sha)
    except RepositoryNotFoundError as error:
        if asked or isinstance(error, GatedRepoError):
            raise
    return "model", str(api.repo_info(repository, repo_type="model").sha)


@contextmanager
def _downloading(partial: Path, repository: str, commit: str) -> Iterator[Path]:
    """Hold the folder of a download, which may have been interrupted. Yields the folder in it for the files.

    Raises:
        FolderError: it is not of this download, or another process writes there.
    """
    from huggingface_hub.errors import GatedRepoError

    marker = Marker.read(partial) if partial.is_dir() else None
    if lexists(partial) and (marker is None or marker.identity.get("repository") != repository):
        raise FolderError(f"{partial}: is not of this download: remove it")
    identity, files = {"repository": repository, "commit": commit}, partial / "files"
    changed = marker is not None and marker.identity != identity
    folder = OwnedFolder(partial, "download", last="complete")  # never written: the files leave the folder instead
    try:
        with folder.writing(identity, ["files/"], overwrite=changed) as state:
            try:
                yield files
            except (StoreError, GatedRepoError) as error:
                if state is State.NEW or isinstance(error, StoreError):  # nothing to continue with
                    shutil.rmtree(files, ignore_errors=True)
                raise
            finally:
                if not files.exists():
                    (partial / MARKER).unlink()
    finally:
        with suppress(OSError):  # unless it holds something
            partial.rmdir()


def _read_url(url: str) -> tuple[str | None, str]:
    """The kind of a repository, where the URL names one, and its name."""
    match = _NAME.fullmatch(url)
    if match is None:
        raise ConfigError(f"{url}: names no repository of the Hub: write hf://USER/NAME")
    return match[1], match[2]


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Tell what huggingface_hub and its HTTP client raise in one line."""
    from huggingface_hub.errors import GatedRepoError

    try:
        yield
    except FormulaVisionError:
        raise
    except GatedRepoError:
        raise RemoteError(f"{url}: is gated: ask for access on its page on the Hub, and {_LOGIN}") from None
    except Exception as raised:
        error: BaseException = raised
        while error.__cause__ is not None:  # of an upload that failed
            error = error.__cause__
        status = getattr(getattr(error, "response", None), "status_code", None)
        told = {
            401: f"your token is not accepted, or there is no such repository: {_LOGIN}",
            403: "your token may not write there: check its permissions, or give a name of your own",
            404: f"there is no such repository, or your token may not read it: {_LOGIN}",
        }.get(status or 0, one_line(error) or type(error).__name__)
        raise RemoteError(f"{url}: {told}") from None


def _read(api: Any, repository: str, kind: str, name: str) -> bytes | None:
    """A small file of a repository; None where there is none."""
    if not api.file_exists(repository, name, repo_type=kind):
        return None
    return Path(api.hf_hub_download(repository, name, repo_type=kind)).read_bytes()


def _earlier_files(kind: str, marker: bytes | None, url: str) -> list[str]:
    """Patterns of the files of an earlier push, by the marker in the repository, that this one may not write again."""
    try:
        earlier = None if marker is None else Marker.parse(marker, url)
    except FolderError:
        raise RemoteError(
            f"{url}: its file {MARKER} is damaged, or of a newer version of FormulaVision: remove it there, or give "
            "another name"
        ) from None
    ours = (*earlier.ours, MARKER) if earlier and earlier.kind in ("store", "model export") else ()
    if kind == "model":
        return [name for name in ours if name == "class_map.txt"]  # the only file that not every push writes
    patterns = [glob.escape(name).replace("[*]", "*") for name in ours]
    # A recipe has no marker; and datasets read all such files as images.
    return [*patterns, "categories.json", "categories-*.json", "data/*.parquet", "shard-*.tar"]


# What is uploaded -----------------------------------------------------------------------------------------------------


def _lay_out(source: Store | Run | RecipeLike, folder: Path) -> str:
    """Put the files of a repository into a new folder. Returns its kind: dataset or model."""
    path = Path(source) if isinstance(source, str | PathLike) else None
    if isinstance(source, Store) or (path and ((path / MANIFEST).exists() or (path / INCOMPLETE).exists())):
        _lay_out_store(source if isinstance(source, Store) else Store(fspath(path or "")), folder)
    elif isinstance(source, Run) or (path and ((path / RESULT).exists() or (path / SETTINGS).exists())):
        from formulavision.training.export import export_model  # torch is slow to import

        export_model(source if isinstance(source, Run) else Run.load(path or ""), folder)
        return "model"
    elif path is not None and path.is_dir():
        raise ConfigError(f"{path}: is no store, no run and no recipe")
    else:
        assert not isinstance(source, Store | Run)
        recipe = as_recipe(source)
        found = find_categories(recipe)
        folder.mkdir()
        write_recipe(folder, recipe, found + find_background(recipe))
        card = store_card(recipe, layout_of(recipe, found), None, sheet=True)
        (folder / CARD).write_text(card, encoding="utf-8")
        write_png(folder / SHEET, contact_sheet(recipe))
    return "dataset"


def _lay_out_store(store: Store, folder: Path) -> None:
    root = store.path
    _refuse_damage(store, str(root))
    store_format, card = find_format(store.manifest.format), root / CARD
    names = {MANIFEST, RECIPE, *(store.manifest.files or ())}
    names.update(name for piece in store.pieces for name in store_format.files(piece, store.layout))
    for name in sorted(names | ({MARKER} if (root / MARKER).exists() else set())):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to((root / name).resolve())
    if card.exists() and not is_own_card(card.read_bytes()):
        (folder / CARD).write_bytes(card.read_bytes())
        return
    text = store_card(store.recipe, store.layout, store.manifest.format, sheet=True)
    (folder / CARD).write_text(text, encoding="utf-8")
    write_png(folder / SHEET, contact_sheet(store.recipe))


def _refuse_damage(store: Store, place: str) -> None:
    damage = find_damage(store)
    if damage:
        more = f", and {len(damage) - 1} more" if len(damage) > 1 else ""
        raise StoreError(f"{place}: the store is damaged: {damage[0]}{more}")
