"""Random changes of training images: timm's, torchvision's, and each image several times in an epoch."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from comparing_runs import comparable, same, stopped_and_resumed
from PIL import Image
from timm.data import create_transform

from formulavision.data.augmentation import Augmentation
from formulavision.data.loading import EpochBatches, Prepared, make_batches, random_windows
from formulavision.generators.streams import Stream, random_stream
from formulavision.training import TrainSettings, pretrain
from formulavision.training.optimization import make_optimizer
from formulavision.training.tasks import for_target
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError

FILL = [51, 102, 153]
EVERYTHING = {
    "random_resized_crop": [0.08, 1.0],
    "rand_augment": "rand-m9-mstd0.5-inc1",
    "color_jitter": 0.4,
    "random_erasing": 0.5,
    "vertical_flip": True,
    "repeated_augmentation": 3,
    "interpolation": "bicubic",
}


class Numbered:
    """Images of one value each, 16 * epoch + index, new in every epoch."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.classes = ["one", "other"]
        self.num_classes = 2

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.fresh_items([(0, index)])[0]

    def fresh_items(self, keys: list[tuple[int, int]]) -> list[tuple[torch.Tensor, int]]:
        return [(torch.full((1, 32, 32), 16 * epoch + index, dtype=torch.uint8), index % 2) for epoch, index in keys]


def augmentation(**more: Any) -> Augmentation:
    settings: dict[str, Any] = {
        "crop": 32, "area": (0.08, 1.0), "rand_augment": "rand-m9-mstd0.5-inc1", "color_jitter": 0.0,
        "interpolation": "bicubic", "fill": FILL,
    }  # fmt: skip
    return Augmentation(**{**settings, **more})


def prepared(source: Any, **more: Any) -> Prepared:
    settings: dict[str, Any] = {
        "resize": 36, "crop": 32, "augment": True, "flip": False, "seed": 1, "cache": None,
    }  # fmt: skip
    return Prepared(source, **{**settings, **more})


def seed(number: int) -> None:
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002
    torch.manual_seed(number)


def test_images_are_those_of_timms_own_transform() -> None:
    mean = tuple(value / 255 for value in FILL)
    crop, changes, _ = create_transform(
        32, is_training=True, hflip=0.0, auto_augment="rand-m9-mstd0.5-inc1", interpolation="bicubic", mean=mean,
        separate=True,
    )  # fmt: skip
    ours = augmentation()
    image = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 60, 47), np.uint8))
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    for number in range(40):
        seed(number)
        expected = changes(crop(picture))
        seed(number)
        found = ours.change(ours.cut(image))
        assert np.array_equal(found.permute(1, 2, 0).numpy(), np.array(expected))


def test_gray_images_become_rgb_with_equal_channels_where_they_are_changed() -> None:
    image = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 60, 60), np.uint8))
    cut = augmentation().cut(image)
    assert cut.shape == (1, 32, 32)
    # Without posterizing and so on of a colour of its own, the channels stay equal.
    changed = augmentation(fill=[9, 9, 9], color_jitter=0.4).change(cut)
    assert changed.shape == (3, 32, 32) and torch.equal(changed[0], changed[2])


def test_an_images_augmentation_depends_on_seed_epoch_and_index_alone(stripes: Any) -> None:
    images = prepared(stripes(), augmentation=augmentation(color_jitter=0.4), flip=True, vertical_flip=True)
    keys = [(0, 3), (0, 4), (1, 3)]
    before = random.getstate(), torch.get_rng_state()
    together, _ = images.__getitems__(keys)
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])
    random.seed(8)
    alone = [images.__getitems__([key])[0][0] for key in reversed(keys)][::-1]
    assert torch.equal(torch.stack(alone), together) and together.dtype == torch.uint8
    assert not torch.equal(together[0], together[2])
    other = prepared(stripes(), augmentation=augmentation(), flip=True, vertical_flip=True, seed=2)
    assert not torch.equal(other.__getitems__(keys)[0], together)


def test_evaluation_and_clustering_see_images_without_augmentation(stripes: Any) -> None:
    images = prepared(stripes(), augmentation=augmentation(), repeats=3, vertical_flip=True)
    plain = prepared(stripes(), augment=False)
    assert torch.equal(images.plain().__getitems__([(0, 1), (0, 2)])[0], plain.__getitems__([(0, 1), (0, 2)])[0])
    assert images.plain().repeats == 1


def test_vertical_flips_are_of_each_images_own_stream() -> None:
    keys = [(0, 0), (3, 7), (5, 1), (2**20, 2**40)]
    flips = random_windows(keys, 9, seed=5, flip=True, vertical_flip=True)[2]
    for key, found in zip(keys, flips.tolist(), strict=True):
        *_, mirror, turn = random_stream(5, Stream.AUGMENT, *key).random(4)
        assert found == (mirror < 0.5) + 2 * (turn < 0.5)
    many = random_windows([(0, i) for i in range(400)], 0, seed=1, flip=True, vertical_flip=True)[2]
    assert all(70 < count < 130 for count in Counter(many.tolist()).values())


def test_images_are_turned_upside_down(stripes: Any) -> None:
    whole = prepared(stripes(), resize=32).__getitems__([(0, i) for i in range(16)])[0]
    turned = prepared(stripes(), resize=32, vertical_flip=True).__getitems__([(0, i) for i in range(16)])[0]
    upside_down = [torch.equal(a.flip(1), b) and not torch.equal(a, b) for a, b in zip(whole, turned, strict=True)]
    assert any(upside_down) and not all(upside_down)


