"""A complete run for other people: weights that timm or torchvision load on their own, and a model card."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torchvision

from formulavision.recipes.recipe import Recipe
from formulavision.training.checkpoints import Checkpoint, load_checkpoint
from formulavision.training.runs import Run, is_complete
from formulavision.training.settings import PREPROCESSING, TrainSettings
from formulavision.util.config import did_you_mean, dump_yaml, load_yaml
from formulavision.util.errors import ConfigError, FolderError, FormulaVisionError
from formulavision.util.files import atomic_write, write_text
from formulavision.util.folders import OwnedFolder, State
from formulavision.util.text import markdown_text

__all__ = ["WRITTEN", "Layout", "export_model", "write_card"]

Layout = Literal["timm", "torchvision"]

_CARD = "README.md"
_CLASSES = "classes.json"
_CLASS_MAP = "class_map.txt"
_WEIGHTS: dict[Layout, str] = {"timm": "model.safetensors", "torchvision": "model.pth"}
WRITTEN = {_CARD, _CLASSES, _CLASS_MAP, "config.json", *_WEIGHTS.values()}

_FIGURES = {
    "train_loss": "loss on training images, as trained",
    "train_accuracy": "accuracy on training images, as trained",
}
_OTHER_COLUMNS = {"epoch", "learning_rate", "seconds", "images_per_second"}


def export_model(run: Run | str | Path, out: str | Path, *, layout: Layout = "timm", overwrite: bool = False) -> Path:
    """Write a run's model so that it loads without FormulaVision, with a model card.

    Args:
        run: a complete run, or its folder.
        out: a folder, which must be new or empty; with ``overwrite`` it may hold an export.
        layout: ``timm``: ``model.safetensors`` and ``config.json``, which
            ``timm.create_model("local-dir:OUT", pretrained=True)`` loads, and ``class_map.txt``, a class a line, for
            ``--class-map`` of timm's scripts; ``torchvision``: ``model.pth``, the state
            dict of torchvision's ResNet of the same name, and ``classes.json``, the names of its outputs.
        overwrite: remove the files of an earlier export in ``out`` first; other files stay.

    Returns:
        The folder.

    Raises:
        ConfigError: the run is none or unfinished, there is no such layout, torchvision has no such model, or the
            folder holds something else.
        CheckpointError: the run's weights are missing or damaged.
    """
    run = run if isinstance(run, Run) else Run.load(run)
    out = Path(out)
    if layout not in get_args(Layout):
        raise ConfigError(
            f"layout: there is no '{layout}'{did_you_mean(layout, get_args(Layout))}: must be timm or torchvision"
        )
    weights = load_checkpoint(run.folder)
    if layout == "torchvision" and not _is_in_torchvision(run, weights):
        raise ConfigError(
            f"layout: torchvision has no model with the weights of {run.folder}, a '{_model(run)}': "
            "only its ResNets, ResNeXts and wide ResNets are the same there; use timm"
        )
    if out.resolve() == run.folder.resolve():
        raise ConfigError(f"out: {out}: is the run's own folder: give another --out")
    owned = OwnedFolder(out, "model export", last=_CARD)
    if owned.state() is not State.NEW and not overwrite:
        raise FolderError(f"{out}: holds an export already: give another --out, or --overwrite")
    with owned.writing({}, sorted(WRITTEN), overwrite=overwrite):
        _write_export(run, out, layout, weights)
    return out


def _write_export(run: Run, out: Path, layout: Layout, weights: Checkpoint) -> None:
    try:
        if layout == "timm":
            for name in (_WEIGHTS["timm"], "config.json"):
                _copy(run.folder / name, out / name)
            if _fits_a_class_map(run.class_names):
                write_text(out / _CLASS_MAP, "".join(f"{name}\n" for name in run.class_names))
        else:
            with atomic_write(out / _WEIGHTS["torchvision"]) as file:
                torch.save(weights.state, file)
            write_text(out / _CLASSES, json.dumps(run.class_names, indent=2) + "\n")
        write_text(out / _CARD, _card(run, layout, in_torchvision=_is_in_torchvision(run, weights)))
    except OSError as error:
        raise ConfigError(f"out: {error.filename or out}: cannot be written: {error.strerror}") from None


def write_card(run: Run | str | Path) -> Path:
    """Write the model card of a complete run into its own folder, as ``README.md``, in Hugging Face's layout.

    Raises:
        ConfigError: there is no complete run.
        CheckpointError: the run's weights are missing or damaged.
    """
    run = run if isinstance(run, Run) else Run.load(run)
    in_torchvision = _is_in_torchvision(run, load_checkpoint(run.folder))
    write_text(run.folder / _CARD, _card(run, "timm", in_torchvision=in_torchvision))
    return run.folder / _CARD


def _fits_a_class_map(names: Sequence[str]) -> bool:
    """Whether timm reads the names back from lines, which it strips."""
    return all(name and name == name.strip() and len(name.splitlines()) == 1 for name in names)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as content, atomic_write(target) as file:
        shutil.copyfileobj(content, file)


def _model(run: Run) -> str:
    """timm's name of the architecture, without the tag of any weights."""
    return str(run.settings["settings"]["model"]).partition(".")[0]


