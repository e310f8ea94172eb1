"""Which of a file's tensors are a model's weights: those whose names and shapes match the model's."""

from __future__ import annotations

import inspect
import math
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from formulavision.training.freezing import head_prefixes, is_head
from formulavision.training.weight_files import Tensors

__all__ = ["Match", "best_match", "preferred"]

_PREFERRED = ("ema", ".*averag.*", ".*teacher.*")
"""Among weights that match equally well, those under a name with such a word come first: they are moving averages."""
_MOST_PLACES = 12
"""Number of places in a file that are tried: those with the most matching tensors."""
_DEEPEST = 64
"""Number of parts of a name that may be a place."""


@dataclass(frozen=True)
class Match:
    """How the tensors at one place of a file match a model.

    Attributes:
        place: the beginning of their names in the file, such as ``state_dict.module.``.
        raw: the tensors as the file has them, by the rest of their names.
        state: the tensors by the model's names and in its shapes, as far as they could be converted.
        taken: names of the model's tensors that match.
        unlike: names of the model's tensors that are there in another shape or kind of number.
        missing: names of the model's tensors that are not there; counters of batches are left out.
        extra: names that the model does not have, in modules that it has: those of a larger model.
        head: names of the classification head, where it is not wanted.
        beside: names in other modules: a projector, a decoder, a loss.
    """

    place: str
    raw: Tensors
    state: Tensors
    taken: list[str]
    unlike: list[str]
    missing: list[str]
    extra: list[str]
    head: list[str]
    beside: list[str]

    @property
    def rank(self) -> tuple[int, int]:
        return len(self.taken), -len(self.extra)


def best_match(state: Tensors, model: torch.nn.Module, wanted: Tensors) -> tuple[Match, list[str], Exception | None]:
    """The place of a file that matches a model best; timm's own conversion is tried where none matches as it is.

    Args:
        state: all tensors of the file.
        model: a timm model.
        wanted: the model's tensors that are looked for.

    Returns:
        The best match; the places of others that match as well; and the exception of timm's conversion, if it failed.
    """
    places = _places(state, wanted)
    matches = [_match(state, place, model, wanted) for place in places]
    failure: Exception | None = None
    convert = _conversion_of(model)
    if convert is not None and not any(_is_whole(match) for match in matches):
        for place in dict.fromkeys([*places, *_crowded(state, len(wanted))]):
            try:
                matches.append(_match(state, place, model, wanted, convert))
            except Exception as error:  # tensors of another layout lead to exceptions of many kinds
                failure = failure or error
    best = max(sorted(matches, key=lambda match: _preference(match.place)), key=lambda match: match.rank)
    equal = [
        match.place
        for match in matches
        if match.rank == best.rank and match.taken and not _overlap(match.place, best.place)
    ]
    return best, list(dict.fromkeys(equal)), failure


def _is_counter(name: str) -> bool:
    """Whether a tensor counts batches: some formats leave these out, so that they do not count for a match."""
    return name.endswith("num_batches_tracked")


def _places(state: Tensors, wanted: Tensors) -> list[str]:
    """Beginnings of names that the model's own names follow, those with the most matching tensors first."""
    counts: Counter[str] = Counter({"": 0})
    deepest = max((name.count(".") + 1 for name in wanted), default=1)
    for name, tensor in state.items():
        parts = name.split(".")
        for i in range(max(0, len(parts) - deepest), len(parts)):
            own = wanted.get(".".join(parts[i:]))
            if own is not None:
                counts[_beginning(parts[:i])] += 1 + (own.shape == tensor.shape)
    return [place for place, _ in counts.most_common(_MOST_PLACES)]


def _crowded(state: Tensors, size: int) -> list[str]:
    """Beginnings of names that another layout of the model may have: at least half as many names as it has tensors."""
    counts: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")[:_DEEPEST]
        counts.update(_beginning(parts[:i]) for i in range(len(parts)))
    # Of equals the longest.
    crowded = sorted((place for place, count in counts.items() if 2 * count >= size), key=lambda p: -len(p))
    return sorted(crowded, key=lambda place: -counts[place])[:_MOST_PLACES]


def _beginning(parts: list[str]) -> str:
    return ".".join([*parts, ""])


def _match(
    state: Tensors,
    place: str,
    model: torch.nn.Module,
    wanted: Tensors,
    convert: Callable[[Tensors], Tensors] | None = None,
) -> Match:
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
    return Match(
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


def _is_whole(match: Match) -> bool:
    return not (match.unlike or match.missing)


def _preference(place: str) -> int:
    words = re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", place)  # model_ema, modelEMA; not semantic
    named = (i for i, form in enumerate(_PREFERRED) if any(re.fullmatch(form, word.lower()) for word in words))
    return next(named, len(_PREFERRED))


def preferred(state: Tensors) -> Tensors:
    """Of tensors that are one layer of several models, the one that :func:`best_match` prefers; else all of them."""
    layers = {tuple(name.split(".")[-2:]) for name in state}
    if len(layers) != 1 or len(state) == 1:
        return state
    name = min(state, key=_preference)
    return {name: state[name]}


def _overlap(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _conversion_of(model: torch.nn.Module) -> Callable[[Tensors], Tensors] | None:
    """timm's conversion of other layouts to this architecture, such as torchvision's names or another image size."""
    if not head_prefixes(model):
        return None  # not a model of timm
    module = sys.modules[type(model).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
    if convert is None:
        return None

    def converted(state: Tensors) -> Tensors:
        # Some conversions take the model as well.
        arguments = (state, model)[: len(inspect.signature(convert).parameters)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"timm\.")  # advice to the authors of timm
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
