"""What a comparison says of its arms, and of the machine that computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from formulavision.comparison.arms import Arm
from formulavision.comparison.config import ComparisonSettings
from formulavision.comparison.plan import Datasets, ResultStage
from formulavision.comparison.results import ArmFacts, Computed, Findings, Result
from formulavision.generators.registry import plugins
from formulavision.util.machine import cores, processor, versions

if TYPE_CHECKING:
    from formulavision.data.labels import LabelSettings
    from formulavision.training.settings import TrainSettings

__all__ = ["first_findings", "this_machine"]


def first_findings(settings: ComparisonSettings, stages: Sequence[ResultStage], datasets: Datasets) -> Findings:
    """Findings of a comparison whose rows are yet to be computed."""
    contents = {stage.arm: stage.content for stage in stages}
    arms = {}
    # An arm without rows, as training from scratch where there are probes only, has no line either.
    for name in contents:
        variant = settings.variants[name]
        recipe = variant.arm.recipe
        arms[name] = ArmFacts(
            content=contents[name],
            origin=_origin(variant.arm, datasets),
            scratch=variant.arm.from_scratch,
            baseline=settings.baseline(name),
            base=variant.base,
            path=variant.path,
            value=variant.value,
            recipe=None if recipe is None else recipe.to_dict(),
        )
    return Findings(
        name=settings.name,
        size=settings.size,
        model=settings.model,
        data=settings.data,
        arms=arms,
        downstreams={name: datasets.digest(dataset) for name, dataset in settings.downstreams.items()},
        freezes=settings.treatments,
        results=[Result(stage.arm, stage.downstream, stage.freeze, stage.seed) for stage in stages],
        paper=settings.paper,
        reach=settings.reach,
        pictures=list(settings.pictures),
        configurations={settings.name: settings.to_yaml()},
    )


def _origin(arm: Arm, datasets: Datasets) -> str:
    """Where an arm's weights come from, in words."""
    if arm.checkpoint is not None:
        return f"checkpoint {arm.checkpoint}"
    if arm.recipe is not None:
        recipe = arm.recipe
        text = (
            f"{recipe.num_categories:,} categories × {recipe.num_instances:,} instances ({len(recipe):,} images), "
            f"drawn by {recipe.generator.name} of {plugins()[recipe.generator.name].origin}"
        )
    elif arm.images is not None:
        opened = datasets[arm.images]
        text = f"{len(opened.train):,} images of {opened.num_classes:,} classes of {opened.name}"
    else:
        return "training from scratch"
    return text if arm.labels is None else f"{text}, {_labels(arm.labels)}"


def _labels(labels: LabelSettings) -> str:
    if labels.noise is not None:
        return f"{100 * labels.noise:g} % of the labels replaced"
    return f"labelled by {labels.clusters:,} clusters of a network's features"


def this_machine(settings: ComparisonSettings, arm: str, trained: TrainSettings) -> Computed:
    """Where and by what a row of an arm, trained by these settings, is computed."""
    found = versions()
    recipe = settings.variants[arm].arm.recipe
    if recipe is not None:
        origin = plugins()[recipe.generator.name]
        found.setdefault(origin.package, origin.package_version)
    return Computed(machine=_machine(trained), versions=found)


def _machine(trained: TrainSettings) -> str:
    """Processor, cores that this process may use, threads, accelerator, precision and device."""
    import torch

    from formulavision.training.fit import resolve_device, resolve_precision

    parts = [processor(), f"{cores()} cores", f"{torch.get_num_threads()} threads"]
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        parts += [f"{devices.count(name)} x {name}" for name in dict.fromkeys(devices)]
    device = resolve_device(trained.device)
    return ", ".join([*parts, f"{resolve_precision(trained.precision, device)} on {device.type}"])
