"""The first section of the report, in sentences: what was compared, what came out, how sure that is, at what cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean, stdev

from formulavision.comparison.convergence import catching_up
from formulavision.comparison.results import SHORT, TOP_1, ArmFacts, Findings, Result
from formulavision.comparison.settings import PROBE
from formulavision.comparison.significance import ALPHA
from formulavision.comparison.tables import T_TEST, Cell, Table
from formulavision.comparison.wording import listed, p_text, percent, points, score_text
from formulavision.training.runs import unit_of, when
from formulavision.util.text import counted, duration

__all__ = ["summary"]

_SOURCES = {
    "random": "random weights",
    "formula": "weights pre-trained on images that formulas draw",
    "images": "weights pre-trained on real images",
    "checkpoint": "checkpoints",
}
_LEARNED = 3
"""Pre-training has learned little where its accuracy is below this multiple of chance."""
_PROBES = {f"linear{PROBE}": "a linear probe", f"knn{PROBE}": "nearest neighbours"}


def summary(table: Table) -> dict[str, list[str]]:
    """Paragraphs by their title: the comparison, its results, their certainty and their cost, as far as there are any.

    They state what the numbers of the table allow. A difference counts if the test over seeds finds it beyond chance.
    """
    paragraphs = {
        "Compared": _compared(table.findings),
        "Result": list(_results(table)),
        "Certainty": [" ".join(_certainty(table))],
        "Cost": [" ".join(_cost(table.findings))],
    }
    return {title: kept for title, texts in paragraphs.items() if (kept := [text for text in texts if text])}


# What was compared ---------------------------------------------------------------------------------------------------


def _compared(findings: Findings) -> list[str]:
    probes = [_PROBES[freeze] for freeze in findings.freezes if freeze in _PROBES]
    tuned = len(probes) < len(findings.freezes)
    ways = (["fine-tuned"] if tuned else []) + ([f"evaluated with frozen features by {_and(probes)}"] if probes else [])
    about = [f"{name} ({text})" if (text := findings.described.get(name)) else name for name in findings.downstreams]
    groups: dict[str, dict[str, list[ArmFacts]]] = {}
    for arm in findings.arms.values():
        groups.setdefault(arm.source, {}).setdefault(arm.base, []).append(arm)
    starts = [f"{_SOURCES[source]} ({listed([_arm(*b) for b in bases.items()])})" for source, bases in groups.items()]
    seeds = counted(len(findings.seeds), "seed")
    were = "were" if ", " in findings.model else "was"
    return [f"{findings.model} {were} {_and(ways)} on {listed(about)}, starting from {_and(starts)}; {seeds}."]


def _arm(base: str, arms: Sequence[ArmFacts]) -> str:
    """An arm of the configuration; of a sweep with its swept settings."""
    paths = dict.fromkeys(arm.path for arm in arms if arm.path is not None)
    return f"{base} at {counted(len(arms), 'value')} of {_and(list(paths))}" if paths else base


# What came out -------------------------------------------------------------------------------------------------------


def _results(table: Table) -> Iterator[str]:
    """A paragraph for each downstream on fine-tuning, with the fewest layers frozen of which there are results, and on
    each probe."""
    findings = table.findings
    tuned = [freeze for freeze in findings.by_frozen if not freeze.endswith(PROBE)]
    probes = [freeze for freeze in findings.by_frozen if freeze.endswith(PROBE)]
    for downstream in findings.downstreams:
        scored = [f for f in tuned if any(table.cells[arm, f, downstream].seeds for arm in findings.arms)][:1]
        found = [list(_about_place(table, freeze, downstream)) for freeze in scored + probes]
        if scored != tuned[:1] and scored:
            found[0].insert(0, f"On {downstream} only frozen layers have results; these are of {scored[0]}.")
        told = [sentences for sentences in found if sentences] or [[f"There is no result on {downstream} yet."]]
        yield from (" ".join(sentences) for sentences in told)
    if len(tuned) > 1:
        yield "The table has the results with other frozen layers, too."


def _about_place(table: Table, freeze: str, downstream: str) -> Iterator[str]:
    findings = table.findings
    cells = [table.cells[arm, freeze, downstream] for arm in findings.arms]
    scored = sorted((c for c in cells if c.mean is not None), key=lambda c: -(c.mean or 0))
    compared = sorted((c for c in scored if c.difference is not None), key=lambda c: -(c.difference or 0))
    if compared:
        if freeze == findings.by_frozen[0] or not freeze.endswith(PROBE):
            yield from _answer(compared, findings, downstream)
        yield from _verdicts(compared, findings)
        yield from _by_epoch(compared, findings)
    elif scored:
        yield from _ranking(scored, cells, findings)
    yield from _of_sweeps(scored, findings)


def _answer(compared: Sequence[Cell], findings: Findings, downstream: str) -> Iterator[str]:
    """Question and answer, where formulas are compared with training from scratch."""
    arms = findings.arms
    cells = [c for c in compared if arms[c.arm].source == "formula" and _from_scratch(c, findings)]
    raised = [c.arm for c in cells if c.significant and (c.difference or 0) > 0]
    if not cells:
        return
    if raised:
        which = _and(raised) if len(raised) < 4 else f"{len(raised)} of {len(cells)} arms"
        answer = "Yes" if len(raised) == len(cells) else f"Yes, with {which}"
    elif any(c.significant for c in cells):
        answer = "No" if all(c.significant for c in cells) else "No: no gain is shown"
    else:
        seeds = max(len(c.pairs) for c in cells)
        answer = "One seed cannot tell" if seeds == 1 else f"No effect is shown with {seeds} seeds"
    yield f"Does pre-training on formulas help on {downstream}? {answer}."


def _verdicts(compared: Sequence[Cell], findings: Findings) -> Iterator[str]:
    """A sentence on the arm with the greatest gain that counts, and on the others by their group.

    Args:
        compared: cells with a difference, the highest first.
    """
    first = next((c for c in compared if c.significant and (c.difference or 0) > 0), compared[0])
    yield _verdict(first, findings)
    others = [c for c in compared if c is not first]
    groups = {
        "Higher beyond chance": [c for c in others if c.significant and (c.difference or 0) > 0],
        "Lower beyond chance": [c for c in reversed(others) if c.significant and (c.difference or 0) < 0],
        f"Not beyond chance{' either' if len(first.pairs) > 1 and not first.significant else ''}": [
            c for c in others if not c.significant and len(c.pairs) > 1
        ],
        "Of one seed, too" if len(first.pairs) == 1 else "Of one seed": [c for c in others if len(c.pairs) == 1],
    }
    for title, cells in groups.items():
        if cells:
            yield f"{title}: {listed([_short(cell) for cell in cells])}."


def _verdict(cell: Cell, findings: Findings) -> str:
    """The sentence on one arm and its baseline."""
    assert cell.difference is not None
    measure, size = _measure(cell), points(abs(cell.difference)).lstrip("+")
    ours, theirs = (_score([result.score or 0 for result in side]) for side in zip(*cell.pairs, strict=True))
    scores = f"{cell.baseline} {theirs}, {cell.arm} {ours}"
    more = "more" if cell.difference > 0 else "less"
    seeds = len(cell.pairs)
    if seeds == 1:
        both = f"{cell.arm} has {size} points {more} {measure} than {cell.baseline}"
        if size == "0.0":
            same = "have the same" if cell.difference == 0 else "differ by less than 0.05 points of"
            both = f"{cell.arm} and {cell.baseline} {same} {measure}"
        return f"{both} ({scores}), with one seed."
    if cell.significant:
        verb = "raises" if cell.difference > 0 else "lowers"
        test = f"{seeds} seeds; {T_TEST}, {p_text(cell.p_corrected or 0)}"
        return f"{_change(cell, findings)} {verb} {measure} by {size} points ({scores}; {test})."
    told = f"{cell.arm} and {cell.baseline} cannot be told apart by {measure} ({scores}):"
    difference = f"the difference of {points(cell.difference)} points"
    if cell.p is None or cell.interval is None:
        which = "both" if seeds == 2 else f"all {seeds}"
        return f"{told} {difference} is the same for {which} seeds, and no test applies to that."
    if cell.p < ALPHA:
        return f"{told} {difference} is not beyond chance after Holm's correction ({p_text(cell.p_corrected or 1)})."
    low, high = cell.interval
    # A wider interval is as good as none.
    interval = f"; 95 % interval {points(low)} to {points(high)}" if max(-low, high) < 1 else ""
    return f"{told} {difference} can be chance ({seeds} seeds, {p_text(cell.p_corrected or 1)}{interval})."


def _score(scores: Sequence[float]) -> str:
    return score_text(fmean(scores), stdev(scores) if len(scores) > 1 else None)


def _measure(cell: Cell) -> str:
    """``top-1 accuracy on digits``, ``top-1 accuracy of a linear probe on digits``."""
    of = f" of {_PROBES[cell.freeze]}" if cell.freeze in _PROBES else ""
    frozen = f" with {cell.freeze} frozen" if not of and cell.freeze != "none" else ""
    return f"{cell.metric}{of} on {cell.downstream}{frozen}"


def _change(cell: Cell, findings: Findings) -> str:
    source = findings.arms[cell.arm].source
    if not _from_scratch(cell, findings) or source == "random":
        return f"{cell.arm} in place of {cell.baseline}"
    return f"Starting from {cell.arm}" if source == "checkpoint" else f"Pre-training on {cell.arm}"


def _from_scratch(cell: Cell, findings: Findings) -> bool:
    """Whether the baseline of a cell is training from scratch, fine-tuned as its arm is."""
    own, baseline = findings.arms[cell.arm], findings.arms.get(cell.baseline or "")
    return baseline is not None and baseline.scratch and baseline.finetune == own.finetune


def _short(cell: Cell) -> str:
    p = "" if cell.method != T_TEST or cell.p_corrected is None else f", {p_text(cell.p_corrected)}"
    return f"{cell.arm} ({points(cell.difference or 0)} points{p})"


def _by_epoch(compared: Sequence[Cell], findings: Findings) -> Iterator[str]:
    """Arms that reach the final score of their baseline much earlier than the baseline itself."""
    found = [(cell, catching_up(cell.pairs, findings.curve(cell.downstream))) for cell in compared]
    faster = [(cell, epochs) for cell, epochs in found if epochs is not None and 4 * epochs[0] <= 3 * epochs[1]]
    for baseline in dict.fromkeys(cell.baseline for cell, _ in faster):
        own = sorted(
            ((epochs, cell.arm, cell.pairs) for cell, epochs in faster if cell.baseline == baseline),
            key=lambda each: each[:2],
        )
        (first, theirs, total), arm, pairs = own[0]
        others = [f"{name} after {epochs[0]:,}" for epochs, name, _ in own[1:]]
        unit = unit_of(result.history for pair in pairs for result in pair)
        after = listed([f"{first:,} of {total:,} {unit}s", *others])
        mean = "On average, " if len(pairs) > 1 else ""
        score = "accuracy" if compared[0].metric == TOP_1 else SHORT[compared[0].metric]
        yield f"{mean}{arm} reaches the final {score} of {baseline} after {after}; {baseline} needs {theirs:,}."


def _ranking(scored: Sequence[Cell], cells: Sequence[Cell], findings: Findings) -> Iterator[str]:
    """Scores without a baseline.

    Args:
        scored: cells with a score, the highest first.
        cells: also those without one.
    """
    scores = listed([f"{cell.arm} {score_text(cell.mean, cell.spread)}" for cell in scored])
    yield f"{_measure(scored[0])[0].upper()}{_measure(scored[0])[1:]}: {scores}."
    done = {cell.arm for cell in scored}
    lacking = {name for cell in cells if (name := cell.baseline) is not None} - done
    if lacking:
        yield f"There is no result of {_and(sorted(lacking))} to compare with."
    elif others := sorted({cell.arm for cell in cells} - done):
        yield f"There is no result of {_and(others)} yet."
    elif len(findings.arms) > 1:
        yield "No arm is the baseline (training from scratch, or 'against'), so no difference is tested."
    else:
        yield "There is no other arm to compare with."


def _of_sweeps(scored: Sequence[Cell], findings: Findings) -> Iterator[str]:
    """The best and the worst value of each swept setting."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in scored:
        facts = findings.arms[cell.arm]
        if facts.path is not None:
            groups.setdefault((facts.base, facts.path), []).append(cell)
    for (base, path), cells in groups.items():
        if percent(cells[0].mean) != percent(cells[-1].mean):
            best, worst = (f"{findings.arms[c.arm].value} ({percent(c.mean)})" for c in (cells[0], cells[-1]))
            yield f"By {path}, {base} has its highest mean at {best}, its lowest at {worst}."


