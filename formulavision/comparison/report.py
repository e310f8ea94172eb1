"""The report: one HTML file that needs nothing but a browser."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from formulavision.comparison.classes import Classes, by_class, classes_csv
from formulavision.comparison.config import PROBE
from formulavision.comparison.convergence import Reached, reached
from formulavision.comparison.differences import Difference, between_arms, from_baseline, star
from formulavision.comparison.pictures import Album, Picture, attention, data_uri, filters, sheet
from formulavision.comparison.plots import FEW, Curve, Epochs, Look, Point, by_epoch, by_value, looks, worded
from formulavision.comparison.results import (
    TOP_1,
    Comparison,
    Computed,
    Findings,
    Line,
    Row,
    agreement,
    best_of,
    cause,
    mean,
    missing_pairs,
    points,
    rho,
    shown,
    spread,
    table,
    write_text,
)
from formulavision.util.config import dump_yaml

__all__ = ["write_report"]

_MANY_ROWS = 20
"""A table of more rows than these is folded up."""
_CLASSES = 10
"""Classes of a table like the paper's table 10."""
_LISTED = 6
"""Places that are told one by one; the table of all runs tells the rest."""
_SHEET = {"categories": 6, "instances": 8}
_SHEET_OF_MANY = {"categories": 2, "instances": 8}
_PRETRAINING = {
    "loss": ("train_loss", 1, "training loss"),
    "accuracy": ("train_accuracy", 100, "training accuracy (%)"),
    "held-out": ("validation_accuracy", 100, "accuracy on held-out images (%)"),
}
"""Columns of a history, by the name of their plot: the column, what it is multiplied by, and what it is."""


@dataclass
class _ArmView:
    """What the report says of an arm beside its numbers."""

    name: str
    origin: str
    note: str
    sheet: Picture | None = None
    same_as: str = ""
    yaml: str = ""


@dataclass
class _Times:
    """Mean seconds and images per second of each stage over the seeds, as text."""

    arm: str
    downstream: str
    freeze: str
    values: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Failure:
    """Rows of an arm that failed for the same reason."""

    arm: str
    where: str
    error: str


@dataclass(frozen=True)
class _Machine:
    """A machine and how many rows it computed."""

    machine: str
    rows: int
    versions: str


