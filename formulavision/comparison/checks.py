"""What can be refused before anything slow starts: models, frozen layers, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator

from formulavision.comparison.arms import REMOTE, Variant
from formulavision.comparison.config import ComparisonSettings
from formulavision.util.config import did_you_mean
from formulavision.util.errors import CheckpointError, ConfigError

__all__ = ["check_models"]


def check_models(settings: ComparisonSettings) -> None:
    """Build every model: refuses a name, an image size, frozen layers or a checkpoint that does not fit.

    A published model is known by its name here, and fetched when its arm's turn comes.

    Raises:
        ConfigError: one line a problem.
    """
    problems = list(dict.fromkeys(_of_fine_tuning(settings)))
    if not problems:
        problems = list(dict.fromkeys(p for variant in settings.variants.values() for p in _of_arm(settings, variant)))
    if problems:
        raise ConfigError(*problems)


def _of_fine_tuning(settings: ComparisonSettings) -> Iterator[str]:
    import torch

    from formulavision.training import freeze
    from formulavision.training.models import build_model

    seed = settings.seeds[0]
    # Of each setting of fine-tuning, which arms share but for what is swept, one.
    chosen = {str(sorted(v.finetune.items())): v for v in settings.variants.values()}
    for variant in chosen.values():
        for spec in settings.freeze if settings.finetuning else ["none"]:
            try:
                with torch.device("meta"):
                    freeze(build_model(settings.finetune_settings(variant.name, seed), num_classes=2), spec)
            except ConfigError as error:
                for problem in error.problems:
                    yield problem if problem.startswith(("model:", "freeze:")) else f"finetune.{problem}"


def _of_arm(settings: ComparisonSettings, variant: Variant) -> Iterator[str]:
    import torch

    from formulavision.training import load_checkpoint
    from formulavision.training.models import build_model

    arm, seed = variant.arm, settings.seeds[0]
    path = f"arms.{variant.base}" + ("" if variant.path is None else f" at {variant.path} {variant.value}")
    try:
        if arm.pretrained_here:
            with torch.device("meta"):
                build_model(settings.pretrain_settings(variant.name, seed), num_classes=2)
        elif arm.checkpoint is not None and arm.checkpoint.startswith(REMOTE):
            _check_published(arm.checkpoint)
        elif arm.checkpoint is not None:
            # Not on the meta device: the weights are to be copied into it.
            load_checkpoint(arm.checkpoint).load_into(
                build_model(settings.finetune_settings(variant.name, seed), num_classes=2)
            )
    except CheckpointError as error:
        yield f"{path}.checkpoint: {error}"
    except ConfigError as error:
        yield from (f"{path}.pretrain.{problem}" for problem in error.problems)


def _check_published(checkpoint: str) -> None:
    """Refuse a name that its library does not have, without fetching anything.

    Raises:
        CheckpointError: there is no such model, or it has no such weights.
    """
    import timm
    import torchvision

    library, _, name = checkpoint.partition(":")
    if library == "timm":
        model = name.partition(".")[0]
        known, there = timm.list_models(), timm.is_model_pretrained(name)
    else:
        model, _, weights = name.partition(":")
        known = torchvision.models.list_models(module=torchvision.models)
        there = model in known and weights in ("", *torchvision.models.get_model_weights(model).__members__)
    if not there:
        near = "" if model in known else did_you_mean(model, known)
        raise CheckpointError(f"{checkpoint}: {library} has no weights of that name{near}")
