"""Pictures that a recipe draws are mixed into training images as the published program of PixMix mixes them."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from cases import slow
from timm.data.auto_augment import _AUGMIX_TRANSFORMS

from formulavision.data.loading import Prepared, make_batches
from formulavision.data.pixmix import Mixing, add, coefficients, multiply
from formulavision.recipes.drawing import Drawer

PICTURES: dict[str, Any] = {
    "generator": "perlin", "categories": 4, "instances": 3, "canvas": {"size": 32, "padding": 0}
}  # fmt: skip
LIKE_CORRUPTIONS = {"ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing"}


class Noise:
    """Images of random pixels."""

    def __init__(self, channels: int = 3) -> None:
        self.channels = channels
        self.classes = ["one", "other"]
        self.num_classes = 2

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        pixels = np.random.default_rng(index).integers(0, 256, (self.channels, 32, 32), np.uint8)
        return torch.from_numpy(pixels), index % 2


def mixing(recipe: dict[str, Any] | None = None, **more: Any) -> Mixing:
    settings: dict[str, Any] = {
        "rounds": 4, "beta": 3.0, "severity": 3.0, "resize": 32, "crop": 32, "interpolation": "bilinear"
    }  # fmt: skip
    return Mixing(Drawer(recipe or PICTURES), **{**settings, **more})


def prepared(mixed: Mixing | None, channels: int = 3, **more: Any) -> Prepared:
    settings: dict[str, Any] = {"resize": 32, "crop": 32, "augment": True, "flip": False, "seed": 1, "cache": None}
    return Prepared(Noise(channels), mixing=mixed, **{**settings, **more})


def sources(mixed: Mixing, images: int = 400) -> list[list[torch.Tensor | None]]:
    return mixed.sources(7, [(epoch, index) for epoch in (0, 1) for index in range(images // 2)])


@pytest.mark.parametrize(
    # What the functions of pixmix_utils.py (andyzoujm/pixmix) return for these images and coefficients.
    ("a", "b", "added", "multiplied"),
    [
        (0.75, 0.25, [0.3125, 0.0, 0.375, 0.475], [0.297302, 0.0, 0.291295, 0.383366]),
        (1.5, -0.5, [0.125, 0.0, -0.15, 0.85], [0.176777, 0.0, 0.094281, 1.469694]),
        (2.0, -1.0, [0.0, 0.0, -0.5, 1.1], [0.125, 0.0, 0.044444, 3.6]),
    ],
)
def test_rounds_add_and_multiply_as_in_the_published_program(
    a: float, b: float, added: list[float], multiplied: list[float]
) -> None:
    image, other = torch.tensor([0.25, 0.0, 0.2, 0.6]), torch.tensor([0.5, 0.0, 0.9, 0.1])
    assert add(image, other, a, b).tolist() == pytest.approx(added, abs=1e-6)
    assert multiply(image, other, a, b).tolist() == pytest.approx(multiplied, abs=1e-6)


def test_coefficients_have_the_quantiles_of_the_published_program() -> None:
    random.seed(1)
    drawn = np.array([coefficients(3) for _ in range(20_000)])
    # Of 200,000 pairs of get_ab(3).
    published = [[0.462, 0.795, 1.001, 1.206, 1.534], [-0.540, -0.207, -0.001, 0.206, 0.537]]
    found = np.quantile(drawn, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0).T
    np.testing.assert_allclose(found, published, atol=0.02)
    assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(-0.625, abs=0.02)
    random.seed(1)
    weak = np.array([coefficients(100) for _ in range(1000)])
    assert np.abs(weak - [1, 0]).mean() < 0.02


def test_images_are_changed_by_augmixs_operations_without_those_that_are_like_corruptions() -> None:
    assert {op.name for op in mixing()._changes} == {*_AUGMIX_TRANSFORMS} - LIKE_CORRUPTIONS


def test_a_level_reaches_the_severity_and_no_more() -> None:
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    image[:, :, 16:] = 255
    moved: Counter[int] = Counter()
    (shift,) = (op for op in mixing(severity=6.0)._changes if op.name == "TranslateXRel")
    for number in range(200):
        random.seed(number)
        moved[round(shift.level_fn(random.uniform(0, 6), shift.hparams)[0] * 32)] += 1
    assert min(moved) == -6 and max(moved) == 6


def test_each_number_of_rounds_is_equally_likely_and_half_of_them_have_a_picture() -> None:
    found = sources(mixing(), 600)
    counts = Counter(map(len, found))
    assert set(counts) == {0, 1, 2, 3, 4} and all(85 < count < 155 for count in counts.values())
    own = [source is not None for rounds in found for source in rounds]
    assert 0.45 < np.mean(own) < 0.55


def test_the_rounds_of_an_image_have_one_picture_that_is_an_image_of_the_recipe() -> None:
    drawer = Drawer(PICTURES)
    every = {drawer.draw(index)[0].tobytes() for index in range(len(drawer))}
    seen = [{source.numpy().tobytes() for source in rounds if source is not None} for rounds in sources(mixing())]
    assert max(map(len, seen)) == 1
    assert set().union(*seen) == every


def test_larger_pictures_are_resized_and_cut_at_random() -> None:
    large = {**PICTURES, "canvas": {"size": 64, "padding": 0}}
    (whole,) = {source.shape for rounds in sources(mixing(large, resize=36)) for source in rounds if source is not None}
    assert whole == (1, 32, 32)
    assert mixing(large, resize=36).side == 36 and "resized to 36 x 36" in mixing(large, resize=36).describe()
    # A picture between the crop and the size that crops are cut from keeps its pixels.
    between = mixing({**PICTURES, "canvas": {"size": 34, "padding": 0}}, resize=36)
    assert between.side == 34 and "resized" not in between.describe()
    drawn = torch.from_numpy(np.stack([between.drawer.draw(index)[0] for index in range(len(between.drawer))]))
    windows = drawn[..., 0].unfold(1, 32, 1).unfold(2, 32, 1).reshape(-1, 32 * 32)
    known = {window.numpy().tobytes() for window in windows}
    cut = [source for rounds in sources(between) for source in rounds if source is not None]
    assert {source[0].contiguous().numpy().tobytes() for source in cut} <= known
    assert len({source[0].contiguous().numpy().tobytes() for source in cut}) > len(between.drawer)


def test_without_rounds_and_changes_an_image_stays_as_it_is() -> None:
    image, _ = Noise()[0]
    for number in range(8):
        random.seed(number)
        changed = random.random() < 0.5
        random.seed(number)
        assert changed or torch.equal(mixing().mix((image, [])), image)


@pytest.mark.parametrize(
    "recipe",
    [
        PICTURES,
        {**PICTURES, "canvas": {"size": 32, "padding": 0, "channels": 3}},
        {"generator": "bezier", "scene": {"objects": 2, "colors": "random"}, "images": 5, "categories": 3,
         "canvas": {"size": 64, "padding": 0}},
        {"parts": [{"generator": "perlin", "categories": 2}, {"generator": "bezier", "categories": 2}],
         "canvas": {"size": 32, "padding": 0}},
    ],
    ids=["gray", "colour", "scenes", "parts"],
)  # fmt: skip
@pytest.mark.parametrize("channels", [3, *slow(1)])
def test_any_recipe_is_mixed_into_gray_and_colour_images(recipe: dict[str, Any], channels: int) -> None:
    keys = [(0, index) for index in range(16)]
    mixed, labels = prepared(mixing(recipe), channels).__getitems__(keys)
    plain, own = prepared(None, channels).__getitems__(keys)
    assert mixed.shape == (16, 3, 32, 32) and mixed.dtype == torch.uint8 and torch.equal(labels, own)
    assert (mixed != plain).flatten(1).any(1).sum() > 8


def test_mixing_depends_on_seed_epoch_and_index_alone() -> None:
    images = prepared(mixing(), flip=True)
    keys = [(0, 3), (0, 4), (1, 3), (5, 60)]
    before = random.getstate(), torch.get_rng_state()
    together, _ = images.__getitems__(keys)
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])
    random.seed(8)
    alone = [images.__getitems__([key])[0][0] for key in reversed(keys)][::-1]
    assert torch.equal(torch.stack(alone), together)
    many = [(0, index) for index in range(32)]
    first, _ = images.__getitems__(many)
    assert not torch.equal(first, images.__getitems__([(1, index) for _, index in many])[0])
    assert not torch.equal(first, prepared(mixing(), flip=True, seed=2).__getitems__(many)[0])


def test_copies_of_an_image_are_mixed_differently() -> None:
    images = prepared(mixing(), repeats=4)
    batch = next(iter(make_batches(images, batch_size=32, shuffle=True)))
    mixed, _ = images.__getitems__(batch)
    assert len({image.numpy().tobytes() for image in mixed[:4]}) > 1


def test_evaluation_and_clustering_see_images_without_pictures() -> None:
    keys = [(0, index) for index in range(16)]
    assert torch.equal(prepared(mixing()).plain().__getitems__(keys)[0], prepared(None).__getitems__(keys)[0])
