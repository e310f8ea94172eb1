"""Computes the stages of a comparison that are not done yet, one by one or as tasks of a cluster."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from formulavision.comparison.arms import REMOTE
from formulavision.comparison.choosing import CONFIGURATION
from formulavision.comparison.facts import first_findings, this_machine
from formulavision.comparison.plan import Datasets, Generation, Pretraining, Probing, ResultStage, Stage, plan_stages
from formulavision.comparison.results import Provenance, Result, write_text
from formulavision.comparison.settings import ComparisonSettings
from formulavision.generators.new_process import Source
from formulavision.storage.manifest import MANIFEST
from formulavision.storage.nodes import check_folder, sources_of
from formulavision.training.runs import Run, is_complete
from formulavision.training.settings import Precision
from formulavision.util.cluster import Cluster, PerTask
from formulavision.util.console import STDERR, say
from formulavision.util.errors import ClusterError, ConfigError, FormulaVisionError, StoreError, one_line
from formulavision.util.files import json_digest
from formulavision.util.folders import OwnedFolder, adding, locked
from formulavision.util.interrupts import keep_signals
from formulavision.util.logs import note, write_traceback
from formulavision.util.text import counted, duration

if TYPE_CHECKING:
    from formulavision.evaluation import Evaluation
    from formulavision.training.loggers import NamedLoggers

__all__ = ["Runner", "is_done", "position", "read_record"]

_RESULT = "result.json"
"""File that is written last into the folder of a stage with a result: the result, and where it was computed."""


@dataclass
class Runner:
    """Computes stages in the order of the plan. If a stage fails, the stages that need it fail, too.

    Attributes:
        stages: the plan.
        out: folder of the comparison.
        runs: folder of the stages.
        findings: the results, some of which are not computed yet.
    """

    settings: ComparisonSettings
    stages: list[Stage]
    datasets: Datasets
    out: Path
    runs: Path
    show_progress: bool

    def __post_init__(self) -> None:
        evaluated = [stage for stage in self.stages if isinstance(stage, ResultStage)]
        self.findings = first_findings(self.settings, evaluated, self.datasets)
        self._results = list(zip(evaluated, self.findings.results, strict=True))
        # Messages: an exception would keep the model and its memory.
        self._failures: dict[str, str] = {}
        # Another comparison may make a stage's folder after the plan, for an arm of another name.
        self._moved: dict[str, Path] = {}
        for stage, result in self._results:
            self._fill_in_places(stage, result)  # runs that are going on are watched by their folders

    def run(self, cluster: Cluster | None = None, reserved: PerTask | None = None, *, computes: bool = True) -> None:
        """Compute what is not done. An exception ends a stage. Ctrl-C and a full disk end the comparison.

        Args:
            cluster: computes the stages, on nodes that see the folders; None: this process does.
            reserved: what a stage reserves of a node, as far as the user said it.
            computes: False: refuse to compute.

        Raises:
            ClusterError: a node lacks something, which is named.
            ConfigError: no node has room for a stage.
            StoreError: the disk is full; or something is not done that is not to be computed.
        """
        each = self._each if cluster is None else self._on(cluster, reserved or PerTask())
        pending = [stage for stage, result in self._results if not self._read_result(stage, result)]
        done = len(self._results) - len(pending)
        if done:
            self._say(f"{done} of {len(self._results)} results are done already")
        if pending and not computes:
            named = "; ".join(map(str, pending[:3])) + ("; ..." if len(pending) > 3 else "")
            raise StoreError(
                f"{self.out}: {len(pending)} of {counted(len(self._results), 'result')} are missing ({named}): "
                f"{self._other_precision() or 'run their jobs again, or compare without finish, which computes them'}"
            )
        self._keep()
        missing: dict[str, Stage] = {}
        for last in pending:
            for stage in self._missing(last):
                missing.setdefault(stage.key, stage)
        every = list(missing.values())
        for stage in each(every):
            for evaluated, result in self._results:
                if evaluated.key == stage.key:
                    result.error = self._failures.get(stage.key)
                    if result.error is None:
                        self._read_result(evaluated, result)
                    else:
                        result.folder = result.start = None
            self._keep()

    def _each(self, missing: list[Stage]) -> Iterator[Stage]:
        """Compute stages, and yield each when it has ended."""
        started = time.monotonic()
        for number, stage in enumerate(missing, 1):
            self._finish(stage, position(number, len(missing), time.monotonic() - started))
            yield stage

    def _on(self, cluster: Cluster, reserved: PerTask) -> Callable[[list[Stage]], Iterator[Stage]]:
        """Computes stages on a cluster, as :meth:`_each` does here. Its nodes are checked first."""
        trained = [stage.settings for stage in self.stages if isinstance(stage, Pretraining | ResultStage)]
        gpus = float(max(settings.devices for settings in trained)) if cluster.node_gpus else None
        if all(settings.device == "cpu" for settings in trained):
            gpus = None
        cpus = cluster.node_cpus if gpus is None else max(1, int(cluster.node_cpus * gpus / cluster.node_gpus))
        per_task = PerTask(
            reserved.cpus or min(cpus, cluster.node_cpus),
            gpus if reserved.gpus is None else reserved.gpus,
            reserved.memory,
        )
        cluster.check_fits(per_task)
        arms = [variant.arm for variant in self.settings.variants.values()]
        recipes = [arm.recipe for arm in arms] + [
            part.recipe for arm in arms if arm.mixture for part in arm.mixture.parts
        ]
        drawn = [recipe for recipe in recipes if recipe is not None]
        sources = [source for recipe in drawn for source in sources_of(recipe)]
        (self.out / "logs").mkdir(exist_ok=True)
        for folder, file in ((self.out, self.out / "logs" / "nodes.txt"), (self.runs, self.runs / "nodes.lock")):
            check_folder(cluster, drawn, folder, file)
        self._say(f"{cluster.described}; a stage takes {counted(per_task.cpus or 1, 'core')}")
        start = (_start_on_node, self.out, self.runs, Path.cwd(), per_task.cpus, sources)
        return lambda missing: self._each_of(cluster.pool(per_task, *start), missing)

    def _each_of(self, pool: Executor, missing: list[Stage]) -> Iterator[Stage]:
        """Compute stages as tasks of a cluster, each behind those that it needs, and yield each when it has ended."""
        started, done = time.monotonic(), 0
        waiting = {stage.key: stage for stage in missing}
        running: dict[Future[str | None], Stage] = {}
        try:
            while waiting or running:
                open_keys = waiting.keys() | {stage.key for stage in running.values()}
                for stage in [each for each in waiting.values() if not open_keys & {n.key for n in each.needs}]:
                    del waiting[stage.key]
                    if any(before.key in self._failures for before in stage.needs):
                        self._finish(stage, "")  # by the reason of the stage before it
                        done += 1
                        yield stage
                    else:
                        running[pool.submit(_compute_on_node, stage.key)] = stage
                for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                    stage = running.pop(future)
                    try:
                        failed = future.result()
                    except ClusterError as error:
                        failed = str(error)
                    self._find(stage)
                    done += 1
                    so_far = f"[{done}/{len(missing)}, {duration(time.monotonic() - started)} so far] {stage}"
                    if failed is None:
                        self._say(f"{so_far} is done")
                    else:
                        self._failures[stage.key] = failed
                        self._say(f"{so_far} failed: {failed}")
                    yield stage
        finally:
            pool.shutdown(cancel_futures=True)

    def compute_alone(self, key: str) -> str | None:
        """Compute one stage, those before which are done. Returns the reason if it fails.

        Raises:
            ConfigError: the plan has no such stage.
        """
        stage = next((stage for stage in self.stages if stage.key == key), None)
        if stage is None:
            raise ConfigError(
                "on: a node plans other stages than this process: it computes in another precision, or sees other "
                "images: set pretrain.precision and finetune.precision, or start compare on one of the nodes"
            )
        for before in stage.needs:
            self._find(before)
        self._failures.pop(key, None)
        self._finish(stage, "")
        return self._failures.get(key)

    def _other_precision(self) -> str:
        """What to do if results that are missing were computed where ``auto`` is another precision; else empty."""
        ours = {stage.key for stage in self.stages}
        for precision in get_args(Precision):
            others = plan_stages(self.settings, self.runs, self.datasets.digest, auto=precision)
            done = [each for each in others if isinstance(each, ResultStage) and is_done(each, each.folder)]
            if found := sum(stage.key not in ours for stage in done):
                return (
                    f"{found} of them are there in precision {precision}, and this machine would compute in another: "
                    f"set pretrain.precision and finetune.precision, where they are auto, to {precision}"
                )
        return ""

    def _keep(self) -> None:
        # A long comparison can be watched from outside, and joined before its end.
        self.findings.save(self.out)

    # What is done ----------------------------------------------------------------------------------------------------

    def _missing(self, stage: Stage) -> Iterator[Stage]:
        """Stages that are not done, among those that a stage needs and, last, itself; none if it is done."""
        if not self._is_done(stage):
            for before in stage.needs:
                yield from self._missing(before)
            yield stage

    def _is_done(self, stage: Stage) -> bool:
        return is_done(stage, self._folder(stage))

    def _folder(self, stage: Stage) -> Path:
        return self._moved.get(stage.key, stage.folder)

    def _read_result(self, stage: ResultStage, result: Result) -> bool:
        """Fill in a result if it is done. Returns whether it is."""
        folder = self._folder(stage)
        record = read_record(folder / _RESULT, stage.key)
        if record is None:
            return False
        for key, value in record["row"].items():
            setattr(result, key, value)
        result.computed = Provenance.model_validate(record["computed"])
        result.history = _history(folder)
        self._fill_in_places(stage, result)
        if isinstance(stage.start, Pretraining):
            assert result.start is not None
            self.findings.pretrainings[result.start] = _history(self._folder(stage.start))
        return True

    def _fill_in_places(self, stage: ResultStage, result: Result) -> None:
        """Fill in where a result's model is or will be, and what it starts from."""
        result.folder = self._relative(self._folder(stage))
        if isinstance(stage.start, Pretraining):
            result.start = self._relative(self._folder(stage.start))
        elif stage.start is not None:
            result.start = stage.start if stage.start.startswith(REMOTE) else self._relative(Path(stage.start))

    # One stage -------------------------------------------------------------------------------------------------------

    def _finish(self, stage: Stage, at: str) -> None:
        """Compute a stage, or wait for the process that computes it; record the reason if it fails."""
        failed = next((self._failures[before.key] for before in stage.needs if before.key in self._failures), None)
        try:
            if failed is None:
                with keep_signals(), self._alone_with(stage):
                    if not self._is_done(stage):
                        self._say(f"{at} {stage}")
                        self._compute(stage)
        except Exception as error:
            if _disk_is_full(error):
                # Later stages could not be written either.
                raise StoreError(
                    f"{stage.folder}: {os.strerror(errno.ENOSPC)}: make room, and the same comparison goes on"
                ) from error
            file = Path("logs") / f"{stage.folder.parent.name}-{stage.folder.name}.txt"
            write_traceback(self.out / file, error)
            kind = "" if isinstance(error, FormulaVisionError) else f"{type(error).__name__}: "
            failed = f"{(kind + one_line(error)).rstrip(': ')} (traceback: {file})"
        if failed is not None:
            self._failures[stage.key] = failed
            self._say(f"{stage} failed: {failed}")

    @contextmanager
    def _alone_with(self, stage: Stage) -> Iterator[None]:
        """Hold a stage for this process alone, while the block runs."""

        def wait() -> None:
            self._say(f"{stage.folder} is being computed by another process: waiting for it")

        with locked(self.runs / f"{stage.key}.lock", wait):
            self._find(stage)
            yield

    def _find(self, stage: Stage) -> None:
        self._moved[stage.key] = next(self.runs.glob(f"*/*-{stage.key}"), stage.folder)

    def _compute(self, stage: Stage) -> None:
        if isinstance(stage, Generation):
            self._generate(stage)
        elif isinstance(stage, Pretraining):
            self._pretrain(stage)
        elif isinstance(stage, ResultStage):
            self._evaluate(stage)

    def _generate(self, stage: Generation) -> None:
        from formulavision.storage.generation import Silent, generate

        started = time.monotonic()
        generate(stage.recipe, out=stage.folder, progress=Silent())
        write_text(_seconds_file(stage), json.dumps({"seconds": time.monotonic() - started}))

    def _pretrain(self, stage: Pretraining) -> None:
        from formulavision.training import pretrain

        source, folders = stage.source, [store.folder for store in stage.stores]
        data: Any = source.mixture or source.recipe
        if source.images is not None:
            data = self.datasets[source.images].train
        elif source.mixture is not None and folders:
            data = [{"store": part.store or folders.pop(0), **part.share_given()} for part in source.mixture.parts]
        elif folders:
            (data,) = folders
        logger = self._loggers(arm=stage.arm, seed=stage.seed)
        self._train(
            pretrain, data, out=self._folder(stage), labels=stage.labels, settings=stage.settings, logger=logger
        )

    def _evaluate(self, stage: ResultStage) -> None:
        from formulavision import evaluation
        from formulavision.evaluation.results import FILES
        from formulavision.training import finetune

        folder = self._folder(stage)
        downstream = self.datasets[self.settings.downstreams[stage.downstream]]
        start: Path | str | None
        pretraining = tuning = None
        stores: tuple[Generation, ...] = ()
        if isinstance(stage.start, Pretraining):
            pretraining, stores = Run.load(self._folder(stage.start)), stage.start.stores
            start = pretraining.folder
        else:
            start = stage.start
        found: Evaluation
        if isinstance(stage, Probing):
            with OwnedFolder(folder, "probe", last=_RESULT).writing({}, (*FILES, _RESULT), overwrite=True):
                pass  # removes the files of an interrupted probe
            found = evaluation.probe(
                start,
                downstream,
                method=stage.method,
                settings=stage.settings,
                out=folder,
                show_progress=self.show_progress,
            )
        else:
            logger = self._loggers(arm=stage.arm, downstream=stage.downstream, frozen=stage.freeze, seed=stage.seed)
            tuning = self._train(
                finetune, start, downstream, out=folder, freeze=stage.freeze, settings=stage.settings, logger=logger
            )
            found = evaluation.evaluate(tuning.folder, downstream, out=tuning.folder, show_progress=self.show_progress)
        result = {
            "score": found.score,
            "metric": found.metric,
            "top1": found.top1,
            "top5": found.topk if found.k == 5 else None,
            "loss": found.loss,
            "pretrain_accuracy": pretraining and pretraining.history[-1].get("train_accuracy"),
            "generate_seconds": sum(_generate_seconds(store) or 0.0 for store in stores) if stores else None,
            "pretrain_seconds": pretraining and pretraining.seconds,
            "pretrain_images_per_second": pretraining and pretraining.images_per_second,
            "finetune_seconds": tuning and tuning.seconds,
            "finetune_images_per_second": tuning and tuning.images_per_second,
            "evaluate_seconds": found.seconds,
        }
        computed = this_machine(self.settings.variants[stage.arm].arm, stage.settings).model_dump()
        with adding(folder, [_RESULT]):
            record = {"key": stage.key, "row": result, "computed": computed}
            write_text(folder / _RESULT, json.dumps({**record, "sha256": json_digest(record)}, indent=1))

    def _train(self, train: Callable[..., Run], *what: Any, out: Path, **settings: Any) -> Run:
        """The training run in ``out``: loaded if it is complete, resumed if it was interrupted."""
        if is_complete(out):
            return Run.load(out)
        return train(*what, out=out, resume=True, show_progress=self.show_progress, **settings)

    def _loggers(self, **labels: str | int) -> NamedLoggers:
        """Loggers of a stage, whose runs are grouped by the labels."""
        from formulavision.training.loggers import NamedLoggers

        project = re.sub(r"[^\w.-]+", "-", self.settings.name)[:100]  # W&B and trackio allow no other characters
        texts = {name: str(value) for name, value in labels.items()}
        return NamedLoggers(tuple(self.settings.loggers), project, texts, self.out / "logs")

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path.resolve(), self.out.resolve())

    def _say(self, line: str) -> None:
        note(line)
        if self.show_progress:
            say(line, STDERR)


