"""``generate``, ``categories``, ``preview``, ``verify`` and ``export-data``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from formulavision.cli import options as o

if TYPE_CHECKING:
    from formulavision.recipes.recipe import Recipe


def add_to(app: typer.Typer) -> None:
    app.command(rich_help_panel="Look")(preview)
    for command in (generate, categories, verify, export_data):
        app.command(rich_help_panel="Draw")(command)


def generate(
    out: Annotated[str, typer.Option("--out", "-o", help="Folder to write, or its URL: s3://BUCKET/FOLDER.")],
    name: o.RecipeName = None,
    plugin: o.Plugin = None,
    categories: o.CategoryCount = None,
    categories_from: o.CategoryFolder = None,
    instances: o.Instances = None,
    size: o.Size = None,
    seed: o.Seed = None,
    settings: o.Settings = None,
    format: Annotated[
        str, typer.Option("--format", help="Format: parquet, webdataset, or imagefolder (a PNG file per image).")
    ] = "parquet",
    png: Annotated[
        str,
        typer.Option(
            "--png",
            help="Encoding of the images. plain: 8-bit PNGs, which all programs read correctly. compact: 1-bit palette "
            "PNGs for gray images of two values, a little smaller; numpy(PIL.Image), torchvision's decode_image and "
            "Hugging Face datasets read wrong values from them.",
        ),
    ] = "plain",
    workers: o.Workers = 0,
    device: o.Device = "cpu",
    overwrite: o.Overwrite = False,
    job: Annotated[
        str | None,
        typer.Option(
            "--job",
            metavar="K/N",
            help="Draw share K of N, as one job of a scheduler: jobs may run at the same time, on machines that share "
            "the folder, and again after they were killed. --finish completes the store.",
        ),
    ] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="Complete a store that jobs have drawn, or say which jobs are missing.")
    ] = False,
    on: o.On = None,
    per_task: o.PerTask = "",
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Print pieces, hours and bytes of the store, or of a --job of it; write nothing."),
    ] = False,
) -> None:
    """Draw a recipe into a store. The same command again continues where it was stopped.

    formulavision generate ifs --out data/ifs

    Scenes of several objects: formulavision generate ifs --set scene.objects=[1,8] --set images=1000 --out data/scenes

    What would it take? formulavision generate fractaldb-1k --out data/fractaldb --plan

    The third of eight jobs: formulavision generate fractaldb-1k --out data/fractaldb --job 3/8

    On object storage: formulavision generate fractaldb-1k --out s3://bucket/fractaldb-1k

    On a Ray cluster, from one of its nodes: formulavision generate fractaldb-1k --out /shared/fractaldb-1k --on ray://auto
    """
    from formulavision.recipes.category_files import CATEGORIES
    from formulavision.storage.generation import generate as run
    from formulavision.storage.png import check_encoding
    from formulavision.util.config import user_path
    from formulavision.util.console import say
    from formulavision.util.progress import progress_bars
    from formulavision.util.remote import folder_of, is_url
    from formulavision.util.text import byte_size, counted, duration

    folder = folder_of(out)
    if isinstance(folder, Path):
        missing = categories_from and not is_url(categories_from) and not user_path(categories_from).exists()
        if missing and not overwrite and (folder / CATEGORIES).is_file():
            say(f"{categories_from} does not exist: the categories are read from {out}")
            categories_from = folder
    recipe = o.make_recipe(
        name, plugin, categories=categories, categories_from=categories_from, instances=instances, size=size,
        seed=seed, settings=settings,
    )  # fmt: skip
    files = f", {len(recipe) * (2 if recipe.is_scene else 1):,} files" if format == "imagefolder" else ""
    facts = recipe.facts()
    if not recipe.is_scene and not recipe.parts:
        facts = (
            f"{recipe.generator_names}: {counted(recipe.num_categories, 'category')} x "
            f"{counted(recipe.num_instances, 'instance')} = {counted(len(recipe), 'image')} of "
            f"{recipe.canvas.size} x {recipe.canvas.size}"
        )
    say(f"{facts} (recipe {recipe.id}{files})")
    if plan:
        o.refuse_beside("--plan", finish=finish, overwrite=overwrite, on=on, per_task=per_task)
        check_encoding(png)
        _print_plan(recipe, format, device, job)
        return
    started = time.perf_counter()
    with progress_bars() as bars:
        store = run(
            recipe, out, format=format, workers=o.count_workers(workers), overwrite=overwrite, progress=bars,
            device=device, png=png, job=job, finish=finish, on=on, per_task=per_task,
        )  # fmt: skip
    if store is None:
        return  # the job has said how it ended
    seconds = time.perf_counter() - started
    # Pre-training enlarges images to 256 pixels where nothing else is said.
    crop = store.recipe.canvas.size if store.recipe.canvas.size < 256 else None
    what = counted(len(store), "scene" if recipe.is_scene else "image")
    say(
        f"{out}: {what}, {byte_size(store.manifest.bytes)}, complete, in {duration(seconds)}\n"
        f"next: {o.command_line('verify', out)}\n"
        f"      {o.command_line('pretrain', data=out, model='resnet18', crop=crop, out=Path('runs', folder.name))}"
    )


def _print_plan(recipe: Recipe, format: str, device: str, job: str | None) -> None:
    """What a store takes, or a job of it: a moment of drawing is measured on this machine."""
    from formulavision.data.bench import bench
    from formulavision.storage.generation import plan_pieces
    from formulavision.storage.jobs import Share
    from formulavision.util.console import say
    from formulavision.util.machine import cores as count_cores
    from formulavision.util.text import byte_size, counted, duration

    pieces, cores = plan_pieces(recipe, format), count_cores()
    share = None if job is None else Share.parse(job)
    cost = bench(recipe, device=device, note=say)
    whole = len(recipe)
    drawn = {"store": pieces} | ({} if share is None else {f"job {share}": share.of(pieces)})
    for what, own in drawn.items():
        images, unit = sum(piece.count for piece in own), "scene" if recipe.is_scene else "image"
        seconds, size = cost.store_seconds(1) * images / whole, round(cost.image_bytes * images)
        say(
            f"{what}: {counted(len(own), 'piece')} of {format}, {counted(images, unit)}, about "
            f"{byte_size(size)}, {seconds / 3600:.2g} hours of a core ({duration(seconds / cores)} on "
            f"{counted(cores, 'core')} of this machine)"
        )
    if search := cost.search_seconds(cores):
        say(f"before that {counted(recipe.num_categories, 'category')} are found, in about {duration(search)}")


def categories(
    out: o.Out,
    name: o.RecipeName = None,
    plugin: o.Plugin = None,
    count: o.CategoryCount = None,
    size: o.Size = None,
    seed: o.Seed = None,
    settings: o.Settings = None,
    workers: o.Workers = 0,
    overwrite: o.Overwrite = False,
) -> None:
    """Find categories, and write a CSV file per category in the published FractalDB layout.

    formulavision categories configs/fractaldb-1k.yaml --out cats
    """
    from formulavision.recipes.categories import find_categories
    from formulavision.recipes.category_files import write_folder
    from formulavision.util.console import say
    from formulavision.util.errors import ConfigError
    from formulavision.util.progress import progress_bars
    from formulavision.util.text import counted

    recipe = o.make_recipe(name, plugin, categories=count, size=size, seed=seed, settings=settings)
    if recipe.parts:
        raise ConfigError(f"recipe: has parts of {recipe.generator_names}: name one generator, whose folder it will be")
    total = recipe.num_categories
    with progress_bars() as bars:
        found = find_categories(recipe, workers=o.count_workers(workers), progress=lambda n: bars.categories(n, total))
    write_folder(found, out, overwrite=overwrite)
    following = o.command_line(
        "generate", name or plugin, categories_from=out, size=size, seed=seed, set=settings, out=Path("data", out.name)
    )
    say(f"{out}: {counted(len(found), 'category')}\nnext: {following}")


def preview(
    out: o.Picture,
    name: o.RecipeName = None,
    plugin: o.Plugin = None,
    categories: Annotated[int, typer.Option("--categories", help="Number of rows: categories, or scenes.")] = 8,
    categories_from: o.CategoryFolder = None,
    instances: Annotated[
        int, typer.Option("--instances", help="Number of columns: instances. A scene takes two, one for its objects.")
    ] = 10,
    size: o.Size = None,
    seed: o.Seed = None,
    settings: o.Settings = None,
    device: o.Device = "cpu",
    overwrite: o.Overwrite = False,
) -> None:
    """Draw a contact sheet: a row for each category, a column for each instance, with labels; or scenes and objects.

    formulavision preview perlin --out sheet.png
    """
    from formulavision.recipes.sheets import preview as run
    from formulavision.util.console import say
    from formulavision.util.progress import progress_bars

    recipe = o.make_recipe(
        name, plugin, categories_from=categories_from, size=size, seed=seed, settings=settings
    )  # fmt: skip
    with progress_bars() as bars:
        run(
            recipe, out, categories=categories, instances=instances, overwrite=overwrite,
            workers=o.count_workers(0), progress=lambda n: bars.categories(n, recipe.num_categories),
            device=device, note=bars.note,
        )  # fmt: skip
    say(f"{out}: {recipe.generator_names}, recipe {recipe.id}")


def verify(
    path: Annotated[str, typer.Argument(help="Folder of a store, or its URL: s3://BUCKET/FOLDER.")],
    sample: Annotated[int, typer.Option("--sample", min=0, help="Number of random images to draw again.")] = 1000,
    every: Annotated[bool, typer.Option("--all", help="Draw every image again.")] = False,
) -> None:
    """Check a store: all its bytes by checksum, and images drawn again and compared. Names what is wrong.

    formulavision verify data/ifs

    Exit status: 0 if the store is right, 1 if it is damaged, 2 if it cannot be checked (no store, no such generator).
    """
    from formulavision.storage import verify as run
    from formulavision.util.console import say
    from formulavision.util.errors import DamagedStoreError
    from formulavision.util.progress import progress_bars
    from formulavision.util.text import counted

    if every:
        o.refuse_beside("--all", sample=sample != 1000)
    drawn = None if every else sample
    try:
        with progress_bars() as bars:
            result = run(path, sample=drawn, progress=lambda done, total: bars.show("verify", done, total))
    except DamagedStoreError as error:
        say(f"wrong: {error}\n{path}: 1 problem, and nothing else can be checked")
        raise typer.Exit(1) from None
    for problem in result.problems[:20]:
        say(f"wrong: {problem}")
    if len(result.problems) > 20:
        say(f"and {len(result.problems) - 20:,} more")
    total = len(result.store)
    right = "all as the recipe says" if result.images else "all bytes as they were written"
    say(
        f"{path}: {result.pieces:,} of {len(result.store.manifest.pieces):,} pieces read, "
        f"{result.images:,} of {total:,} images drawn again: "
        + (right if result.ok else counted(len(result.problems), "problem"))
    )
    if not result.ok:
        raise typer.Exit(1)


def export_data(
    store: Annotated[str, typer.Argument(help="Folder of a store of scenes, or its URL.")],
    out: o.Out,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="coco: COCO instances with run-length encoded masks, for pycocotools and torchvision's CocoDetection. "
            "masks: images and semantic masks, for mmsegmentation, and for --downstream PATH.",
        ),
    ],
    val: Annotated[int, typer.Option("--val", help="Number of scenes for validation.")] = 0,
    test: Annotated[int, typer.Option("--test", help="Number of scenes for testing: the last of the store.")] = 0,
    overwrite: o.Overwrite = False,
) -> None:
    """Write a store of scenes for other programs: COCO instances, or images with semantic masks.

    formulavision export-data data/scenes --to coco --val 100 --out data/coco
    """
    from formulavision.storage.exporting import export_data as run
    from formulavision.util.console import say
    from formulavision.util.progress import progress_bars

    with progress_bars() as bars:
        run(
            store, out, to=to, val=val, test=test, overwrite=overwrite,
            progress=lambda done, total: bars.show("scenes", done, total),
        )  # fmt: skip
    say(f"{out}: complete; README.md there says how to read it")
