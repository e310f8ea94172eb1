"""Which of a file's tensors are a model's weights: found by the names and shapes that fit the model."""

from __future__ import annotations

import inspect
import math
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from formulavision.training.freezing import head_prefixes, is_head

__all__ = ["Fit", "State", "best_fit", "flatten", "preferred"]

State = dict[str, torch.Tensor]

_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of names that torch puts in, anywhere: torch.compile, FSDP and activation checkpointing."""
_PREFERRED = ("ema", "averag", "teacher")
"""Of weights that fit equally well, those whose place is named so are taken first: they are moving averages."""
_MOST_PLACES = 12
"""Places in a file that are tried, the ones with the most tensors that fit."""
_DEEPEST = 64


def flatten(content: Any) -> State | None:
    """All tensors in nested mappings and sequences, named by the keys that lead to them, joined by dots.

    Names that torch's wrappers put in are left out. None where the nesting has no end that a checkpoint has.
    """
    found: State = {}
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, torch.Tensor):
            name = ".".join(part for part in ".".join(path).split(".") if part not in _WRAPPERS)
            found.setdefault(name, value)
            continue
        if not isinstance(value, Mapping | list | tuple) or id(value) in seen:
            continue
        if len(path) >= _DEEPEST:
            return None
        # An object that is there twice, or within itself, is read once.
        seen.add(id(value))
        inner = value.items() if isinstance(value, Mapping) else enumerate(value)
        waiting += [((*path, str(key)), each) for key, each in reversed(list(inner))]
    return found


@dataclass(frozen=True)
class Fit:
    """How a part of a file's tensors fits a model.

    Attributes:
        place: what the names in the file begin with, such as ``state_dict.module.``; the part is what is there.
        raw: the part as the file has it, without that beginning.
        state: by the model's names and in its shapes, as far as they could be brought to these.
        taken: names of the model's tensors that are there and fit.
        unlike: names of those that are there in another shape or kind of number.
        missing: names of those that are not there; counters of batches do not count.
        extra: names that the model does not have, in modules that it has: a larger model's.
        head: names of the classification head, where that is not wanted.
        beside: names of other modules: a projector, a decoder, a loss.
    """

    place: str
    raw: State
    state: State
    taken: list[str]
    unlike: list[str]
    missing: list[str]
    extra: list[str]
    head: list[str]
    beside: list[str]

    @property
    def rank(self) -> tuple[int, int]:
        return len(self.taken), -len(self.extra)


def best_fit(state: State, model: torch.nn.Module, wanted: State) -> tuple[Fit, list[str], Exception | None]:
    """The part of a file that fits a model best; timm's own conversion is tried where none fits as it is.

    Args:
        state: all tensors of the file; see :func:`flatten`.
        model: of timm.
        wanted: the model's tensors that are looked for.

    Returns:
        The best; the places of others that fit as well; and what timm's conversion failed by, if it did.
    """
    places = _places(state, wanted)
    fits = [_fit(state, place, model, wanted) for place in places]
    failure: Exception | None = None
    convert = _conversion_of(model)
    if convert is not None and not any(_is_whole(fit) for fit in fits):
        for place in dict.fromkeys([*places, *_crowded(state, len(wanted))]):
            try:
                fits.append(_fit(state, place, model, wanted, convert))
            except Exception as error:  # whatever another layout's names and shapes lead to
                failure = failure or error
    best = max(sorted(fits, key=lambda fit: _preference(fit.place)), key=lambda fit: fit.rank)
    equal = [fit.place for fit in fits if fit.rank == best.rank and fit.taken and not _overlap(fit.place, best.place)]
    return best, list(dict.fromkeys(equal)), failure


def _is_counter(name: str) -> bool:
    """Counters of batches, which some formats leave out, say nothing about how well weights fit."""
    return name.endswith("num_batches_tracked")


def _places(state: State, wanted: State) -> list[str]:
    """Beginnings of names after which the model's own names come, those with the most that fit first."""
    counts: Counter[str] = Counter({"": 0})
    deepest = max((name.count(".") + 1 for name in wanted), default=1)
    for name, tensor in state.items():
        parts = name.split(".")
        for i in range(max(0, len(parts) - deepest), len(parts)):
            own = wanted.get(".".join(parts[i:]))
            if own is not None:
                counts[_beginning(parts[:i])] += 1 + (own.shape == tensor.shape)
    return [place for place, _ in counts.most_common(_MOST_PLACES)]


