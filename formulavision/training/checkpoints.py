"""Loads weights to start training from: of a run, a file or a published model, with their preprocessing settings."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, get_args

import timm
import torch
import torchvision

from formulavision.data.resizing import Interpolation, ResizeMode
from formulavision.training.freezing import head_prefixes, is_head
from formulavision.training.matching import Match, best_match
from formulavision.training.presets import PRESETS
from formulavision.training.runs import BEST_WEIGHTS, WEIGHTS, Run, file_digest, own_class
from formulavision.training.segmentation import encoder_of
from formulavision.training.settings import NEUTRAL, PREPROCESSING, REMOTE, TrainSettings
from formulavision.training.weight_files import Tensors, load_tensors
from formulavision.util.config import did_you_mean, load_yaml, parse
from formulavision.util.errors import CheckpointError, ConfigError, one_line

__all__ = ["Checkpoint", "Loaded", "load_checkpoint", "load_preprocessing"]

_TIMM, _TORCHVISION = REMOTE
_CONFIG, _SETTINGS = "config.json", "settings.yaml"
_OF_HALF = (torchvision.models.Inception_V3_Weights, torchvision.models.GoogLeNet_Weights)
"""Published weights that were trained with mean and deviation 0.5: with these weights, torchvision's own model converts
its input from ImageNet's mean and deviation (``transform_input``), which timm's model does not."""
_FITS = 0.9
"""Smallest share of the model's tensors that a checkpoint must hold, and smallest share of the checkpoint's tensors
that the model must use. Below it, the checkpoint counts as one of another architecture."""


@dataclass(frozen=True, repr=False)
class Loaded:
    """Which tensors of a checkpoint were loaded into a model.

    Attributes:
        loaded: names of the tensors that were copied as they are.
        reshaped: names of the tensors that were converted to the model's shape: position embeddings resampled for
            another image size, and the first convolution for other input channels.
        skipped: names of the checkpoint's tensors that were not loaded: the classification head, and tensors that the
            model does not have.
        missing: names of the model's tensors that the checkpoint does not hold, besides the head.
        place: path of the weights in the file: the keys of its nested dictionaries, such as ``state_dict.module``.
        equal: other paths in the file whose weights match the model equally well.
        elsewhere: names of the other tensors in the file: of an optimizer, a loss, another model.
    """

    loaded: list[str]
    reshaped: list[str]
    skipped: list[str]
    missing: list[str]
    place: str = ""
    equal: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Loaded({self.describe()})"

    def describe(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        if self.place and (self.equal or self.elsewhere):
            parts[0] += f" from '{self.place}'"
        if self.equal:
            parts[0] += f" (those of {', '.join(repr(place or 'the file itself') for place in self.equal)} fit as well)"
        for word in ("reshaped", "skipped", "missing"):
            if names := getattr(self, word):
                parts.append(f"{len(names)} {word} ({_shown(names)})")
        if self.elsewhere:
            parts.append(f"{len(self.elsewhere)} elsewhere in the file not used ({_shown(self.elsewhere)})")
        return ", ".join(parts)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """Weights read from a run, a file, or a published model.

    Attributes:
        name: the path, or the full name of published weights: ``timm:resnet50.a1_in1k``,
            ``torchvision:resnet50:IMAGENET1K_V2``.
        state: all tensors of the file, named by the keys that lead to them, joined by dots (``model.conv1.weight``).
        sha256: SHA-256 of the file, or of the tensors of a published model.
        path: the file or folder that was read; None for a published model.
        model: timm's name of the model; None where it is unknown.
        run: the run, if the path is a run's folder; otherwise None.
        preprocessing: the preprocessing settings (``PREPROCESSING``) that the weights were trained with. Empty where
            they are unknown; without ``resize`` and ``crop`` where the images were not square.
    """

    name: str
    state: Tensors
    sha256: str
    path: Path | None = None
    model: str | None = None
    run: Run | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Checkpoint({self.name!r}, {self.model or 'unknown model'}, {len(self.state)} tensors)"

    @property
    def is_best(self) -> bool:
        """Whether these are the weights of a run's best epoch."""
        return self.path is not None and self.path.name == BEST_WEIGHTS

    def identity(self) -> dict[str, Any]:
        """The entry of a run's settings.yaml for these weights."""
        return {"name": str(self.path.resolve()) if self.path else self.name, "sha256": self.sha256}

    def complete(self, settings: TrainSettings, *, own_model: bool = False) -> TrainSettings:
        """Settings in which model and preprocessing are taken from the checkpoint, unless they are set explicitly.

        Args:
            own_model: the weights are for a module of the user's own: the name of the model is not taken.

        Raises:
            ConfigError: the settings name another model than the checkpoint's, or contradict its preprocessing.
        """
        given = settings.model_dump(include=settings.model_fields_set)
        own = dict(self.preprocessing)
        if self.model is not None and not own_model:
            if given.get("model", self.model) != self.model:
                raise ConfigError(f"model: is '{given['model']}', but {self.name} is a '{self.model}'")
            own["model"] = self.model
        if (
            self.run is not None
            and (own_name := own_class(self.run.settings))
            and not own_model
            and "model" not in given
        ):
            raise ConfigError(f"model: {self.name} was trained with a module of your own, {own_name}: give it again")
        if "crop" in given:
            own.pop("resize", None)  # computed from crop, unless it is given as well
        elif self.preprocessing and "crop" not in self.preprocessing:
            raise ConfigError(f"crop: is missing: the images of {self.name} are not square: give the side of a square")
        return parse(TrainSettings, {**own, **given})

    def describe_preprocessing(self, settings: TrainSettings) -> str:
        """The preprocessing settings that were taken from the checkpoint, and those that a preset replaced, in words;
        or that it has none, and that mean and deviation are the defaults. Empty where they are set explicitly."""
        if not self.preprocessing and not {"mean", "std"} & settings.model_fields_set:
            defaults = f"mean {_plain(settings.mean)}, std {_plain(settings.std)}"
            return f"{self.name} does not say how its images were normalised: {defaults}, unless mean and std are set"
        own = [
            f"{name} {_plain(getattr(settings, name))}"
            for name in PREPROCESSING
            if name in self.preprocessing and getattr(settings, name) == self.preprocessing[name]
        ]
        preset = PRESETS.get(settings.preset, {})
        others = [
            f"{name} {_plain(value)}"
            for name, value in self.preprocessing.items()
            if name in preset and preset[name] == getattr(settings, name) != value
        ]
        told = [f"images as in the checkpoint's own training: {', '.join(own)}"] if own else []
        if others:
            told.append(f"the preset {settings.preset} replaces the checkpoint's {', '.join(others)}")
        return "; ".join(told)

    def load_into(self, model: torch.nn.Module, *, head: bool = False) -> Loaded:
        """Copy the weights into a model.

        A file may hold several sets of weights in nested dictionaries. The set that matches the model best is loaded;
        among equally good ones, a moving average is preferred, otherwise the first. Weights that do not match directly
        are converted by timm's own function for this architecture, if there is one (for position embeddings of another
        image size, or torchvision's names). A first convolution with another number of input channels is adapted as in
        timm: its channels are repeated and scaled, so that an image with equal channels gives the same output.

        Into a segmentation model, the weights of the encoder are loaded; decoder and head keep their own. The
        classification head of a timm model is known. In any other module it is the one layer, if there is one,
        whose tensors have other shapes than in the file.

        Args:
            head: also load the classification head, or decoder and head; otherwise the model keeps its own.

        Raises:
            CheckpointError: the weights are those of another architecture. The model is then unchanged.
        """
        model = model if head else encoder_of(model)
        own = model.state_dict()
        prefixes = head_prefixes(model)
        wanted = {name: tensor for name, tensor in own.items() if head or not is_head(name, prefixes)}
        match, equal, failure = best_match(self.state, model, wanted)
        if not prefixes and not head and len({name.rpartition(".")[0] for name in match.unlike}) == 1:
            match = replace(match, unlike=[], head=match.unlike)
        self._check(match, model, failure)
        taken = {name: match.state[name] for name in match.taken}
        bad = [name for name, tensor in taken.items() if not bool(torch.isfinite(tensor).all())]
        if bad:
            more = f" ({len(bad) - 1} other tensors do, too)" if len(bad) > 1 else ""
            raise CheckpointError(f"{self.name}: {bad[0]} holds NaN or infinite numbers{more}: give other weights")
        model.load_state_dict({**own, **taken})
        # A tensor of the file itself is under another name than there, where a tensor of this name has another shape.
        raw, own_to_file = match.raw, {id(tensor) for tensor in match.raw.values()}
        reshaped = [
            name
            for name, tensor in taken.items()
            if name in raw and raw[name].shape != tensor.shape and id(tensor) not in own_to_file
        ]
        places = (match.place, *equal)
        return Loaded(
            [name for name in taken if name not in reshaped],
            reshaped,
            [*match.head, *match.extra, *match.beside],
            match.missing,
            place=match.place.rstrip("."),
            equal=[place.rstrip(".") for place in equal],
            elsewhere=[name for name in self.state if not name.startswith(places)],
        )

    def _check(self, match: Match, model: torch.nn.Module, failure: Exception | None) -> None:
        """Refuse weights of another architecture."""
        names = len(match.taken) + len(match.unlike) + len(match.missing)
        there = len(match.taken) + len(match.unlike)
        if there < _FITS * names or there < _FITS * (there + len(match.extra)):
            advice = "give the name of its model"
            if self.name.startswith(_TORCHVISION):
                advice += " in timm, which cannot convert all of torchvision's"
            parts = [f"has {len(match.taken)} of its {names} tensors"]
            if match.place and match.taken:
                parts[0] += f" under '{match.place.rstrip('.')}'"
            left_over = [*match.extra, *match.beside]
            parts += [f"missing: {_shown(match.missing)}"] if match.missing else []
            parts += [f"left over: {_shown(left_over)}"] if left_over else []
            if failure is not None:
                parts.append(f"timm cannot convert it ({type(failure).__name__}: {one_line(failure)})")
            raise CheckpointError(
                f"{self.name}: does not fit the model, a {type(model).__name__}: {'; '.join(parts)}: {advice}"
            )
        own = model.state_dict()
        for name in match.unlike:
            given, wanted = match.state[name], own[name]
            if given.shape == wanted.shape:
                raise CheckpointError(
                    f"{self.name}: {name} holds {_dtype(given)} and must hold {_dtype(wanted)}: give weights that are "
                    "not quantised"
                )
            raise CheckpointError(
                f"{self.name}: {name} is {list(given.shape)} and must be {list(wanted.shape)}: "
                f"these are the weights of another architecture than the requested {type(model).__name__}"
            )


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def load_checkpoint(source: str | PathLike[str]) -> Checkpoint:
    """Read weights to start from.

    Files are read without running code from them (``torch.load(weights_only=True)``, safetensors).

    Args:
        source: one of

            - a complete run's folder, or a folder that :func:`formulavision.export_model` or timm wrote; or the
              ``model.safetensors`` in it, or the run's ``model_best.safetensors``, the weights of its best epoch;
            - a file of named tensors (``.safetensors``, ``.pth``, ``.pth.tar``, ``.pt``, ``.ckpt``, ``.bin``), such as
              those of timm, torchvision or the published FractalDB;
            - ``timm:resnet50`` or ``timm:resnet50.a1_in1k``, which timm downloads and keeps in its cache;
            - ``torchvision:resnet50`` (its default weights) or ``torchvision:resnet50:IMAGENET1K_V1``, likewise by
              torchvision.

    Raises:
        CheckpointError: the file or folder does not exist, is not a checkpoint, or is truncated; its run is unfinished;
            or the weights cannot be downloaded.
    """
    text = str(source)
    if text.startswith(_TIMM):
        return _from_timm(text)
    if text.startswith(_TORCHVISION):
        return _from_torchvision(text)
    path = Path(source)
    run = None
    file = path / WEIGHTS if path.is_dir() else path
    best = file.name == BEST_WEIGHTS and (file.parent / _SETTINGS).is_file()
    if best or (path.is_dir() and not _is_in_timms_layout(path)):
        try:
            run = Run.load(file.parent)
            if best:
                run.weights_file(best=True)
        except ValueError as error:
            raise CheckpointError(str(error)) from None
    model, preprocessing = _described_by(file.parent) if best or file.name == WEIGHTS else (None, {})
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file" if not path.is_dir() else f"{path}: holds no model.safetensors")
    state = load_tensors(file)
    digest = file_digest(file)
    if run is not None and not best and run.weights_sha256 not in (None, digest):
        raise CheckpointError(f"{file}: is damaged: --resume writes it again from the run's last checkpoint")
    return Checkpoint(str(path), state, digest, path=path, model=model, run=run, preprocessing=preprocessing)


