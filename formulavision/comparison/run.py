"""Runs a comparison: what is done already is skipped, what was interrupted goes on, an arm that fails stands aside."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formulavision.comparison.config import ComparisonSettings
from formulavision.comparison.results import Comparison, Row, console, print_table, to_csv, to_markdown, write_text
from formulavision.comparison.stages import Finetuning, Pretraining, plan
from formulavision.config import parse
from formulavision.errors import CheckpointError, ConfigError, DownstreamError, FormulaVisionError, StoreError
from formulavision.recipe import Recipe

if TYPE_CHECKING:
    from formulavision.downstream import Downstream
    from formulavision.training import Run

__all__ = ["compare"]

_RESULT = "result.json"
"""In the folder of a row that is done: what the row says."""
_KEYS = {"arm", "downstream", "freeze", "seed"}

_MARK = "comparison.yaml"
_OURS = ("runs", "stores", "plots", "results.csv", "results.md", "report.html", _MARK)


def compare(
    config: ComparisonSettings | Mapping[str, Any] | str | Path,
    *,
    out: str | Path,
    overwrite: bool = False,
    show_progress: bool = True,
) -> Comparison:
    """Pre-train, fine-tune and evaluate every arm of a comparison, and write its table and report.

    Started again with the same ``out``, it skips what is done, resumes what was interrupted, and computes what a
    changed configuration touches; an arm that was added is the only one that runs.

    Args:
        config: the comparison, or the path of its YAML file.
        out: folder for ``results.csv``, ``results.md``, ``report.html``, ``comparison.yaml`` (the configuration with
            every recipe in full), ``plots/``, ``runs/`` and, where images are stored, ``stores/``.
        overwrite: throw away what a comparison left in ``out`` and start over.
        show_progress: print the stages, their progress bars and the table.

    Returns:
        The rows. An arm that failed has its reason in its rows and in ``Comparison.failures``; the others are done.

    Raises:
        ConfigError: the configuration is wrong.
        DownstreamError: a downstream dataset cannot be used.
        StoreError: ``out`` holds something else, or cannot be written.
    """
    if isinstance(config, str | Path):
        settings = ComparisonSettings.load(config)
    else:
        settings = config if isinstance(config, ComparisonSettings) else parse(ComparisonSettings, config)
    _check_models(settings)
    runner = _Runner(settings, Path(out), show_progress)
    _prepare(runner.out, overwrite)
    write_text(runner.out / _MARK, settings.to_yaml())
    rows = [Row(stage.arm, stage.downstream, stage.freeze, stage.seed) for stage in runner.stages]
    for i, (stage, row) in enumerate(zip(runner.stages, rows, strict=True)):
        runner.fill(stage, row, f"[{i + 1}/{len(rows)}]")
        # Known rows only, so that a long comparison can be watched from outside.
        write_text(runner.out / "results.csv", to_csv(rows[: i + 1]))
    result = Comparison(settings, runner.out, rows)
    write_text(runner.out / "results.md", to_markdown(settings, rows))

    from formulavision.comparison.report import write_report

    write_report(result, runner.stages)
    if show_progress:
        print_table(result)
    return result


def _check_models(settings: ComparisonSettings) -> None:
    """Build every model: refuses a name, an image size, frozen layers or a checkpoint that does not fit.

    Raises:
        ConfigError: one line a problem.
    """
    import torch

    from formulavision.training import freeze, load_checkpoint
    from formulavision.training.models import build_model

    problems: list[str] = []
    seed = settings.seeds[0]
    with torch.device("meta"):
        for spec in settings.freeze:
            try:
                freeze(build_model(settings.finetune_settings(seed), num_classes=2), spec)
            except ConfigError as error:
                problems += [p if p.startswith(("model:", "freeze:")) else f"finetune.{p}" for p in error.problems]
        if problems:
            raise ConfigError(*dict.fromkeys(problems))
        for name, arm in settings.arms.items():
            try:
                if arm.recipe is not None:
                    build_model(settings.pretrain_settings(name, seed), num_classes=2)
                if arm.checkpoint is not None:
                    # With weights: those of the checkpoint are to be copied into it.
                    with torch.device("cpu"):
                        model = build_model(settings.finetune_settings(seed), num_classes=2)
                    load_checkpoint(arm.checkpoint).load_into(model)
            except ConfigError as error:
                problems += [f"arms.{name}.pretrain.{problem}" for problem in error.problems]
            except CheckpointError as error:
                problems.append(f"arms.{name}.checkpoint: {error}")
    if problems:
        raise ConfigError(*problems)


def _open(settings: ComparisonSettings) -> dict[str, Downstream]:
    from formulavision.downstream import open_downstream

    result = {}
    for name, dataset in settings.downstreams.items():
        try:
            result[name] = open_downstream(dataset)
        except DownstreamError as error:
            raise DownstreamError(f"downstreams.{name}: {error}") from None
    return result


def _prepare(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out}: is a file; give another --out")
    if out.is_dir() and any(out.iterdir()) and not (out / _MARK).is_file() and not overwrite:
        raise StoreError(f"{out}: exists and holds no comparison; give another --out, or --overwrite")
    try:
        if overwrite:
            for name in _OURS:
                path = out / name
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{out}: cannot be written: {error.strerror or error}") from None


class _Runner:
    """Computes rows; a pre-training that several rows start from runs, or fails, once."""

    def __init__(self, settings: ComparisonSettings, out: Path, show_progress: bool) -> None:
        self.out = out
        self.show_progress = show_progress
        self.downstreams = _open(settings)
        self.stages = plan(settings, out)
        self.pretrained: dict[Path, Any] = {}

    def fill(self, stage: Finetuning, row: Row, count: str) -> None:
        """Compute a row. An exception ends the row, not the comparison; KeyboardInterrupt ends both."""
        what = f"{count} {stage.arm} on {stage.downstream}, frozen: {stage.freeze}, seed {stage.seed}"
        done = stage.folder / _RESULT
        try:
            if done.is_file():
                row.__dict__.update(json.loads(done.read_text(encoding="utf-8")))
                self._say(f"{what}: done already")
                return
            self._say(what)
            self._compute(stage, row)
            write_text(
                done, json.dumps({key: value for key, value in asdict(row).items() if key not in _KEYS}, indent=1)
            )
        except Exception as error:
            row.error = _one_line(error)
            self._say(f"{what}: failed: {row.error}")

    def _compute(self, stage: Finetuning, row: Row) -> None:
        from formulavision.evaluation import evaluate
        from formulavision.training import finetune

        checkpoint = stage.start
        if isinstance(stage.start, Pretraining):
            pretraining = self._pretrain(stage.start)
            checkpoint = pretraining.folder
            row.pretrain_accuracy = pretraining.history[-1]["train_accuracy"]
            row.pretrain_seconds = pretraining.seconds
            row.pretrain_images_per_second = pretraining.images_per_second
            row.generate_seconds = _generate_seconds(stage.start.store)
        downstream = self.downstreams[stage.downstream]
        run = self._run(
            finetune, checkpoint, downstream, out=stage.folder, freeze=stage.freeze, settings=stage.settings
        )
        row.finetune_seconds = run.seconds
        row.finetune_images_per_second = run.images_per_second
        evaluation = evaluate(run.folder, downstream, show_progress=self.show_progress)
        row.evaluate_seconds = evaluation.seconds
        row.top1, row.loss = evaluation.top1, evaluation.loss
        row.top5 = evaluation.topk if evaluation.k == 5 else None

    def _pretrain(self, stage: Pretraining) -> Run:
        from formulavision.training import pretrain

        if stage.folder not in self.pretrained:
            try:
                if not (stage.folder / "run.json").is_file():
                    self._say(f"pre-training on {stage.arm}, seed {stage.seed}")
                data = stage.recipe if stage.store is None else self._generate(stage.recipe, stage.store)
                self.pretrained[stage.folder] = self._run(pretrain, data, out=stage.folder, settings=stage.settings)
            except Exception as error:
                self.pretrained[stage.folder] = error
        result = self.pretrained[stage.folder]
        if isinstance(result, Exception):
            raise result
        return result

    def _run(self, train: Callable[..., Run], *what: Any, out: Path, **settings: Any) -> Run:
        """The training run in ``out``: loaded where it is complete, resumed where it was interrupted."""
        from formulavision.training import Run

        if (out / "run.json").is_file():
            return Run.load(out)
        return train(*what, out=out, resume=out.exists(), show_progress=self.show_progress, **settings)

    def _generate(self, recipe: Recipe, store: Path) -> Path:
        from formulavision.generation import generate

        if _generate_seconds(store) is None:
            started = time.monotonic()
            generate(recipe, out=store)
            _seconds_file(store).write_text(json.dumps({"seconds": time.monotonic() - started}), encoding="utf-8")
        return store

    def _say(self, line: str) -> None:
        if self.show_progress:
            console().print(line, markup=False, highlight=False, soft_wrap=True)


def _seconds_file(store: Path) -> Path:
    return store.with_name(f"{store.name}.json")


def _generate_seconds(store: Path | None) -> float | None:
    """How long a store took, which also says that it is complete."""
    if store is None or not _seconds_file(store).is_file():
        return None
    return float(json.loads(_seconds_file(store).read_text(encoding="utf-8"))["seconds"])


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, FormulaVisionError) else f"{type(error).__name__}: {text}".rstrip(": ")
