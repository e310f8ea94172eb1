"""Runs a comparison: computes the stages of its plan that are not done yet, and writes the tables and the report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formulavision.comparison.choosing import CONFIGURATION, choose_or_continue, name_of
from formulavision.comparison.estimates import estimate
from formulavision.comparison.plan import Datasets, Stage, check_models, of_job, plan_stages
from formulavision.comparison.printing import print_table
from formulavision.comparison.report import REPORT_FILES, write_html, write_tables
from formulavision.comparison.results import Comparison, write_text
from formulavision.comparison.runner import Runner, is_done
from formulavision.comparison.settings import ComparisonSettings
from formulavision.storage.jobs import Share
from formulavision.util.cluster import PerTask, check_on, connected
from formulavision.util.console import STDERR, say
from formulavision.util.errors import ConfigError
from formulavision.util.files import write_errors
from formulavision.util.folders import MARKER, OwnedFolder
from formulavision.util.logs import logged, note
from formulavision.util.machine import cores, versions
from formulavision.util.text import byte_size, counted, duration

if TYPE_CHECKING:
    from formulavision.data.downstream import DownstreamSettings

__all__ = ["compare", "print_plan", "sweep"]

_OURS = (CONFIGURATION, *REPORT_FILES, "logs/", "runs/*.lock", "runs/_stores/*.json")
"""Files in a comparison's folder besides those of its stages. Each stage has a folder with a marker of its own."""