def _is_in_torchvision(run: Run, weights: Checkpoint) -> bool:
    """Whether torchvision has the same ResNet by the same name: every tensor, and nothing else, in the same shape."""
    models = torchvision.models
    name = _model(run)
    if name not in models.list_models(module=models):
        return False
    if models.get_model_builder(name).__module__ != models.resnet.__name__:
        return False
    with torch.device("meta"):
        twin = models.get_model(name, weights=None, num_classes=len(run.class_names))
    theirs = {key: tensor.shape for key, tensor in twin.state_dict().items()}
    return theirs == {key: tensor.shape for key, tensor in weights.state.items()}


# The model card ------------------------------------------------------------------------------------------------------


def _card(run: Run, layout: Layout, *, in_torchvision: bool) -> str:
    pretrained = run.kind == "pretrain"
    recipe = _recipe(run)
    generator = recipe["generator"]["name"] if recipe else None
    header = {
        "library_name": layout,
        "pipeline_tag": "image-feature-extraction" if pretrained else "image-classification",
        "tags": ["formula-driven-supervised-learning", "formulavision", *([generator] if generator else [])],
    }
    sections = [
        f"---\n{dump_yaml(header)}---",
        f"# {_model(run)}, {_title(run, generator)}",
        f"{len(run.class_names):,} classes, {run.parameters:,} parameters, images of "
        f"{run.settings['settings']['crop']} x {run.settings['settings']['crop']} pixels. Made with FormulaVision, a "
        "framework for formula-driven supervised learning: pre-training on images that a formula draws and labels.",
        *_training(run, recipe),
        *_figures(run),
        *_loading(run, layout, in_torchvision=in_torchvision),
        *_limits(run, recipe),
    ]
    return "\n\n".join(sections) + "\n"


def _title(run: Run, generator: str | None) -> str:
    drawn = f"pre-trained on images drawn by '{generator}'" if generator else "pre-trained"
    if run.kind == "pretrain":
        return drawn
    origin = "from scratch" if run.settings.get("checkpoint") is None else drawn
    return f"{origin}, trained on {markdown_text(_without_folders(run.settings['downstream']['name']))}"


def _training(run: Run, recipe: Mapping[str, Any] | None) -> list[str]:
    """What it was trained on and how: all of settings.yaml but where things lay on the machine."""
    inputs = {key: value for key, value in run.settings.items() if key not in {"kind", "settings"}}
    if isinstance(inputs.get("data"), dict):
        inputs["data"] = {key: value for key, value in inputs["data"].items() if key not in {"recipe", "store"}}
    sections = ["## What it was trained on", _block(_without_folders(inputs))]
    if recipe is not None:
        number = _recipe_id(recipe)
        subject = "The dataset" if run.kind == "pretrain" else "The dataset that it was pre-trained on before"
        sections += [
            f"{subject} is this recipe{f' (id `{number}`)' if number else ''}, which "
            "`formulavision generate recipe.yaml` draws, the same pixels everywhere.",
            _block(_without_folders(recipe)),
        ]
        if run.kind == "pretrain" and run.settings["settings"]["fresh"] and "store" not in run.settings["data"]:
            sections.append(
                "Images were drawn while it trained: where there is no end of different ones, each epoch had new ones "
                "of the same categories, which come after the recipe's own."
            )
    return [*sections, "## Training settings", _block(run.settings["settings"])]


