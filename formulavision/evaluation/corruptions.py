"""A fine-tuned model on corrupted test images: its errors and calibration by corruption and severity."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from rich.console import Console
from torch import nn
from torchmetrics.functional.classification import multiclass_calibration_error

from formulavision.data.downstream import DownstreamSettings
from formulavision.data.downstream.corrupted import SEVERITIES
from formulavision.data.downstream.opening import open_corrupted
from formulavision.evaluation.evaluating import build_finetuned, check_class_names, open_finetuned
from formulavision.evaluation.inference import BATCH_SIZE, choose_device, computed_by, over_dataset
from formulavision.evaluation.results import make_folder, refuse_another
from formulavision.training.progress import say_and_log
from formulavision.util.files import write_json
from formulavision.util.folders import adding
from formulavision.util.text import write_csv

__all__ = ["ALEXNET", "CorruptionEvaluation", "evaluate_corrupted"]

ALEXNET = {
    "gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.922640, "defocus_blur": 0.819880,
    "glass_blur": 0.826268, "motion_blur": 0.785948, "zoom_blur": 0.798360, "snow": 0.866816, "frost": 0.826572,
    "fog": 0.819324, "brightness": 0.564592, "contrast": 0.853204, "elastic_transform": 0.646056,
    "pixelate": 0.717840, "jpeg_compression": 0.606500,
}  # fmt: skip
"""The 15 corruptions of the benchmark, and AlexNet's mean error on each in ImageNet-C, from the benchmark's repository
(github.com/hendrycks/robustness). Others (speckle_noise, gaussian_blur, spatter, saturate) are for choosing settings
and not in the mean."""

_BINS = 15
_BELOW_1 = 1 - 2**-24
"""The largest float32 below 1."""
_FILES = ("corruptions.json", "corruptions.csv")


@dataclass(frozen=True, repr=False)
class CorruptionEvaluation:
    """Errors of a model on corrupted images.

    Attributes:
        errors: by corruption, the share (0..1) of wrong predictions at each severity, 1 to 5.
        calibration_errors: by corruption, the expected calibration error (0..1) at each severity: the mean difference
            between confidence and accuracy in 15 bins of equal width (Guo et al., ICML 2017), by torchmetrics.
        counted: the corruptions that the means are over: those of the benchmark's 15 that are there, or all where none
            is.
        relative: whether each corruption's mean error is divided by AlexNet's, as for ImageNet-C.
        images: number of images at each severity of each corruption.
        seconds: time of the evaluation.
        folder: the folder of the files.
    """

    errors: dict[str, list[float]]
    calibration_errors: dict[str, list[float]]
    counted: list[str]
    relative: bool
    images: int
    seconds: float
    folder: Path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.summary()})"

    @property
    def mean_corruption_error(self) -> float:
        """Mean over corruptions of the mean error over severities, divided by AlexNet's with ``relative``: 1 is
        AlexNet's (Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
        Perturbations", ICLR 2019, section 4.1)."""
        means = [np.mean(self.errors[name]) / (ALEXNET[name] if self.relative else 1) for name in self.counted]
        return float(np.mean(means))

    @property
    def mean_calibration_error(self) -> float:
        """Mean of the calibration errors over corruptions and severities."""
        return float(np.mean([self.calibration_errors[name] for name in self.counted]))

    def summary(self) -> str:
        """The means in one line."""
        kind = "relative to AlexNet's" if self.relative else "not divided by another model's"
        which = f"{len(self.counted)} of the benchmark's {len(ALEXNET)} corruptions"
        if not ALEXNET.keys() & {*self.counted}:
            which = f"{len(self.counted)} corruptions, none of the benchmark's"
        return (
            f"mean corruption error {self.mean_corruption_error:.2%} ({kind}), mean calibration error "
            f"{self.mean_calibration_error:.2%} ({which}, {self.images:,} images at each of 5 severities, "
            f"{self.seconds:.1f} s)"
        )


