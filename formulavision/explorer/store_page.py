"""The page of a store: its images by category, one of them large, its verification, and its statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from formulavision.explorer.events import DRAWING, MEASURING, problems_of, shown_progress, whole_number
from formulavision.explorer.limits import Limits
from formulavision.explorer.markup import (
    SELECT,
    facts_html,
    lines_html,
    picture_html,
    problems_html,
    sheet_html,
    statistics_html,
    store_lines,
    verified_html,
)
from formulavision.explorer.store_views import PAGE, browse, facts_of, measure_store, store_picture, verify_store
from formulavision.explorer.worker import Worker
from formulavision.storage.store import Store
from formulavision.util.errors import FormulaVisionError

if TYPE_CHECKING:
    import gradio as gr

__all__ = ["StorePage"]

_SAMPLE, _MOST = 100, 10_000
"""Number of images that are drawn again: at the start, and at most."""


class StorePage:
    """Shows a store.

    Args:
        path: of the store, or its URL. Visitors cannot name another.
        limits: of what visitors may ask for.

    Raises:
        StoreError: there is no store, or it is not complete.
    """

    def __init__(self, path: str, limits: Limits) -> None:
        self.path = path
        self.store = Store(path)
        self.worker = Worker(limits, "smaller images or a smaller store help")
        # Of its own: images are looked at while the store is verified.
        self.measuring = Worker(
            replace(limits, seconds=limits.long_seconds), f"'formulavision verify {path}' has no such limit"
        )

    def close(self) -> None:
        """End the processes."""
        self.worker.close()
        self.measuring.close()

    # What the events call --------------------------------------------------------------------------------------------

    def browse(self, wanted: str, page: Any, progress: Any = None) -> tuple[str, str, str, int]:
        """Problems, the images of a page, the images in words, as HTML; and the number of pages."""
        try:
            page = whole_number("page", page, 1, len(self.store)) - 1
            found = self.worker.call(browse, self.path, str(wanted)[:200], page, progress=shown_progress(progress))
        except FormulaVisionError as error:
            return problems_html(problems_of(error)), "", "", 1
        sheet = sheet_html(found.sheet, found.told)
        return problems_html(found.problems), sheet, lines_html([found.told]), found.pages

    def picture(self, index: Any) -> tuple[str, str]:
        """One image as HTML, and the lines that read it."""
        try:
            index = whole_number("index", index, 0, len(self.store) - 1)
            picture = self.worker.call(store_picture, self.path, index)
        except FormulaVisionError as error:
            return problems_html(problems_of(error)), ""
        return picture_html(picture), store_lines(self.path, index, self.store.layout.scenes is not None)

    def verify(self, sample: Any, progress: Any = None) -> str:
        """The verification as HTML."""
        try:
            sample = whole_number("images", sample, 1, _MOST)
            found = self.measuring.call(verify_store, self.path, sample, progress=shown_progress(progress))
            return verified_html(*found)
        except FormulaVisionError as error:
            return problems_html(problems_of(error))

    def measure(self, progress: Any = None) -> str:
        """The statistics as HTML."""
        try:
            return statistics_html(self.measuring.call(measure_store, self.path, progress=shown_progress(progress)))
        except FormulaVisionError as error:
            return problems_html(problems_of(error))

    # The components --------------------------------------------------------------------------------------------------

    def build(self, blocks: gr.Blocks) -> None:
        """Lay out the page in the open context of ``blocks``."""
        import gradio as gr

        watched = gr.Progress()  # as a default, it marks the argument through which Gradio shows progress
        what, last = "image" if self.store.layout.scenes is None else "scene", len(self.store) - 1
        pages = -(-len(self.store) // PAGE)
        gr.HTML(facts_html(facts_of(self.store)), padding=False)
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                gr.Markdown(f"## {what.capitalize()}s")
                with gr.Row():
                    wanted = gr.Textbox(
                        label="category", info="its name or the beginning of it; empty: all", max_lines=1, min_width=160
                    )
                    page = gr.Slider(
                        1, max(2, pages), 1, step=1, interactive=pages > 1, label="page", info=f"{PAGE} {what}s each",
                        min_width=160,
                    )  # fmt: skip
                problems = gr.HTML(padding=False)
                sheet = gr.HTML(padding=False, js_on_load=SELECT, elem_id="sheet")
                told = gr.HTML(padding=False)
            with gr.Column(scale=3, min_width=320):
                gr.Markdown(f"## One {what}")
                index = gr.Slider(
                    0, max(1, last), 0, step=1, interactive=last > 0, label="index", info=f"of the {what} in the store"
                )
                picture = gr.HTML(padding=False, elem_id="picture")
                lines = gr.Textbox(
                    label="commands and Python lines that read it", lines=6, buttons=["copy"], elem_classes="fv-code"
                )
        gr.Markdown("## Verification")
        with gr.Row():
            sample = gr.Number(
                _SAMPLE, precision=0, minimum=1, maximum=_MOST, label=f"{what}s", scale=3, min_width=160,
                info="number that is drawn again, chosen at random; the checksums of all files are compared",
            )  # fmt: skip
            start = gr.Button("Verify", size="sm", scale=1, min_width=160)
        verified = gr.HTML(padding=False, elem_id="verified")
        gr.Markdown("## Statistics")
        measure = gr.Button("Measure a sample: fill rate, gray levels, spectrum, near-duplicates", size="sm")
        measured = gr.HTML(padding=False, elem_id="measured")
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        on_sheet: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": sheet, "api_visibility": "private"}
        shown = [problems, sheet, told, page]

        def go(wanted: str, page: Any, progress: Any = watched) -> list[Any]:
            *made, pages = self.browse(wanted, page, progress)
            return [*made, gr.update(maximum=max(2, pages), interactive=pages > 1)]

        def search(wanted: str, progress: Any = watched) -> list[Any]:
            *made, pages = self.browse(wanted, 1, progress)
            return [*made, gr.update(value=1, maximum=max(2, pages), interactive=pages > 1)]

        def select(event: gr.EventData) -> int:
            return int(str(event.place).partition(",")[2])

        def verify(sample: Any, progress: Any = watched) -> str:
            return self.verify(sample, progress)

        def take_measures(progress: Any = watched) -> str:
            return self.measure(progress)

        # Gradio passes the event by the annotation, which it cannot look up: the name is a local one here.
        select.__annotations__["event"] = gr.EventData
        one = {"inputs": [index], "outputs": [picture, lines]}
        blocks.load(go, [wanted, page], shown, **on_sheet, **DRAWING).then(self.picture, **one, **quiet, **DRAWING)
        wanted.input(search, [wanted], shown, **on_sheet, **DRAWING)
        page.input(go, [wanted, page], shown, **on_sheet, **DRAWING)
        index.input(self.picture, **one, **quiet, **DRAWING)
        sheet.select(select, None, index, **quiet).then(self.picture, **one, **quiet, **DRAWING)
        start.click(verify, [sample], verified, api_visibility="private", **MEASURING)
        measure.click(take_measures, None, measured, api_visibility="private", **MEASURING)
