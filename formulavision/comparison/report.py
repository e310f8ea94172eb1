"""The report: one HTML file that needs nothing but a browser; of one comparison, or of several joined."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formulavision.comparison.classes import by_class, classes_csv
from formulavision.comparison.convergence import first_epochs
from formulavision.comparison.join import join
from formulavision.comparison.pictures import Illustration, attention, filters, sheet
from formulavision.comparison.plots import FEW, Plots
from formulavision.comparison.results import TOP_1, Comparison, Computed, Findings, shown, write_text
from formulavision.comparison.tables import (
    REPORT_FILES,
    Table,
    explanations,
    grid,
    missing,
    p_text,
    place_text,
    points,
    print_table,
    write_tables,
)
from formulavision.util.config import dump_yaml
from formulavision.util.errors import ConfigError
from formulavision.util.folders import OwnedFolder
from formulavision.util.text import counted, duration

__all__ = ["report", "write_html"]

_MANY = 20
"""A table of more lines is folded up."""
_CLASSES = 10
"""Classes of a table like the paper's table 10."""
_SHEET = {"categories": 6, "instances": 8}
_SHEET_OF_MANY = {"categories": 2, "instances": 8}


def report(
    folders: Iterable[str | Path] | str | Path, *, out: str | Path | None = None, show_progress: bool = True
) -> Comparison:
    """Join comparisons that ran on different days and machines into one table and report; or write one's again.

    The same arm, by its content, is one arm whose seeds and downstreams come together. Arms or downstreams of the same
    name but with other content are told apart by the names of their folders. Of a result that several comparisons have,
    the first counts, and a note tells where they differ.

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
    if not again:
        owned.state()  # refused before the work
    findings = found[0] if again else join(found, paths, folder)
    with nullcontext() if again else owned.writing({}, REPORT_FILES):
        table = write_tables(findings, folder)
        write_html(table, folder)
    if show_progress:
        print_table(table, folder)
    return Comparison(None, folder, findings)


def write_html(table: Table, folder: Path) -> None:
    """Write ``report.html``, ``plots/`` and ``pictures/`` into the comparison's folder.

    Pictures and the comparison class by class come from the runs that the findings name, where they are still there;
    all else is in the findings.

    Raises:
        StoreError: it cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        percent=_percent, points=points, p=p_text, shown=shown, place=place_text, duration=duration
    )
    template = environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    write_text(folder / "report.html", template.render(_content(table, folder)))


def _content(table: Table, folder: Path) -> dict[str, Any]:
    """Variables of the template."""
    findings = table.findings
    arms = _featured(table)
    plots = Plots(table, folder / "plots", arms)
    headings, lines = grid(table)
    classes = by_class(table, folder, arms) if "classes" in findings.pictures else []
    if any(each.classes for each in classes):
        write_text(folder / "plots" / "classes.csv", classes_csv(classes))
    machines: list[Computed] = []
    for result in findings.results:
        if result.computed is not None and result.computed not in machines:
            machines.append(result.computed)
    return {
        "findings": findings,
        "facts": _facts(findings),
        "several_seeds": len(findings.seeds) > 1,
        "with_frozen": findings.freezes != ["none"],
        "stored": any(result.generate_seconds is not None for result in findings.results),
        "headings": headings,
        "lines": lines,
        "explanations": explanations(table),
        "missing": missing(findings),
        "failed": sum(result.error is not None for result in findings.results),
        "pending": sum(result.pending for result in findings.results),
        "paper_drawn": any(findings.paper.values()),
        "sweeps": list(plots.sweeps()),
        "freezing": list(plots.freezing()),
        "accuracy": list(plots.accuracy(plots.finetuned[:1])),
        "accuracy_frozen": list(plots.accuracy(plots.finetuned[1:])),
        "several_labels": [name for name in findings.downstreams if findings.metric(name) != TOP_1],
        "left_out": len(arms) < len(findings.arms),
        "first_epochs": first_epochs(table),
        "pretraining": list(plots.pretraining()),
        "classes": classes,
        "most_classes": _CLASSES,
        "attention": attention(table, folder, arms) if "grad-cam" in findings.pictures else [],
        "filters": filters(table, folder, arms) if "filters" in findings.pictures else [],
        "arms": _arms(findings, folder),
        "machines": machines,
        "many": _MANY,
        "few": FEW,
    }


def _featured(table: Table) -> list[str]:
    """Arms that are shown one by one: of sweeps, where there are many arms, the best of each arm that is swept."""
    arms = table.findings.arms
    if len(arms) <= FEW:
        return list(arms)
    downstream, freeze = next(iter(table.findings.downstreams)), table.findings.by_frozen[0]
    best: dict[str, tuple[float, str]] = {}
    for name, facts in arms.items():
        score = table.cell(name, freeze, downstream).mean
        if facts.path is not None and score is not None:
            best[facts.base] = max(best.get(facts.base, (-1.0, "")), (score, name))
    chosen = {name for _, name in best.values()}
    return [name for name, facts in arms.items() if facts.path is None or name in chosen]


def _facts(findings: Findings) -> str:
    """What was compared, in a line."""
    counts = (len(findings.arms), "arm"), (len(findings.downstreams), "downstream"), (len(findings.seeds), "seed")
    drawn = {"on-demand": ["images drawn on demand"], "stored": ["images stored before training"]}
    return ", ".join([*(counted(number, noun) for number, noun in counts), *drawn.get(findings.data, [])])


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


@dataclass(frozen=True)
class _ArmSection:
    """The report's section on an arm.

    Attributes:
        recipe: as YAML; empty where no formula draws its images.
        same_as: the first arm of the same recipe, whose images are shown.
    """

    name: str
    origin: str
    note: str
    recipe: str = ""
    same_as: str = ""
    sheet: Illustration | None = None


def _arms(findings: Findings, folder: Path) -> list[_ArmSection]:
    size = _SHEET if len(findings.arms) <= FEW else _SHEET_OF_MANY
    first: dict[str, str] = {}
    sections = []
    for name, facts in findings.arms.items():
        recipe = "" if facts.recipe is None else dump_yaml(facts.recipe)
        # Other labels or other training of the same images.
        same_as = first.setdefault(recipe, name) if recipe else name
        images = sheet(folder, name, facts.recipe, **size) if facts.recipe is not None and same_as == name else None
        sections.append(_ArmSection(name, facts.origin, facts.note, recipe, "" if same_as == name else same_as, images))
    return sections
