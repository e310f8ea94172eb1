"""Runs a comparison: what is done already is skipped, what was interrupted goes on, an arm that fails stands aside."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from formulavision.comparison.arms import REMOTE, flatten_sweep
from formulavision.comparison.checks import check_models
from formulavision.comparison.config import ComparisonSettings
from formulavision.comparison.datasets import Datasets
from formulavision.comparison.facts import first_findings, this_machine
from formulavision.comparison.results import FINDINGS, Comparison, Computed, Entry, Row, write_text
from formulavision.comparison.sizes import at_size, swept_otherwise, without_numbers_of_others
from formulavision.comparison.stages import Finetuning, Pretraining, Probing, key_of, plan
from formulavision.comparison.tables import REPORT_FILES, print_table, rows_csv, say, write_tables
from formulavision.comparison.timing import Clock, Job
from formulavision.recipes.recipe import Recipe
from formulavision.util.config import parse
from formulavision.util.errors import ConfigError, FormulaVisionError, StoreError
from formulavision.util.folders import MARKER, OwnedFolder, adding, locked
from formulavision.util.logs import logged, note, write_traceback
from formulavision.util.machine import versions

if TYPE_CHECKING:
    from formulavision.evaluation import Evaluation
    from formulavision.training import Run

__all__ = ["compare", "sweep"]

AnyStage = TypeVar("AnyStage", Pretraining, Finetuning | Probing)

_RESULT = "result.json"
"""In the folder of a row that is done: what the row says, and where it was computed."""
_KEYS = {"arm", "downstream", "freeze", "seed", "error"}

_MARK = "comparison.yaml"
_OURS = (_MARK, *REPORT_FILES, "logs/", "runs/*.lock", "runs/_stores/*.lock", "runs/_stores/*.json")
"""What a comparison writes into its folder besides its stages, each of which has a folder with a marker of its own."""


def compare(
    config: ComparisonSettings | Mapping[str, Any] | str | Path,
    *,
    out: str | Path,
    size: str | None = None,
    runs: str | Path | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> Comparison:
    """Pre-train, fine-tune, evaluate and probe every arm of a comparison, and write its table and report.

    Started again with the same ``out``, it skips what is done, resumes what was interrupted, and computes what a
    changed configuration touches: an arm, a seed or a value of a sweep that was added is all that runs.

    Args:
        config: the comparison, or the path of its YAML file.
        out: folder for ``results.csv`` (a line a model), ``table.csv`` and ``results.md`` (over seeds),
            ``results.json`` (all of it), ``report.html``, ``plots/`` and ``comparison.yaml`` (the configuration with
            every recipe in full).
        size: one of the ``sizes`` that the configuration names, or ``full``: the configuration without an overlay.
        runs: folder for the stages: pre-trained and fine-tuned models, and stores. Comparisons that share it share
            what they have in common, also while they run at once. None: ``runs/`` in ``out``.
        overwrite: remove the files of the comparison in ``out`` and start over. Its stages in another folder and other
            files in ``out`` stay, and a folder that FormulaVision did not write is refused all the same.
        show_progress: print the stages, their progress bars and the table.

    Returns:
        The rows. An arm that failed has its reason in its rows and in ``Comparison.failures``; the others are done.

    Raises:
        ConfigError: the configuration is wrong, or has no such size.
        DownstreamError: a real dataset cannot be used.
        StoreError: ``out`` holds something else, is being written by another comparison, or cannot be written; or the
            disk is full.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("compare runs as one process: start it without torchrun, and set pretrain.devices=N instead")
    settings = _read(config, size)
    check_models(settings)
    datasets = Datasets(settings)
    folder = Path(out)
    owned = OwnedFolder(folder, "comparison", last="report.html")
    with owned.writing({}, _OURS, overwrite=overwrite):
        write_text(folder / _MARK, settings.to_yaml())
        pool = folder / "runs" if runs is None else Path(runs)
        _make(pool)
        runner = _Runner(settings, folder, pool, datasets, show_progress)
        if runs is None:
            owned.add((stage.relative_to(folder) / MARKER).as_posix() for stage in runner.folders())
        findings = runner.findings
        try:
            with logged(folder):
                note(f"formulavision {versions()['formulavision']}: {settings.name}")
                runner.run()
        except KeyboardInterrupt:
            write_tables(findings, folder)
            done = sum(row.score is not None for row in findings.rows)
            if show_progress:
                say(f"stopped with {done} of {len(findings.rows)} rows done: the same comparison in {folder} goes on")
                say(f"formulavision report {folder} writes the report of what is done")
            raise
        write_tables(findings, folder)
        result = Comparison(settings, folder, findings.rows, findings)

        from formulavision.comparison.report import write_report

        write_report(result)
    if show_progress:
        print_table(result)
    return result


