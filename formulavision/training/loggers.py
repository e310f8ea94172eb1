"""Loggers by name. Each continues its own run when a training run is resumed: its id is kept in the run's folder."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import secrets
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import DummyLogger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from formulavision.training.ranks import is_first
from formulavision.util.config import did_you_mean
from formulavision.util.errors import ConfigError, FormulaVisionError, one_line
from formulavision.util.files import write_json
from formulavision.util.logs import LOG, note

__all__ = ["LOGGERS", "NamedLoggers", "open_loggers"]

_KEPT = LOG.with_name("loggers.json")
"""File in a run's folder: by the name of each logger, the id of its run and the project (or database) that has it."""

Kept = dict[str, str]


@dataclass(frozen=True)
class NamedLoggers:
    """Loggers that a run opens when it starts.

    Attributes:
        names: of :data:`LOGGERS`; None: those that the run in the folder has, or TensorBoard's in a new one.
        project: name of the project (W&B, trackio) or the experiment (MLflow) that runs are listed in.
        labels: what to group runs by: ``arm``, ``downstream``, ``frozen``, ``seed``. Empty outside of a comparison.
        folder: where MLflow's database lies, unless ``MLFLOW_TRACKING_URI`` is set; None: in the run's folder.
    """

    names: tuple[str, ...] | None = None
    project: str = "formulavision"
    labels: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def __post_init__(self) -> None:
        for name in self.names or ():
            _check(name)


def _check(name: str) -> None:
    if name not in LOGGERS:
        raise ConfigError(f"logger: there is no '{name}'{did_you_mean(name, LOGGERS)}: must be {', '.join(LOGGERS)}")
    if importlib.util.find_spec(name) is None and name != "csv":
        raise ConfigError(f"logger: {name} is not installed: pip install {name}")


def open_loggers(named: NamedLoggers, run: Path) -> list[Logger]:
    """Open loggers for a run, and keep the ids of their runs in its folder.

    Args:
        named: the loggers.
        run: the run's folder. A logger whose run's id is kept there continues this run.

    Returns:
        The loggers; in a process that writes no files, loggers that do nothing.

    Raises:
        ConfigError: a logger's package is missing, or the file of their ids is damaged.
        FormulaVisionError: a logger cannot be opened, such as without an account.
    """
    kept = _read_kept(run / _KEPT)
    given = named.names if named.names is not None else () if kept else ("tensorboard",)
    names = dict.fromkeys([*kept, *given]) if named.names != () else {}
    if not is_first():
        return [DummyLogger() for _ in names]
    loggers = []
    for name in names:
        _check(name)
        try:
            logger, kept[name] = LOGGERS[name](named, run, kept.get(name, {}))
        except Exception as error:  # of a library, a server or an account
            raise FormulaVisionError(f"logger: {name} cannot be opened: {one_line(error)}") from error
        loggers.append(logger)
    if loggers:
        write_json(kept, run / _KEPT)
    return loggers


def _read_kept(file: Path) -> dict[str, Kept]:
    if not file.is_file():
        return {}
    try:
        return {str(name): dict(kept) for name, kept in json.loads(file.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError, TypeError):
        raise ConfigError(f"{file}: is damaged: remove it, and the loggers start new runs") from None


def _title(named: NamedLoggers, run: Path) -> str:
    return " ".join(named.labels.values()) or run.absolute().name


# TensorBoard and CSV: files in the run's folder -----------------------------------------------------------------------


def _tensorboard(named: NamedLoggers, run: Path, kept: Kept) -> tuple[Logger, Kept]:
    # TensorBoard tells runs by their folders, which have the other labels in their names.
    seed = named.labels.get("seed")
    return TensorBoardLogger(
        run / LOG.parent, name="", version="tensorboard", sub_dir=seed and f"seed-{seed}", default_hp_metric=False
    ), {}


class _ContinuedTable(ExperimentWriter):
    """Goes on with the table that is there, where Lightning's deletes it."""

    def _check_log_dir_exists(self) -> None:
        table = Path(self.metrics_file_path)
        if table.is_file():
            with table.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])


class _CSV(CSVLogger):
    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        self._experiment = self._experiment or _ContinuedTable(self.log_dir)
        return self._experiment


def _csv(named: NamedLoggers, run: Path, kept: Kept) -> tuple[Logger, Kept]:
    return _CSV(run / LOG.parent, name="", version="csv"), {}


