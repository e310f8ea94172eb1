"""Formula-driven datasets where others' programs have torchvision's: transforms, samplers, loaders, epochs."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_loader, create_transform
from torch.utils.data import ConcatDataset, DataLoader, DistributedSampler, Subset, WeightedRandomSampler, random_split
from torchvision import transforms as v1
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from formulavision import FormulaDataset, Recipe, StoredDataset, generate, pretrain
from formulavision.data.loading import Prepared, make_loader
from formulavision.util.errors import ConfigError

RECIPE = Recipe.from_dict(
    {"generator": {"name": "perlin", "grid": 2}, "categories": 3, "instances": 8, "canvas": {"size": 32, "padding": 0}}
)
TO_FLOAT = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.25])])
FINITE = {"generator": {"name": "ifs", "weights": "table", "patch": "point", "dots": 1000}, "categories": 2,
          "instances": 4, "canvas": {"size": 32}}  # fmt: skip


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("stores")
    for format in ("parquet", "imagefolder"):
        generate(RECIPE, root / format, format=format)
    return {format: root / format for format in ("parquet", "imagefolder")}


@pytest.fixture(params=["drawn", "stored"])
def dataset(request: pytest.FixtureRequest, stores: dict[str, Path]) -> Any:
    """Called with the arguments besides the recipe or the store."""
    source: Any = RECIPE if request.param == "drawn" else stores["parquet"]
    kind: Any = FormulaDataset if request.param == "drawn" else StoredDataset
    return lambda **arguments: kind(source, **arguments)


def images_of(loader: Any) -> torch.Tensor:
    return torch.cat([images for images, _ in loader])


def test_attributes_are_those_of_torchvisions_folder_of_the_same_images(stores: dict[str, Path], dataset: Any) -> None:
    ours, theirs = dataset(pil=True, transform=v1.ToTensor()), ImageFolder(stores["imagefolder"], v1.ToTensor())
    assert (ours.classes, ours.class_to_idx, ours.targets) == (theirs.classes, theirs.class_to_idx, theirs.targets)
    assert all(torch.equal(ours[i][0], theirs[i][0]) and ours[i][1] == theirs[i][1] for i in range(len(theirs)))
    assert len(ours) == len(theirs) and dataset(pil=True)[3][0].mode == "RGB"


def test_transforms_are_called_with_items(dataset: Any) -> None:
    plain, made = dataset(), dataset(transform=TO_FLOAT, target_transform=lambda label: 10 * label)
    assert torch.equal(made[9][0], TO_FLOAT(plain[9][0])) and made[9][1] == 10 and made.targets[9] == 1
    rgb = v2.Compose([v2.RGB(), v2.ToImage(), TO_FLOAT])
    assert dataset(transform=rgb)[9][0].shape == (3, 32, 32)
    assert torch.equal(dataset(transform=rgb)[9][0], dataset(transform=rgb, pil=True)[9][0])
    made.transform = None  # may be replaced, as timm does
    assert torch.equal(made[9][0], plain[9][0])
    pixels = dataset(transform=np.asarray, pil=True)[9][0]
    assert isinstance(pixels, np.ndarray) and (pixels == plain[9][0].permute(1, 2, 0).numpy()).all()


def test_an_error_of_a_transform_says_how_to_get_the_other_type_of_image(dataset: Any) -> None:
    with pytest.raises(TypeError, match="pic should be PIL Image") as refused:
        dataset(transform=v1.ToTensor())[0]
    assert "uint8 tensors [c, h, w]; pil=True: PIL images" in refused.value.__notes__[0]
    with pytest.raises(AttributeError) as refused_too:
        dataset(transform=lambda image: image.permute(1, 2, 0), pil=True)[0]
    assert "PIL images in RGB (pil=True)" in refused_too.value.__notes__[0]


@pytest.mark.parametrize("prefetcher", [False, True])
def test_timms_training_script_makes_its_loaders(dataset: Any, prefetcher: bool) -> None:
    arguments: dict[str, Any] = {
        "input_size": (3, 24, 24), "batch_size": 8, "use_prefetcher": prefetcher, "device": torch.device("cpu"),
        "num_workers": 0, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "crop_pct": 0.875,
    }  # fmt: skip
    test = create_loader(dataset(pil=True), is_training=False, **arguments)
    images = images_of(test)
    assert images.shape == (24, 3, 24, 24) and images.dtype == torch.float32
    picture = Image.fromarray(dataset()[5][0][0].numpy()).convert("RGB")
    same: Any = create_transform((3, 24, 24), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), crop_pct=0.875)
    assert torch.allclose(images[5], same(picture), atol=1e-5)
    train = create_loader(dataset(pil=True), is_training=True, auto_augment="rand-m9-inc1", re_prob=0.25, **arguments)
    assert images_of(train).shape == (24, 3, 24, 24)


def test_parts_unions_and_samplers_work(dataset: Any) -> None:
    data = dataset()
    train, test = random_split(data, [18, 6], torch.Generator().manual_seed(0))
    assert len(images_of(DataLoader(train, batch_size=4))) == 18 and len(test) == 6
    joined: Any = ConcatDataset([Subset(data, [0, 23]), dataset()])
    assert [label for _, label in joined] == [0, 2, *data.targets]
    weights = [1.0 if label == 1 else 0.0 for label in data.targets]
    _, labels = next(iter(DataLoader(data, batch_size=24, sampler=WeightedRandomSampler(weights, 24))))
    assert set(labels.tolist()) == {1} and Counter(data.targets) == {0: 8, 1: 8, 2: 8}
    halves: list[Any] = [DistributedSampler(data, num_replicas=2, rank=rank, seed=3) for rank in range(2)]
    assert sorted(i for half in halves for i in half) == list(range(24))


def seen(loader: Any) -> dict[bytes, int]:
    """The label of each image, by the image's pixels."""
    items = (item for images, labels in loader for item in zip(images, labels, strict=True))
    return {image.numpy().tobytes(): int(label) for image, label in items}


