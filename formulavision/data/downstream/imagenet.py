"""ImageNet-1k (ILSVRC 2012) in torchvision's layout, and subsets of its classes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from formulavision.data.downstream.files import subfolders
from formulavision.data.downstream.folder import open_class_folders
from formulavision.data.downstream.images import LabelledImages, Sides
from formulavision.data.downstream.settings import DownstreamSettings
from formulavision.data.downstream.torchvision_sets import torchvision_set
from formulavision.util.config import did_you_mean
from formulavision.util.errors import DownstreamError, one_line

__all__ = ["open_imagenet"]

_DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_WNID = re.compile(r"n\d{8}")


def open_imagenet(root: Path, settings: DownstreamSettings) -> Sides:
    """``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG``; labels in the order of the wnids (WordNet ids).

    A missing side is unpacked by torchvision from ``ILSVRC2012_img_train.tar`` or ``ILSVRC2012_img_val.tar``, with
    ``ILSVRC2012_devkit_t12.tar.gz``, where these are in ``root``. Classes are named by their wnid or, where ``root``
    holds the ``meta.bin`` that torchvision writes, by the first word of their synset, with the wnid where several
    classes have the same word.

    Raises:
        DownstreamError: the folder is missing or has another layout, or an image cannot be used.
    """
    if not root.is_dir():
        raise DownstreamError(f"{root}: no such folder")
    for side in ("train", "val"):
        folder, archive = root / side, root / f"ILSVRC2012_img_{side}.tar"
        if not folder.is_dir():
            if not archive.is_file():
                raise DownstreamError(
                    f"{root}: has no {side}/: it must hold train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, or "
                    f"{archive.name} and {_DEVKIT} to unpack"
                )
            torchvision_set("imagenet", "ImageNet", root, f"{archive.name} could not be unpacked", split=side)
        strangers = [name for name in subfolders(folder) if not _WNID.fullmatch(name)]
        if strangers:
            raise DownstreamError(
                f"{folder / strangers[0]}: is no WordNet id (as n01440764): other folders are opened by folder:/path"
            )
        if next(folder.glob("n*.tar"), None):
            raise DownstreamError(f"{folder}: was unpacked in part: remove it, and it is unpacked again")
    words = _read_meta(root / "meta.bin")
    firsts = {wnid: words.get(wnid, (wnid,))[0] for wnid in subfolders(root / "train")}
    times = Counter(firsts.values())
    called = {wnid: first if times[first] == 1 else f"{first} ({wnid})" for wnid, first in firsts.items()}

    for name in settings.exclude:
        if name not in called and name not in called.values():
            raise DownstreamError(f"{root}: has no class '{name}'{did_you_mean(name, [*called, *called.values()])}")

    def keep(wnid: str) -> bool:
        known = {wnid, called.get(wnid, wnid)}
        wanted = settings.classes is None or not known.isdisjoint(settings.classes)
        return wanted and known.isdisjoint(settings.exclude)

    sides = open_class_folders(root / "train", root / "val", keep)
    wnids = sides.train.classes
    names = [called[wnid] for wnid in wnids]
    train, test = (
        LabelledImages(side.source, side.indices, side.labels, names, wnids) for side in (sides.train, sides.test)
    )
    return replace(sides, train=train, test=test, aliases={wnid: label for label, wnid in enumerate(wnids)})


def _read_meta(file: Path) -> dict[str, tuple[str, ...]]:
    """The words of each wnid, as torchvision keeps them; none where there is no file."""
    if not file.is_file():
        return {}
    import torch

    try:
        words, _ = torch.load(file, weights_only=True)
        return {str(wnid): tuple(str(word) for word in synset) for wnid, synset in words.items()}
    except Exception as error:  # whatever a damaged zip or pickle raises
        reason = one_line(error)[:100] or type(error).__name__
        raise DownstreamError(
            f"{file}: is not torchvision's ({reason}): remove it, and wnids name the classes"
        ) from None
