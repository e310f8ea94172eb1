r"""How well scores of images predict accuracy after fine-tuning: rank correlations over the results in docs/results.

    python benchmarks/score_prediction.py cifar10-cpu field-cpu gpu/table-9 paper-cpu quickstart \
      --cifar10 /path/to/cifar10

These are the folders of docs/results/score/README.md. All comparisons within a folder are read as one: name a subfolder
where its comparisons train otherwise. Writes scores.csv (a line for each recipe), correlations.csv and scores.png into
docs/results/score. Recipes that are in scores.csv already are not measured again.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import permutation_test, rankdata, zscore

import formulavision as fv
from formulavision.comparison import ComparisonSettings
from formulavision.util.config import load_yaml
from formulavision.util.files import write_png
from formulavision.util.text import read_csv, write_csv

RESULTS = Path(__file__).parents[1] / "docs" / "results"
MEASURES = ("separability", "spread", "slope", "naturalness", "duplicates", "entropy")
"""Naturalness is minus the distance of the slope to -2."""
CATEGORIES, IMAGES = 100, 1000
"""Categories and images that are measured of each recipe: separability depends on their numbers."""
FEWEST = 5
"""Arms that a rank correlation needs at least to say anything."""


class Point(NamedTuple):
    """A fine-tuned model: the group of results that can be compared, its recipe, crop of pre-training, accuracy."""

    group: str
    arm: str
    recipe: fv.Recipe
    crop: int
    accuracy: float


class Known(NamedTuple):
    """What can be measured of a comparison: recipes by the names of their arms, the model, the crop of pre-training."""

    recipes: dict[str, fv.Recipe]
    model: str
    crop: int


def recipes(file: Path) -> Known:
    """The arms of a comparison that are fine-tuned alike and pre-trained on images with one category each."""
    data = load_yaml(file)
    for arm in data["arms"].values():
        generator = arm.get("recipe", {}).get("generator", {})
        if "version" in generator and generator["name"] in ("ifs", "colored-ifs"):
            generator["version"] = 2  # version 1 drew the same categories; of ifs with other patches
    settings = ComparisonSettings.of(data, None)
    alike = {name: variant.arm.recipe for name, variant in settings.variants.items() if not variant.arm.finetune}
    images = {name: recipe for name, recipe in alike.items() if recipe is not None and not recipe.is_scene}
    return Known(images, settings.model, settings.pretrain["crop"])


def points(folders: Iterable[str]) -> Iterator[Point]:
    """Results of models that were pre-trained on recipes and fine-tuned as a whole for classification.

    A group has the results of one folder, one model and one dataset.
    """
    for folder in folders:
        yield from quickstart_points() if folder == "quickstart" else points_in(folder)


def points_in(folder: str) -> Iterator[Point]:
    for file in sorted((RESULTS / folder).glob("**/comparison.yaml")):
        known = recipes(file)
        for row in read_csv(file.with_name("results.csv")):
            whole = row["freeze"] == "none" and row["downstream"].startswith(("cifar10", "omniglot"))
            if row["arm"] in known.recipes and whole and row["top1"]:
                group = f"{folder}, {known.model}, {row['downstream']}"
                yield Point(group, row["arm"], known.recipes[row["arm"]], known.crop, float(row["top1"]))


def quickstart_points() -> Iterator[Point]:
    """The results of the quickstart's search, which only its page has."""
    known = recipes(RESULTS / "quickstart" / "search.yaml")
    text = (RESULTS / "quickstart" / "README.md").read_text()
    for arm, *scores in re.findall(r"^\| (\S+)[^|]* \| ([\d.]+)[^|]* \| ([\d.]+)[^|]* \|$", text, re.MULTILINE):
        if arm in known.recipes:
            for labels, accuracy in zip(("two a class", "five a class"), scores, strict=True):
                group = f"quickstart, {known.model}, digits, {labels}"
                yield Point(group, arm, known.recipes[arm], known.crop, float(accuracy) / 100)


