"""Loggers by name: each gets settings and metrics, and continues its own run when a training run is resumed."""

from __future__ import annotations

import csv
import json
import sqlite3
from pathlib import Path
from typing import Any, get_args

import pytest
from comparing_runs import die_after, same
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import formulavision as fv
from formulavision.training import Run, loggers, pretrain
from formulavision.training.loggers import LOGGERS, NamedLoggers, open_loggers
from formulavision.training.settings import LoggerName
from formulavision.util.errors import ConfigError, FormulaVisionError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")


def train(stripes: Any, out: Path, settings: dict[str, Any], **arguments: Any) -> Run:
    return pretrain(stripes(), out=out, settings=settings, show_progress=False, **arguments)


def train_in_two_parts(stripes: Any, out: Path, settings: dict[str, Any], logger: Any) -> dict[str, dict[str, str]]:
    """Train an epoch, die in the second, and resume without naming the loggers. Returns the loggers' ids."""
    settings = {**settings, "checkpoint_minutes": 0}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        die_after(4, patch)
        train(stripes, out, settings, logger=logger)
    ids = read_ids(out)
    train(stripes, out, settings, resume=True)
    assert read_ids(out) == ids
    return ids


def read_ids(run: Path) -> dict[str, dict[str, str]]:
    return dict(json.loads((run / "logs" / "loggers.json").read_text()))


