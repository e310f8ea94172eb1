"""Views of a comparison: its table, the curves of runs that are done or going on, and the pictures of its report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from formulavision.comparison.arms import REMOTE
from formulavision.comparison.pictures import Illustration, attention, filters, predictions
from formulavision.comparison.plan import key_of
from formulavision.comparison.plots import Plots
from formulavision.comparison.report import featured_arms, sheets_of_arms
from formulavision.comparison.results import FINDINGS, TOP_1, Findings, Result
from formulavision.comparison.tables import Table, table_of
from formulavision.comparison.wording import CellText, caveats, explanations, grid, missing, place_text
from formulavision.explorer.worker import ReportProgress
from formulavision.training.runs import METRICS, EpochMetrics, is_complete, read_metrics, score_of, when
from formulavision.util.folders import LOCK, is_locked
from formulavision.util.text import counted

__all__ = ["Watched", "watch"]


@dataclass(frozen=True)
class Watched:
    """What is known of a comparison now.

    Attributes:
        version: differs from that of another moment if anything else does.
        told: what is done and what is going on, in words.
        missing: what failed and what is yet to be computed, a sentence each; failures come first.
        headings, rows: the table.
        notes: sentences on the table.
        arms: name of each arm -> the source of its weights, in words.
        curves, pictures: by their headings. Pictures are those that the report has drawn.
    """

    version: str
    told: list[str]
    missing: list[str]
    headings: list[CellText]
    rows: list[list[CellText]]
    notes: list[str]
    arms: dict[str, str]
    curves: dict[str, list[Illustration]]
    pictures: dict[str, list[Illustration]]


@dataclass(frozen=True)
class _Unfinished:
    """A run that is going on, or was stopped.

    Attributes:
        place: its folder, relative to the comparison's.
        result: the first result that needs it.
        pretraining: whether it is the pre-training of that result's arm.
        going_on: whether a process computes it.
        written: time of its last row of metrics, seconds since 1970; 0 without one.
        rows: its metrics; none yet where a probe or a store is computed.
    """

    place: str
    result: Result
    pretraining: bool
    going_on: bool
    written: float
    rows: list[EpochMetrics]

    @property
    def line(self) -> str:
        """Name of its line in a plot."""
        return f"{self.result.arm}, seed {self.result.seed}: {'going on' if self.going_on else 'stopped'}"


def watch(folder: str, known: str, progress: ReportProgress) -> Watched | None:
    """A comparison as it is now; None if it is still as it was.

    Nothing is written, and no run is read but those that the comparison names.

    Args:
        folder: of the comparison, finished or not.
        known: the version that the visitor sees; empty: none.

    Raises:
        ConfigError: the folder is gone, or holds no comparison, or a file in it is damaged.
    """
    root = Path(folder)
    findings = _load(root)
    unfinished = list(_unfinished(findings, root))
    alive = is_locked(root / LOCK)
    pictures = sorted(file.stat().st_mtime_ns for file in root.glob("pictures/*"))
    version = json.dumps([_changed(root), alive, pictures, [[u.place, u.going_on, u.written] for u in unfinished]])
    return None if version == known else _watched(root, version, findings, unfinished, alive)


def _watched(folder: Path, version: str, findings: Findings, unfinished: Sequence[_Unfinished], alive: bool) -> Watched:
    table = table_of(_with_lines(findings, unfinished, folder), folder)
    # Lines of unfinished runs are in no row of the table.
    shown = Table(findings, table.cells)
    featured = featured_arms(shown)
    plots = Plots(table, None, [*featured, *dict.fromkeys(run.line for run in unfinished)])
    headings, rows = grid(shown)
    curves = {
        "Fine-tuning": list(plots.scores(plots.finetuned)),
        "Pre-training": [plot for _, group in plots.pretraining() for plot in group],
        "Sweeps": list(plots.sweeps()),
        "Frozen layers": list(plots.freezing()),
    }
    pictures = {
        "Heat maps (Grad-CAM)": ("grad-cam", attention),
        "Predicted masks": ("predictions", predictions),
        "First-layer filters": ("filters", filters),
    }
    drawn = {
        heading: draw(shown, folder, featured, draw=False)
        for heading, (kind, draw) in pictures.items()
        if kind in findings.pictures
    }
    # Arms of the same images share a sheet.
    drawn["Images of the arms"] = list(dict.fromkeys(sheets_of_arms(findings, folder, draw=False).values()))
    return Watched(
        version=version,
        told=[*caveats(findings), _progress(findings, alive), *map(_told, unfinished)],
        missing=missing(findings),
        headings=headings,
        rows=rows,
        notes=explanations(shown),
        arms={name: facts.origin for name, facts in findings.arms.items()},
        curves={heading: plots for heading, plots in curves.items() if plots},
        pictures={h: there for h, shown in drawn.items() if (there := [each for each in shown if not each.problem])},
    )


# Files ---------------------------------------------------------------------------------------------------------------


def _changed(folder: Path) -> int:
    """Time of the last change of a comparison's results, ns since 1970; 0 where there are none."""
    try:
        return (folder / FINDINGS).stat().st_mtime_ns
    except OSError:
        return 0


