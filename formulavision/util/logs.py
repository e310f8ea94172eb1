"""Log files beside results: notes, warnings, and tracebacks of errors."""

from __future__ import annotations

import logging
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from formulavision.util.files import write_text

__all__ = ["LOG", "logged", "note", "write_traceback"]

LOG = Path("logs/log.txt")
"""The log file in the folder of a run or a comparison."""

_logger = logging.getLogger("formulavision.log")
_logger.setLevel(logging.INFO)
_logger.propagate = False  # the terminal shows other lines
_logger.addHandler(logging.NullHandler())


def note(line: str) -> None:
    """Add a line to the log files that are open."""
    _logger.info(line)


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Write notes, warnings and the traceback of an error of the block to the folder's log file.

    An existing log is continued.
    """
    path = folder / LOG
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    show = warnings.showwarning

    def keep(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        _logger.warning(f"{filename}:{lineno}: {category.__name__}: {message}")
        show(message, category, filename, lineno, file, line)

    _logger.addHandler(handler)
    warnings.showwarning = keep
    try:
        yield
    except KeyboardInterrupt as interruption:
        note(f"stopped ({type(interruption).__name__})")
        raise
    except BaseException:
        _logger.exception("failed")
        raise
    finally:
        warnings.showwarning = show
        _logger.removeHandler(handler)
        handler.close()


def write_traceback(path: Path, error: BaseException) -> None:
    """Write an exception with its traceback and causes to a file."""
    write_text(path, "".join(traceback.format_exception(error)))
