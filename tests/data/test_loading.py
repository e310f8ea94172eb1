from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from formulavision.data.loading import EpochBatches, Prepared, image_cache, make_loader
from formulavision.training.models import to_input


def prepared(source: Any, **given: Any) -> Prepared:
    settings = {"resize": 36, "crop": 32, "augment": True, "flip": True, "seed": 1, "cache": None, **given}
    return Prepared(source, **settings)


def one(dataset: Prepared, epoch: int, index: int) -> torch.Tensor:
    return dataset[(epoch, index)][0][0]


def keys(batches: EpochBatches) -> list[tuple[int, int]]:
    return [key for batch in batches for key in batch]


def test_each_image_comes_once_an_epoch_in_another_order() -> None:
    batches = EpochBatches(50, 8, seed=1, shuffle=True)
    first = keys(batches)
    batches.epoch = 1
    second = keys(batches)
    assert sorted(first) == [(0, i) for i in range(50)]
    assert sorted(second) == [(1, i) for i in range(50)]
    assert [i for _, i in first] != [i for _, i in second]
    assert keys(EpochBatches(50, 8, seed=1, shuffle=True)) == first
    assert keys(EpochBatches(50, 8, seed=2, shuffle=True)) != first


def test_evaluation_goes_in_order() -> None:
    assert [i for _, i in keys(EpochBatches(5, 2, seed=1, shuffle=False))] == [0, 1, 2, 3, 4]


def test_an_epoch_goes_on_at_any_batch() -> None:
    batches = EpochBatches(50, 8, seed=1, shuffle=True)
    whole = list(batches)
    for start in range(8):
        batches.start = start
        assert list(batches) == whole[start:]
    assert list(batches) == whole  # the start is that of one iteration


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("length", [48, 50, 51])
def test_ranks_share_the_batches_of_one_process(length: int, ranks: int) -> None:
    alone = list(EpochBatches(length, 8, seed=1, shuffle=True, least=ranks))
    shares = [
        list(EpochBatches(length, 8, seed=1, shuffle=True, rank=rank, ranks=ranks, least=ranks))
        for rank in range(ranks)
    ]
    for i, (batch, *parts) in enumerate(zip(alone, *shares, strict=True)):
        assert sorted(batch) == sorted(key for part in parts for key in part)
        assert len(batch) == EpochBatches(length, 8, seed=1, shuffle=True).size(i)
        assert all(parts)


def test_an_image_is_augmented_alike_alone_and_in_any_batch(stripes: Any) -> None:
    dataset = prepared(stripes())
    wanted = [(3, 7), (3, 1), (3, 40)]
    images, labels = dataset.__getitems__(wanted)
    assert labels.tolist() == [3, 1, 0]
    for (epoch, index), image in zip(wanted, images, strict=True):
        assert torch.equal(one(dataset, epoch, index), image)


def test_augmentation_changes_with_epoch_index_and_seed(stripes: Any) -> None:
    dataset = prepared(stripes(), resize=64)
    drawn = {one(dataset, epoch, 0).numpy().tobytes() for epoch in range(8)}
    assert len(drawn) > 4
    assert any(not torch.equal(one(dataset, e, 0), one(prepared(stripes(), resize=64, seed=2), e, 0)) for e in range(4))


ORDER = np.array([7, 3, 7, 1, 3, 7, 0, 7, 7, 2, 7, 3])
"""Images that are drawn uniformly over clusters: some come several times, others not at all."""


def ordered(repeats: int = 1, **given: Any) -> EpochBatches:
    batches = EpochBatches(len(ORDER), 5, seed=1, shuffle=True, repeats=repeats, **given)
    batches.order = ORDER
    batches.epoch = 2
    return batches


def test_an_image_that_an_order_names_again_is_augmented_otherwise(stripes: Any) -> None:
    found = keys(ordered())
    assert [index for _, index in found] == ORDER.tolist()
    assert len(set(found)) == len(found)
    dataset = prepared(stripes(), resize=96)
    for index in (3, 7):
        copies = [one(dataset, *key) for key in found if key[1] == index]
        assert torch.equal(copies[0], one(dataset, 2, index)), "the first one is as in a run without an order"
        assert len({copy.numpy().tobytes() for copy in copies}) == len(copies)
    assert [key for key in found if key[1] in (0, 1, 2)] == [(2, 1), (2, 0), (2, 2)]


def test_repetitions_of_an_image_that_an_order_names_again_all_differ(stripes: Any) -> None:
    found = keys(ordered(repeats=2))
    assert [index for _, index in found] == ORDER[:6].repeat(2).tolist()
    assert len(set(found)) == len(found)
    assert found[:2] == [(4, 7), (5, 7)] and found[4:6] != found[:2]


@pytest.mark.parametrize("repeats", [1, 2])
def test_an_order_is_numbered_alike_from_any_batch_and_in_any_number_of_processes(repeats: int) -> None:
    whole = list(ordered(repeats))
    for start in range(len(whole)):
        batches = ordered(repeats)
        batches.start = start
        assert list(batches) == whole[start:]
    shares = [list(ordered(repeats, rank=rank, ranks=2)) for rank in (0, 1)]
    assert [sorted([*one, *other]) for one, other in zip(*shares, strict=True)] == [sorted(batch) for batch in whole]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cached", [False, True])
