"""Plots put values where a reader looks for them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from formulavision.comparison.plots import FEW, Curve, Plots, Runs, by_epoch, by_value, looks
from formulavision.comparison.results import ArmFacts, Findings
from formulavision.comparison.tables import Cell, table_of

LOOK = {"color": "#0072B2", "marker": "o", "linestyle": "-"}


def curve(*values: float | str, paper: float | None = None) -> Curve:
    cells = [
        Cell(arm="arm", freeze="none", downstream="digits", seeds=1, mean=0.5 + i / 100, paper=paper) for i in range(9)
    ]
    return Curve("arm", LOOK, list(zip(values, cells, strict=False)))


def plot(*curves: Curve) -> str:
    return by_value(curves, title="", xlabel="", ylabel="")


def ticks(svg: str) -> np.ndarray:
    """Where the labelled values stand on the axis, pixels from the first."""
    places = re.findall(r'<g id="xtick_\d+">\s*<g id="line2d_\d+">\s*<path d="M ([\d.]+)', svg)
    return np.array(places, float) - float(places[0])


def line(runs: list[list[float | None]]) -> Runs:
    histories = [[{"epoch": i, "accuracy": value} for i, value in enumerate(run, start=1)] for run in runs]
    return Runs("arm", LOOK, histories)


def epochs(*lines: Runs) -> str | None:
    return by_epoch(lines, "accuracy", scale=100, title="", xlabel="", ylabel="")


def arm(base: str, value: object = None, scratch: bool = False) -> ArmFacts:
    path = None if value is None else "seed"
    return ArmFacts(content="", origin="", scratch=scratch, base=base, path=path, value=value)


def test_numbers_are_spaced_by_their_size() -> None:
    places = ticks(plot(curve(0.1, 0.2, 0.4)))
    assert np.allclose(places / places[-1], [0, 1 / 3, 1])


def test_numbers_of_more_than_a_decade_are_spaced_by_their_logarithm() -> None:
    places = ticks(plot(curve(16, 128, 1024)))
    assert np.allclose(places / places[-1], [0, 0.5, 1])


def test_words_stand_side_by_side_in_the_order_given() -> None:
    places = ticks(plot(curve("point", "patch", "fixed")))
    assert np.allclose(places / places[-1], [0, 0.5, 1])


def test_the_papers_numbers_are_hollow_in_a_panel_of_their_own() -> None:
    both, ours = plot(curve(1, 2, paper=0.9)), plot(curve(1, 2))
    assert ("fill-opacity: 0" in both, "fill-opacity: 0" in ours) == (True, False)
    assert (both.count('id="axes_'), ours.count('id="axes_')) == (2, 1)


def test_our_axis_does_not_depend_on_the_papers_scale() -> None:
    def axis(svg: str) -> list[str]:
        return re.findall(r"<!-- ([\d.]+) -->", svg.partition('id="axes_2"')[0].partition('id="matplotlib.axis_2"')[2])

    assert axis(plot(curve(1, 2, paper=0.9))) == axis(plot(curve(1, 2))) != []


def test_a_long_title_is_wrapped() -> None:
    title = "fill_rate, a-dataset-of-many-words, frozen: all (nearest neighbours) and more"
    svg = by_value([curve(1, 2)], title=title, xlabel="", ylabel="")
    # Of each line of text, its outlines follow a comment.
    lines = [line for line in re.findall("<!-- (.*?) -->", svg) if line in title and not line.isdigit()]
    assert " ".join(lines) == title
    assert len(lines) == 2


def test_the_same_numbers_give_the_same_bytes() -> None:
    assert plot(curve(1, 2)) == plot(curve(1, 2))


def test_an_epoch_that_was_not_measured_is_passed_over() -> None:
    assert epochs(line([[0.1, None, 0.3]])) is not None


def test_there_is_no_plot_of_a_column_that_no_history_has() -> None:
    assert epochs(line([[None, None]]), line([])) is None


def test_the_legend_of_many_lines_makes_room_for_itself_below_them() -> None:
    def size(count: int) -> tuple[float, float]:
        svg = epochs(*[line([[0.1, 0.2]])] * count)
        width, height = re.findall(r'(?:width|height)="([\d.]+)pt"', svg or "")
        return float(width), float(height)

    assert size(40)[0] == size(FEW)[0] == size(1)[0]
    assert size(40)[1] > size(FEW)[1] > size(1)[1]


def test_thirty_arms_all_look_different() -> None:
    arms = {"scratch": arm("scratch", scratch=True), **{f"arm{i}": arm(f"arm{i}") for i in range(15)}}
    arms |= {f"swept-{i}": arm("swept", i) for i in range(15)}
    found = looks(arms)
    different = {tuple(map(str, (found[name]["color"], found[name]["linestyle"]))) for name in arms}
    assert len(different) == len(arms)


def test_plots_of_one_file_name_do_not_replace_each_other(tmp_path: Path) -> None:
    data = {"name": "", "size": "full", "model": "", "data": "on-demand", "arms": {}, "downstreams": {}, "freezes": [],
            "results": []}  # fmt: skip
    plots = Plots(table_of(Findings.model_validate(data), tmp_path), tmp_path, [])
    for name in (("accuracy", "d", "conv1"), ("accuracy", "d-conv1", "none"), ("accuracy", "d", "conv1")):
        plots._keep(name, "title", "alt", "-".join(name))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "accuracy-d-conv1.svg": "accuracy-d-conv1",
        "accuracy-d-conv1-2.svg": "accuracy-d-conv1-none",
    }
