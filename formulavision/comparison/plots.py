"""The report's plots, as SVG that needs no font and no network."""

from __future__ import annotations

import io
import itertools
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from formulavision.comparison.config import PROBE
from formulavision.comparison.pictures import Illustration, data_uri
from formulavision.comparison.results import TOP_1, ArmFacts, History, write_text
from formulavision.comparison.tables import Cell, Table, place_text

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.container import Container

    Handle = Artist | Container

__all__ = ["FEW", "Curve", "Look", "Plots", "Runs", "by_epoch", "by_value", "looks"]

Look = Mapping[str, Any]
"""Arguments of matplotlib for a line."""

FEW = 8
"""Lines that a plot of this size shows apart."""

# Okabe and Ito's colours for all kinds of colour vision ("Color Universal Design", 2008), less the yellow that white
# swallows. Markers and, from the seventh line on, dashes say the same again for print in gray.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = ("-", "--", ":", "-.")
_SCRATCH: dict[str, Any] = {"color": "#000000", "linestyle": "--", "marker": "x"}

_WIDTH, _HEIGHT = 5.2, 3.8
"""Inches, with one line of legend."""
_PANEL = 1.8
"""Height of the panel of the paper's numbers, inches."""
_LINE = 0.21
"""Height of a line of the legend, inches."""
_CHARACTER = 0.085
"""Mean width of a character, inches."""
_TITLE, _LONGEST = 52, 34
"""Characters of a line of the title, and of a name in the legend."""

_PRETRAINING = {
    "loss": ("train_loss", 1, "training loss"),
    "accuracy": ("train_accuracy", 100, "training accuracy (%)"),
    "held-out": ("validation_accuracy", 100, "accuracy on held-out images (%)"),
}
"""By the name of the plot: column of the history, factor, and label of the axis."""


@dataclass(frozen=True)
class Curve:
    """A line of scores over the values of a setting: each value with its cell of the table."""

    label: str
    look: Look
    points: Sequence[tuple[float | str, Cell]]


@dataclass(frozen=True)
class Runs:
    """A line over epochs: the mean of several runs, a seed each, with their range as a band."""

    label: str
    look: Look
    histories: Sequence[History]