# How sure that is ----------------------------------------------------------------------------------------------------


def _certainty(table: Table) -> Iterator[str]:
    findings = table.findings
    compared = [cell for cell in table.cells.values() if cell.pairs]
    tests = max((cell.tests for cell in compared), default=0)
    seeds = [len(cell.pairs) for cell in compared]
    if any(cell.method == T_TEST for cell in compared):
        corrected = f" after Holm's correction for {tests} tests" if tests > 1 else ""
        yield f"Beyond chance is p < {ALPHA} in the {T_TEST} over seeds{corrected}."
    if 2 in seeds:
        yield "Two seeds can show only differences that are almost the same for both."
    if len(findings.seeds) == 1:
        yield "With one seed it cannot be said how much other seeds differ: give more (seeds: [0, 1, 2])."
    elif 1 in seeds:
        yield "Differences of one seed are not tested: they do not say how much other seeds differ."
    if len({cell.arm for cell in compared}) > 1:
        yield "Arms are tested against their baseline, not against each other."
    little: dict[str, dict[str, list[str]]] = {}  # chance -> percentage -> arms
    for arm, facts in findings.arms.items():
        reached = [r.pretrain_accuracy for r in findings.results if r.arm == arm and r.pretrain_accuracy is not None]
        chance = facts.chance
        # With few categories, a multiple of chance is more than can be reached: half of the way to all, at most.
        if chance is not None and reached and fmean(reached) < min(_LEARNED * chance, (1 + chance) / 2):
            little.setdefault(percent(chance), {}).setdefault(percent(fmean(reached)), []).append(arm)
    for chance_percent, ends in little.items():
        which = f" on {_and(next(iter(ends.values())))}" if len(ends) == 1 else ""
        shares = [f"{end} %" + (f" ({', '.join(arms)})" if len(ends) > 1 else "") for end, arms in ends.items()]
        yield (
            f"Pre-training{which} ended with {_and(shares)} of its training images classified, and chance is "
            f"{chance_percent} %: it has learned little, and longer training may give another result."
        )
    if seeds:
        yield "All this holds for these images, this model and these settings."
    failed = sum(result.error is not None for result in findings.results)
    pending = sum(result.pending for result in findings.results)
    if failed or pending:
        which = _and([f"{n} {word}" for n, word in ((failed, "failed"), (pending, "not computed yet")) if n])
        yield f"{failed + pending} of {len(findings.results)} results are missing here ({which})."


