"""The results of a comparison: one long table, a row a result; ``results.csv`` and ``results.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field
from pydantic_core import to_json

from formulavision.comparison.settings import PROBE, ComparisonSettings
from formulavision.util import files
from formulavision.util.errors import ConfigError
from formulavision.util.text import counted, csv_text

__all__ = [
    "COLUMNS",
    "FINDINGS",
    "SAME_SCORE",
    "SHORT",
    "TOP_1",
    "ArmFacts",
    "Comparison",
    "Findings",
    "History",
    "Provenance",
    "Result",
    "table_as_csv",
    "write_text",
]

FINDINGS = "results.json"
"""File in a comparison's folder with all data of its table and its report."""
TOP_1 = "top-1 accuracy"
SAME_SCORE = 5e-7
"""Scores that differ by less are equal in results.csv."""
SHORT = {TOP_1: "top-1", "mean average precision": "mAP", "mIoU": "mIoU"}
"""Metrics -> their names in the heading of a column."""
_CURVES = {TOP_1: "validation_accuracy", "mean average precision": "validation_map", "mIoU": "validation_miou"}
"""Metrics -> the column of a training's history that has the metric after each epoch."""
_FORMAT = 2
_READABLE = (1, 2)
"""Format 1 repeats the history of a pre-training in every entry that starts from it."""

History = list[dict[str, float | None]]
"""Metrics of a training, a row an epoch: name of the metric -> value."""


class Provenance(BaseModel, frozen=True):
    """The machine and the software that computed a result.

    Attributes:
        machine: processor, cores, threads, accelerator, precision and device, in words.
        versions: of Python and of the packages that numbers depend on, by name.
    """

    machine: str
    versions: dict[str, str]


@dataclass(repr=False)
class Result:
    """A row of the table of results: one arm on one downstream, with one choice of frozen layers and one seed.

    A comparison begins with a row for each result that it plans. The other columns are filled when it is computed.

    Attributes:
        freeze: layers that fine-tuning does not change; for a probe its name (``linear-probe``, ``knn-probe``).
        score: 0 to 1; None if the computation failed or has not been done yet.
        metric: name of the score: ``top-1 accuracy``, ``mean average precision`` of several labels an image, or
            ``mIoU`` of masks.
        top1: share of test images whose class comes first, 0 to 1; None with several labels an image, or masks.
        top5: share of test images whose class is among the first five, 0 to 1; None with fewer than five classes.
        loss: mean cross-entropy over the test images, nats.
        pretrain_accuracy: training accuracy in the last epoch of pre-training, 0 to 1; None without pre-training, or on
            masks.
        generate_seconds: time to generate the store; None if images are drawn on demand.
        error: reason of the failure, in one line.
        history: of fine-tuning.
        folder: path of the fine-tuned model's folder, relative to the comparison's folder; known before the result is,
            None if the computation failed.
        start: checkpoint that the model started from: the path of a folder or file, relative likewise, or the name of
            a published model; None for training from scratch.
        computed: None until there is a score.
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
    history: History = field(default_factory=list, repr=False)
    folder: str | None = None
    start: str | None = None
    computed: Provenance | None = None

    def __repr__(self) -> str:
        score = self.error or "not computed" if self.score is None else f"{self.metric} {self.score:.2%}"
        return f"Result({self.arm} on {self.downstream}, frozen: {self.freeze}, seed {self.seed}: {score})"

    @property
    def pending(self) -> bool:
        """Whether the result has not been computed yet."""
        return self.score is None and self.error is None


COLUMNS = [f.name for f in fields(Result) if f.name not in ("history", "folder", "start", "computed")]
"""Columns of ``results.csv``."""


class ArmFacts(BaseModel):
    """Description of an arm in the table and the report.

    Attributes:
        content: hash of the arm's pre-training and fine-tuning, without their seeds.
        tuned: hash of its fine-tuning alone, by which a join finds arms that can be compared; empty in findings of
            before it was kept.
        origin: source of its weights, in words.
        scratch: whether it starts from random weights.
        baseline: the arm that it is compared with.
        base, path, value: for a swept arm, the arm in the configuration, the swept setting and its value.
        recipe: plain values; None if no formula draws its images, or a mixture of several recipes does.
        mixture: plain values of the recipes of a mixture.
        clusters: number of clusters that are its labels in pre-training; None without.
        finetune: its own settings of fine-tuning.
        note: why a join renamed it.
    """

    content: str
    tuned: str = ""
    origin: str
    scratch: bool
    baseline: str | None = None
    base: str
    path: str | None = None
    value: Any = None
    recipe: dict[str, Any] | None = Field(default=None, repr=False)
    mixture: list[dict[str, Any]] = Field(default=[], repr=False)
    clusters: int | None = None
    finetune: dict[str, Any] = Field(default={}, repr=False)
    note: str = ""

    @property
    def source(self) -> Literal["random", "formula", "images", "checkpoint"]:
        """Source of the arm's weights."""
        if self.scratch:
            return "random"
        return "formula" if self.recipes else "checkpoint" if self.origin.startswith("checkpoint") else "images"

    @property
    def images(self) -> int | None:
        """Number of images of the recipe or the mixture; None without one."""
        counts = [
            recipe.get("images") or sum(part["categories"]["count"] * part["instances"] for part in _parts(recipe))
            for recipe in self.recipes
        ]
        return sum(counts) if counts else None

    @property
    def target(self) -> str | None:
        """Target of the recipe's images; None without a recipe."""
        return self.recipes[0].get("target", "class") if self.recipes else None

    @property
    def chance(self) -> float | None:
        """Accuracy of guessing a category or cluster, 0 to 1; None without a recipe or mixture of a class an image."""
        if self.target != "class":
            return None
        categories = sum(part["categories"]["count"] for recipe in self.recipes for part in _parts(recipe))
        return 1 / (self.clusters or categories)

    @property
    def recipes(self) -> list[dict[str, Any]]:
        """The recipe, or those of the mixture; none if no formula draws the arm's images."""
        return self.mixture if self.recipe is None else [self.recipe]


