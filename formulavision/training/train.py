"""Pre-training on a formula-driven dataset, and fine-tuning on a real one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from formulavision.data.labels import LabelSettings, relabel
from formulavision.training.pretraining_data import held_out_images, open_data, read_data, recorded_data
from formulavision.training.ranks import is_first
from formulavision.training.runs import (
    LAST_CHECKPOINT,
    SETTINGS,
    Run,
    check_folder,
    check_same_settings,
    file_digest,
    is_complete,
    read_settings,
)
from formulavision.training.settings import REMOTE, MixingSettings, Precision, TrainSettings, check_freeze
from formulavision.util.config import WRITTEN_OUT, identity, parse
from formulavision.util.console import say
from formulavision.util.errors import CheckpointError, ConfigError
from formulavision.util.folders import State

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from torch.nn import Module

    from formulavision.data.downstream import DownstreamLike, DownstreamSettings
    from formulavision.data.items import ImageDataset, Transform
    from formulavision.recipes.recipe import RecipeLike
    from formulavision.training.extras import LoggerLike

__all__ = ["finetune", "pretrain"]


def pretrain(
    data: RecipeLike | ImageDataset | Any = None,
    *,
    out: str | Path,
    labels: LabelSettings | Mapping[str, Any] | None = None,
    model: str | Module | None = None,
    settings: TrainSettings | Mapping[str, Any] | None = None,
    transform: Transform | None = None,
    logger: LoggerLike = True,
    callbacks: Callback | Iterable[Callback] = (),
    trainer_args: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    show_progress: bool = True,
) -> Run:
    """Train a model with new weights on the images of a formula-driven dataset.

    The model learns the target of the images: one class each; or, of scenes, several labels or masks
    (``settings.target`` chooses another one than the recipe's).

    Args:
        data: a recipe, whose images are drawn on demand (new ones in each epoch, where ``settings.fresh`` is set and
            the generator has unlimited instances), the path of its file, a mapping, or the name of a generator; the
            path of a store; a mixture: a list of these, some as ``{"recipe": ..., "share": 0.3}`` or
            ``{"store": ..., "share": 0.7}``, or the path of its file (docs/training.md, "Mixtures"); a dataset with
            ``num_classes`` and ``classes`` whose items are (uint8 [c, h, w], target), c being 1 or 3 and the target as
            of :func:`formulavision.data.items.target_of`; or any map-style dataset, such as torchvision's, as in
            :func:`formulavision.data.downstream.open_downstream`. May be left out with ``resume``.
        out: the run's folder, which must be new unless ``resume`` or ``overwrite`` is set.
        labels: other labels than the images' own: ``{"noise": 0.25}``, a share replaced at random (figure 5; in scenes
            categories of objects), or ``{"clusters": 1000}``, clusters of the model's own features, found before each
            epoch (table 7).
        model: a timm name, in place of ``settings.model``; or a module of your own, which turns float32 images
            [b, 3, h, w] into logits [b, classes], for masks [b, classes, h, w]. A copy of it is trained, from the
            weights that it has; :meth:`Run.load_into` gives the trained ones back. It must be given again with
            ``resume``.
        settings: how to train; the defaults are those of the paper's section 4.
        transform: a function of a training image, uint8 [c, h, w] -> uint8 [c, h', w'], c being 1 or 3, such as a
            transform of ``torchvision.transforms.v2``; for masks, of an image and its mask
            (:data:`formulavision.data.items.Transform`). It is applied before images are resized and cropped. Its
            random numbers are those of torch, numpy or Python. It must be given again with ``resume``.
        logger: one or several loggers of Lightning, or names of some (``tensorboard``, ``csv``, ``wandb``, ``mlflow``,
            ``trackio``), which get the metrics of each epoch (step: the number of the epoch, from 1) and the settings.
            True: TensorBoard's, in the run's folder, or those by name that the run to be resumed has; False: none.
        callbacks: one or several callbacks of Lightning. Their state is part of a checkpoint.
        trainer_args: further arguments of Lightning's Trainer, such as ``profiler``. Callbacks and arguments that would
            break exact resuming are refused.
        resume: go on with the run in ``out``, from its last checkpoint. Arguments that are left out are those of the
            run. Given ones must equal the run's, except for paths, devices, and ``settings.epochs`` (or
            ``steps``): a larger number makes a run longer, finished or not, unless its schedule is ``cosine``.
        overwrite: replace the run in ``out``.
        show_progress: print progress on the terminal.

    Returns:
        The complete run. Its metrics are those of the training images during training, and, with
        ``settings.held_out``, of instances that are never trained on.

    Raises:
        ConfigError: an argument, a setting or the folder is wrong, or the run to be resumed is damaged or differs.
        StoreError: the store cannot be read.
        PluginError: the recipe's generator failed.
    """
    out = Path(out)
    recorded, settings = _begin(out, "pretrain", _with_name(settings, model), resume=resume, overwrite=overwrite)
    context = None
    if recorded is not None:
        if labels is None:
            labels, context = recorded["data"].get("labels"), WRITTEN_OUT
        data = data if data is not None else recorded_data(recorded["data"])
    if data is None:
        raise ConfigError(_nothing_to_resume(out, resume) or "data: is missing: give a recipe, a store or a dataset")
    if labels is not None and not isinstance(labels, LabelSettings):
        labels = parse(LabelSettings, dict(labels), "labels", context=context)
    if labels is not None and labels.clusters:
        if settings.held_out:
            raise ConfigError("held_out: must be 0 with labels.clusters: held-out images are in no cluster")
        if settings.steps is not None:
            raise ConfigError("steps: must be unset with labels.clusters, found before each epoch: give epochs")
        if settings.ema:
            raise ConfigError("ema: must be 0 with labels.clusters, which give each epoch a new head")
    show_progress = show_progress and is_first()
    console = Console(quiet=not show_progress)
    # The imports from here on are slow.
    from formulavision.data.items import target_of
    from formulavision.data.mixtures import Mixture
    from formulavision.recipes.recipe import Recipe
    from formulavision.training.extras import describe_transform, read_extras
    from formulavision.training.fit import Plan, fit, new_model
    from formulavision.training.freezing import frozen_names
    from formulavision.training.models import check_model
    from formulavision.training.own_model import read_model
    from formulavision.training.tasks import for_target

    if labels is not None and labels.clusters and isinstance(data, Recipe) and data.is_scene:
        raise ConfigError("labels.clusters: the images are scenes of several objects, which belong to no one cluster")
    extras = read_extras(logger, callbacks, trainer_args)
    own, settings, described = read_model(model, settings, recorded)
    if labels is not None and labels.clusters and described and not hasattr(own, "pretrained_cfg"):
        raise ConfigError("labels.clusters: the model must be one of timm, whose features before the head are known")
    data = read_data(data, settings)
    if isinstance(data, Mixture) and labels is not None:
        data.check_clusters(labels.clusters)
    if isinstance(data, Recipe | Mixture) and data.target is not None:
        # Before its categories are searched.
        settings = for_target(settings, data.target, own_model=own is not None)
        if own is None:
            check_model(settings)
    dataset, description = open_data(data, settings, show_progress)
    settings = for_target(settings, target_of(dataset), own_model=own is not None)
    held_out = held_out_images(dataset, settings, show_progress)
    if labels is not None:
        dataset = relabel(dataset, labels)
        description["labels"] = {name: value for name, value in identity(labels).items() if value is not None}
    content = {
        "kind": "pretrain", "settings": settings.model_dump(mode="json"), "precision": _precision(settings, recorded),
        **described, "data": description,
    }  # fmt: skip
    content |= describe_transform(transform, dataset)
    if recorded is not None and (run := _finished(out, recorded, content, console)):
        return run
    trained = own if own is not None else new_model(settings, dataset.num_classes)
    plan = Plan(
        out,
        content,
        settings,
        trained,
        dataset,
        held_out,
        frozen_names(trained),
        extras,
        transform,
    )
    return fit(plan, resume=resume, overwrite=overwrite, console=console)


def finetune(
    checkpoint: str | PathLike[str] | None = None,
    downstream: DownstreamLike | None = None,
    *,
    out: str | Path,
    freeze: str | None = None,
    model: str | Module | None = None,
    settings: TrainSettings | Mapping[str, Any] | None = None,
    transform: Transform | None = None,
    logger: LoggerLike = True,
    callbacks: Callback | Iterable[Callback] = (),
    trainer_args: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    show_progress: bool = True,
) -> Run:
    """Train a pre-trained model, with a new head, on a downstream dataset; validate on its test images each epoch.

    The model learns the target of the images: one class each, several labels, or masks, for which it gets a decoder.

    Args:
        checkpoint: a run's folder, a file of weights, ``timm:NAME`` or ``torchvision:NAME``; None trains from scratch.
        downstream: the dataset, or how to open it (``cifar10``, ``/path``, settings), or a pair (training, test) of
            map-style datasets; see :func:`formulavision.data.downstream.open_downstream`. May be left out with
            ``resume``.
        out: the run's folder, which must be new unless ``resume`` or ``overwrite`` is set.
        freeze: the first layers to freeze; see :func:`formulavision.training.freeze`. For a module of your own: names
            of its parts, separated by commas (``stem,layers.0``). None: none.
        model: a timm name, in place of ``settings.model``; or a module of your own, which turns float32 images
            [b, 3, h, w] into logits [b, classes], for masks [b, classes, h, w]. A copy of it is trained, from the
            weights that it has; :meth:`Run.load_into` gives the trained ones back. It must be given again with
            ``resume``.
        settings: how to train. The model and the preprocessing of images (size, resizing, mean and deviation) default
            to the checkpoint's, where they are known.
        transform: a function of a training image, uint8 [c, h, w] -> uint8 [c, h', w'], c being 1 or 3, such as a
            transform of ``torchvision.transforms.v2``; for masks, of an image and its mask
            (:data:`formulavision.data.items.Transform`). It is applied before images are resized and cropped. Its
            random numbers are those of torch, numpy or Python. It must be given again with ``resume``.
        logger: one or several loggers of Lightning, or names of some (``tensorboard``, ``csv``, ``wandb``, ``mlflow``,
            ``trackio``), which get the metrics of each epoch (step: the number of the epoch, from 1) and the settings.
            True: TensorBoard's, in the run's folder, or those by name that the run to be resumed has; False: none.
        callbacks: one or several callbacks of Lightning. Their state is part of a checkpoint.
        trainer_args: further arguments of Lightning's Trainer, such as ``profiler``. Callbacks and arguments that would
            break exact resuming are refused.
        resume: go on with the run in ``out``, from its last checkpoint. Arguments that are left out are those of the
            run. Given ones must equal the run's, except for paths, devices, and ``settings.epochs`` (or
            ``steps``): a larger number makes a run longer, finished or not, unless its schedule is ``cosine``.
        overwrite: replace the run in ``out``.
        show_progress: print progress on the terminal.

    Returns:
        The complete run. Its validation metrics are those of the downstream's test images.

    Raises:
        ConfigError: an argument, a setting or the folder is wrong, the model has no such layers to freeze, or the run
            to be resumed is damaged or differs.
        CheckpointError: the checkpoint cannot be read, or is of another architecture.
        DownstreamError: the dataset cannot be used as it is.
    """
    from formulavision.data.downstream import open_for_run
    from formulavision.data.downstream.folder import check_outside

    out = Path(out)
    recorded, settings = _begin(out, "finetune", _with_name(settings, model), resume=resume, overwrite=overwrite)
    # Earlier versions took any number, and did not use it.
    if settings.held_out not in (0, recorded and recorded["settings"]["held_out"]):
        raise ConfigError("held_out: is for pre-training alone: fine-tuning validates on the downstream's test images")
    source: dict[str, Any] | None = None
    if recorded is not None:
        freeze = freeze if freeze is not None else recorded["freeze"]
        downstream = downstream if downstream is not None else _recorded_downstream(recorded["downstream"])
        if checkpoint is None and (source := recorded["checkpoint"]) and not (out / LAST_CHECKPOINT).is_file():
            checkpoint = source["name"]  # the run's own checkpoint would hold the weights
    if downstream is None:
        missing = "downstream: is missing: give a dataset, such as cifar10 or folder:/path"
        raise ConfigError(_nothing_to_resume(out, resume) or missing)
    freeze = freeze or "none"
    if model is None or isinstance(model, str):
        check_freeze(freeze)
    if checkpoint is not None:
        _check_source(checkpoint, out)
    console = Console(quiet=not (show_progress and is_first()))
    # The imports from here on are slow.
    from formulavision.data.items import target_of
    from formulavision.training.checkpoints import load_checkpoint
    from formulavision.training.data_module import make_mixing
    from formulavision.training.extras import describe_transform, read_extras
    from formulavision.training.fit import Plan, fit, new_model
    from formulavision.training.freezing import freeze as freeze_layers
    from formulavision.training.freezing import frozen_names
    from formulavision.training.own_model import freeze_parts, read_model
    from formulavision.training.progress import say_and_log
    from formulavision.training.tasks import for_target

    extras = read_extras(logger, callbacks, trainer_args)
    weights = load_checkpoint(checkpoint) if checkpoint is not None else None
    if weights is not None:
        settings = weights.complete(settings, own_model=not (model is None or isinstance(model, str)))
        source = weights.identity()
    own, settings, described = read_model(model, settings, recorded)
    if own is not None:
        freeze_parts(own, freeze)
    opened = open_for_run(downstream, weights.run if weights else None)
    check_outside(out, opened.settings)
    settings = for_target(settings, target_of(opened.train), own_model=own is not None)
    if opened.note:
        say_and_log(opened.describe(), console)
    content = {
        "kind": "finetune", "settings": settings.model_dump(mode="json"), "precision": _precision(settings, recorded),
        **described, "checkpoint": source, "freeze": freeze, "downstream": opened.identity(),
        **describe_transform(transform, opened.train),
    }  # fmt: skip
    if recorded is not None and (run := _finished(out, recorded, content, console)):
        return run
    mixing = make_mixing(settings, show_progress=not console.quiet)
    if mixing is not None:
        say_and_log(mixing.describe(), console)
    trained = own if own is not None else new_model(settings, opened.num_classes)
    if weights is not None:
        say_and_log(f"checkpoint {weights.name}: {weights.load_into(trained).describe()}", console)
        if preprocessing := weights.describe_preprocessing(settings):
            say_and_log(preprocessing, console)
    if own is None:
        freeze_layers(trained, freeze)
    plan = Plan(
        out, content, settings, trained, opened.train, opened.test, frozen_names(trained), extras, transform, mixing
    )
    return fit(plan, resume=resume, overwrite=overwrite, console=console)


def _with_name(
    settings: TrainSettings | Mapping[str, Any] | None, model: str | Module | None
) -> TrainSettings | Mapping[str, Any] | None:
    """The settings with the name of a timm model that is given beside them."""
    if model is None:
        return settings
    given = settings.model_dump(exclude_unset=True) if isinstance(settings, TrainSettings) else dict(settings or {})
    if "model" in given and given["model"] != model:
        raise ConfigError(f"model: is given twice: leave out '{given['model']}' in settings")
    return {**given, "model": model} if isinstance(model, str) else given


def _check_source(checkpoint: str | PathLike[str], out: Path) -> None:
    if str(checkpoint).startswith(REMOTE):
        return
    checkpoint = Path(checkpoint)
    if not checkpoint.exists():
        raise CheckpointError(f"{checkpoint}: no such file or folder")
    if checkpoint.resolve().is_relative_to(out.resolve()):
        raise ConfigError(f"out: {out}: holds the checkpoint itself: give another --out")


# A run that is resumed ------------------------------------------------------------------------------------------------


def _begin(
    out: Path, kind: str, settings: TrainSettings | Mapping[str, Any] | None, *, resume: bool, overwrite: bool
) -> tuple[dict[str, Any] | None, TrainSettings]:
    """Read the settings.yaml of the run to be resumed, if there is one, and complete the given settings.

    A setting that is not given has the run's value; in a new run it has its default.

    Raises:
        ConfigError: the folder holds other files than a run's, settings.yaml is damaged or of another kind of run, or a
            setting is not allowed or differs from the run's.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # a spawned process imports the script
        raise ConfigError(
            "devices: each process that trains reads the script again, so the script must make its calls below "
            "if __name__ == '__main__':"
        )
    if not isinstance(settings, TrainSettings | Mapping | None):
        raise ConfigError(f"settings: a {type(settings).__name__} is not allowed: must be a mapping or TrainSettings")
    # Of several processes, the first may have begun to fill the folder: the others allow that.
    state = check_folder(out, resume=resume or not is_first(), overwrite=overwrite and is_first())
    if not resume or state is State.NEW or not (out / SETTINGS).is_file():
        return None, settings if isinstance(settings, TrainSettings) else parse(TrainSettings, dict(settings or {}))
    recorded, _ = read_settings(out)
    if recorded["kind"] != kind:
        raise ConfigError(f"resume: {out}: was started by {recorded['kind']}: resume it by the same command")
    own = parse(TrainSettings, recorded["settings"], "settings", context=WRITTEN_OUT).model_dump(mode="json")
    recorded["settings"] = own
    if isinstance(settings, TrainSettings):
        settings = settings.model_dump(mode="json", exclude_unset=True)
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in (settings or {}).items()}
    if isinstance(mixing := given.get("mixing"), Mapping):
        given["mixing"] = parse(MixingSettings, {**(own["mixing"] or {}), **mixing}, "mixing").model_dump(mode="json")
    known = {name: value for name, value in given.items() if name in TrainSettings.model_fields}
    check_same_settings(recorded, {**recorded, "settings": {**own, **known}})
    return recorded, parse(TrainSettings, {**own, **given})