def key(point: Point) -> str:
    return f"{point.recipe.id} at {point.crop}"


def correlations(some: list[Point], scores: dict[str, fv.FormulaScore]) -> list[float | None]:
    """Spearman's rank correlation of each measure with accuracy, and its p-value; None where a measure is constant."""
    # It is Pearson's of the ranks. Permutations are exact where there are few arms.
    accuracies = zscore(rankdata([point.accuracy for point in some]))
    found: list[float | None] = []
    for name in MEASURES:
        measured = [scores[key(point)] for point in some]
        values = [-abs((each.slope or 0) + 2) if name == "naturalness" else getattr(each, name) for each in measured]
        if len(set(values)) < 2:
            found += [None, None]
            continue
        rank = permutation_test(
            (zscore(rankdata(values)),), lambda x, axis: (x * accuracies).mean(axis), vectorized=True,
            permutation_type="pairings", rng=np.random.default_rng(0),
        )  # fmt: skip
        found += [round(float(rank.statistic), 2), round(float(rank.pvalue), 3)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", help="folders of docs/results, such as paper-cpu or gpu/table-9")
    parser.add_argument("--cifar10", type=Path, help="folder of CIFAR-10, whose photographs are measured, too")
    chosen = parser.parse_args()
    for folder in chosen.folders:
        if not (RESULTS / folder).is_dir():
            parser.error(f"{folder}: no folder of {RESULTS}")
    out = RESULTS / "score"
    table = out / "scores.csv"
    kinds: dict[str, Any] = {field.name: float for field in fields(fv.FormulaScore)}
    kinds |= {"name": str, "categories": int, "images": int}
    rows = read_csv(table) if table.is_file() else []
    values: list[dict[str, Any]] = [
        {name: kinds[name](row[name]) if row[name] else None for name in kinds} for row in rows
    ]
    scores = {row["key"]: fv.FormulaScore(**each) for row, each in zip(rows, values, strict=True)}

    def measure(key: str, name: str, data: Any, crop: int) -> None:
        if key not in scores:
            found = fv.score(data, categories=CATEGORIES, images=IMAGES, crop=crop)
            scores[key] = replace(found, name=name)
            print(scores[key], flush=True)
            lines = [[key, *asdict(each).values()] for key, each in scores.items()]
            write_csv(table, [["key", *kinds], *lines])

    seeds: dict[tuple[str, str], list[Point]] = {}
    for point in points(chosen.folders):
        seeds.setdefault((point.group, key(point)), []).append(point)
    every = {which: some[0]._replace(accuracy=fmean(p.accuracy for p in some)) for which, some in seeds.items()}
    for point in every.values():
        measure(key(point), f"{point.group.partition(',')[0]}: {point.arm}", point.recipe, point.crop)
    if chosen.cifar10:
        measure("photographs", "photographs: CIFAR-10", fv.open_downstream(str(chosen.cifar10)).train, 32)
    lines: list[list[Any]] = [["results", "arms", *(f"{name}{end}" for name in MEASURES for end in ("", " p"))]]
    for group in dict.fromkeys(point.group for point in every.values()):
        own = [point for point in every.values() if point.group == group]
        numbers = [scores[key(point)].categories for point in own]
        usual = max(set(numbers), key=numbers.count)
        same = [point for point, number in zip(own, numbers, strict=True) if number == usual]
        # Separability falls with the number of categories.
        for name, some in ((group, own), *([(f"{group}: those of {usual} categories", same)] if same != own else [])):
            if len(some) >= FEWEST:
                lines.append([name, len(some), *correlations(some, scores)])
                print(*lines[-1], flush=True)
    write_csv(out / "correlations.csv", lines)
    shown = [each for each in scores.values() if each.name.startswith(("gpu", "photographs"))]
    write_png(out / "scores.png", fv.score_sheet(shown))


if __name__ == "__main__":
    main()
