"""The report's pictures: contact sheets, first-layer filters and what models look at, made once and kept as files."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formulavision.comparison.arms import REMOTE
from formulavision.comparison.config import PROBE
from formulavision.comparison.results import Entry, Findings
from formulavision.recipes.drawing import Drawer
from formulavision.recipes.recipe import Recipe
from formulavision.recipes.sheets import contact_sheet
from formulavision.util.config import parse_yaml
from formulavision.util.errors import ConfigError, FormulaVisionError, StoreError
from formulavision.util.files import atomic_write

if TYPE_CHECKING:
    from PIL.Image import Image

    from formulavision.data.downstream import Downstream

__all__ = ["Album", "Picture", "attention", "data_uri", "filters", "sheet"]

_WIDEST = 1000
"""Pixels; the report is read at this width at most, and must not grow to tens of megabytes."""
_HIGHEST = 2 * _WIDEST
_FILTERS = 500
"""Pixels that the filters of an arm are wide."""
_QUALITY = 85

_HASHED = re.compile(r".+-[0-9a-f]{16}")
_TYPES = {"png": "image/png", "jpg": "image/jpeg"}


@dataclass(frozen=True)
class Picture:
    """A picture in the report, or why it is not there.

    Attributes:
        source: a data URI; empty where there is a problem.
        problem: why it could not be made, in one line.
    """

    title: str
    alt: str
    source: str = ""
    problem: str = ""


class Album:
    """Pictures of a comparison, as files in its ``pictures/``: made where they are missing or older than their runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "pictures"

    def picture(
        self,
        title: str,
        alt: str,
        *,
        name: str,
        content: Any,
        made_from: Iterable[Path] = (),
        make: Callable[[], Image],
        width: int = _WIDEST,
    ) -> Picture:
        """The picture that is there, or a new one.

        Args:
            name: what the file's name begins with.
            content: plain values that determine the picture; a hash of them ends the file's name.
            made_from: files; the picture is made again where one of them is newer. Those that are gone do not count.
            make: makes it; a FormulaVisionError becomes the picture's problem.
            width: pixels that it shrinks to.

        Raises:
            StoreError: it cannot be kept.
        """
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
        stem = f"{name}-{key}"
        found = [self.folder / f"{stem}.{suffix}" for suffix in _TYPES]
        file = next((path for path in found if path.is_file()), None)
        if file is None or _newest(made_from) > file.stat().st_mtime:
            try:
                image = make()
            except FormulaVisionError as error:
                # A picture that cannot be made has its line in the report, and the rest of the report is there.
                return Picture(title, alt, problem=str(error))
            for path in found:
                path.unlink(missing_ok=True)
            file = self._keep(image, stem, width)
        return Picture(title, alt, data_uri(file.read_bytes(), _TYPES[file.suffix[1:]]))

    def _keep(self, image: Image, stem: str, width: int) -> Path:
        suffix, content = _encoded(image, width)
        file = self.folder / f"{stem}.{suffix}"
        try:
            with atomic_write(file) as out:
                out.write(content)
        except OSError as error:
            raise StoreError(f"{file}: cannot be written: {error.strerror or error}") from None
        return file


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _encoded(image: Image, width: int) -> tuple[str, bytes]:
    """A PNG of what was drawn, a JPEG of what is like a photograph: the smaller one."""
    image = image.copy()
    image.thumbnail((width, _HIGHEST))
    if image.mode != "L":
        image = image.convert("RGB")
        if all(low == high == 0 for low, high in _differences_of_channels(image)):
            image = image.convert("L")
    result = {}
    for suffix, kind in (("png", "PNG"), ("jpg", "JPEG")):
        content = io.BytesIO()
        image.save(content, kind, optimize=True, quality=_QUALITY)
        result[suffix] = content.getvalue()
    suffix = min(result, key=lambda key: len(result[key]))
    return suffix, result[suffix]


def _differences_of_channels(image: Image) -> list[Any]:
    """Least and greatest difference of red to green and of red to blue: none in a gray image."""
    from PIL import ImageChops

    red, green, blue = image.split()
    return [ImageChops.difference(red, other).getextrema() for other in (green, blue)]