def test_repeated_images_follow_each_other_with_other_augmentation() -> None:
    batches = EpochBatches(20, 8, seed=1, shuffle=True, repeats=3)
    seen = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        keys = [key for batch in batches for key in batch]
        assert len(keys) == 20 and len(set(keys)) == 20
        assert {number // 3 for number, _ in keys} == {epoch}
        indices = [index for _, index in keys]
        assert indices[0] == indices[1] == indices[2] != indices[3]
        assert len(set(indices)) == 7
        seen.append(set(indices))
    assert seen[0] != seen[1]


def test_copies_go_to_different_processes() -> None:
    alone = list(EpochBatches(20, 8, seed=1, shuffle=True, repeats=3))
    shares = [list(EpochBatches(20, 8, seed=1, shuffle=True, repeats=3, rank=r, ranks=2)) for r in (0, 1)]
    for whole, first, second in zip(alone, *shares, strict=True):
        assert whole[::2] == first and whole[1::2] == second


def test_a_repeated_image_is_drawn_once_an_epoch_anew() -> None:
    images = prepared(Numbered(16), resize=32, repeats=2, fresh=True)
    batch = next(iter(make_batches(images, batch_size=4, shuffle=True)))
    drawn, _ = images.__getitems__(batch)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[1], drawn[2])
    later, _ = images.__getitems__([(epoch + 2, index) for epoch, index in batch])
    assert not torch.equal(later[0], drawn[0])


@pytest.mark.parametrize("workers", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_a_run_with_every_augmentation_resumes_exactly(stripes: Any, small: Any, tmp_path: Path, workers: int) -> None:
    settings = {**small, **EVERYTHING, "mixup": 0.8, "cutmix": 1.0, "checkpoint_minutes": 0}
    whole = pretrain(stripes(), out=tmp_path / "whole", settings=settings, show_progress=False)
    run = stopped_and_resumed(stripes(), tmp_path / "run", {**settings, "workers": workers}, [1, 3])
    assert same(run.folder, whole.folder)
    assert comparable(run) == comparable(whole)


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name != "interpolation"])
@pytest.mark.slow
def test_each_augmentation_alone_changes_what_is_trained_and_resumes(
    stripes: Any, small: Any, tmp_path: Path, name: str
) -> None:
    settings = {**small, name: EVERYTHING[name], "checkpoint_minutes": 0}
    plain = pretrain(stripes(), out=tmp_path / "plain", settings=small, show_progress=False)
    whole = pretrain(stripes(), out=tmp_path / "whole", settings=settings, show_progress=False)
    run = stopped_and_resumed(stripes(), tmp_path / "run", {**settings, "workers": 1}, [2])
    assert same(run.folder, whole.folder) and not same(run.folder, plain.folder)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"rand_augment": "augmix-m3"}, "rand_augment"),
        *(({"rand_augment": f"rand-{word}"}, "rand_augment") for word in ("m9.5-mstd0.5", "inc0.5", "n2.5", "w0")),
        ({"rand_augment": "rand-m9-q3"}, r"rand_augment: 'rand-m9-q3' is not allowed: must match pattern"),
        ({"random_resized_crop": [0.5, 0.2]}, r"random_resized_crop \[0.5, 0.2\] must be two rising shares"),
        ({"random_resized_crop": [0.0, 1.0]}, "must be two rising shares above 0"),
        ({"random_erasing": 1.5}, "random_erasing: 1.5 is not allowed"),
        ({"repeated_augmentation": 0}, "repeated_augmentation: 0 is not allowed"),
        ({"layer_decay": 0}, "layer_decay: 0 is not allowed"),
    ],
)
def test_a_wrong_augmentation_is_one_line(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as error:
        parse(TrainSettings, settings)
    assert "\n" not in str(error.value)


def test_augmentation_that_moves_pixels_is_refused_for_masks() -> None:
    named = "random_resized_crop and rand_augment and random_erasing: must be unset"
    with pytest.raises(ConfigError, match=named):
        for_target(TrainSettings(**EVERYTHING), "semantic")
    assert for_target(TrainSettings(vertical_flip=True, color_jitter=0.4), "semantic").vertical_flip
    assert for_target(TrainSettings(**EVERYTHING), "labels").random_erasing == 0.5


# Layer-wise decay -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_layers_have_the_learning_rates_that_timm_gives_them(name: str, optimizer: str) -> None:
    model = timm.create_model(name, num_classes=4)
    settings = TrainSettings(optimizer=optimizer, layer_decay=0.65, learning_rate=0.02, weight_decay=0.05)
    rates = {id(p): group["lr"] for group in make_optimizer(model, settings).param_groups for p in group["params"]}
    theirs = timm.optim.create_optimizer_v2(model, optimizer, lr=0.02, weight_decay=0.05, layer_decay=0.65)
    expected = {id(p): group["lr"] * group["lr_scale"] for group in theirs.param_groups for p in group["params"]}
    assert rates == pytest.approx(expected) and len(set(rates.values())) > 2


def test_a_module_of_ones_own_has_no_layers(stripes: Any, small: Any, tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    settings = {name: value for name, value in small.items() if name != "model"} | {"layer_decay": 0.5}
    with pytest.raises(ConfigError, match=r"layer_decay: is 0\.5: must be 1: only timm's models know their layers"):
        pretrain(stripes(), out=tmp_path / "run", model=net, settings=settings, show_progress=False)
    assert not (tmp_path / "run").exists()
