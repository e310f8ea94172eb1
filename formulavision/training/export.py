"""A complete run for other people: weights that timm or torchvision load on their own, and a model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torchvision
from jinja2 import Environment, StrictUndefined, Template

from formulavision.storage.card import sealed
from formulavision.training.checkpoints import Checkpoint, load_checkpoint
from formulavision.training.models import build_model, save_timm_model
from formulavision.training.runs import METRICS, WEIGHTS, Run, file_digest, is_complete, own_class, recipe_id, score_of
from formulavision.training.settings import PREPROCESSING, TrainSettings
from formulavision.util.config import did_you_mean, dump_yaml
from formulavision.util.errors import ConfigError, FolderError, one_line
from formulavision.util.files import atomic_write, write_text
from formulavision.util.folders import OwnedFolder, State
from formulavision.util.remote import is_url
from formulavision.util.text import markdown_text

__all__ = ["WRITTEN", "ExportLayout", "export_model", "write_card"]

ExportLayout = Literal["timm", "torchvision"]

_CARD = "README.md"
_CLASSES = "classes.json"
_CLASS_MAP = "class_map.txt"
_WEIGHTS: dict[ExportLayout, str] = {"timm": "model.safetensors", "torchvision": "model.pth"}
_PIPELINE = {"class": "image-classification", "labels": "image-classification", "semantic": "image-segmentation"}
_SEGMENTED_BY = {"fpn": "FPN", "unet": "Unet", "upernet": "UPerNet", "dpt": "DPT"}
"""Models of segmentation-models-pytorch by their decoders."""
WRITTEN = {_CARD, _CLASSES, _CLASS_MAP, "config.json", *_WEIGHTS.values()}
"""Names of all files that an export may hold."""


def export_model(
    run: Run | str | Path,
    out: str | Path,
    *,
    layout: ExportLayout = "timm",
    best: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a run's model so that it loads without FormulaVision, with a model card.

    Args:
        run: a complete run, or its folder.
        out: a folder, which must be new or empty; with ``overwrite`` it may hold an export.
        layout: ``timm``: ``model.safetensors`` and ``config.json``, which
            ``timm.create_model("local-dir:OUT", pretrained=True)`` loads, and ``class_map.txt``, a class a line, for
            ``--class-map`` of timm's scripts; ``torchvision``: ``model.pth``, the state
            dict of torchvision's ResNet of the same name, and ``classes.json``, the names of its outputs. Of a
            segmentation model, timm's files hold the encoder, without a head.
        best: export the weights of the epoch with the highest score on validation images, not the last ones.
        overwrite: remove the files of an earlier export in ``out`` first; other files stay.

    Returns:
        The folder.

    Raises:
        ConfigError: the folder holds no complete run, or no best weights; there is no such layout; torchvision has no
            such model; or ``out`` holds something else.
        CheckpointError: the run's weights are missing or damaged.
    """
    run = run if isinstance(run, Run) else Run.load(run)
    out = Path(out)
    if layout not in get_args(ExportLayout):
        raise ConfigError(
            f"layout: there is no '{layout}'{did_you_mean(layout, get_args(ExportLayout))}: must be timm or torchvision"
        )
    if own := own_class(run.settings):
        raise ConfigError(
            f"{run.folder}: was trained with a module of your own, {own}, which {layout} cannot build: its weights are "
            "model.safetensors in the run's folder"
        )
    weights = load_checkpoint(run.weights_file(best=True) if best else run.folder)
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
        try:
            _write_weights(run, out, layout, weights)
            write_text(out / _CARD, _card(run, layout, weights, exported=True, best=best))
        except OSError as error:
            raise ConfigError(f"out: {error.filename or out}: cannot be written: {error.strerror}") from None
    return out