def _newest(files: Iterable[Path]) -> float:
    return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)


def sheet(album: Album, arm: str, recipe: Mapping[str, Any], *, categories: int, instances: int) -> Picture:
    """Images of an arm's recipe, categories down and instances across."""

    def make() -> Image:
        return contact_sheet(Drawer(Recipe.from_dict(dict(recipe))), categories=categories, instances=instances)

    return album.picture(
        arm,
        f"Images of arm {arm}: categories down, instances across",
        name=f"images-{arm}",
        content=[recipe, categories, instances],
        make=make,
    )


def filters(album: Album, findings: Findings, folder: Path, arms: Iterable[str]) -> list[Picture]:
    """First-layer filters of each arm that starts from weights (the paper's figure 6, a to e); of its first seed."""
    result = []
    for arm in arms:
        done = (e for e in findings.entries if e.row.arm == arm and e.row.score is not None)
        start = next((entry.start for entry in done if entry.start is not None), None)
        if start is None:
            continue
        checkpoint = start if start.startswith(REMOTE) else folder / start
        result.append(
            album.picture(
                arm,
                f"First-layer filters of arm {arm}",
                name=f"filters-{arm}",
                content=_movable(start),
                made_from=_files(checkpoint),
                make=partial(_filters, checkpoint),
                width=_FILTERS,
            )
        )
    return result


def _filters(checkpoint: str | Path) -> Image:
    from formulavision.evaluation import first_layer_filters

    return first_layer_filters(checkpoint)


def attention(album: Album, findings: Findings, folder: Path, arms: Sequence[str]) -> list[Picture]:
    """Grad-CAM of the fine-tuned models on the same test images, a sheet a downstream (figure 6, f); first seed."""
    result = []
    for downstream in findings.downstreams:
        entries = {arm: entry for arm in arms if (entry := _finetuned(findings, arm, downstream)) is not None}
        if not entries:
            continue
        models = {arm: folder / str(entry.folder) for arm, entry in entries.items()}

        def make(downstream: str = downstream, models: Mapping[str, Path] = models) -> Image:
            from formulavision.evaluation import grad_cam_sheet

            return grad_cam_sheet(models, _open(findings, downstream))

        result.append(
            album.picture(
                downstream,
                f"Grad-CAM on test images of {downstream}: {', '.join(models)}",
                name=f"grad-cam-{downstream}",
                content=[[arm, _movable(str(entry.folder))] for arm, entry in entries.items()],
                made_from=[file for model in models.values() for file in _files(model)],
                make=make,
            )
        )
    return result


def _finetuned(findings: Findings, arm: str, downstream: str) -> Entry | None:
    """An arm's model on a downstream: the one with the fewest layers frozen, of the first seed."""
    freezes = (freeze for freeze in findings.by_frozen if not freeze.endswith(PROBE))
    there = (e for freeze in freezes for e in findings.select(arm, freeze, downstream))
    return next((e for e in there if e.row.score is not None and e.folder is not None), None)


def _open(findings: Findings, name: str) -> Downstream:
    """A downstream as the configuration opens it.

    Raises:
        DownstreamError: it cannot be used, on this machine for one.
        ConfigError: no configuration has it, or it is another version's.
    """
    from formulavision.data.downstream import open_downstream

    for text in findings.configurations.values():
        settings = parse_yaml(text).get("downstreams", {})
        if name in settings:
            return open_downstream(settings[name])
    raise ConfigError(f"{name}: no configuration here says where its images are")


def _files(checkpoint: str | Path) -> list[Path]:
    """What is newer where a checkpoint was trained anew."""
    return [] if isinstance(checkpoint, str) else [checkpoint / "run.json", checkpoint]


def _movable(path: str) -> str:
    """What tells a checkpoint from others: of a run's folder the hash of its content; what lies above it may move."""
    name = Path(path).name
    return name if _HASHED.fullmatch(name) else path
