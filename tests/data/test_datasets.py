"""The same pixels on demand, from every store, with workers, in any order and in batches of any size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cases import slow
from torch.utils.data import ConcatDataset, DataLoader

from formulavision import FormulaDataset, Recipe, StoredDataset, generate
from formulavision.data.datasets import RecipeDataset
from formulavision.storage import FORMATS

RECIPE = Recipe.from_dict(
    {"generator": {"name": "ifs", "dots": 2000}, "categories": 3, "instances": 30, "canvas": {"size": 40}, "seed": 2}
)


@pytest.fixture(scope="module")
def reference() -> tuple[torch.Tensor, torch.Tensor]:
    """All images and labels, drawn one by one."""
    dataset = FormulaDataset(RECIPE)
    items = [dataset[i] for i in range(len(dataset))]
    return torch.stack([image for image, _ in items]), torch.tensor([label for _, label in items])


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RecipeDataset]:
    """The recipe's images on demand and from a store of each format."""
    root = tmp_path_factory.mktemp("stores")
    for format in FORMATS:
        generate(RECIPE, root / format, format=format)
    return {"on demand": FormulaDataset(RECIPE), **{format: StoredDataset(root / format) for format in FORMATS}}


@pytest.fixture(params=["on demand", *FORMATS])
def dataset(request: pytest.FixtureRequest, datasets: dict[str, RecipeDataset]) -> RecipeDataset:
    return datasets[request.param]


@pytest.mark.parametrize("batch_size", [64, *slow(1)])
def test_a_loader_gives_the_same_pixels(
    dataset: RecipeDataset, reference: tuple[torch.Tensor, torch.Tensor], batch_size: int
) -> None:
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
    batches = list(DataLoader(dataset, batch_size=batch_size, sampler=order))
    assert torch.equal(torch.cat([images for images, _ in batches]), reference[0][order])
    assert torch.equal(torch.cat([labels for _, labels in batches]), reference[1][order])


@pytest.mark.slow
def test_worker_processes_of_a_loader_give_the_same_pixels(
    datasets: dict[str, RecipeDataset], reference: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """Spawned once for all datasets, whose images come in a mixed order: a process takes seconds to import torch."""
    together: ConcatDataset[tuple[torch.Tensor, int]] = ConcatDataset(datasets.values())
    order = torch.randperm(len(together), generator=torch.Generator().manual_seed(0)).tolist()
    loader = DataLoader(together, batch_size=7, sampler=order, num_workers=2, multiprocessing_context="spawn")
    batches = list(loader)
    images, labels = (part.repeat(len(datasets), *[1] * (part.ndim - 1))[order] for part in reference)
    assert torch.equal(torch.cat([images for images, _ in batches]), images)
    assert torch.equal(torch.cat([labels for _, labels in batches]), labels)


def test_items_are_uint8_channels_first(dataset: RecipeDataset) -> None:
    image, label = dataset[31]
    assert (image.dtype, tuple(image.shape), label) == (torch.uint8, (1, 40, 40), 1)


def test_classes_are_the_categories(dataset: RecipeDataset) -> None:
    assert dataset.classes == ["00000", "00001", "00002"]
    assert dataset.num_classes == 3
    assert dataset.class_to_idx == {"00000": 0, "00001": 1, "00002": 2}
    assert dataset.targets == [label for _, label in dataset] == [0] * 30 + [1] * 30 + [2] * 30  # type: ignore[attr-defined]


def test_a_recipe_file_is_taken_as_well(tmp_path: Path, reference: tuple[torch.Tensor, torch.Tensor]) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE.to_yaml())
    assert torch.equal(FormulaDataset(tmp_path / "recipe.yaml")[5][0], reference[0][5])


@pytest.mark.parametrize("workers", [0, 2])
def test_fresh_items_are_others_in_every_epoch(workers: int) -> None:
    from formulavision.data.loading import Prepared, make_loader

    source = FormulaDataset(RECIPE)
    assert source.endless
    prepared = Prepared(source, resize=40, crop=40, augment=True, flip=False, seed=1, cache=None, fresh=True)
    loader = make_loader(prepared, batch_size=16, shuffle=True, workers=workers, pin=False)
    seen = {source[i][0].numpy().tobytes() for i in range(len(source))}
    for epoch in range(2):
        loader.batches.epoch = epoch
        batches = list(loader)
        labels = torch.cat([labels for _, labels in batches])
        assert torch.bincount(labels).tolist() == [30, 30, 30]
        new = {image.numpy().tobytes() for images, _ in batches for image in images}
        assert len(new) == 90
        assert not new & seen, "no image of the recipe's or of an epoch before"
        seen |= new


def test_a_fresh_item_is_known_by_epoch_and_index_alone() -> None:
    source = FormulaDataset(RECIPE)
    longer = FormulaDataset(Recipe.from_dict(RECIPE.to_dict(), ["instances=120"]))
    (image, label), _ = source.fresh_items([(2, 31), (0, 0)])
    assert label == 1
    assert torch.equal(image, longer[120 + 3 * 30 + 1][0])
    assert torch.equal(image, source.fresh_items([(2, 31)])[0][0])


def test_a_recipe_whose_images_end_is_not_endless() -> None:
    assert not FormulaDataset(
        Recipe.from_dict(RECIPE.to_dict(), ["generator.weights=table", "generator.patch=point"])
    ).endless