def _figures(run: Run) -> list[str]:
    images = "test images" if run.kind == "finetune" else "held-out images of the same classes"
    rows = [("epochs", str(len(run.history)))]
    for column, value in run.final.items():
        if value is not None and column not in _OTHER_COLUMNS:
            what = _FIGURES.get(column) or f"{column.removeprefix('validation_').replace('_', ' ')} on {images}"
            rows.append((what, _number(column, value)))
    rows += [("training time", f"{run.seconds:,.0f} s"), ("images a second", f"{run.images_per_second:,.0f}")]
    sections = ["## Figures", "After the last epoch:", _table(rows)]
    evaluation = _evaluation(run)
    if evaluation:
        name = markdown_text(_without_folders(evaluation["downstream"]["name"]))
        sections += [f"`formulavision evaluate` on the {evaluation['images']:,} test images of {name}:"]
        sections.append(_table(_scores(evaluation)))
    return sections


def _scores(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = {"top_1": "top-1 accuracy", "top_5": f"top-{evaluation.get('top_5_counts', 5)} accuracy", "loss": "loss"}
    rows = [(name, _number(name, evaluation[key])) for key, name in names.items() if evaluation.get(key) is not None]
    metric = evaluation.get("metric")
    if metric is not None and metric not in dict(rows):
        rows.insert(0, (metric, _number(metric, evaluation["score"])))
    return rows


def _loading(run: Run, layout: Layout, *, in_torchvision: bool) -> list[str]:
    settings = TrainSettings.model_validate(run.settings["settings"])
    name, classes, file = _model(run), len(run.class_names), _WEIGHTS[layout]
    sections = [
        "## How to load it",
        f"Images: RGB (gray ones as three equal channels), {_resizing(settings)} ({settings.interpolation} with "
        f"antialiasing), the central {settings.crop} x {settings.crop} of that, scaled to 0..1, less "
        f"{list(settings.mean)}, divided by {list(settings.std)}. The code is to be run in this folder.",
        "With timm alone:",
    ]
    if layout == "timm":
        timm_code = [
            "import timm",
            "",
            '# On the Hugging Face Hub: "hf-hub:OWNER/NAME".',
            'model = timm.create_model("local-dir:.", pretrained=True).eval()',
            "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
        ]
        state = ["import safetensors.torch", f'safetensors.torch.load_file("{file}")']
    else:
        state = ["import torch", f'torch.load("{file}", weights_only=True)']
        timm_code = [
            "import timm",
            state[0],
            "",
            f'model = timm.create_model("{name}", num_classes={classes}).eval()',
            f"model.load_state_dict({state[1]})",
        ]
    sections.append(_python(timm_code))
    if in_torchvision:
        sections += [
            "With torchvision alone:",
            _python(
                [
                    state[0],
                    "import torchvision",
                    "",
                    f'model = torchvision.models.get_model("{name}", num_classes={classes}).eval()',
                    f"model.load_state_dict({state[1]})",
                ]
            ),
        ]
    else:
        sections.append(f"torchvision has no `{name}` with these weights.")
    start = "." if layout == "timm" else f"{file} --model {name}{_as_options(settings)}"
    sections += [
        "With FormulaVision, to fine-tune it:",
        f"```sh\nformulavision finetune --checkpoint {start} --downstream cifar10 --out runs/finetuned\n```",
    ]
    return [*sections, _class_order(run, layout)]


def _class_order(run: Run, layout: Layout) -> str:
    """Where the names of the outputs are, and how timm's reader of image folders gets the same labels."""
    where = "`label_names` of `config.json`" if layout == "timm" else f"`{_CLASSES}`"
    script = ""
    if layout == "timm" and _fits_a_class_map(run.class_names):
        script = f" For timm's scripts an exported folder holds it as a file: `--class-map {_CLASS_MAP}`."
    return (
        f"The names of its outputs, in their order, are in {where}. Folders of classes are numbered as torchvision's "
        "`ImageFolder` does, in the plain order of their names (1, 10, 2). timm's reader takes the natural one (1, 2, "
        '10), in which labels are other classes, unless it is given the names: `timm.data.create_dataset("", '
        f"root=IMAGES, class_map={{name: label for label, name in enumerate(NAMES)}})`.{script}"
    )


def _resizing(settings: TrainSettings) -> str:
    side = settings.resize
    return {
        "squash": f"resized to {side} x {side} whatever their aspect",
        "center": f"resized so that the shorter side is {side}",
        "border": f"resized so that the longer side is {side}, on a square of the mean's colour",
    }[settings.resize_mode]


def _as_options(settings: TrainSettings) -> str:
    """The preprocessing as options of the command line, as far as it is not the default."""
    default = TrainSettings(crop=settings.crop)
    values = {name: getattr(settings, name) for name in PREPROCESSING}
    changed = {name: value for name, value in values.items() if value != getattr(default, name)}
    if settings.crop != TrainSettings().crop:
        changed["crop"] = settings.crop
    texts = {name: f"'[{', '.join(map(str, v))}]'" if isinstance(v, tuple) else str(v) for name, v in changed.items()}
    return "".join(f" --set {name}={text}" for name, text in texts.items())


def _limits(run: Run, recipe: Mapping[str, Any] | None) -> list[str]:
    limits = []
    if run.kind == "pretrain":
        limits.append(
            "The outputs name the classes that it was pre-trained on and mean nothing on other images: it is a start "
            "for fine-tuning, to be used without its head."
        )
        if run.final.get("validation_accuracy") is None:
            limits.append("Its accuracy is of the images that it was trained on: nothing was held out.")
    else:
        limits.append(
            "It answers with its own classes whatever it sees. It was tested on nothing but the test images above: not "
            "on other cameras, places or people, and not against attacks."
        )
        if run.settings.get("checkpoint") is not None and recipe is None:
            limits.append("The weights that it started from come with their own data and licence.")
    limits += [
        "The figures are of one run with one seed; between seeds they differ.",
        "No licence was chosen here: whoever publishes it adds `license:` at the top of this file.",
    ]
    return ["## Limits", "\n".join(f"- {limit}" for limit in limits)]


def _recipe(run: Run) -> dict[str, Any] | None:
    """The recipe of the pre-training images: this run's, or that of the run it started from, if that is still there."""
    if run.kind == "pretrain":
        recipe: dict[str, Any] | None = run.settings["data"].get("recipe")
        return recipe
    start = run.settings.get("checkpoint") or {}
    folder = Path(start.get("name") or start.get("path") or "")
    weights = folder / _WEIGHTS["timm"]
    if not (is_complete(folder) and weights.is_file()):
        return None
    with weights.open("rb") as stream:
        same = hashlib.file_digest(stream, "sha256").hexdigest() == start["sha256"]
    return _recipe(Run.load(folder)) if same else None


def _recipe_id(recipe: Mapping[str, Any]) -> str | None:
    """The recipe's id; None where its generator, in this version, is not installed: a store is trained on without."""
    try:
        return Recipe.from_dict(dict(recipe)).id
    except FormulaVisionError:
        return None


def _evaluation(run: Run) -> dict[str, Any] | None:
    file = run.folder / "evaluation.json"
    # JSON is YAML, and this says what is wrong with a damaged file.
    return load_yaml(file) if file.is_file() else None


def _without_folders(value: Any) -> Any:
    """Settings without where things lay on the machine: of an absolute path, the last part."""
    if isinstance(value, Mapping):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(inner) for inner in value]
    if isinstance(value, str):
        kind, colon, path = value.rpartition(":")  # folder:/path
        return f"{kind}{colon}{Path(path).name}" if Path(path).is_absolute() else value
    return value


def _number(what: str, value: float) -> str:
    return f"{value:.2%}" if "accuracy" in what or "precision" in what else f"{value:.4f}"


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "| --- | ---: |", *(f"| {what} | {value} |" for what, value in rows)])


def _block(content: Any) -> str:
    return f"```yaml\n{dump_yaml(content)}```"


def _python(lines: Sequence[str]) -> str:
    return "\n".join(["```python", *lines, "```"])
