"""Processes that begin with torch and Lightning imported: a server imports them once, and forks for each process.

A new interpreter takes five seconds for these imports.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["FORKED", "in_a_session"]

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["formulavision.training.fit"])


def in_a_session(log: Path, work: Callable[..., Any], *arguments: Any) -> None:
    """Call ``work`` as the leader of a new process group, whose processes all print to ``log``."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ["COLUMNS"] = "300"
    work(*arguments)