def _parts(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts in a recipe's plain values."""
    return list(recipe.get("parts") or [recipe])


class Findings(BaseModel):
    """All results of a comparison, with all other data of its table and its report.

    Attributes:
        arms: in the order of the table.
        downstreams: name -> hash of the dataset's images.
        described: name of a downstream -> its numbers of images and classes, in words.
        freezes: frozen layers and probes, in the order of the table.
        results: the table of results.
        paper: the paper's numbers in per cent: downstream -> ``ARM`` or ``ARM/FROZEN`` -> number.
        reach: accuracies, 0 to 1, of the table of first epochs; None: chosen from the results.
        pictures: kinds of pictures in the report.
        configurations: name of a comparison -> its configuration as YAML.
        caveats: name of a comparison -> its ``note``, of those that have one.
        notes: changes that a join made.
        pretrainings: ``start`` of results -> history of that pre-training.
    """

    format: int = _FORMAT
    name: str
    size: str
    model: str
    data: str
    arms: dict[str, ArmFacts]
    downstreams: dict[str, str]
    freezes: list[str]
    results: list[Result]
    paper: dict[str, dict[str, float]] = Field(default_factory=dict)
    reach: list[float] | None = None
    pictures: list[str] = Field(default_factory=list)
    described: dict[str, str] = Field(default_factory=dict)
    configurations: dict[str, str] = Field(default_factory=dict)
    caveats: dict[str, str] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    pretrainings: dict[str, History] = Field(default_factory=dict)

    def __repr__(self) -> str:
        done = sum(not result.pending for result in self.results)
        return f"Findings({self.name}: {counted(len(self.arms), 'arm')}, {done} of {len(self.results)} results)"

    @classmethod
    def load(cls, folder: str | Path) -> Findings:
        """Read a comparison's ``results.json``.

        Raises:
            ConfigError: the folder holds none, or the file is damaged or of a later version.
        """
        folder = Path(folder)
        file = folder / FINDINGS
        if not folder.is_dir():
            raise ConfigError(files.not_a_folder(folder))
        try:
            content = json.loads(file.read_bytes())
            findings = cls.model_validate(_flat(content)) if content["format"] in _READABLE else None
        except FileNotFoundError:
            raise ConfigError(f"{folder}: holds no {FINDINGS}: give the folder of a comparison") from None
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise ConfigError(f"{file}: is damaged: run the comparison again, which computes nothing twice") from None
        if findings is None:
            raise ConfigError(f"{file}: was written by another version: run its comparison again with this one")
        return findings

    def save(self, folder: Path) -> None:
        """Write ``results.json``, and the table of results as ``results.csv``.

        Raises:
            FolderError: one of them cannot be written.
        """
        write_text(folder / "results.csv", self.to_csv())
        write_text(folder / FINDINGS, self.to_json())

    def to_json(self) -> str:
        """Content of ``results.json``. In it, the columns of ``results.csv`` are under ``row`` of each result."""
        content = self.model_dump(mode="json")
        content["entries"] = [
            {"row": {name: result.pop(name) for name in COLUMNS}, **result} for result in content.pop("results")
        ]
        return to_json(content, indent=1, inf_nan_mode="null").decode()

    def to_csv(self) -> str:
        """A row for each result that was computed or failed; scores from 0 to 1, times in seconds."""
        return table_as_csv(COLUMNS, (vars(result) for result in self.results if not result.pending))

    @property
    def seeds(self) -> list[int]:
        return sorted({result.seed for result in self.results})

    @property
    def by_frozen(self) -> list[str]:
        """Frozen layers, from the fewest to the most, and then the probes."""
        return sorted(self.freezes, key=lambda freeze: (freeze.endswith(PROBE), _frozen_groups(freeze)))

    @property
    def computed(self) -> list[Provenance]:
        """Machines and versions, each once, in the order of the results."""
        found: list[Provenance] = []
        for result in self.results:
            if result.computed is not None and result.computed not in found:
                found.append(result.computed)
        return found

    def metric(self, downstream: str) -> str:
        """Name of the score on a downstream."""
        found = (result.metric for result in self.results if result.downstream == downstream and result.metric)
        return next(found, TOP_1)

    def curve(self, downstream: str) -> str:
        """Column of a fine-tuning's history that has the score after each epoch."""
        return _CURVES[self.metric(downstream)]

    @property
    def metrics(self) -> dict[str, list[str]]:
        """Name of each metric -> its downstreams."""
        found: dict[str, list[str]] = {}
        for downstream in self.downstreams:
            found.setdefault(self.metric(downstream), []).append(downstream)
        return found

    def paper_number(self, arm: str, freeze: str, downstream: str) -> float | None:
        """The paper's number, 0 to 1. A number without frozen layers is for fine-tuning all layers."""
        numbers = self.paper.get(downstream, {})
        number = numbers.get(f"{arm}/{freeze}", numbers.get(arm) if freeze == "none" else None)
        return None if number is None else number / 100


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    """Content of ``results.json`` with each result on one level, and each history of a pre-training once."""
    entries = content.pop("entries")
    if content["format"] == 1:
        content["pretrainings"] = {e["start"]: e["pretraining"] for e in entries if e["start"] and e["pretraining"]}
    return {**content, "format": _FORMAT, "results": [{**entry["row"], **entry} for entry in entries]}


def _frozen_groups(freeze: str) -> int:
    """Number of groups of layers that are frozen: 3 for ``conv1-3``."""
    last = re.search(r"\d+$", freeze)
    return 0 if last is None else int(last[0])


@dataclass(frozen=True, repr=False)
class Comparison:
    """A finished comparison, or several joined.

    Attributes:
        settings: the configuration; None if the results were read from folders.
        folder: holds ``results.csv``, ``results.md``, ``results.json``, ``report.html`` and, for a comparison, its
            ``comparison.yaml`` and its runs.
        findings: the results, and all other data of the report.
    """

    settings: ComparisonSettings | None
    folder: Path
    findings: Findings

    def __repr__(self) -> str:
        return f"Comparison({str(self.folder)!r}: {self.findings!r})"

    @property
    def results(self) -> list[Result]:
        """A row for each fine-tuned model and each probe."""
        return self.findings.results

    @property
    def failures(self) -> dict[str, str]:
        """Name of each arm that failed -> reason of its first failure, in one line."""
        reasons: dict[str, str] = {}
        for result in self.results:
            if result.error:
                reasons.setdefault(result.arm, result.error)
        return reasons

    @property
    def report(self) -> Path:
        """Path of the report."""
        return self.folder / "report.html"


def table_as_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows, each a mapping by column, as CSV: None as an empty cell, numbers with six digits."""
    values = ([row[column] for column in columns] for row in rows)
    return csv_text([columns, *([f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in values)])


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        FolderError: it cannot be written.
    """
    with files.write_errors(path):
        files.write_text(path, text)
