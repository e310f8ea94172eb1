"""The tables and the report of a comparison, or of several joined: ``report.html`` needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from formulavision.comparison import wording
from formulavision.comparison.classes import by_class, classes_csv
from formulavision.comparison.convergence import first_epochs
from formulavision.comparison.join import join
from formulavision.comparison.pictures import Illustration, attention, filters, predictions, sheet
from formulavision.comparison.plots import FEW, Plots
from formulavision.comparison.printing import print_table, to_markdown
from formulavision.comparison.results import FINDINGS, Comparison, Findings, write_text
from formulavision.comparison.summary import summary
from formulavision.comparison.tables import Table, table_csv, table_of
from formulavision.training.runs import unit_of
from formulavision.util.config import dump_yaml
from formulavision.util.errors import ConfigError
from formulavision.util.folders import OwnedFolder
from formulavision.util.text import counted, duration

__all__ = ["REPORT_FILES", "featured_arms", "report", "sheets_of_arms", "write_html", "write_tables"]

REPORT_FILES = (
    *(FINDINGS, "results.csv", "table.csv", "results.md", "report.html"),
    *("plots/*.svg", "plots/classes.csv", "pictures/*.png", "pictures/*.jpg"),
)
"""Files of the tables and the report, as patterns for the marker of their folder."""

_SHEET = {"categories": 6, "instances": 8}
_SHEET_OF_MANY = {"categories": 2, "instances": 8}


def report(
    folders: Iterable[str | Path] | str | Path, *, out: str | Path | None = None, show_progress: bool = True
) -> Comparison:
    """Join comparisons that ran on different days and machines into one table and report; or write one's again.

    Arms with the same name and content are one arm, with the seeds and downstreams of all comparisons. Arms or
    downstreams with the same name but other content are renamed after their folders. If several comparisons have a
    result, the first counts, and a note names the difference.

    Args:
        folders: of comparisons, finished or not, or of joins.
        out: folder for the table and the report; None, for a single comparison: its own.
        show_progress: print the table.

    Raises:
        ConfigError: a folder holds no results, or ``out`` is missing.
        FolderError: ``out`` holds something else, or cannot be written.
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


def write_tables(findings: Findings, folder: Path) -> Table:
    """Write ``results.json``, ``results.csv``, ``table.csv`` and ``results.md``; return the table.

    Raises:
        FolderError: one of them cannot be written.
    """
    findings.save(folder)
    table = table_of(findings, folder)
    write_text(folder / "table.csv", table_csv(table))
    write_text(folder / "results.md", to_markdown(table))
    return table


def write_html(table: Table, folder: Path) -> None:
    """Write ``report.html``, ``plots/`` and ``pictures/`` into the comparison's folder.

    Pictures and the comparison class by class come from the runs that the findings name, if these still exist. All else
    is in the findings.

    Raises:
        FolderError: one of them cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "counted": counted,
        "duration": duration,
        "frozen": wording.frozen_text,
        "p": wording.p_text,
        "percent": wording.percent,
        "place": wording.place_text,
        "points": wording.points,
        "yaml": dump_yaml,
    }
    template = environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    write_text(folder / "report.html", template.render(_content(table, folder)))


def _content(table: Table, folder: Path) -> dict[str, Any]:
    """Variables of the template: a part of the report each, in its order."""
    findings = table.findings
    featured = featured_arms(table)
    plots = Plots(table, folder / "plots", featured)
    headings, rows = wording.grid(table)
    classes = by_class(table, folder, featured) if "classes" in findings.pictures else []
    if any(each.classes for each in classes):
        write_text(folder / "plots" / "classes.csv", classes_csv(classes))
    return {
        "findings": findings,
        "headings": headings,
        "rows": rows,
        "summary": summary(table),
        "caveats": wording.caveats(findings),
        "explanations": wording.explanations(table),
        "missing": wording.missing(findings),
        "sweeps": list(plots.sweeps()),
        "freezing": list(plots.freezing()),
        "curves": list(plots.scores(plots.finetuned[:1])),
        "curves_frozen": list(plots.scores(plots.finetuned[1:])),
        "first_epochs": first_epochs(table),
        "unit": unit_of(result.history for result in findings.results),
        "pretraining_unit": unit_of(findings.pretrainings.values()),
        "pretraining": list(plots.pretraining()),
        "classes": classes,
        "predictions": predictions(table, folder, featured) if "predictions" in findings.pictures else [],
        "attention": attention(table, folder, featured) if "grad-cam" in findings.pictures else [],
        "filters": filters(table, folder, featured) if "filters" in findings.pictures else [],
        "sheets": sheets_of_arms(findings, folder),
        "featured": featured,
        "few": FEW,
    }


def featured_arms(table: Table) -> list[str]:
    """Arms that are shown one by one: if there are many, of each arm that is swept only the best."""
    arms = table.findings.arms
    if len(arms) <= FEW:
        return list(arms)
    downstream, freeze = next(iter(table.findings.downstreams)), table.findings.by_frozen[0]
    best: dict[str, tuple[float, str]] = {}
    for name, facts in arms.items():
        score = table.cells[name, freeze, downstream].mean
        if facts.path is not None and score is not None:
            best[facts.base] = max(best.get(facts.base, (-1.0, "")), (score, name))
    chosen = {name for _, name in best.values()}
    return [name for name, facts in arms.items() if facts.path is None or name in chosen]


def sheets_of_arms(findings: Findings, folder: Path, *, draw: bool = True) -> dict[str, Illustration]:
    """Images of each recipe, by its YAML, under the name of the first arm that is pre-trained on it.

    Arms with other labels or other training of the same images share them.

    Args:
        draw: draw those that are not in the folder.
    """
    recipes = {name: facts.recipe for name, facts in findings.arms.items() if facts.recipe is not None}
    first: dict[str, str] = {}
    for name, recipe in recipes.items():
        first.setdefault(_without_target(recipe), name)
    size = _SHEET if len(findings.arms) <= FEW else _SHEET_OF_MANY
    drawn = {key: sheet(folder, name, recipes[name], **size, draw=draw) for key, name in first.items()}
    return {dump_yaml(recipe): drawn[_without_target(recipe)] for recipe in recipes.values()}


def _without_target(recipe: Mapping[str, Any]) -> str:
    """Equal for recipes of the same images."""
    return dump_yaml({name: value for name, value in recipe.items() if name != "target"})
