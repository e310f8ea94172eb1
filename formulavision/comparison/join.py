"""Join the results of several comparisons: rename arms and downstreams, concatenate, drop duplicates."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from formulavision.comparison.arms import REMOTE
from formulavision.comparison.results import SAME_SCORE, ArmFacts, Findings, Result
from formulavision.comparison.settings import PICTURES, PROBE
from formulavision.util.config import dump_yaml, parse_yaml

__all__ = ["join"]

Names = Mapping[str, str]
"""Old name -> new name."""


def join(found: Sequence[Findings], folders: Sequence[Path], out: Path) -> Findings:
    """Findings of several comparisons as one.

    Two arms, or two downstreams, are the same if name and content are equal. If only the names are equal, the second
    gets the name of its folder behind its own. If several comparisons have a result, the first counts.

    Args:
        found: findings of each comparison.
        folders: of each comparison.
        out: folder to which the paths of all results are relative afterwards.
    """
    labels = _labels(folders)
    arms, arm_notes = _names([{n: a.content for n, a in each.arms.items()} for each in found], labels, "another arm")
    downstreams, notes = _names([each.downstreams for each in found], labels, "other images")
    moved = [_moved(each, folder, out) for each, folder in zip(found, folders, strict=True)]
    renamed = [_renamed(each, arms[i], downstreams[i], labels[i], arm_notes) for i, each in enumerate(moved)]
    return _concatenated(renamed, labels, [f"{note}." for note in (*arm_notes.values(), *notes.values())])


def _labels(folders: Sequence[Path]) -> list[str]:
    """Names of the folders, each with as many of its parents as distinguish it from the others."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(len(p) for p in parts) + 1):
        labels = [re.sub(r"[^A-Za-z0-9._-]", "_", "-".join(p[-depth:])) for p in parts]
        if len(set(labels)) == len(set(parts)):
            break
    return labels


def _names(contents: Sequence[Names], labels: Sequence[str], other: str) -> tuple[list[Names], dict[str, str]]:
    """New names of arms or downstreams, by comparison; and new name -> note, for each that differs from the old one.

    Args:
        contents: of each comparison, name -> hash of the content.
        labels: of each comparison.
        other: subject of the notes.
    """
    names: dict[tuple[str, str], str] = {}
    notes: dict[str, str] = {}
    for each, label in zip(contents, labels, strict=True):
        for name, content in each.items():
            if (name, content) not in names:
                numbered = (f"{name}-{label}-{number}" for number in itertools.count(2))
                free = (n for n in itertools.chain([name, f"{name}-{label}"], numbered) if n not in names.values())
                names[name, content] = new = next(free)
                if new != name:
                    notes[new] = f"{new} is {name} of {label}: {other} than the first {name}"
    return [{name: names[name, content] for name, content in each.items()} for each in contents], notes


def _moved(findings: Findings, folder: Path, out: Path) -> Findings:
    """Findings with paths relative to ``out`` instead of ``folder``."""

    def moved(path: str) -> str:
        return path if path.startswith(REMOTE) else os.path.relpath((folder / path).resolve(), out.resolve())

    results = [
        replace(result, folder=result.folder and moved(result.folder), start=result.start and moved(result.start))
        for result in findings.results
    ]
    pretrainings = {moved(start): history for start, history in findings.pretrainings.items()}
    return findings.model_copy(update={"results": results, "pretrainings": pretrainings})


def _renamed(findings: Findings, arms: Names, downstreams: Names, label: str, notes: Names) -> Findings:
    """Findings with arms and downstreams under their new names."""
    facts = {}
    # A curve connects the values of one arm: if one of them is another arm's here, all are.
    others = {arm.base for name, arm in findings.arms.items() if arms[name] != name}
    for name, arm in findings.arms.items():
        new = arms[name]
        # A baseline outside of its comparison's table, such as an arm without results, has no new name.
        changes: dict[str, Any] = {"baseline": arm.baseline and arms.get(arm.baseline, arm.baseline)}
        if arm.base in others:
            changes["base"] = new if arm.path is None else f"{arm.base}-{label}"
        if new != name:
            changes["note"] = "; ".join(filter(None, (arm.note, notes[new])))
        facts[new] = arm.model_copy(update=changes)
    results = [replace(r, arm=arms[r.arm], downstream=downstreams[r.downstream]) for r in findings.results]
    paper: dict[str, dict[str, float]] = {}
    for downstream, numbers in findings.paper.items():
        parts = {row: row.partition("/") for row in numbers}
        new_rows = {row: f"{arms.get(arm, arm)}{slash}{freeze}" for row, (arm, slash, freeze) in parts.items()}
        paper[downstreams.get(downstream, downstream)] = {new_rows[row]: number for row, number in numbers.items()}
    content = {
        "arms": facts,
        "downstreams": {downstreams[name]: digest for name, digest in findings.downstreams.items()},
        "described": {downstreams[name]: text for name, text in findings.described.items()},
        "results": results,
        "paper": paper,
        "configurations": {n: _renamed_downstreams(text, downstreams) for n, text in findings.configurations.items()},
    }
    return findings.model_copy(update=content)


