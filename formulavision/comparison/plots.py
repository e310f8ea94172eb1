"""The report's plots, as SVG without fonts or links to the network."""

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

from formulavision.comparison.pictures import Illustration, data_uri
from formulavision.comparison.results import ArmFacts, History, write_text
from formulavision.comparison.settings import PROBE
from formulavision.comparison.tables import Cell, Table
from formulavision.comparison.wording import place_text
from formulavision.training.runs import unit_of, when

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FEW", "Curve", "Look", "Plots", "Runs", "by_epoch", "by_value", "looks"]

Look = Mapping[str, Any]
"""Arguments of matplotlib for a line."""

FEW = 8
"""Number of lines that can be told apart in a plot of this size."""

# Okabe and Ito's colours for all kinds of colour vision ("Color Universal Design", 2008), without the yellow, which is
# hard to see on white. Markers and, from the seventh line on, dashes distinguish the lines when printed in gray.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = ("-", "--", ":", "-.")
_SCRATCH: dict[str, Any] = {"color": "#000000", "linestyle": "--", "marker": "x"}

_WIDTH, _HEIGHT = 5.2, 3.8
"""Inches, with one line of legend."""
_PANEL = 1.8
"""Height of the panel with the paper's numbers, inches."""
_LINE = 0.21
"""Height of a line of the legend, inches."""
_CHARACTER = 0.085
"""Mean width of a character, inches."""
_TITLE, _LONGEST = 52, 34
"""Characters of a line of the title, and of a name in the legend."""

_PRETRAINING = {
    "loss": ("train_loss", 1, "training loss"),
    "accuracy": ("train_accuracy", 100, "training accuracy (%)"),
    "miou": ("train_miou", 100, "training mIoU (%)"),
    "held-out": ("validation_accuracy", 100, "accuracy on held-out images (%)"),
    "held-out-miou": ("validation_miou", 100, "mIoU on held-out images (%)"),
}
"""Name of the plot -> column of the history, factor, and label of the axis."""


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
    """The plots of a comparison. Each may also be written as an SVG file.

    Args:
        folder: for the files; None: no files are written.
        arms: with a line each in the plots that have a line an arm.
    """

    def __init__(self, table: Table, folder: Path | None, arms: Sequence[str]) -> None:
        self.table = table
        self.findings = table.findings
        self.folder = folder
        self.arms = arms
        self.looks = looks(self.findings.arms)
        self.finetuned = [freeze for freeze in self.findings.by_frozen if not freeze.endswith(PROBE)]
        self._files: dict[str, tuple[str, ...]] = {}

    def sweeps(self) -> Iterator[Illustration]:
        """Score by the value of a swept setting, a line for each arm of the configuration (figure 4, tables 1 to 5)."""
        arms, cells = self.findings.arms, self.table.cells
        for path in dict.fromkeys(facts.path for facts in arms.values() if facts.path is not None):
            swept = {name: facts for name, facts in arms.items() if facts.path == path}
            bases = dict.fromkeys(facts.base for facts in swept.values())
            # A baseline that is the same for all swept arms, and is not swept itself, is a line across.
            baselines = {facts.baseline for facts in arms.values() if facts.base in bases}
            baseline = next((name for name in baselines if name in arms and arms[name].path is None), None)
            for downstream, freeze in itertools.product(self.findings.downstreams, self.findings.freezes):
                lines: dict[str, list[tuple[float | str, Cell]]] = {base: [] for base in bases}
                for name, facts in swept.items():
                    lines[facts.base].append((facts.value, cells[name, freeze, downstream]))
                across = cells[baseline, freeze, downstream] if baseline and len(baselines) == 1 else None
                title = f"{path.rpartition('.')[2]}, {place_text(downstream, freeze)}"
                yield from self._by_value((f"sweep-{path}", downstream, freeze), title, path, lines, across)

    def freezing(self) -> Iterator[Illustration]:
        """Score by the frozen layers, a line an arm (table 8)."""
        for downstream in self.findings.downstreams if len(self.finetuned) > 1 else ():
            lines = {arm: [(f, self.table.cells[arm, f, downstream]) for f in self.finetuned] for arm in self.arms}
            yield from self._by_value(("freezing", downstream), downstream, "frozen layers", lines)

    def _by_value(
        self,
        name: Sequence[str],
        title: str,
        xlabel: str,
        lines: Mapping[str, Sequence[tuple[float | str, Cell]]],
        across: Cell | None = None,
    ) -> Iterator[Illustration]:
        curves = [Curve(a, self.looks[a], line) for a, line in lines.items() if any(cell.seeds for _, cell in line)]
        if curves:
            downstream = name[1]
            metric = self.findings.metric(downstream)
            baseline = None
            if across is not None and across.mean is not None:
                baseline = across.arm, self.looks[self.findings.arms[across.arm].base], across.mean
            svg = by_value(curves, title=title, xlabel=xlabel, ylabel=f"{metric} (%)", baseline=baseline)
            yield self._keep(name, title, f"{metric} on {downstream} by {xlabel}", svg)

    def scores(self, freezes: Sequence[str]) -> Iterator[Illustration]:
        """Score by epoch of fine-tuning, a line an arm (figure 1b)."""
        for downstream, freeze in itertools.product(self.findings.downstreams, freezes):
            cells = {arm: self.table.cells[arm, freeze, downstream] for arm in self.arms}
            lines = [Runs(a, self._look(a), [r.history for r in cell.results]) for a, cell in cells.items()]
            title = place_text(downstream, freeze)
            quantity = self.findings.curve(downstream), 100, f"{self.findings.metric(downstream)} (%)"
            yield from self._by_epoch(("accuracy", downstream, freeze), title, "fine-tuning", lines, *quantity)

    def pretraining(self) -> Iterator[tuple[str, list[Illustration]]]:
        """Loss and accuracy by epoch of pre-training (figure 5 with noisy labels).

        If the arms are many, each sweep has plots of its own behind those of the others.
        """
        arms = self.findings.arms
        groups = {("", ""): [Runs(arm, self._look(arm), self._pretraining(arm)) for arm in self.arms]}
        for name, facts in arms.items():
            if len(arms) > FEW and facts.path is not None:
                line = Runs(_worded(facts.value), self.looks[name], self._pretraining(name))
                groups.setdefault((facts.base, facts.path), []).append(line)
        for (base, path), lines in groups.items():
            title = f"{base}, {path}" if base else "pre-training"
            plots: list[Illustration] = []
            for key, quantity in _PRETRAINING.items():
                plots += self._by_epoch((f"pretraining-{key}", base, path), title, "pre-training", lines, *quantity)
            if plots:
                yield title, plots

    def _pretraining(self, arm: str) -> list[History]:
        """A history a seed: all downstreams start from the same."""
        starts = {r.seed: r.start for r in self.findings.results if r.arm == arm and r.start is not None}
        return [self.findings.pretrainings[start] for start in starts.values() if start in self.findings.pretrainings]

    def _by_epoch(
        self,
        name: Sequence[str],
        title: str,
        training: str,
        lines: Sequence[Runs],
        column: str,
        scale: float,
        ylabel: str,
    ) -> Iterator[Illustration]:
        unit = unit_of(history for line in lines for history in line.histories)
        svg = by_epoch(lines, column, scale=scale, title=title, xlabel=f"{training} {unit}", ylabel=ylabel)
        if svg is not None:
            of = "" if title == training else f" on {title}"
            alt = f"{ylabel.removesuffix(' (%)')}{of} by {training} {unit}, a line an arm"
            yield self._keep(name, title, alt, svg)

    def _look(self, arm: str) -> Look:
        """An arm's look in a plot of all arms; many arms of one sweep have the same."""
        few = len(self.findings.arms) <= FEW
        return self.looks[arm if few else self.findings.arms[arm].base]

    def _keep(self, name: Iterable[str], title: str, alt: str, svg: str) -> Illustration:
        parts = tuple(name)
        stem = re.sub(r"[^A-Za-z0-9._+-]", "_", "-".join(part for part in parts if part not in ("", "none")))
        while self._files.setdefault(stem, parts) != parts:  # of another plot
            stem += "-2"
        if self.folder is not None:
            write_text(self.folder / f"{stem}.svg", svg)
        return Illustration(title, f"{alt[0].upper()}{alt[1:]}", data_uri(svg.encode(), "image/svg+xml"))