def _write_weights(run: Run, out: Path, layout: ExportLayout, weights: Checkpoint) -> None:
    if layout == "torchvision":
        with atomic_write(out / _WEIGHTS[layout]) as file:
            torch.save(weights.state, file)
        write_text(out / _CLASSES, json.dumps(run.classes, indent=2) + "\n")
        return
    if run.target == "semantic":
        settings = TrainSettings.model_validate(run.settings["settings"])
        model: Any = build_model(settings, len(run.classes))
        weights.load_into(model, head=True)
        save_timm_model(model.encoder, out, settings=settings, class_names=())
        return
    kept = weights.path if weights.path is not None and weights.path.is_file() else run.folder / WEIGHTS
    for name, source in ((_WEIGHTS[layout], kept), ("config.json", run.folder / "config.json")):
        with source.open("rb") as content, atomic_write(out / name) as file:
            shutil.copyfileobj(content, file)
    if _fits_a_class_map(run.classes):
        write_text(out / _CLASS_MAP, "".join(f"{name}\n" for name in run.classes))


def write_card(run: Run | str | Path) -> Path:
    """Write the model card of a complete run into its own folder, as ``README.md``, in Hugging Face's layout.

    Raises:
        ConfigError: there is no complete run.
        CheckpointError: the run's weights are missing or damaged.
    """
    run = run if isinstance(run, Run) else Run.load(run)
    write_text(run.folder / _CARD, _card(run, "timm", load_checkpoint(run.folder), exported=False))
    return run.folder / _CARD


def _fits_a_class_map(names: Sequence[str]) -> bool:
    """Whether timm reads the names back from lines, whose ends it strips."""
    return all(name and name == name.strip() and len(name.splitlines()) == 1 for name in names)


def _model(run: Run) -> str:
    """timm's name of the architecture, without the tag of any weights."""
    return str(run.settings["settings"]["model"]).partition(".")[0]


def _is_in_torchvision(run: Run, weights: Checkpoint) -> bool:
    """Whether torchvision has a ResNet of this name with the same tensors in the same shapes."""
    if run.target == "semantic":
        return False
    models = torchvision.models
    name = _model(run)
    if name not in models.list_models(module=models):
        return False
    if models.get_model_builder(name).__module__ != models.resnet.__name__:
        return False
    with torch.device("meta"):
        twin = models.get_model(name, weights=None, num_classes=len(run.classes))
    theirs = {key: tensor.shape for key, tensor in twin.state_dict().items()}
    return theirs == {key: tensor.shape for key, tensor in weights.state.items()}


# The model card ------------------------------------------------------------------------------------------------------


def _card(run: Run, layout: ExportLayout, weights: Checkpoint, *, exported: bool, best: bool = False) -> str:
    """The text of README.md, with its digest.

    Args:
        exported: whether it lies beside an export, which of a segmentation model holds the encoder alone.
    """
    settings = TrainSettings.model_validate(run.settings["settings"])
    pretrained = run.kind == "pretrain"
    recipe = _recipe(run)
    generators = _generators(recipe) if recipe else []
    inputs = {key: value for key, value in run.settings.items() if key not in {"kind", "settings"}}
    if isinstance(inputs.get("data"), dict):
        drawn = {"recipe", "store", "mixture"}
        inputs["data"] = {key: value for key, value in inputs["data"].items() if key not in drawn}
    evaluation = run.folder / "evaluation.json"
    text = _template().render(
        run=run,
        final=run.history[(run.best_epoch or 0) - 1] if best else run.final,
        best=best,
        layout=layout,
        own_class=own_class(run.settings),
        settings=settings,
        segmented_by=_SEGMENTED_BY.get(settings.decoder or ""),
        model=_model(run),
        title=_title(run, generators),
        header={
            "library_name": "pytorch" if own_class(run.settings) else layout,
            "pipeline_tag": "image-feature-extraction" if pretrained else _PIPELINE[run.target],
            "tags": ["formula-driven-supervised-learning", "formulavision", *generators],
        },
        pretrained=pretrained,
        validated=run.final.get("validation_loss") is not None,
        metrics=METRICS,
        score=score_of(run.final)[0],
        whole=run.target == "semantic" and not exported,
        inputs=inputs,
        recipe=recipe,
        recipe_id=recipe and recipe_id(recipe),
        fresh=pretrained and settings.fresh and _draws(run.settings["data"]),
        evaluation=_read_evaluation(evaluation) if evaluation.is_file() and not best else None,
        in_torchvision=_is_in_torchvision(run, weights),
        preprocessing_options=_preprocessing_options(settings),
        has_class_map=_fits_a_class_map(run.classes),
    )
    return sealed(text)


