"""The report's plots, as SVG that needs no font and no network."""

from __future__ import annotations

import io
import itertools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from formulavision.comparison.results import ArmFacts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FEW", "Curve", "Epochs", "History", "Look", "Point", "by_epoch", "by_value", "looks", "worded"]

History = Sequence[Mapping[str, Any]]
"""A run's rows, one an epoch."""

Look = Mapping[str, Any]
"""How matplotlib draws a line."""

FEW = 8
"""Lines that a plot of this size shows apart; the legend of more stands beside it."""

# Okabe and Ito's colours for all kinds of colour vision ("Color Universal Design", 2008), less the yellow that white
# swallows. Markers and, from the seventh line on, dashes say the same again for print in gray.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = ("-", "--", ":", "-.")
_SCRATCH: dict[str, Any] = {"color": "#000000", "linestyle": "--", "marker": "x"}

_WIDTH, _HEIGHT = 5.2, 3.8
_PANEL = 1.8
"""Inches that the panel of the paper's numbers is high."""
_TITLE = 52
"""Characters of a title that stand in a line."""
_LINE = 0.21
"""Inches from one line of a legend to the next."""
_CHARACTER = 0.085
"""Inches that a character of a legend takes, about."""
_LONGEST = 34
"""Characters of a name in a legend."""


@dataclass(frozen=True)
class Point:
    """A score at one value of a setting, as shares of 1.

    Attributes:
        spread: standard deviation over seeds; None of fewer than two.
        paper: the paper's number.
    """

    x: float | str
    mean: float | None
    spread: float | None
    paper: float | None


@dataclass(frozen=True)
class Curve:
    """A line of scores over a setting's values."""

    label: str
    look: Look
    points: Sequence[Point]


@dataclass(frozen=True)
class Epochs:
    """A line over epochs: the mean of the runs, a seed each, with their range as a band."""

    label: str
    look: Look
    runs: Sequence[History]


def looks(arms: Mapping[str, ArmFacts]) -> dict[str, Look]:
    """How each arm is drawn, in every plot the same, and the arm in the file that a sweep stands in the place of.

    Arms of one sweep go from dark to lighter (viridis, which all kinds of colour vision order alike).
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
    sweeps: dict[tuple[str, str | None], list[str]] = {}
    for name, facts in arms.items():
        if facts.path is not None:
            sweeps.setdefault((facts.base, facts.path), []).append(name)
    for (base, _), names in sweeps.items():
        for i, name in enumerate(names):
            colour = colormaps["viridis"](0.75 * i / max(1, len(names) - 1))
            result[name] = {**result[base], "color": colour}
    return result


def by_epoch(lines: Sequence[Epochs], column: str, *, scale: float, title: str, xlabel: str, ylabel: str) -> str | None:
    """A column of the histories by epoch as SVG; None where no history has it.

    Args:
        scale: what the column is multiplied by.
    """
    found = [(line, _over_seeds(line.runs, column, scale)) for line in lines]
    found = [(line, values) for line, values in found if values.size]
    if not found:
        return None

    def draw(axes: Axes) -> None:
        for line, values in found:
            there = np.isfinite(values).all(axis=0)
            x, values = np.arange(1, len(there) + 1)[there], values[:, there]
            every = max(1, len(x) // 15)
            axes.plot(x, values.mean(0), label=_short(line.label), markersize=5, markevery=every, **line.look)
            if len(values) > 1:
                axes.fill_between(x, values.min(0), values.max(0), alpha=0.15, color=line.look["color"], lw=0)
        axes.set(xlabel=_short(xlabel, _TITLE), ylabel=ylabel)
        _whole_numbers(axes)

    return _svg([draw], title)


def by_value(
    curves: Sequence[Curve], *, title: str, xlabel: str, ylabel: str, baseline: tuple[str, Look, float] | None = None
) -> str:
    """Scores over the values of a setting, with bars of one standard deviation, as SVG.

    Numbers stand on a numeric axis, on a logarithmic one where they span more than a decade; words beside each other
    in the order given. The paper's numbers, which at another scale may be far from ours, are hollow and dotted, in a
    panel of their own below.

    Args:
        baseline: name, look and mean score of an arm for which the setting is none, drawn across.
    """
    values = list(dict.fromkeys(point.x for curve in curves for point in curve.points))
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places: dict[Any, float] = {value: float(value) if numeric else i for i, value in enumerate(values)}

    def draw(axes: Axes) -> None:
        for curve in curves:
            there = [(places[p.x], 100 * p.mean, 100 * (p.spread or 0)) for p in curve.points if p.mean is not None]
            x, y, bars = np.array(sorted(there)).reshape(-1, 3).T
            axes.errorbar(x, y, bars if bars.any() else None, label=_short(curve.label), capsize=3, **curve.look)
        if baseline is not None:
            name, look_across, score = baseline
            axes.axhline(
                100 * score, color=look_across["color"], linestyle=look_across["linestyle"], lw=1, label=_short(name)
            )
        axes.set(ylabel=ylabel, xlabel=_short(xlabel, _TITLE))
        _values_axis(axes, places, numeric)

    def draw_paper(axes: Axes) -> None:
        for curve in curves:
            theirs = sorted((places[p.x], 100 * p.paper) for p in curve.points if p.paper is not None)
            if theirs:
                x, y = np.array(theirs).T
                axes.plot(x, y, **{**curve.look, "linestyle": ":", "markerfacecolor": "none"})
        axes.set(ylabel="the paper’s (%)", xlabel=_short(xlabel, _TITLE))
        _values_axis(axes, places, numeric)

    from_paper = any(point.paper is not None for curve in curves for point in curve.points)
    return _svg([draw, draw_paper] if from_paper else [draw], title)


def _values_axis(axes: Axes, places: Mapping[Any, float], numeric: bool) -> None:
    from matplotlib.ticker import NullLocator

    if numeric and min(places.values()) > 0 and max(places.values()) > 10 * min(places.values()):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    words = {x: worded(value) for value, x in places.items()}
    # Slanted where they would run into each other.
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


def _over_seeds(runs: Sequence[History], column: str, scale: float) -> np.ndarray:
    """float64 [seeds, epochs] of the epochs that all runs have, nan where a run does not have the column."""
    curves = [[np.nan if row.get(column) is None else row[column] * scale for row in run] for run in runs]
    curves = [curve for curve in curves if np.isfinite(curve).any()]
    epochs = min((len(curve) for curve in curves), default=0)
    return np.array([curve[:epochs] for curve in curves], dtype=float).reshape(len(curves), epochs)


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def worded(value: Any) -> str:
    """A swept value as a configuration writes it, thousands apart."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def _short(name: str, longest: int = _LONGEST) -> str:
    """A name cut in its middle, because both its ends tell it from others."""
    half = longest // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[1 - half :]}"


