"""The table of a comparison in words: its texts and the sentences below it.

Terminal, Markdown and report have the same texts and sentences: one wording for one fact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from formulavision.comparison.results import SHORT, TOP_1, Findings, Result
from formulavision.comparison.settings import FULL, PROBE
from formulavision.comparison.significance import ALPHA, rank_correlation
from formulavision.comparison.tables import MCNEMAR, T_TEST, Cell, Table, contest
from formulavision.util.text import counted

__all__ = [
    "STAR",
    "caveats",
    "explanations",
    "frozen_text",
    "grid",
    "listed",
    "missing",
    "p_text",
    "percent",
    "place_text",
    "points",
    "score_text",
]

_LISTED = 6
"""Results that a sentence lists; the table of results has the others."""
STAR = "*"
"""Mark of a difference beyond chance."""
_STAGE = re.compile(r"\S*-[0-9a-f]{16}(?=[/:\s]|$)")
"""Path of a stage's folder in a message."""
_TRACEBACK = " (traceback: "


# Numbers and names ---------------------------------------------------------------------------------------------------


def percent(share: float | None) -> str:
    """A share in per cent: ``91.2``; a dash for None."""
    return "–" if share is None else f"{100 * share:.1f}"


def points(difference: float) -> str:
    """A difference of shares in percentage points: ``+1.2``, ``−0.3``, ``0.0``."""
    rounded = round(100 * difference, 1)
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def score_text(mean: float | None, spread: float | None) -> str:
    """Mean and standard deviation in per cent: ``91.2 ± 0.3``; ``91.2`` without a spread."""
    return percent(mean) + ("" if spread is None else f" ± {percent(spread)}")


def p_text(p: float) -> str:
    """``p < 0.001``, ``p = 0.012``, ``p = 0.38``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.1 else f"p = {p:.2f}"


def frozen_text(freeze: str) -> str:
    """Frozen layers: ``conv1-3``, ``all (linear probe)``."""
    names = {f"linear{PROBE}": "all (linear probe)", f"knn{PROBE}": "all (nearest neighbours)"}
    return names.get(freeze, freeze)


def place_text(downstream: str, freeze: str) -> str:
    """``cifar10``, ``cifar10, frozen: conv1-3``."""
    return downstream if freeze == "none" else f"{downstream}, frozen: {frozen_text(freeze)}"


def listed(texts: Sequence[str], separator: str = ", ") -> str:
    """The first texts, and the number of the others."""
    more = [f"and {len(texts) - _LISTED} more"] if len(texts) > _LISTED else []
    return separator.join([*texts[:_LISTED], *more])


def _baseline(findings: Findings) -> str:
    """Name of the baseline; ``baseline`` if it is not the same for all arms."""
    names = {arm.baseline for arm in findings.arms.values() if arm.baseline is not None}
    return next(iter(names)) if len(names) == 1 else "baseline"


def caveats(findings: Findings) -> list[str]:
    """The note of the comparison; of several joined, each with the comparison's name where not all have the same."""
    same = len({findings.caveats.get(name) for name in findings.configurations}) < 2
    told = dict.fromkeys(note if same else f"{name}: {note}" for name, note in findings.caveats.items())
    return [f"Note: {text}" for text in told]


# Sentences -----------------------------------------------------------------------------------------------------------


def explanations(table: Table) -> list[str]:
    """Sentences on the numbers of the table: their meaning, and the findings of its tests."""
    return [_caption(table), *_about_differences(table), *_about_tests(table), *_about_the_paper(table)]


def _caption(table: Table) -> str:
    findings = table.findings
    metrics = findings.metrics
    told = [name if SHORT[name] in name else f"{name} ({SHORT[name]})" for name in metrics]
    if len(metrics) > 1:
        told = [f"{name} on {', '.join(on)}" for name, on in zip(told, metrics.values(), strict=True)]
    metric = "; ".join(told)
    metric = metric if metric.startswith("mIoU") else f"{metric[0].upper()}{metric[1:]}"
    seeds = findings.seeds
    counts = {cell.seeds for cell in table.cells.values() if cell.seeds}
    most = max(counts, default=len(seeds))
    over = f"mean ± standard deviation over {'up to ' if len(counts) > 1 else ''}{most} seeds"
    if most == 1:
        over = f"one seed ({seeds[0]})" if len(seeds) == 1 else f"one of {len(seeds)} seeds"
    size = "" if findings.size == FULL else f", size {findings.size}"
    contests = ", of fine-tuning and of each probe by itself," if len({*map(contest, findings.freezes)}) > 1 else ""
    best = f"the best of a column{contests} in bold"
    return f"{metric} in per cent on the test images, {over}; {findings.model}{size}; {best}."


def _about_differences(table: Table) -> Iterator[str]:
    findings, cells = table.findings, table.cells.values()
    if any(cell.pairs for cell in cells):
        baseline = _baseline(findings)
        frozen = " with the same layers frozen" if len(findings.freezes) > 1 else ""
        yield f"“to {baseline}” is the difference to {baseline}{frozen}, in percentage points."
    if any(cell.unpaired for cell in cells):
        yield "Where results are missing, a difference is of the seeds that both arms have."


