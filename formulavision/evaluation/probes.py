"""How good a model's features are without training it: a linear probe, and the nearest neighbours."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch.nn.functional import cross_entropy, normalize

from formulavision.data.downstream import Downstream, DownstreamSettings, LabelledImages, open_for_run
from formulavision.evaluation.classification import binary_loss, summary
from formulavision.evaluation.features import Features, extract_features
from formulavision.evaluation.inference import choose_device
from formulavision.evaluation.progress import steps
from formulavision.evaluation.scores import (
    TOP_K,
    Evaluation,
    Outcomes,
    figures,
    is_among,
    make_folder,
    write_files,
)
from formulavision.generators.streams import Stream, random_stream
from formulavision.training.checkpoints import Checkpoint, load_checkpoint
from formulavision.training.fit import new_model
from formulavision.training.progress import say
from formulavision.training.settings import PREPROCESSING, TrainSettings
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError, DownstreamError

__all__ = ["Probe", "classify_by_neighbours", "classify_linearly", "probe"]

Method = Literal["linear", "knn"]

NEIGHBOURS = 20
TEMPERATURE = 0.07
DRAWS = 5
"""Few-shot figures depend on which images are drawn."""

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
"""L2 penalties to choose from: the loss is mean cross-entropy + penalty / 2 * |W|^2 on standardised features."""
_PENALTY_OF_FEW = 1e-1
"""Where no class has images enough to hold some out."""
_HELD_OUT = 5
"""One of so many training images of a class chooses the penalty."""

_PUBLISHED = ("timm:", "torchvision:")
"""How the names of published models begin."""

_CELLS = 1 << 25
"""Similarities at a time: 128 MB."""
_KNOWN_BYTES = 1 << 30
"""Features of training images that are on the device at a time."""
_VOTING = 4096
"""Test images whose neighbours vote at a time."""
_WORTH_TELLING = 1 << 30
"""Bytes of memory that a line tells of."""


@dataclass(frozen=True, eq=False)
class Probe(Evaluation):
    """What a classifier on frozen features does on test images.

    With ``shots``, the figures are means over the draws, the confusions their sum, and predictions.npz is of the first.

    Attributes:
        method: ``linear`` or ``knn``.
        train_images: number of images that the classifier was fitted to.
        draws: the score of each draw of training images; a single one without ``shots``.
        spread: standard deviation of the draws' scores; None of a single one.
        penalty: of a linear probe, the L2 penalty that was chosen (in the first draw); otherwise None.
    """

    method: Method
    train_images: int
    draws: list[float]
    spread: float | None
    penalty: float | None


def probe(
    checkpoint: str | Path | None,
    downstream: Downstream | DownstreamSettings | str,
    *,
    method: Method = "linear",
    settings: TrainSettings | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    shots: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    show_progress: bool = True,
) -> Probe:
    """Evaluate a model's frozen features: a classifier on them is fitted to the training images, and tested.

    ``linear`` is logistic regression on standardised features; its L2 penalty is the one of 1, 0.1 ... 0.0001 that does
    best on a fifth of the training images, and it is then fitted to all of them. ``knn`` weighs the votes of the 20
    nearest training images by exp(cosine similarity / 0.07), as Wu et al., "Unsupervised Feature Learning via
    Non-Parametric Instance Discrimination" (CVPR 2018, section 3.4), and Caron et al. (DINO, ICCV 2021) do.
    With several labels an image, ``linear`` is one logistic regression a class, and ``knn`` the neighbours' weighted
    share that has the label.

    Writes the files that :func:`formulavision.evaluate` writes into ``out``.

    Args:
        checkpoint: whatever :func:`formulavision.load_checkpoint` takes; its head is not used. None: new weights, by
            ``settings.seed``, whose features show what a probe finds where nothing was learnt.
        downstream: the dataset, or how to open it (``cifar10``, ``folder:/path``).
        method: ``linear`` or ``knn``.
        settings: of the model, of the images' size, resizing and normalisation, and of the device; what is not set is
            the checkpoint's own. The model must be given where the checkpoint does not tell it.
        out: a folder; None: ``METHOD-DATASET`` (``linear-cifar10-5-shot``) in the run's folder, or beside the file;
            must be given where there is neither.
        shots: fit to so many images of each class, drawn five times; fewer are a part of more. None: to all.
        seed: of the draws, and of which training images are held out.
        workers: processes that load images; 0 loads them here; None: 0, or up to 16 where the device is a GPU.

    Raises:
        CheckpointError: the checkpoint is none, or of another architecture.
        DownstreamError: the dataset cannot be used as it is, or has too few images of a class.
        ConfigError: an argument is wrong, or ``out`` cannot be written.
    """
    if method not in get_args(Method):
        raise ConfigError(f"method: {method!r} is not allowed: must be linear or knn")
    if shots is not None and shots < 1:
        raise ConfigError(f"shots: {shots} is not allowed: must be at least 1")
    source = "new weights" if checkpoint is None else str(checkpoint)
    if out is None and (checkpoint is None or (not Path(source).exists() and source.startswith(_PUBLISHED))):
        raise ConfigError(f"out: is missing: {source} has no folder to write into")
    weights = None if checkpoint is None else load_checkpoint(checkpoint)
    chosen = feature_settings(weights, source, settings)
    opened = open_for_run(downstream, weights.run if weights else None)
    _check_labels(opened)
    choices = None if shots is None else _draw(opened, shots, seed)
    model = new_model(chosen, opened.num_classes)
    loaded = None if weights is None else weights.load_into(model)
    folder = make_folder(Path(out) if out is not None else _default_folder(source, opened, method, shots))
    console = Console(quiet=not show_progress)
    if opened.note:
        say(console, opened.describe())
    if weights is not None and loaded is not None:
        say(console, f"checkpoint {source}: {loaded.describe()}")
        if seen := weights.describe_preprocessing(chosen):
            say(console, seen)
    started = time.perf_counter()
    needed = opened.train if choices is None else _part(opened.train, np.unique(choices))
    train, test = (
        extract_features(model, images, chosen, workers=workers, console=console) for images in (needed, opened.test)
    )
    draws = [train] if choices is None else [train[np.searchsorted(np.unique(choices), each)] for each in choices]
    device = choose_device(chosen)
    outcomes, penalties = [], []
    size = f"{len(draws[0]):,} x {train.values.shape[1]:,} features"
    if method == "linear":
        count = (len(PENALTIES) + 1) * len(draws) * (1 if train.labels.ndim == 1 else opened.num_classes)
        doing = f"fitting logistic regressions to {size}"
        # A copy of what is fitted to, once more in double precision, and with several labels an image a part of that.
        more = draws[0].values.nbytes * (3 if train.labels.ndim == 1 else 5)
        if more > _WORTH_TELLING:
            say(console, f"{doing} takes up to {more / 1e9:.1f} GB more of the machine's memory")
    else:
        count, doing = len(draws), f"nearest of {size} to {len(test):,} images"
    with steps(console, doing, count) as advance:
        for i, images in enumerate(draws):
            if method == "linear":
                found, penalty = classify_linearly(images, test, opened.num_classes, seed=seed + i, advance=advance)
            else:
                found, penalty = classify_by_neighbours(images, test, opened.num_classes, device=device), None
                advance()
            outcomes.append(found)
            penalties.append(penalty)
    results = [figures(each, opened.num_classes) for each in outcomes]
    scores = [result["score"] for result in results]
    result = Probe(
        **_mean(results),
        images=len(test),
        class_names=opened.class_names,
        seconds=time.perf_counter() - started,
        folder=folder,
        method=method,
        train_images=len(draws[0]),
        draws=scores,
        spread=float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        penalty=penalties[0],
    )
    facts = {
        "checkpoint": None if checkpoint is None else source,
        "sha256": None if weights is None else weights.sha256,
        "downstream": opened.identity(),
        "method": method,
        "settings": {name: getattr(chosen, name) for name in ("model", *PREPROCESSING, "precision")},
        "shots": shots,
        "seed": seed,
        "train_images": result.train_images,
        "draws": scores,
        "spread": result.spread,
        "penalty": result.penalty,
    }
    files = write_files(result, outcomes[0], facts)
    spread = f", ± {result.spread:.2%} over {len(scores)} draws" if result.spread is not None else ""
    say(
        console,
        f"{method} probe of {source} on {opened.name}, {result.train_images:,} training images: "
        f"{summary(result)}{spread}; written to {folder}: {', '.join(files)}",
    )
    return result


def feature_settings(
    weights: Checkpoint | None, source: str | Path, settings: TrainSettings | Mapping[str, Any] | None
) -> TrainSettings:
    """How to build the model of a checkpoint and what to feed it: what is given, then what the checkpoint tells.

    Of a run these are all of its settings; of other weights the model, and how it sees images.

    Raises:
        ConfigError: the model is unknown, or another one than the checkpoint's.
    """
    given = settings if isinstance(settings, TrainSettings) else parse(TrainSettings, dict(settings or {}))
    if weights is None:
        return given
    if weights.model is None and "model" not in given.model_fields_set:
        raise ConfigError(f"model: {source} does not tell what it is the weights of: give the name of the model")
    chosen = weights.complete(given)
    if weights.run is None:
        return chosen
    told = chosen.model_dump(include=chosen.model_fields_set | set(PREPROCESSING))
    return parse(TrainSettings, {**weights.run.settings["settings"], **told})


def classify_linearly(
    train: Features, test: Features, num_classes: int, *, seed: int = 0, advance: Callable[[], None] = lambda: None
) -> tuple[Outcomes, float]:
    """Logistic regression on standardised features; see :func:`probe`.

    Args:
        advance: called after each fit.

    Returns:
        What it says of the test images, and the penalty that was chosen.
    """
    fit = _fit_classes if train.labels.ndim == 1 else _fit_labels
    held_out = _held_out(train.labels, seed)
    penalty = _PENALTY_OF_FEW
    if held_out.any():
        part, rest = train[held_out], train[~held_out]
        candidates = fit(rest, part.values, num_classes, PENALTIES, advance)
        # Of equals the first, which is the simplest.
        best = max(
            range(len(PENALTIES)),
            key=lambda i: figures(_outcomes(part.labels, candidates[i]), num_classes)["score"],
        )
        penalty = PENALTIES[best]
    (scores,) = fit(train, test.values, num_classes, [penalty], advance)
    return _outcomes(test.labels, scores), penalty


def classify_by_neighbours(
    train: Features, test: Features, num_classes: int, *, device: str | torch.device = "cpu"
) -> Outcomes:
    """The weighted votes of the nearest training images; see :func:`probe`."""
    neighbours = min(NEIGHBOURS, len(train))
    labels = train.labels.to(device)
    rows = min(len(train), max(neighbours, _KNOWN_BYTES // (4 * train.values.shape[1])))
    # One part where all fit on the device, and otherwise part by part for all test images.
    parts: list[tuple[torch.Tensor, torch.Tensor]] = []
    for start in range(0, len(train), rows):
        known = normalize(train.values[start : start + rows].to(device))
        found = [
            (normalize(chunk.to(device)) @ known.T).topk(min(neighbours, len(known)))
            for chunk in test.values.split(max(1, _CELLS // len(known)))
        ]
        parts.append((torch.cat([f.values for f in found]), torch.cat([f.indices for f in found]) + start))
    similar, places = parts[0]
    for values, indices in parts[1:]:
        similar, order = torch.cat([similar, values], 1).topk(neighbours)
        places = torch.cat([places, indices], 1).gather(1, order)
    votes = []
    for closeness, nearest in zip(similar.split(_VOTING), places.split(_VOTING), strict=True):
        weights = (closeness / TEMPERATURE).exp()
        if labels.ndim == 1:
            votes.append(weights.new_zeros(len(nearest), num_classes).scatter_add_(1, labels[nearest], weights).cpu())
        else:
            counted = weights[:, :, None] * (labels[nearest] >= 0)
            present = (counted * (labels[nearest] == 1)).sum(1)
            votes.append((present / counted.sum(1).clamp(min=torch.finfo(present.dtype).tiny)).cpu())
    scores = torch.cat(votes)
    if labels.ndim == 2:
        return Outcomes(test.labels.numpy(), scores=scores.numpy())
    k = min(TOP_K, num_classes)
    # A class without a vote is not among the first, however few have any.
    voted = scores.gather(1, test.labels[:, None])[:, 0] > 0
    among = is_among(scores, test.labels, k) & voted
    return Outcomes(test.labels.numpy(), scores.argmax(1).numpy(), among.numpy())


# Logistic regression -------------------------------------------------------------------------------------------------


def _fit_classes(
    train: Features, test: torch.Tensor, num_classes: int, penalties: Sequence[float], advance: Callable[[], None]
) -> list[NDArray[np.float32]]:
    """Logits of the test features, float32 [n, classes], by each penalty."""
    fitted, seen = _standardised(train.values, test)
    scores = []
    for model in _regressions(fitted, train.labels.numpy(), penalties):
        logits = model.decision_function(seen)
        # Of two classes there is one: how much more likely the second is.
        scores.append((logits if num_classes > 2 else np.stack([0 * logits, logits], 1)).astype(np.float32))
        advance()
    return scores


def _fit_labels(
    train: Features, test: torch.Tensor, num_classes: int, penalties: Sequence[float], advance: Callable[[], None]
) -> list[NDArray[np.float32]]:
    """Logits of the test features, float32 [n, classes], by each penalty; entries that do not count are left out."""
    fitted, seen = _standardised(train.values, test)
    scores = [np.empty((len(test), num_classes), np.float32) for _ in penalties]
    for c in range(num_classes):
        labels = train.labels[:, c].numpy()
        counted = labels >= 0
        for column, model in zip(scores, _regressions(fitted[counted], labels[counted], penalties), strict=True):
            column[:, c] = model.decision_function(seen)
            advance()
    return scores


def _regressions(features: NDArray[np.float64], labels: NDArray[Any], penalties: Sequence[float]) -> Any:
    """Fit by one penalty after the other, each from where the one before it ended; the same object comes each time."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(warm_start=True, max_iter=200)
    for penalty in penalties:
        # scikit-learn sums the loss over the images.
        model.set_params(C=1 / (penalty * len(labels)))
        with warnings.catch_warnings():
            # The held-out images judge what was reached, converged or not.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features, labels)
        yield model


