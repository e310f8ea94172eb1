"""Probes of a model's frozen features, without training the model: logistic regression, and nearest neighbours."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch.nn.functional import normalize

from formulavision.data.downstream import Downstream, DownstreamLike, open_for_run
from formulavision.evaluation.inference import Features, choose_device, computed_by, extract_features
from formulavision.evaluation.metrics import Metrics, Predictions, compute_metrics
from formulavision.evaluation.progress import steps
from formulavision.evaluation.results import Evaluation, make_folder, refuse_another, write_results
from formulavision.generators.streams import Stream, random_stream
from formulavision.training.checkpoints import Checkpoint, load_checkpoint
from formulavision.training.fit import new_model
from formulavision.training.progress import say_and_log
from formulavision.training.runs import BEST_WEIGHTS, WEIGHTS, own_class
from formulavision.training.settings import PREPROCESSING, REMOTE, TrainSettings
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError, DownstreamError
from formulavision.util.indices import whole

__all__ = ["Probe", "classify_by_neighbours", "classify_linearly", "probe"]

Method = Literal["linear", "knn"]

NEIGHBOURS = 20
TEMPERATURE = 0.07
DRAWS = 5
"""Draws of training images with ``shots``, because the score depends on the images."""

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
"""L2 penalties to choose from: the loss is mean cross-entropy + penalty / 2 * |W|^2 on standardised features."""
_PENALTY_OF_FEW = 1e-1
"""The penalty where no class has images enough to hold some out."""
_HELD_OUT = 5
"""One of so many training images of a class is held out to choose the penalty."""

_USED = {"model", *PREPROCESSING, "precision", "device"}
"""Settings that features depend on; those of new weights on the seed, too."""

_SIMILARITIES = 1 << 25
"""Similarities that are computed at a time: 128 MB."""
_TRAIN_BYTES = 1 << 30
"""Bytes of training features that are on the device at a time."""
_VOTING = 4096
"""Test images whose neighbours' votes are counted at a time."""


@dataclass(frozen=True, eq=False, repr=False)
class Probe(Evaluation):
    """Metrics of a classifier on frozen features.

    With ``shots``, the metrics are means over the draws, the confusions their sum, and predictions.npz is of the first.

    Attributes:
        method: ``linear`` or ``knn``.
        train_images: number of images that the classifier was fitted to.
        draws: the score of each draw of training images; a single one without ``shots``.
        spread: standard deviation of the draws' scores; None for a single draw.
        penalty: the L2 penalty that a linear probe chose (in the first draw); None for knn.
    """

    method: Method
    train_images: int
    draws: list[float]
    spread: float | None
    penalty: float | None