def fresh_as_in_pretraining(epoch: int) -> dict[bytes, int]:
    prepared = Prepared(
        FormulaDataset(RECIPE), resize=32, crop=32, augment=False, flip=False, seed=1, cache=None, fresh=True
    )
    loader = make_loader(prepared, batch_size=8, shuffle=True, workers=0, pin=False)
    loader.batches.epoch = epoch
    return seen(loader)


@pytest.mark.parametrize("start", [None, "fork", "spawn"])
@pytest.mark.slow
def test_an_epoch_has_the_fresh_images_of_pretraining_also_in_persistent_workers(start: str | None) -> None:
    """Also where the dataset was pickled before, and is a part of another."""
    data = pickle.loads(pickle.dumps(FormulaDataset(RECIPE)))
    loader = DataLoader(
        Subset(data, range(24)), batch_size=5, shuffle=True, num_workers=2 if start else 0,
        persistent_workers=start is not None, multiprocessing_context=start,
    )  # fmt: skip
    own = seen(loader)
    for epoch in (0, 5):
        data.set_epoch(epoch)
        assert seen(loader) == fresh_as_in_pretraining(epoch)
    data.set_epoch(None)
    assert seen(loader) == own == seen(DataLoader(FormulaDataset(RECIPE)))
    assert not own.keys() & fresh_as_in_pretraining(0).keys()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda data: pickle.loads(pickle.dumps(data))])
def test_copies_begin_with_the_epoch_and_go_on_for_themselves(duplicate: Any) -> None:
    data = FormulaDataset(RECIPE, transform=TO_FLOAT)
    data.set_epoch(2)
    copied, before = duplicate(data), data[7][0]
    assert torch.equal(copied[7][0], before) and copied._epoch.is_shared()
    data.set_epoch(3)
    assert torch.equal(copied[7][0], before) and not torch.equal(data[7][0], before)


def test_an_epoch_of_finite_instances_has_the_recipes_own() -> None:
    data = FormulaDataset(FINITE)
    before = data[3][0]
    data.set_epoch(1)
    assert torch.equal(data[3][0], before)
    held_out = FormulaDataset(RECIPE).held_out(2, fresh=False)
    assert held_out.targets == [0, 0, 1, 1, 2, 2]
    before = held_out[3][0]
    held_out.set_epoch(1)
    assert torch.equal(held_out[3][0], before)
    with pytest.raises(ConfigError, match="epoch: -1 is not allowed"):
        data.set_epoch(-1)


def test_pretraining_counts_its_own_epochs_and_refuses_what_transforms(tmp_path: Path, dataset: Any) -> None:
    settings = {"model": "test_resnet", "epochs": 1, "batch_size": 8, "crop": 32, "resize": 32, "fresh": False,
                "milestones": [], "warmup_epochs": 0}  # fmt: skip
    for arguments in ({"transform": TO_FLOAT}, {"target_transform": int}, {"pil": True}):
        with pytest.raises(ConfigError, match=r"data: has a transform or gives PIL images.*without transform"):
            pretrain(dataset(**arguments), out=tmp_path / "run", settings=settings)
    data = FormulaDataset(RECIPE)
    runs = []
    for i in range(2):
        runs.append(pretrain(data, out=tmp_path / f"run{i}", settings=settings, show_progress=False))
        data.set_epoch(3)
    assert runs[0].final["train_loss"] == runs[1].final["train_loss"]


def test_a_line_says_what_a_dataset_is(stores: dict[str, Path]) -> None:
    facts = "3 classes x 8 images of 32 x 32"
    assert repr(FormulaDataset(RECIPE)) == f"FormulaDataset(perlin: {facts}, recipe {RECIPE.id})"
    assert repr(StoredDataset(stores["parquet"])) == f"StoredDataset({str(stores['parquet'])!r}: {facts})"


def test_a_plain_loop_trains(dataset: Any) -> None:
    loader = DataLoader(dataset(transform=TO_FLOAT), batch_size=8, shuffle=True, num_workers=0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3))
    for images, labels in loader:
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
    assert torch.isfinite(loss)