# At what cost --------------------------------------------------------------------------------------------------------


def _cost(findings: Findings) -> Iterator[str]:
    by_arm: dict[str, dict[str, Result]] = {}
    for result in findings.results:
        if result.pretrain_seconds is not None and result.start is not None:
            by_arm.setdefault(result.arm, {}).setdefault(result.start, result)
    if by_arm:
        told = [_pretraining(findings.arms[arm], starts, findings) for arm, starts in by_arm.items()]
        same = len({how for _, how in told}) == 1 and told[0][1]
        times = [f"{time} for {arm}{'' if same else how}" for arm, (time, how) in zip(by_arm, told, strict=True)]
        yield f"Pre-training took {listed(times)}{same or ''}."
        if all(findings.arms[arm].source == "formula" for arm in by_arm):
            yield "It used no photograph."
    if any(arm.source == "checkpoint" for arm in findings.arms.values()):
        yield "The pre-training of checkpoints is not counted."
    # Arms of the same recipes share their stores, whose target does not matter.
    drawn = {
        str([sorted({**recipe, "target": ""}.items()) for recipe in findings.arms[result.arm].recipes]): seconds
        for result in findings.results
        if (seconds := result.generate_seconds) is not None
    }
    if drawn:
        yield f"Drawing and storing its images took {duration(sum(drawn.values()))}."
    # Arms that share a fine-tuning have the same folder.
    results = list({result.folder or number: result for number, result in enumerate(findings.results)}.values())
    tuning = [seconds for result in results if (seconds := result.finetune_seconds) is not None]
    if tuning:
        yield f"Fine-tuning took {duration(fmean(tuning))} a model."
    starts = {s: r.pretrain_seconds or 0.0 for each in by_arm.values() for s, r in each.items()}
    evaluating = sum(result.evaluate_seconds or 0 for result in results)
    if tuning or starts:
        yield f"In all: {duration(sum(drawn.values()) + sum(starts.values()) + sum(tuning) + evaluating)}."


def _pretraining(facts: ArmFacts, starts: dict[str, Result], findings: Findings) -> tuple[str, str]:
    """``35 s`` and `` (2,400 drawn images an epoch, 4 epochs)``: the mean time over seeds, and what it was spent on."""
    time = duration(fmean(result.pretrain_seconds or 0.0 for result in starts.values()))
    lengths = [when(history[-1]) for start in starts if (history := findings.pretrainings.get(start))]
    how = [f"{facts.images:,} drawn images an epoch"] if facts.images is not None else []
    how += [counted(number, unit) for unit, number in lengths[:1]]
    return time, f" ({', '.join(how)})" if how else ""


def _and(texts: Iterable[str]) -> str:
    *before, last = texts
    return f"{', '.join(before)} and {last}" if before else last
