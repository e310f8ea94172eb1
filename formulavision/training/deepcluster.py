"""DeepCluster: labels are clusters of the model's own features, found again before each epoch.

DeepCluster: Caron et al., Deep Clustering for Unsupervised Learning of Visual Features, ECCV 2018 (sections 3 and 4.1).
The paper compares it with its formulas (section 4.3 (i), table 7).
"""

from __future__ import annotations

import warnings
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from formulavision.data.labels import Relabelled
from formulavision.generators.streams import Stream, random_stream
from formulavision.training.data_module import TrainingData
from formulavision.training.freezing import head_prefixes
from formulavision.training.models import to_input
from formulavision.training.optimization import count_steps
from formulavision.training.settings import TrainSettings
from formulavision.util.errors import ConfigError, FormulaVisionError

__all__ = ["Reclustering", "deepcluster_labels", "uniform_order"]

_COMPONENTS = 256
_PCA_IMAGES = 100_000
"""Largest number of images for the principal components, whose features are in memory at once in float64."""

_STARTS = 3  # with one start, two of twelve distant groups sometimes ended up in one cluster
_KMEANS_ITERATIONS = 20  # the published implementation's
_KMEANS_DISTANCES = 4_000_000
"""An iteration of k-means takes images x clusters distances. Up to this many, k-means is exact and takes some 10 s of a
core; beyond, mini-batches go over the images 10 times, on all cores. For 40,000 images and 500 clusters, that took a
fifth of the time (of a single start), and left 2 % more variance within clusters."""


def deepcluster_labels(features: NDArray[np.float32], clusters: int, *, seed: int) -> NDArray[np.int64]:
    """Cluster images by a model's features as DeepCluster does (Caron et al., ECCV 2018, section 4.1).

    PCA to 256 dimensions (fewer where the features have fewer) with whitening, L2 normalisation, k-means. A cluster
    that came out empty takes half of another one's images (section 3.2). The same features and seed give the same
    labels.

    Args:
        features: float32 [n, d].
        clusters: how many, from 2 to n.
        seed: of k-means.

    Returns:
        int64 [n], from 0 to ``clusters`` - 1, each of them at least once.

    Raises:
        ConfigError: fewer than 2 clusters, or more than there are images.
        FormulaVisionError: the features are not all finite, or are all the same.
    """
    if not 2 <= clusters <= len(features):
        raise ConfigError(f"clusters: {clusters} is not allowed: must be from 2 to the {len(features)} images")
    if not np.isfinite(features).all():
        raise FormulaVisionError("features: are not all finite, and cannot be clustered: lower learning_rate")
    if (features == features[0]).all():
        raise FormulaVisionError("features: are the same for all images, and cannot be clustered: lower learning_rate")
    stream = random_stream(seed, Stream.CLUSTER)
    points = _whitened(features, stream)
    state = int(stream.integers(2**31))
    with warnings.catch_warnings():
        # With fewer distinct points than clusters some clusters are empty; _fill_empty fills them.
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        if len(points) * clusters <= _KMEANS_DISTANCES:
            # One thread: several add up a centroid in the order in which they finish, which changes its rounding.
            with threadpool_limits(1, user_api="openmp"):
                found = KMeans(clusters, n_init=_STARTS, max_iter=_KMEANS_ITERATIONS, random_state=state).fit(points)
        else:
            found = MiniBatchKMeans(
                clusters,
                n_init=_STARTS,
                max_iter=10,
                batch_size=max(10_000, 10 * clusters),
                init_size=max(10_000, 3 * clusters),
                # No early stop, which would depend on the rounding of sums over threads.
                tol=0.0,
                max_no_improvement=None,
                random_state=state,
            ).fit(points)
    labels = found.labels_.astype(np.int64)
    _fill_empty(labels, points, clusters, seed)
    return labels