def write_report(comparison: Comparison) -> Path:
    """Write ``report.html``, ``plots/*.svg`` and ``pictures/`` into the comparison's folder.

    All that it says is in the findings; pictures, and what is told image by image and class by class, come from the
    runs that the findings name, where they are still there.

    Raises:
        StoreError: it cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(percent=_percent, points=points, p=_p, rho=rho, shown=shown, some=_some)
    template = environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    write_text(comparison.report, template.render(_content(comparison.findings, comparison.folder)))
    return comparison.report


def _content(findings: Findings, folder: Path) -> dict[str, Any]:
    """What the template shows."""
    lines = table(findings)
    tests = from_baseline(findings, folder)
    finetuned = [freeze for freeze in findings.by_frozen if not freeze.endswith(PROBE)]
    pairs = between_arms(findings, folder)
    plots = _Plots(findings, folder / "plots")
    album = Album(folder)
    featured = _featured(findings)
    machines = _computed(findings)
    classes = by_class(findings, folder, featured) if "classes" in findings.pictures else []
    _keep_classes(classes, folder / "plots" / "classes.csv")
    return {
        "findings": findings,
        "facts": _facts(findings),
        "caption": " ".join(_caption(findings, lines, star(findings, list(tests.values())))),
        "frozen": findings.freezes != ["none"],
        "lines": lines,
        "papers": {d: any(line.cells[d].paper is not None for line in lines) for d in findings.downstreams},
        "agreements": {d: agreement(lines, d) for d in findings.downstreams},
        "baseline": _baseline(findings),
        "tests": tests,
        "failures": _failures(findings),
        "failed": sum(row.error is not None for row in findings.rows),
        "pending": _pending(findings),
        "matrices": _matrices(pairs),
        "matrix_notes": list(_matrix_notes(findings, pairs)),
        "sweeps": list(plots.sweeps()),
        "freezing": list(plots.freezing()),
        "accuracy": list(plots.accuracy(finetuned[:1])),
        "accuracy_frozen": list(plots.accuracy(finetuned[1:])),
        "reached": _reached(reached(findings)),
        "pretraining": list(plots.pretraining()),
        "left_out": len(featured) < len(findings.arms),
        "paper_drawn": any(findings.paper.values()),
        "classes": classes,
        "most_classes": _CLASSES,
        "several_labels": [d for d in findings.downstreams if findings.metric(d) != TOP_1],
        "number_of_seeds": len(findings.seeds),
        "filters": filters(album, findings, folder, featured) if "filters" in findings.pictures else [],
        "attention": attention(album, findings, folder, featured) if "grad-cam" in findings.pictures else [],
        "arms": _arms(findings, album),
        "times": _times(findings.rows),
        "stored": any(row.generate_seconds is not None for row in findings.rows),
        "machines": [_machine(findings, computed) for computed in machines],
        "runs": [(e.row, "–" if e.computed is None else machines.index(e.computed) + 1) for e in findings.entries],
        "many": _MANY_ROWS,
        "few": FEW,
    }


def _featured(findings: Findings) -> list[str]:
    """Arms that are shown one by one: of sweeps, where there are many arms, the best of each arm that is swept."""
    arms = findings.arms
    if len(arms) <= FEW:
        return list(arms)
    downstream, freeze = next(iter(findings.downstreams)), findings.by_frozen[0]
    best: dict[str, tuple[float, str]] = {}
    for name, facts in arms.items():
        score = mean(findings.scores(name, freeze, downstream).values())
        if facts.path is not None and score is not None:
            best[facts.base] = max(best.get(facts.base, (-1.0, "")), (score, name))
    chosen = {name for _, name in best.values()}
    return [name for name, facts in arms.items() if facts.path is None or name in chosen]


# Words and numbers ---------------------------------------------------------------------------------------------------


def _facts(findings: Findings) -> str:
    """What was compared, in a line."""
    counts = [(len(findings.arms), "arm"), (len(findings.downstreams), "downstream"), (len(findings.seeds), "seed")]
    drawn = {"on-demand": "images drawn on demand", "stored": "images stored before training"}.get(findings.data)
    return ", ".join(
        [
            *(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts),
            findings.model,
            *([drawn] if drawn else []),
            *([f"size “{findings.size}”"] if findings.size != "full" else []),
        ]
    )


def _baseline(findings: Findings) -> str:
    """What the arms are measured against, in words; empty where it is nothing."""
    names = {arm.baseline for arm in findings.arms.values() if arm.baseline is not None}
    return next(iter(names)) if len(names) == 1 else "the baseline" if names else ""


def _caption(findings: Findings, lines: Sequence[Line], tested: Sequence[str]) -> Iterator[str]:
    """What the numbers of the table are, in sentences."""
    seeds = findings.seeds
    over = f"mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else f"one seed ({seeds[0]})"
    metrics = {name: findings.metric(name) for name in findings.downstreams}
    what = next(iter(metrics.values()))
    if len(set(metrics.values())) > 1:
        others = ", ".join(name for name, metric in metrics.items() if metric != TOP_1)
        what = f"{TOP_1}, of {others} mean average precision,"
    yield f"{_sentence(what)} in per cent on the test images, {over}; {best_of(findings)} is marked."
    if _baseline(findings):
        frozen = " with the same layers frozen" if len(findings.freezes) > 1 else ""
        yield f"“Δ” is the difference to {_baseline(findings)}{frozen}, in percentage points."
        yield from missing_pairs(findings, lines)
        yield from tested
    if any(cell.paper is not None for line in lines for cell in line.cells.values()):
        yield "“paper” is the paper’s own number, at its scale."
    if any(agreement(lines, downstream) for downstream in findings.downstreams):
        yield "ρ is Spearman’s rank correlation of the paper’s numbers with ours: 1 where both have the same order."


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}" if value < 0.1 else f"p = {value:.2f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


# Tables --------------------------------------------------------------------------------------------------------------


def _failures(findings: Findings) -> list[_Failure]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in findings.rows:
        if row.error:
            groups.setdefault((row.arm, cause(row.error)), []).append(row)
    result = []
    for (arm, error), rows in groups.items():
        everything = len(rows) == sum(row.arm == arm for row in findings.rows)
        result.append(_Failure(arm, "everywhere" if everything else _some(_place(row) for row in rows), error))
    return result


def _pending(findings: Findings) -> dict[str, list[str]]:
    """By arm, the places that are yet to be computed."""
    result: dict[str, list[str]] = {}
    for row in findings.rows:
        if row.pending:
            result.setdefault(row.arm, []).append(_place(row))
    return result


def _some(places: Iterable[str]) -> str:
    """The first of them."""
    listed = list(places)
    more = f"; and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return "; ".join(listed[:_LISTED]) + more


def _place(row: Row) -> str:
    frozen = "" if row.freeze == "none" else f", frozen: {shown(row.freeze)}"
    return f"{row.downstream}{frozen}, seed {row.seed}"


@dataclass(frozen=True)
class _Test:
    """A cell of the matrix of tests."""

    difference: str
    p: str
    significant: bool


@dataclass
class _Matrix:
    """Tests of arms against each other: the row's less the column's, each pair once.

    Attributes:
        title: where the arms are compared; empty: over several places.
        columns: the arms across.
    """

    title: str
    columns: set[str] = field(default_factory=set)
    rows: dict[str, dict[str, _Test]] = field(default_factory=dict)


def _matrices(pairs: Sequence[Difference]) -> list[_Matrix]:
    """One of the arms that share several seeds; of those that share one, one a downstream."""
    result: dict[tuple[str, str], _Matrix] = {}
    for pair in pairs:
        where = pair.downstream or "", pair.freeze or "none"
        matrix = result.setdefault(where, _Matrix(_title(*where)))
        p = "" if pair.corrected is None else _p(pair.corrected)
        matrix.columns.add(pair.arm)
        matrix.rows.setdefault(pair.other, {})[pair.arm] = _Test(points(-pair.difference), p, pair.significant)
    return list(result.values())


def _matrix_notes(findings: Findings, pairs: Sequence[Difference]) -> Iterator[str]:
    """What the matrices are of, in sentences."""
    if any(pair.downstream is None for pair in pairs):
        what = "frozen layers of fine-tuning" if any(not f.endswith(PROBE) for f in findings.freezes) else "probes"
        yield f"Mean over all downstreams and {what} that both arms have at every seed that they share."
        yield "A seed is one pair, because within it all start from the same pre-training."
    if any(pair.downstream is not None for pair in pairs):
        yield "Arms that share one seed are compared on each downstream, because there the test images are counted,"
        yield "with the fewest layers frozen that both have."
    tested = star(findings, pairs)
    yield from (
        ["p is after Holm’s correction for all tests here.", *tested]
        if tested
        else ["There is too little to test: it takes two seeds, or the predictions of both models."]
    )


def _keep_classes(classes: Sequence[Classes], file: Path) -> None:
    """Keep what the report shows the first of."""
    if any(each.lines for each in classes):
        write_text(file, classes_csv(classes))


def _reached(rows: Iterable[Reached]) -> list[tuple[str, list[float], dict[str, list[str]]]]:
    """A table a downstream and choice of frozen layers: its title, its levels, and by arm what stands below them."""
    result = []
    for (downstream, freeze), group in itertools.groupby(rows, key=lambda row: (row.downstream, row.freeze)):
        cells: dict[str, list[str]] = {}
        levels: dict[float, None] = {}
        for row in group:
            levels[row.level] = None
            cells.setdefault(row.arm, []).append(row.text)
        result.append((_title(downstream, freeze), list(levels), cells))
    return result


def _title(downstream: str, freeze: str) -> str:
    return downstream if freeze == "none" else f"{downstream}, frozen: {shown(freeze)}"


def _times(rows: Iterable[Row]) -> list[_Times]:
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.evaluate_seconds is not None or row.finetune_seconds is not None:
            groups.setdefault((row.arm, row.downstream, row.freeze), []).append(row)
    result = []
    for key, group in groups.items():
        times = _Times(*key)
        for stage in ("generate", "pretrain", "finetune", "evaluate"):
            seconds = mean(getattr(row, f"{stage}_seconds") for row in group)
            rate = mean(getattr(row, f"{stage}_images_per_second", None) for row in group)
            times.values.append((_duration(seconds), "–" if rate is None else f"{rate:,.0f}"))
        result.append(times)
    return result


def _machine(findings: Findings, computed: Computed) -> _Machine:
    rows = sum(entry.computed == computed for entry in findings.entries)
    versions = ", ".join(f"{package} {version}" for package, version in computed.versions.items())
    return _Machine(computed.machine, rows, versions)


def _computed(findings: Findings) -> list[Computed]:
    """Where rows were computed, each once, in the order of the rows."""
    result: list[Computed] = []
    for entry in findings.entries:
        if entry.computed is not None and entry.computed not in result:
            result.append(entry.computed)
    return result


# Plots and pictures --------------------------------------------------------------------------------------------------


class _Plots:
    """The plots, each of which is kept as an SVG, too."""

    def __init__(self, findings: Findings, folder: Path) -> None:
        self.findings = findings
        self.folder = folder
        self.looks: dict[str, Look] = looks(findings.arms)

    def sweeps(self) -> Iterator[Picture]:
        """A setting's values across, the score up, a line each arm that is swept (figure 4, tables 1 to 5)."""
        findings = self.findings
        for path in dict.fromkeys(facts.path for facts in findings.arms.values() if facts.path is not None):
            last = path.rpartition(".")[2]
            for downstream, freeze in itertools.product(findings.downstreams, findings.freezes):
                swept: dict[str, list[Point]] = {}
                for name, facts in findings.arms.items():
                    if facts.path == path:
                        swept.setdefault(facts.base, []).append(self._point(facts.value, name, freeze, downstream))
                yield from self._by_value(
                    swept, f"sweep-{path}", f"{last}, {_title(downstream, freeze)}", path, downstream, freeze
                )

    def freezing(self) -> Iterator[Picture]:
        """Frozen layers across, the score up, a line an arm (table 8)."""
        findings = self.findings
        freezes = [freeze for freeze in findings.by_frozen if not freeze.endswith(PROBE)]
        for downstream in findings.downstreams if len(freezes) > 1 else ():
            points = {
                arm: [self._point(freeze, arm, freeze, downstream) for freeze in freezes] for arm in _featured(findings)
            }
            yield from self._by_value(points, "freezing", downstream, "frozen layers", downstream, None)

    def _point(self, x: Any, arm: str, freeze: str, downstream: str) -> Point:
        scores = self.findings.scores(arm, freeze, downstream).values()
        return Point(x, mean(scores), spread(scores), self.findings.paper_number(arm, freeze, downstream))

    def _by_value(
        self,
        points: dict[str, list[Point]],
        name: str,
        title: str,
        xlabel: str,
        downstream: str,
        freeze: str | None,
    ) -> Iterator[Picture]:
        there = {arm: line for arm, line in points.items() if any(point.mean is not None for point in line)}
        if there:
            metric = self.findings.metric(downstream)
            svg = by_value(
                [Curve(arm, self.looks[arm], line) for arm, line in there.items()],
                title=title,
                xlabel=xlabel,
                ylabel=f"{metric} (%)",
                baseline=self._across(there, freeze, downstream),
            )
            yield self._keep((name, downstream, freeze), title, f"{_sentence(metric)} on {downstream} by {xlabel}", svg)

    def _across(self, swept: Iterable[str], freeze: str | None, downstream: str) -> tuple[str, Look, float] | None:
        """The one arm that all swept ones are measured against, where it is itself not swept."""
        arms = self.findings.arms
        baselines = {facts.baseline for facts in arms.values() if facts.base in swept}
        baseline = baselines.pop() if len(baselines) == 1 and freeze is not None else None
        if freeze is None or baseline is None or arms[baseline].path is not None:
            return None
        score = mean(self.findings.scores(baseline, freeze, downstream).values())
        return None if score is None else (baseline, self.looks[arms[baseline].base], score)

    def accuracy(self, freezes: Sequence[str]) -> Iterator[Picture]:
        """Accuracy by epoch of fine-tuning, a line an arm (figure 1b)."""
        findings = self.findings
        for downstream, freeze in itertools.product(findings.downstreams, freezes):
            lines = [
                Epochs(arm, self._look(arm), [e.history for e in findings.select(arm, freeze, downstream)])
                for arm in _featured(findings)
            ]
            title = _title(downstream, freeze)
            # Of several labels an image, an epoch's end tells which of them are right, and no average precision.
            what = TOP_1 if findings.metric(downstream) == TOP_1 else "labels told right"
            svg = by_epoch(
                lines, "validation_accuracy", scale=100, title=title, xlabel="fine-tuning epoch", ylabel=f"{what} (%)"
            )
            if svg is not None:
                alt = f"{_sentence(what)} on {title} by fine-tuning epoch, a line an arm"
                yield self._keep(("accuracy", downstream, freeze), title, alt, svg)

    def pretraining(self) -> Iterator[tuple[str, list[Picture]]]:
        """Loss and accuracy by epoch of pre-training (figure 5 with noisy labels); sweeps apart where arms are many."""
        findings = self.findings
        lines = [Epochs(arm, self._look(arm), self._pretraining(arm)) for arm in _featured(findings)]
        groups = {("", ""): lines}
        for name, facts in findings.arms.items():
            if len(findings.arms) > FEW and facts.path is not None:
                line = Epochs(worded(facts.value), self.looks[name], self._pretraining(name))
                groups.setdefault((facts.base, facts.path), []).append(line)
        for (base, path), lines in groups.items():
            title = f"{base}, {path}" if base else "pre-training"
            pictures = []
            for key, (column, scale, ylabel) in _PRETRAINING.items():
                svg = by_epoch(lines, column, scale=scale, title=title, xlabel="pre-training epoch", ylabel=ylabel)
                if svg is not None:
                    of = f" of {title}" if base else ""
                    alt = f"{_sentence(ylabel.removesuffix(' (%)'))} by pre-training epoch{of}, a line an arm"
                    pictures.append(self._keep((f"pretraining-{key}", base, path), title, alt, svg))
            if pictures:
                yield title, pictures

    def _look(self, arm: str) -> Look:
        """An arm's look among others, of which a sweep has one where they are many."""
        few = len(self.findings.arms) <= FEW
        return self.looks[arm if few else self.findings.arms[arm].base]

    def _pretraining(self, arm: str) -> list[list[dict[str, float | None]]]:
        """A history a seed: all downstreams start from the same."""
        entries = (e for e in self.findings.entries if e.row.arm == arm and e.pretraining)
        return list({entry.row.seed: entry.pretraining for entry in entries}.values())

    def _keep(self, parts: Sequence[str | None], title: str, alt: str, svg: str) -> Picture:
        name = "-".join(part for part in parts if part not in (None, "", "none"))
        write_text(self.folder / (re.sub(r"[^A-Za-z0-9._+-]", "_", name) + ".svg"), svg)
        return Picture(title, alt, data_uri(svg.encode(), "image/svg+xml"))


def _arms(findings: Findings, album: Album) -> list[_ArmView]:
    size = _SHEET if len(findings.arms) <= FEW else _SHEET_OF_MANY
    first: dict[str, str] = {}
    result = []
    for name, facts in findings.arms.items():
        view = _ArmView(name, facts.origin, facts.note)
        if facts.recipe is not None:
            view.yaml = dump_yaml(facts.recipe)
            # Other labels or other training of the same images.
            same = first.setdefault(view.yaml, name)
            if same == name:
                view.sheet = sheet(album, name, facts.recipe, **size)
            else:
                view.same_as = same
        result.append(view)
    return result
