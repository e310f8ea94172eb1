"""The report's pictures: contact sheets, first-layer filters and Grad-CAM, made once and kept as files."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from formulavision.comparison.arms import REMOTE
from formulavision.comparison.results import Findings
from formulavision.comparison.settings import PROBE
from formulavision.comparison.tables import Table
from formulavision.evaluation.metrics import MEAN_IOU
from formulavision.recipes.drawing import Drawer
from formulavision.recipes.recipe import Recipe
from formulavision.recipes.sheets import contact_sheet
from formulavision.util.config import parse_yaml
from formulavision.util.errors import ConfigError, FormulaVisionError, SmallFiltersError
from formulavision.util.files import atomic_write, write_errors

if TYPE_CHECKING:
    from PIL.Image import Image

    from formulavision.data.downstream import Downstream

__all__ = ["Illustration", "attention", "data_uri", "filters", "predictions", "sheet"]

_WIDEST = 1000
"""Greatest width of a picture, pixels: the report is not read wider, and stays below tens of megabytes."""
_FILTERS = 500
"""Width of the filters of an arm, pixels."""

_SMALLEST_FILTER = 5
"""Width and height from which on a filter shows a pattern, pixels."""

_HASHED = re.compile(r".+-[0-9a-f]{16}")
_TYPES = {"png": "image/png", "jpg": "image/jpeg"}


@dataclass(frozen=True)
class Illustration:
    """A plot or a picture of the report, or the reason why there is none.

    Attributes:
        source: data URI; empty if there is a problem.
        problem: why it could not be made, in one line.
        left_out: why it is not shown although it could be made, in one line.
    """

    title: str
    alt: str
    source: str = ""
    problem: str = ""
    left_out: str = ""


def sheet(
    folder: Path, arm: str, recipe: Mapping[str, Any], *, categories: int, instances: int, draw: bool = True
) -> Illustration:
    """Images of an arm's recipe, categories down and instances across; of scenes, each with its objects beside it.

    Args:
        draw: draw it where there is no file, here and in the functions below; False: only what is there is shown.
    """
    shown = "scenes, each with its objects beside it" if "scene" in recipe else "categories down, instances across"
    return _kept(
        Illustration(arm, f"Images of arm {arm}: {shown}"),
        folder,
        name=f"images-{arm}",
        content=[recipe, categories, instances],
        make=lambda: contact_sheet(Drawer(Recipe.from_dict(dict(recipe))), categories=categories, instances=instances),
        draw=draw,
    )


def filters(table: Table, folder: Path, arms: Iterable[str], *, draw: bool = True) -> list[Illustration]:
    """First-layer filters of each arm that starts from weights (the paper's figure 6, a to e); of its first seed."""
    from formulavision import evaluation

    starts: dict[str, str] = {}
    for result in table.findings.results:
        if result.score is not None and result.start is not None:
            starts.setdefault(result.arm, result.start)
    pictures = []
    for arm in (arm for arm in arms if arm in starts):
        start = starts[arm]
        checkpoint = start if start.startswith(REMOTE) else folder / start
        picture = _kept(
            Illustration(arm, f"First-layer filters of arm {arm}"),
            folder,
            name=f"filters-{arm}",
            content=_key(start),
            made_from=[] if isinstance(checkpoint, str) else [checkpoint],
            make=partial(evaluation.first_layer_filters, checkpoint, smallest=_SMALLEST_FILTER),
            width=_FILTERS,
            draw=draw,
        )
        pictures.append(picture)
    return pictures


def attention(table: Table, folder: Path, arms: Sequence[str], *, draw: bool = True) -> list[Illustration]:
    """Grad-CAM of the fine-tuned models on the same test images, a sheet a downstream (figure 6, f); first seed.

    Not of downstreams with masks.
    """
    names = [name for name in table.findings.downstreams if table.findings.metric(name) != MEAN_IOU]
    return _of_models(table, folder, arms, names, "grad-cam", "Grad-CAM", draw)


def predictions(table: Table, folder: Path, arms: Sequence[str], *, draw: bool = True) -> list[Illustration]:
    """Masks that the fine-tuned models predict for the same test images, a sheet a downstream; first seed."""
    names = [name for name in table.findings.downstreams if table.findings.metric(name) == MEAN_IOU]
    return _of_models(table, folder, arms, names, "predictions", "Predicted masks", draw)


def _of_models(
    table: Table, folder: Path, arms: Sequence[str], downstreams: Iterable[str], kind: str, title: str, draw: bool
) -> list[Illustration]:
    """A sheet of the models of each downstream."""
    pictures = []
    for downstream in downstreams:
        models = {arm: path for arm in arms if (path := _finetuned(table, arm, downstream)) is not None}
        if not models:
            continue
        paths = {arm: folder / path for arm, path in models.items()}
        picture = _kept(
            Illustration(downstream, f"{title} on test images of {downstream}: {', '.join(models)}"),
            folder,
            name=f"{kind}-{downstream}",
            content=[[arm, _key(path)] for arm, path in models.items()],
            made_from=paths.values(),
            make=partial(_sheet_of_models, kind, table.findings, downstream, paths),
            draw=draw,
        )
        pictures.append(picture)
    return pictures


def _finetuned(table: Table, arm: str, downstream: str) -> str | None:
    """Folder of an arm's model on a downstream: with the fewest layers frozen, of the first seed."""
    freezes = (freeze for freeze in table.findings.by_frozen if not freeze.endswith(PROBE))
    results = (result for freeze in freezes for result in table.cells[arm, freeze, downstream].results)
    return next((result.folder for result in results if result.score is not None and result.folder is not None), None)


def _sheet_of_models(kind: str, findings: Findings, downstream: str, models: Mapping[str, Path]) -> Image:
    from formulavision import evaluation

    draw = evaluation.grad_cam_sheet if kind == "grad-cam" else evaluation.prediction_sheet
    return draw(models, _open(findings, downstream))


def _open(findings: Findings, name: str) -> Downstream:
    """Open a downstream as the configuration says.

    Raises:
        DownstreamError: it cannot be used, for example on this machine.
        ConfigError: no configuration has it, or its settings are those of another version.
    """
    from formulavision.data.downstream import open_downstream

    for text in findings.configurations.values():
        settings = parse_yaml(text).get("downstreams", {})
        if name in settings:
            return open_downstream(settings[name])
    raise ConfigError(f"{name}: no configuration here says where its images are")


def _key(path: str) -> str:
    """Identity of a checkpoint: for a stage the name of its folder, which ends with a hash; else the path."""
    name = Path(path).name
    return name if _HASHED.fullmatch(name) else path


# Files ---------------------------------------------------------------------------------------------------------------


def _kept(
    illustration: Illustration,
    folder: Path,
    *,
    name: str,
    content: Any,
    make: Callable[[], Image],
    made_from: Iterable[Path] = (),
    width: int = _WIDEST,
    draw: bool,
) -> Illustration:
    """The picture with its source: a file in the comparison's ``pictures/``, which is made if it is not there.

    Args:
        illustration: title and alternative text.
        name: beginning of the file's name.
        content: plain values that determine the picture; a hash of them ends the file's name.
        make: makes the picture; a FormulaVisionError becomes the illustration's problem.
        made_from: run folders; if one of them is newer than the picture, it is made again.
        width: greatest width of the file, pixels.
        draw: make it where it is not there.

    Raises:
        FolderError: it cannot be written.
    """
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    files = [folder / "pictures" / f"{name}-{key}.{suffix}" for suffix in _TYPES]
    file = next((file for file in files if file.is_file()), None)
    sources = [source for run in made_from for source in (run, run / "run.json") if source.is_file()]
    if file is None or any(source.stat().st_mtime > file.stat().st_mtime for source in sources):
        if not draw:
            return replace(illustration, problem="not drawn yet: the report draws it")
        try:
            image = make()
        except SmallFiltersError as error:
            return replace(illustration, left_out=f"Left out: {error}, and show no pattern.")
        except FormulaVisionError as error:
            # The report shows this line in place of the picture.
            return replace(illustration, problem=str(error))
        for old in files:
            old.unlink(missing_ok=True)
        file = _write(image, files, width)
    return replace(illustration, source=data_uri(file.read_bytes(), _TYPES[file.suffix[1:]]))


def _write(image: Image, files: Sequence[Path], width: int) -> Path:
    """Write the PNG or the JPEG, whichever is smaller: drawings are smaller as PNG, photographs as JPEG."""
    image = image.convert("RGB")
    image.thumbnail((width, 2 * _WIDEST))
    if not np.ptp(np.asarray(image), axis=2).any():
        image = image.convert("L")
    encoded = {}
    for file, kind in zip(files, ("PNG", "JPEG"), strict=True):
        stream = io.BytesIO()
        image.save(stream, kind, optimize=True, quality=85)
        encoded[file] = stream.getvalue()
    smallest = min(files, key=lambda file: len(encoded[file]))
    with write_errors(smallest), atomic_write(smallest) as out:
        out.write(encoded[smallest])
    return smallest


def data_uri(content: bytes, kind: str) -> str:
    """Content as a URI that a browser reads without a file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