def test_files_go_on_where_they_were(stripes: Any, small: Any, pretrained: Run, tmp_path: Path) -> None:
    ids = train_in_two_parts(stripes, tmp_path / "run", small, ["csv", "tensorboard", "csv"])
    assert ids == {"csv": {}, "tensorboard": {}}
    logs = tmp_path / "run" / "logs"
    with (logs / "csv" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert [float(row["train_loss"]) for row in rows] == [row["train_loss"] for row in pretrained.history]
    assert "learning_rate: 0.05" in (logs / "csv" / "hparams.yaml").read_text()
    board = EventAccumulator(str(logs / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("train_loss")] == [1, 2]
    assert same(tmp_path / "run", pretrained.folder)


@pytest.mark.slow
def test_names_and_objects_go_together_and_another_name_may_join_later(
    stripes: Any, small: Any, pretrained: Run, tmp_path: Path
) -> None:
    from lightning.pytorch.loggers import CSVLogger

    out = tmp_path / "run"
    train(stripes, out, {**small, "epochs": 1}, logger=["csv", CSVLogger(tmp_path / "mine")])
    train(stripes, out, {**small, "epochs": 2}, logger="tensorboard", resume=True)
    assert list((tmp_path / "mine").rglob("metrics.csv"))
    assert sorted(read_ids(out)) == ["csv", "tensorboard"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [(None, ["tensorboard"]), (("csv",), ["tensorboard", "csv"]), (("csv", "tensorboard"), ["tensorboard", "csv"])],
)
def test_a_name_that_is_given_later_is_added(tmp_path: Path, names: Any, expected: list[str]) -> None:
    assert len(open_loggers(NamedLoggers(None), tmp_path)) == 1
    assert len(open_loggers(NamedLoggers(names), tmp_path)) == len(expected)
    assert list(read_ids(tmp_path)) == expected
    assert len(open_loggers(NamedLoggers(None), tmp_path)) == len(expected)
    assert open_loggers(NamedLoggers(()), tmp_path) == []


@pytest.mark.parametrize(
    ("logger", "message"),
    [
        (
            "wand",
            "logger: there is no 'wand' (did you mean 'wandb'?): must be tensorboard, csv, wandb, mlflow, trackio",
        ),
        (["csv", "missing"], "logger: missing is not installed: pip install missing"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_before_anything_is_written(
    stripes: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logger: Any, message: str
) -> None:
    monkeypatch.setitem(LOGGERS, "missing", LOGGERS["csv"])
    if logger == "wand":
        monkeypatch.delitem(LOGGERS, "missing")
    with pytest.raises(ConfigError) as caught:
        train(stripes, tmp_path / "run", small, logger=logger)
    assert str(caught.value) == message
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_logger_that_cannot_be_opened_and_damaged_ids_are_told_in_one_line(
    stripes: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> Any:
        raise OSError("no account:\n log in")

    with monkeypatch.context() as patch, pytest.raises(FormulaVisionError) as caught:
        patch.setitem(LOGGERS, "csv", refuse)
        train(stripes, tmp_path / "run", small, logger="csv")
    assert str(caught.value) == "logger: csv cannot be opened: no account: log in"
    (tmp_path / "run" / "logs" / "loggers.json").write_text("{")
    with pytest.raises(ConfigError, match=r"loggers\.json: is damaged: remove it, and the loggers start new runs$"):
        train(stripes, tmp_path / "run", small, logger="csv", resume=True)


def test_the_names_of_settings_are_those_that_can_be_opened() -> None:
    assert list(LOGGERS) == list(get_args(LoggerName))


# Services, each offline -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_wandb_continues_its_run(stripes: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    grouped = NamedLoggers(("wandb",), "project", {"arm": "ifs", "downstream": "digits", "frozen": "none", "seed": "1"})
    ids = train_in_two_parts(stripes, tmp_path / "run", small, grouped)
    other = train_in_two_parts(stripes, tmp_path / "other", small, "wandb")
    assert wandb.run is None and ids != other
    parts = sorted((tmp_path / "run" / "logs" / "wandb").glob("offline-run-*"))
    assert len(parts) == 2 and all(part.name.endswith(ids["wandb"]["id"]) for part in parts)
    records = [record for part in parts for record in read_wandb(next(part.glob("*.wandb")))]
    (first, *_) = [record.run for record in records if record.HasField("run")]
    assert (first.project, first.run_group, first.job_type) == ("project", "ifs", "digits")
    assert first.display_name == "ifs digits none 1"
    history = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    assert [row["trainer/global_step"] for row in history if "train_loss" in row] == [1, 2]


@pytest.mark.slow
def test_runs_of_a_comparison_are_grouped_in_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    recipe = {"generator": {"name": "perlin", "grid": 2}, "categories": 3, "instances": 6, "canvas": {"size": 24}}
    training = {"epochs": 1, "batch_size": 8, "crop": 24, "resize": 24, "milestones": []}
    config = {
        "name": "Gratings & noise",
        "arms": {"scratch": {}, "perlin": {"recipe": recipe}},
        "downstreams": {"digits": {"kind": "digits", "train_per_class": 3, "test_per_class": 3}},
        "model": "test_resnet",
        "seeds": [0],
        "loggers": ["wandb"],
        "pretrain": training,
        "finetune": training,
    }
    fv.compare(config, out=tmp_path / "table", show_progress=False)
    told = []
    for file in (tmp_path / "table" / "runs").rglob("*.wandb"):
        run = next(record.run for record in read_wandb(file) if record.HasField("run"))
        told.append((run.project, run.run_group, run.job_type, run.display_name))
    assert sorted(told) == [
        ("Gratings-noise", "perlin", "digits", "perlin digits none 0"),
        ("Gratings-noise", "perlin", "pretrain", "perlin 0"),
        ("Gratings-noise", "scratch", "digits", "scratch digits none 0"),
    ]


def read_wandb(file: Path) -> list[Any]:
    """Records of an offline run: a header of 7 bytes, then a LevelDB log: blocks of 32 KiB with parts of records."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole, records = file.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if at % 32768 > 32768 - 7:
            at += -at % 32768
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(Record.FromString(whole))
            whole = b""
    return records


@pytest.mark.parametrize("name", ["what?x", "50%20x"])
@pytest.mark.parametrize("shared", [False, True])
def test_mlflow_takes_no_path_that_its_database_reads_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, shared: bool
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    named = NamedLoggers((), folder=tmp_path / name if shared else None)  # mlflow need not be installed
    with pytest.raises(
        ConfigError, match=r"logger: mlflow takes no path with '[%?]' for its database, sqlite:.*MLFLOW_"
    ):
        loggers._mlflow(named, tmp_path / ("run" if shared else name), {})


@pytest.mark.slow
def test_mlflow_continues_its_run(stripes: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    labels = {"arm": "ifs", "seed": "1"}
    ids = train_in_two_parts(stripes, tmp_path / "run", small, NamedLoggers(("mlflow",), "experiment", labels))
    train(stripes, tmp_path / "run", {**small, "checkpoint_minutes": 0, "epochs": 3}, resume=True)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/run/logs/mlflow.db")
    experiment = client.get_experiment_by_name("experiment")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == ids["mlflow"]["id"] and run.info.status == "FINISHED"
    assert run.info.run_name == "ifs 1" and labels.items() <= run.data.tags.items()
    assert [each.step for each in client.get_metric_history(run.info.run_id, "train_loss")] == [1, 2, 3]
    assert run.data.params["settings/learning_rate"] == "0.05"


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["the database", "the run"])
def test_a_new_run_of_mlflow_begins_where_the_former_is_gone(
    stripes: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shared = tmp_path / "comparison"
    shared.mkdir()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        die_after(4, patch)
        settings = {**small, "checkpoint_minutes": 0}
        train(stripes, tmp_path / "run", settings, logger=NamedLoggers(("mlflow",), folder=shared))
    before = read_ids(tmp_path / "run")["mlflow"]["id"]
    client = mlflow.MlflowClient(f"sqlite:///{shared}/mlflow.db")
    if gone == "the run":
        client.delete_run(before)
    else:
        file = tmp_path / "run" / "logs" / "loggers.json"
        file.write_text(file.read_text().replace("/comparison/", "/moved/"))
    train(stripes, tmp_path / "run", settings, resume=True, logger=NamedLoggers(("mlflow",), folder=shared))
    after = read_ids(tmp_path / "run")["mlflow"]["id"]
    assert after != before
    client = mlflow.MlflowClient(f"sqlite:///{shared}/mlflow.db")
    assert [each.step for each in client.get_metric_history(after, "train_loss")] == [2]
    assert f"mlflow's run {before} is not there any more" in (tmp_path / "run" / "logs" / "log.txt").read_text()


@pytest.mark.slow
def test_trackio_continues_its_run(stripes: Any, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    ids = train_in_two_parts(stripes, tmp_path / "run", small, NamedLoggers(("trackio",), "project", {"arm": "ifs"}))
    with sqlite3.connect(tmp_path / "trackio" / "project.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by step").fetchall()
    rows = [(name, step) for name, step, metrics in rows if "train_loss" in json.loads(metrics)]
    assert rows == [(ids["trackio"]["id"], 1), (ids["trackio"]["id"], 2)]


def test_an_mlflow_server_that_ends_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **named: Any) -> None:
        raise ConnectionError("connection refused\nby 127.0.0.1")

    monkeypatch.setattr(loggers.MLFlowLogger, "log_metrics", refuse)
    logger = object.__new__(loggers._MLflow)  # MLflow itself need not be installed
    with pytest.raises(FormulaVisionError, match=r"^logger: mlflow takes no metrics.*refused.*--resume continues it"):
        logger.log_metrics({"loss": 1.0}, 1)