def sweep(
    config: ComparisonSettings | Mapping[str, Any] | str | Path,
    values: Mapping[str, Any],
    *,
    out: str | Path,
    size: str | None = None,
    runs: str | Path | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> Comparison:
    """Run a comparison at each of several values of a setting, which the report draws as a curve.

    Args:
        config: the comparison, or the path of its YAML file.
        values: by the setting's path the values, each an arm: ``{"generator.fill_rate": [0.05, 0.1, 0.2]}``. Of
            several settings one varies at a time. They take the place of the configuration's own ``sweep``, and what
            it says of points that are no longer there (``against``, the paper's numbers) is left out.
        out, size, runs, overwrite, show_progress: as for :func:`compare`, which says what is returned and raised.

    Raises:
        ConfigError: also, a setting is unknown, touches no arm, or has a value that does not fit.
    """
    chosen: dict[str, list[Any]] = {}
    for path, points in flatten_sweep(values).items():
        if not isinstance(points, list | tuple | range):
            raise ConfigError(f"sweep.{path}: {points!r} is not allowed: must be a list of values")
        chosen[path] = list(points)
    settings = _read(config, size)
    # With its own sweep it says which points are the paper's; with the other one, what a recipe leaves open.
    named = swept_otherwise(settings.to_dict(), chosen)
    arms = settings.model_copy(update={"sweep": chosen}).to_dict()["arms"]
    swept = parse(ComparisonSettings, {**named, "arms": arms})
    return compare(swept, out=out, runs=runs, overwrite=overwrite, show_progress=show_progress)


def _read(config: ComparisonSettings | Mapping[str, Any] | str | Path, size: str | None) -> ComparisonSettings:
    if isinstance(config, str | Path):
        return ComparisonSettings.load(config, size=size)
    if isinstance(config, ComparisonSettings):
        if size not in (None, config.size):
            raise ConfigError(f"size: is '{size}', and the comparison was read at '{config.size}': read it again")
        return config
    return parse(ComparisonSettings, without_numbers_of_others(at_size(config, size), config))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror or error}") from None


class _StartFailed(FormulaVisionError):
    """The pre-training that a row starts from failed; its traceback is kept."""