def _wrapped(title: str) -> str:
    """A title in as many lines as it takes."""
    return "\n".join(textwrap.wrap(_short(title, 2 * _TITLE), _TITLE))


def _svg(panels: Sequence[Callable[[Axes], None]], title: str) -> str:
    """What is drawn into panels one below the other, and the legend of the first: below, or beside where it is long."""
    import matplotlib
    from matplotlib.lines import Line2D

    # The same comparison gives the same bytes: no date, no random identifiers; text as outlines.
    with matplotlib.rc_context({"svg.hashsalt": "formulavision", "svg.fonttype": "path"}):
        height = _HEIGHT + _PANEL * (len(panels) - 1)
        figure = _figure(_WIDTH, height)
        every = figure.subplots(
            len(panels), sharex=True, squeeze=False, height_ratios=[_HEIGHT, *[_PANEL] * (len(panels) - 1)]
        )[:, 0]
        for axes, draw in zip(every, panels, strict=True):
            draw(axes)
            axes.grid(alpha=0.3, lw=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.label_outer()
        every[0].set_title(_wrapped(title), fontsize="medium")
        # Matplotlib puts lines before those with bars; what is drawn across comes last.
        entries = sorted(
            zip(*every[0].get_legend_handles_labels(), strict=True), key=lambda e: isinstance(e[0], Line2D)
        )
        handles, labels = [handle for handle, _ in entries], [label for _, label in entries]
        widest = max((len(label) for label in labels), default=0) * _CHARACTER + 0.6
        if len(labels) > FEW:
            figure.set_size_inches(_WIDTH + widest, max(height, _LINE * len(labels) + 0.4))
            figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize="small")
        elif labels:
            columns = min(4, len(labels), max(1, int(_WIDTH / widest)))
            figure.set_size_inches(_WIDTH, height + _LINE * (-(-len(labels) // columns) - 1))
            figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
        content = io.StringIO()
        figure.savefig(content, format="svg", metadata={"Date": None}, facecolor="white")
    return content.getvalue()


def _figure(width: float, height: float) -> Figure:
    # Figure without pyplot: no global state, no window, whatever the user's backend.
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