def test_workers_and_a_cache_give_the_same_copies(stripes: Any, workers: int, cached: bool) -> None:
    source = stripes(len(ORDER))
    cache = image_cache(source, 36, workers=workers) if cached else None
    loader = make_loader(prepared(source, cache=cache), batch_size=5, shuffle=True, workers=workers, pin=False)
    loader.batches.order, loader.batches.epoch = ORDER, 2
    plain = prepared(source)
    for (images, _), batch in zip(loader, ordered(), strict=True):
        assert torch.equal(images, torch.stack([one(plain, *key) for key in batch]))


def test_copies_of_an_image_are_drawn_alike(stripes: Any) -> None:
    asked: list[tuple[int, int]] = []

    class Drawn(type(stripes())):  # type: ignore[misc]
        def fresh_items(self, keys: Any) -> list[Any]:
            asked.extend(keys)
            return [self[index] for _, index in keys]

    for repeats in (1, 2):
        asked.clear()
        prepared(Drawn(), fresh=True, repeats=repeats).__getitems__(keys(ordered(repeats)))
        assert asked == [(2, index) for index in ORDER[: len(ORDER) // repeats].repeat(repeats)]


def test_random_crops_and_flips_are_crops_and_flips_of_the_resized_image(stripes: Any) -> None:
    source = stripes(channels=3, size=36)
    dataset = prepared(source)
    whole = source[5][0]
    windows = [whole[:, y : y + 32, x : x + 32] for y in range(5) for x in range(5)]
    allowed = [w for window in windows for w in (window, window.flip(-1))]
    seen = {next(i for i, w in enumerate(allowed) if torch.equal(one(dataset, epoch, 5), w)) for epoch in range(80)}
    # Both corners, both ways round.
    assert len(seen) > 30 and {i % 2 for i in seen} == {0, 1}
    assert {i // 2 // 5 for i in seen} == {i // 2 % 5 for i in seen} == {0, 1, 2, 3, 4}


def test_without_flip_nothing_is_mirrored(stripes: Any) -> None:
    source = stripes(size=32)
    dataset = prepared(source, resize=32, flip=False)
    assert all(torch.equal(one(dataset, epoch, 2), source[2][0]) for epoch in range(20))


def test_evaluation_crops_the_centre(stripes: Any) -> None:
    source = stripes(size=36)
    dataset = prepared(source, augment=False)
    assert torch.equal(one(dataset, 0, 3), source[3][0][:, 2:34, 2:34])
    assert torch.equal(one(dataset, 9, 3), one(dataset, 0, 3))


@pytest.mark.parametrize("workers", [0, 2])
def test_images_kept_in_memory_are_the_same_and_are_read_once(stripes: Any, workers: int) -> None:
    source = stripes()
    cache = image_cache(source, 36, workers=workers)
    assert cache is not None
    plain = list(make_loader(prepared(source), batch_size=16, shuffle=True, workers=0, pin=False))
    loader = make_loader(prepared(source, cache=cache), batch_size=16, shuffle=True, workers=workers, pin=False)
    for _ in range(2):
        for (a, la), (b, lb) in zip(plain, loader, strict=True):
            assert torch.equal(a, b) and torch.equal(la, lb)
    assert cache.filled.all() and cache.labels.tolist() == [i % 4 for i in range(48)]
    source.__class__ = type("Forgetful", (type(source),), {"__getitem__": None})
    assert len(list(loader)) == 3


def test_large_datasets_are_not_kept_in_memory(stripes: Any) -> None:
    assert image_cache(stripes(images=4000), 1024, workers=0) is None


def test_mixed_sizes_come_out_alike() -> None:
    sizes = [(3, 20, 40), (3, 36, 36), (3, 100, 10)]
    source: Any = type("Sizes", (list,), {"classes": ("a", "b", "c")})()
    source += [(torch.full(size, 7 * (i + 1), dtype=torch.uint8), i) for i, size in enumerate(sizes)]
    images, labels = prepared(source, augment=False).__getitems__([(0, 0), (0, 1), (0, 2)])
    assert images.shape == (3, 3, 32, 32) and labels.tolist() == [0, 1, 2]
    assert [image.unique().tolist() for image in images] == [[7], [14], [21]]


def test_a_last_batch_of_one_image_is_left_out_of_training_only(stripes: Any) -> None:
    dataset = prepared(stripes(images=33))
    train = make_loader(dataset, batch_size=16, shuffle=True, workers=0, pin=False)
    test = make_loader(dataset, batch_size=16, shuffle=False, workers=0, pin=False)
    assert [len(labels) for _, labels in train] == [16, 16]
    assert [len(labels) for _, labels in test] == [16, 16, 1]


def test_gray_is_expanded_and_normalised_as_torchvision_does() -> None:
    from torchvision.transforms.v2 import functional

    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    mean, std = [0.2, 0.3, 0.4], [0.5, 0.6, 0.7]
    got = to_input(images, torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1))
    scaled = functional.to_dtype(images.expand(-1, 3, -1, -1), torch.float32, scale=True)
    torch.testing.assert_close(got, functional.normalize(scaled, mean, std))
