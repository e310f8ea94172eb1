"""The results of a comparison, one long table with a line a result; ``results.csv`` and ``results.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from pydantic_core import to_json

from formulavision.comparison.config import PROBE, ComparisonSettings
from formulavision.util import files
from formulavision.util.errors import ConfigError, StoreError
from formulavision.util.text import csv_text

__all__ = [
    "COLUMNS",
    "FINDINGS",
    "TOP_1",
    "ArmFacts",
    "Comparison",
    "Computed",
    "Findings",
    "History",
    "Result",
    "shown",
    "table_as_csv",
    "without_folder",
    "write_text",
]

FINDINGS = "results.json"
"""In a comparison's folder: all that its table, its report and a join with other comparisons are made of."""
TOP_1 = "top-1 accuracy"
_FORMAT = 2
_READABLE = (1, 2)
"""Format 1 repeats the history of a pre-training in every entry that starts from it."""

_STAGE = re.compile(r"\S*-[0-9a-f]{16}(?=[/:\s]|$)")
"""Path of a stage's folder in a message."""

History = list[dict[str, float | None]]
"""Of a training, a line an epoch: the name of each measured quantity and its value."""


class Computed(BaseModel, frozen=True):
    """Where a result was computed.

    Attributes:
        machine: processor, cores, threads, accelerator, precision and device, in words.
        versions: of Python and of the packages that numbers depend on, by name.
    """

    machine: str
    versions: dict[str, str]


@dataclass
class Result:
    """A line of the table of results: an arm, evaluated on a downstream with one choice of frozen layers and one seed.

    A comparison begins with a line for each result that it plans; the columns are filled in when it is computed.

    Attributes:
        freeze: layers that fine-tuning leaves as they were; of a probe its name (``linear-probe``, ``knn-probe``).
        score: 0 to 1; None where the computation failed or is yet to come.
        metric: name of the score: ``top-1 accuracy``, or ``mean average precision`` of several labels an image.
        top1: share of test images whose class comes first, 0 to 1; None with several labels an image.
        top5: share of test images whose class is among the first five, 0 to 1; None with fewer than five classes.
        loss: mean cross-entropy over the test images, nats.
        pretrain_accuracy: training accuracy in the last epoch of pre-training, 0 to 1; None without pre-training.
        generate_seconds: time to generate the store; None where images are drawn on demand.
        error: why there is no score, in one line.
        history: of fine-tuning.
        folder: path of the fine-tuned model's folder, relative to the comparison's folder.
        start: checkpoint that the model started from: the path of a folder or file, relative likewise, or the name of
            a published model; None from scratch.
        computed: machine and versions; None until there is a score.
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
    computed: Computed | None = None

    @property
    def pending(self) -> bool:
        """Whether it is yet to be computed."""
        return self.score is None and self.error is None


COLUMNS = [f.name for f in fields(Result) if f.name not in ("history", "folder", "start", "computed")]
"""Columns of ``results.csv``."""


class ArmFacts(BaseModel):
    """What the table and the report say of an arm.

    Attributes:
        content: hash of the arm's pre-training and fine-tuning, without their seeds.
        origin: where its weights come from, in words.
        scratch: whether it starts from random weights.
        baseline: the arm that it is compared with.
        base, path, value: of a swept arm, the arm in the configuration, the swept setting and its value.
        recipe: plain values; None where no formula draws its images.
        note: why a join renamed it.
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


