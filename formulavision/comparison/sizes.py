"""One experiment at several sizes: what a file's ``sizes`` lay over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from formulavision.comparison.arms import flatten_sweep, swept_names
from formulavision.util.config import did_you_mean
from formulavision.util.errors import ConfigError

__all__ = ["FULL", "at_size", "swept_otherwise", "without_numbers_of_others"]

FULL = "full"
"""The file as it stands, without an overlay."""


def at_size(data: Mapping[str, Any], size: str | None) -> dict[str, Any]:
    """The settings of a file at one of its sizes.

    Mappings merge, lists and plain values replace, and null removes a key.

    Raises:
        ConfigError: there is no such size, or its overlay removes what is not there.
    """
    result = dict(data)
    sizes = result.pop("sizes", None) or {}
    if not isinstance(sizes, Mapping) or not all(isinstance(overlay, Mapping) for overlay in sizes.values()):
        raise ConfigError("sizes: must be a mapping of settings for each size")
    if FULL in sizes:
        raise ConfigError(f"sizes.{FULL}: is what the file says without sizes: give this one another name")
    if size is None:
        return result
    known = [FULL, *sizes]
    if size not in known:
        raise ConfigError(f"sizes: there is no '{size}'{did_you_mean(size, known)} (known: {', '.join(known)})")
    return {**(_merge(result, sizes[size], f"sizes.{size}") if size != FULL else result), "size": size}


def _merge(under: Mapping[str, Any], over: Mapping[str, Any], path: str) -> dict[str, Any]:
    result = dict(under)
    for key, value in over.items():
        if value is None:
            if key not in result:
                raise ConfigError(f"{path}.{key}: null removes a setting, and this one is not there")
            del result[key]
        elif isinstance(value, Mapping):
            below = result.get(key)
            result[key] = _merge(below if isinstance(below, Mapping) else {}, value, f"{path}.{key}")
        else:
            result[key] = value
    return result


def swept_otherwise(full: Mapping[str, Any], sweep: Mapping[str, list[Any]]) -> dict[str, Any]:
    """``full`` with another sweep, without what it says of points that only its own sweep has.

    These are the paper's numbers, and ``against``, which is then training from scratch.
    """
    data = without_numbers_of_others({**full, "sweep": sweep}, full)
    here, there = _Names(data), _Names(full)
    against = data.get("against")
    return {k: v for k, v in data.items() if k != "against" or here.has(against) or not there.has(against)}


def without_numbers_of_others(data: dict[str, Any], full: Mapping[str, Any]) -> dict[str, Any]:
    """``data`` without the paper's numbers for rows and downstreams that only the full size has.

    What neither has stays, to be refused: it is a mistake in writing.
    """
    paper = data.get("paper")
    if not isinstance(paper, Mapping):
        return data
    here, there = _Names(data), _Names(full)
    kept: dict[str, Any] = {}
    for downstream, numbers in paper.items():
        if downstream in there.downstreams - here.downstreams:
            continue
        kept[downstream] = numbers
        if isinstance(numbers, Mapping):
            kept[downstream] = {
                row: number for row, number in numbers.items() if not (there.has(row) and not here.has(row))
            }
    return {**data, "paper": kept}


class _Names:
    """What the rows and downstreams of a raw configuration are called."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        arms, sweep, freeze, downstreams, probes = (
            data.get(key) or {} for key in ("arms", "sweep", "freeze", "downstreams", "probes")
        )
        self.arms = set(arms) if isinstance(arms, Mapping) else set()
        flat = flatten_sweep(sweep) if isinstance(sweep, Mapping) else {}
        points = {path: values if isinstance(values, list) else [] for path, values in flat.items()}
        self.arms |= swept_names(self.arms, points)
        self.freeze = {str(spec) for spec in freeze} if isinstance(freeze, list) else set()
        self.freeze |= {"none", *(f"{probe}-probe" for probe in probes if isinstance(probes, list))}
        self.downstreams = set(downstreams) if isinstance(downstreams, Mapping) else set()

    def has(self, row: Any) -> bool:
        arm, _, freeze = str(row).partition("/")
        return arm in self.arms and (not freeze or freeze in self.freeze)