def _standardised(train: torch.Tensor, test: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both by the mean and the standard deviation of the first; a feature that never changes becomes 0."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler(copy=False)
    return scaler.fit_transform(train.double().numpy()), scaler.transform(test.double().numpy())


def _held_out(labels: torch.Tensor, seed: int) -> NDArray[np.bool_]:
    """A fifth of each class's images, rounded down; with several labels an image a fifth of all.

    With several labels, an image stays where without it a class would have no image with it, or none without it, left
    to be fitted to.
    """
    known = labels.numpy()
    chosen = np.zeros(len(known), bool)
    if known.ndim == 1:
        for label in range(int(known.max()) + 1):
            group = np.flatnonzero(known == label)
            order = random_stream(seed, Stream.HOLD_OUT, label).permutation(group)
            chosen[order[: len(group) // _HELD_OUT]] = True
        return chosen
    present, absent = known == 1, known == 0
    with_it, without_it = present.sum(axis=0), absent.sum(axis=0)
    order = random_stream(seed, Stream.HOLD_OUT, 0).permutation(np.arange(len(known)))
    for image in order[: len(known) // _HELD_OUT]:
        # A class that has none to begin with keeps nothing back.
        last = (present[image] & (with_it == 1)) | (absent[image] & (without_it == 1))
        if not last.any():
            chosen[image] = True
            with_it = with_it - present[image]
            without_it = without_it - absent[image]
    # A choice of the penalty takes a class to be right about.
    return chosen if present[chosen].any() else np.zeros(len(known), bool)


def _outcomes(labels: torch.Tensor, scores: NDArray[np.float32]) -> Outcomes:
    values = torch.from_numpy(scores)
    if labels.ndim == 2:
        return Outcomes(labels.numpy(), scores=scores, loss=binary_loss(values, labels))
    among = is_among(values, labels, min(TOP_K, values.shape[1]))
    loss = float(cross_entropy(values.double(), labels))
    return Outcomes(labels.numpy(), values.argmax(1).numpy(), among.numpy(), loss=loss)


# What is probed ------------------------------------------------------------------------------------------------------


def _draw(opened: Downstream, shots: int, seed: int) -> NDArray[np.int64]:
    """Training images of each draw: int64 [draws, classes * shots], in the order of the dataset."""
    labels = opened.train.labels
    if labels.ndim == 2:
        raise DownstreamError(f"shots: {opened.name} has several labels an image: none belongs to one class alone")
    draws = []
    for draw in range(DRAWS):
        chosen = []
        for label, name in enumerate(opened.class_names):
            of_class = np.flatnonzero(labels == label)
            if len(of_class) < shots:
                raise DownstreamError(f"shots is {shots}: class '{name}' has only {len(of_class)} training images")
            chosen.append(random_stream(seed, Stream.FEW_SHOT, draw, label).permutation(of_class)[:shots])
        draws.append(np.sort(np.concatenate(chosen)))
    return np.stack(draws)


def _part(images: LabelledImages, chosen: NDArray[np.int64]) -> LabelledImages:
    return LabelledImages(images.source, images.indices[chosen], images.labels[chosen], images.class_names)


def _check_labels(opened: Downstream) -> None:
    labels = opened.train.labels
    several = labels.ndim == 2
    for label, name in enumerate(opened.class_names):
        having = (labels[:, label] == 1) if several else labels == label
        lacking = (labels[:, label] == 0) if several else labels != label
        if not having.any() or not lacking.any():
            which = "with" if not having.any() else "without"
            raise DownstreamError(f"{opened.name}: has no training image {which} '{name}': there is nothing to fit to")


def _mean(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures averaged over draws of training images; the test images are the same."""
    mean = dict(results[0])
    for name in ("score", "top1", "topk", "loss"):
        if mean[name] is not None:
            mean[name] = float(np.mean([result[name] for result in results]))
    columns = zip(*(result["per_class"] for result in results), strict=True)
    mean["per_class"] = [None if column[0] is None else float(np.mean(column)) for column in columns]
    if mean["confusion"] is not None:
        mean["confusion"] = np.sum([result["confusion"] for result in results], axis=0)
    return mean


def _default_folder(checkpoint: str | Path, opened: Downstream, method: str, shots: int | None) -> Path:
    settings = opened.settings
    dataset = settings.root.resolve().name if settings.kind == "folder" and settings.root else settings.kind
    name = f"{method}-{dataset}" + (f"-{shots}-shot" if shots else "")
    path = Path(checkpoint)
    return (path if path.is_dir() else path.parent) / name
