"""What a comparison found: a row a fine-tuned model, and the table over seeds."""

from __future__ import annotations

import functools
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, field_serializer, model_validator

from formulavision.comparison.config import PROBE, ComparisonSettings
from formulavision.comparison.significance import rank_correlation
from formulavision.util import files
from formulavision.util.errors import ConfigError, StoreError

__all__ = [
    "FINDINGS",
    "TOP_1",
    "ArmFacts",
    "Cell",
    "Comparison",
    "Computed",
    "Entry",
    "Findings",
    "Line",
    "Row",
    "agreement",
    "best_of",
    "cause",
    "mean",
    "missing_pairs",
    "points",
    "rho",
    "shown",
    "spread",
    "table",
    "write_text",
]

FINDINGS = "results.json"
"""In a comparison's folder: all that its table, its curves and a join with others are made of."""
TOP_1 = "top-1 accuracy"
_FORMAT = 2
_READABLE = (1, 2)
"""Format 1 has the history of its pre-training in every entry."""

_STAGE = re.compile(r"\S*-[0-9a-f]{16}(?=[/:\s]|$)")
"""The path of a stage's folder in a message."""

History = list[dict[str, float | None]]
"""Of a training, a row an epoch."""


@dataclass
class Row:
    """One arm, evaluated on one downstream with one choice of frozen layers and one seed.

    Attributes:
        freeze: which layers fine-tuning left as they were; ``linear-probe`` or ``knn-probe``, where all of them were.
        score: what the table shows, 0 to 1; None where the row failed, or is yet to be computed.
        metric: what the score is: ``top-1 accuracy``, or ``mean average precision`` of several labels an image.
        top1: share of test images whose class comes first, 0 to 1; None with several labels an image.
        top5: share of test images whose class is among the first five, 0 to 1; None with fewer than five classes.
        loss: mean cross-entropy over the test images, nats.
        pretrain_accuracy: of the last pre-training epoch, 0 to 1; None without pre-training.
        generate_seconds: of generating the store; None where images are drawn on demand.
        error: why the row has no result, in one line.
    """

    arm: str
    downstream: str
    freeze: str
    seed: int
    score: float | None = None
    metric: str | None = None
    top1: float | None = None
    top5: float | None = None
    loss: float | None = None
    pretrain_accuracy: float | None = None
    generate_seconds: float | None = None
    pretrain_seconds: float | None = None
    pretrain_images_per_second: float | None = None
    finetune_seconds: float | None = None
    finetune_images_per_second: float | None = None
    evaluate_seconds: float | None = None
    error: str | None = None

    @property
    def pending(self) -> bool:
        """Whether it is yet to be computed."""
        return self.score is None and self.error is None


class Computed(BaseModel, frozen=True):
    """Where rows were computed.

    Attributes:
        machine: processor, cores, threads, accelerator, precision and device, in words.
        versions: of Python and of the packages that matter, by name.
    """

    machine: str
    versions: dict[str, str]


class ArmFacts(BaseModel):
    """What the table and the report say of an arm.

    Attributes:
        content: hash of what the arm is, but for its seeds: pre-training and fine-tuning.
        origin: where its weights come from, in words.
        scratch: whether it starts from random weights.
        baseline: the arm that it is measured against.
        base, path, value: of a swept arm, the arm in the file, the setting and its value.
        recipe: plain values; None where no formula draws its images.
        note: what a join has to say of it.
    """

    content: str
    origin: str
    scratch: bool
    baseline: str | None = None
    base: str
    path: str | None = None
    value: Any = None
    recipe: dict[str, Any] | None = None
    note: str = ""


