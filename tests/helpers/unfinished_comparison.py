"""A comparison that is not finished, made by hand: its results.json, and runs that have written some metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from formulavision.comparison.results import ArmFacts, Findings, Result

ARM = "<b>fractal</b>"
KEY = "0123456789abcdef"
ROWS: list[dict[str, float | None]] = [
    {"epoch": n, "train_loss": 2.0 / n, "train_accuracy": 0.1 * n, "validation_accuracy": 0.2 * n} for n in (1, 2)
]


def result(arm: str, seed: int, score: float | None, **more: Any) -> Result:
    folder = f"runs/{arm}/digits-{KEY[:-1]}{seed}"
    history = ROWS if score is not None else []
    metric = None if score is None else "top-1 accuracy"
    return Result(arm, "digits", "none", seed, score, metric, folder=folder, history=history, **more)


def write(folder: Path, results: list[Result]) -> None:
    arms = {
        "scratch": ArmFacts(content="0", origin="training from scratch", scratch=True, base="scratch"),
        ARM: ArmFacts(content="1", origin="a formula", scratch=False, baseline="scratch", base=ARM),
    }
    findings = Findings(
        name="small", size="full", model="resnet18", data="on-demand", arms=arms, downstreams={"digits": "0"},
        freezes=["none"], results=results, pictures=["grad-cam"],
    )  # fmt: skip
    findings.save(folder)


def begin(run: Path, rows: int) -> None:
    """A run that has written some rows of metrics."""
    run.mkdir(parents=True, exist_ok=True)
    lines = [",".join(ROWS[0]), *(",".join(map(str, row.values())) for row in ROWS[:rows])]
    (run / "metrics.csv").write_text("\n".join(lines) + "\n")