class _Runner:
    """Computes rows; a pre-training that several rows start from runs, or fails, once."""

    def __init__(
        self, settings: ComparisonSettings, out: Path, runs: Path, datasets: Datasets, show_progress: bool
    ) -> None:
        self.out = out
        self.runs = runs
        self.show_progress = show_progress
        self.settings = settings
        self.datasets = datasets
        self.stages = plan(settings, runs, datasets.digest)
        self.findings = first_findings(settings, self.stages, datasets)
        # A message, where it failed: an exception would keep the model and its memory.
        self.pretrained: dict[Path, Run | str] = {}
        self.clock = Clock()

    def run(self) -> None:
        """Compute what is not done. An exception ends a row, not the comparison; Ctrl-C and a full disk end both.

        Raises:
            StoreError: the disk is full.
        """
        pairs = list(zip(self.stages, self.findings.entries, strict=True))
        pending = [(stage, entry) for stage, entry in pairs if not self._recall(stage, entry)]
        for stage, _ in pending:
            self._schedule(stage)
        if pending and len(pending) < len(pairs):
            self._say(f"{len(pairs) - len(pending)} of {len(pairs)} rows are done already")
        elif not pending:
            self._say(f"all {len(pairs)} rows are done already")
        self._keep()
        for stage, entry in pending:
            self._fill(stage, entry)
            self._keep()

    def _keep(self) -> None:
        # A long comparison can be watched from outside, and joined before its end.
        write_text(self.out / "results.csv", rows_csv(self.findings))
        write_text(self.out / FINDINGS, self.findings.model_dump_json(indent=1))

    def folders(self) -> Iterator[Path]:
        """The folders of all stages, and of the stores that they train from."""
        for stage in self.stages:
            yield stage.folder
            if isinstance(stage.start, Pretraining):
                yield stage.start.folder
                if stage.start.store is not None:
                    yield stage.start.store

    # What there is to do ---------------------------------------------------------------------------------------------

    def _schedule(self, stage: Finetuning | Probing) -> None:
        if isinstance(stage.start, Pretraining) and not _complete(stage.start.folder):
            self.clock.add(self._job_before(stage.start))
        self.clock.add(self._job(stage))

    def _job_before(self, start: Pretraining) -> Job:
        source = start.source
        images = len(source.recipe) if source.recipe is not None else len(self.datasets[source.images].train)
        return Job(start.folder, "pretraining", images * start.settings.epochs * start.settings.crop**2)

    def _job(self, stage: Finetuning | Probing) -> Job:
        kind, passes = ("finetuning", stage.settings.epochs) if isinstance(stage, Finetuning) else (stage.method, 1)
        downstream = self.datasets[self.settings.downstreams[stage.downstream]]
        # Forward, backward and gradients cost about three times what forward alone does.
        images = passes * (len(downstream.train) + len(downstream.test) / 3)
        return Job(stage.folder, kind, images * stage.settings.crop**2)

    # One row ---------------------------------------------------------------------------------------------------------

    def _recall(self, stage: Finetuning | Probing, entry: Entry) -> bool:
        """Fill in a row that is done; whether it is."""
        result = _read_result(stage.folder / _RESULT)
        if result is None:
            return False
        row = entry.row
        for key, value in result["row"].items():
            setattr(row, key, value)
        entry.computed = Computed.model_validate(result["computed"])
        entry.folder = self._relative(stage.folder)
        entry.history = _history(stage.folder)
        if isinstance(stage.start, Pretraining):
            entry.start = self._relative(stage.start.folder)
            entry.pretraining = _history(stage.start.folder)
            if stage.start.folder not in self.pretrained:
                self.clock.learn(self._job_before(stage.start), row.pretrain_seconds or 0)
        elif stage.start is not None:
            entry.start = stage.start if stage.start.startswith(REMOTE) else self._relative(Path(stage.start))
        recorded = (row.finetune_seconds or 0) + (row.evaluate_seconds or 0)
        self.clock.learn(self._job(stage), result.get("seconds", recorded))
        return True

    def _fill(self, stage: Finetuning | Probing, entry: Entry) -> None:
        planned = stage
        try:
            pretraining = None
            if isinstance(stage.start, Pretraining):
                pretraining = self._pretrain(stage.start)
                stage = replace(stage, start=replace(stage.start, folder=pretraining.folder))
            with self._claimed(stage) as stage:
                # Another comparison, or an arm with the same content, may have computed it by now.
                if self._recall(stage, entry):
                    return
                self._say(
                    f"{self.clock.position()} {stage.arm} on {stage.downstream}, {_treatment(stage)}, seed {stage.seed}"
                )
                row, started = Row(stage.arm, stage.downstream, stage.freeze, stage.seed), time.monotonic()
                if pretraining is not None:
                    row.pretrain_accuracy = pretraining.history[-1].get("train_accuracy")
                    row.pretrain_seconds = pretraining.seconds
                    row.pretrain_images_per_second = pretraining.images_per_second
                    assert isinstance(stage.start, Pretraining)
                    row.generate_seconds = _generate_seconds(stage.start.store)
                self._compute(stage, stage.start if pretraining is None else pretraining.folder, row)
                content = {
                    "row": {key: value for key, value in asdict(row).items() if key not in _KEYS},
                    "computed": this_machine(self.settings, stage.arm, stage.settings).model_dump(),
                    "seconds": _took(started, (row.finetune_seconds or 0) + (row.evaluate_seconds or 0)),
                }
                with adding(stage.folder, [_RESULT]):
                    write_text(stage.folder / _RESULT, json.dumps(content, indent=1))
                self._recall(stage, entry)
        except Exception as error:
            if _disk_is_full(error):
                # Nothing after this row could be kept either.
                raise StoreError(
                    f"{planned.folder}: {os.strerror(errno.ENOSPC)}: make room, and the same comparison goes on"
                ) from error
            entry.row.error = str(error) if isinstance(error, _StartFailed) else self._failure(planned, error)
            self._say(f"{stage.arm} on {stage.downstream}, seed {stage.seed} failed: {entry.row.error}")
        finally:
            self.clock.finish(planned.folder)

    def _compute(self, stage: Finetuning | Probing, checkpoint: Any, row: Row) -> None:
        from formulavision import evaluation
        from formulavision.evaluation.scores import FILES
        from formulavision.training import finetune

        downstream = self.datasets[self.settings.downstreams[stage.downstream]]
        if isinstance(stage, Probing):
            with OwnedFolder(stage.folder, "probe", last=_RESULT).writing({}, (*FILES, _RESULT), overwrite=True):
                pass  # remains of one that was stopped
            found: Evaluation = evaluation.probe(
                checkpoint,
                downstream,
                method=stage.method,
                settings=stage.settings,
                out=stage.folder,
                show_progress=self.show_progress,
            )
        else:
            run = self._run(
                finetune, checkpoint, downstream, out=stage.folder, freeze=stage.freeze, settings=stage.settings
            )
            row.finetune_seconds = run.seconds
            row.finetune_images_per_second = run.images_per_second
            found = evaluation.evaluate(run.folder, downstream, show_progress=self.show_progress)
        row.evaluate_seconds = found.seconds
        row.score, row.metric = found.score, found.metric
        row.top1, row.loss = found.top1, found.loss
        row.top5 = found.topk if found.k == 5 else None

    def _pretrain(self, stage: Pretraining) -> Run:
        if stage.folder not in self.pretrained:
            try:
                with self._claimed(stage) as claimed_stage:
                    self.pretrained[stage.folder] = self._train(claimed_stage)
            except Exception as error:
                if _disk_is_full(error):
                    raise
                self.pretrained[stage.folder] = self._failure(stage, error)
            finally:
                self.clock.finish(stage.folder)
        result = self.pretrained[stage.folder]
        if isinstance(result, str):
            raise _StartFailed(result)
        return result

    def _failure(self, stage: Pretraining | Finetuning | Probing, error: Exception) -> str:
        """One line on what failed; its traceback is in the file that the line names."""
        file = Path("logs") / f"{stage.folder.parent.name}-{stage.folder.name}.txt"
        write_traceback(self.out / file, error)
        return f"{_one_line(error)} (traceback: {file})"

    def _train(self, stage: Pretraining) -> Run:
        from formulavision.training import Run, pretrain

        if _complete(stage.folder):
            return Run.load(stage.folder)
        self._say(f"{self.clock.position()} pre-training of {stage.arm}, seed {stage.seed}")
        source = stage.source
        data: Any
        if source.recipe is None:
            data = self.datasets[source.images].train
        else:
            data = source.recipe if stage.store is None else self._generate(source.recipe, stage.store)
        started = time.monotonic()
        run = self._run(pretrain, data, out=stage.folder, labels=stage.labels, settings=stage.settings)
        self.clock.learn(self._job_before(stage), _took(started, run.seconds))
        return run

    def _run(self, train: Callable[..., Run], *what: Any, out: Path, **settings: Any) -> Run:
        """The training run in ``out``: loaded where it is complete, resumed where it was interrupted."""
        from formulavision.training import Run

        if _complete(out):
            return Run.load(out)
        return train(*what, out=out, resume=True, show_progress=self.show_progress, **settings)

    def _generate(self, recipe: Recipe, store: Path) -> Path:
        from formulavision.storage.generation import Silent, generate

        with locked(store.with_name(f"{store.name}.lock"), self._waiting_for(store)):
            if _generate_seconds(store) is None:
                started = time.monotonic()
                generate(recipe, out=store, progress=Silent())
                write_text(_seconds_file(store), json.dumps({"seconds": time.monotonic() - started}))
        return store

    @contextmanager
    def _claimed(self, stage: AnyStage) -> Iterator[AnyStage]:
        """The stage, for this process alone while the block runs, in the folder that it has by now."""
        key = key_of(stage.folder)
        with locked(self.runs / f"{key}.lock", self._waiting_for(stage.folder)):
            # Another comparison may have made it since the plan, for an arm of another name.
            there = next(self.runs.glob(f"*/*-{key}"), stage.folder)
            yield replace(stage, folder=there)

    def _waiting_for(self, folder: Path) -> Callable[[], None]:
        return lambda: self._say(f"{folder} is being computed by another process: waiting for it")

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path.resolve(), self.out.resolve())

    def _say(self, line: str) -> None:
        note(line)
        if self.show_progress:
            say(line)