class Entry(BaseModel):
    """A row with its curve, and where its files are.

    Attributes:
        history: of fine-tuning.
        pretraining: history of the pre-training that it starts from; in the file, where many entries start from the
            same, it stands in ``Findings.pretrainings``.
        folder: with the fine-tuned model, relative to the comparison's.
        start: the folder or the checkpoint that the model started from, relative likewise; None from scratch.
        computed: where; None until it is.
    """

    row: Row
    history: History = Field(default_factory=list)
    pretraining: History = Field(default_factory=list, exclude=True)
    folder: str | None = None
    start: str | None = None
    computed: Computed | None = None


class _Cells:
    """Entries by (arm, frozen layers, downstream): a report asks for thousands of cells of thousands of rows."""

    def __init__(self) -> None:
        self.entries: list[Entry] | None = None
        self.count = 0
        self.cells: dict[tuple[str, str, str], list[Entry]] = {}

    def of(self, entries: list[Entry]) -> dict[tuple[str, str, str], list[Entry]]:
        """The cells, sorted anew where it is another list, or a longer one."""
        if entries is not self.entries or len(entries) != self.count:
            self.entries, self.count, self.cells = entries, len(entries), {}
            for entry in entries:
                self.cells.setdefault((entry.row.arm, entry.row.freeze, entry.row.downstream), []).append(entry)
        return self.cells


class Findings(BaseModel):
    """All that the table and the report are made of, as ``results.json`` holds it.

    Attributes:
        arms: in the order of the table.
        downstreams: by name, a hash of the images that the dataset holds.
        freezes: frozen layers and probes, in the order of the table.
        paper: the paper's numbers in per cent: downstream -> ``ARM`` or ``ARM/FROZEN`` -> number.
        reach: accuracies whose first epoch is told; None: chosen from the results.
        pictures: what the report shows beside numbers.
        configurations: by the name of the comparison, its configuration as YAML.
        notes: what a join has to say.
        pretrainings: by the folder that entries start from, the history of its pre-training. Of the file alone: it is
            made of the entries when they are written, fills them in when they are read, and is then empty.
    """

    format: int = _FORMAT
    name: str
    size: str
    model: str
    data: str
    arms: dict[str, ArmFacts]
    downstreams: dict[str, str]
    freezes: list[str]
    entries: list[Entry]
    paper: dict[str, dict[str, float]] = Field(default_factory=dict)
    reach: list[float] | None = None
    pictures: list[str] = Field(default_factory=list)
    configurations: dict[str, str] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    pretrainings: dict[str, History] = Field(default_factory=dict)

    @field_serializer("pretrainings")
    def _once(self, _: Any) -> dict[str, History]:
        return {e.start: e.pretraining for e in self.entries if e.start is not None and e.pretraining}

    @model_validator(mode="after")
    def _fill_in(self) -> Findings:
        for entry in self.entries:
            if entry.start is not None and not entry.pretraining:
                entry.pretraining = self.pretrainings.get(entry.start, [])
        self.pretrainings = {}
        return self

    @classmethod
    def load(cls, folder: Path) -> Findings:
        """What a comparison left in its folder.

        Raises:
            ConfigError: there is nothing, or it is damaged.
        """
        file = folder / FINDINGS
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder")
        try:
            findings = cls.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            raise ConfigError(f"{folder}: holds no {FINDINGS}: give the folder of a comparison") from None
        except (OSError, ValidationError):
            raise ConfigError(f"{file}: is damaged: run the comparison again, which computes nothing twice") from None
        if findings.format not in _READABLE:
            raise ConfigError(f"{file}: was written by another version: run its comparison again with this one")
        findings.format = _FORMAT
        return findings

    @property
    def rows(self) -> list[Row]:
        return [entry.row for entry in self.entries]

    @property
    def seeds(self) -> list[int]:
        return sorted({row.seed for row in self.rows})

    @property
    def by_frozen(self) -> list[str]:
        """Frozen layers, the fewest first, and then the probes: the order in which one of them stands for all."""
        return sorted(self.freezes, key=lambda freeze: (freeze.endswith(PROBE), _layers(freeze)))

    def metric(self, downstream: str) -> str:
        """What the scores on a downstream are."""
        found = (row.metric for row in self.rows if row.downstream == downstream and row.metric)
        return next(found, TOP_1)

    def paper_number(self, arm: str, freeze: str, downstream: str) -> float | None:
        """The paper's number as a share of 1; that of an arm alone is of fine-tuning all layers."""
        numbers = self.paper.get(downstream, {})
        number = numbers.get(f"{arm}/{freeze}", numbers.get(arm) if freeze == "none" else None)
        return None if number is None else number / 100

    def select(self, arm: str, freeze: str, downstream: str) -> list[Entry]:
        """The rows of one cell of the table, a seed each."""
        return list(self._cells.of(self.entries).get((arm, freeze, downstream), ()))

    @functools.cached_property
    def _cells(self) -> _Cells:
        return _Cells()

    def scores(self, arm: str, freeze: str, downstream: str) -> dict[int, float]:
        """The results of one cell, by seed."""
        entries = self.select(arm, freeze, downstream)
        return {entry.row.seed: entry.row.score for entry in entries if entry.row.score is not None}


