"""``formulavision`` and ``python -m formulavision``: runs the command line, and answers what ends a process early."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

STOPPED, NO_READER = 130, 141
"""Exit statuses of a process that SIGINT or SIGPIPE ended, by the shells' convention."""


def main() -> None:
    """Run the command line."""
    try:
        from formulavision.cli import main as run
        from formulavision.util.interrupts import answer_signals

        # The program's end can be interrupted as its commands can.
        answer_signals()
        try:
            run()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt as error:
        # Before a command has begun, or after it has ended.
        sys.stderr.write("\nstopped\n")
        sys.exit(error.code if isinstance(error, SystemExit) else STOPPED)
    except BrokenPipeError:
        _end_without_a_reader()
    except SystemExit as error:
        # CPython dies of SIGINT at its end where one has come while it executed a text, unless another text follows.
        exec("")
        # Rich and Typer end so where nobody reads what they write.
        if error.code == 1 and isinstance(error.__context__, BrokenPipeError):
            _end_without_a_reader()
        raise


def _end_without_a_reader() -> NoReturn:
    """End quietly, as other programs do: ``formulavision plugins | head -n 1``."""
    # Or else Python would tell at its end that it cannot write the rest.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(NO_READER)


if __name__ == "__main__":
    main()
