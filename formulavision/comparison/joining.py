"""Joins comparisons that ran on different days and machines into one table and one report."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from formulavision.comparison.arms import REMOTE
from formulavision.comparison.config import PICTURES
from formulavision.comparison.results import ArmFacts, Comparison, Entry, Findings
from formulavision.comparison.tables import REPORT_FILES, print_table, write_tables
from formulavision.util.config import dump_yaml, parse_yaml
from formulavision.util.errors import ConfigError
from formulavision.util.folders import OwnedFolder

__all__ = ["join", "report"]

_ALIKE = 5e-7
"""Scores that differ by less are equal in results.csv."""


def report(
    folders: Iterable[str | Path] | str | Path, *, out: str | Path | None = None, show_progress: bool = True
) -> Comparison:
    """Write the table and the report of comparisons that ran on different days and machines, joined; or of one, again.

    The same arm, by its content, is one row whose seeds and downstreams come together. Arms or downstreams of the same
    name but with other content are told apart by the names of their folders. Of a result that several have, the first
    counts, and a note tells where they differ.

    Args:
        folders: of comparisons, finished or not, or of joins.
        out: folder for the table and the report; None, for a single comparison: its own.
        show_progress: print the table.

    Raises:
        ConfigError: a folder holds no results, or ``out`` is missing.
        StoreError: ``out`` holds something else, or cannot be written.
    """
    paths = [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
    if not paths:
        raise ConfigError("runs: give the folder of at least one comparison")
    found = [Findings.load(path) for path in paths]
    if out is None and len(paths) > 1:
        raise ConfigError("out: is missing: several comparisons are joined in a folder of their own")
    folder = paths[0] if out is None else Path(out)
    again = len(paths) == 1 and folder.resolve() == paths[0].resolve()
    owned = OwnedFolder(folder, "joined report", last="report.html")
    if again:
        joined = found[0]
    else:
        owned.state()  # refused before the work
        joined = join(found, paths, folder)
    with nullcontext() if again else owned.writing({}, REPORT_FILES):
        write_tables(joined, folder)
        result = Comparison(None, folder, joined.rows, joined)

        from formulavision.comparison.report import write_report

        write_report(result)
    if show_progress:
        print_table(result)
    return result


def join(found: Sequence[Findings], folders: Sequence[Path], out: Path) -> Findings:
    """Findings of several comparisons as one, whose files are named from ``out``."""
    joined = _Join(out)
    for findings, folder, label in zip(found, folders, _labels(folders), strict=True):
        joined.add(findings, folder, label)
    return joined.findings(found)


def _labels(folders: Sequence[Path]) -> list[str]:
    """What each folder is called: its name, with as many of its parents as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(len(p) for p in parts) + 1):
        labels = [re.sub(r"[^A-Za-z0-9._-]", "_", "-".join(p[-depth:])) for p in parts]
        if len(set(labels)) == len(set(parts)):
            break
    return labels


def _with_names(configuration: str, downstreams: Mapping[str, str]) -> str:
    """A comparison's YAML with downstreams by their names in a join, under which the join opens their images."""
    data = parse_yaml(configuration)
    if not downstreams.keys() & data.get("downstreams", {}).keys():
        return configuration
    for section in {"downstreams", "paper"} & data.keys():
        data[section] = {downstreams.get(name, name): inner for name, inner in data[section].items()}
    return dump_yaml(data)


