"""Server time of the explorer's sheets: 4 x 4 images at 128 pixels, from the recipe's YAML to the page's HTML.

    python benchmarks/explorer.py [GENERATOR ...]

For each generator the median time with categories that are known (aim: 150 ms) and with a new search (another seed each
time, aim: 500 ms), milliseconds, after a first sheet that starts the process and compiles.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time

from formulavision.explorer.limits import Limits
from formulavision.explorer.markup import estimate_html, sheet_html
from formulavision.explorer.recipe_page import RecipePage
from formulavision.generators.registry import plugins
from formulavision.recipes.recipe import Recipe
from formulavision.util.errors import FormulaVisionError

TIMES = 5


def seconds(page: RecipePage, text: str) -> float:
    """Time of a sheet as an event of the page makes it."""
    before = time.perf_counter()
    recipe = page.read(text)
    sheet = page.sheet(recipe, 4, 4)
    sheet_html(sheet, recipe.facts()), estimate_html(recipe, sheet), recipe.to_yaml()
    return time.perf_counter() - before


def main(names: list[str]) -> None:
    print("generator                known   new search   (ms)")
    for name in names or sorted(plugins().generators):
        try:
            recipes = [
                Recipe.load(name, ["canvas.size=128", *([f"seed={seed}"] if seed else [])]).to_yaml()
                for seed in range(TIMES + 2)
            ]
            page = RecipePage(Recipe.load(name, ["canvas.size=128"]), Limits())
            seconds(page, recipes[0])
            known = statistics.median(seconds(page, recipes[0]) for _ in range(TIMES))
            new = statistics.median(seconds(page, text) for text in recipes[2:])
        except FormulaVisionError as error:
            print(f"{name:20} {error}")
            continue
        page.close()
        print(f"{name:20} {1000 * known:9.0f} {1000 * new:12.0f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generators", nargs="*", metavar="GENERATOR", help="none: all that are installed")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["FORMULAVISION_CACHE"] = cache  # no search is found in the user's cache
        main(chosen.generators)