class Findings(BaseModel):
    """All results of a comparison, and all else that its table and its report are made of.

    Attributes:
        arms: in the order of the table.
        downstreams: by name, a hash of the images that the dataset holds.
        freezes: frozen layers and probes, in the order of the table.
        results: the table of results.
        paper: the paper's numbers in per cent: downstream -> ``ARM`` or ``ARM/FROZEN`` -> number.
        reach: accuracies, 0 to 1, of the table of first epochs; None: chosen from the results.
        pictures: which pictures the report shows.
        configurations: by the name of the comparison, its configuration as YAML.
        notes: what a join changed.
        pretrainings: by the ``start`` of results, the history of that pre-training.
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
    configurations: dict[str, str] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    pretrainings: dict[str, History] = Field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Findings:
        """Read a comparison's ``results.json``.

        Raises:
            ConfigError: the folder holds none, or it is damaged.
        """
        file = folder / FINDINGS
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder")
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
            StoreError: one of them cannot be written.
        """
        write_text(folder / "results.csv", self.to_csv())
        write_text(folder / FINDINGS, self.to_json())

    def to_json(self) -> str:
        """Content of ``results.json``; of each result the columns of ``results.csv`` lie under ``row``."""
        content = self.model_dump(mode="json")
        content["entries"] = [
            {"row": {name: result.pop(name) for name in COLUMNS}, **result} for result in content.pop("results")
        ]
        return to_json(content, indent=1, inf_nan_mode="null").decode()

    def to_csv(self) -> str:
        """A line a result that was computed or failed; scores from 0 to 1, times in seconds."""
        return table_as_csv(COLUMNS, (vars(result) for result in self.results if not result.pending))

    @property
    def seeds(self) -> list[int]:
        return sorted({result.seed for result in self.results})

    @property
    def by_frozen(self) -> list[str]:
        """Frozen layers, the fewest first, and then the probes."""
        return sorted(self.freezes, key=lambda freeze: (freeze.endswith(PROBE), _frozen_groups(freeze)))

    def metric(self, downstream: str) -> str:
        """Name of the score on a downstream."""
        found = (result.metric for result in self.results if result.downstream == downstream and result.metric)
        return next(found, TOP_1)

    def paper_number(self, arm: str, freeze: str, downstream: str) -> float | None:
        """The paper's number, 0 to 1; a number without frozen layers is that of fine-tuning all layers."""
        numbers = self.paper.get(downstream, {})
        number = numbers.get(f"{arm}/{freeze}", numbers.get(arm) if freeze == "none" else None)
        return None if number is None else number / 100


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    """Content of ``results.json`` with each result on one level, and each history of a pre-training once."""
    entries = content.pop("entries")
    if content["format"] == 1:
        content["pretrainings"] = {e["start"]: e["pretraining"] for e in entries if e["start"] and e["pretraining"]}
    return {**content, "format": _FORMAT, "results": [{**entry["row"], **entry} for entry in entries]}


@dataclass(frozen=True)
class Comparison:
    """A finished comparison, or several joined.

    Attributes:
        settings: the configuration; None where the results were read from folders.
        folder: holds ``results.csv``, ``results.md``, ``results.json``, ``report.html`` and, of a comparison, its
            ``comparison.yaml`` and its runs.
        findings: the results, and all else that the report is made of.
    """

    settings: ComparisonSettings | None
    folder: Path
    findings: Findings = field(repr=False)

    @property
    def results(self) -> list[Result]:
        """A line a fine-tuned model or probe."""
        return self.findings.results

    @property
    def failures(self) -> dict[str, str]:
        """By arm, why its first failed result has no score, in one line."""
        reasons: dict[str, str] = {}
        for result in self.results:
            if result.error:
                reasons.setdefault(result.arm, result.error)
        return reasons

    @property
    def report(self) -> Path:
        """Path of the report."""
        return self.folder / "report.html"


def shown(freeze: str) -> str:
    """Frozen layers in the words of the table: ``conv1-3``, ``all (linear probe)``."""
    names = {f"linear{PROBE}": "all (linear probe)", f"knn{PROBE}": "all (nearest neighbours)"}
    return names.get(freeze, freeze)


def _frozen_groups(freeze: str) -> int:
    """Number of groups of layers that are frozen: 3 of ``conv1-3``."""
    last = re.search(r"\d+$", freeze)
    return 0 if last is None else int(last[0])


def without_folder(error: str) -> str:
    """An error less the folder of its stage: the same text for all results that fail for one cause."""
    return _STAGE.sub("…", error)


def table_as_csv(columns: Sequence[str], lines: Iterable[dict[str, Any]]) -> str:
    """Lines as CSV, numbers with six digits."""
    values = ([line.get(column) for column in columns] for line in lines)
    return csv_text(
        [columns, *([f"{value:.6g}" if isinstance(value, float) else value for value in line] for line in values)]
    )


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        files.write_text(path, text)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from None