@dataclass(frozen=True)
class Comparison:
    """A finished comparison, or several joined.

    Attributes:
        settings: the configuration; None where the results were read from folders.
        folder: holds ``results.csv``, ``results.md``, ``results.json``, ``report.html`` and, of a comparison, its
            ``comparison.yaml`` and its runs.
        rows: a fine-tuned model, or a probe, each.
        findings: rows, curves and all else that the report is made of.
    """

    settings: ComparisonSettings | None
    folder: Path
    rows: list[Row]
    findings: Findings = field(repr=False)

    @property
    def failures(self) -> dict[str, str]:
        """Why, for each arm that failed somewhere, in one line."""
        result: dict[str, str] = {}
        for row in self.rows:
            if row.error:
                result.setdefault(row.arm, row.error)
        return result

    @property
    def report(self) -> Path:
        return self.folder / "report.html"


@dataclass(frozen=True)
class Cell:
    """Score of an arm on a downstream over the seeds, as shares of 1.

    Attributes:
        mean: None where every seed failed, or none is done.
        spread: sample standard deviation over seeds; None where there are fewer than two.
        seeds: how many seeds gave a result.
        difference: to the baseline with the same layers frozen, mean over the seeds that both have; None where there
            is none.
        pairs: how many seeds that is.
        best: whether no other mean of this downstream is higher: of fine-tuning, or of the same probe.
        paper: the paper's number.
        error: why a seed failed.
    """

    mean: float | None
    spread: float | None
    seeds: int
    difference: float | None
    pairs: int
    best: bool
    paper: float | None
    error: str | None

    @property
    def text(self) -> str:
        """``91.2 ± 0.3``, per cent; without the spread where there is one seed."""
        if self.mean is None:
            return "failed" if self.error else "–"
        return f"{100 * self.mean:.1f}" + (f" ± {100 * self.spread:.1f}" if self.spread is not None else "")

    @property
    def difference_text(self) -> str:
        return "" if self.difference is None else points(self.difference)

    @property
    def paper_text(self) -> str:
        return "" if self.paper is None else f"{100 * self.paper:.1f}"


@dataclass(frozen=True)
class Line:
    """One line of the table: an arm with one choice of frozen layers, a cell for each downstream."""

    arm: str
    freeze: str
    cells: dict[str, Cell]


