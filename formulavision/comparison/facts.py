"""Descriptions for the report: of the arms of a comparison, and of the machine that computes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from formulavision.comparison.arms import Arm
from formulavision.comparison.plan import Datasets, ResultStage
from formulavision.comparison.results import ArmFacts, Findings, Provenance, Result
from formulavision.comparison.settings import ComparisonSettings
from formulavision.data.mixtures import MixturePart
from formulavision.generators.registry import plugins
from formulavision.recipes.recipe import Recipe
from formulavision.recipes.scenes import SceneSettings
from formulavision.util.machine import cores, processor, versions
from formulavision.util.text import counted

if TYPE_CHECKING:
    from formulavision.training.settings import TrainSettings

__all__ = ["first_findings", "this_machine"]


def first_findings(settings: ComparisonSettings, stages: Sequence[ResultStage], datasets: Datasets) -> Findings:
    """Findings of a comparison before any result is computed."""
    arms = {}
    # An arm without results, as training from scratch if there are only probes of a checkpoint, has no row either.
    for name, stage in {stage.arm: stage for stage in stages}.items():
        variant = settings.variants[name]
        recipe = variant.arm.recipe
        arms[name] = ArmFacts(
            content=stage.content,
            tuned=stage.tuned,
            origin=_origin(variant.arm, datasets) + _own_tuning(settings.arms[variant.base]),
            scratch=variant.arm.from_scratch,
            baseline=settings.baseline(name),
            base=variant.base,
            path=variant.path,
            value=variant.value,
            recipe=None if recipe is None else recipe.to_dict(),
            mixture=[dict(part.written) for part in variant.arm.mixture.parts] if variant.arm.mixture else [],
            clusters=variant.arm.labels.clusters if variant.arm.labels else None,
            finetune=variant.arm.finetune,
        )
    return Findings(
        **settings.model_dump(include={"name", "size", "model", "data", "paper", "reach", "pictures"}),
        arms=arms,
        downstreams={name: datasets.digest(dataset) for name, dataset in settings.downstreams.items()},
        described={name: datasets[dataset].content() for name, dataset in settings.downstreams.items()},
        freezes=settings.treatments,
        results=[Result(stage.arm, stage.downstream, stage.freeze, stage.seed) for stage in stages],
        configurations={settings.name: settings.to_yaml()},
        caveats={settings.name: settings.note} if settings.note else {},
    )


def _origin(arm: Arm, datasets: Datasets) -> str:
    """Source of an arm's weights, in words."""
    if arm.checkpoint is not None:
        return f"checkpoint {arm.checkpoint}"
    if arm.recipe is not None:
        text = _drawn(arm.recipe)
    elif arm.mixture is not None:
        text = f"mixture of {' and '.join(map(_mixed, arm.mixture.parts))}"
    elif arm.images is not None:
        opened = datasets[arm.images]
        text = f"{len(opened.train):,} images of {opened.num_classes:,} classes of {opened.name}"
    else:
        return "training from scratch"
    if arm.labels is None:
        return text
    if arm.labels.noise is not None:
        return f"{text}, {100 * arm.labels.noise:g} % of the labels replaced"
    return f"{text}, labelled by {arm.labels.clusters:,} clusters of a network's features"


def _mixed(part: MixturePart) -> str:
    """A part of a mixture, and its share, in words."""
    source = (
        f"the store {Path(part.store).name}" if part.store is not None else str(part.recipe and part.recipe.facts())
    )
    return source if part.share is None else f"{100 * part.share:g} % {source}"


def _own_tuning(arm: Arm) -> str:
    """Fine-tuning settings of an arm's own, in words."""
    own = {name: value for name, value in arm.finetune.items() if value is not None}
    if (mixing := own.pop("mixing", None)) is not None:
        recipe = mixing.get("recipe")
        rest = [f"{name} {value}" for name, value in mixing.items() if name != "recipe"]
        own["mixing of"] = ", ".join([*([Recipe.from_dict(recipe).facts()] if recipe else []), *rest])
    told = [f"{name} {value}" for name, value in own.items()]
    return f"; fine-tuned with {', '.join(told)}" if told else ""


def _drawn(recipe: Recipe) -> str:
    """Number of a recipe's images, their target, and the generators that draw them, in words."""
    drawn = " and ".join(f"{name} of {plugins()[name].origin}" for name in _generators(recipe))
    if recipe.is_scene:
        return f"{recipe.facts()}, target {recipe.target}, drawn by {drawn}"
    if recipe.parts:
        return f"{recipe.facts()} ({len(recipe):,} images), drawn by {drawn}"
    sizes = f"{recipe.num_categories:,} categories × {recipe.num_instances:,} instances"
    return f"{sizes} ({len(recipe):,} images), drawn by {drawn}"


def _generators(recipe: Recipe) -> list[str]:
    """Names of the generators of a recipe's parts and of its scenes' background, each once."""
    parts = [*recipe.all_parts]
    if isinstance(recipe.scene, SceneSettings) and recipe.scene.background is not None:
        parts.append(recipe.scene.background)
    return list(dict.fromkeys(part.generator.name for part in parts))


def this_machine(arm: Arm, trained: TrainSettings) -> Provenance:
    """The machine and the software that compute a result: processor, cores that this process may use, threads,
    accelerator, precision and device.

    Args:
        trained: settings of the training or the probe.
    """
    import torch

    from formulavision.training.fit import resolve_device, resolve_precision

    found = versions()
    drawn = [arm.recipe, *(part.recipe for part in (arm.mixture.parts if arm.mixture is not None else ()))]
    drawn.append(None if trained.mixing is None else trained.mixing.recipe)
    for recipe in drawn:
        for name in _generators(recipe) if recipe is not None else ():
            origin = plugins()[name]
            found.setdefault(origin.package, origin.package_version)
    parts = [processor(), counted(cores(), "core"), counted(torch.get_num_threads(), "thread")]
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        parts += [f"{devices.count(name)} x {name}" for name in dict.fromkeys(devices)]
    device = resolve_device(trained.device)
    parts.append(f"{resolve_precision(trained.precision, device)} on {device.type}")
    return Provenance(machine=", ".join(parts), versions=found)