def _crowded(state: State, size: int) -> list[str]:
    """Beginnings that at least half as many names share as a model has tensors: where another layout may lie."""
    counts: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")[:_DEEPEST]
        counts.update(_beginning(parts[:i]) for i in range(len(parts)))
    # Of equals the longest.
    crowded = sorted((place for place, count in counts.items() if 2 * count >= size), key=lambda p: -len(p))
    return sorted(crowded, key=lambda place: -counts[place])[:_MOST_PLACES]


def _beginning(parts: list[str]) -> str:
    return ".".join([*parts, ""])


def _fit(
    state: State,
    place: str,
    model: torch.nn.Module,
    wanted: State,
    convert: Callable[[State], State] | None = None,
) -> Fit:
    raw = {name.removeprefix(place): tensor for name, tensor in state.items() if name.startswith(place)}
    found = dict(raw) if convert is None else convert(dict(raw))
    for name in _first_convolutions(model):
        if name in found and name in wanted:
            found[name] = _adapt_channels(found[name], wanted[name])
    there = [name for name in wanted if name in found]
    taken = [name for name in there if _is_alike(name, found[name], wanted[name])]
    rest = [name for name in found if name not in wanted]
    heads = head_prefixes(model)
    modules = {name.partition(".")[0] for name in model.state_dict()}
    head = [name for name in rest if is_head(name, heads)]
    extra = [name for name in rest if not is_head(name, heads) and name.partition(".")[0] in modules]
    return Fit(
        place=place,
        raw=raw,
        state=found,
        taken=taken,
        unlike=[name for name in there if name not in set(taken)],
        missing=[name for name in wanted if name not in found and not _is_counter(name)],
        extra=extra,
        head=head,
        beside=[name for name in rest if name not in {*head, *extra}],
    )


def _is_alike(name: str, given: torch.Tensor, own: torch.Tensor) -> bool:
    return given.shape == own.shape and (_is_counter(name) or given.is_floating_point() == own.is_floating_point())


def _is_whole(fit: Fit) -> bool:
    return not (fit.unlike or fit.missing)


def _preference(place: str) -> int:
    named = (i for i, word in enumerate(_PREFERRED) if word in place.lower())
    return next(named, len(_PREFERRED))


def preferred(state: State) -> State:
    """Of tensors that are one layer of several models in a file, the one that :func:`best_fit` prefers; else all."""
    layers = {tuple(name.split(".")[-2:]) for name in state}
    if len(layers) != 1 or len(state) == 1:
        return state
    name = min(state, key=_preference)
    return {name: state[name]}


def _overlap(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _conversion_of(model: torch.nn.Module) -> Callable[[State], State] | None:
    """timm's conversion of other layouts to this architecture, such as torchvision's names or another image size."""
    module = sys.modules[type(model).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
    if convert is None:
        return None

    def converted(state: State) -> State:
        # Some take the model as well.
        arguments = (state, model)[: len(inspect.signature(convert).parameters)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"timm\.")  # advice to timm, not to us
            result = convert(*arguments)
        return {name: tensor for name, tensor in result.items() if isinstance(tensor, torch.Tensor)}

    return converted


def _first_convolutions(model: torch.nn.Module) -> Iterator[str]:
    cfg: Any = getattr(model, "pretrained_cfg", None) or {}
    first = cfg.get("first_conv") or ()
    return (f"{layer}.weight" for layer in ((first,) if isinstance(first, str) else first))


def _adapt_channels(weight: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """A convolution's weight [out, in, h, w] for the input channels of ``wanted``, where that is what differs.

    timm's rule (``adapt_input_conv``, which up to version 1.0.28 knows no other source than RGB): the sum for one
    channel, otherwise repeated channels times in / wanted in.
    """
    if weight.ndim != 4 or wanted.ndim != 4 or weight.shape[1] == wanted.shape[1]:
        return weight
    if (weight.shape[0], *weight.shape[2:]) != (wanted.shape[0], *wanted.shape[2:]):
        return weight
    given, channels = weight.shape[1], wanted.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight.repeat(1, math.ceil(channels / given), 1, 1)[:, :channels] * (given / channels)