class Plots:
    """The plots of a comparison, each of which is kept as an SVG file, too.

    Args:
        folder: for the files.
        arms: that are shown where there is a line an arm.
    """

    def __init__(self, table: Table, folder: Path, arms: Sequence[str]) -> None:
        self.table = table
        self.findings = table.findings
        self.folder = folder
        self.arms = arms
        self.looks = looks(self.findings.arms)
        self.finetuned = [freeze for freeze in self.findings.by_frozen if not freeze.endswith(PROBE)]

    def sweeps(self) -> Iterator[Illustration]:
        """Score by the value of a swept setting, a line an arm of the configuration (figure 4, tables 1 to 5)."""
        arms, cell = self.findings.arms, self.table.cell
        for path in dict.fromkeys(facts.path for facts in arms.values() if facts.path is not None):
            for downstream, freeze in itertools.product(self.findings.downstreams, self.findings.freezes):
                lines: dict[str, list[tuple[float | str, Cell]]] = {}
                for name, facts in arms.items():
                    if facts.path == path:
                        lines.setdefault(facts.base, []).append((facts.value, cell(name, freeze, downstream)))
                # The one arm that all swept ones are compared with, where it is itself not swept.
                baselines = {facts.baseline for facts in arms.values() if facts.base in lines}
                (baseline,) = baselines if len(baselines) == 1 else (None,)
                across = None
                if baseline is not None and arms[baseline].path is None:
                    across = cell(baseline, freeze, downstream)
                title = f"{path.rpartition('.')[2]}, {place_text(downstream, freeze)}"
                yield from self._by_value(lines, (f"sweep-{path}", downstream, freeze), title, path, downstream, across)

    def freezing(self) -> Iterator[Illustration]:
        """Score by the frozen layers, a line an arm (table 8)."""
        for downstream in self.findings.downstreams if len(self.finetuned) > 1 else ():
            lines = {arm: [(f, self.table.cell(arm, f, downstream)) for f in self.finetuned] for arm in self.arms}
            yield from self._by_value(lines, ("freezing", downstream), downstream, "frozen layers", downstream, None)

    def _by_value(
        self,
        lines: Mapping[str, Sequence[tuple[float | str, Cell]]],
        name: Sequence[str],
        title: str,
        xlabel: str,
        downstream: str,
        across: Cell | None,
    ) -> Iterator[Illustration]:
        curves = [Curve(a, self.looks[a], line) for a, line in lines.items() if any(cell.scores for _, cell in line)]
        if curves:
            metric = self.findings.metric(downstream)
            baseline = None
            if across is not None and across.mean is not None:
                baseline = across.arm, self.looks[self.findings.arms[across.arm].base], across.mean
            svg = by_value(curves, title=title, xlabel=xlabel, ylabel=f"{metric} (%)", baseline=baseline)
            yield self._keep(name, title, f"{metric} on {downstream} by {xlabel}", svg)

    def accuracy(self, freezes: Sequence[str]) -> Iterator[Illustration]:
        """Accuracy by epoch of fine-tuning, a line an arm (figure 1b)."""
        for downstream, freeze in itertools.product(self.findings.downstreams, freezes):
            lines = [
                Runs(arm, self._look(arm), [r.history for r in self.table.cell(arm, freeze, downstream).results])
                for arm in self.arms
            ]
            title = place_text(downstream, freeze)
            # With several labels an image, the accuracy after an epoch is that of labels, not average precision.
            what = TOP_1 if self.findings.metric(downstream) == TOP_1 else "label accuracy"
            yield from self._by_epoch(
                lines, "validation_accuracy", 100, f"{what} (%)", ("accuracy", downstream, freeze), title, "fine-tuning"
            )

    def pretraining(self) -> Iterator[tuple[str, list[Illustration]]]:
        """Loss and accuracy by epoch of pre-training (figure 5 with noisy labels); sweeps apart where arms are many."""
        arms = self.findings.arms
        groups = {("", ""): [Runs(arm, self._look(arm), self._pretraining(arm)) for arm in self.arms]}
        for name, facts in arms.items():
            if len(arms) > FEW and facts.path is not None:
                line = Runs(_worded(facts.value), self.looks[name], self._pretraining(name))
                groups.setdefault((facts.base, facts.path), []).append(line)
        for (base, path), lines in groups.items():
            title = f"{base}, {path}" if base else "pre-training"
            plots: list[Illustration] = []
            for key, (column, scale, ylabel) in _PRETRAINING.items():
                file = (f"pretraining-{key}", base, path)
                plots += self._by_epoch(lines, column, scale, ylabel, file, title, "pre-training")
            if plots:
                yield title, plots

    def _pretraining(self, arm: str) -> list[History]:
        """A history a seed: all downstreams start from the same."""
        starts = {r.seed: r.start for r in self.findings.results if r.arm == arm and r.start is not None}
        return [self.findings.pretrainings[start] for start in starts.values() if start in self.findings.pretrainings]

    def _by_epoch(
        self,
        lines: Sequence[Runs],
        column: str,
        scale: float,
        ylabel: str,
        name: Sequence[str],
        title: str,
        training: str,
    ) -> Iterator[Illustration]:
        svg = by_epoch(lines, column, scale=scale, title=title, xlabel=f"{training} epoch", ylabel=ylabel)
        if svg is not None:
            of = "" if title == training else f" on {title}"
            alt = f"{ylabel.removesuffix(' (%)')}{of} by {training} epoch, a line an arm"
            yield self._keep(name, title, alt, svg)

    def _look(self, arm: str) -> Look:
        """An arm's look among others, of which a sweep has one where they are many."""
        few = len(self.findings.arms) <= FEW
        return self.looks[arm if few else self.findings.arms[arm].base]

    def _keep(self, name: Iterable[str], title: str, alt: str, svg: str) -> Illustration:
        stem = "-".join(part for part in name if part not in ("", "none"))
        write_text(self.folder / (re.sub(r"[^A-Za-z0-9._+-]", "_", stem) + ".svg"), svg)
        return Illustration(title, f"{alt[0].upper()}{alt[1:]}", data_uri(svg.encode(), "image/svg+xml"))