# On a node of a cluster ----------------------------------------------------------------------------------------------


def _start_on_node(out: Path, runs: Path, folder: Path, threads: int, sources: list[Source]) -> None:
    """Plan a comparison in a worker process of a cluster, from its configuration in ``out``."""
    global _runner
    import torch

    torch.set_num_threads(threads)
    if folder.is_dir():
        os.chdir(folder)  # paths of datasets may be relative to it
    for source in sources:
        source.register()
    settings = ComparisonSettings.of(out / CONFIGURATION, None)
    datasets = Datasets(settings)
    _runner = Runner(settings, plan_stages(settings, runs, datasets.digest), datasets, out, runs, False)


def _compute_on_node(key: str) -> str | None:
    return _runner.compute_alone(key)


_runner: Runner
"""The runner of this worker process."""


# What is done --------------------------------------------------------------------------------------------------------


def is_done(stage: Stage, folder: Path) -> bool:
    if isinstance(stage, Generation):
        return (folder / MANIFEST).is_file() and _generate_seconds(stage) is not None
    return is_complete(folder) if isinstance(stage, Pretraining) else (folder / _RESULT).is_file()


def position(number: int, total: int, seconds: float) -> str:
    """Progress at the start of a stage, with the remaining time: ``[3/8, 12 min so far, about 30 min left]``.

    Args:
        number: of the stage that starts, from 1; the ones before it are finished.
        total: number of stages to compute.
        seconds: time since the first one started. The remaining stages are taken to need the mean time of the finished.
    """
    parts = [f"{number}/{total}"]
    if number > 1:
        left = seconds / (number - 1) * (total - number + 1)
        parts += [f"{duration(seconds)} so far", f"about {duration(left)} left"]
    return f"[{', '.join(parts)}]"


