from __future__ import annotations

import json
import os
import socket
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import pytest
import timm
import torch
from cases import slow
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from torch.nn.functional import cross_entropy

from formulavision.data.labels import LabelSettings, Relabelled
from formulavision.data.loading import Prepared, image_cache, make_loader
from formulavision.training import deepcluster
from formulavision.training.deepcluster import Reclustering, deepcluster_labels, uniform_order
from formulavision.training.models import to_input
from formulavision.training.settings import TrainSettings
from formulavision.util.errors import ConfigError, FormulaVisionError

EPOCHS, IMAGES, BATCH, CLUSTERS = 3, 48, 16, 5
BATCHES = IMAGES // BATCH


def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Points in 12 groups, float32 [20,000, 12], and their groups."""
    points, groups = make_blobs(20_000, n_features=12, centers=12, random_state=1)
    return points.astype(np.float32), groups


@pytest.fixture(params=["k-means", "mini-batches"])
def either_algorithm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "mini-batches":
        monkeypatch.setattr(deepcluster, "_KMEANS_DISTANCES", 0)


def test_well_separated_groups_are_the_clusters(either_algorithm: None) -> None:
    points, groups = blobs()
    assert adjusted_rand_score(groups, deepcluster_labels(points, 12, seed=1)) > 0.99


def test_the_same_features_and_seed_give_the_same_clusters(either_algorithm: None) -> None:
    points = np.random.default_rng(1).normal(size=(2000, 60)).astype(np.float32)
    first = deepcluster_labels(points, 50, seed=1)
    assert first.dtype == np.int64
    assert np.array_equal(deepcluster_labels(points, 50, seed=1), first)
    assert not np.array_equal(deepcluster_labels(points, 50, seed=2), first)


def test_clusters_depend_neither_on_the_scale_nor_on_the_mixture_of_features() -> None:
    points = np.random.default_rng(1).exponential(size=(1000, 10)).astype(np.float32)
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(10, 10)))[0]
    mixed = (points * np.geomspace(1, 30, 10) @ rotation + 5).astype(np.float32)
    plain = deepcluster_labels(points, 8, seed=1)
    assert adjusted_rand_score(plain, deepcluster_labels(mixed, 8, seed=1)) > 0.99


def test_features_that_never_change_make_no_difference() -> None:
    points, groups = blobs()
    with_dead = np.concatenate([points, np.full((len(points), 30), 0.3, np.float32)], axis=1)
    assert adjusted_rand_score(groups, deepcluster_labels(with_dead, 12, seed=1)) > 0.99


def test_components_of_a_part_of_many_images_serve_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    points, groups = blobs()
    monkeypatch.setattr(deepcluster, "_PCA_IMAGES", 3000)
    assert adjusted_rand_score(groups, deepcluster_labels(points, 12, seed=1)) > 0.99


def test_no_cluster_is_empty_even_where_images_are_alike(either_algorithm: None) -> None:
    points = np.repeat(np.random.default_rng(1).normal(size=(4, 8)), 25, axis=0).astype(np.float32)
    labels = deepcluster_labels(points, 60, seed=1)
    assert np.bincount(labels, minlength=60).min() >= 1
    # Clusters are still of images that are alike.
    assert all(len(set(np.flatnonzero(labels == cluster) // 25)) == 1 for cluster in range(60))


@pytest.mark.parametrize("clusters", [1, 101])
def test_there_are_from_2_clusters_to_as_many_as_images(clusters: int) -> None:
    with pytest.raises(ConfigError, match=r"clusters: \d+ is not allowed: must be from 2 to the 100 images"):
        deepcluster_labels(np.eye(100, dtype=np.float32), clusters, seed=1)


@pytest.mark.parametrize(("value", "problem"), [(np.nan, "not all finite"), (0.5, "the same for all images")])
def test_features_of_a_broken_model_are_refused(value: float, problem: str) -> None:
    with pytest.raises(FormulaVisionError, match=problem):
        deepcluster_labels(np.full((100, 8), value, np.float32), 4, seed=1)


def test_images_are_drawn_uniformly_over_clusters() -> None:
    labels = np.repeat(np.arange(5), [1, 2, 7, 30, 63])
    order = uniform_order(labels, 5, seed=1, epoch=0)
    drawn = np.bincount(order, minlength=103)
    assert sorted(np.bincount(labels[order])) == [20, 20, 21, 21, 21]
    for cluster in range(5):
        of_cluster = drawn[labels == cluster]
        assert of_cluster.max() - of_cluster.min() <= 1


def test_other_images_are_drawn_in_each_epoch() -> None:
    labels = np.repeat(np.arange(2), [10, 90])
    orders = [uniform_order(labels, 2, seed=1, epoch=epoch) for epoch in (0, 0, 1)]
    assert np.array_equal(orders[0], orders[1])
    assert set(orders[0][labels[orders[0]] == 1]) != set(orders[2][labels[orders[2]] == 1])


# In a training run ----------------------------------------------------------------------------------------------------


class Module(lightning.LightningModule):
    """A model in training, which notes the labels that it was given, and what was there when each epoch began."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.given: list[int] = []
        self.heads: list[torch.Tensor] = []
        self.momenta: list[tuple[bool, bool]] = []

    def on_train_epoch_start(self) -> None:
        state = self.trainer.optimizers[0].state
        self.heads.append(self.model.fc.weight.detach().clone())
        self.momenta.append((self.model.fc.weight in state, self.model.conv1[0].weight in state))

    def training_step(self, batch: Any, step: int) -> torch.Tensor:
        images, labels = batch
        self.given += labels.tolist()
        mean, std = torch.full((2, 1, 3, 1, 1), 0.5)
        return cross_entropy(self.model(to_input(images, mean, std)), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class Data(lightning.LightningDataModule):
    """The batches of a loader."""

    def __init__(self, loader: Any) -> None:
        super().__init__()
        self.train_loader = loader

    def train_dataloader(self) -> Any:
        return self.train_loader


class Position(lightning.Callback):
    """Tells the loader where in its epochs it is, and saves checkpoints after the given steps."""

    def __init__(self, batches: Any, folder: Path, steps: tuple[int, ...]) -> None:
        self.batches = batches
        self.folder = folder
        self.steps = steps

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self.batches.epoch, self.batches.start = divmod(checkpoint["global_step"], BATCHES)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.batches.epoch, self.batches.start = trainer.current_epoch, 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, step: int) -> None:
        if step + 1 < BATCHES:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._save(trainer)

    def _save(self, trainer: Any) -> None:
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


