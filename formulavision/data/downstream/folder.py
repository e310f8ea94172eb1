"""Any folder of images with ``train/`` and ``val/`` or ``test/``, a subfolder a class."""

from __future__ import annotations

from pathlib import Path

from formulavision.data.downstream.files import open_class_folders
from formulavision.data.downstream.images import Sides
from formulavision.util.errors import DownstreamError

__all__ = ["open_folder"]


def open_folder(root: Path) -> Sides:
    """The classes are the sorted names of the subfolders; images may lie deeper. ``test/`` counts before ``val/``.

    Raises:
        DownstreamError: the folder is missing or has not that layout, or an image cannot be used.
    """
    if not root.is_dir():
        raise DownstreamError(f"{root}: no such folder")
    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if not (root / "train").is_dir():
        raise DownstreamError(f"{root}: has no train/: it must hold train/ and val/ or test/, with a subfolder a class")
    if test is None:
        raise DownstreamError(f"{root}: has no val/ or test/ beside train/: images to evaluate on must be there")
    return open_class_folders(root / "train", test)
