"""``pretrain``, ``finetune`` and ``export``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from formulavision.cli import options as o

Model = Annotated[str | None, typer.Option("--model", help="Name of a timm model.", show_default=False)]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Passes over the images.", show_default="90")]
Steps = Annotated[
    int | None,
    typer.Option("--steps", help="Steps of the optimizer, in place of epochs.", show_default=False),
]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Images per step.", show_default="256")]
GradAccumSteps = Annotated[
    int | None,
    typer.Option(
        "--grad-accum-steps", "--grad-accum", help="Batches per step (gradient accumulation).", show_default="1"
    ),
]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", "--lr", help="Maximum learning rate.", show_default="0.01")
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="Defaults of other settings: resnet (the paper's), vit, fdsl-vit, fractaldb-vit, ofdb, 1p-frac, "
        "finetune-sgd or finetune-adamw (docs/training-settings.md).",
        show_default="resnet",
    ),
]
Devices = Annotated[
    int | None, typer.Option("--devices", help="Processes that share each batch, one per GPU; or use torchrun.")
]
Crop = Annotated[
    int | None,
    typer.Option(
        "--crop", help="Side of the model's input in pixels; images are resized to 8/7 of it.", show_default="224"
    ),
]
TrainSeed = Annotated[int | None, typer.Option("--seed", help="Seed of weights, order and crops.", show_default="1")]
LoggerName = Annotated[
    list[str] | None,
    typer.Option(
        "--logger",
        metavar="NAME",
        help="Where metrics are logged: tensorboard, csv, wandb, mlflow or trackio (may be repeated).",
        show_default="tensorboard",
    ),
]
TrainSet = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Any setting of training, or of the dataset: --set weight_decay=5e-4, --set decoder=unet (masks), "
        "--set downstream.test_split=val (may be repeated).",
    ),
]
PretrainSet = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Any setting, by its path (may be repeated): of the recipe if it begins with generator., canvas., "
        "categories, instances or recipe. (--set generator.fill_rate=0.1, --set recipe.seed=2), else of training "
        "(--set weight_decay=5e-4, --set seed=2).",
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue the run at --out, with its own options; epochs or steps may be raised."),
]


def add_to(app: typer.Typer) -> None:
    for command in (pretrain, finetune, export):
        app.command(rich_help_panel="Train")(command)


def pretrain(
    out: o.Out,
    data: Annotated[str | None, typer.Option("--data", help="Store to train on: its folder or URL.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="Recipe, drawn on demand: a generator's name, a file (YAML), or one that ships; or a mixture's file.",
        ),
    ] = None,
    plugin: o.Plugin = None,
    categories: o.CategoryCount = None,
    categories_from: o.CategoryFolder = None,
    instances: o.Instances = None,
    size: o.Size = None,
    label_noise: Annotated[
        float | None, typer.Option("--label-noise", help="Share of the labels to replace at random, 0 to 1 (figure 5).")
    ] = None,
    clusters: Annotated[
        int | None, typer.Option("--clusters", help="Number of feature clusters that serve as labels (DeepCluster).")
    ] = None,
    model: Model = None,
    epochs: Epochs = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    grad_accum_steps: GradAccumSteps = None,
    learning_rate: LearningRate = None,
    crop: Crop = None,
    seed: TrainSeed = None,
    preset: Preset = None,
    devices: Devices = None,
    logger: LoggerName = None,
    settings: PretrainSet = None,
    resume: Resume = False,
    overwrite: o.Overwrite = False,
) -> None:
    """Train a model on images of a formula. Takes a store, or a recipe whose images are drawn on demand.

    formulavision pretrain --data data/ifs --model resnet18 --out runs/ifs

    The model learns the recipe's target: one class an image, or, of scenes, several labels or masks. Choose by
    --set target=labels or --set target=semantic; masks need a decoder on the model: --set decoder=fpn (or unet,
    upernet; dpt for vision transformers)

    A vision transformer, with new images in every epoch: --plugin ifs --preset vit --model deit_tiny_patch16_224

    Validate on instances that are not in the store, which shows over-fitting: --set held_out=10

    Ctrl-C writes a checkpoint; continue with: formulavision pretrain --out runs/ifs --resume
    """
    from formulavision.util.errors import ConfigError

    of_recipe, of_training = divided(settings or [])
    train = train_values(
        of_training, model=model, epochs=epochs, steps=steps, batch_size=batch_size,
        grad_accum_steps=grad_accum_steps, learning_rate=learning_rate, crop=crop, seed=seed, preset=preset,
        devices=devices,
    )  # fmt: skip
    of_store = {"--categories": categories, "--categories-from": categories_from, "--instances": instances,
                "--size": size, "--set": " ".join(of_recipe) or None}  # fmt: skip
    known = resume and not any([data, recipe, plugin, *of_store.values()])
    if [data, recipe, plugin].count(None) != 2 and not known:
        raise ConfigError("give one of --data STORE, --recipe NAME or FILE, and --plugin NAME")
    if data is not None and (wrong := next((name for name, value in of_store.items() if value is not None), None)):
        raise ConfigError(f"{wrong}: a store's images are drawn already: give --recipe or --plugin instead of --data")
    from formulavision.data.mixtures import is_mixture_file

    mixture = is_mixture_file(recipe)
    if mixture and (wrong := next((name for name, value in of_store.items() if value is not None), None)):
        raise ConfigError(f"{wrong}: the recipes of a mixture have their own settings: change them in {recipe}")
    source: Any = data or recipe if data is not None or known or mixture else o.make_recipe(
        recipe, plugin, categories=categories, categories_from=categories_from, instances=instances, size=size,
        settings=of_recipe,
    )  # fmt: skip
    from formulavision.training import pretrain as run

    given = {"noise": label_noise, "clusters": clusters}
    labels = {name: value for name, value in given.items() if value is not None} or None
    run(source, out=out, labels=labels, settings=train, logger=logger or True, resume=resume, overwrite=overwrite)
    beside = out / ".." if out.name in ("", "..") else out.parent
    tuned = beside / f"{out.resolve().name}-digits"
    suggest(o.command_line("finetune", checkpoint=out, downstream="digits", out=tuned))


def finetune(
    out: o.Out,
    downstream: o.DownstreamOrResume = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint", help="Folder of a run, file of weights, timm:NAME or torchvision:NAME; none: from scratch."
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            "--freeze",
            help="Layers: none, conv1, conv1-2 ... conv1-5 (ResNets), stage1-2 (any model).",
            show_default="none",
        ),
    ] = None,
    train_per_class: Annotated[
        int | None, typer.Option("--train-per-class", help="Number of training images per class to use; default: all.")
    ] = None,
    model: Model = None,
    epochs: Epochs = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    grad_accum_steps: GradAccumSteps = None,
    learning_rate: LearningRate = None,
    crop: Crop = None,
    seed: TrainSeed = None,
    preset: Preset = None,
    devices: Devices = None,
    logger: LoggerName = None,
    settings: TrainSet = None,
    resume: Resume = False,
    overwrite: o.Overwrite = False,
) -> None:
    """Fine-tune a pre-trained model on a real dataset, all of it or with its first layers frozen.

    formulavision finetune --checkpoint runs/ifs --downstream folder:/path/to/cifar10 --freeze conv1-3 --out runs/ft

    Images with masks: --downstream masks:/path/to/camvid --set decoder=fpn

    --checkpoint takes a run's folder; a file, with --model NAME
    (.safetensors, .pth: of timm, torchvision or the published FractalDB);
    or a model to download: timm:resnet50.a1_in1k, torchvision:resnet50,
    torchvision:resnet50:IMAGENET1K_V1. Layers that fit are loaded and listed.
    """
    from formulavision.util.errors import ConfigError

    own = [] if train_per_class is None else [f"downstream.train_per_class={train_per_class}"]
    of_training = own + (settings or [])
    chosen = None
    if downstream is not None:
        chosen, of_training = o.make_downstream(downstream, of_training)
    elif any(setting.startswith("downstream.") for setting in of_training):
        raise ConfigError("--downstream: is missing, and settings of it are given")
    train = train_values(
        of_training, model=model, epochs=epochs, steps=steps, batch_size=batch_size,
        grad_accum_steps=grad_accum_steps, learning_rate=learning_rate, crop=crop, seed=seed, preset=preset,
        devices=devices,
    )  # fmt: skip
    from formulavision.training import finetune as run

    result = run(
        checkpoint, chosen, out=out, freeze=freeze, settings=train, logger=logger or True, resume=resume,
        overwrite=overwrite,
    )  # fmt: skip
    recorded = result.settings["downstream"]
    place = [setting for setting in settings or [] if setting.startswith(("downstream.root=", "downstream.download="))]
    suggest(
        o.command_line(
            "evaluate", checkpoint=out, downstream=downstream or recorded["name"], set=place + of_downstream(recorded)
        )
    )


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a complete run.")],
    out: o.Out,
    layout: Annotated[
        str,
        typer.Option(
            "--layout", help="timm: model.safetensors and config.json; torchvision: model.pth, a ResNet's state dict."
        ),
    ] = "timm",
    best: Annotated[
        bool,
        typer.Option("--best", help="Weights of the epoch with the highest validation score, not the last."),
    ] = False,
    overwrite: o.Overwrite = False,
) -> None:
    """Write a run's model for other programs: weights that timm or torchvision load, and a model card.

    formulavision export runs/ft --out export/ft

    The card, README.md, holds the whole recipe, the settings, the figures,
    the code that loads the model, and its limits, in Hugging Face's layout.
    """
    from typing import cast

    from formulavision.training.export import WRITTEN, ExportLayout, export_model
    from formulavision.util.console import say

    export_model(run, out, layout=cast(ExportLayout, layout), best=best, overwrite=overwrite)
    written = ", ".join(sorted(name for name in WRITTEN if (out / name).is_file()))
    say(f"{out}: {written}; README.md there has the code that loads it")


def suggest(command: str) -> None:
    """Print a command that may come next, once for all processes of a run."""
    from formulavision.training.ranks import is_first
    from formulavision.util.console import say

    if is_first():
        say(f"next: {command}")


def of_downstream(recorded: Mapping[str, Any]) -> list[str]:
    """The ``--set`` that choose the images of a dataset as a run records it; its place is not recorded among them."""
    from formulavision.data.downstream import DownstreamSettings

    fields = DownstreamSettings.model_fields
    chosen = {name: value for name, value in recorded.items() if name in fields and name != "kind"}
    return o.as_settings({f"downstream.{name}": v for name, v in chosen.items() if v != fields[name].default})


def divided(settings: list[str]) -> tuple[list[str], list[str]]:
    """Settings of a recipe, without the ``recipe.`` that some begin with, and settings of training.

    Without it a setting is training's where both have such a one: the seed.
    """
    from formulavision.recipes.recipe import Recipe
    from formulavision.training.settings import TrainSettings

    of_recipe_only = set(Recipe.model_fields) - set(TrainSettings.model_fields)
    of_recipe, of_training = [], []
    for setting in settings:
        head, dot, rest = setting.partition(".")
        if head == "recipe" and dot:
            of_recipe.append(rest)
        elif head.partition("=")[0] in of_recipe_only:
            of_recipe.append(setting)
        else:
            of_training.append(setting)
    return of_recipe, of_training


def train_values(settings: list[str] | None, **given: Any) -> dict[str, Any]:
    """What a command line says of the training settings.

    Raises:
        ConfigError: a ``--set`` cannot be read, or two of the words give one setting different values.
    """
    from formulavision.util.config import apply_settings

    return apply_settings({}, o.as_settings(given) + (settings or []))
