"""Which stage of how many a comparison is at, for how long it has run, and for how long it will."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Clock", "Job", "duration"]


@dataclass(frozen=True)
class Job:
    """A stage that is to be computed.

    Attributes:
        kind: stages of one kind take time in proportion to their work.
        work: pixels that the model sees in it.
    """

    folder: Path
    kind: str
    work: float


class Clock:
    """Counts stages, and tells the time left from how long those took that are done.

    Args:
        now: seconds that pass.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._start = now()
        self._left: dict[Path, Job] = {}
        self._total = 0
        self._took: dict[Path, tuple[Job, float]] = {}

    def add(self, job: Job) -> None:
        """A stage that is still to be computed; once, however many rows it serves."""
        if job.folder not in self._left:
            self._left[job.folder] = job
            self._total += 1

    def learn(self, job: Job, seconds: float) -> None:
        """What a finished stage took."""
        self._took[job.folder] = job, seconds

    def finish(self, folder: Path) -> None:
        """A stage is done with, well or not."""
        self._left.pop(folder, None)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._now() - self._start

    @property
    def left(self) -> float | None:
        """Seconds that the stages still take; None where one is of a kind of which none is done."""
        seconds = 0.0
        for job in self._left.values():
            alike = [(done.work, took) for done, took in self._took.values() if done.kind == job.kind]
            if not alike:
                return None
            seconds += job.work * sum(took for _, took in alike) / sum(work for work, _ in alike)
        return seconds

    def position(self) -> str:
        """Of the stage that begins: ``[3/8, 12 min so far, about 40 min left]``."""
        number = self._total - len(self._left) + 1
        parts = [f"{number}/{self._total}"]
        if number > 1:
            parts.append(f"{duration(self.elapsed)} so far")
        if self.left is not None:
            parts.append(f"about {duration(self.left)} left")
        return f"[{', '.join(parts)}]"


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h"