def table(findings: Findings) -> list[Line]:
    """The table of a comparison: arms (and frozen layers) down, downstreams across; no line where there is no row."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in findings.rows:
        groups.setdefault((row.arm, row.freeze, row.downstream), []).append(row)
    scores = {key: findings.scores(*key) for key in groups}
    # Frozen features and fine-tuned ones are two contests.
    contests: dict[tuple[str, str], list[float]] = {}
    for (_, freeze, downstream), found in scores.items():
        if found:
            contests.setdefault((downstream, _contest(freeze)), []).append(statistics.fmean(found.values()))

    def cell(arm: str, freeze: str, downstream: str) -> Cell:
        own = scores.get((arm, freeze, downstream), {})
        baseline = findings.arms[arm].baseline
        base = scores.get((baseline, freeze, downstream), {}) if baseline is not None else {}
        differences = [own[seed] - base[seed] for seed in own if seed in base]
        others = contests.get((downstream, _contest(freeze)), [])
        return Cell(
            mean=mean(own.values()),
            spread=spread(own.values()),
            seeds=len(own),
            difference=mean(differences),
            pairs=len(differences),
            best=bool(own) and len(others) > 1 and statistics.fmean(own.values()) == max(others),
            paper=findings.paper_number(arm, freeze, downstream),
            error=next((row.error for row in groups.get((arm, freeze, downstream), ()) if row.error), None),
        )

    there = {(arm, freeze) for arm, freeze, _ in groups}
    return [
        Line(arm, freeze, {downstream: cell(arm, freeze, downstream) for downstream in findings.downstreams})
        for arm in findings.arms
        for freeze in findings.freezes
        if (arm, freeze) in there
    ]


def best_of(findings: Findings) -> str:
    """Among what the marked results are the best, in words."""
    contests = {_contest(freeze) for freeze in findings.freezes}
    return "the best of a column" + (", of fine-tuning and of each probe by itself," if len(contests) > 1 else "")


def missing_pairs(findings: Findings, lines: Sequence[Line]) -> list[str]:
    """A sentence where a difference is not that of the two means, because an arm or its baseline lacks seeds."""
    there = {(line.arm, line.freeze): line.cells for line in lines}
    for line in lines:
        base = there.get((findings.arms[line.arm].baseline or "", line.freeze), {})
        for downstream, cell in line.cells.items():
            if cell.pairs and cell.pairs < max(cell.seeds, base[downstream].seeds):
                return ["Where results are missing, a difference is of the seeds that both arms have."]
    return []


def _contest(freeze: str) -> str:
    return freeze if freeze.endswith(PROBE) else "fine-tuning"


def _layers(freeze: str) -> int:
    """How many groups of layers are frozen: 3 of ``conv1-3``."""
    last = re.search(r"\d+$", freeze)
    return 0 if last is None else int(last[0])


def agreement(lines: Iterable[Line], downstream: str) -> tuple[float, int] | None:
    """Spearman's rank correlation of the paper's numbers with ours, and of how many pairs; None for too few."""
    cells = [line.cells[downstream] for line in lines]
    pairs = [(cell.paper, cell.mean) for cell in cells if cell.paper is not None and cell.mean is not None]
    found = rank_correlation([theirs for theirs, _ in pairs], [ours for _, ours in pairs])
    return None if found is None else (found, len(pairs))


def shown(freeze: str) -> str:
    """What the table says of frozen layers."""
    names = {"linear": "all (linear probe)", "knn": "all (nearest neighbours)"}
    return names.get(freeze.removesuffix(PROBE), freeze) if freeze.endswith(PROBE) else freeze


def points(difference: float) -> str:
    """A difference of shares in percentage points: ``+1.2``, ``−0.3``, ``0.0``."""
    rounded = round(100 * difference, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def rho(correlation: float) -> str:
    """A rank correlation: ``0.50``, ``−1.00``."""
    return f"{round(correlation, 2) + 0.0:.2f}".replace("-", "−")


def cause(error: str) -> str:
    """Why a row failed, less the folder of its stage: the same for all rows that fail alike."""
    return _STAGE.sub("…", error)


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there; None where none is."""
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there else None


def spread(values: Iterable[float | None]) -> float | None:
    """Sample standard deviation of the values that are there; None where there are fewer than two."""
    there = [value for value in values if value is not None]
    return statistics.stdev(there) if len(there) > 1 else None


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        files.write_text(path, text)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from None