def _nothing_to_resume(out: Path, resume: bool) -> str | None:
    """What is wrong where a run is to be resumed and the folder has none."""
    return f"resume: {out}: holds no run" if resume and not (out / SETTINGS).is_file() else None


def _precision(settings: TrainSettings, recorded: Mapping[str, Any] | None) -> Precision:
    """Lightning's precision of a run; of one that is resumed, the one that it was started in.

    Raises:
        ConfigError: this machine lacks the device, or the device does not support the precision.
    """
    from formulavision.training.fit import resolve_device, resolve_precision

    device = resolve_device(settings.device)
    name = settings.precision
    if recorded is not None:
        # Earlier versions did not record it; on a CPU auto was 32-true then.
        earlier = "32-true" if (name, device.type) == ("auto", "cpu") else name
        name = recorded.get("precision", earlier)
    return resolve_precision(name, device)


def _recorded_downstream(recorded: Mapping[str, Any]) -> DownstreamSettings:
    from formulavision.data.downstream import DownstreamSettings

    known = {name: value for name, value in recorded.items() if name in DownstreamSettings.model_fields}
    root = recorded["name"].partition(":")[2]
    own = {**known, **({"root": root} if root else {})}
    return parse(DownstreamSettings, own, "downstream", context=WRITTEN_OUT)


def _finished(out: Path, recorded: Mapping[str, Any], content: Mapping[str, Any], console: Console) -> Run | None:
    """The run, if it is complete and undamaged and no more epochs are asked for; otherwise None.

    Args:
        content: of settings.yaml, by the arguments that are given now.
    """
    if check_same_settings(recorded, content) or not is_complete(out):
        return None
    run = None
    weights = out / "model.safetensors"
    try:
        run = Run.load(out)
        line = f"{out}: the run is complete already"
        if not weights.is_file() or run.weights_sha256 not in (None, file_digest(weights)):
            run, line = None, f"{weights}: is missing or damaged: it is written again from the last checkpoint"
    except ConfigError as error:
        line = str(error)
    say(line, console)
    return run
