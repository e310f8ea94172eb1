"""The explorer's own HTML: sheets of images, one image with its facts, problems. All text in it is escaped."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from formulavision.explorer.recipe_views import Picture, Sheet
from formulavision.recipes.recipe import Recipe
from formulavision.util.text import byte_size, counted, duration

if TYPE_CHECKING:
    from formulavision.comparison.pictures import Illustration
    from formulavision.comparison.wording import CellText
    from formulavision.explorer.comparison_views import Watched
    from formulavision.explorer.store_views import Statistics

__all__ = [
    "SELECT",
    "STYLE",
    "commands",
    "estimate_html",
    "facts_html",
    "gallery_html",
    "image_html",
    "lines_html",
    "picture_html",
    "problems_html",
    "results_html",
    "sheet_html",
    "statistics_html",
    "status_html",
    "store_lines",
    "table_html",
    "verified_html",
]

_LISTED = 20
"""Number of problems that are listed."""

STYLE = """
.fv-sheet { display: grid; gap: 4px; max-width: 100%; }
.fv-sheet button { padding: 0; border: 0; background: none; cursor: zoom-in; min-width: 0; }
.fv-sheet button:focus-visible { outline: 3px solid var(--color-accent); outline-offset: 1px; }
.fv-sheet img { display: block; width: 100%; }
.fv-sheet button, .fv-sheet img { margin: 0 !important; }  /* Gradio's text has margins around images */
.fv-panels { display: flex; flex-wrap: wrap; gap: 12px; }
.fv-panels figure { margin: 0; flex: 0 1 auto; max-width: 100%; }
.fv-panels img { max-width: 100%; min-width: 256px; }
.fv-pairs figure { max-width: min(392px, 100%); }
.fv-pairs img { min-width: 0; width: calc(50% - 4px); display: inline-block; }
.fv-problem { color: #b00020; font-weight: 600; margin: 4px 0; }
.dark .fv-problem { color: #ff8a8a; }
.fv-scroll { overflow-x: auto; margin-bottom: 8px; }
.fv-scroll table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.fv-scroll th, .fv-scroll td { padding: 2px 8px; text-align: right; white-space: nowrap; }
.fv-scroll table, .fv-scroll th, .fv-scroll td { border-width: 0 0 1px 0; }
.fv-code textarea { font-family: ui-monospace, monospace; font-size: 0.9em; }
#looked-at { position: sticky; top: 8px; align-self: flex-start; }
@media (max-width: 767px) {
  /* The sheet stands above the controls. */
  #looked-at { display: contents; }
  #sheets { order: -1; }
}
.fv-gallery { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr)); }
.fv-gallery figure { margin: 0; min-width: 0; }
.fv-gallery img { max-width: 100%; background: #fff; }
.fv-gallery figcaption { font-weight: 600; }
.fv-best { font-weight: 700; }
.fv-scroll th:first-child, .fv-scroll td:first-child { text-align: left; }
"""
"""The style of what this module writes."""

SELECT = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-place]');
  if (button) trigger('select', {place: button.dataset.place});
});
"""
"""The script of a sheet: a click on an image, or the Enter key, selects it."""


def image_html(png: bytes, alternative: str) -> str:
    """An image that needs no file."""
    data = base64.b64encode(png).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(alternative)}">'


def sheet_html(sheet: Sheet, name: str) -> str:
    """The images of a sheet, each a button."""
    buttons = "".join(
        f'<button type="button" data-place="{cell.label},{cell.instance}" title="{escape(cell.caption)}">'
        f"{image_html(cell.png, cell.caption)}</button>"
        for cell in sheet.cells
    )
    return (
        f'<div class="fv-sheet" role="group" aria-label="{escape(name)}" '
        f'style="grid-template-columns: repeat({sheet.columns}, minmax(0, 1fr))">{buttons}</div>'
    )


def picture_html(picture: Picture) -> str:
    """One image large, with its masks or targets and its category's parameters."""
    figures = "".join(
        f"<figure><figcaption>{escape(heading)}</figcaption>{image_html(png, f'{heading}: {picture.caption}')}</figure>"
        for heading, png in picture.panels
    )
    facts = {"index": f"{picture.index:,}", "name in a store": f"{picture.name}.png", **picture.targets}
    table = ""
    if picture.parameters:
        rows = [[f"{value:.6g}" for value in row] for row in picture.parameters]
        table = f"<p>Parameters of the category:</p>{table_html(picture.columns, rows)}"
    return f'<h3>{escape(picture.caption)}</h3><div class="fv-panels">{figures}</div>{facts_html(facts)}{table}'


def facts_html(facts: Mapping[str, str]) -> str:
    """A line for each fact."""
    return lines_html(f"{name}: {value}" for name, value in facts.items())


