"""The page of a formula or a recipe: its settings as a form and as YAML, a sheet of its images, one of them large."""

from __future__ import annotations

import base64
import itertools
from typing import TYPE_CHECKING, Any

from formulavision.explorer.events import DRAWING, problems_of, shown_progress, whole_number
from formulavision.explorer.forms import Control, change, problems_at, sections
from formulavision.explorer.limits import Limits
from formulavision.explorer.markup import (
    SELECT,
    commands,
    estimate_html,
    picture_html,
    problems_html,
    sheet_html,
)
from formulavision.explorer.recipe_views import Sheet, draw_picture, draw_sheet
from formulavision.explorer.worker import Worker
from formulavision.generators.registry import plugins
from formulavision.recipes.recipe import Recipe
from formulavision.storage.own_categories import category_files
from formulavision.util.config import dump_yaml
from formulavision.util.errors import FormulaVisionError

if TYPE_CHECKING:
    import gradio as gr

__all__ = ["RecipePage"]

_ROWS, _COLUMNS, _MOST = 4, 4, 8


class RecipePage:
    """Shows a recipe, and others that visitors make of it.

    Args:
        start: the recipe that is shown first. Only its folders of categories are read.
        limits: of what visitors may ask for.

    Raises:
        ConfigError: the recipe is larger than a limit.
    """

    def __init__(self, start: Recipe, limits: Limits) -> None:
        limits.check(start)
        self.start = start
        self.limits = limits
        self.worker = Worker(limits)
        given = [part.categories.folder for _, part in category_files(start)]
        self.folders = [folder for folder in given if folder is not None]

    def close(self) -> None:
        """End the process that draws."""
        self.worker.close()

    # What the events call --------------------------------------------------------------------------------------------

    def read(self, text: str) -> Recipe:
        """The recipe of a visitor's YAML; see :meth:`Limits.read`."""
        return self.limits.read(text, self.folders)

    def sheet(self, recipe: Recipe, rows: Any, columns: Any, progress: Any = None) -> Sheet:
        """The sheet of a recipe.

        Args:
            rows, columns: as a visitor gave them.
            progress: Gradio's.
        """
        rows, columns = (
            whole_number(name, value, 1, _MOST) for name, value in (("categories", rows), ("instances", columns))
        )
        sheet: Sheet = self.worker.call(draw_sheet, recipe, rows, columns, progress=shown_progress(progress))
        return sheet

    def picture(self, text: str, label: Any, instance: Any, progress: Any = None) -> tuple[str, str, str]:
        """One image as HTML, the lines that make it, and the link that saves its recipe."""
        try:
            recipe = self.read(text)
            label = whole_number("category", label, 0, self.limits.categories - 1)
            instance = whole_number("instance", instance, 0, 2**62)
            picture = self.worker.call(draw_picture, recipe, label, instance, progress=shown_progress(progress))
        except FormulaVisionError as error:
            return problems_html(problems_of(error)), "", ""
        content = base64.b64encode(recipe.to_yaml().encode()).decode()
        address = f"data:application/yaml;base64,{content}"
        link = f'<a download="recipe.yaml" href="{address}">Save this recipe (recipe.yaml)</a>'
        return picture_html(picture), commands(recipe, picture.index), link

    # The components --------------------------------------------------------------------------------------------------

    def build(self, blocks: gr.Blocks) -> None:
        """Lay out the page in the open context of ``blocks``."""
        import gradio as gr

        watched = gr.Progress()  # as a default, it marks the argument through which Gradio shows a search
        text = self.start.to_yaml()
        # The form is made anew when this changes; a number makes the same text another value, as controls were turned.
        numbers = itertools.count()
        given = gr.State((text, next(numbers)))
        current = gr.State(text)  # the last recipe that could be drawn
        marked = gr.State([])  # places of the controls that show a problem
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                names = sorted(plugins().generators)
                name = self.start.generator.name if self.start.generator else None
                generator = gr.Dropdown(names, value=name, label="generator", info="the family of formulas")
                scenes = gr.Checkbox(self.start.is_scene, label="scenes", info="several objects an image, composed")
                form = gr.Column()
            with gr.Column(scale=3, min_width=320, elem_id="looked-at"):
                problems = gr.HTML()
                with gr.Row(elem_id="sheets"):
                    sheet = gr.HTML(js_on_load=SELECT, elem_id="sheet")
                    kept = gr.HTML(elem_id="kept", visible=False)
                with gr.Row():
                    rows = gr.Slider(1, _MOST, _ROWS, step=1, interactive=True, label="categories shown", min_width=120)
                    columns = gr.Slider(
                        1, _MOST, _COLUMNS, step=1, interactive=True, label="instances shown", min_width=120
                    )
                status = gr.HTML()
                with gr.Row():
                    keep = gr.Button("Keep this sheet beside", size="sm")
                    forget = gr.Button("Remove the kept sheet", size="sm")
        gr.Markdown("## One image")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                with gr.Row():
                    most = min(self.start.num_categories, self.limits.categories) - 1
                    label = gr.Slider(0, max(1, most), 0, step=1, interactive=True, label="category", min_width=120)
                    instance = gr.Slider(
                        0, _last_instance(self.start), 0, step=1, interactive=True, label="instance", min_width=120
                    )
                picture = gr.HTML(elem_id="picture")
            with gr.Column(scale=2, min_width=320):
                lines = gr.Textbox(
                    label="command and Python lines that make it", lines=6, buttons=["copy"], elem_classes="fv-code"
                )
                yaml = gr.Textbox(
                    text, label="recipe (YAML)", info="may be edited: the form follows", interactive=True, lines=12,
                    max_lines=30, buttons=["copy"], elem_id="yaml", elem_classes="fv-code",
                )  # fmt: skip
                save = gr.HTML()
        one = {"inputs": [current, label, instance], "outputs": [picture, lines, save]}
        drawn = [problems, sheet, status, current, label, instance]

        def show(text: str, rows: Any, columns: Any, progress: Any) -> tuple[Recipe, list[Any]]:
            """What ``drawn`` shows of a recipe."""
            recipe = self.read(text)
            made = self.sheet(recipe, rows, columns, progress)
            most = min(recipe.num_categories, self.limits.categories) - 1
            return recipe, [
                "",
                sheet_html(made, recipe.facts()),
                estimate_html(recipe, made),
                recipe.to_yaml(),
                gr.update(maximum=max(1, most), visible=not recipe.is_scene),
                gr.update(maximum=_last_instance(recipe), label="scene" if recipe.is_scene else "instance"),
            ]

        def draw(text: str, rows: Any, columns: Any, progress: Any = watched) -> list[Any]:
            try:
                return show(text, rows, columns, progress)[1]
            except FormulaVisionError as error:
                return [problems_html(problems_of(error)), *[gr.skip()] * (len(drawn) - 1)]

        def edit(text: str, drawn_already: str, rows: Any, columns: Any, progress: Any = watched) -> list[Any]:
            if text == drawn_already:  # a control or another generator wrote it
                return ["", *[gr.skip()] * (len(drawn) + 2)]
            try:
                recipe, shown = show(text, rows, columns, progress)
            except FormulaVisionError as error:
                return [problems_html(problems_of(error)), *[gr.skip()] * (len(drawn) + 2)]
            name = recipe.generator.name if recipe.generator else None
            return [*shown, (recipe.to_yaml(), next(numbers)), gr.update(value=name), gr.update(value=recipe.is_scene)]

        def start(name: str, scenes: bool, rows: Any, columns: Any, progress: Any = watched) -> list[Any]:
            try:
                data = Recipe.from_dict({"generator": name} | ({"scene": {}} if scenes else {})).to_dict()
                recipe, shown = show(dump_yaml(data), rows, columns, progress)
            except FormulaVisionError as error:
                return [problems_html(problems_of(error)), *[gr.skip()] * (len(drawn) + 1)]
            return [*shown, (recipe.to_yaml(), next(numbers)), recipe.to_yaml()]

        def keep_sheet(text: str, rows: Any, columns: Any) -> Any:
            recipe = self.read(text)
            made = sheet_html(self.sheet(recipe, rows, columns), f"kept, {recipe.facts()}")
            return gr.update(value=f"{made}<p>kept: recipe {recipe.id}</p>", visible=True)

        def select(event: gr.EventData) -> tuple[int, int]:
            first, _, second = str(event.place).partition(",")
            return int(first), int(second)

        # Gradio passes the event by the annotation, which it cannot look up: the name is a local one here.
        select.__annotations__["event"] = gr.EventData

        size = [rows, columns]
        on_sheet: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": sheet, "api_visibility": "private"}
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

        # A picture's own progress is hidden: the sheet, which shows that of a search, comes first.
        blocks.load(draw, [current, *size], drawn, **on_sheet, **DRAWING).then(self.picture, **one, **quiet, **DRAWING)
        gr.on([current.change, label.input, instance.input], self.picture, **one, **quiet, **DRAWING)
        gr.on([c.input for c in size], draw, [current, *size], drawn, **on_sheet, **DRAWING)
        # Not yaml.input, which Gradio does not send for what is pasted.
        yaml.change(edit, [yaml, current, *size], [*drawn, given, generator, scenes], **on_sheet, **DRAWING)
        chosen = [generator.input, scenes.input]
        gr.on(chosen, start, [generator, scenes, *size], [*drawn, given, yaml], **on_sheet, **DRAWING)
        sheet.select(select, None, [label, instance], **quiet).then(self.picture, **one, **quiet, **DRAWING)
        keep.click(keep_sheet, [current, *size], kept, api_visibility="private", **DRAWING)
        forget.click(lambda: gr.update(value="", visible=False), None, kept, **quiet)

        with form:

            @gr.render(inputs=[given], triggers=[blocks.load, given.change], show_progress="hidden")
            def settings(given: tuple[str, int]) -> None:
                controls, components = [], []
                for number, section in enumerate(sections(self.read(given[0]))):
                    with gr.Accordion(section.title, open=number == 0):
                        for control in section.controls:
                            controls.append(control)
                            components.append(component(control))

                def changed(
                    text: str, rows: Any, columns: Any, marked: list[int], *shown: Any, progress: Any = watched
                ) -> list[Any]:
                    infos = {place: controls[place].info for place in marked if place < len(controls)}
                    try:
                        data = change(self.read(text), controls, shown)
                        recipe, made = show(dump_yaml(data), rows, columns, progress)
                        made = [*made, recipe.to_yaml(), []]
                    except FormulaVisionError as error:
                        at, others = problems_at(controls, problems_of(error))
                        wrong = {place: problem for place, problem in enumerate(at) if problem}
                        infos |= {place: f"⚠ {problem}" for place, problem in wrong.items()}
                        told = others + [f"{controls[place].label}: {problem}" for place, problem in wrong.items()]
                        made = [problems_html(told), *[gr.skip()] * len(drawn), list(wrong)]
                    updates = [gr.update(info=infos[p]) if p in infos else gr.skip() for p in range(len(controls))]
                    return [*made, *updates]

                gr.on(
                    [each.input for each in components],
                    changed,
                    [current, *size, marked, *components],
                    [*drawn, yaml, marked, *components],
                    **on_sheet,
                    **DRAWING,
                )


def component(control: Control) -> Any:
    """Gradio's component for a control."""
    import gradio as gr

    given: dict[str, Any] = {"value": control.value, "label": control.label, "info": control.info, "interactive": True}
    if control.kind == "switch":
        return gr.Checkbox(**given)
    if control.kind == "choice":
        return gr.Dropdown(list(control.choices), **given)
    if control.kind == "slider":
        return gr.Slider(control.low, control.high, step=control.step, **given)
    if control.kind == "number":
        # The range is checked by the recipe, which says what is wrong.
        return gr.Number(precision=0 if control.whole else None, step=1 if control.whole else 0.01, **given)
    return gr.Textbox(lines=1, max_lines=6, **given)


def _last_instance(recipe: Recipe) -> int:
    """The highest number of an instance, or of a scene."""
    most = len(recipe) if recipe.is_scene else max(part.num_instances for part in recipe.all_parts)
    return max(1, most - 1)