def load_preprocessing(source: str | PathLike[str]) -> dict[str, Any]:
    """The preprocessing settings of a checkpoint (:attr:`Checkpoint.preprocessing`), without loading or downloading it.

    Raises:
        CheckpointError: there is no such published model, or the folder's configuration is damaged.
    """
    text = str(source)
    if text.startswith(_TIMM):
        metadata: Any = timm.models.get_pretrained_cfg(_published_by_timm(text))
        return _of_timm(text, metadata.to_dict())
    if text.startswith(_TORCHVISION):
        return _of_torchvision(_published_by_torchvision(text))
    path = Path(source)
    file = path / WEIGHTS if path.is_dir() else path
    return _described_by(file.parent)[1] if file.name in (WEIGHTS, BEST_WEIGHTS) else {}


def _from_timm(source: str) -> Checkpoint:
    name = _published_by_timm(source)
    # timm first draws random weights, which must not advance the caller's global random stream.
    with torch.random.fork_rng(devices=[]):
        model = _fetch(source, lambda: timm.create_model(name, pretrained=True))
    state = model.state_dict()
    full = f"{_TIMM}{name}"
    return Checkpoint(full, state, _digest(state), model=name.partition(".")[0], preprocessing=load_preprocessing(full))


def _published_by_timm(source: str) -> str:
    """timm's full name, with the tag of the weights."""
    name = source.removeprefix(_TIMM)
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise CheckpointError(f"{source}: timm has no such model{did_you_mean(architecture, timm.list_models())}")
    published = timm.list_models(f"{architecture}.*", pretrained=True)
    if not published:
        raise CheckpointError(f"{source}: timm has no pre-trained weights of this model")
    if name != architecture and name not in published:
        raise CheckpointError(f"{source}: timm has no such weights{did_you_mean(name, published)}")
    return f"{architecture}.{timm.models.get_pretrained_cfg_value(name, 'tag')}"


