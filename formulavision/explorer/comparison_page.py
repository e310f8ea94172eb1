"""The page of a comparison: what is going on, its table, its curves, and the pictures of its report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from formulavision.comparison.results import Findings
from formulavision.explorer.comparison_views import Watched, watch
from formulavision.explorer.events import DRAWING, problems_of
from formulavision.explorer.limits import Limits
from formulavision.explorer.markup import gallery_html, lines_html, problems_html, results_html, status_html
from formulavision.explorer.worker import Worker
from formulavision.util.errors import FormulaVisionError

if TYPE_CHECKING:
    from pathlib import Path

    import gradio as gr

__all__ = ["ComparisonPage"]

_SECONDS = 5
"""Time after which an open page looks again."""


class ComparisonPage:
    """Shows a comparison that is going on or done, or several joined.

    Args:
        folder: of the comparison. Visitors cannot name another.
        limits: of what visitors may ask for.

    Raises:
        ConfigError: its results are missing or damaged.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self.name = Findings.load(folder).name
        self.worker = Worker(limits, "'formulavision report' writes the same without a limit of time")

    def close(self) -> None:
        """End the process."""
        self.worker.close()

    def watch(self, known: Any) -> tuple[str, str, str, str, str] | None:
        """State, table, curves and pictures as HTML, and their version; None if all is as it was.

        Args:
            known: the version that the visitor's page has.
        """
        try:
            found: Watched | None = self.worker.call(watch, str(self.folder), str(known))
        except FormulaVisionError as error:
            return problems_html(problems_of(error)), "", "", "", ""
        if found is None:
            return None
        return (
            status_html(found),
            results_html(found),
            gallery_html(found.curves, captions=False),
            gallery_html(found.pictures, captions=True)
            or lines_html([f"None yet: 'formulavision report {self.folder}' draws them."]),
            found.version,
        )

    def build(self, blocks: gr.Blocks) -> None:
        """Lay out the page in the open context of ``blocks``."""
        import gradio as gr

        gr.Markdown(f"## Comparison {self.name}")
        status = gr.HTML(padding=False, elem_id="status")
        gr.Markdown("## Results")
        table = gr.HTML(padding=False, elem_id="shown")
        gr.Markdown("## Curves")
        curves = gr.HTML(padding=False, elem_id="curves")
        gr.Markdown("## Pictures")
        pictures = gr.HTML(padding=False, elem_id="pictures")
        version = gr.State("")
        outputs = [status, table, curves, pictures, version]

        def look(known: str) -> Any:
            return self.watch(known) or [gr.skip()] * len(outputs)

        events: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", **DRAWING}
        blocks.load(look, [version], outputs, **events)
        gr.Timer(_SECONDS).tick(look, [version], outputs, **events)