def looks(arms: Mapping[str, ArmFacts]) -> dict[str, Look]:
    """Look of each arm in every plot, and of each arm of the configuration that is swept.

    Arms of one sweep go from dark to light (viridis, which all kinds of colour vision order alike).
    """
    from matplotlib import colormaps

    cycle = itertools.cycle(
        {"color": colour, "marker": marker, "linestyle": dash}
        for dash in _DASHES
        for colour, marker in zip(_COLOURS, _MARKERS, strict=True)
    )
    result: dict[str, Look] = {}
    sweeps: dict[tuple[str, str], list[str]] = {}
    for name, facts in arms.items():
        if facts.base not in result:
            scratch = facts.scratch and _SCRATCH not in result.values()
            result[facts.base] = _SCRATCH if scratch else next(cycle)
        if facts.path is not None:
            sweeps.setdefault((facts.base, facts.path), []).append(name)
    for (base, _), names in sweeps.items():
        for i, name in enumerate(names):
            result[name] = {**result[base], "color": colormaps["viridis"](0.75 * i / max(1, len(names) - 1))}
    return result


def by_epoch(lines: Sequence[Runs], column: str, *, scale: float, title: str, xlabel: str, ylabel: str) -> str | None:
    """A column of the histories by epoch, or by step in runs of steps, as SVG; None if no history has it.

    Where some lines have epochs and others steps, the axis counts their rows.

    Args:
        scale: factor of the column.
    """
    found = [(line, values) for line in lines if (values := _over_seeds(line.histories, column, scale)).size]
    if not found:
        return None
    mixed = len({when(row)[0] for line in lines for history in line.histories for row in history}) > 1

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for line, values in found:
            there = np.isfinite(values).all(axis=0)
            longest: History = max(line.histories, key=lambda history: len(history))
            numbers = np.array([i if mixed else when(row)[1] for i, row in enumerate(longest, start=1)])
            x, values = numbers[: values.shape[1]][there], values[:, there]
            every = max(1, len(x) // 15)
            axes.plot(x, values.mean(0), label=_short(line.label), markersize=5, markevery=every, **line.look)
            if len(values) > 1:
                axes.fill_between(x, values.min(0), values.max(0), alpha=0.15, color=line.look["color"], lw=0)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return _svg([draw], title)


def _over_seeds(histories: Sequence[History], column: str, scale: float) -> NDArray[np.float64]:
    """float64 [seeds, epochs] of the epochs that all runs have; nan if an epoch has no value."""
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

    Numbers are on a numeric axis, on a logarithmic one if they span more than a decade. Words stand side by side in the
    order given. The paper's numbers, which may be far from ours because of their scale, are hollow and dotted, in a
    panel of their own below.

    Args:
        baseline: name, look and mean score of an arm without the setting, a line across.
    """
    values = list(dict.fromkeys(value for curve in curves for value, _ in curve.points))
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places: dict[Any, float] = {value: float(value) if numeric else i for i, value in enumerate(values)}

    def draw(axes: Axes) -> None:
        for curve in curves:
            there = [(places[v], 100 * c.mean, 100 * (c.spread or 0)) for v, c in curve.points if c.mean is not None]
            x, y, bars = np.array(sorted(there)).reshape(-1, 3).T
            axes.errorbar(x, y, bars if bars.any() else None, label=_short(curve.label), capsize=3, **curve.look)
        if baseline is not None:
            name, look, score = baseline
            style = {"color": look["color"], "linestyle": look["linestyle"]}
            axes.axhline(100 * score, lw=1, label=_short(name), **style)
        axes.set(ylabel=ylabel)
        label_values(axes)

    def draw_paper(axes: Axes) -> None:
        for curve in curves:
            theirs = sorted((places[value], 100 * cell.paper) for value, cell in curve.points if cell.paper is not None)
            if theirs:
                x, y = np.array(theirs).T
                axes.plot(x, y, **{**curve.look, "linestyle": ":", "markerfacecolor": "none"})
        axes.set(ylabel="the paper’s (%)")
        label_values(axes)

    def label_values(axes: Axes) -> None:
        from matplotlib.ticker import NullLocator

        axes.set(xlabel=_short(xlabel, _TITLE))
        if numeric and min(places.values()) > 0 and max(places.values()) > 10 * min(places.values()):
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
        words = [_short(_worded(value)) for value in places]
        # Slanted if they would overlap.
        crowded = sum(len(word) + 2 for word in words) * _CHARACTER > _WIDTH - 1
        slant: dict[str, Any] = {"rotation": 30, "ha": "right"} if crowded else {}
        axes.set_xticks(list(places.values()), words, rotation_mode="anchor", **slant)
        if not numeric:
            axes.margins(x=0.08)

    from_paper = any(cell.paper is not None for curve in curves for _, cell in curve.points)
    return _svg([draw, draw_paper] if from_paper else [draw], title)


def _worded(value: Any) -> str:
    """A swept value as a configuration writes it, with separators of thousands."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def _short(name: str, longest: int = _LONGEST) -> str:
    """A name cut in its middle, because both its ends distinguish it from others."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[1 - half :]}"


def _svg(panels: Sequence[Callable[[Axes], None]], title: str) -> str:
    """Panels one below the other, and below them the legend of the first; each panel's function draws its content."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # The same comparison gives the same bytes: no date, no random identifiers, text as outlines. Figure without pyplot:
    # no global state and no window with any backend of the user.
    with matplotlib.rc_context({"svg.hashsalt": "formulavision", "svg.fonttype": "path"}):
        heights = [_HEIGHT, *[_PANEL] * (len(panels) - 1)]
        figure = Figure(layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        every = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for axes, draw in zip(every, panels, strict=True):
            draw(axes)
            axes.grid(alpha=0.3, lw=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.label_outer()
        every[0].set_title("\n".join(textwrap.wrap(_short(title, 2 * _TITLE), _TITLE)), fontsize="medium")
        handles, labels = every[0].get_legend_handles_labels()
        widest = max((len(label) for label in labels), default=0) * _CHARACTER + 0.6
        columns = min(4, max(1, len(labels)), max(1, int(_WIDTH / widest)))
        lines_of_legend = -(-len(labels) // columns)
        figure.set_size_inches(_WIDTH, sum(heights) + _LINE * (lines_of_legend - 1))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
        content = io.StringIO()
        figure.savefig(content, format="svg", metadata={"Date": None}, facecolor="white")
    return content.getvalue()
