"""Fixtures of the tests of stores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from formulavision.storage import redrawing


@pytest.fixture
def redrawn_here() -> Iterator[None]:
    """``verify`` draws images again in this process, by the same code: a new process takes a second to start.

    The tests of generators that break their promise, in ``test_verification.py``, start the new process.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redrawing, "run_in_new_process", lambda generators, comparison: comparison.run())
        yield
