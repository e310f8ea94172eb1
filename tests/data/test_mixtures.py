"""A mixture is one dataset of several recipes and stores, each with its share of every epoch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import slow
from torch.utils.data import ConcatDataset
from woven_images import woven

from formulavision import FormulaDataset, Store, StoredDataset, generate
from formulavision.data.device_loading import draw_on_device, make_device_loader
from formulavision.data.labels import LabelSettings, Relabelled, relabel
from formulavision.data.loading import EpochBatches, Prepared, is_drawn, make_batches, make_loader
from formulavision.data.mixtures import MixtureImages, as_mixture, images_of_epoch, load_mixture
from formulavision.training.pretraining_data import open_data
from formulavision.training.settings import TrainSettings
from formulavision.training.tasks import positive_weights
from formulavision.util.errors import ConfigError

CANVAS = {"size": 16, "padding": 0}
PERLIN = {"generator": {"name": "perlin", "grid": 2}, "categories": 2, "instances": 5, "canvas": CANVAS}
MOIRE = {"generator": "moire", "categories": 3, "instances": 2, "canvas": CANVAS}
SCENES = {"generator": {"name": "ifs", "dots": 1000}, "categories": 2, "scene": {"objects": [1, 2], "size": 0.6},
          "images": 6, "canvas": CANVAS}  # fmt: skip
TRAINING: dict[str, Any] = {"resize": 18, "crop": 16, "augment": True, "flip": True, "seed": 1, "fresh": True}


def keys_of_epochs(mixture: MixtureImages, epochs: int, **more: Any) -> list[list[tuple[int, int]]]:
    prepared = Prepared(mixture, cache=None, **TRAINING)
    batches = make_batches(prepared, batch_size=4, shuffle=True, **more)
    found = []
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        found.append([key for batch in batches for key in batch])
    return found


# Images and labels ----------------------------------------------------------------------------------------------------


def test_the_images_are_those_of_the_parts_and_the_labels_follow_each_other() -> None:
    parts: list[Any] = [FormulaDataset(PERLIN), FormulaDataset(MOIRE)]
    mixture = MixtureImages(parts)
    expected: Any = ConcatDataset(parts)
    assert len(mixture) == len(expected) == 16
    for (image, label), (own, _) in zip(mixture.__getitems__(list(range(16))), expected, strict=True):
        assert torch.equal(image, own) and isinstance(label, int)
    assert [mixture[index][1] for index in range(16)] == [0] * 5 + [1] * 5 + [2, 2, 3, 3, 4, 4]
    assert mixture.num_classes == 5
    assert mixture.classes == [f"{part}-{name}" for part in (0, 1) for name in parts[part].classes]
    assert parts[1][0][1] == 0 and parts[1].targets == [0, 0, 1, 1, 2, 2], "the parts are unchanged"
    assert mixture.parts[1].targets == [2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("target", ["labels", "semantic", "objects"])
def test_categories_of_scenes_follow_each_other_in_every_target(target: Any, tmp_path: Path) -> None:
    store = StoredDataset(generate(SCENES | {"seed": 2}, tmp_path / "store"), target=target)
    first = FormulaDataset(SCENES, target=target)
    mixture = MixtureImages([first, store])
    (own_image, own), (image, found) = store[3], mixture[6 + 3]
    assert torch.equal(image, own_image)
    if target == "labels":
        assert found.tolist() == [0, 0, *own.tolist()] and mixture[0][1].tolist() == [*first[0][1].tolist(), 0, 0]
        # Of both parts, although the first 6 of 12 images are those of one.
        assert (positive_weights(mixture)[2:] < 100).all()
    elif target == "semantic":
        assert torch.equal(found, torch.where(own > 0, own + 2, 0)) and found.dtype == own.dtype
        assert mixture.classes == ["background", "0-00000", "0-00001", "1-00000", "1-00001"]
    else:
        assert torch.equal(found["labels"], own["labels"] + 2) and torch.equal(found["boxes"], own["boxes"])


def test_categories_that_two_parts_have_in_common_are_told(caplog: pytest.LogCaptureFixture) -> None:
    fractals = {"generator": {"name": "ifs", "dots": 1000}, "categories": 3, "instances": 2, "canvas": CANVAS}
    for first, second, told in (
        (MOIRE, MOIRE | {"categories": 2}, "2 categories of 'moire' in two parts of the mixture"),
        (fractals, fractals | {"instances": 1}, "3 categories of 'ifs' in two parts of the mixture"),
        (fractals, fractals | {"seed": 2}, ""),
        (MOIRE, fractals, ""),
    ):
        caplog.clear()
        open_data(as_mixture([first, second]), TrainSettings(), show_progress=False)
        assert told in caplog.text and bool(told) is bool(caplog.text)


def test_label_noise_takes_labels_of_all_parts() -> None:
    mixture = MixtureImages([FormulaDataset(PERLIN), FormulaDataset(MOIRE)], [0.9, 0.1])
    noisy = relabel(mixture, LabelSettings(noise=1.0))
    assert isinstance(noisy, Relabelled)
    labels = [label for _, label in noisy.fresh_items([(0, index) for index in range(16)])]
    assert len(set(labels[:10])) > 2 and max(labels) <= 4
    assert keys_of_epochs(noisy, 2) == keys_of_epochs(mixture, 2)  # type: ignore[arg-type]
    scenes = [FormulaDataset(SCENES, target="labels"), FormulaDataset(SCENES, target="labels")]
    changed = relabel(MixtureImages(scenes), LabelSettings(noise=1.0))
    found = torch.stack([changed[index][1] for index in range(12)])
    assert found[:6, 2:].any() and found[6:, :2].any()
    assert not torch.equal(found[:6], found[6:]), "scenes of the same number in two parts have noise of their own"


def test_label_noise_of_a_stores_images_is_the_same_in_every_pass(tmp_path: Path) -> None:
    stored = StoredDataset(generate(PERLIN, tmp_path / "store"))
    for parts in ([stored, FormulaDataset(PERLIN)], [FormulaDataset(PERLIN), stored]):
        noisy = relabel(MixtureImages(parts), LabelSettings(noise=0.8))
        assert isinstance(noisy, Relabelled)
        first, second = ([noisy.fresh_items([(turn, i)])[0][1] for i in range(20)] for turn in (0, 1))
        same = slice(10) if parts[0] is stored else slice(10, 20)
        others = slice(10, 20) if parts[0] is stored else slice(10)
        assert first[same] == second[same] == [noisy[i][1] for i in range(20)][same]
        assert first[others] != second[others]


# Shares ---------------------------------------------------------------------------------------------------------------


def test_without_shares_each_image_is_once_in_an_epoch() -> None:
    mixture = MixtureImages([FormulaDataset(PERLIN), FormulaDataset(MOIRE)])
    plain = EpochBatches(16, 4, seed=1, shuffle=True)
    assert keys_of_epochs(mixture, 1)[0] == [key for batch in plain for key in batch]


@pytest.mark.parametrize(
    ("shares", "portions"),
    [([0.75, 0.25], [12, 4]), ([0.75, None], [12, 4]), ([None, 0.9], [2, 14]), ([0.5, 0.5], [8, 8])],
)
def test_a_share_is_a_share_of_the_images_of_each_epoch(shares: list[Any], portions: list[int]) -> None:
    mixture = MixtureImages([FormulaDataset(PERLIN), FormulaDataset(MOIRE)], shares)
    assert mixture.portions == portions
    seen: Counter[int] = Counter()
    keys: Counter[tuple[int, int]] = Counter()
    for epoch in keys_of_epochs(mixture, 12):
        assert len(epoch) == 16 and sum(index < 10 for _, index in epoch) == portions[0]
        keys.update(epoch)
        seen.update(index for _, index in epoch)
        for part in (range(10), range(10, 16)):
            counts = [seen[index] for index in part]
            assert max(counts) - min(counts) <= 1, "no image comes twice while another one waits"
    assert max(keys.values()) == 1, "each (pass, index) has its own augmentation, and its own new instance"


def test_three_parts_share_an_epoch_to_the_last_image() -> None:
    parts = [FormulaDataset(PERLIN), FormulaDataset(MOIRE), FormulaDataset(PERLIN | {"seed": 5})]
    assert MixtureImages(parts, [1 / 3, 1 / 3, 1 / 3]).portions == [9, 8, 9]
    assert MixtureImages(parts, [0.5, None, None]).portions == [13, 5, 8]


def test_new_images_of_a_pass_are_those_of_the_recipe_in_that_epoch(tmp_path: Path) -> None:
    drawn, stored = FormulaDataset(PERLIN), StoredDataset(generate(MOIRE, tmp_path / "store"))
    mixture = MixtureImages([drawn, stored], [0.75, 0.25])
    assert mixture.endless and is_drawn(mixture)
    new, read = mixture.fresh_items([(1, 3), (1, 12)])
    assert torch.equal(new[0], drawn.fresh_items([(1, 3)])[0][0]) and not torch.equal(new[0], drawn[3][0])
    assert torch.equal(read[0], stored[2][0]) and read[1] == 3
    assert not is_drawn(MixtureImages([stored, stored]))


def test_ranks_repeats_and_stretches_see_the_images_of_one_process() -> None:
    mixture = MixtureImages([FormulaDataset(PERLIN), FormulaDataset(MOIRE)], [0.25, 0.75])
    alone = keys_of_epochs(mixture, 3)
    shares = [keys_of_epochs(mixture, 3, rank=rank, ranks=2) for rank in (0, 1)]
    for whole, one, other in zip(alone, *shares, strict=True):
        assert sorted(whole) == sorted([*one, *other])
    (stretched,) = keys_of_epochs(mixture, 1, stretch=12, total=12)
    assert stretched == [key for epoch in alone for key in epoch]
    prepared = Prepared(mixture, cache=None, repeats=2, **TRAINING)
    repeated = [key for batch in make_batches(prepared, batch_size=4, shuffle=True) for key in batch]
    assert len(set(repeated)) == 16 and prepared._drawn(repeated)[::2] == alone[0][:8]


def test_the_order_of_a_part_depends_on_seed_part_and_pass() -> None:
    def taken(seed: int, epoch: int) -> list[list[int]]:
        return [array.tolist() for array in images_of_epoch([50, 50], [20, 80], seed=seed, epoch=epoch)]

    assert taken(1, 3) == taken(1, 3) != taken(2, 3)
    passes, indices = taken(1, 2)
    assert passes[:20] == [0] * 10 + [1] * 10 and sorted({*passes[20:]}) == [3, 4]
    assert indices[:10] != [index - 50 for index in indices[20:30]]


def test_loaders_give_the_same_batches_with_any_number_of_workers(tmp_path: Path) -> None:
    mixture = MixtureImages([FormulaDataset(PERLIN), StoredDataset(generate(MOIRE, tmp_path / "store"))], [0.5, 0.5])
    loaders = [
        make_loader(Prepared(mixture, cache=None, **TRAINING), workers=n, pin=False, batch_size=4, shuffle=True)
        for n in (0, 2)
    ]
    for one, other in zip(*loaders, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


SCENE = {"scene": {"objects": [1, 3], "size": [0.3, 0.7]}, "images": 8}


@pytest.mark.parametrize(("scene", "fresh"), [({}, True), *slow(({}, False), (SCENE, False), (SCENE, True))], ids=str)
def test_a_device_draws_the_batches_of_the_loaders(scene: dict[str, Any], fresh: bool) -> None:
    single = woven().to_dict()
    if scene:
        del single["instances"]
    parts = [FormulaDataset({**single, "categories": n, **scene, "seed": n}) for n in (2, 3)]
    mixture = MixtureImages(parts, [0.25, 0.75])
    if scene:
        mixture = relabel(mixture, LabelSettings(noise=0.5))  # type: ignore[assignment]
    settings = {**TRAINING, "resize": 36, "crop": 32, "fresh": fresh}
    drawn = draw_on_device(mixture, torch.device("cpu"), **settings)
    assert drawn is not None
    batches: dict[str, Any] = {"batch_size": 5, "shuffle": True}
    loader = make_loader(Prepared(mixture, cache=None, **settings), workers=0, pin=False, **batches)
    pairs = [(make_device_loader(drawn, **batches), loader)]
    pairs += [(pairs[0][0].central(7), loader.central(7))]
    for pair in pairs:
        for (images, targets), (expected, own) in zip(*pair, strict=True):
            assert torch.equal(images, expected) and torch.equal(targets, own) and targets.dtype == own.dtype


def test_a_mixture_with_a_store_is_not_drawn_on_a_device(tmp_path: Path) -> None:
    drawn, stored = FormulaDataset(woven(16)), StoredDataset(generate(MOIRE, tmp_path / "store"))
    on_cpu = FormulaDataset(woven(16, native=False))
    for parts in ([drawn, stored], [stored, drawn], [drawn, on_cpu]):
        assert draw_on_device(MixtureImages(parts), torch.device("cpu"), **TRAINING) is None
    noisy = relabel(MixtureImages([drawn, drawn]), LabelSettings(noise=0.5))
    assert draw_on_device(noisy, torch.device("cpu"), **TRAINING) is None


# Reading a mixture ----------------------------------------------------------------------------------------------------


def test_a_list_holds_all_that_stands_for_a_recipe_or_a_store(tmp_path: Path) -> None:
    store = generate(MOIRE, tmp_path / "store")
    (tmp_path / "perlin.yaml").write_text("generator: {name: perlin, grid: 2}\ncategories: 2\ncanvas: {size: 16}\n")
    forms = [PERLIN, {"recipe": PERLIN}, FormulaDataset(PERLIN).recipe, {"store": tmp_path / "store", "share": 0.5},
             str(tmp_path / "store"), store, tmp_path / "perlin.yaml"]  # fmt: skip
    mixture = as_mixture(forms)
    assert [part.store is None for part in mixture.parts] == [True, True, True, False, False, False, True]
    assert len({part.recipe_id for part in mixture.parts[:3]}) == 1
    assert mixture.identity()[3] == {"recipe": store.recipe.id, "stored": True, "share": 0.5}
    again = as_mixture(mixture.to_list())
    assert again.identity() == mixture.identity() and as_mixture(mixture).parts == mixture.parts


def test_a_store_may_be_at_a_url(tmp_path: Path) -> None:
    url = "memory://mixtures/store"
    generate(MOIRE, url)
    mixture = as_mixture([url, {"store": url}, Store(url), {"store": Store(url)}])
    assert [part.store for part in mixture.parts] == [url] * 4
    assert as_mixture(mixture.to_list()).identity() == mixture.identity()
    (tmp_path / "mixture.yaml").write_text(f"mixture: [{url}, {{store: '{url}'}}]\n")
    assert [part.store for part in as_mixture(load_mixture(tmp_path / "mixture.yaml")).parts] == [url] * 2


def test_paths_in_a_file_start_at_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = generate(MOIRE, tmp_path / "data" / "store")
    (tmp_path / "perlin.yaml").write_text("generator: {name: perlin, grid: 2}\ncategories: 2\ncanvas: {size: 16}\n")
    file = tmp_path / "mixture.yaml"
    file.write_text(
        "mixture:\n  - {recipe: perlin.yaml, share: 0.25}\n  - store: data/store\n  - data/store\n"
        "  - {generator: {name: moire}, categories: {folder: data/store, count: 2}, canvas: {size: 16}}\n"
        "  - {recipe: {generator: {name: moire}, categories: {folder: data/store, count: 2}, canvas: {size: 16}}}\n"
    )
    monkeypatch.chdir("/")
    mixture = as_mixture(load_mixture(file))
    assert [part.store for part in mixture.parts[1:3]] == [store.path, store.path]
    assert mixture.parts[3].recipe_id == mixture.parts[4].recipe_id


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ([], "data: is an empty list"),
        (
            [PERLIN, {**MOIRE, "canvas": {"size": 32}}],
            "data.1: its images have the size 32, and those of the first part",
        ),
        ([PERLIN, {**MOIRE, "canvas": {**CANVAS, "channels": 3}}], "data.1: its images have the channels 3"),
        ([PERLIN, SCENES], "data.1: its images have the target semantic, and those of the first part class"),
        ([{"recipe": PERLIN, "share": 0}, MOIRE], "data.0.share: 0 is not allowed: must be greater than 0"),
        ([{"recipe": PERLIN, "share": -0.5}, MOIRE], "data.0.share: -0.5 is not allowed"),
        ([{"recipe": PERLIN, "share": 1.5}, MOIRE], "data.0.share: 1.5 is not allowed"),
        ([{"recipe": PERLIN, "share": float("nan")}, MOIRE], "data.0.share: nan is not allowed"),
        ([{"recipe": PERLIN, "share": "half"}, MOIRE], "data.0.share: 'half' is not allowed"),
        ([{"recipe": PERLIN, "share": 0.7}, {"recipe": MOIRE, "share": 0.7}], "data: the shares add up to 1.4"),
        ([{"recipe": PERLIN, "share": 0.2}, {"recipe": MOIRE, "share": 0.2}], "data: the shares add up to 0.4"),
        ([{"recipe": PERLIN, "share": 1.0}, MOIRE], "leave nothing for the parts without share"),
        ([{"recipe": PERLIN, "store": "x"}], "data.0: store: is not allowed|data.0.store: is not allowed"),
        ([{"share": 0.5}, MOIRE], "data.0.recipe: must be given, or store in its place"),
        ([PERLIN, {"recipe": MOIRE, "shares": 0.5}], "data.1.shares: there is no such setting .did you mean 'share'"),
        ([PERLIN, "nowhere/store"], "data.1.store: .*nowhere/store"),
        ([PERLIN, {"store": "nowhere"}], "data.1.store: .*nowhere"),
        ([PERLIN, "nowhere.yaml"], "data.1.*nowhere.yaml"),
        ([PERLIN, 7], "data.1: a int is not allowed"),
        ([PERLIN, {"generator": "perlim"}], "data.1.*perlim"),
        ([PERLIN, None], "data.1: a NoneType is not allowed"),
    ],
    ids=str,
)
def test_bad_input_is_told_in_a_line(parts: list[Any], problem: str, tmp_path: Path) -> None:
    from formulavision.training import pretrain

    with pytest.raises(ConfigError, match=problem) as found:
        pretrain(parts, out=tmp_path / "run", settings={"model": "test_resnet", "crop": 32}, show_progress=False)
    assert "\n" not in str(found.value) and not (tmp_path / "run").exists()


def test_a_share_of_no_image_is_refused() -> None:
    for share, rest in ((0.01, 0.99), (0.99, None)):
        with pytest.raises(ConfigError, match=r"[01].share: 0.01 of the 16 images of an epoch is less than one image"):
            as_mixture([{"recipe": PERLIN, "share": share}, {"recipe": MOIRE, "share": rest}])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mixture: perlin\n", "mixture: must be a list"),
        ("mixture: [perlin]\nseed: 3\n", "seed: is not allowed beside mixture"),
        ("mixture: []\n", "is an empty list"),
    ],
)
def test_a_wrong_file_is_told_in_a_line(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "mixture.yaml").write_text(text)
    with pytest.raises(ConfigError, match=problem):
        as_mixture(load_mixture(tmp_path / "mixture.yaml"))


def test_commands_that_draw_one_recipe_name_the_command_for_mixtures(tmp_path: Path) -> None:
    (tmp_path / "mixture.yaml").write_text("mixture: [perlin, moire]\n")
    with pytest.raises(ConfigError, match="is a mixture of recipes, not a recipe: formulavision pretrain --recipe"):
        FormulaDataset(tmp_path / "mixture.yaml")


def test_many_passes_are_made_in_one_epoch() -> None:
    passes, indices = images_of_epoch([3, 1000], [900, 103], seed=1, epoch=1)
    assert np.bincount(indices[:900]).tolist() == [300] * 3 and passes[:900].max() == 599
