"""Batches of images with masks: what moves an image moves its mask alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from striped_images import SeveralLabels, Squares, Stripes
from torchvision import tv_tensors
from torchvision.transforms import v2

from formulavision.data.items import check_targets, target_of
from formulavision.data.loading import Prepared, image_cache, make_loader
from formulavision.data.resizing import mask_to_square
from formulavision.util.errors import ConfigError


class Equal:
    """Images whose pixels are the values of their masks, each pixel at random."""

    target = "semantic"

    def __init__(self, size: tuple[int, int] = (40, 40), classes: int = 200, dtype: torch.dtype = torch.uint8) -> None:
        self.size = size
        self.dtype = dtype
        self.classes = [str(i) for i in range(classes)]
        self.num_classes = classes

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        random = torch.Generator().manual_seed(index)
        mask = torch.randint(0, self.num_classes, self.size, generator=random)
        return (mask % 256).to(torch.uint8)[None], mask.to(self.dtype)


def prepared(source: Any, **given: Any) -> Prepared:
    settings = {"resize": 40, "crop": 32, "augment": True, "flip": True, "seed": 1, "cache": None, **given}
    return Prepared(source, **settings)


KEYS = [(epoch, index) for epoch in range(6) for index in range(12)]


@pytest.mark.parametrize(
    "settings", [{}, {"crop": 40}, {"flip": False}, {"augment": False}, {"crop": 40, "flip": False}], ids=str
)
def test_crops_and_flips_move_image_and_mask_alike(settings: dict[str, Any]) -> None:
    images, masks = prepared(Equal(), **settings).__getitems__(KEYS)
    assert masks.dtype == torch.uint8 and masks.shape == (72, *images.shape[2:])
    assert torch.equal(images[:, 0], masks)


def test_crops_and_flips_of_masks_are_of_all_kinds() -> None:
    source = Equal()
    whole = source[5][1]
    windows = [whole[y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
    allowed = [w for window in windows for w in (window, window.flip(-1))]
    _, masks = prepared(source).__getitems__([(epoch, 5) for epoch in range(60)])
    seen = {next(i for i, w in enumerate(allowed) if torch.equal(mask, w)) for mask in masks}
    assert len(seen) > 30 and {i % 2 for i in seen} == {0, 1}


@pytest.mark.parametrize("mode", ["squash", "center", "border"])
@pytest.mark.parametrize("size", [(41, 41), (31, 51), (77, 31), (63, 63), (11, 13)], ids=str)
@pytest.mark.parametrize(("resize", "crop"), [(36, 32), (37, 32), (48, 47)])
def test_masks_are_resized_on_the_grid_of_timms_images(
    mode: Any, size: tuple[int, int], resize: int, crop: int
) -> None:
    # Sides are odd: no centre of a new pixel lies between two old ones.
    image, mask = Equal(size)[0]
    dataset: Any = type("One", (Equal,), {"__getitem__": lambda self, index: (image, mask)})()
    _, (found,) = prepared(dataset, resize=resize, crop=crop, mode=mode, augment=False).__getitems__([(0, 0)])
    transform = timm.data.create_transform(
        (3, crop, crop), crop_pct=crop / resize - 1e-9, crop_mode=mode, interpolation="nearest", mean=(0, 0, 0),
        std=(1, 1, 1),
    )  # fmt: skip
    picture = Image.fromarray(mask.numpy() + np.uint8(1)).convert("RGB")  # 0 is timm's border
    expected = (transform(picture)[0] * 255).round().to(torch.uint8)
    assert torch.equal(torch.where(found == 255, 0, found + 1).to(torch.uint8), expected)
    assert (mode == "border" and size[0] != size[1]) or (found != 255).all()


def test_more_than_254_classes_have_masks_of_32_bits() -> None:
    source = Equal(classes=70_000, dtype=torch.int64)
    images, masks = prepared(source).__getitems__(KEYS)
    assert masks.dtype == torch.int32 and int(masks.max()) > 65_535
    assert torch.equal(images[:, 0].int(), masks % 256)
    square = mask_to_square(masks[:2, None, :20], 36, 32, "border")
    assert square.dtype == torch.int32 and (square == 65_535).any()
    kept = set(square.unique().tolist()) - {65_535}
    assert kept <= set(masks[:2].unique().tolist()), "values are not rounded"


@pytest.mark.parametrize("workers", [0, 2])
def test_masks_kept_in_memory_are_the_same(workers: int) -> None:
    source = Equal((30, 50))
    cache = image_cache(source, 40, workers=workers)
    assert cache is not None
    plain = list(make_loader(prepared(source), batch_size=5, shuffle=True, workers=0, pin=False))
    loader = make_loader(prepared(source, cache=cache), batch_size=5, shuffle=True, workers=workers, pin=False)
    for _ in range(2):
        for (a, first), (b, second) in zip(plain, loader, strict=True):
            assert torch.equal(a, b) and torch.equal(first, second)
    assert cache.filled.all()


def test_masks_count_for_the_memory_that_a_cache_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("formulavision.data.loading.CACHE_BYTES", 12 * 40 * 40 * 4)
    assert image_cache(Equal(dtype=torch.int32), 40, workers=0) is None
    assert image_cache(Equal(), 40, workers=0) is not None


class Drawn(Equal):
    """New items in every epoch."""

    endless = True

    def fresh_items(self, keys: Any) -> list[Any]:
        return [self[epoch * 100 + index] for epoch, index in keys]


def test_fresh_masks_come_with_their_images() -> None:
    images, masks = prepared(Drawn(), fresh=True).__getitems__(KEYS)
    assert torch.equal(images[:, 0], masks)
    assert not torch.equal(masks[0], masks[12])


# A user's transform ---------------------------------------------------------------------------------------------------


def test_a_transform_of_torchvision_moves_image_and_mask_alike() -> None:
    seen = []

    def looking(image: Any, mask: Any) -> Any:
        seen.append((type(image), type(mask)))
        return image, mask

    nearest = v2.InterpolationMode.NEAREST
    moving = v2.Compose(
        [v2.RandomResizedCrop(40, interpolation=nearest), v2.RandomVerticalFlip(), v2.RandomRotation(20), looking]
    )
    images, masks = prepared(Equal(), transform=moving).__getitems__(KEYS)
    assert torch.equal(images[:, 0], masks) and type(images) is type(masks) is torch.Tensor
    assert set(seen) == {(tv_tensors.Image, tv_tensors.Mask)}
    again, _ = prepared(Equal(), transform=moving).__getitems__(KEYS[::-1])
    assert torch.equal(images, again.flip(0))


def test_the_masks_of_the_caller_stay_as_they_are() -> None:
    image, mask = Equal()[0]
    kept: Any = type("Kept", (Equal,), {"__getitem__": lambda self, index: (image, mask)})()
    before = mask.clone()
    prepared(kept, transform=lambda image, mask: (image, mask.fill_(0))).__getitems__([(0, 0)])
    assert torch.equal(mask, before)


@pytest.mark.parametrize(
    ("transform", "told"),
    [
        (lambda image, mask: image, r"must give \(image, mask\) for an image and its mask, gave uint8 \[1, 40, 40\]"),
        (lambda image, mask: (image, mask.float()), r"must give a mask \[h, w\] of integers, gave float32 \[40, 40\]"),
        (lambda image, mask: (image, mask[None]), r"must give a mask \[h, w\] of integers, gave uint8 \[1, 40, 40\]"),
        (lambda image, mask: (image, mask[2:]), "gives an image of 40 x 40 pixels with a mask of 38 x 40"),
        (lambda image, mask: (image.float(), mask), r"must give a uint8 tensor \[c, h, w\]"),
    ],
)
def test_a_transform_that_loses_the_mask_is_refused(transform: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=f"^transform: {told}"):
        prepared(Equal(), transform=transform).__getitems__(KEYS[:1])


# Masks that cannot be used --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (torch.zeros(36, 35, dtype=torch.uint8),
         "a mask is 36 x 35 pixels, and its image 36 x 36: sizes must be equal"),
        (torch.full((36, 36), 3, dtype=torch.uint8),
         "a pixel has the value 3, and there are 3 classes: must be 0 to 2, or 255 for ignored pixels"),
        (torch.full((36, 36), 255), "a pixel has the value 255, .* or 65535 for ignored pixels"),
        (torch.full((36, 36), -1), "a pixel has the value -1"),
        (torch.zeros(36, 36), r"must be tensors of integers \[h, w\], found float32 \[36, 36\]"),
        (torch.zeros(36, 36, dtype=torch.bool), r"must be tensors of integers \[h, w\], found bool"),
        (np.zeros((36, 36), np.uint8), "must be tensors of integers .*, found a ndarray"),
    ],
)  # fmt: skip
def test_a_mask_that_does_not_fit_is_refused(mask: Any, told: str) -> None:
    class Wrong(Squares):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index) if index != 23 else (super().__getitem__(index)[0], mask)

    with pytest.raises(ConfigError, match=f"^masks: {told}"):
        check_targets(Wrong())
    if isinstance(mask, torch.Tensor):
        with pytest.raises(ConfigError, match=f"^masks: {told}"):
            prepared(Wrong()).__getitems__([(0, 23)])


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (
            torch.zeros(4, dtype=torch.int8),
            r"must be integers \[3\], one for each class, in a tensor, found int8 \[4\]",
        ),
        (torch.zeros(3), r"must be integers \[3\], one for each class, in a tensor, found float32 \[3\]"),
        (np.zeros(3, np.int8), "must be integers .*, found a ndarray"),
        (torch.tensor([0, 2, 1]), r"an image has \[0, 2, 1\]: must be 1 .present., 0 .absent. or -1 .not counted."),
    ],
)
def test_several_labels_that_do_not_fit_are_refused(labels: Any, told: str) -> None:
    class Wrong(SeveralLabels):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index) if index != 23 else (super().__getitem__(index)[0], labels)

    with pytest.raises(ConfigError, match=f"^labels: {told}"):
        check_targets(Wrong())
    with pytest.raises(ConfigError, match=f"^labels: {told}"):
        prepared(Wrong()).__getitems__([(0, 23)])


def test_labels_of_any_kind_of_integers_are_taken() -> None:
    class Wide(SeveralLabels):
        def __getitem__(self, index: int) -> Any:
            image, labels = super().__getitem__(index)
            return image, (labels == 1) if index % 2 else labels.long()

    _, labels = prepared(Wide()).__getitems__([(0, 0), (0, 1)])
    assert labels.dtype == torch.int8 and labels.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_ignored_pixels_are_no_class_values() -> None:
    check_targets(Squares())
    check_targets(Stripes())
    check_targets(SeveralLabels())


def test_the_target_is_told_by_the_dataset_or_its_first_item() -> None:
    assert [target_of(data) for data in (Squares(), Stripes(), SeveralLabels())] == ["semantic", "class", "labels"]
    bare: Any = [Squares()[0]]
    assert target_of(bare) == "semantic"
    boxes: Any = [(torch.zeros(3, 8, 8, dtype=torch.uint8), {"boxes": torch.zeros(0, 4)})]
    assert target_of(boxes) == "objects"


def test_masks_without_a_pixel_that_counts_are_refused_before_the_work() -> None:
    class Ignored:
        target, classes, num_classes = "semantic", ("sky", "road"), 2

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.zeros((3, 8, 8), dtype=torch.uint8), torch.full((8, 8), 255, dtype=torch.uint8)

    with pytest.raises(ConfigError, match="all pixels of the masks that were looked at are ignored: there is nothing"):
        check_targets(Ignored())


class Seldom:
    """Masks of two classes and ignored pixels; the second class is in the images ``having``."""

    target, classes, num_classes = "semantic", ("sky", "road"), 2

    def __init__(self, *having: int, dtype: torch.dtype = torch.uint8) -> None:
        self.having = having
        self.dtype = dtype

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        mask = torch.zeros((8, 8), dtype=self.dtype)
        mask[4:] = 255 if self.dtype == torch.uint8 else 65535
        mask[0] = int(index in self.having)
        return torch.zeros((3, 8, 8), dtype=torch.uint8), mask


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_masks_of_one_class_teach_nothing(dtype: torch.dtype) -> None:
    with pytest.raises(ConfigError, match=r"all pixels are 'sky' or ignored: there is nothing .* 255 is ignored"):
        check_targets(Seldom(dtype=dtype))
    check_targets(Seldom(dtype=dtype), learnt=False)
    check_targets(Seldom(1, dtype=dtype))  # none of those looked at first
    check_targets(Seldom(99, dtype=dtype))
