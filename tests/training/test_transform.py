"""A user's transform of the training images: random in the same way whatever loads the images, also after resuming."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comparing_runs import comparable, die_after, same
from pair import Pair
from torchvision.transforms import v2

from formulavision.data.loading import Prepared
from formulavision.recipes.recipe import Recipe
from formulavision.training import Run, finetune, pretrain
from formulavision.util.errors import ConfigError

EVERY_STEP = {"checkpoint_minutes": 0}


class Noisy:
    """Random numbers of three kinds, and another size."""

    def __repr__(self) -> str:
        return "Noisy()"

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        image //= 2
        added = torch.randint(0, 60, image.shape) + random.randrange(20) + np.random.randint(20)  # noqa: NPY002
        return (image + added).to(torch.uint8)[:, 2:, 1:]


AUGMENT = v2.Compose([v2.RandomResizedCrop(40, antialias=True), v2.ColorJitter(0.5), v2.RandAugment(), Noisy()])


@pytest.mark.parametrize("workers", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_a_random_transform_resumes_exactly(stripes: Any, small: Any, tmp_path: Path, workers: int) -> None:
    settings = {**small, **EVERY_STEP}
    images = stripes(channels=3)
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate()
    whole = pretrain(images, out=tmp_path / "whole", transform=AUGMENT, settings=settings, show_progress=False)
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    for i, steps in enumerate((1, 2)):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
            die_after(steps, patch)
            pretrain(
                images, out=tmp_path / "run", transform=AUGMENT, settings={**settings, "workers": workers},
                resume=i > 0, show_progress=False,
            )  # fmt: skip
        torch.rand(3)
    run = pretrain(images, out=tmp_path / "run", transform=AUGMENT, resume=True, show_progress=False)
    assert same(run.folder, whole.folder)
    assert comparable(run) == comparable(whole)


def test_the_transform_of_an_image_depends_on_seed_epoch_and_index_alone(stripes: Any) -> None:
    images: dict[str, Any] = {"resize": 32, "crop": 32, "augment": True, "flip": False, "cache": None}
    prepared = Prepared(stripes(), seed=1, transform=Noisy(), **images)
    keys = [(0, 3), (0, 4), (1, 3)]
    together, _ = prepared.__getitems__(keys)
    random.seed(8)
    alone = [prepared.__getitems__([key])[0][0] for key in reversed(keys)][::-1]
    assert torch.equal(torch.stack(alone), together)
    assert not torch.equal(together[0], together[2])
    other = Prepared(stripes(), seed=2, transform=Noisy(), **images)
    assert not torch.equal(other.__getitems__(keys)[0], together)


def test_fresh_images_are_transformed_in_loader_processes(
    small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe.from_dict({"generator": {"name": "perlin", "grid": 2}, "categories": 4, "instances": 6,
                               "canvas": {"size": 36, "padding": 0}})  # fmt: skip
    runs = [
        pretrain(recipe, out=tmp_path / str(workers), transform=transform, settings={**small, "workers": workers})
        for workers, transform in ((1, Noisy()), (0, Noisy()), (2, None))
    ]
    assert same(runs[0].folder, runs[1].folder) and not same(runs[0].folder, runs[2].folder)


@pytest.mark.slow  # each part of it is tested: two processes, and a random transform that does not depend on workers
def test_two_processes_transform_as_one_does(pair: Pair, stripes: Any, small: Any, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"transform": Noisy(), "settings": {**small, "learning_rate": 0.01}}
    one = pretrain(stripes(), out=tmp_path / "one", show_progress=False, **arguments)
    two = pair(pretrain, stripes(), out=tmp_path / "two", show_progress=False, **arguments)
    assert [row["train_loss"] for row in two.history] == pytest.approx([row["train_loss"] for row in one.history], 1e-3)


def test_images_of_the_caller_and_test_images_stay_as_they_are(pretrained: Run, small: Any, tmp_path: Path) -> None:
    kept = torch.randint(0, 255, (12, 3, 32, 32), dtype=torch.uint8)
    before = kept.clone()
    data = [(kept[i], i % 3) for i in range(12)]
    settings = {name: value for name, value in small.items() if name != "model"}
    seen = 0

    def blank(image: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += 1
        return image.fill_(7)

    arguments: dict[str, Any] = {"transform": blank, "settings": {**settings, "workers": 0}, "show_progress": False}
    finetune(pretrained.folder, (data, data[:6]), out=tmp_path / "run", **arguments)
    assert torch.equal(kept, before)
    assert seen == 1 + 2 * 12, "a trial, and the training images of two epochs"


def test_another_transform_than_the_runs_is_refused(stripes: Any, small: Any, tmp_path: Path) -> None:
    first = v2.Compose([v2.ColorJitter(0.5), Noisy()])
    settings = {**small, **EVERY_STEP}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        die_after(1, patch)
        pretrain(stripes(), out=tmp_path / "run", transform=first, settings=settings, show_progress=False)
    for other, told in ((None, "is absent and was Compose"), (v2.ColorJitter(0.5), "is ColorJitter.* and was Compose")):
        with pytest.raises(ConfigError, match=f"resume: transform {told}"):
            pretrain(stripes(), out=tmp_path / "run", transform=other, resume=True, show_progress=False)
    again = v2.Compose([v2.ColorJitter(0.5), Noisy()])
    pretrain(stripes(), out=tmp_path / "run", transform=again, resume=True, show_progress=False)

    def plain(image: torch.Tensor) -> torch.Tensor:
        return image

    run = pretrain(
        stripes(), out=tmp_path / "named", transform=plain, settings={**settings, "epochs": 1}, show_progress=False
    )
    assert run.settings["transform"].endswith("plain>")


@pytest.mark.parametrize(
    ("transform", "told"),
    [
        (
            v2.ToDtype(torch.float32),
            r"must give a uint8 tensor \[c, h, w\], c being 1 or 3, gave float32 \[1, 32, 32\]",
        ),
        (v2.ToPILImage(), "must give a uint8 tensor .*, gave a Image"),
        (lambda image: image[0], r".* gave uint8 \[32, 32\]"),
        (lambda image: image.expand(4, -1, -1), r".* gave uint8 \[4, 32, 32\]"),
        (lambda image: image[:, :0], r".* gave uint8 \[1, 0, 32\]"),
        (lambda image: 1 / 0, r"fails on a training image, uint8 \[1, 32, 32\] .ZeroDivisionError: division by zero"),
        ("flip", "a str is not allowed: must be a function of an image"),
    ],
)
def test_a_transform_that_gives_no_images_is_refused(
    stripes: Any, small: Any, tmp_path: Path, transform: Any, told: str
) -> None:
    with pytest.raises(ConfigError, match=f"^transform: {told}"):
        pretrain(stripes(), out=tmp_path / "run", transform=transform, settings=small, show_progress=False)
    assert not (tmp_path / "run").exists()


def test_a_transform_that_mixes_gray_and_colour_is_refused(stripes: Any, small: Any, tmp_path: Path) -> None:
    def mixed(image: torch.Tensor) -> torch.Tensor:
        return image.expand(random.choice((1, 3)), -1, -1)

    for workers in (0, 1):
        with pytest.raises(ConfigError, match=r"transform: must give images with the same number of channels"):
            pretrain(
                stripes(), out=tmp_path / str(workers), transform=mixed, settings={**small, "workers": workers},
                show_progress=False,
            )  # fmt: skip


def test_a_transform_that_cannot_be_sent_is_refused(stripes: Any, small: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^transform: cannot be sent to other processes"):
        pretrain(
            stripes(), out=tmp_path / "run", transform=lambda image: image, settings={**small, "devices": 2},
            show_progress=False,
        )  # fmt: skip