def _read_evaluation(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read ({one_line(error)}): evaluate again") from None


@cache
def _template() -> Template:
    """The template beside this file. A comparison fills it for each of its runs; compiling it takes 12 ms."""
    cards = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    cards.filters.update(
        yaml=dump_yaml, portable=_without_folders, word=_word, decimal="{:.4f}".format, percent="{:.2%}".format
    )
    return cards.from_string(Path(__file__).with_name("model_card.md.j2").read_text(encoding="utf-8"))


def _draws(data: Mapping[str, Any]) -> bool:
    """Whether images of a run's data were drawn while it trained."""
    return any(map(_draws, data["mixture"])) if "mixture" in data else "store" not in data


def _generators(recipe: Mapping[str, Any]) -> list[str]:
    """Names of the generators of a recipe's or a mixture's plain values, each once."""
    recipes = [part["recipe"] for part in recipe["mixture"]] if "mixture" in recipe else [recipe]
    parts = [part for each in recipes for part in each.get("parts") or [each]]
    return list(dict.fromkeys(part["generator"]["name"] for part in parts))


def _title(run: Run, generators: Sequence[str]) -> str:
    named = " and ".join(f"'{name}'" for name in generators)
    title = f"pre-trained on images drawn by {named}" if named else "pre-trained"
    if run.kind == "pretrain":
        return title
    if run.settings.get("checkpoint") is None:
        title = "from scratch"
    return f"{title}, trained on {_word(run.settings['downstream']['name'])}"


def _preprocessing_options(settings: TrainSettings) -> str:
    """Options of the command line for the preprocessing settings that differ from the defaults."""
    default = {**TrainSettings(crop=settings.crop).model_dump(), "crop": TrainSettings().crop}
    changed = {name: value for name in PREPROCESSING if (value := getattr(settings, name)) != default[name]}
    texts = {name: f"'[{', '.join(map(str, v))}]'" if isinstance(v, tuple) else str(v) for name, v in changed.items()}
    return "".join(f" --set {name}={text}" for name, text in texts.items())


def _recipe(run: Run) -> dict[str, Any] | None:
    """The recipe of the pre-training images: this run's, or that of the run it started from where that still exists.

    Of a mixture, the content of its file, in which recipes stand for stores.
    """
    if run.kind == "pretrain":
        recipe: dict[str, Any] | None = run.settings["data"].get("recipe")
        if mixture := run.settings["data"].get("mixture"):
            return {"mixture": [{key: value for key, value in part.items() if key != "store"} for part in mixture]}
        return recipe
    start = run.settings.get("checkpoint") or {}
    folder = Path(start.get("name") or start.get("path") or "")
    weights = folder / _WEIGHTS["timm"]
    if not (is_complete(folder) and weights.is_file()) or file_digest(weights) != start["sha256"]:
        return None
    return _recipe(Run.load(folder))


def _without_folders(value: Any) -> Any:
    """Settings without the machine's folders: of an absolute path, only the last part stays."""
    if isinstance(value, Mapping):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(inner) for inner in value]
    if isinstance(value, str) and not is_url(value):
        kind, colon, path = value.rpartition(":")  # folder:/path
        return f"{kind}{colon}{Path(path).name}" if Path(path).is_absolute() else value
    return value


def _word(name: str) -> str:
    return markdown_text(_without_folders(name))
