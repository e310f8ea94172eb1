"""What the events of all pages share: the queue, numbers that a visitor's page sent, progress, and lines of errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from formulavision.explorer.worker import ReportProgress, unwatched
from formulavision.util.errors import ConfigError, FormulaVisionError

__all__ = ["DRAWING", "MEASURING", "problems_of", "shown_progress", "whole_number"]

DRAWING = {"concurrency_limit": 1, "concurrency_id": "drawing", "trigger_mode": "always_last"}
"""Of each event that draws or reads: one visitor's at a time; of several events of one control, the last counts."""
MEASURING = {"concurrency_limit": 1, "concurrency_id": "measuring", "trigger_mode": "once"}
"""Of each event that takes minutes: one visitor's at a time, beside those that draw."""


def problems_of(error: FormulaVisionError) -> Sequence[str]:
    """The lines of an error."""
    problems: Sequence[str] = getattr(error, "problems", (f": {error}",))
    return problems


def whole_number(name: str, value: Any, low: int, high: int) -> int:
    """A whole number as a visitor's page sent it.

    Raises:
        ConfigError: it is none, or outside of its range.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and low <= value <= high and value == int(value)):
        raise ConfigError(f"{name}: {str(value)[:40]} is not allowed: must be a whole number from {low} to {high:,}")
    return int(value)


def shown_progress(progress: Any) -> ReportProgress:
    """Progress of a piece of work, shown by Gradio.

    Args:
        progress: Gradio's; None: it is not shown.
    """
    if progress is None:
        return unwatched
    return lambda told, done, total: progress((done, total), desc=told, unit="")
