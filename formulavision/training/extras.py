"""Loggers, callbacks and Trainer arguments of Lightning that a user adds to a run, as far as resuming stays exact."""

from __future__ import annotations

import inspect
import io
import logging
import pickle
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.reduction import ForkingPickler
from types import UnionType
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler

from formulavision.data.items import ImageDataset, apply_transform
from formulavision.training.loggers import NamedLoggers
from formulavision.training.randomness import own_randomness
from formulavision.training.ranks import environment
from formulavision.util.config import did_you_mean
from formulavision.util.errors import ConfigError, one_line

__all__ = [
    "Extras",
    "LoggerLike",
    "check_sendable",
    "check_states",
    "describe_transform",
    "quiet_lightning",
    "read_extras",
]

LoggerLike = Logger | str | Iterable[Logger | str] | NamedLoggers | bool
"""What the argument ``logger`` may be."""

_ALLOWED: dict[str, Any] = {
    "benchmark": bool, "detect_anomaly": bool, "deterministic": bool | str, "enable_model_summary": bool,
    "inference_mode": bool, "log_every_n_steps": int, "profiler": Profiler | str,
}  # fmt: skip
"""Arguments of the Trainer that change neither the images, nor the steps, nor the files of a run, with their types."""

_INSTEAD = {
    ("max_epochs", "min_epochs", "max_steps", "min_steps"): "the schedule depends on it: set epochs or steps",
    ("max_time",): "the run would end before its last epoch: stop it by a signal, and resume it",
    ("precision",): "set precision",
    ("accelerator",): "set device",
    ("devices", "strategy"): "set devices",
    ("num_nodes",): "start the processes by torchrun",
    ("accumulate_grad_batches",): "set grad_accum_steps",
    ("gradient_clip_val", "gradient_clip_algorithm"): "set clip_grad, which limits the norm",
    ("logger", "callbacks"): "give it as an argument of its own",
    ("limit_train_batches", "overfit_batches", "fast_dev_run"): "each epoch has all images: give fewer images",
    ("limit_val_batches", "limit_test_batches", "limit_predict_batches"):
        "metrics are those of all images: set held_out, or give fewer test images",
    ("check_val_every_n_epoch", "val_check_interval", "num_sanity_val_steps"):
        "the metrics of a run include a validation after each epoch: set steps and interval for another",
    ("enable_checkpointing",): "the run writes its own checkpoints: set checkpoint_minutes",
    ("enable_progress_bar",): "set show_progress, or give a progress bar of Lightning in callbacks",
    ("sync_batchnorm", "use_distributed_sampler", "reload_dataloaders_every_n_epochs"):
        "the run's own loader does this",
    ("default_root_dir",): "files lie in the run's folder: set out",
    ("barebones", "plugins"): "the run depends on the parts of the Trainer that it changes",
}  # fmt: skip
"""Other arguments of the Trainer, with the reason and the setting to use in their place."""

_REFUSED = {
    "Checkpoint": "the run writes its own checkpoints, and keeps the best weights",
    "OnExceptionCheckpoint": "the run writes its own checkpoints",
    "EarlyStopping": "the schedule depends on the number of epochs: set epochs",
    "Timer": "the run would end before its last epoch: stop it by a signal, and resume it",
    "StochasticWeightAveraging": "set ema, a moving average of the weights",
    "WeightAveraging": "set ema, a moving average of the weights",
    "GradientAccumulationScheduler": "set grad_accum_steps",
    "BaseFinetuning": "the trained parameters are fixed at the start: use finetune and its argument freeze",
    "ModelPruning": "it replaces the model's parameters, which the weights of a run must keep",
    "BatchSizeFinder": "set batch_size",
    "LearningRateFinder": "set learning_rate",
}
"""Callbacks of Lightning that would change the steps of a run, with the reason and what to use in their place."""

_ADVICE = (
    ".*does not have many workers",
    "You're resuming from a checkpoint that ended before the epoch ended",  # the recorder sets the loader's position
    r"Found \d+ module\(s\) in eval mode",  # frozen layers
    "GPU available but not used",  # device: cpu
    r"The number of training batches .* is smaller than the logging interval",  # metrics are logged after each epoch
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own use of torch
)
"""Warnings by which Lightning advises its users, and which do not apply here."""


_NEED_LOGGER = (lightning_callbacks.LearningRateMonitor, lightning_callbacks.DeviceStatsMonitor)


