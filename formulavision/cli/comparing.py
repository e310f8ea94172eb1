"""``compare`` and ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from formulavision.cli import options as o


def add_to(app: typer.Typer) -> None:
    for command in (compare, report):
        app.command(rich_help_panel="Compare")(command)


def compare(
    config: Annotated[
        Path | None,
        typer.Argument(help="A file (YAML), or the name of a comparison that ships (quickstart).", show_default=False),
    ] = None,
    downstream: Annotated[
        str | None,
        typer.Option(
            "--downstream",
            help="Instead of a file: a folder of your images, or a dataset's name. The comparison is chosen for it.",
            show_default=False,
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", help="With --downstream: about how long it may take.", show_default="20"),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", help="One of the file's sizes, such as smoke; 'full' is the file as it stands."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder to write; default: runs/NAME-OF-THE-FILE, and -SIZE; or runs/NAME-OF-THE-DATASET.",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            "--runs",
            help="Folder of the trained models; comparisons with the same folder train a shared model once. "
            "Default: runs/ inside --out.",
            show_default=False,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Any setting by its path: --set downstreams.cifar10.root=/data/cifar10; with --downstream: "
            "--set downstream.test_split=val (may be repeated).",
        ),
    ] = None,
    overwrite: o.Overwrite = False,
    job: Annotated[
        str | None,
        typer.Option(
            "--job",
            metavar="K/N",
            help="Compute share K of N of the results, as one job of a scheduler, with the same --runs for all jobs. "
            "They may run at the same time, and again after they were killed. --finish writes the table.",
        ),
    ] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="Write the table and report of what jobs have computed; compute nothing.")
    ] = False,
    on: o.On = None,
    per_task: o.PerTask = "",
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Print the stages, their hours on this machine and their bytes; compute nothing."),
    ] = False,
) -> None:
    """Pre-train, fine-tune and evaluate every arm; write a table and a report. The same command again
    continues where it was stopped.

    formulavision compare quickstart

    Does it help on my images? compare --downstream /path/to/my/folder chooses a comparison for them and for this
    machine, says how long it takes, and answers in a sentence. The folder has a subfolder a class, or train/ and test/.

    A smaller size of the same experiment, to see that it runs: compare FILE --size smoke

    Another arm, seed or value in the file: run it again, and only what is new is computed.

    A curve: compare FILE --set 'sweep.generator.fill_rate=[0.05, 0.1, 0.2]' runs arms with a formula at each value.

    What would it take? compare FILE --plan prints the stages with hours and bytes.

    The third of eight jobs of a scheduler: compare FILE --runs /shared/runs --out /shared/table --job 3/8

    On a Ray cluster, from one of its nodes: compare FILE --runs /shared/runs --out /shared/table --on ray://auto

    Several experiments that share pre-training: give all of them one --runs DIR, also while they run at once.

    Parts that ran on several machines: copy their folders together, and formulavision report RUN... --out DIR.
    """
    from formulavision.comparison import ComparisonSettings
    from formulavision.comparison import compare as run
    from formulavision.comparison.run import print_plan
    from formulavision.util.errors import ConfigError

    if downstream is not None and config is None:
        chosen, others = o.make_downstream(downstream, settings)
        if others:
            raise ConfigError(f"--set {others[0]}: is not of the dataset: change comparison.yaml in --out later")
        if job or finish or plan:
            given = "--job" if job else "--finish" if finish else "--plan"
            raise ConfigError(f"{given}: needs a comparison's file, not --downstream")
        result = run(downstream=chosen, minutes=minutes, out=out, size=size, runs=runs, overwrite=overwrite,
                     on=on, per_task=per_task)  # fmt: skip
    elif config is not None and downstream is None and minutes is None:
        if config.is_dir():
            again = o.command_line("compare", downstream=config)
            raise ConfigError(f"{config}: is a folder, not a comparison's file: for images: {again}")
        comparison = ComparisonSettings.load(config, settings or [], size=size)
        name = config.stem if comparison.size == "full" else f"{config.stem}-{comparison.size}"
        out = out or Path("runs") / name
        if plan:
            o.refuse_beside("--plan", finish=finish, overwrite=overwrite, on=on, per_task=per_task)
            print_plan(comparison, out / "runs" if runs is None else runs, job=job)
            return
        result = run(comparison, out=out, runs=runs, overwrite=overwrite, job=job, finish=finish, on=on,
                     per_task=per_task)  # fmt: skip
    elif config is not None and downstream is None:
        raise ConfigError("--minutes: is for --downstream: a comparison's file says its steps or epochs")
    else:
        raise ConfigError("give a comparison, or --downstream (with --minutes) to choose one for a dataset")
    if result.failures:
        raise typer.Exit(1)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of comparisons, finished or not.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder to write; default for one comparison: its own folder.", show_default=False
        ),
    ] = None,
) -> None:
    """Join comparisons that ran on different days and machines into one table and report; or write one's again.

    formulavision report runs/monday runs/tuesday --out runs/joined

    The same arm, by its content, is one row, whose seeds and downstreams come together. Arms that have only the name in
    common are told apart by their folders.
    """
    from formulavision.comparison.report import report as run

    run(runs, out=out)