def _renamed_downstreams(configuration: str, names: Names) -> str:
    """A comparison's YAML with downstreams under their new names, by which the report opens their images."""
    data = parse_yaml(configuration)
    if all(names.get(name, name) == name for name in data.get("downstreams", {})):
        return configuration
    for section in {"downstreams", "paper"} & data.keys():
        data[section] = {names.get(name, name): inner for name, inner in data[section].items()}
    return dump_yaml(data)


def _concatenated(found: Sequence[Findings], labels: Sequence[str], notes: list[str]) -> Findings:
    """All findings in one, each name and result once, with a note for each contradiction."""
    arms: dict[str, ArmFacts] = {}
    results: dict[tuple[str, str, str, int | None], tuple[Result, str]] = {}
    paper: dict[str, dict[str, float]] = {}
    configurations: dict[str, str] = {}
    caveats: dict[str, str] = {}
    for findings, label in zip(found, labels, strict=True):
        for name, arm in findings.arms.items():
            first = arms.setdefault(name, arm)
            if first.baseline is None and arm.baseline is not None:
                if any(known.baseline == name for known in arms.values()):
                    notes.append(f"{name} is compared with {arm.baseline} in {label}: here it is a baseline itself.")
                else:
                    arms[name] = first.model_copy(update={"baseline": arm.baseline})
        for result in findings.results:
            # A probe of a checkpoint is the same for every seed, and is planned for the first.
            once = result.freeze.endswith(PROBE) and findings.arms[result.arm].source == "checkpoint"
            key = result.arm, result.downstream, result.freeze, None if once else result.seed
            known, source = results.setdefault(key, (result, label))
            if known.score is None and (result.score is not None or known.pending):
                results[key] = result, label
            elif known.score is not None and result.score is not None and abs(known.score - result.score) > SAME_SCORE:
                notes.append(
                    f"{result.arm} on {result.downstream}, {result.freeze}, seed {result.seed}: "
                    f"{100 * known.score:.2f} in {source} and {100 * result.score:.2f} in {label}; the first counts."
                )
        for downstream, numbers in findings.paper.items():
            for row, number in numbers.items():
                known_number = paper.setdefault(downstream, {}).setdefault(row, number)
                if known_number != number:
                    notes.append(f"The paper's {row} on {downstream} is {known_number} and, in {label}, {number}.")
        for name, text in findings.configurations.items():
            known_name = name if configurations.setdefault(name, text) == text else f"{name} ({label})"
            configurations[known_name] = text
            if name in findings.caveats:
                caveats[known_name] = findings.caveats[name]
        notes += findings.notes
    arms = _with_scratch_as_baseline(arms)
    order = list(arms)
    pictures = {picture for findings in found for picture in findings.pictures}
    return Findings(
        name="; ".join(dict.fromkeys(findings.name for findings in found)),
        size=", ".join(dict.fromkeys(findings.size for findings in found)),
        model=", ".join(dict.fromkeys(findings.model for findings in found)),
        data=", ".join(dict.fromkeys(findings.data for findings in found)),
        arms=arms,
        downstreams={name: digest for findings in found for name, digest in findings.downstreams.items()},
        described={name: text for findings in found for name, text in findings.described.items()},
        freezes=list(dict.fromkeys(freeze for findings in found for freeze in findings.freezes)),
        results=sorted((result for result, _ in results.values()), key=lambda result: order.index(result.arm)),
        paper=paper,
        reach=sorted({level for findings in found for level in findings.reach or ()}) or None,
        pictures=[picture for picture in PICTURES if picture in pictures],
        configurations=configurations,
        caveats=caveats,
        notes=list(dict.fromkeys(notes)),
        pretrainings={start: history for findings in found for start, history in findings.pretrainings.items()},
    )


def _with_scratch_as_baseline(arms: dict[str, ArmFacts]) -> dict[str, ArmFacts]:
    """Arms of a comparison that had no baseline are compared with training from scratch in another one, where both are
    fine-tuned alike."""
    scratch = {arm.tuned: name for name, arm in arms.items() if arm.scratch and arm.path is None and arm.tuned}
    kept = {arm.baseline for arm in arms.values()}  # what others are compared with is compared with nothing
    return {
        name: arm
        if arm.scratch or arm.baseline or name in kept
        else arm.model_copy(update={"baseline": scratch.get(arm.tuned)})
        for name, arm in arms.items()
    }