def _whitened(features: NDArray[np.float32], stream: np.random.Generator) -> NDArray[np.float32]:
    """Principal components, each with a variance of 1, of points that are then scaled to length 1."""
    some = features
    if len(features) > _PCA_IMAGES:
        some = features[np.sort(stream.choice(len(features), _PCA_IMAGES, replace=False))]
    pca = PCA(min(_COMPONENTS, *some.shape), svd_solver="covariance_eigh").fit(some.astype(np.float64))
    variance = pca.explained_variance_
    # Components below float32's resolution hold rounding errors, which whitening would enlarge.
    kept = variance > np.finfo(np.float32).eps * variance[0]
    directions = (pca.components_[kept] / np.sqrt(variance[kept])[:, None]).astype(np.float32)
    parts = np.array_split(features, 1 + len(features) // _PCA_IMAGES)
    return normalize(np.concatenate([(part - pca.mean_.astype(np.float32)) @ directions.T for part in parts]))


def _fill_empty(labels: NDArray[np.int64], points: NDArray[np.float32], clusters: int, seed: int) -> None:
    """Give each empty cluster a half of another one, in place: the points on one side of a random plane.

    The other is drawn by its size. The plane goes through the median: identical points lie on one side of any.
    """
    sizes = np.bincount(labels, minlength=clusters)
    stream = random_stream(seed, Stream.EMPTY_CLUSTER)
    for empty in np.flatnonzero(sizes == 0):
        spare = np.maximum(sizes - 1, 0)
        other = stream.choice(clusters, p=spare / spare.sum())
        members = np.flatnonzero(labels == other)
        side = points[members] @ stream.standard_normal(points.shape[1], dtype=np.float32)
        moved = members[np.argsort(side, kind="stable")[: len(members) // 2]]
        labels[moved] = empty
        sizes[other] -= len(moved)
        sizes[empty] = len(moved)


def uniform_order(labels: NDArray[np.int64], clusters: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """An epoch's images, drawn uniformly over clusters: each image weighs the inverse of its cluster's size.

    Each cluster gives n / clusters images (the number rounded down or up): some of its own at random where it has
    more, otherwise all of them, over and over (Caron et al., section 3.2, trivial parametrization).

    Args:
        labels: int64 [n], each of the clusters at least once.
        clusters: how many.
        seed, epoch: what the choice depends on.

    Returns:
        Indices of images, int64 [n], in random order.
    """
    n = len(labels)
    stream = random_stream(seed, Stream.BALANCE, epoch)
    shuffled = stream.permutation(n)
    members = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.bincount(labels, minlength=clusters)
    share = np.full(clusters, n // clusters)
    share[stream.permutation(clusters)[: n % clusters]] += 1
    cluster = np.repeat(np.arange(clusters), share)
    place = np.arange(n) - np.repeat(np.cumsum(share) - share, share)
    chosen = members[(np.cumsum(sizes) - sizes)[cluster] + place % sizes[cluster]]
    return stream.permutation(chosen)


class Reclustering(lightning.Callback):
    """DeepCluster in a training run: before each epoch new clusters, a new head, and images drawn evenly over clusters.

    Features are taken before the classification head, in evaluation mode, from centrally cropped images. The head gets
    new weights, as in the published implementation (standard deviation 0.01, biases 0), and the optimizer's state of
    the head is removed. All is a function of the model and (seed, epoch).

    A run that is resumed in mid-epoch takes the epoch's labels and order from the checkpoint; a run that is resumed
    between epochs clusters as an uninterrupted run does. The first of several processes clusters all images and sends
    the labels to the others: their models are equal, but two devices may round differently.

    Args:
        settings: how the model is trained.
        data: the batches of the run, of a :class:`~formulavision.data.labels.Relabelled` dataset with clusters.
    """

    def __init__(self, settings: TrainSettings, data: TrainingData) -> None:
        self.data = data
        self.settings = settings
        self.mean = torch.tensor(settings.mean).view(1, 3, 1, 1)
        self.std = torch.tensor(settings.std).view(1, 3, 1, 1)
        self.epoch: int | None = None
        self.first_epoch = 0

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self.loader = self.data.train_loader
        self.prepared, self.batches = self.loader.dataset, self.loader.batches
        assert isinstance(self.prepared.source, Relabelled) and self.prepared.source.clusters is not None
        self.dataset, self.clusters = self.prepared.source, self.prepared.source.clusters
        self.seed = self.dataset.settings.seed

    def state_dict(self) -> dict[str, Any]:
        assert self.batches.order is not None
        return {
            "epoch": self.epoch,
            "labels": torch.from_numpy(self.dataset.labels),
            "order": torch.from_numpy(self.batches.order),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._set(state_dict["epoch"], state_dict["labels"].numpy(), state_dict["order"].numpy())

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.first_epoch = checkpoint["global_step"] // count_steps(len(self.batches), self.settings)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # Not at the epoch's start: loader workers begin to read labels before the first epoch starts.
        # A run whose epochs are all done keeps its head: it was stopped before its last files were written.
        if self.epoch != self.first_epoch and self.first_epoch < (trainer.max_epochs or 0):
            self._recluster(trainer, pl_module, self.first_epoch)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self.epoch != trainer.current_epoch:
            self._recluster(trainer, pl_module, trainer.current_epoch)
        for optimizer in trainer.optimizers:
            for parameter in _head(pl_module.model):
                optimizer.state.pop(parameter, None)

    def _recluster(self, trainer: lightning.Trainer, pl_module: Any, epoch: int) -> None:
        labels = self.dataset.labels
        if trainer.is_global_zero:
            seed = int(random_stream(self.seed, Stream.CLUSTER, 1 + epoch).integers(2**31))
            labels = deepcluster_labels(self._features(trainer, pl_module), self.clusters, seed=seed)
        labels = trainer.strategy.broadcast(labels)
        self._set(epoch, labels, uniform_order(labels, self.clusters, seed=self.seed, epoch=epoch))
        random = torch.Generator().manual_seed(int(random_stream(self.seed, Stream.HEAD, epoch).integers(2**31)))
        with torch.no_grad():
            for parameter in _head(pl_module.model):
                if parameter.ndim > 1:
                    parameter.copy_(0.01 * torch.randn(parameter.shape, generator=random))
                else:
                    parameter.zero_()

    def _set(self, epoch: int, labels: NDArray[np.int64], order: NDArray[np.int64]) -> None:
        self.epoch = epoch
        self.dataset.replace(labels)
        if self.prepared.cache is not None:
            # The cache holds the labels of the epoch in which an image was first loaded.
            self.prepared.cache.labels.copy_(torch.from_numpy(labels))
        self.batches.order = order

    def _features(self, trainer: lightning.Trainer, pl_module: Any) -> NDArray[np.float32]:
        """Features of all images, float32 [n, d], in the order of their index."""
        # A loader with its own workers. Its batches are as large as a process's share of a training batch.
        loader = self.loader.central(max(1, self.batches.batch_size // self.batches.ranks))
        model, device = pl_module.model, pl_module.device
        mean, std = self.mean.to(device), self.std.to(device)
        training = model.training
        model.eval()
        features: NDArray[np.float32] | None = None
        done = 0
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for images, _ in loader:
                inputs = to_input(images.to(device, non_blocking=True), mean, std)
                found = model.forward_head(model.forward_features(inputs), pre_logits=True)
                if features is None:
                    features = np.empty((len(self.dataset), found.shape[1]), np.float32)
                features[done : done + len(found)] = found.float().cpu().numpy()
                done += len(found)
        model.train(training)
        assert features is not None
        return features


def _head(model: Any) -> list[torch.nn.Parameter]:
    """Parameters of the classification head, in the model's order."""
    return [p for name in head_prefixes(model) for p in model.get_submodule(name).parameters()]