def _about_tests(table: Table) -> Iterator[str]:
    """Findings of the tests over seeds and over images, and what could not be tested."""
    cells = table.cells.values()
    level = f"p < {ALPHA} after Holm's correction"
    if any(cell.method == T_TEST for cell in cells):
        marked = any(cell.significant for cell in cells)
        verdict = f"{STAR} is a difference beyond chance" if marked else "No difference is beyond chance"
        yield f"{verdict}: {T_TEST} over seeds, {level}."
    if any(len(cell.pairs) == 1 for cell in cells):
        yield "A difference of one seed is not marked: it says nothing about how much other seeds differ."
    of_images = [cell for cell in cells if cell.method == MCNEMAR]
    if of_images:
        pairs = [_pair(cell) for cell in of_images if cell.beyond_chance]
        models = f"the single trained models of these arms differ: {listed(pairs, ', ')}"
        verdict = models if pairs else "no single trained model differs from its baseline"
        yield f"On these test images, {verdict} ({MCNEMAR} over the images, {level})."
    untested = {cell.downstream for cell in cells if len(cell.pairs) == 1 and cell.method is None}
    names = [name for name in table.findings.downstreams if name in untested and table.findings.metric(name) != TOP_1]
    if names:
        yield (
            f"{', '.join(names)} cannot be tested with one seed: an image of several labels or with a mask is not "
            "right or wrong."
        )


def _pair(cell: Cell) -> str:
    return f"{cell.arm} and {cell.baseline} ({place_text(cell.downstream, cell.freeze)})"


def _about_the_paper(table: Table) -> Iterator[str]:
    cells = [cell for cell in table.cells.values() if cell.paper is not None and cell.mean is not None]
    if cells:
        yield "“paper” is the paper’s number, at its scale."
    for downstream in table.findings.downstreams:
        both = [(cell.paper or 0, cell.mean or 0) for cell in cells if cell.downstream == downstream]
        correlation = rank_correlation([theirs for theirs, _ in both], [ours for _, ours in both])
        if correlation is not None:
            number = f"{round(correlation, 2) + 0.0:.2f}".replace("-", "−")
            order = f"Order on {downstream} against the paper's: rank correlation (Spearman)"
            yield f"{order} {number} of {len(both)} results."


def missing(findings: Findings) -> list[str]:
    """Sentences on results that failed and results that are not computed yet, one for each arm and cause."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in findings.results:
        if result.score is None:
            # Without the folder of the stage, the text is the same for all results that fail for one cause.
            cause = (result.error or "").partition(_TRACEBACK)[0]
            groups.setdefault((result.arm, _STAGE.sub("…", cause)), []).append(result)
    sentences = []
    # Failures come first.
    for (arm, cause), results in sorted(groups.items(), key=lambda group: not group[0][1]):
        everywhere = len(results) == sum(result.arm == arm for result in findings.results)
        places = [f"{place_text(result.downstream, result.freeze)}, seed {result.seed}" for result in results]
        where = "everywhere" if everywhere else listed(places, "; ")
        _, mark, traceback = (results[0].error or "").partition(_TRACEBACK)
        pending = f"{arm}: {counted(len(results), 'result')} yet to be computed ({where})"
        sentences.append(f"{arm} failed ({where}): {cause}{mark}{traceback}" if cause else pending)
    return sentences


# The grid of texts, which terminal, Markdown and report show ---------------------------------------------------------


@dataclass(frozen=True)
class CellText:
    """Text of a heading or of a cell.

    Attributes:
        kind: ``words`` (left-aligned), ``score``, ``difference`` or ``paper``.
        mark: ``best``, ``failed``, ``beyond chance`` or nothing.
        note: small print, in the report alone.
    """

    text: str
    kind: str
    mark: str = ""
    note: str = ""


def grid(table: Table) -> tuple[list[CellText], list[list[CellText]]]:
    """Headings and rows of the table as texts: arm, frozen layers, and for each downstream up to three columns."""
    findings, rows = table.findings, table.rows
    columns = [("arm", "words", [CellText(row[0].arm, "words") for row in rows])]
    if findings.freezes != ["none"]:
        columns.append(("frozen", "words", [CellText(frozen_text(row[0].freeze), "words") for row in rows]))
    for downstream, *cells in zip(findings.downstreams, *rows, strict=True):
        metric = "" if {*findings.metrics} == {TOP_1} else f" ({SHORT[findings.metric(downstream)]})"
        columns.append((f"{downstream}{metric}", "score", [_score(cell, len(findings.seeds)) for cell in cells]))
        if any(cell.pairs for cell in cells):
            columns.append((f"to {_baseline(findings)}", "difference", [_difference(cell) for cell in cells]))
        if any(cell.paper is not None for cell in cells):
            papers = ["" if cell.paper is None else percent(cell.paper) for cell in cells]
            columns.append(("paper", "paper", [CellText(text, "paper") for text in papers]))
    headings = [CellText(heading, kind) for heading, kind, _ in columns]
    return headings, [list(row) for row in zip(*(texts for _, _, texts in columns), strict=True)]


def _score(cell: Cell, seeds: int) -> CellText:
    if cell.mean is None:
        return CellText("failed", "score", "failed") if cell.error else CellText("–", "score")
    note = f"{cell.seeds} of {seeds} seeds" if cell.seeds < seeds else ""
    return CellText(score_text(cell.mean, cell.spread), "score", "best" if cell.best else "", note)


def _difference(cell: Cell) -> CellText:
    if cell.difference is None:
        return CellText("", "difference")
    notes = [f"{len(cell.pairs)} of {cell.seeds} seeds"] if len(cell.pairs) < cell.seeds else []
    if cell.method == T_TEST and cell.p_corrected is not None:
        notes.append(p_text(cell.p_corrected))
    star, mark = (STAR, "beyond chance") if cell.significant else ("", "")
    return CellText(points(cell.difference) + star, "difference", mark, ", ".join(notes))