class Watched(Reclustering):
    """Notes each epoch's labels and order, and writes them down for other processes."""

    def __init__(self, settings: TrainSettings, data: Any, folder: Path) -> None:
        super().__init__(settings, data)
        self.folder = folder
        self.seen: list[tuple[int | None, list[int], list[int]]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, step: int) -> None:
        if step == 0 or not self.seen:
            assert self.batches.order is not None
            self.seen.append((self.epoch, self.dataset.labels.tolist(), self.batches.order.tolist()))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(self.seen))


def trained(
    source: Any,
    folder: Path,
    *,
    workers: int = 0,
    cached: bool = False,
    steps: tuple[int, ...] = (),
    resume: Path | None = None,
    **trainer: Any,
) -> tuple[Module, Watched]:
    dataset = Relabelled(source, LabelSettings(clusters=CLUSTERS, seed=3))
    cache = image_cache(dataset, 36, workers=workers) if cached else None
    prepared = Prepared(dataset, resize=36, crop=32, augment=True, flip=True, seed=1, cache=cache)
    loader = make_loader(prepared, batch_size=BATCH, shuffle=True, workers=workers, pin=False)
    torch.manual_seed(1)
    module = Module(timm.create_model("resnet10t", num_classes=CLUSTERS))
    data = Data(loader)
    callback = Watched(TrainSettings(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)), data, folder)
    arguments: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "max_epochs": EPOCHS, **trainer}
    with warnings.catch_warnings():
        for advice in ("does not have many workers", "dataloader is not resumable", "`isinstance"):
            warnings.filterwarnings("ignore", f".*{advice}")
        lightning.Trainer(
            callbacks=[Position(loader.batch_sampler, folder, steps), callback],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            **arguments,
        ).fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    return module, callback


@pytest.fixture(scope="module")
def uninterrupted(stripes: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Module, Watched, Path]:
    """A run of 3 epochs of 3 steps, with checkpoints in mid-epoch and between epochs."""
    folder = tmp_path_factory.mktemp("clusters")
    return *trained(stripes(IMAGES), folder, steps=(2, 3, 4)), folder


def drawn(callback: Watched) -> list[int]:
    """The labels of all images that training is to see."""
    return [labels[index] for _, labels, order in callback.seen for index in order]