def looks(arms: Mapping[str, ArmFacts]) -> dict[str, Look]:
    """How each arm is drawn in every plot, and the arm of the configuration in whose place a sweep stands.

    Arms of one sweep go from dark to light (viridis, which all kinds of colour vision order alike).
    """
    from matplotlib import colormaps

    cycle = itertools.cycle(
        {"color": colour, "marker": marker, "linestyle": dash}
        for dash in _DASHES
        for colour, marker in zip(_COLOURS, _MARKERS, strict=True)
    )
    result: dict[str, Look] = {}
    for facts in arms.values():
        if facts.base not in result:
            scratch = facts.scratch and _SCRATCH not in result.values()
            result[facts.base] = _SCRATCH if scratch else next(cycle)
    sweeps: dict[tuple[str, str], list[str]] = {}
    for name, facts in arms.items():
        if facts.path is not None:
            sweeps.setdefault((facts.base, facts.path), []).append(name)
    for (base, _), names in sweeps.items():
        for i, name in enumerate(names):
            colour = colormaps["viridis"](0.75 * i / max(1, len(names) - 1))
            result[name] = {**result[base], "color": colour}
    return result


def by_epoch(lines: Sequence[Runs], column: str, *, scale: float, title: str, xlabel: str, ylabel: str) -> str | None:
    """A column of the histories by epoch as SVG; None where no history has it.

    Args:
        scale: factor of the column.
    """
    found = [(line, values) for line in lines if (values := _over_seeds(line.histories, column, scale)).size]
    if not found:
        return None

    def draw(axes: Axes) -> list[Handle]:
        from matplotlib.ticker import MaxNLocator

        handles: list[Handle] = []
        for line, values in found:
            there = np.isfinite(values).all(axis=0)
            x, values = np.flatnonzero(there) + 1, values[:, there]
            every = max(1, len(x) // 15)
            handles += axes.plot(
                x, values.mean(0), label=_short(line.label), markersize=5, markevery=every, **line.look
            )
            if len(values) > 1:
                axes.fill_between(x, values.min(0), values.max(0), alpha=0.15, color=line.look["color"], lw=0)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return handles

    return _svg([draw], title)


def _over_seeds(histories: Sequence[History], column: str, scale: float) -> NDArray[np.float64]:
    """float64 [seeds, epochs] of the epochs that all runs have; nan where a run does not have the column."""
    curves = [np.array([line.get(column) for line in history], float) * scale for history in histories]
    curves = [curve for curve in curves if np.isfinite(curve).any()]
    epochs = min((len(curve) for curve in curves), default=0)
    return np.array([curve[:epochs] for curve in curves]).reshape(len(curves), epochs)


def by_value(
    curves: Sequence[Curve],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    baseline: tuple[str, Look, float] | None = None,
) -> str:
    """Scores over the values of a setting, with bars of one standard deviation, as SVG.

    Numbers are on a numeric axis, on a logarithmic one where they span more than a decade; words beside each other in
    the order given. The paper's numbers, which at another scale may be far from ours, are hollow and dotted, in a panel
    of their own below.

    Args:
        baseline: name, look and mean score of an arm without the setting, a line across.
    """
    values = list(dict.fromkeys(value for curve in curves for value, _ in curve.points))
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places: dict[Any, float] = {value: float(value) if numeric else i for i, value in enumerate(values)}

    def draw(axes: Axes) -> list[Handle]:
        handles: list[Handle] = []
        for curve in curves:
            there = [(places[v], 100 * c.mean, 100 * (c.spread or 0)) for v, c in curve.points if c.mean is not None]
            x, y, bars = np.array(sorted(there)).reshape(-1, 3).T
            shown_bars = bars if bars.any() else None
            handles.append(axes.errorbar(x, y, shown_bars, label=_short(curve.label), capsize=3, **curve.look))
        if baseline is not None:
            name, look, score = baseline
            style = {"color": look["color"], "linestyle": look["linestyle"]}
            handles.append(axes.axhline(100 * score, lw=1, label=_short(name), **style))
        axes.set(ylabel=ylabel, xlabel=_short(xlabel, _TITLE))
        _values_axis(axes, places, numeric)
        return handles

    def draw_paper(axes: Axes) -> None:
        for curve in curves:
            theirs = sorted((places[value], 100 * cell.paper) for value, cell in curve.points if cell.paper is not None)
            if theirs:
                x, y = np.array(theirs).T
                axes.plot(x, y, **{**curve.look, "linestyle": ":", "markerfacecolor": "none"})
        axes.set(ylabel="the paper’s (%)", xlabel=_short(xlabel, _TITLE))
        _values_axis(axes, places, numeric)

    from_paper = any(cell.paper is not None for curve in curves for _, cell in curve.points)
    return _svg([draw, draw_paper] if from_paper else [draw], title)


def _values_axis(axes: Axes, places: Mapping[Any, float], numeric: bool) -> None:
    from matplotlib.ticker import NullLocator

    if numeric and min(places.values()) > 0 and max(places.values()) > 10 * min(places.values()):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    words = {x: _worded(value) for value, x in places.items()}
    # Slanted where they would overlap.
    crowded = sum(len(word) + 2 for word in words.values()) * _CHARACTER > _WIDTH - 1
    axes.set_xticks(
        list(words),
        [_short(word) for word in words.values()],
        rotation=30 if crowded else 0,
        ha="right" if crowded else "center",
        rotation_mode="anchor",
    )
    if not numeric:
        axes.margins(x=0.08)


def _worded(value: Any) -> str:
    """A swept value as a configuration writes it, with separators of thousands."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def _short(name: str, longest: int = _LONGEST) -> str:
    """A name cut in its middle, because both its ends tell it from others."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[1 - half :]}"


def _svg(panels: Sequence[Callable[[Axes], Any]], title: str) -> str:
    """Panels one below the other, and below them the legend of the first; each panel's function returns its handles."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # The same comparison gives the same bytes: no date, no random identifiers; text as outlines. Figure without pyplot:
    # no global state, no window, whatever the user's backend.
    with matplotlib.rc_context({"svg.hashsalt": "formulavision", "svg.fonttype": "path"}):
        heights = [_HEIGHT, *[_PANEL] * (len(panels) - 1)]
        figure = Figure(layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        every = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        handles: list[Any] = []
        for axes, draw in zip(every, panels, strict=True):
            handles += draw(axes) or []
            axes.grid(alpha=0.3, lw=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.label_outer()
        every[0].set_title("\n".join(textwrap.wrap(_short(title, 2 * _TITLE), _TITLE)), fontsize="medium")
        labels = [str(handle.get_label()) for handle in handles]
        widest = max((len(label) for label in labels), default=0) * _CHARACTER + 0.6
        columns = min(4, max(1, len(labels)), max(1, int(_WIDTH / widest)))
        lines_of_legend = -(-len(labels) // columns)
        figure.set_size_inches(_WIDTH, sum(heights) + _LINE * (lines_of_legend - 1))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
        content = io.StringIO()
        figure.savefig(content, format="svg", metadata={"Date": None}, facecolor="white")
    return content.getvalue()
