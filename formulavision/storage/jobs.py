"""Jobs of a scheduler: each draws one of N shares of a store, on machines that share its folder.

On object storage there are no locks: ``remote_destination.py`` writes the claims of jobs.

Jobs hold the folder's lock only while they join. Whoever holds it and would tidy up asks first whether a job still
draws: each holds a lock of its own, which ends with its process.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from formulavision.storage.formats.format import Piece
from formulavision.storage.manifest import INCOMPLETE
from formulavision.util.errors import ConfigError, StoreError
from formulavision.util.folders import locked
from formulavision.util.text import counted

__all__ = ["COUNT", "Share", "draws", "missing_pieces", "refuse_beside_jobs"]

COUNT = f"{INCOMPLETE}/jobs"
"""The file of a store that says how many jobs draw the store."""


@dataclass(frozen=True)
class Share:
    """Every N-th piece of a store: the share of job ``number`` of ``count``."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """The share that ``3/8`` names.

        Raises:
            ConfigError: it names none.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ConfigError(f"job: '{text}' is not allowed: must be a number and how many there are: 1/8 to 8/8")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, pieces: Sequence[Piece]) -> list[Piece]:
        return [piece for piece in pieces if piece.number % self.count == self.number - 1]

    def check(self, there: int | None, root: object) -> None:
        """Refuse another number of jobs than began to draw the store in ``root``.

        Raises:
            ConfigError: it is another.
        """
        if there not in (None, self.count):
            raise ConfigError(f"job: {self}: {counted(there or 0, 'job')} began to draw {root}: give one of those")


@contextmanager
def draws(root: Path, share: Share) -> Iterator[None]:
    """Be seen to draw. Only the process that holds the folder may enter, and need not hold it within."""
    name = f"job-{share.number}-of-{share.count}-{secrets.token_hex(4)}.lock"
    with locked(root / INCOMPLETE / name, lambda: None):
        yield


def refuse_beside_jobs(root: Path) -> None:
    """Raise StoreError where a job still draws, whose files would be taken for those of a killed one."""
    for path in (root / INCOMPLETE).glob("job-*.lock"):
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            number, count = re.findall(r"\d+", path.name)[:2]
            raise StoreError(f"{root}: job {number}/{count} draws there: wait until it has ended") from None
        path.unlink(missing_ok=True)
        lock.release()


def missing_pieces(missing: Iterable[Piece], pieces: int, count: int | None) -> str:
    """Which of the pieces are missing, in words: those of which of ``count`` jobs, where jobs draw the store."""
    numbers = [piece.number for piece in missing]
    told = f"{len(numbers)} of {counted(pieces, 'piece')} {'is' if len(numbers) == 1 else 'are'} missing"
    if count is not None:
        jobs = sorted({number % count + 1 for number in numbers})
        named = ", ".join(f"{job}/{count}" for job in jobs[:10]) + (", ..." if len(jobs) > 10 else "")
        told += f", of {'job' if len(jobs) == 1 else 'jobs'} {named}"
    return told