@dataclass(frozen=True)
class Extras:
    """What a user adds to a run; see :func:`read_extras`.

    Attributes:
        loggers: loggers that are given as objects.
        named: loggers that are given by name.
        callbacks: the callbacks.
        trainer_args: arguments of Lightning's Trainer.
    """

    loggers: tuple[Logger, ...] = ()
    named: NamedLoggers = field(default_factory=NamedLoggers)
    callbacks: tuple[lightning.Callback, ...] = ()
    trainer_args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the Trainer: those that are given, and those that the callbacks need."""
        return {
            "enable_progress_bar": self.has_bar,
            "enable_model_summary": self._has(lightning_callbacks.ModelSummary),
            **self.trainer_args,
        }

    @property
    def has_bar(self) -> bool:
        """Whether one of the callbacks is a progress bar."""
        return self._has(lightning_callbacks.ProgressBar)

    def _has(self, kind: type) -> bool:
        return any(isinstance(callback, kind) for callback in self.callbacks)


def read_extras(
    logger: LoggerLike,
    callbacks: lightning.Callback | Iterable[lightning.Callback],
    trainer_args: Mapping[str, Any] | None,
) -> Extras:
    """Check what a user adds to a run, before the run starts.

    Args:
        logger: one or several loggers of Lightning, or names of loggers; True: TensorBoard's, or those by name that the
            run to be resumed has; False: none.
        callbacks: one or several callbacks of Lightning.
        trainer_args: arguments of Lightning's Trainer.

    Raises:
        ConfigError: something is of another type, or would break exact resuming or the run's folder. The message names
            the reason and the setting to use.
    """
    named = logger if isinstance(logger, NamedLoggers) else NamedLoggers()
    loggers: tuple[Any, ...] = ()
    if not (isinstance(logger, NamedLoggers) or logger is True):
        given = (logger,) if isinstance(logger, str) else logger or ()
        loggers = _listed("logger", given, Logger | str, "lightning.pytorch.loggers.Logger, or a name")
        named = NamedLoggers(tuple(each for each in loggers if isinstance(each, str)))
    extras = Extras(
        tuple(each for each in loggers if isinstance(each, Logger)),
        named,
        _listed("callbacks", callbacks, lightning.Callback, "lightning.pytorch.Callback"),
        dict(trainer_args or {}),
    )
    for callback in extras.callbacks:
        for name, reason in _REFUSED.items():
            if isinstance(callback, getattr(lightning_callbacks, name, ())):
                raise ConfigError(f"callbacks: {type(callback).__name__} is not allowed: {reason}")
        if isinstance(callback, _NEED_LOGGER) and not extras.loggers and named.names == ():
            raise ConfigError(f"callbacks: {type(callback).__name__} needs a logger: give one, such as logger='csv'")
    for name, value in extras.trainer_args.items():
        if name in _ALLOWED:
            if value is not None and not isinstance(value, _ALLOWED[name]):
                raise ConfigError(f"trainer_args: {name} cannot be a {type(value).__name__}")
            continue
        reason = next((reason for names, reason in _INSTEAD.items() if name in names), "")
        if not reason and name not in inspect.signature(lightning.Trainer).parameters:
            raise ConfigError(f"trainer_args: Trainer has no argument '{name}'{did_you_mean(name, _ALLOWED)}")
        raise ConfigError(
            f"trainer_args: '{name}' is not allowed: {reason or 'it may change the run'}; "
            f"allowed are {', '.join(sorted(_ALLOWED))}"
        )
    try:
        with quiet_lightning():
            lightning.Trainer(
                accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=list(extras.callbacks),
                plugins=environment(), **extras.arguments,
            )  # fmt: skip
    except Exception as error:  # the values are the user's
        raise ConfigError(f"trainer_args: {one_line(error)}") from None
    return extras


def _listed(name: str, given: Any, kind: type | UnionType, called: str) -> tuple[Any, ...]:
    found = (given,) if isinstance(given, kind) or not isinstance(given, Iterable) else tuple(given)
    for each in found:
        if not isinstance(each, kind):
            raise ConfigError(f"{name}: a {type(each).__name__} is not allowed: must be a {called}")
    return found


def describe_transform(transform: Any, images: ImageDataset) -> dict[str, str]:
    """The entry of settings.yaml for a user's transform: its repr, without addresses in memory. Empty without one.

    Args:
        transform: a function of an image; None: none.
        images: training images, on the first of which the transform is tried.

    Raises:
        ConfigError: it is no function, fails, or gives something else than an image.
    """
    if transform is None:
        return {}
    if not callable(transform):
        raise ConfigError(f"transform: a {type(transform).__name__} is not allowed: must be a function of an image")
    image, target = images[0]
    try:
        with own_randomness():
            apply_transform(transform, image, target)
    except ConfigError:
        raise
    except Exception as error:  # the user's own code
        kind = f"uint8 {list(image.shape)}"
        raise ConfigError(
            f"transform: fails on a training image, {kind} ({type(error).__name__}: {one_line(error)})"
        ) from None
    return {"transform": re.sub(r" at 0x[0-9a-f]+", "", " ".join(repr(transform).split()))}


def check_sendable(**objects: Any) -> None:
    """Refuse objects that cannot be sent to the processes that ``devices`` starts.

    Args:
        objects: by the name of the argument that they were given as.

    Raises:
        ConfigError: names the argument and the reason.
    """
    for name, value in objects.items():
        try:
            ForkingPickler.dumps(value)
        except Exception as error:  # pickling calls code of the object
            raise ConfigError(
                f"{name}: cannot be sent to other processes ({one_line(error)}): set devices: 1, or start the script "
                "by torchrun"
            ) from None


def check_states(callbacks: Iterable[lightning.Callback]) -> None:
    """Refuse callbacks whose state a checkpoint cannot hold, because it is read without running code from it.

    Raises:
        ConfigError: the state holds other objects than tensors and plain values.
    """
    for callback in callbacks:
        state, content = callback.state_dict(), io.BytesIO()
        try:
            torch.save(state, content)
            content.seek(0)
            torch.load(content, weights_only=True)
        except (pickle.PickleError, AttributeError, TypeError):
            raise ConfigError(
                f"callbacks: state_dict of {type(callback).__name__} must hold only tensors, numbers, text, lists and "
                "dictionaries: a checkpoint is read without running code from it"
            ) from None


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Lightning prints no advice, and no lines about the devices that it found."""
    levels = {"lightning.pytorch": logging.ERROR, "lightning.fabric": logging.ERROR,
              "lightning.pytorch.profilers": logging.INFO,
              "lightning.pytorch.callbacks.model_summary": logging.INFO}  # fmt: skip
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        with warnings.catch_warnings():
            for message in _ADVICE:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