def test_each_epoch_has_its_own_clusters_and_sees_each_as_often(uninterrupted: Any) -> None:
    module, callback, _ = uninterrupted
    assert [epoch for epoch, _, _ in callback.seen] == [0, 1, 2]
    assert len({tuple(labels) for _, labels, _ in callback.seen}) == EPOCHS
    assert module.given == drawn(callback)
    for epoch in range(EPOCHS):
        given = module.given[epoch * IMAGES : (epoch + 1) * IMAGES]
        assert sorted(np.bincount(given)) == [9, 9, 10, 10, 10]


def test_each_epoch_begins_with_a_new_head_without_momentum(uninterrupted: Any) -> None:
    module, _, _ = uninterrupted
    assert [float(head.std()) for head in module.heads] == pytest.approx([0.01] * EPOCHS, rel=0.1)
    assert len({head.numpy().tobytes() for head in module.heads}) == EPOCHS
    assert module.momenta == [(False, False), (False, True), (False, True)]


def test_clusters_are_of_features_of_centrally_cropped_images_in_evaluation_mode(
    stripes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clustered: list[Any] = []
    original = deepcluster.deepcluster_labels

    def noted(features: Any, *given: Any, **named: Any) -> Any:
        clustered.append(features)
        return original(features, *given, **named)

    monkeypatch.setattr(deepcluster, "deepcluster_labels", noted)
    source = stripes(IMAGES, size=36)
    module, _ = trained(source, tmp_path, max_epochs=1)
    assert module.model.training
    torch.manual_seed(1)
    model: Any = timm.create_model("resnet10t", num_classes=CLUSTERS).eval()
    model.reset_classifier(0)
    images = torch.stack([source[i][0][:, 2:34, 2:34] for i in range(IMAGES)])
    with torch.no_grad():
        expected = model((images.float() / 255 - 0.5).expand(-1, 3, -1, -1) / 0.5)
    np.testing.assert_allclose(clustered[0], expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("workers", "cached"), [(0, False), pytest.param(2, False, marks=pytest.mark.slow), (2, True)])
@pytest.mark.slow
def test_workers_and_caches_make_no_difference(
    uninterrupted: Any, stripes: Any, tmp_path: Path, workers: int, cached: bool
) -> None:
    module, _ = trained(stripes(IMAGES), tmp_path, workers=workers, cached=cached)
    assert module.given == uninterrupted[0].given
    assert_same_weights(module, uninterrupted[0])


@pytest.mark.parametrize(("step", "workers"), [(4, 2), *slow((2, 0), (3, 0), (4, 0), (3, 2))])
def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    uninterrupted: Any, stripes: Any, tmp_path: Path, step: int, workers: int
) -> None:
    whole, watched, folder = uninterrupted
    module, callback = trained(
        stripes(IMAGES), tmp_path, workers=workers, cached=workers > 0, resume=folder / f"{step}.ckpt"
    )
    assert module.given == whole.given[step * BATCH :]
    assert callback.seen == watched.seen[step // BATCHES :]
    assert_same_weights(module, whole)


def test_labels_within_an_epoch_are_restored_and_not_found_again(
    uninterrupted: Any, stripes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deepcluster, "deepcluster_labels", None)
    whole, _, folder = uninterrupted
    module, _ = trained(stripes(IMAGES), tmp_path, resume=folder / "4.ckpt", max_epochs=2)
    assert module.given == whole.given[4 * BATCH : 6 * BATCH]


class OthersElsewhere:
    """Images that are others in each process."""

    num_classes = 4
    classes = ("a", "b", "c", "d")

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        random = torch.Generator().manual_seed(index + 1000 * int(os.environ.get("LOCAL_RANK", 0)))
        return torch.randint(0, 256, (1, 36, 36), generator=random, dtype=torch.uint8), 0


def take_part(rank: int, folder: Path, port: int) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", GROUP_RANK="0",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test",
    )  # fmt: skip
    torch.set_num_threads(1)
    trained(OthersElsewhere(), folder, devices=2, strategy="ddp", max_epochs=2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch does not train in a forked process where there is a GPU")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_all_processes_have_the_first_ones_clusters(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Forked, since importing torch twice more would take longer than all other tests here.
    torch.multiprocessing.start_processes(take_part, (tmp_path, port), nprocs=2, start_method="fork")
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second and len(first) == 2


def assert_same_weights(module: Module, other: Module) -> None:
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
