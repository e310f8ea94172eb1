"""Images with masks, a class a pixel: read from PNG files, checked, and mapped to the classes' labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from formulavision.data.downstream.files import UNREADABLE, ImageFiles, images_in, subfolders
from formulavision.data.downstream.images import LabelledImages, Sides, as_pixels
from formulavision.data.downstream.pixels import exif_orientation
from formulavision.data.downstream.settings import SPLITS, DownstreamSettings, read_classes
from formulavision.recipes.targets import IGNORED
from formulavision.util.errors import DownstreamError

if TYPE_CHECKING:
    import torch

__all__ = ["CLASS_NAMES", "MaskFiles", "MaskedImages", "masked_images", "open_masks"]

CLASS_NAMES = "classes.txt"
"""File of the class names in a folder of kind ``masks``."""

_CHECKED_PIXELS = 1 << 29
"""Pixels of masks that are read when a dataset is opened, about; a second of a core for each 2^28."""
_ONE_CHANNEL = ("1", "L", "P", "I", "I;16", "I;16B")
_SCALED = {"L;2": 85, "L;4": 17}
"""Pillow's raw modes of gray PNG files with 2 and 4 bits -> the factor by which Pillow scales their values."""
_TURNED = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""


class MaskFiles(ImageFiles):
    """Masks of images: PNG files with one value a pixel, of 1 to 16 bits, gray or palette (read as indices).

    The masks are read and compared with their images when they are made, 2,000 of them at even distances, or fewer if
    they are large.

    Args:
        folder: the folder that holds all files.
        names: paths of the masks in it, one for each image.
        images: the images.
        values: value in a mask -> label, 0 to 254, or 255 for ignored pixels; other values are refused.

    Raises:
        DownstreamError: a mask is missing, cannot be read, is no PNG file with one channel, has another size than its
            image, or holds another value.
    """

    def __init__(self, folder: Path, names: Sequence[str], images: ImageFiles, values: Mapping[int, int]) -> None:
        self.images = images
        self.values = dict(values)
        self._labels = np.full(1 << 16, -1, np.int16)
        self._labels[list(self.values)] = list(self.values.values())
        if names:
            self.checked = min(ImageFiles.checked, max(1, _CHECKED_PIXELS // _pixels(folder / names[0])))
        super().__init__(folder, names)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Labels of the pixels of mask ``index``: uint8 [h, w], 255 where they are ignored.

        Raises:
            DownstreamError: the mask cannot be read, or holds a value that is no class.
        """
        try:
            return self._read(index)
        except UNREADABLE as error:
            raise DownstreamError(f"{self.path(index)}: {_reason(error)}: replace or remove it") from None

    def _read(self, index: int) -> NDArray[np.uint8]:
        with Image.open(self.path(index)) as image:
            if image.format != "PNG":
                loss = ", whose compression changes values" if image.format in ("JPEG", "MPO", "WEBP") else ""
                raise ValueError(f"is a {image.format} file{loss}: masks must be PNG files")
            if image.mode not in _ONE_CHANNEL:
                raise ValueError(f"has colours ({image.mode}), and must have one class value a pixel")
            factor = _SCALED.get(str(image.tile[0].args), 1) if image.tile else 1
            values = np.asarray(image).astype(np.uint16) // np.uint16(factor)
        labels = self._labels[values]
        if labels.size and labels.min() < 0:
            found = int(values[labels < 0].min())
            raise ValueError(f"holds the value {found}, which is no class: {self._allowed()}")
        return labels.astype(np.uint8)

    def _allowed(self) -> str:
        classes = sorted(value for value, label in self.values.items() if label != IGNORED)
        dense = classes[-1] - classes[0] <= len(classes)  # the ignored value may lie between them
        whole = f"{classes[0]} to {classes[-1]}" if dense else f"{len(classes)} values"
        ignored = [str(value) for value, label in self.values.items() if label == IGNORED]
        return f"classes are {whole}" + (f", ignored is {ignored[0]}" if len(ignored) == 1 else "")

    def _wrong_with(self, index: int) -> str | None:
        try:
            height, width = self._read(index).shape
            with Image.open(self.images.path(index)) as image:
                size = image.size
                # The header of a JPEG file holds the orientation; other files would have to be read whole.
                if image.format in ("JPEG", "MPO") and exif_orientation(image) in _TURNED:
                    size = size[::-1]
        except UNREADABLE as error:
            return _reason(error)
        return None if size == (width, height) else _other_size((width, height), self.images.path(index), size)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        return error.strerror or "is not an image that can be read"
    return str(error)


def _pixels(file: Path) -> int:
    try:
        with Image.open(file) as image:
            return max(1, image.width * image.height)
    except UNREADABLE:  # named when it is checked
        return 1


def _other_size(size: tuple[int, int], image: str, of_image: tuple[int, int]) -> str:
    return f"has {size[0]} x {size[1]} pixels, its image {image} {of_image[0]} x {of_image[1]}: both must be equal"


class MaskedImages(LabelledImages):
    """One side of a dataset for segmentation: index -> (uint8 tensor [3, h, w], mask uint8 tensor [h, w]).

    A mask's values are positions in ``classes``, and 255 where a pixel is ignored. ``labels`` is empty.

    Args:
        source: the images of the whole dataset.
        masks: their masks.
        indices: which images of the whole dataset these are, int64 [n].
        classes, class_ids: as of :class:`LabelledImages`.
    """

    def __init__(
        self,
        source: ImageFiles,
        masks: MaskFiles,
        indices: NDArray[np.int64],
        classes: Sequence[str],
        class_ids: Sequence[str] | None = None,
    ) -> None:
        super().__init__(source, indices, np.empty(0, np.int64), classes, class_ids)
        self.masks = masks

    @property
    def target(self) -> str:
        return "semantic"

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        number = int(self.indices[index])
        pixels, mask = as_pixels(self.source(number)), torch.from_numpy(self.masks.read(number))
        if pixels.shape[1:] != mask.shape:
            size, of_image = (mask.shape[1], mask.shape[0]), (pixels.shape[2], pixels.shape[1])
            image = self.masks.images.path(number)
            raise DownstreamError(f"{self.masks.path(number)}: {_other_size(size, image, of_image)}")
        return pixels, mask

    def part(self, chosen: NDArray[Any]) -> MaskedImages:
        assert isinstance(self.source, ImageFiles)
        return MaskedImages(self.source, self.masks, self.indices[chosen], self.classes, self.class_ids)

    def digest(self) -> str:
        result = hashlib.sha256("\0".join(["semantic", *self.class_ids]).encode())
        result.update(str(sorted(self.masks.values.items())).encode())
        result.update(self.source.content(self.indices))
        result.update(self.masks.content(self.indices))
        return result.hexdigest()[:16]


def masked_images(
    root: Path,
    images: Sequence[str],
    masks: Sequence[str],
    classes: Sequence[str],
    values: Mapping[int, int],
    class_ids: Sequence[str] | None = None,
) -> MaskedImages:
    """One side of a dataset: the images and masks at these paths in ``root``, in this order.

    Args:
        classes, class_ids: as of :class:`MaskedImages`.
        values: as of :class:`MaskFiles`.

    Raises:
        DownstreamError: as of :class:`MaskFiles`; or an image is missing, or is none.
    """
    source = ImageFiles(root, images)
    return MaskedImages(source, MaskFiles(root, masks, source, values), np.arange(len(images)), classes, class_ids)


# A folder -------------------------------------------------------------------------------------------------------------


def open_masks(root: Path, settings: DownstreamSettings) -> Sides:
    """A folder of images and masks: ``images/{train,val,test}`` and ``masks/{train,val,test}``.

    An image and its mask have the same path in both, but for the suffix. The parts have their usual names in any case
    (``training``, ``validation``). ``train`` is trained on. The tested part is ``test_split``; unset, it is ``test``,
    or ``val`` where ``test`` has no masks. The names of the values 0, 1, 2 ... are ``classes``, or the lines of
    ``classes.txt`` in the folder. Where ``ignored`` is one of these values, its name is left out.

    Raises:
        DownstreamError: the folder is missing or has another layout, there are no class names, an image has no mask, or
            a file cannot be used.
    """
    if not root.is_dir():
        raise DownstreamError(f"{root}: no such folder")
    parts = {name: _parts(root / name) for name in ("images", "masks")}
    tested = settings.test_split or ("test" if all("test" in found for found in parts.values()) else "val")
    for name, found in parts.items():
        for split in ("train", tested):
            if split not in found:
                raise DownstreamError(
                    f"{root / name}: has no {split}/: {root} must hold images/train/ and masks/train/, and the same of "
                    "val/ or test/"
                )
    names = _class_names(root, settings)
    ignored = settings.ignored
    kept = [value for value in range(len(names)) if value != ignored]
    values = {value: label for label, value in enumerate(kept)} | {ignored: IGNORED}
    train, test = (
        masked_images(
            root,
            *_paired(root, f"images/{parts['images'][split]}", f"masks/{parts['masks'][split]}"),
            [names[value] for value in kept],
            values,
        )
        for split in ("train", tested)
    )
    others = parts["images"].keys() & parts["masks"].keys() - {"train", tested}
    return Sides(train, test, note=f"tested on {parts['images'][tested]}/" if others else "")


def _parts(folder: Path) -> dict[str, str]:
    """Names of the subfolders of the dataset's parts (train, val, test), by the parts."""
    if not folder.is_dir():
        raise DownstreamError(f"{folder}: no such folder: {folder.parent} must hold images/ and masks/")
    return {part: name for name in reversed(subfolders(folder)) if (part := SPLITS.get(name.lower()))}


def _paired(root: Path, images: str, masks: str) -> tuple[list[str], list[str]]:
    """Paths of the images and of their masks in ``root``, in the order of the images' paths without their suffixes."""
    of_images, of_masks = (dict(_by_stem(root, folder)) for folder in (images, masks))
    for here, there, missing in (
        (of_images, of_masks, f"mask {masks}"),
        (of_masks, of_images, f"image {images}"),
    ):
        if lacking := sorted(here.keys() - there.keys()):
            more = f", and {len(lacking) - 1} more like it" if len(lacking) > 1 else ""
            raise DownstreamError(f"{root / here[lacking[0]]}: has no {missing}/{lacking[0]}.*{more}")
    stems = sorted(of_images)
    return [of_images[stem] for stem in stems], [of_masks[stem] for stem in stems]


def _by_stem(root: Path, folder: str) -> Iterator[tuple[str, str]]:
    """Path without its suffix of each image in a folder and below it, relative to it, and its path in ``root``."""
    earlier: dict[str, str] = {}
    for name in images_in(root / folder):
        stem = PurePath(name).with_suffix("").as_posix()
        if stem in earlier:
            raise DownstreamError(f"{root / folder / name}: {earlier[stem]} has the same name: remove one")
        earlier[stem] = name
        yield stem, f"{folder}/{name}"
    if not earlier:
        raise DownstreamError(f"{root / folder}: holds no {folder.partition('/')[0]}")


def _class_names(root: Path, settings: DownstreamSettings) -> Sequence[str]:
    names = settings.classes
    file = root / CLASS_NAMES
    if names is None:
        if not file.is_file():
            raise DownstreamError(
                f"{root}: has no class names: name the values 0, 1, 2 ..., one a line, in {file} or in a file that the "
                "setting classes names"
            )
        try:
            names = tuple(read_classes(file))
        except ValueError as error:
            raise DownstreamError(str(error)) from None
    kept = len(names) - (settings.ignored < len(names))
    if not 2 <= kept <= IGNORED or len(set(names)) < len(names):
        problem = "a name more than once" if len(set(names)) < len(names) else f"{kept} classes"
        raise DownstreamError(f"{root}: classes names {problem}: must be 2 to {IGNORED} different names")
    return names
