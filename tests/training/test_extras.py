"""Loggers, callbacks and Trainer arguments of a user change no run, and what would change one is refused."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
from cases import slow
from comparing_runs import comparable, die_after, same
from lightning.pytorch import callbacks as c
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.profilers import SimpleProfiler

from formulavision.training import Run, finetune, pretrain
from formulavision.util.errors import ConfigError, FormulaVisionError

EVERY_STEP = {"checkpoint_minutes": 0}


class Tracker(Logger):
    """A logger like that of a tracking service: it counts what is sent to it, and is closed at the end."""

    name = "tracker"
    version = "1"

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[int | None, dict[str, float]]] = []
        self.config: dict[str, Any] = {}
        self.closed: list[str] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.sent.append((step, dict(metrics)))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.config.update(params)

    def finalize(self, status: str) -> None:
        self.closed.append(status)


class Greedy(c.Callback):
    """Draws random numbers wherever it is called, and counts."""

    def __init__(self) -> None:
        self.steps = 0

    def _draw(self, *arguments: Any, **named: Any) -> None:
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002

    on_train_start = on_train_epoch_start = on_train_batch_start = _draw
    on_validation_start = on_train_epoch_end = on_before_backward = _draw

    def on_train_batch_end(self, *arguments: Any) -> None:
        self._draw()
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps = state_dict["steps"]


def run_of(stripes: Any, out: Path, settings: dict[str, Any], **arguments: Any) -> Run:
    return pretrain(stripes(), out=out, settings=settings, show_progress=False, **arguments)


def killed_after(step: int, stripes: Any, out: Path, settings: dict[str, Any], **arguments: Any) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        die_after(step, patch)
        run_of(stripes, out, settings, **arguments)


# Loggers --------------------------------------------------------------------------------------------------------------


def test_loggers_of_a_user_get_settings_and_metrics(stripes: Any, small: Any, pretrained: Run, tmp_path: Path) -> None:
    tracker, table = Tracker(), CSVLogger(tmp_path / "mine")
    run = run_of(stripes, tmp_path / "run", small, logger=[tracker, table])
    assert same(run.folder, pretrained.folder)
    assert [step for step, _ in tracker.sent] == [1, 2]
    assert [sent["train_loss"] for _, sent in tracker.sent] == [row["train_loss"] for row in run.history]
    assert tracker.config["settings"]["learning_rate"] == 0.05 and tracker.config["kind"] == "pretrain"
    assert tracker.closed == ["success"]
    assert list((tmp_path / "mine").rglob("metrics.csv"))
    assert not (run.folder / "logs" / "tensorboard").exists()


def test_no_logger(stripes: Any, small: Any, pretrained: Run, tmp_path: Path) -> None:
    run = run_of(stripes, tmp_path / "run", small, logger=False)
    assert same(run.folder, pretrained.folder)
    assert [path.name for path in (run.folder / "logs").iterdir()] == ["log.txt"]


def test_a_logger_is_closed_after_ctrl_c_and_goes_on_with_the_right_step(
    stripes: Any, small: Any, tmp_path: Path
) -> None:
    class Impatient(c.Callback):
        def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
            if trainer.global_step == 4:
                signal.raise_signal(signal.SIGINT)

    rates: dict[str, Any] = {"trainer_args": {"log_every_n_steps": 1}}
    whole, first, second = Tracker(), Tracker(), Tracker()
    run_of(stripes, tmp_path / "whole", small, logger=whole, callbacks=c.LearningRateMonitor(), **rates)
    with pytest.raises(KeyboardInterrupt):
        run_of(
            stripes, tmp_path / "run", small, logger=first, callbacks=[c.LearningRateMonitor(), Impatient()], **rates
        )
    assert len(first.closed) == 1
    run_of(stripes, tmp_path / "run", small, logger=second, callbacks=c.LearningRateMonitor(), resume=True, **rates)
    assert second.closed == ["success"]

    def curve(sent: Any, name: str) -> list[Any]:
        return [(step, metrics[name]) for step, metrics in sent if name in metrics]

    for name in ("train_loss", "lr-SGD"):
        assert curve(first.sent + second.sent, name) == curve(whole.sent, name)
    assert len(curve(whole.sent, "lr-SGD")) == 6


@pytest.mark.parametrize("logger", [object(), [Tracker(), 3], 3])
def test_what_is_no_logger_is_refused(stripes: Any, small: Any, tmp_path: Path, logger: Any) -> None:
    with pytest.raises(ConfigError, match=r"^logger: a \w+ is not allowed: must be a lightning\.pytorch\.loggers\.Log"):
        run_of(stripes, tmp_path / "run", small, logger=logger)
    assert not (tmp_path / "run").exists()


# Callbacks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [3, *slow(1, 2, 4)])
def test_callbacks_that_draw_random_numbers_change_nothing_and_resume_with_their_state(
    stripes: Any, small: Any, pretrained: Run, tmp_path: Path, step: int
) -> None:
    settings = {**small, **EVERY_STEP, "mixup": 0.5}
    without = run_of(stripes, tmp_path / "without", settings)
    killed_after(step, stripes, tmp_path / "run", settings, callbacks=Greedy())
    greedy = Greedy()
    run = run_of(stripes, tmp_path / "run", settings, callbacks=[greedy], resume=True)
    assert same(run.folder, without.folder)
    assert comparable(run) == comparable(without)
    assert greedy.steps == 6


def test_callbacks_see_the_metrics_of_the_epoch(stripes: Any, small: Any, pretrained: Run, tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []

    class Watcher(c.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    settings = {name: value for name, value in small.items() if name != "model"}
    digits: Any = {"kind": "digits", "train_per_class": 4, "test_per_class": 2}
    run = finetune(
        pretrained.folder, digits, out=tmp_path / "run", settings=settings, callbacks=Watcher(), show_progress=False
    )
    names = ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]
    assert seen == [pytest.approx({name: row[name] for name in names}) for row in run.history]


def test_a_callback_that_stops_the_run_leaves_it_unfinished(
    stripes: Any, small: Any, pretrained: Run, tmp_path: Path
) -> None:
    class Stopper(c.Callback):
        def __init__(self, hook: str) -> None:
            setattr(self, hook, lambda trainer, *arguments: setattr(trainer, "should_stop", True))

    for hook in ("on_train_batch_end", "on_train_epoch_end"):
        with pytest.raises(FormulaVisionError, match="a callback stopped the run"):
            run_of(stripes, tmp_path / hook, small, callbacks=Stopper(hook))
        assert same(run_of(stripes, tmp_path / hook, small, resume=True).folder, pretrained.folder)


def test_a_state_that_a_checkpoint_cannot_hold_is_refused(stripes: Any, small: Any, tmp_path: Path) -> None:
    class Keeper(c.Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"folder": Path("here")}

    class LateKeeper(c.Callback):
        """Its state can be read at the start of the run, and not later."""

        def on_train_batch_end(self, *arguments: Any) -> None:
            self.state_dict = Keeper.state_dict.__get__(self)  # type: ignore[method-assign]

    for kind in (Keeper, LateKeeper):
        with pytest.raises(ConfigError, match=f"callbacks: state_dict of {kind.__name__} must hold only tensors"):
            run_of(stripes, tmp_path / "run", small, callbacks=kind(), resume=True)
        assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    run_of(stripes, tmp_path / "run", small, resume=True)


@pytest.mark.parametrize(
    ("callback", "told"),
    [
        (lambda: c.ModelCheckpoint(), "ModelCheckpoint is not allowed: the run writes its own checkpoints"),
        (lambda: c.EarlyStopping("train_loss"), "EarlyStopping is not allowed: .*: set epochs"),
        (lambda: c.StochasticWeightAveraging(0.1), "StochasticWeightAveraging is not allowed: set ema"),
        (lambda: c.GradientAccumulationScheduler({0: 2}), "GradientAccumulationScheduler is .*: set grad_accum_steps"),
        (lambda: c.Timer("00:00:01:00"), "Timer is not allowed: the run would end before its last epoch"),
        (lambda: c.BackboneFinetuning(), "BackboneFinetuning is not allowed: .*freeze"),
        (lambda: Greedy, "a type is not allowed: must be a lightning.pytorch.Callback"),
    ],
)
def test_callbacks_that_change_a_run_are_refused(
    stripes: Any, small: Any, tmp_path: Path, callback: Any, told: str
) -> None:
    with pytest.raises(ConfigError, match=f"^callbacks: {told}"):
        run_of(stripes, tmp_path / "run", small, callbacks=[callback()])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", [c.LearningRateMonitor, c.DeviceStatsMonitor])
@pytest.mark.parametrize("none", [False, []])
def test_callbacks_that_log_need_a_logger(stripes: Any, small: Any, tmp_path: Path, kind: Any, none: Any) -> None:
    with pytest.raises(ConfigError, match=f"^callbacks: {kind.__name__} needs a logger: give one"):
        run_of(stripes, tmp_path / "run", small, callbacks=[kind()], logger=none)
    assert not (tmp_path / "run").exists()


# Trainer arguments ----------------------------------------------------------------------------------------------------


def test_arguments_that_change_no_run_are_passed_on(stripes: Any, small: Any, pretrained: Run, tmp_path: Path) -> None:
    profiler = SimpleProfiler(dirpath=tmp_path, filename="profile")
    arguments = {"profiler": profiler, "detect_anomaly": True, "inference_mode": False}
    run = run_of(
        stripes, tmp_path / "run", small, trainer_args=arguments, callbacks=[c.TQDMProgressBar(), c.ModelSummary()]
    )
    assert same(run.folder, pretrained.folder)
    assert "run_training_batch" in (tmp_path / "fit-profile.txt").read_text()


def test_a_profile_lies_in_the_runs_logs(stripes: Any, small: Any, tmp_path: Path) -> None:
    profiler = SimpleProfiler(filename="profile")
    run = run_of(stripes, tmp_path / "run", small, trainer_args={"profiler": profiler}, logger=False)
    assert (run.folder / "logs" / "fit-profile.txt").is_file()


def test_every_argument_of_the_trainer_is_allowed_or_has_a_reason(stripes: Any, small: Any, tmp_path: Path) -> None:
    import inspect

    allowed = []
    for name, parameter in inspect.signature(lightning.Trainer).parameters.items():
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("formulavision.training.train.open_data", lambda *a: pytest.fail("opened"))
                run_of(stripes, tmp_path / "run", small, trainer_args={name: parameter.default})
        except ConfigError as error:
            assert str(error).startswith(f"trainer_args: '{name}' is not allowed: ")
        except pytest.fail.Exception:
            allowed.append(name)
    assert allowed == ["log_every_n_steps", "enable_model_summary", "deterministic", "benchmark", "inference_mode",
                       "profiler", "detect_anomaly"]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"max_epochs": 3}, "'max_epochs' is not allowed: the schedule depends on it: set epochs"),
        ({"accumulate_grad_batches": 2}, "'accumulate_grad_batches' is not allowed: set grad_accum_steps"),
        ({"limit_train_batches": 0.5}, "'limit_train_batches' is not allowed: each epoch has all images"),
        ({"strategy": "ddp"}, "'strategy' is not allowed: set devices"),
        ({"profile": "simple"}, "Trainer has no argument 'profile' .did you mean 'profiler'"),
        ({"profiler": "simpel"}, "When passing string value for the `profiler`"),
        ({"log_every_n_steps": "often"}, "log_every_n_steps cannot be a str"),
    ],
)
def test_arguments_that_change_a_run_are_refused(
    stripes: Any, small: Any, tmp_path: Path, arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=f"^trainer_args: {told}"):
        run_of(stripes, tmp_path / "run", small, trainer_args=arguments)
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_sent_to_other_processes_is_refused(stripes: Any, small: Any, tmp_path: Path) -> None:
    class Local(Tracker):
        pass

    for arguments in ({"logger": Local()}, {"callbacks": c.LambdaCallback(on_train_start=lambda *a: None)}):
        with pytest.raises(
            ConfigError, match=rf"^{next(iter(arguments))}: cannot be sent to other processes .*torchrun"
        ):
            run_of(stripes, tmp_path / "run", {**small, "devices": 2}, **arguments)
    assert not (tmp_path / "run").exists()