class _Join:
    def __init__(self, out: Path) -> None:
        self.out = out
        self.arms: dict[str, ArmFacts] = {}
        self.downstreams: dict[str, str] = {}
        self.freezes: list[str] = []
        self.entries: dict[tuple[str, str, str, int], Entry] = {}
        self.paper: dict[str, dict[str, float]] = {}
        self.configurations: dict[str, str] = {}
        self.notes: list[str] = []
        # By the name in a folder and the content, the name here and the folder that it came from first.
        self.arm_names: dict[tuple[str, str], str] = {}
        self.downstream_names: dict[tuple[str, str], str] = {}
        self.sources: dict[tuple[str, str, str, int], str] = {}
        self.first: dict[str, str] = {}

    def add(self, findings: Findings, folder: Path, label: str) -> None:
        """One more comparison.

        Args:
            label: what its folder is called.
        """
        arms = {name: self._arm(name, facts, label) for name, facts in findings.arms.items()}
        downstreams = {name: self._downstream(name, digest, label) for name, digest in findings.downstreams.items()}
        for name, facts in findings.arms.items():
            here = self.arms[arms[name]]
            if here.baseline is None and facts.baseline is not None:
                # Of an arm outside its comparison's table, such as one without results, there is no other name.
                self.arms[arms[name]] = here.model_copy(update={"baseline": arms.get(facts.baseline, facts.baseline)})
        self.freezes += [freeze for freeze in findings.freezes if freeze not in self.freezes]
        for entry in findings.entries:
            self._entry(entry, arms[entry.row.arm], downstreams[entry.row.downstream], folder, label)
        for downstream, numbers in findings.paper.items():
            self._numbers(downstreams.get(downstream, downstream), numbers, arms, label)
        renamed = {name: here for name, here in downstreams.items() if here != name}
        for name, text in findings.configurations.items():
            text = _with_names(text, renamed)
            known = self.configurations.setdefault(name, text)
            if known != text:
                self.configurations[f"{name} ({label})"] = text
        self._note(*findings.notes)

    def _note(self, *notes: str) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    def _arm(self, name: str, facts: ArmFacts, label: str) -> str:
        """What an arm is called here."""
        key = name, facts.content
        if key not in self.arm_names:
            here = name if name not in self.arms else self._free(f"{name}-{label}", self.arms)
            update: dict[str, Any] = {"baseline": None}
            if here != name:
                note = f"{here} is {name} of {label}: another arm than {name} of {self.first[name]}"
                # A curve joins the points of one arm.
                base = here if facts.path is None else f"{facts.base}-{label}"
                update |= {"note": "; ".join(filter(None, (facts.note, note))), "base": base}
                self._note(f"{note}.")
            self.arms[here] = facts.model_copy(update=update)
            self.arm_names[key] = here
            self.first[here] = label
        return self.arm_names[key]

    def _downstream(self, name: str, digest: str, label: str) -> str:
        """What a downstream is called here."""
        key = name, digest
        if key not in self.downstream_names:
            here = name if name not in self.downstreams else self._free(f"{name}-{label}", self.downstreams)
            if here != name:
                self._note(f"{here} is {name} of {label}, which holds other images than the first {name}.")
            self.downstreams[here] = digest
            self.downstream_names[key] = here
        return self.downstream_names[key]

    def _free(self, name: str, taken: Iterable[str]) -> str:
        number, result = 1, name
        while result in set(taken):
            number += 1
            result = f"{name}-{number}"
        return result

    def _entry(self, entry: Entry, arm: str, downstream: str, folder: Path, label: str) -> None:
        row = entry.row
        key = arm, downstream, row.freeze, row.seed
        moved = Entry(
            row=type(row)(**{**vars(row), "arm": arm, "downstream": downstream}),
            history=entry.history,
            pretraining=entry.pretraining,
            folder=self._moved(entry.folder, folder),
            start=self._moved(entry.start, folder),
            computed=entry.computed,
        )
        known = self.entries.get(key)
        if known is None or (known.row.score is None and row.score is not None):
            self.entries[key], self.sources[key] = moved, label
        elif row.score is not None and known.row.score is not None and abs(row.score - known.row.score) > _ALIKE:
            self._note(
                f"{arm} on {downstream}, {row.freeze}, seed {row.seed}: {100 * known.row.score:.2f} in "
                f"{self.sources[key]} and {100 * row.score:.2f} in {label}; the first counts."
            )

    def _moved(self, where: str | None, folder: Path) -> str | None:
        """A path that started at ``folder``, from ``out``."""
        if where is None or where.startswith(REMOTE):
            return where
        return os.path.relpath((folder / where).resolve(), self.out.resolve())

    def _numbers(self, downstream: str, numbers: dict[str, float], arms: dict[str, str], label: str) -> None:
        """The paper's numbers under the names that arms have here."""
        here = self.paper.setdefault(downstream, {})
        for row, number in numbers.items():
            arm, slash, freeze = row.partition("/")
            name = f"{arms.get(arm, arm)}{slash}{freeze}"
            known = here.setdefault(name, number)
            if known != number:
                self._note(f"The paper's {name} on {downstream} is {known} and, in {label}, {number}.")

    def findings(self, found: Sequence[Findings]) -> Findings:
        """All of it."""
        names, sizes, models, data = (
            list(dict.fromkeys(getattr(findings, key) for findings in found))
            for key in ("name", "size", "model", "data")
        )
        levels = sorted({level for findings in found for level in findings.reach or ()})
        shown = {picture for findings in found for picture in findings.pictures}
        order = {arm: i for i, arm in enumerate(self.arms)}
        return Findings(
            name="; ".join(names),
            size=", ".join(sizes),
            model=", ".join(models),
            data=", ".join(data),
            arms=self.arms,
            downstreams=self.downstreams,
            freezes=self.freezes,
            entries=sorted(self.entries.values(), key=lambda entry: order[entry.row.arm]),
            paper=self.paper,
            reach=levels or None,
            pictures=[picture for picture in PICTURES if picture in shown],
            configurations=self.configurations,
            notes=self.notes,
        )