def _history(folder: Path) -> list[dict[str, float | None]]:
    return Run.load(folder).history if is_complete(folder) else []


def read_record(file: Path, key: str) -> dict[str, Any] | None:
    """Content of the result.json of a stage; None where there is none.

    Raises:
        ConfigError: the file is damaged, or is another stage's.
    """
    try:
        record = dict(json.loads(file.read_text(encoding="utf-8")))
        digest = record.pop("sha256", None)
        sound = digest == json_digest(record) and record["key"] == key if digest else set(record) == {"row", "computed"}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError):
        sound = False
    if not sound:
        raise ConfigError(f"{file}: is damaged: remove its folder, which is then computed again")
    return record


def _seconds_file(stage: Generation) -> Path:
    return stage.folder.with_name(f"{stage.folder.name}.json")


def _generate_seconds(stage: Generation) -> float | None:
    """Time to generate a store; None if it is not complete."""
    file = _seconds_file(stage)
    if not file.is_file():
        return None
    try:
        return float(json.loads(file.read_text(encoding="utf-8"))["seconds"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ConfigError(f"{file}: is damaged: remove it and its store, which is drawn again") from None


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether an exception, or one of its causes, is about a full disk or quota."""
    full = {os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)}
    while error is not None:
        if any(text in str(error) for text in full):
            return True
        error = error.__cause__ or error.__context__
    return False