def evaluate_corrupted(
    checkpoint: str | PathLike[str],
    downstream: DownstreamSettings | str,
    *,
    model: nn.Module | None = None,
    out: str | Path | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    show_progress: bool = True,
) -> CorruptionEvaluation:
    """Evaluate a fine-tuned model on corrupted test images, such as CIFAR-10-C or ImageNet-C.

    Writes ``corruptions.json`` (means, settings) and ``corruptions.csv`` (a line for each corruption and severity) into
    ``out``.

    Args:
        checkpoint, model, batch_size, workers, show_progress: as of :func:`formulavision.evaluate`.
        downstream: ``corrupted:/path`` or its settings; see
            :func:`formulavision.data.downstream.corrupted.read_corrupted` for the layouts. ``test_per_class`` takes as
            many images of each class, the same of each corruption and severity where these are arrays.
        out: a folder; None: the run's own, unless an evaluation on other corrupted images is there.

    Raises:
        CheckpointError: the checkpoint is no run, or has other classes.
        DownstreamError: the images are missing or cannot be used as they are.
        ConfigError: an argument is out of range, or ``out`` cannot be written.
    """
    chosen = downstream if isinstance(downstream, DownstreamSettings) else DownstreamSettings.from_text(downstream)
    weights, run = open_finetuned(checkpoint)
    groups = open_corrupted(chosen)
    first = next(iter(groups.values()))
    name = f"{chosen.kind}:{chosen.root}"
    check_class_names(run, name, first.classes, "must be the same classes in the same order")
    network, settings = build_finetuned(weights, run, model)
    tested = {"downstream": chosen.model_dump(mode="json")}
    if out is None:
        refuse_another(run.folder, tested, "an evaluation", _FILES[0])
    folder = make_folder(Path(out) if out is not None else run.folder, _FILES)
    console = Console(quiet=not show_progress)
    started = time.perf_counter()
    device = choose_device(settings)
    errors: dict[str, list[float]] = {}
    calibration_errors: dict[str, list[float]] = {}
    for number, ((corruption, severity), images) in enumerate(groups.items(), 1):
        doing = f"{corruption}, severity {severity} ({number} of {len(groups)})"
        logits, labels = over_dataset(
            network, images, settings, device=device, batch_size=batch_size, workers=workers,
            console=console, doing=doing,
        )  # fmt: skip
        errors.setdefault(corruption, []).append(float((logits.argmax(1) != labels).double().mean()))
        # torchmetrics has a bin more for confidences of 1, which belong to the last one.
        confidences = logits.softmax(1).clamp(max=_BELOW_1)
        calibration = multiclass_calibration_error(confidences, labels, first.num_classes, n_bins=_BINS)
        calibration_errors.setdefault(corruption, []).append(float(calibration))
    of_imagenet = len(first.classes) == 1000 and all(re.fullmatch(r"n\d{8}", wnid) for wnid in first.classes)
    result = CorruptionEvaluation(
        errors=errors,
        calibration_errors=calibration_errors,
        counted=[corruption for corruption in errors if corruption in ALEXNET] or list(errors),
        relative=of_imagenet and not ALEXNET.keys().isdisjoint(errors),
        images=len(first),
        seconds=time.perf_counter() - started,
        folder=folder,
    )
    content = {
        "checkpoint": str(weights.path),
        **tested,
        **computed_by(settings, device),
        "mean_corruption_error": result.mean_corruption_error,
        "relative_to_alexnet": result.relative,
        "mean_calibration_error": result.mean_calibration_error,
        "counted": result.counted,
        "images": result.images,
        "seconds": result.seconds,
    }
    rows = [
        [corruption, severity, result.images, errors[corruption][place], calibration_errors[corruption][place]]
        for corruption in errors
        for place, severity in enumerate(SEVERITIES)
    ]
    with adding(folder, _FILES):
        write_csv(folder / _FILES[1], [["corruption", "severity", "images", "error", "calibration_error"], *rows])
        write_json(content, folder / _FILES[0])
    say_and_log(f"{weights.path} on {name}: {result.summary()}; written to {folder}: {', '.join(_FILES)}", console)
    return result
