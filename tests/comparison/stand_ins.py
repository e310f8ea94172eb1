"""A stand-in for ``pretrain(labels=)``, until training has it: to be removed at the merge."""

from __future__ import annotations

import inspect
from typing import Any


def install() -> None:
    import formulavision.training

    pretrain = formulavision.training.pretrain
    if "labels" in inspect.signature(pretrain).parameters:
        return

    def with_labels(*what: Any, labels: Any = None, **settings: Any) -> Any:
        return pretrain(*what, **settings)

    formulavision.training.pretrain = with_labels  # type: ignore[assignment]