def _load(folder: Path) -> Findings:
    return _load_version(folder, _changed(folder))


@lru_cache(maxsize=2)
def _load_version(folder: Path, changed: int) -> Findings:
    return Findings.load(folder)


def _unfinished(findings: Findings, folder: Path) -> Iterator[_Unfinished]:
    """The runs of results that are not there yet: those with metrics, and those that a process computes."""
    seen = set()
    for result in findings.results:
        for place in (result.start, result.folder) if result.pending else ():
            if place is None or place.startswith(REMOTE) or place in seen:
                continue
            seen.add(place)
            run = folder / place
            if is_complete(run):
                continue
            going_on = is_locked(run.parent.parent / f"{key_of(run)}.lock")
            try:
                written = (run / "metrics.csv").stat().st_mtime
            except OSError:
                written = 0.0
            if going_on or written:
                yield _Unfinished(place, result, place == result.start, going_on, written, read_metrics(run))


def _with_lines(findings: Findings, unfinished: Sequence[_Unfinished], folder: Path) -> Findings:
    """Findings in which each unfinished run is a line of its own in the plots: the mean over the seeds of an arm ends
    with its shortest run."""
    arms, results, pretrainings = dict(findings.arms), list(findings.results), dict(findings.pretrainings)
    for start in {result.start for result in findings.results if result.pending} - {None, *pretrainings}:
        # A pre-training may be done whose results are not.
        if start is not None and not start.startswith(REMOTE) and is_complete(folder / start):
            pretrainings[start] = read_metrics(folder / start)
    for run in (run for run in unfinished if run.rows):
        facts = findings.arms[run.result.arm]
        arms[run.line] = facts.model_copy(update={"base": run.line, "path": None, "value": None})
        line = replace(run.result, arm=run.line, start=None, folder=None)
        if run.pretraining:
            line.start = run.line
            pretrainings[run.line] = run.rows
        else:
            metric = score_of(run.rows[-1])[0]
            line.metric = TOP_1 if metric == METRICS["accuracy"] else metric
            line.history = run.rows
        results.append(line)
    return findings.model_copy(update={"arms": arms, "results": results, "pretrainings": pretrainings})


# Words ---------------------------------------------------------------------------------------------------------------


def _progress(findings: Findings, alive: bool) -> str:
    every = findings.results
    done, pending = sum(r.score is not None for r in every), sum(r.pending for r in every)
    failed = len(every) - done - pending
    told = [f"{done} of {counted(len(every), 'result')} done"]
    told += [f"{failed} failed"] if failed else []
    told += [f"{pending} yet to be computed"] if pending else []
    if pending:
        told.append("a process computes them" if alive else "no process computes them now")
    return ", ".join(told)


def _told(run: _Unfinished) -> str:
    """A run that is going on, or was stopped, and its last row of metrics, in words."""
    result = run.result
    what = "pre-training" if run.pretraining else place_text(result.downstream, result.freeze)
    told = f"{run.line}: {what}"
    if run.rows:
        unit, number = when(run.rows[-1])
        metric, score, images = score_of(run.rows[-1], pretrained=run.pretraining)
        at = time.strftime("%H:%M:%S", time.localtime(run.written))
        told += f", {unit} {number:,}, {metric} {score:.1%} on {images} images, written at {at}"
    return told