def _from_torchvision(source: str) -> Checkpoint:
    weights = _published_by_torchvision(source)
    architecture = source.removeprefix(_TORCHVISION).partition(":")[0]
    state = _fetch(source, lambda: weights.get_state_dict(check_hash=True, map_location="cpu", weights_only=True))
    return Checkpoint(
        f"{_TORCHVISION}{architecture}:{weights.name}",
        dict(state),
        _digest(state),
        model=architecture if timm.is_model(architecture) else None,
        preprocessing=_of_torchvision(weights),
    )


def _published_by_torchvision(source: str) -> Any:
    """The published weights that a name stands for, as a member of torchvision's enumeration."""
    architecture, _, chosen = source.removeprefix(_TORCHVISION).partition(":")
    models = torchvision.models.list_models(module=torchvision.models)
    if architecture not in models:
        raise CheckpointError(f"{source}: torchvision has no such model{did_you_mean(architecture, models)}")
    published = torchvision.models.get_model_weights(architecture)
    if chosen not in ("", *published.__members__):
        raise CheckpointError(
            f"{source}: torchvision has no such weights: must be {' or '.join(published.__members__)}"
        )
    return published[chosen or "DEFAULT"]


# Preprocessing -------------------------------------------------------------------------------------------------------


def _of_run(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing settings of a run. Settings that its version did not have yet get their neutral value."""
    own = {**NEUTRAL, **{name: settings[name] for name in PREPROCESSING if name in settings}}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in own.items()}


def _of_timm(source: str | PathLike[str], pretrained_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing settings in timm's metadata of weights, as timm itself reads them for evaluation."""
    config = timm.data.resolve_data_config({}, pretrained_cfg=dict(pretrained_cfg))
    if config["interpolation"] not in get_args(Interpolation):
        raise CheckpointError(
            f"{source}: interpolation {config['interpolation']!r} is not supported: "
            f"must be {' or '.join(get_args(Interpolation))}"
        )
    mode = config["crop_mode"]
    found = {
        "resize_mode": mode if mode in get_args(ResizeMode) else "center",
        "interpolation": config["interpolation"],
    }
    for name in ("mean", "std"):
        values = tuple(config[name]) * (3 if len(config[name]) == 1 else 1)
        if len(values) != 3:
            raise CheckpointError(f"{source}: {name} has {len(values)} values: must have 3, or 1 for gray images")
        found[name] = values
    height, width = config["input_size"][-2:]
    resize = math.floor(width / config["crop_pct"])
    return {"resize": resize, "crop": width, **found} if height == width <= resize else found


def _of_torchvision(weights: Any) -> dict[str, Any]:
    transform = weights.transforms()
    mean, std = tuple(transform.mean), tuple(transform.std)
    if isinstance(weights, _OF_HALF):
        mean = std = (0.5, 0.5, 0.5)
    return {
        "resize": transform.resize_size[0],
        "crop": transform.crop_size[0],
        "resize_mode": "center",
        "interpolation": transform.interpolation.value,
        "mean": mean,
        "std": std,
    }


def _is_in_timms_layout(folder: Path) -> bool:
    return (folder / _CONFIG).is_file() and not (folder / _SETTINGS).is_file()


def _described_by(folder: Path) -> tuple[str | None, dict[str, Any]]:
    """timm's name of the model and the preprocessing settings in the folder of a run, or in one that timm wrote."""
    if (folder / _SETTINGS).is_file():
        content = load_yaml(folder / _SETTINGS)
        settings = content["settings"]
        return None if own_class(content) else settings.get("model"), _of_run(settings)
    file = folder / _CONFIG
    if not file.is_file():
        return None, {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        return str(config["architecture"]).partition(".")[0], _of_timm(file, config.get("pretrained_cfg") or config)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
        raise CheckpointError(f"{file}: is not the configuration of a timm model") from None


def _plain(value: Any) -> str:
    return " ".join(f"{number:g}" for number in value) if isinstance(value, tuple) else str(value)


# Downloads -----------------------------------------------------------------------------------------------------------

Fetched = TypeVar("Fetched")


def _fetch(source: str, download: Callable[[], Fetched]) -> Fetched:
    """Download by another library; any exception that it raises becomes an error of one line."""
    try:
        return download()
    except Exception as error:
        raise CheckpointError(
            f"{source}: cannot be downloaded ({type(error).__name__}: {one_line(error)}): "
            "check the network, or give the path of a file"
        ) from error


def _digest(state: Tensors) -> str:
    """SHA-256 of all tensors: their names, types, shapes and values, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