def probe(
    checkpoint: str | PathLike[str] | None,
    downstream: DownstreamLike,
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

    ``linear`` is logistic regression on standardised features. Its L2 penalty is chosen from 1, 0.1 ... 0.0001 on a
    fifth of the training images; then it is fitted to all of them. ``knn`` weighs the votes of the 20 nearest training
    images by exp(cosine similarity / 0.07), as Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination" (CVPR 2018, section 3.4), and Caron et al. (DINO, ICCV 2021) do. With several labels an image,
    ``linear`` is one logistic regression a class, and ``knn`` the weighted share of the neighbours that have the label.

    Writes the files that :func:`formulavision.evaluate` writes into ``out``.

    Args:
        checkpoint: as of :func:`formulavision.load_checkpoint`; its head is not used. None: new weights, by
            ``settings.seed``, for comparison with a model that has learnt nothing.
        downstream: the dataset, or how to open it (``cifar10``, ``folder:/path``); see
            :func:`formulavision.data.downstream.open_downstream`. For a fine-tuned run, a folder without test images is
            divided as the run divided it, unless ``test_share`` or ``test_seed`` is given.
        method: ``linear`` or ``knn``.
        settings: settings of the model, of the images' size, resizing and normalisation, and of the device; those not
            set are the checkpoint's own. ``model`` must be set where the checkpoint does not tell it.
        out: a folder; None: ``METHOD-DATASET`` (``linear-cifar10-5-shot``) in the run's folder, or beside the file of
            weights, whose name is added (``linear-cifar10-best``), unless a probe of other images, settings or draws is
            there; must be given where there is neither.
        shots: number of training images of each class, drawn five times; fewer are a part of more. None: all.
        seed: seed of these draws, and of the held-out training images.
        workers: processes that load images; 0: this process; None: 0, or up to 16 where the device is a GPU.
        show_progress: whether lines and progress bars are printed.

    Raises:
        CheckpointError: the checkpoint is none, or of another architecture.
        DownstreamError: the dataset cannot be used as it is, has masks, too few images of a class, or a test image that
            the run was trained on.
        ConfigError: an argument is not allowed, or ``out`` cannot be written.
    """
    if method not in get_args(Method):
        raise ConfigError(f"method: {method!r} is not allowed: must be linear or knn")
    shots, seed = None if shots is None else _whole("shots", shots), _whole("seed", seed)
    if shots is not None and shots < 1:
        raise ConfigError(f"shots: {shots} is not allowed: must be at least 1")
    name = "new weights" if checkpoint is None else os.fspath(checkpoint)
    if out is None and (checkpoint is None or (not Path(name).exists() and name.startswith(REMOTE))):
        raise ConfigError(f"out: is missing: {name} has no folder to write into")
    used = _USED if checkpoint is not None else {*_USED, "seed"}
    if isinstance(settings, Mapping) and (unused := settings.keys() & TrainSettings.model_fields.keys() - used):
        raise ConfigError(f"{min(unused)}: is not allowed: a probe depends on {', '.join(sorted(used))} alone")
    weights = None if checkpoint is None else load_checkpoint(checkpoint)
    chosen = feature_settings(weights, name, settings)
    opened = open_for_run(downstream, weights.run if weights else None)
    _check_labels(opened)
    draws = [np.arange(len(opened.train))] if shots is None else _draw(opened, shots, seed)
    model = new_model(chosen, opened.num_classes)
    loaded = None if weights is None else weights.load_into(model)
    by = computed_by(chosen, choose_device(chosen))
    recorded = {name: getattr(chosen, name) for name in ("model", *PREPROCESSING)} | {"precision": by["precision"]}
    asked: dict[str, Any] = {"downstream": opened.identity(), "method": method, "settings": recorded}
    asked |= {"shots": shots, "seed": seed}
    if out is None:
        out = _default_folder(name, opened, method, shots)
        refuse_another(out, asked, "a probe")
    folder = make_folder(Path(out))
    console = Console(quiet=not show_progress)
    if opened.note:
        say_and_log(opened.describe(), console)
    if weights is not None and loaded is not None:
        say_and_log(f"checkpoint {name}: {loaded.describe()}", console)
        if seen := weights.describe_preprocessing(chosen):
            say_and_log(seen, console)
    started = time.perf_counter()
    drawn = np.unique(np.concatenate(draws))
    train, test = (
        extract_features(model, images, chosen, workers=workers, console=console)
        for images in (opened.train.part(drawn), opened.test)
    )
    predictions: list[Predictions] = []
    penalties: list[float | None] = []
    fits = (len(PENALTIES) + 1) * (opened.num_classes if opened.multi_label else 1) if method == "linear" else 1
    verb = "fitting logistic regressions to" if method == "linear" else "nearest neighbours among"
    doing = f"{verb} {len(draws[0]):,} x {train.values.shape[1]:,} features"
    with steps(console, doing, fits * len(draws)) as advance:
        for i, draw in enumerate(draws):
            part = train if shots is None else train[np.searchsorted(drawn, draw)]
            if method == "linear":
                found, penalty = classify_linearly(part, test, opened.num_classes, seed=seed + i, advance=advance)
            else:
                found, penalty = (
                    classify_by_neighbours(part, test, opened.num_classes, device=choose_device(chosen)),
                    None,
                )
                advance()
            predictions.append(found)
            penalties.append(penalty)
    metrics = [compute_metrics(each) for each in predictions]
    scores = [each.score for each in metrics]
    result = Probe(
        **vars(_mean(metrics)),
        images=len(test),
        classes=opened.classes,
        seconds=time.perf_counter() - started,
        folder=folder,
        method=method,
        train_images=len(draws[0]),
        draws=scores,
        spread=float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        penalty=penalties[0],
    )
    facts = {
        "checkpoint": None if checkpoint is None else name,
        "sha256": None if weights is None else weights.sha256,
        **asked,
        "train_images": result.train_images,
        "draws": scores,
        "spread": result.spread,
        "penalty": result.penalty,
        **by,
    }
    files = write_results(result, predictions[0], facts)
    spread = f", ± {result.spread:.2%} over {len(scores)} draws" if result.spread is not None else ""
    say_and_log(
        f"{method} probe of {name} on {opened.name}, {result.train_images:,} training images: "
        f"{result.summary()}{spread}; written to {folder}: {', '.join(files)}",
        console,
    )
    return result


def _whole(name: str, value: Any) -> int:
    try:
        return whole(value)  # numpy's numbers could not be written
    except TypeError:
        raise ConfigError(f"{name}: {value!r} is not allowed: must be a whole number") from None


def feature_settings(
    weights: Checkpoint | None, source: str | PathLike[str], settings: TrainSettings | Mapping[str, Any] | None
) -> TrainSettings:
    """The settings of a checkpoint's model and of its images: those that are given, then the checkpoint's own.

    A run has all settings; a file of weights may tell the model and the images' size, resizing and normalisation.

    Raises:
        ConfigError: the model is unknown, or another one than the checkpoint's.
    """
    given = settings if isinstance(settings, TrainSettings) else parse(TrainSettings, dict(settings or {}))
    if weights is None:
        return given
    if weights.run is not None and (own := own_class(weights.run.settings)) and "model" not in given.model_fields_set:
        raise ConfigError(f"{source}: was trained with a module of your own, {own}: probe takes models of timm only")
    if weights.model is None and "model" not in given.model_fields_set:
        raise ConfigError(f"model: is missing: {source} does not tell the model of its weights")
    chosen = weights.complete(given)
    if weights.run is None:
        return chosen
    told = chosen.model_dump(include=chosen.model_fields_set | set(PREPROCESSING))
    # Features are those of a classifier, whatever the run has learned.
    return parse(TrainSettings, {**weights.run.settings["settings"], **told, "target": None, "decoder": None})


# Nearest neighbours --------------------------------------------------------------------------------------------------


def classify_by_neighbours(
    train: Features, test: Features, num_classes: int, *, device: str | torch.device = "cpu"
) -> Predictions:
    """Predictions by the weighted votes of the nearest training images; see :func:`probe`."""
    similarities, neighbours = _nearest(train.values, test.values, torch.device(device))
    labels = train.labels.to(device)
    scores = []
    for similar, nearest in zip(similarities.split(_VOTING), neighbours.split(_VOTING), strict=True):
        weights = (similar / TEMPERATURE).exp()
        if labels.ndim == 1:
            votes = weights.new_zeros(len(nearest), num_classes).scatter_add_(1, labels[nearest], weights)
            scores.append(votes.masked_fill(votes == 0, -torch.inf).cpu())
        else:
            counted = weights[:, :, None] * (labels[nearest] >= 0)
            present = (counted * (labels[nearest] == 1)).sum(1)
            scores.append((present / counted.sum(1).clamp(min=torch.finfo(present.dtype).tiny)).cpu())
    return Predictions(test.labels, torch.cat(scores), are_logits=False)


def _nearest(train: torch.Tensor, test: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine similarities and indices of the nearest training images: float32 and int64 [n, neighbours].

    Training features move to the device a part at a time.
    """
    wanted = min(NEIGHBOURS, len(train))
    rows = max(wanted, _TRAIN_BYTES // (4 * train.shape[1]))
    similarities = torch.empty((len(test), 0), device=device)
    neighbours = torch.empty((len(test), 0), dtype=torch.int64, device=device)
    for start in range(0, len(train), rows):
        part = normalize(train[start : start + rows].to(device))
        found = [
            (normalize(chunk.to(device)) @ part.T).topk(min(wanted, len(part)))
            for chunk in test.split(max(1, _SIMILARITIES // len(part)))
        ]
        similarities = torch.cat([similarities, torch.cat([each.values for each in found])], 1)
        neighbours = torch.cat([neighbours, torch.cat([each.indices for each in found]) + start], 1)
        similarities, order = similarities.topk(min(wanted, similarities.shape[1]))
        neighbours = neighbours.gather(1, order)
    return similarities, neighbours


# Logistic regression -------------------------------------------------------------------------------------------------


def classify_linearly(
    train: Features, test: Features, num_classes: int, *, seed: int = 0, advance: Callable[[], None] = lambda: None
) -> tuple[Predictions, float]:
    """Predictions by logistic regression on standardised features; see :func:`probe`.

    Args:
        advance: called after each fit.

    Returns:
        The predictions for the test images, and the penalty that was chosen.
    """
    penalty = _PENALTY_OF_FEW
    held_out = _held_out(train.labels, seed)
    if held_out.any():
        part = train[held_out]
        candidates = _fit(train[~held_out], part.values, num_classes, PENALTIES, advance)
        scores = [compute_metrics(Predictions(part.labels, logits)).score for logits in candidates]
        penalty = PENALTIES[int(np.argmax(scores))]  # of equal scores the first, whose penalty is the largest
    (logits,) = _fit(train, test.values, num_classes, [penalty], advance)
    return Predictions(test.labels, logits), penalty


def _fit(
    train: Features, test: torch.Tensor, num_classes: int, penalties: Sequence[float], advance: Callable[[], None]
) -> list[torch.Tensor]:
    """Logits of the test features for each penalty, float32 [n, classes]; entries that do not count are left out."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler(copy=False)
    fitted, tested = scaler.fit_transform(train.values.double().numpy()), scaler.transform(test.double().numpy())
    labels = train.labels.numpy()
    if labels.ndim == 1:
        logits = []
        for model in _regressions(fitted, labels, penalties):
            values = model.decision_function(tested)
            # With two classes there is one value, the logit of the second class less that of the first.
            logits.append(values if num_classes > 2 else np.stack([0 * values, values], 1))
            advance()
    else:
        logits = [np.empty((len(test), num_classes)) for _ in penalties]
        for label in range(num_classes):
            counted = labels[:, label] >= 0
            models = _regressions(fitted[counted], labels[counted, label], penalties)
            for columns, model in zip(logits, models, strict=True):
                columns[:, label] = model.decision_function(tested)
                advance()
    return [torch.from_numpy(each.astype(np.float32)) for each in logits]


def _regressions(features: NDArray[np.float64], labels: NDArray[Any], penalties: Sequence[float]) -> Any:
    """A regression for each penalty, from the weights of the one before; it is the same object each time."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(warm_start=True, max_iter=200)
    for penalty in penalties:
        # scikit-learn sums the loss over the images.
        model.set_params(C=1 / (penalty * len(labels)))
        with warnings.catch_warnings():
            # The held-out images choose among the regressions, converged or not.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features, labels)
        yield model


def _held_out(labels: torch.Tensor, seed: int) -> NDArray[np.bool_]:
    """The images that choose the penalty, bool [n]: a fifth of each class, rounded down; with several labels of all.

    With several labels, no image is held out that is the only one with a class, or the only one without it.
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
        last = (present[image] & (with_it == 1)) | (absent[image] & (without_it == 1))
        if not last.any():
            chosen[image] = True
            with_it = with_it - present[image]
            without_it = without_it - absent[image]
    # Average precision needs an image with a class.
    return chosen if present[chosen].any() else np.zeros(len(known), bool)


# Training images -----------------------------------------------------------------------------------------------------


def _draw(opened: Downstream, shots: int, seed: int) -> list[NDArray[np.int64]]:
    """Positions of the training images of each draw: int64 [classes * shots] each, in the order of the dataset."""
    if opened.multi_label:
        raise DownstreamError(f"shots: {opened.name} has several labels an image: none belongs to one class alone")
    draws = []
    for draw in range(DRAWS):
        chosen = []
        for label, name in enumerate(opened.classes):
            of_class = opened.train.showing(label)
            if len(of_class) < shots:
                raise DownstreamError(f"shots is {shots}: class '{name}' has only {len(of_class)} training images")
            chosen.append(random_stream(seed, Stream.FEW_SHOT, draw, label).permutation(of_class)[:shots])
        draws.append(np.sort(np.concatenate(chosen)))
    return draws


def _check_labels(opened: Downstream) -> None:
    if opened.target == "semantic":
        raise DownstreamError(f"{opened.name}: has masks: a probe needs one class or several labels an image")
    labels = opened.train.labels
    for label, name in enumerate(opened.classes):
        having = (labels[:, label] == 1) if opened.multi_label else labels == label
        lacking = (labels[:, label] == 0) if opened.multi_label else labels != label
        if not having.any() or not lacking.any():
            which = "with" if not having.any() else "without"
            raise DownstreamError(f"{opened.name}: has no training image {which} '{name}': there is nothing to fit to")


def _mean(draws: Sequence[Metrics]) -> Metrics:
    """Metrics averaged over draws of training images, with the sum of the confusions; the test images are the same."""
    first = draws[0]
    means: dict[str, Any] = {
        name: float(np.mean([getattr(each, name) for each in draws]))
        for name in ("score", "top1", "topk", "loss")
        if getattr(first, name) is not None
    }
    columns = zip(*(each.per_class for each in draws), strict=True)
    means["per_class"] = [None if column[0] is None else float(np.mean(column)) for column in columns]
    if first.confusion is not None:
        means["confusion"] = sum(each.confusion for each in draws if each.confusion is not None)
    return replace(first, **means)


def _default_folder(checkpoint: str | PathLike[str], opened: Downstream, method: str, shots: int | None) -> Path:
    settings = opened.settings
    dataset = settings.root.resolve().name if settings.kind == "folder" and settings.root else settings.kind
    name = f"{method}-{dataset}" + (f"-{shots}-shot" if shots else "")
    path = Path(checkpoint)
    if path.is_dir() or path.name == WEIGHTS:
        return (path if path.is_dir() else path.parent) / name
    return path.parent / f"{name}-{'best' if path.name == BEST_WEIGHTS else path.stem}"