def compare(
    config: ComparisonSettings | Mapping[str, Any] | str | Path | None = None,
    *,
    out: str | Path | None = None,
    downstream: DownstreamSettings | Mapping[str, Any] | str | PathLike[str] | None = None,
    minutes: float | None = None,
    size: str | None = None,
    runs: str | Path | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
    job: str | None = None,
    finish: bool = False,
    on: str | None = None,
    per_task: str = "",
) -> Comparison:
    """Pre-train, fine-tune, evaluate and probe every arm of a comparison, and write its table and report.

    If ``out`` already holds the comparison, it is continued: finished stages are skipped, an interrupted one is
    resumed, and only what is new in the configuration runs: an added arm, seed or value of a sweep.

    With ``downstream`` instead of ``config``, a comparison of training from scratch and formulas is chosen for that
    dataset and this machine, and told, with an estimate of its time, before it starts. If ``out`` already holds a
    comparison on the dataset, its ``comparison.yaml`` is used.

    Args:
        config: the comparison, or the path of its YAML file.
        downstream: a folder of images or the name of a dataset, in place of ``config``.
        minutes: with ``downstream``: the time that the comparison is to take, about; None: 20.
        out: folder for ``results.csv`` (a row a model), ``table.csv`` and ``results.md`` (over seeds),
            ``results.json`` (all of it), ``report.html``, ``plots/`` and ``comparison.yaml`` (the configuration with
            every recipe in full). None, with ``downstream``: ``runs/`` and its name.
        size: one of the ``sizes`` that the configuration names, or ``full``: the configuration without an overlay.
        runs: folder for the stages: pre-trained and fine-tuned models, and stores. Comparisons with one folder compute
            the stages that they have in common once, also while they run at the same time. None: ``runs/`` in ``out``.
        overwrite: remove the files of the comparison in ``out`` and start over. Its stages in another folder and other
            files in ``out`` stay. A folder that FormulaVision did not write is refused also then.
        show_progress: print the stages, their progress bars and the table.
        job: ``3/8`` computes the third of eight shares of the results, as one job of a scheduler, into a folder of its
            own: ``out`` with ``-job-3-of-8`` behind its name. The jobs share ``runs``, may run at the same time, be
            killed, and run again. The table and report are written by the same call without ``job``, in ``out``.
        finish: write the table and report of what jobs have computed, and compute nothing.
        on: compute the stages on a cluster, by Ray, as many at a time as it has room for; see
            :func:`formulavision.generate`. All nodes must see ``out``, ``runs`` and the datasets.
        per_task: with ``on``: the part of a node that each stage reserves: ``cpus=8,gpus=0.5,memory=16GB``. It computes
            with as many threads as it has cores. Without it, a stage has a GPU and its share of the cores, or, where
            there is no GPU, a node.

    Returns:
        The results. If an arm failed, its results and ``Comparison.failures`` have the reason; the other arms are done.

    Raises:
        ConfigError: the configuration is wrong, or has no such size; ``config`` and ``downstream`` are both given;
            there is no such job, or it began with another configuration.
        ClusterError: no cluster is there, it has other versions or lacks a plugin, or its nodes do not see ``out``.
        DownstreamError: a real dataset cannot be used.
        StoreError: ``out`` holds something else, is being written by another comparison, or cannot be written; or the
            disk is full; or results are missing (``finish``).
    """
    share = None if job is None else Share.parse(job)
    if share is not None and (finish or downstream is not None):
        raise ConfigError(f"job: not together with {'finish' if finish else 'downstream'}")
    if finish and overwrite:
        raise ConfigError("finish: not together with overwrite, which removes what was computed")
    if share is not None and runs is None:
        raise ConfigError("job: needs runs, the folder of the trained models, which all jobs share")
    if on is not None:
        check_on(on)
        if share is not None or finish:
            raise ConfigError(f"on: not together with {'job' if share is not None else 'finish'}")
        runs = None if runs is None else Path(runs).absolute()  # the nodes' working folders are others
    elif per_task:
        raise ConfigError("per_task: is for a cluster: give on, too")
    reserved = PerTask.parse(per_task)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("compare runs as one process: start it without torchrun, and set pretrain.devices=N instead")
    if (config is None) == (downstream is None):
        raise ConfigError("give a comparison, or a downstream to choose one for")
    tell = partial(say, console=STDERR) if show_progress else note
    if downstream is not None:
        if size is not None:
            raise ConfigError("size: is for a comparison with sizes: give minutes instead")
        folder = Path("runs") / name_of(downstream) if out is None else Path(out)
        config = choose_or_continue(downstream, folder, minutes, overwrite=overwrite, tell=tell)
    elif out is None or minutes is not None:
        raise ConfigError("out: is missing" if out is None else "minutes: is for a downstream in place of a comparison")
    else:
        folder = Path(out)
    assert config is not None
    if on is not None:
        folder = folder.absolute()
    settings = ComparisonSettings.of(config, size)
    if share is not None:
        if folder.name in ("", ".."):
            folder = folder.resolve()
        folder = folder.with_name(f"{folder.name}-job-{share.number}-of-{share.count}")
    check_models(settings)
    datasets = Datasets(settings)
    datasets.check_outside(folder, *([] if runs is None else [Path(runs)]))
    owned = OwnedFolder(folder, "comparison", last="report.html")
    connecting = nullcontext() if on is None else connected(on, cores())
    holding = owned.writing({}, _OURS, overwrite=overwrite)
    if share is not None:  # a job that runs twice at once waits for itself
        same = partial(_refuse_other, settings, folder, overwrite)
        wait = partial(tell, f"{folder}: another process computes job {share}: waiting for it")
        holding = owned.writing({}, _OURS, overwrite=overwrite, check=same, taken=wait)
    with connecting as cluster, holding:
        write_text(folder / CONFIGURATION, settings.to_yaml())
        pool = folder / "runs" if runs is None else Path(runs)
        with write_errors(pool):
            pool.mkdir(parents=True, exist_ok=True)
        stages = plan_stages(settings, pool, datasets.digest)
        if share is not None:
            stages = of_job(stages, share)
        if runs is None:
            owned.add((stage.folder.relative_to(folder) / MARKER).as_posix() for stage in stages)
        runner = Runner(settings, stages, datasets, folder, pool, show_progress)
        findings = runner.findings
        try:
            with logged(folder):
                note(f"formulavision {versions()['formulavision']}: {settings.name}")
                runner.run(cluster, reserved, computes=not finish)
        except KeyboardInterrupt:
            write_tables(findings, folder)
            done = sum(result.score is not None for result in findings.results)
            if show_progress:
                every = len(findings.results)
                say(f"stopped with {done} of {every} results done: the same comparison in {folder} goes on", STDERR)
                say(f"formulavision report {folder} writes the report of what is done", STDERR)
            raise
        if share is None:
            table = write_tables(findings, folder)
            write_html(table, folder)
    if show_progress and share is None:
        print_table(table, folder)
    elif show_progress:
        done = sum(result.score is not None for result in findings.results)
        say(f"job {share} has ended: {done} of its {counted(len(findings.results), 'result')} are done", STDERR)
        replaced = "--job and --overwrite" if overwrite else "--job"
        say(f"when all jobs have ended, the same command with --finish in place of {replaced} writes the table", STDERR)
    return Comparison(settings, folder, findings)


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
        values: path of a setting -> its values, each an arm: ``{"generator.fill_rate": [0.05, 0.1, 0.2]}``. If there
            are several settings, one varies at a time. They replace the configuration's own ``sweep``; ``against`` and
            the paper's numbers for points that are no longer there are left out.
        out, size, runs, overwrite, show_progress: as for :func:`compare`, which says what is returned and raised.

    Raises:
        ConfigError: also, a setting is unknown, no arm has it, or a value is not allowed.
    """
    swept = ComparisonSettings.of(config, size).with_sweep(values)
    return compare(swept, out=out, runs=runs, overwrite=overwrite, show_progress=show_progress)


def print_plan(
    config: ComparisonSettings | Mapping[str, Any] | str | Path,
    runs: str | Path,
    *,
    size: str | None = None,
    job: str | None = None,
) -> None:
    """Print the stages of a comparison that are not done, with what each takes on this machine. Nothing is written.

    Args:
        config, size: as for :func:`compare`, which says what is raised.
        runs: folder of the stages, which need not exist.
        job: ``3/8``: the third of eight shares.
    """
    settings = ComparisonSettings.of(config, size)
    share = None if job is None else Share.parse(job)
    check_models(settings)
    datasets = Datasets(settings)
    stages = plan_stages(settings, Path(runs), datasets.digest)
    if share is not None:
        stages = of_job(stages, share)
    once: dict[str, Stage] = {}  # arms of one content share their stages
    for stage in stages:
        once.setdefault(stage.key, stage)
    stages = list(once.values())
    missing = [stage for stage in stages if not is_done(stage, stage.folder)]
    of = settings.name if share is None else f"job {share} of {settings.name}"
    say(f"{of}: {counted(len(stages), 'stage')}, of which {len(stages) - len(missing)} are done", STDERR)
    numbers = {stage.key: number for number, stage in enumerate(missing, 1)}
    found = estimate(missing, settings, datasets)
    for number, one in enumerate(found, 1):
        needed = [str(numbers[before.key]) for before in one.stage.needs if before.key in numbers]
        after = f", after {' and '.join(needed)}" if needed else ""
        say(f"{number}. {one.stage}{after}: {_amounts(one.images, one.seconds, one.bytes)}")
    total = sum(one.images for one in found), sum(one.seconds for one in found), sum(one.bytes for one in found)
    say(f"in all: {_amounts(*total)}")
    say("time: that of this machine, from a few training steps of each model; the drawing of images is not counted")


def _amounts(images: int, seconds: float, size: int) -> str:
    return f"{counted(images, 'image')}, about {duration(seconds)}, {byte_size(size)}"


def _refuse_other(settings: ComparisonSettings, folder: Path, overwrite: bool) -> None:
    """Refuse another configuration than that with which a job began: its share would be another one."""
    file = folder / CONFIGURATION
    if not overwrite and file.is_file() and file.read_text(encoding="utf-8") != settings.to_yaml():
        raise ConfigError(f"job: {folder} began with another configuration: give the same, or overwrite")