def _took(started: float, recorded: float) -> float:
    """Seconds of a stage with its start-up; of one that was resumed at least what its run has recorded."""
    return max(time.monotonic() - started, recorded)


def _treatment(stage: Finetuning | Probing) -> str:
    return f"{stage.method} probe" if isinstance(stage, Probing) else f"frozen: {stage.freeze}"


def _complete(folder: Path) -> bool:
    from formulavision.training.runs import is_complete

    return is_complete(folder)


def _history(folder: Path) -> list[dict[str, float | None]]:
    from formulavision.training import Run

    return Run.load(folder).history if _complete(folder) else []


def _read_result(file: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValueError:
        raise ConfigError(f"{file}: is damaged: remove its folder, which is then computed again") from None


def _seconds_file(store: Path) -> Path:
    return store.with_name(f"{store.name}.json")


def _generate_seconds(store: Path | None) -> float | None:
    """How long a store took, which also says that it is complete."""
    if store is None or not _seconds_file(store).is_file():
        return None
    return float(json.loads(_seconds_file(store).read_text(encoding="utf-8"))["seconds"])


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether that is what an exception comes from, which libraries tell as exceptions of their own."""
    full = {os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)}
    while error is not None:
        if any(text in str(error) for text in full):
            return True
        error = error.__cause__ or error.__context__
    return False


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, FormulaVisionError) else f"{type(error).__name__}: {text}".rstrip(": ")
