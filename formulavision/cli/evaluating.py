"""``evaluate``, ``probe``, ``filters``, ``grad-cam`` and ``per-class``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from formulavision.cli import options as o
from formulavision.cli.training import Model, train_values

if TYPE_CHECKING:
    from PIL import Image

    from formulavision.data.downstream import DownstreamSettings

Run = Annotated[Path, typer.Option("--checkpoint", help="The folder of a fine-tuning run.")]
Weights = Annotated[
    str, typer.Option("--checkpoint", help="A run's folder, a file of weights, or timm:NAME or torchvision:NAME.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Folder to write into; default: the run's, unless it holds an evaluation on other images.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    panel = "Evaluate"
    for command in (evaluate, probe, filters, grad_cam, per_class):
        app.command(command.__name__.replace("_", "-"), rich_help_panel=panel)(command)


def evaluate(checkpoint: Run, downstream: o.Downstream, out: Out = None, settings: o.DownstreamSet = None) -> None:
    """Compute top-1, top-5, loss, accuracy per class and confusion matrix on the test images, as JSON and CSV. With
    several labels per image (Pascal VOC): mean average precision. Of masks: mIoU and pixel accuracy.

    formulavision evaluate --checkpoint runs/ft --downstream folder:/path/to/cifar10

    On corrupted images: formulavision evaluate --checkpoint runs/ft --downstream corrupted:/path/to/CIFAR-10-C
    """
    chosen = only_downstream(downstream, settings)
    if chosen.kind == "corrupted":
        from formulavision.evaluation import evaluate_corrupted

        evaluate_corrupted(checkpoint, chosen, out=out)
        return
    from formulavision.evaluation import evaluate as run

    run(checkpoint, chosen, out=out)


def probe(
    checkpoint: Weights,
    downstream: o.Downstream,
    method: Annotated[
        str, typer.Option("--method", help="Classifier: linear (logistic regression) or knn (20 nearest neighbours).")
    ] = "linear",
    shots: Annotated[
        int | None, typer.Option("--shots", help="Training images per class, drawn five times; default: all.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the images that are drawn and held out.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder to write into; default: METHOD-DATASET beside the weights.", show_default=False
        ),
    ] = None,
    model: Model = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Any setting of model or images, or of the dataset: --set crop=64, --set downstream.test_split=val "
            "(may be repeated).",
        ),
    ] = None,
) -> None:
    """Measure how good frozen features are, in minutes: fit a classifier to them instead of fine-tuning the model.

    formulavision probe --checkpoint runs/ifs --downstream folder:/path/to/cifar10 --method knn
    """
    from formulavision.evaluation import probe as run

    chosen, others = o.make_downstream(downstream, settings)
    values = train_values(others, model=model)
    run(checkpoint, chosen, method=method, settings=values, out=out, shots=shots, seed=seed)  # type: ignore[arg-type]


def filters(checkpoint: Weights, out: o.Picture, overwrite: o.Overwrite = False) -> None:
    """Draw the filters of a model's first layer.

    formulavision filters --checkpoint runs/ifs --out filters.png
    """
    from formulavision.util.files import check_new_file

    check_new_file(out, overwrite=overwrite)
    from formulavision.evaluation import first_layer_filters

    _save(first_layer_filters(checkpoint), out)


def grad_cam(
    checkpoint: Annotated[
        list[str],
        typer.Option(
            "--checkpoint",
            metavar="NAME=FOLDER",
            help="A fine-tuning run; each is a column (may be repeated).",
        ),
    ],
    downstream: o.Downstream,
    out: o.Picture,
    count: Annotated[int, typer.Option("--count", help="Number of test images; each is a row.")] = 6,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the choice of test images.")] = 0,
    settings: o.DownstreamSet = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Show which pixels fine-tuned models see an image's class in (Grad-CAM), side by side on the same test images.

    formulavision grad-cam --checkpoint FractalDB=runs/ft-ifs --checkpoint scratch=runs/ft-scratch
    --downstream folder:/path/to/cifar10 --out heatmaps.png
    """
    from formulavision.util.errors import ConfigError
    from formulavision.util.files import check_new_file

    runs = {}
    for text in checkpoint:
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder:
            raise ConfigError(f"--checkpoint {text}: must read NAME=FOLDER, such as scratch=runs/ft-scratch")
        if name in runs:
            raise ConfigError(f"--checkpoint {text}: there is another '{name}': each column needs a name of its own")
        runs[name] = folder
    check_new_file(out, overwrite=overwrite)
    chosen = only_downstream(downstream, settings)
    from formulavision.evaluation import grad_cam_sheet

    _save(grad_cam_sheet(runs, chosen, count=count, seed=seed), out)


def per_class(
    first: Annotated[Path, typer.Argument(help="A folder that evaluate or probe wrote into.")],
    second: Annotated[Path, typer.Argument(help="Another such folder, of the same test images.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV file to write, with all classes.")] = None,
    overwrite: o.Overwrite = False,
) -> None:
    """List the classes on which the first of two models beats the second.

    formulavision per-class runs/ft-ifs runs/ft-scratch --out differences.csv
    """
    from rich.markup import escape
    from rich.table import Table

    from formulavision.evaluation import per_class_difference
    from formulavision.util.console import STDOUT, say
    from formulavision.util.files import check_new_file
    from formulavision.util.text import counted, write_csv

    if out is not None:
        check_new_file(out, overwrite=overwrite, picture=False)
    differences = per_class_difference(first, second)
    better = [row for row in differences if row.difference > 0]
    table = Table("class", *(("images", "first", "second", "difference", "p")), box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in better:
        p = "" if row.p is None else f"{row.p:.3f}" if row.p >= 0.001 else "<0.001"
        table.add_row(
            escape(row.name), f"{row.images:,}", f"{row.first:.1%}", f"{row.second:.1%}", f"{row.difference:+.1%}", p
        )
    STDOUT.print(table)
    say(f"{first} is better than {second} on {len(better)} of {counted(len(differences), 'class')}")
    if out is not None:
        rows = ([row.name, row.images, row.first, row.second, row.difference, row.p] for row in differences)
        write_csv(out, [["class", "images", "first", "second", "difference", "p"], *rows])
        say(f"written to {out}")


def only_downstream(text: str, settings: list[str] | None) -> DownstreamSettings:
    """The dataset of a command whose --set changes the dataset only.

    Raises:
        ConfigError: there is no such dataset, a value is not allowed, or a setting is not the dataset's.
    """
    from formulavision.util.errors import ConfigError

    chosen, others = o.make_downstream(text, settings)
    if others:
        raise ConfigError(f"--set {others[0]}: must read downstream.KEY=VALUE: here only the dataset has settings")
    return chosen


def _save(picture: Image.Image, out: Path) -> None:
    from formulavision.util.console import say
    from formulavision.util.files import write_png

    write_png(out, picture)
    say(f"written to {out}: {picture.width} x {picture.height} pixels")