# Services -------------------------------------------------------------------------------------------------------------


class _Wandb(WandbLogger):
    def finalize(self, status: str) -> None:
        super().finalize(status)
        # Else the next run of this process would go on in it.
        self.experiment.finish(exit_code=int(status != "success"))


def _wandb(named: NamedLoggers, run: Path, kept: Kept) -> tuple[Logger, Kept]:
    import wandb

    project = kept.get("project") or os.environ.get("WANDB_PROJECT", named.project)
    experiment = wandb.init(
        project=project, dir=run / LOG.parent, name=_title(named, run), group=named.labels.get("arm"),
        job_type=named.labels.get("downstream", "pretrain" if named.labels else None),
        id=kept.get("id"), resume="allow", reinit="create_new",
    )  # fmt: skip
    experiment.define_metric("trainer/global_step")
    experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return _Wandb(experiment=experiment), {"project": project, "id": experiment.id}


class _MLflow(MLFlowLogger):
    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Log parameters once: MLflow refuses other values, such as more epochs of a run that is resumed."""
        if not self.experiment.get_run(self.run_id).data.params:
            super().log_hyperparams(params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        try:
            super().log_metrics(metrics, step)
        except Exception as error:  # a server that ends, a database that is locked: each client has its own exceptions
            raise FormulaVisionError(
                f"logger: mlflow takes no metrics any more: {one_line(error)}; the run stops, and the same command "
                "with --resume continues it when MLflow answers"
            ) from error


def _mlflow(named: NamedLoggers, run: Path, kept: Kept) -> tuple[Logger, Kept]:
    own = f"sqlite:///{(run / LOG.parent).resolve()}/mlflow.db"
    shared = f"sqlite:///{named.folder.resolve()}/mlflow.db" if named.folder else own
    uri = kept.get("uri", own) if kept else os.environ.get("MLFLOW_TRACKING_URI", shared)
    if uri in (own, shared) and (odd := re.search("[%?]", uri)):
        raise ConfigError(
            f"logger: mlflow takes no path with '{odd[0]}' for its database, {uri}: name a database or a server in "
            "MLFLOW_TRACKING_URI, or another folder"
        )
    database = Path(uri.removeprefix("sqlite:///"))
    if kept and ((uri.startswith("sqlite:///") and not database.is_file()) or _is_gone(uri, kept["id"])):
        note(f"logger: mlflow's run {kept['id']} is not there any more, in {uri}: a new one begins")
        kept, uri = {}, os.environ.get("MLFLOW_TRACKING_URI", shared)
    logger = _MLflow(
        os.environ.get("MLFLOW_EXPERIMENT_NAME", named.project), run_name=_title(named, run), tracking_uri=uri,
        tags=dict(named.labels), run_id=kept.get("id"),
    )  # fmt: skip
    logger.experiment.update_run(logger.run_id, status="RUNNING")
    # The run's folder may be moved, with the database in it.
    return logger, {"id": str(logger.run_id)} | ({"uri": uri} if uri != own else {})


def _is_gone(uri: str, run_id: str) -> bool:
    """Whether MLflow has no such run, or has it among those that are deleted."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        return str(MlflowClient(uri).get_run(run_id).info.lifecycle_stage) == "deleted"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return True
        raise


class TrackioLogger(Logger):
    """Metrics and settings for trackio.

    Args:
        project: to list the run in.
        version: name of the run, by which it is continued.
        group: of runs.
    """

    def __init__(self, project: str, version: str, group: str | None = None) -> None:
        import trackio

        super().__init__()
        self._name, self._version = project, version
        self.run = trackio.init(project, name=version, group=group, resume="allow", embed=False)

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return self._version

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.run.log(dict(metrics), step=step)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        self.run.config.update(params if isinstance(params, dict) else vars(params))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.run.finish()


def _trackio(named: NamedLoggers, run: Path, kept: Kept) -> tuple[Logger, Kept]:
    project = kept.get("project", named.project)
    version = kept.get("id") or f"{_title(named, run)} {secrets.token_hex(4)}"
    return TrackioLogger(project, version, named.labels.get("arm")), {"project": project, "id": version}


LOGGERS: dict[str, Callable[[NamedLoggers, Path, Kept], tuple[Logger, Kept]]] = {
    "tensorboard": _tensorboard, "csv": _csv, "wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio,
}  # fmt: skip
"""Functions that open a logger for a run's folder, by its name. They take and return what is kept of its own run."""
