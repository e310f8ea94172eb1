"""The report: one HTML file that needs nothing but a browser."""

from __future__ import annotations

import base64
import importlib.metadata
import io
import platform
from dataclasses import dataclass, field
from pathlib import Path

from formulavision.comparison.config import ComparisonSettings
from formulavision.comparison.plots import History, accuracy_by_epoch, pretraining_by_epoch
from formulavision.comparison.results import Comparison, Row, caption, mean, table, write_text
from formulavision.comparison.stages import Finetuning, Pretraining
from formulavision.drawing import Drawer
from formulavision.errors import FormulaVisionError
from formulavision.recipe import Recipe
from formulavision.registry import plugins
from formulavision.sheets import contact_sheet

__all__ = ["write_report"]

_PACKAGES = ("formulavision", "torch", "torchvision", "timm", "lightning", "numpy", "numba")
_SHEET = {"categories": 6, "instances": 8}
_SHEET_WIDTH = 1000
"""Pixels; the report is read at this width at most, and must not grow to tens of megabytes."""


@dataclass
class _Picture:
    title: str
    alt: str
    source: str


@dataclass
class _ArmView:
    """What the report says of an arm beside its numbers."""

    name: str
    origin: str
    sheet: _Picture | None = None
    problem: str = ""
    yaml: str = ""


@dataclass
class _Times:
    """Mean seconds and images per second of each stage over the seeds, as text."""

    arm: str
    downstream: str
    freeze: str
    values: list[tuple[str, str]] = field(default_factory=list)


def write_report(comparison: Comparison, stages: list[Finetuning]) -> Path:
    """Write ``report.html`` and ``plots/*.svg`` into the comparison's folder.

    Raises:
        StoreError: they cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    settings = comparison.settings
    plots = _plots(settings, stages)
    (comparison.folder / "plots").mkdir(exist_ok=True)
    for name, (_, svg) in plots.items():
        write_text(comparison.folder / "plots" / f"{name}.svg", svg)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    text = template.render(
        settings=settings,
        caption=caption(settings),
        frozen=len(settings.freeze) > 1,
        scratch=any(arm.from_scratch for arm in settings.arms.values()),
        lines=table(settings, comparison.rows),
        rows=comparison.rows,
        failures=list(dict.fromkeys((row.arm, row.downstream, row.error) for row in comparison.rows if row.error)),
        curves=[picture for name, (picture, _) in plots.items() if name.startswith("accuracy-")],
        pretraining=[picture for name, (picture, _) in plots.items() if name.startswith("pretraining-")],
        arms=[_arm(settings, name) for name in settings.arms],
        times=_times(comparison.rows),
        configuration=settings.to_yaml(),
        versions=_versions(settings),
        percent=lambda value: "–" if value is None else f"{100 * value:.1f}",
        number=lambda value: "–" if value is None else f"{value:.3f}",
    )
    write_text(comparison.report, text)
    return comparison.report


def _plots(settings: ComparisonSettings, stages: list[Finetuning]) -> dict[str, tuple[_Picture, str]]:
    """Pictures for the report and their SVG, by the name of the file in ``plots/``."""
    result: dict[str, tuple[_Picture, str]] = {}
    scratch = next((name for name, arm in settings.arms.items() if arm.from_scratch), None)
    for downstream in settings.downstreams:
        for freeze in settings.freeze:
            histories = {
                arm: [
                    _history(stage.folder)
                    for stage in stages
                    if (stage.arm, stage.downstream, stage.freeze) == (arm, downstream, freeze)
                ]
                for arm in settings.arms
            }
            title = downstream if settings.freeze == ["none"] else f"{downstream}, frozen: {freeze}"
            if any(run for runs in histories.values() for run in runs):
                svg = accuracy_by_epoch(histories, scratch=scratch, title=title)
                name = f"accuracy-{downstream}" + ("" if len(settings.freeze) == 1 else f"-{freeze}")
                result[name] = (
                    _picture(title, f"Top-1 accuracy on {title} by fine-tuning epoch, a line an arm", svg),
                    svg,
                )
    before = {stage.start.folder: stage.start for stage in stages if isinstance(stage.start, Pretraining)}
    pretraining = {
        arm: [_history(stage.folder) for stage in before.values() if stage.arm == arm] for arm in settings.arms
    }
    if any(run for runs in pretraining.values() for run in runs):
        for key, svg in zip(("accuracy", "loss"), pretraining_by_epoch(pretraining, scratch=scratch), strict=True):
            alt = f"Training {key} by pre-training epoch, a line an arm"
            result[f"pretraining-{key}"] = (_picture(f"Pre-training {key}", alt, svg), svg)
    return result


def _history(folder: Path) -> History:
    from formulavision.training import Run

    return Run.load(folder).history if (folder / "run.json").is_file() else ()


def _picture(title: str, alt: str, svg: str) -> _Picture:
    return _Picture(title, alt, "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode())


def _arm(settings: ComparisonSettings, name: str) -> _ArmView:
    arm = settings.arms[name]
    if arm.checkpoint is not None:
        return _ArmView(name, f"checkpoint {arm.checkpoint}")
    if arm.recipe is None:
        return _ArmView(name, "training from scratch")
    recipe = arm.recipe
    view = _ArmView(
        name,
        f"{recipe.num_categories:,} categories × {recipe.num_instances:,} instances "
        f"({len(recipe):,} images), drawn by {recipe.generator.name} of {plugins()[recipe.generator.name].origin}",
        yaml=recipe.to_yaml(),
    )
    try:
        view.sheet = _sheet(name, recipe)
    except FormulaVisionError as error:
        # An arm whose generator fails has its line in the report all the same.
        view.problem = str(error)
    return view


def _sheet(name: str, recipe: Recipe) -> _Picture:
    image = contact_sheet(Drawer(recipe), **_SHEET)
    image.thumbnail((_SHEET_WIDTH, _SHEET_WIDTH * 4))
    if recipe.canvas.channels == 1:
        image = image.convert("L")
    content = io.BytesIO()
    image.save(content, format="PNG", optimize=True)
    alt = f"Images of arm {name}: categories down, instances across"
    return _Picture(name, alt, "data:image/png;base64," + base64.b64encode(content.getvalue()).decode())


def _times(rows: list[Row]) -> list[_Times]:
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.arm, row.downstream, row.freeze), []).append(row)
    result = []
    for key, group in groups.items():
        times = _Times(*key)
        for stage in ("generate", "pretrain", "finetune", "evaluate"):
            seconds = mean(getattr(row, f"{stage}_seconds") for row in group)
            rate = mean(getattr(row, f"{stage}_images_per_second", None) for row in group)
            times.values.append((_duration(seconds), "–" if rate is None else f"{rate:,.0f}"))
        result.append(times)
    return result


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _versions(settings: ComparisonSettings) -> list[tuple[str, str]]:
    result = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            result[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    for arm in settings.arms.values():
        if arm.recipe is not None:
            origin = plugins()[arm.recipe.generator.name]
            result.setdefault(origin.package, origin.package_version)
    return list(result.items())