def lines_html(lines: Iterable[str]) -> str:
    """Lines of text."""
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def table_html(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, which scrolls where it is too wide; by the keyboard too."""
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return _table(headings, body, "table")


def _table(headings: Sequence[str], body: str, name: str) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    return (
        f'<div class="fv-scroll" tabindex="0" role="region" aria-label="{name}"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def status_html(found: Watched) -> str:
    """What of a comparison is done, is going on, failed and is missing."""
    lines = "".join(
        f'<p class="fv-problem">{escape(line)}</p>' if " failed (" in line else lines_html([line])
        for line in found.missing
    )
    return f'<div role="status">{lines_html(found.told)}</div>{lines}'


def results_html(found: Watched) -> str:
    """The table of a comparison, and the sentences on it."""
    body = "".join(
        f'<tr><th scope="row">{escape(row[0].text)}</th>' + "".join(map(_result_html, row[1:])) + "</tr>"
        for row in found.rows
    )
    arms = "".join(f"<p><b>{escape(name)}</b>: {escape(origin)}</p>" for name, origin in found.arms.items())
    table = _table([heading.text for heading in found.headings], body, "results")
    return f"{table}{lines_html(found.notes)}<details><summary>The arms</summary>{arms}</details>"


def _result_html(cell: CellText) -> str:
    note = f"<small> {escape(cell.note)}</small>" if cell.note else ""
    mark = {"best": ' class="fv-best"', "failed": ' class="fv-problem"'}.get(cell.mark, "")
    return f"<td{mark}>{escape(cell.text)}{note}</td>"


def gallery_html(galleries: Mapping[str, Sequence[Illustration]], *, captions: bool) -> str:
    """Plots, which have titles, or pictures with captions, under their headings; in place of one the reason why it is
    not there."""
    return "".join(
        f'<h3>{escape(heading)}</h3><div class="fv-gallery">'
        + "".join(_illustration_html(each, captions) for each in shown)
        + "</div>"
        for heading, shown in galleries.items()
    )


def _illustration_html(shown: Illustration, caption: bool) -> str:
    reason = shown.problem or shown.left_out
    title = f"<figcaption>{escape(shown.title)}</figcaption>" if caption or reason else ""
    content = f"<p>{escape(reason)}</p>" if reason else f'<img src="{shown.source}" alt="{escape(shown.alt)}">'
    return f"<figure>{title}{content}</figure>"


def problems_html(problems: Iterable[str]) -> str:
    """A line for each problem; nothing where there is none."""
    lines = "".join(f'<p class="fv-problem">{escape(problem.removeprefix(": "))}</p>' for problem in problems)
    return f'<div role="alert">{lines}</div>' if lines else ""


def estimate_html(recipe: Recipe, sheet: Sheet) -> str:
    """The whole of a recipe: its images, and their time and bytes as of the sheet's images."""
    images = len(recipe)
    told = [
        f"{recipe.facts()} (recipe {recipe.id})",
        f"All {counted(images, 'image')}: about {duration(images * sheet.image_seconds)} on one core of this machine "
        f"and {byte_size(images * sheet.image_bytes)} as PNGs, as measured on this sheet "
        f"({1000 * sheet.image_seconds:.2g} ms and {byte_size(sheet.image_bytes)} an image)",
    ]
    if len(sheet.cells) < sheet.wanted:
        told.append(
            f"The sheet has {len(sheet.cells)} of {sheet.wanted} images, because they take long: a smaller canvas helps"
        )
    return f'<div role="status">{lines_html(told)}</div>'


def statistics_html(found: Statistics) -> str:
    """The measures of a store, its plot, and its nearest duplicates."""
    pairs = "".join(
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f"{image_html(one, f'one image of the pair, {caption}')} {image_html(other, f'the other image, {caption}')}"
        "</figure>"
        for caption, one, other in found.pairs
    )
    if pairs:
        pairs = f'<p>Nearest duplicates:</p><div class="fv-panels fv-pairs">{pairs}</div>'
    return f"{facts_html(found.facts)}<p>{image_html(found.plot, 'gray levels and power spectrum')}</p>{pairs}"


def verified_html(checked: str, problems: Sequence[str]) -> str:
    """What ``verify`` did and found."""
    verdict = f"{counted(len(problems), 'problem')} found" if problems else "no problem found"
    return f'<div role="status">{lines_html([f"{checked}: {verdict}"])}</div>{problems_html(problems[:_LISTED])}'


def store_lines(path: str, index: int, scenes: bool) -> str:
    """The commands that verify and measure a store, and the Python lines that read the image of an index."""
    read = f"scene = store.scene({index})" if scenes else f"image, label = store.read({index}), store.label({index})"
    return (
        f"{shlex.join(['formulavision', 'verify', path])}\n\n"
        "from formulavision import Store\n\n"
        f"store = Store({path!r})\n{read}\n"
    )


def commands(recipe: Recipe, index: int) -> str:
    """The command and the Python lines that draw the recipe, and the image of an index."""
    settings = _settings(recipe)
    if settings is None:
        name, loaded, note = "recipe.yaml", "'recipe.yaml'", "# recipe.yaml: the YAML above\n"
        words = ["formulavision", "generate", name, "--out", "data/images"]
    else:
        assert recipe.generator is not None
        name, note = recipe.generator.name, ""
        loaded = f"{name!r}, {settings!r}" if settings else repr(name)
        words = ["formulavision", "generate", name, "--out", f"data/{name}"]
        words += [word for setting in settings for word in ("--set", setting)]
    return (
        f"{note}{shlex.join(words)}\n\n"
        "from formulavision import Drawer, Recipe\n\n"
        f"drawer = Drawer(Recipe.load({loaded}))\n"
        f"image, target = drawer.draw({index})\n"
    )


def _settings(recipe: Recipe) -> list[str] | None:
    """The settings by which a recipe differs from its generator's defaults; None where a file has to say it."""
    import json

    if recipe.generator is None or recipe.categories.folder is not None:
        return None
    defaults = Recipe.load(recipe.generator.name)
    data, usual = _flat(recipe.to_dict()), _flat(defaults.to_dict())
    changed = {path: value for path, value in data.items() if usual.get(path, _flat) != value}
    settings = [f"{path}={json.dumps(value, ensure_ascii=False)}" for path, value in changed.items()]
    return settings if Recipe.load(recipe.generator.name, settings).id == recipe.id else None


def _flat(data: Mapping[str, Any]) -> dict[str, Any]:
    """Values by their paths; those of a scene together."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and key != "scene":
            result |= {f"{key}.{path}": inner for path, inner in _flat(value).items()}
        else:
            result[key] = value
    return result
