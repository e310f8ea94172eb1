"""The report's plots, as SVG that needs no font and no network."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["History", "accuracy_by_epoch", "pretraining_by_epoch"]

History = Sequence[Mapping[str, Any]]
"""A run's rows, one an epoch."""

# Okabe and Ito's colours for all kinds of colour vision ("Color Universal Design", 2008), less the yellow that white
# swallows. Markers say the same again for print in gray.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_SCRATCH: dict[str, Any] = {"color": "#000000", "linestyle": "--", "marker": "x"}


def accuracy_by_epoch(histories: Mapping[str, Sequence[History]], *, scratch: str | None, title: str) -> str:
    """Validation accuracy by fine-tuning epoch, a line an arm (the paper's figure 1b), as SVG.

    Args:
        histories: by arm, a run for each seed; the line is their mean, the band their range.
        scratch: the arm that is drawn as the baseline.
        title: above the axes.
    """
    figure = _figure()
    axes = figure.subplots()
    _lines(axes, histories, "validation_accuracy", 100.0, scratch)
    axes.set(title=title, xlabel="fine-tuning epoch", ylabel="top-1 accuracy (%)")
    return _svg(figure, axes)


def pretraining_by_epoch(histories: Mapping[str, Sequence[History]], *, scratch: str | None) -> tuple[str, str]:
    """Training accuracy and loss by pre-training epoch, a line an arm, as two SVGs.

    Args:
        histories: by arm, a run for each seed. Arms without pre-training have none, and are here so that the others
            look the same in every plot.
        scratch: the arm that is drawn as the baseline elsewhere.
    """
    plots = []
    for key, scale, label in (("train_accuracy", 100.0, "training accuracy (%)"), ("train_loss", 1.0, "training loss")):
        figure = _figure()
        axes = figure.subplots()
        _lines(axes, histories, key, scale, scratch)
        axes.set(title="pre-training", xlabel="pre-training epoch", ylabel=label)
        plots.append(_svg(figure, axes))
    return plots[0], plots[1]


def _lines(axes: Axes, histories: Mapping[str, Sequence[History]], key: str, scale: float, scratch: str | None) -> None:
    looks = itertools.cycle(zip(_COLOURS, _MARKERS, strict=True))
    for arm, runs in histories.items():
        style = _SCRATCH
        if arm != scratch:
            colour, marker = next(looks)
            style = {"color": colour, "marker": marker, "linestyle": "-"}
        curves = [curve for curve in (_curve(run, key, scale) for run in runs) if curve.size]
        if not curves:
            continue
        epochs = min(len(curve) for curve in curves)
        values = np.stack([curve[:epochs] for curve in curves])
        x = np.arange(1, epochs + 1)
        axes.plot(x, values.mean(0), label=arm, markersize=5, markevery=max(1, epochs // 15), **style)
        if len(curves) > 1:
            axes.fill_between(x, values.min(0), values.max(0), alpha=0.15, color=style["color"], lw=0)


def _curve(run: History, key: str, scale: float) -> np.ndarray:
    return np.array([row[key] for row in run if row.get(key) is not None], dtype=float) * scale


def _figure() -> Figure:
    # Figure without pyplot: no global state, no window, whatever the user's backend.
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(5.2, 3.8), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))


def _svg(figure: Figure, axes: Axes) -> str:
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    _, labels = axes.get_legend_handles_labels()
    if labels:
        # Beside the lines it would cover them; below the axes it never does.
        figure.legend(loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    content = io.StringIO()
    # The same comparison gives the same bytes: no date, no random identifiers; text as outlines.
    with matplotlib.rc_context({"svg.hashsalt": "formulavision", "svg.fonttype": "path"}):
        figure.savefig(content, format="svg", metadata={"Date": None}, facecolor="white")
    return content.getvalue()
